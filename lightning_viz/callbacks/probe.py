"""The probe: a small fixed set of samples, the same at every step and after a resume, so that pictures compare."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.hooks.pytree import all_tensors, image_of, map_tensors
from lightning_viz.pixels import PixelSpace

__all__ = ["Probe"]

IGNORE_INDEX = 255
"""Label of pixels that do not count, in the masks of PASCAL VOC and most data sets since."""
_LABEL_NAMES = ("y", "label", "labels", "target", "targets", "class", "classes", "mask", "masks")
_BATCH = 64
_BATCH_VALUES = 2**21  # of one input at most: a batch of 13 images of 3 x 224 x 224, whose activations stay small
_REMEDY = "give the samples to watch, probe=Probe(inputs=..., labels=...)"


@dataclass(frozen=True)
class Probe:
    """Which samples to watch.

    Attributes:
        source: the data set of ``"val"`` (the training one where there is none) or of ``"train"``.
        samples: the head, which goes forward and backward; pictures of single samples show these. 16 by default.
        seed: for which samples are picked.
        inputs: the samples themselves, as the model takes them, instead of a source.
        labels: their classes ``[N]``; of a dense model the masks ``[N, H, W]`` or images ``[N, C, H, W]`` to predict.
    """

    source: Literal["val", "train"] = "val"
    samples: int = 16
    seed: int = 0
    inputs: Any = field(default=None, repr=False)
    labels: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.source not in ("val", "train"):
            raise InvalidArgumentError(f"source is {self.source!r}: give 'val' or 'train', or inputs")
        if self.samples < 1:
            raise InvalidArgumentError(f"samples is {self.samples}: give 1 or more")

    def key(self) -> tuple[Any, ...]:
        """Equal for probes that hold the same samples."""
        return self.source, self.samples, self.seed, id(self.inputs) if self.inputs is not None else None


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
            ``[n, C, H, W]``; None where the batches hold no such thing.
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

    def __len__(self) -> int:
        return len(all_tensors(self.inputs)[0])

    @property
    def pixel_space_notes(self) -> tuple[str, ...]:
        """What should be said of images that are shown by the samples' own pixel space."""
        return ("pixel range guessed from the samples: give pixel_space=",) if self.pixel_space_guessed else ()

    def part(self, start: int, stop: int) -> Any:
        """The inputs of some samples."""
        return map_tensors(self.inputs, lambda x: x[start:stop])

    def batches(self, start: int, stop: int) -> Iterator[Any]:
        """The inputs from one sample to before another, in batches."""
        values = max(x[:1].numel() for x in all_tensors(self.inputs))
        size = max(1, min(_BATCH, _BATCH_VALUES // max(1, values)))
        return (self.part(first, min(first + size, stop)) for first in range(start, stop, size))

    def name(self, label: int) -> str:
        """What a class is called."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)


class BatchParts(NamedTuple):
    """What a batch holds, by what it is for.

    Attributes:
        inputs: what the model's ``forward`` takes.
        labels: classes ``[n]``; None where there are none.
        truth: what a dense model is to predict: masks ``[n, H, W]`` or images ``[n, C, H, W]``; None likewise.
    """

    inputs: Any
    labels: Tensor | None
    truth: Tensor | None


def split_batch(batch: Any, model: nn.Module) -> BatchParts:
    """The parts of a batch, as the model's ``forward`` tells them apart.

    A dict is matched with the names of ``forward``'s parameters; of a sequence the first elements are taken, as many
    as ``forward`` requires. Of what is left, labels are the first tensor of whole numbers, if it is one-dimensional,
    and the truth is the first that has places.

    Args:
        batch: as a loader gives it.
        model: to be run on it.

    Raises:
        InvalidTypeError: the batch holds no tensor that could be an input.
    """
    inputs, left = _split(batch, model)
    tensors = [part for part in left if isinstance(part, Tensor)]
    whole = [part for part in tensors if not part.is_floating_point()]
    first = next((part for part in whole if part.dim() == 1 or is_dense(part)), None)
    labels = None if first is None or is_dense(first) else first.long()  # after masks come numbers of samples, say
    return BatchParts(inputs, labels, next(filter(is_dense, tensors), None))


def is_dense(truth: Tensor) -> bool:
    """Whether a truth has places: masks ``[N, H, W]`` of whole numbers, or images ``[N, C, H, W]``."""
    return truth.dim() == 4 or (truth.dim() == 3 and not truth.is_floating_point())


def _split(batch: Any, model: nn.Module) -> tuple[Any, list[Any]]:
    """What of a batch the model takes, and what is left, the likeliest labels first."""
    takes = _required(model)
    if isinstance(batch, Tensor):
        return batch, []
    if isinstance(batch, Mapping):
        matched = {name: batch[name] for name in takes if name in batch}
        if len(matched) == len(takes) and matched:
            inputs: Any = next(iter(matched.values())) if len(matched) == 1 else matched
            used = set(matched)
        else:
            floats = {name: x for name, x in batch.items() if isinstance(x, Tensor) and x.is_floating_point()}
            if not floats:
                raise InvalidTypeError(
                    f"no input among the batch's keys {list(batch)}: give probe=Probe(inputs=..., labels=...)"
                )
            name = max(floats, key=lambda key: floats[key].dim())
            inputs, used = floats[name], {name}
        rest = {name: x for name, x in batch.items() if name not in used}
        return inputs, [rest[name] for name in _LABEL_NAMES if name in rest] or list(rest.values())
    if isinstance(batch, (tuple, list)) and batch:
        if isinstance(batch[0], (tuple, list, Mapping)):
            inputs = tuple(batch[0]) if isinstance(batch[0], list) else batch[0]
            return inputs, list(batch[1:])
        count = max(1, min(len(takes), len(batch)))
        inputs = batch[0] if count == 1 else tuple(batch[:count])
        if all_tensors(inputs):
            return inputs, list(batch[count:])
    raise InvalidTypeError(
        f"no input found in a batch of type {type(batch).__name__}: give probe=Probe(inputs=..., labels=...)"
    )


def _required(model: nn.Module) -> list[str]:
    """Names of the parameters that ``forward`` cannot do without."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in positional and one.default is inspect.Parameter.empty]


def displayed_input(inputs: Any) -> Tensor:
    """The input that pictures display: the image among the inputs, else the first tensor."""
    image = image_of(inputs)
    return all_tensors(inputs)[0] if image is None else image


def find_class_names(dataset: Any) -> tuple[str, ...]:
    """The names of the classes where the data set, or one that it wraps, knows them."""
    while dataset is not None:
        names = getattr(dataset, "classes", None)
        if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
            return tuple(names)
        dataset = getattr(dataset, "dataset", None)
    return ()


def infer_pixel_space(dataset: Any, inputs: Any) -> tuple[PixelSpace, bool]:
    """How inputs map to pixels, by the data set's ``Normalize`` or guessed from their range, and whether it's a guess.

    Args:
        dataset: whose transforms to search; None where there is no data set.
        inputs: as the model takes them.
    """
    image = image_of(inputs)
    found = PixelSpace.of_transform(dataset)
    if image is None or (found is not None and len(found.mean) in (1, image.shape[1])):
        return found or PixelSpace(), False
    guessed = PixelSpace.guess(image)
    return guessed, guessed != PixelSpace()
