"""The model under study, with samples of its data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.callbacks.probe import Samples
from lightning_viz.hooks.pytree import first_tensor, image_of, on_device
from lightning_viz.pixels import PixelSpace
from lightning_viz.render.tiles import Verdict, to_rgb

__all__ = ["ModelUnderStudy"]


@dataclass(frozen=True)
class ModelUnderStudy:
    """A model and samples of its data, on which techniques run.

    Attributes:
        name: of the model, as reports call it.
        model: in eval mode, where it is to run.
        samples: of its data, on the CPU; the first `samples.head` are those that pictures show.
        pixel_space: how its inputs map to pixels.
        step: completed updates of its weights.
        seed: of everything random.
        conflicts: folder of images with one class's shape and another's texture, if there is one.
        progress: show bars while techniques run.
    """

    name: str
    model: nn.Module
    samples: Samples
    pixel_space: PixelSpace
    step: int = 0
    seed: int = 0
    conflicts: Path | None = None
    progress: bool = False

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
        """The model's outputs for the first samples, on the CPU: scores ``[n, K]`` or maps ``[n, K, H, W]``.

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

    def first(self, count: int) -> ModelUnderStudy:
        """The same model with fewer samples.

        Args:
            count: of samples, at most.
        """
        samples = self.samples
        fewer = replace(
            samples,
            inputs=samples.part(0, count),
            labels=None if samples.labels is None else samples.labels[:count],
            head=min(samples.head, count),
            indices=None if samples.indices is None else samples.indices[:count],
            truths=None if samples.truths is None else samples.truths[:count],
        )
        return replace(self, samples=fewer)

    def rgb(self, inputs: Tensor) -> Any:
        """Inputs ``[N, C, H, W]`` as they are shown, uint8 ``[N, H, W, 3]``."""
        return to_rgb(self.pixel_space.to_pixels(inputs.detach().cpu().float()).numpy())

    def verdicts(self, classes: Tensor, confidences: Tensor) -> list[Verdict]:
        """What stands under the samples' images: truth, prediction, confidence.

        Args:
            classes: the predicted ones ``[N]``.
            confidences: in them ``[N]``.
        """
        name, labels = self.samples.name, self.labels
        truths = [None] * len(classes) if labels is None else [name(label) for label in labels.tolist()]
        predictions = zip(truths, classes.tolist(), confidences.tolist(), strict=True)
        return [Verdict(truth, name(prediction), confidence) for truth, prediction, confidence in predictions]
