"""What a study looks at: a model, samples of its data, and how they are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.callbacks.probe import Samples
from lightning_viz.hooks.pytree import device_of, first_tensor, image_of, on_device
from lightning_viz.pixels import PixelSpace
from lightning_viz.render.tiles import Verdict, to_rgb

__all__ = ["ModelUnderStudy"]


@dataclass(frozen=True)
class ModelUnderStudy:
    """A model and samples that it is asked about.

    Attributes:
        name: of the model, as reports call it.
        model: in eval mode, where it is to run.
        samples: of its data, on the CPU; the first `samples.head` are those that pictures show.
        pixel_space: how its inputs map to pixels.
        step: completed updates of its weights.
        seed: of whatever is random in a study.
        conflicts: folder of images with one class's shape and another's texture, if there is one.
    """

    name: str
    model: nn.Module
    samples: Samples
    pixel_space: PixelSpace
    step: int = 0
    seed: int = 0
    conflicts: Path | None = None

    @property
    def images(self) -> Tensor | None:
        """The samples' images ``[N, C, H, W]`` as the model takes them; None where it takes none, or more besides."""
        inputs = self.samples.inputs
        return inputs if isinstance(inputs, Tensor) and image_of(inputs) is inputs else None

    @property
    def labels(self) -> Tensor | None:
        """The samples' classes ``[N]``; None where they are not known."""
        return self.samples.labels

    def outputs(self, count: int) -> Tensor | None:
        """What the model says of the first samples, on the CPU: scores ``[n, K]`` or maps ``[n, K, H, W]``.

        Args:
            count: of samples.
        """
        with torch.no_grad():
            parts = [
                first_tensor(self.model(on_device(self.model, batch)))
                for batch in self.samples.batches(0, min(count, len(self.samples)))
            ]
        return (
            None if any(part is None for part in parts) else torch.cat([one.cpu() for one in parts if one is not None])
        )

    @property
    def classifies(self) -> bool:
        """Whether the model tells one of several classes of each image."""
        if self.images is None:
            return False
        outputs = self.outputs(2)
        return outputs is not None and outputs.dim() == 2 and outputs.shape[1] > 1

    def some(self, count: int) -> tuple[Tensor, Tensor]:
        """The first samples where the model is, and their classes: the true ones, or what the model says.

        Args:
            count: of samples.
        """
        images = self.images
        assert images is not None
        device = device_of(self.model)
        count = min(count, len(images))
        labels = self.labels
        if labels is None:
            outputs = self.outputs(count)
            assert outputs is not None
            labels = outputs.argmax(1)
        return images[:count].to(device), labels[:count].to(device)

    def rgb(self, inputs: Tensor) -> Any:
        """Inputs ``[N, C, H, W]`` as they are shown, uint8 ``[N, H, W, 3]``."""
        return to_rgb(self.pixel_space.to_pixels(inputs.detach().cpu().float()).numpy())

    def verdicts(self, labels: Tensor | None, classes: Tensor, confidences: Tensor) -> list[Verdict]:
        """What stands under images: truth, prediction, confidence.

        Args:
            labels: the true classes ``[N]``, if known.
            classes: the predicted ones ``[N]``.
            confidences: in them ``[N]``.
        """
        truths = [None] * len(classes) if labels is None else [self.samples.name(one) for one in labels.tolist()]
        said = zip(truths, classes.tolist(), confidences.tolist(), strict=True)
        return [Verdict(truth, self.samples.name(one), share) for truth, one, share in said]
