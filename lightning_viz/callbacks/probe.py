"""The probe: a small fixed set of samples, the same at every step and after a resume, so that pictures compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_viz.callbacks.batch_parts import BatchReading, Source
from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.hooks.calls import CallStep, Slot
from lightning_viz.hooks.detection import Detections
from lightning_viz.hooks.observe import Forward
from lightning_viz.hooks.pytree import Path, all_tensors, image_of, map_tensors
from lightning_viz.host_copies import pinned, send
from lightning_viz.pixels import PixelSpace
from lightning_viz.plain_text import plain_text

__all__ = ["Probe"]

IGNORE_INDEX = 255
"""Label of pixels that do not count, in the masks of PASCAL VOC and most data sets since."""
_BATCH = 64
_BATCH_VALUES = 2**21  # of one input at most: a batch of 13 images of 3 x 224 x 224, whose activations stay small


@dataclass(frozen=True)
class Probe:
    """Which samples to watch.

    Attributes:
        source: the data set of ``"val"`` (the training one where there is none) or of ``"train"``.
        samples: the head, which goes forward and backward; pictures of single samples show these. 16 by default.
        seed: for which samples are picked.
        inputs: the samples themselves, as the model takes them, instead of a source; or the field of the batches that
            holds them: its name or number, ``"image"``, a tuple of them for a field within a field, ``("views", 0)``, a
            list for several inputs. Where it is omitted, the module's own step tells.
        labels: their classes ``[N]``; of a dense model the masks ``[N, H, W]`` or images ``[N, C, H, W]`` to predict;
            or the field of the batches, as for `inputs`.
        forward: calls the model, ``forward(model, inputs)``, if its step is not to tell how.

    >>> Probe(inputs="image", labels=("target", "class"))
    Probe(source='val', samples=16, seed=0)
    """

    source: Literal["val", "train"] = "val"
    samples: int = 16
    seed: int = 0
    inputs: Any = field(default=None, repr=False)
    labels: Any = field(default=None, repr=False)
    forward: Forward | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.source not in ("val", "train"):
            raise InvalidArgumentError(f"source is {self.source!r}: give 'val' or 'train', or inputs")
        if self.samples < 1:
            raise InvalidArgumentError(f"samples is {self.samples}: give 1 or more")

        if self.forward is not None and not callable(self.forward):
            raise InvalidTypeError(
                f"forward is a {type(self.forward).__name__}: give a function forward(model, inputs)"
            )

    @property
    def given(self) -> bool:
        """Whether it holds the samples themselves."""
        return self.inputs is not None and not self.named

    @property
    def named(self) -> bool:
        """Whether it names the field of the batches that holds the inputs."""
        return bool(_paths(self.inputs))

    def key(self) -> tuple[Any, ...]:
        """Equal for probes that hold the same samples."""
        inputs = str(self.inputs) if self.named or self.inputs is None else id(self.inputs)
        return self.source, self.samples, self.seed, inputs, id(self.forward) if self.forward else None

    def reading(self, watched: BatchReading | None) -> BatchReading | None:
        """How batches are split: by the fields that are named, and else as the step was seen to.

        Args:
            watched: the reading of the step; None if it has not been watched.
        """
        paths, labels = _paths(self.inputs), next(iter(_paths(self.labels)), None)
        if paths:
            steps = (CallStep(arguments=tuple(map(Slot, range(len(paths))))),)
            return BatchReading(tuple(map(Source, paths)), steps, labels)
        return watched if watched is None or labels is None else replace(watched, labels=labels, shift=0, paired=False)


def as_probe(value: Any) -> Probe:
    """A view's probe, as it may be written: a number of samples, ``"val"``, ``"train"``, or a `Probe`.

    Args:
        value: as a user writes it.

    Raises:
        InvalidTypeError: it is none of these.

    >>> as_probe(8)
    Probe(source='val', samples=8, seed=0)
    """
    if isinstance(value, Probe):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Probe(samples=value)
    if isinstance(value, str):
        return Probe(source=value)  # type: ignore[arg-type]
    raise InvalidTypeError(f"probe is a {type(value).__name__}: give a Probe, a number of samples, 'val' or 'train'")


def _paths(value: Any) -> list[Path]:
    """The fields of a batch that an argument names; none where it holds tensors."""
    if isinstance(value, list) and value and all(isinstance(part, (str, tuple)) for part in value):
        return [path for part in value for path in _paths(part)]
    if isinstance(value, tuple) and value and all(isinstance(part, (str, int)) for part in value):
        return [value]
    return [(value,)] if isinstance(value, (str, int)) else []


@dataclass(frozen=True)
class Samples:
    """The samples of a probe, on the CPU, as the model takes them.

    Attributes:
        inputs: in the model's form (tensor, tuple, dict), of all samples.
        labels: classes ``[N]``; None where they are not known.
        head: how many of them go backward as well.
        class_names: by class index; empty where they are not known.
        pixel_space: how the inputs map to pixels.
        indices: of the samples in their data set; None where it cannot be indexed.
        notes: what should be said of them.
        pixel_space_guessed: whether the pixel space is a guess from the samples' range.
        truths: what a dense model is to predict for the head: masks of classes ``[n, H, W]``, or images
            ``[n, C, H, W]``; of a multi-label one zeros and ones ``[n, K]``; None where the batches hold no such thing.
        objects: what a detector is to find in each image of the head; None likewise.
        compared: what of a batch the step compares the output with, see `BatchReading.compared`.
    """

    inputs: Any
    labels: Tensor | None
    head: int
    class_names: tuple[str, ...] = ()
    pixel_space: PixelSpace | None = None
    indices: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    pixel_space_guessed: bool = False
    truths: Tensor | None = None
    objects: tuple[Detections, ...] | None = None
    compared: str = ""

    @property
    def true_classes(self) -> Tensor | None:
        """The labels, if the model is to predict them as far as is known; None if its loss is of something else."""
        return None if self.compared in ("inputs", "nothing") else self.labels

    @property
    def unlabeled(self) -> bool:
        """Whether nothing was found that the model is to predict, which is said."""
        found = self.labels is not None or self.truths is not None or self.objects is not None
        return bool(all_tensors(self.inputs)) and not found and not self.compared

    def __len__(self) -> int:
        return len(all_tensors(self.inputs)[0])

    @property
    def pixel_space_notes(self) -> tuple[str, ...]:
        """What should be said of images that are shown by the samples' own pixel space."""
        return ("pixel range guessed from the samples: give pixel_space=",) if self.pixel_space_guessed else ()

    def part(self, start: int, stop: int) -> Any:
        """The inputs of some samples."""
        return map_tensors(self.inputs, lambda x: x[start:stop])

    def head_on(self, device: torch.device) -> Any:
        """The inputs of the head on a device; to a GPU they go from pinned memory, where they are copied once."""
        head = self.part(0, self.head) if device.type == "cpu" else self._pinned_head
        return map_tensors(head, lambda x: send(x, device))

    @cached_property
    def _pinned_head(self) -> Any:
        return map_tensors(self.part(0, self.head), pinned)

    def batches(self, start: int, stop: int) -> Iterator[Any]:
        """The inputs from one sample to before another, in batches."""
        values = max(x[:1].numel() for x in all_tensors(self.inputs))
        size = max(1, min(_BATCH, _BATCH_VALUES // max(1, values)))
        return (self.part(first, min(first + size, stop)) for first in range(start, stop, size))

    def name(self, label: int) -> str:
        """What a class is called."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)


def displayed_input(inputs: Any) -> Tensor:
    """The input that pictures display: the image among the inputs, else the first tensor."""
    image = image_of(inputs)
    return all_tensors(inputs)[0] if image is None else image


def find_class_names(dataset: Any) -> tuple[str, ...]:
    """The names of the classes where the data set, or one that it wraps, knows them; as names of folders, harmless."""
    while dataset is not None:
        names = getattr(dataset, "classes", None)
        if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
            return tuple(map(plain_text, names))
        dataset = getattr(dataset, "dataset", None)
    return ()


def infer_pixel_space(dataset: Any, inputs: Any) -> tuple[PixelSpace, bool]:
    """How inputs map to pixels, by the data set's ``Normalize`` or guessed from their range, and whether it's a guess.

    Args:
        dataset: whose transforms to search; None where there is no data set.
        inputs: as the model takes them.
    """
    image, found = displayed_input(inputs), PixelSpace.of_transform(dataset)
    shown = image.is_floating_point() and image.dim() in (4, 5)  # as an image or as slices
    if not shown or (found is not None and len(found.mean) in (1, image.shape[1])):
        return found or PixelSpace(), False
    guessed = PixelSpace.guess(image)
    return guessed, guessed != PixelSpace()
