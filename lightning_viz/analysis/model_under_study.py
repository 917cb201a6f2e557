"""The model under study, with samples of its data: what techniques require of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.analysis.image_files import read_image
from lightning_viz.analysis.results import rows_of
from lightning_viz.callbacks.probe import Samples
from lightning_viz.errors import AnalysisError, InvalidArgumentError, OutputError, UnsuitableModelError, ViewError
from lightning_viz.hooks.batching import choose_batch_size
from lightning_viz.hooks.calls import call_model
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.outputs import (
    OutputMeaning,
    class_probabilities,
    interpret,
    keep_knowledge,
    knowledge_of,
    known_labels,
    watching_squashing,
)
from lightning_viz.hooks.pytree import all_tensors, device_of, image_of, map_tensors, on_device, part_at
from lightning_viz.pixels import PixelSpace, clamp_inputs
from lightning_viz.render.tiles import Verdict, neutral, to_rgb

__all__ = ["ModelUnderStudy"]

_SLACK = 0.02  # of the pixels' range: by how much augmentation may leave it


def of_one_tensor(model: nn.Module, samples: Samples) -> tuple[nn.Module, Samples]:
    """A model that takes one tensor, for one that takes a single tensor in another way, and samples to match.

    ``forward(batch)``, ``forward(pixel_values=...)`` and a step that flattens images before ``net(x)`` are such ways.
    Modules, weights and state are those of the model itself.

    Args:
        model: as it is.
        samples: as the model takes them.
    """
    inputs = samples.inputs
    if isinstance(inputs, Tensor) or len(all_tensors(inputs)) != 1:
        return model, samples
    plain = type(model).__new__(type(model))
    plain.__dict__ = {**model.__dict__, "forward": lambda x: call_model(model, map_tensors(inputs, lambda _: x))}
    keep_knowledge(plain, knowledge_of(model))
    return plain, replace(samples, inputs=all_tensors(inputs)[0])


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
        private: whether the samples are not to be shown.
    """

    name: str
    model: nn.Module
    samples: Samples
    pixel_space: PixelSpace
    step: int = 0
    seed: int = 0
    conflicts: Path | None = None
    progress: bool = False
    private: bool = False

    @property
    def images(self) -> Tensor | None:
        """The samples' images ``[N, C, H, W]`` as the model takes them; None where it takes none, or more besides."""
        inputs = self.samples.inputs
        return inputs if isinstance(inputs, Tensor) and image_of(inputs) is inputs else None

    @property
    def labels(self) -> Tensor | None:
        """The samples' classes ``[N]``; None where they are not known, or the model is not to predict them."""
        return self.samples.true_classes

    def outputs(self, count: int) -> Tensor | None:
        """The model's outputs for the first samples, on the CPU: scores ``[n, K]`` or maps ``[n, K, H, W]``.

        Args:
            count: of samples.
        """
        batches = self.samples.batches(0, min(count, len(self.samples)))
        parts = [self._scores(on_device(self.model, batch)) for batch in batches]
        tensors = [part[0].cpu() for part in parts if part is not None]
        return torch.cat(tensors) if len(tensors) == len(parts) else None

    def _scores(self, inputs: Any) -> tuple[Tensor, OutputMeaning] | None:
        """The scores that the model returns, and what they mean; None if it is unclear which they are."""
        with watching_squashing(self.model, differentiates=False) as watch, torch.no_grad():
            outputs = call_model(self.model, inputs)
        try:
            meaning = interpret(self.model, outputs, watch)
        except OutputError:
            return None
        return part_at(outputs, meaning.path), meaning

    @cached_property
    def meaning(self) -> OutputMeaning:
        """What the model's output means."""
        part = self._scores(on_device(self.model, self.samples.part(0, 1)))
        return OutputMeaning() if part is None else part[1]

    @cached_property
    def classes(self) -> int:
        """Number of classes K among the outputs ``[n, K, ...]``; 0 if they have none."""
        outputs = self.outputs(1)
        if outputs is None or outputs.dim() == 0 or (outputs.dim() == 1 and not self.classifies):
            return 0
        return 2 if self.classifies and (outputs.dim() == 1 or outputs.shape[1] == 1) else outputs.shape[1]

    @cached_property
    def classifies(self) -> bool:
        """Whether the model tells one of several classes of each image."""
        if self.images is None:
            return False
        outputs = self.outputs(2)
        if outputs is None or outputs.dim() not in (1, 2):
            return False
        meaning = self.meaning
        several = outputs.dim() == 2 and outputs.shape[1] > 1
        return meaning.kind == "binary" or (several and meaning.classifies)

    def first(self, count: int) -> ModelUnderStudy:
        """The same model with fewer samples.

        Args:
            count: of samples, at most.
        """
        samples = self.samples
        known = {name: getattr(samples, name) for name in ("labels", "indices", "truths")}
        fewer: dict[str, Any] = {name: value[:count] for name, value in known.items() if value is not None}
        fewer |= {"inputs": samples.part(0, count), "head": min(samples.head, count)}
        return replace(self, samples=replace(samples, **fewer))

    def rgb(self, inputs: Tensor) -> Any:
        """Inputs ``[N, C, H, W]`` as they are shown, uint8 ``[N, H, W, 3]``; an even ground if they are private."""
        shown = to_rgb(self.pixel_space.to_pixels(inputs.detach().cpu().float()).numpy())
        return neutral(shown) if self.private else shown

    def verdicts(self, classes: Tensor, confidences: Tensor) -> list[Verdict]:
        """What stands under the samples' images: truth, prediction, confidence.

        Args:
            classes: the predicted ones ``[N]``.
            confidences: in them ``[N]``.
        """
        name, labels = self.samples.name, self.labels
        known = [-1] * len(classes) if labels is None else known_labels(labels, max(self.classes, 2)).tolist()
        truths = [name(label) if label >= 0 else None for label in known]
        predictions = zip(truths, classes.tolist(), confidences.tolist(), strict=True)
        return [Verdict(truth, name(prediction), confidence) for truth, prediction, confidence in predictions]

    def require_images(self) -> Tensor:
        """The samples' images ``[N, C, H, W]`` on the model's device.

        Raises:
            UnsuitableModelError: the model takes no image, or other inputs as well.
        """
        if self.images is None:
            raise UnsuitableModelError(f"{self.name} does not take one image [N, C, H, W] alone, as this requires")
        return self.images.to(device_of(self.model))

    def require_classifier(self) -> None:
        """Require a model that classifies images.

        Raises:
            UnsuitableModelError: it does not.
        """
        if not self.classifies:
            raise UnsuitableModelError(f"{self.name} is not a classifier of images, as this requires")

    def predictions(self) -> tuple[Tensor, Tensor]:
        """The predicted class of each sample and the confidence in it, ``[N]`` each, on the CPU.

        Raises:
            UnsuitableModelError: the model is not a classifier of images.
            AnalysisError: the model returns NaN or infinity.
        """
        self.require_classifier()
        outputs = self.outputs(len(self.samples))
        assert outputs is not None
        lost = int((~outputs.reshape(len(outputs), -1).isfinite().all(1)).sum())
        if lost:
            raise AnalysisError(
                f"the model returns NaN or infinity for {lost} of {len(outputs)} samples: look for NaN in its weights, "
                "or give an earlier checkpoint"
            )
        confidences, classes = class_probabilities(outputs, self.meaning).max(1)
        return classes, confidences

    def probabilities(self, inputs: Tensor) -> Tensor:
        """The probability of each class, ``[n, K]``, on the CPU.

        Args:
            inputs: as it takes them.
        """
        with evaluation_mode(self.model):
            part = self._scores(inputs)
        assert part is not None
        return class_probabilities(*part).cpu()

    def bounded_images(self) -> Tensor:
        """A classifier's images, clamped to the range of pixels, from which augmentation may have moved them a little.

        Raises:
            UnsuitableModelError: the model is not a classifier of images, or the images lie outside that range.
            AnalysisError: the model returns NaN or infinity.
        """
        self.predictions()
        try:
            return clamp_inputs(self.require_images(), self.pixel_space, _SLACK)
        except ViewError as error:
            raise UnsuitableModelError(
                f"{self.name}: {error} (on the command line --pixel_space.mean and --pixel_space.std)"
            ) from error

    def true_classes(self) -> Tensor:
        """The samples' classes ``[N]``, as the data have them, on the model's device.

        Raises:
            UnsuitableModelError: they are not known.
        """
        if self.labels is None:
            raise UnsuitableModelError("the samples' true classes are not known: give data with labels")
        return self.labels.to(device_of(self.model))

    def true_or_predicted_classes(self) -> Tensor:
        """The samples' true classes ``[N]``, or the predicted ones if these are not known, on the model's device."""
        return self.true_classes() if self.labels is not None else self.predictions()[0].to(device_of(self.model))

    def class_index(self, text: int | str) -> int:
        """The number of a class.

        Args:
            text: its number, ``3``, or its name, ``class:ox``.

        Raises:
            InvalidArgumentError: there is no such class.
        """
        word = str(text)
        if word.isdecimal():
            return int(word)
        names = list(self.samples.class_names)
        name = word.removeprefix("class:")
        if name in names:
            return names.index(name)
        known = ", ".join(map(repr, names[:8])) or "none"
        raise InvalidArgumentError(
            f"{word!r} is no class: give '3' or 'class:ox', of {known}{', ...' * (len(names) > 8)}"
        )

    def image(self, text: str) -> Tensor:
        """An image as the model takes it ``[C, H, W]``.

        Args:
            text: an image file, scaled to the shorter side of the samples, or the number of a sample.

        Raises:
            InvalidArgumentError: there is no such sample, or the file is not an image.
        """
        from torchvision.transforms.functional import pil_to_tensor, resize  # which takes a while to import

        images = self.require_images()
        if text.isdecimal():
            if int(text) >= len(images):
                raise InvalidArgumentError(f"there is no sample {text}: {len(images)} samples are numbered from 0")
            return images[int(text)]
        channels, *sides = images.shape[1:]
        image = read_image(Path(text)).convert("L" if channels == 1 else "RGB")
        scaled = pil_to_tensor(resize(image, min(sides), antialias=True))[None].float() / 255
        return self.pixel_space.to_inputs(scaled.to(images))[0]

    def sample_rows(self, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A table with a row for each sample: its number in the data set, its true class, and what was measured.

        Args:
            columns: by name, a value for each sample ``[N]``.
        """
        count = len(next(iter(columns.values())))
        first = {
            "sample": list(self.samples.indices or range(count))[:count],
            "truth": [None] * count if self.labels is None else self.labels[:count].tolist(),
        }
        return rows_of({**first, **{name: column.tolist() for name, column in columns.items()}})

    def batch_size(self, given: int | None = None) -> int:
        """The size of batches, such that results do not depend on how fast a machine is.

        Args:
            given: the size that is asked for.
        """
        return given or choose_batch_size(self.require_images()[0].numel())

    def settings(self, function: Callable[..., Any]) -> dict[str, Any]:
        """The study's own pixel space, seed and progress, as far as a function has such arguments.

        Args:
            function: to be called.
        """
        taken = inspect.signature(function).parameters
        return {name: getattr(self, name) for name in ("pixel_space", "seed", "progress") if name in taken}


def to_display(pixels: Tensor, pixel_space: PixelSpace | None = None) -> Any:
    """Pixels ``[N, C, H, W]`` as pages take them, uint8 ``[N, H, W, 3]``.

    Args:
        pixels: from 0 to 1, or within the bounds of a space.
        pixel_space: that has the bounds.
    """
    low, high = (0.0, 1.0) if pixel_space is None else pixel_space.bounds
    return to_rgb(((pixels.detach() - low) / (high - low)).float().cpu().numpy())
