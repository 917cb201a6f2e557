"""The probe: a small fixed set of samples, the same at every step and after a resume, so that pictures compare."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.hooks.model_state import same_randomness
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


def shown(inputs: Any) -> Tensor:
    """What of the inputs pictures show: the image among them, else the first tensor."""
    image = image_of(inputs)
    return all_tensors(inputs)[0] if image is None else image


def balanced(labels: Sequence[int | None], count: int, seed: int) -> list[int]:
    """Positions of samples, picked at random, the classes in turn as far as each of them goes.

    Args:
        labels: of all samples; None where one is not known.
        count: how many to pick; more begin with the same.
        seed: of the choice.

    >>> labels = [0, 0, 0, 1, 1, 2]
    >>> sorted(labels[index] for index in balanced(labels, 3, seed=0))
    [0, 1, 2]
    """
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    rounds: defaultdict[int | None, int] = defaultdict(int)
    ranked = []
    for place, index in enumerate(order):
        label = labels[index]
        ranked.append((rounds[label], -1 if label is None else label, place, index))
        rounds[label] += 1
    return [index for *_, index in sorted(ranked)[:count]]


def known_labels(dataset: Any) -> list[int | None] | None:
    """The labels that a data set lists (``targets``, ``labels``, or its second tensor); None where it does not."""
    if isinstance(dataset, Subset):
        inner = known_labels(dataset.dataset)
        return None if inner is None else [inner[index] for index in dataset.indices]
    listed = next(
        (found for name in ("targets", "labels") if (found := getattr(dataset, name, None)) is not None), None
    )
    tensors = getattr(dataset, "tensors", None)
    if listed is None and isinstance(tensors, (tuple, list)) and len(tensors) > 1:
        listed = tensors[1]
    if listed is None:
        return None
    try:
        values = torch.as_tensor(listed)
    except (TypeError, ValueError, RuntimeError):
        return None
    return (
        values.tolist()
        if values.dim() == 1 and not values.is_floating_point() and len(values) == len(dataset)
        else None
    )


def class_names(dataset: Any) -> tuple[str, ...]:
    """The names of the classes where the data set, or one that it wraps, knows them."""
    while dataset is not None:
        names = getattr(dataset, "classes", None)
        if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
            return tuple(names)
        dataset = getattr(dataset, "dataset", None)
    return ()


def split_batch(batch: Any, model: nn.Module) -> tuple[Any, Tensor | None]:
    """What of a batch the model's ``forward`` takes, and the labels.

    A dict is matched with the names of ``forward``'s parameters; of a sequence the first elements are taken, as many
    as ``forward`` requires. Labels are the first one-dimensional tensor of whole numbers that is left.

    Args:
        batch: as a loader gives it.
        model: whose ``forward`` tells what it takes.

    Raises:
        TypeError: the batch holds no tensor that could be an input.
    """
    inputs, left = _split(batch, model)
    return inputs, _labels(left)


def dense_truth(batch: Any, model: nn.Module) -> Tensor | None:
    """What of a batch a dense model is to predict: the first masks or images that its ``forward`` does not take.

    Args:
        batch: as a loader gives it.
        model: whose ``forward`` tells what it takes.
    """
    _, left = _split(batch, model)
    return next((one for one in left if isinstance(one, Tensor) and is_dense(one)), None)


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


def indexed_batches(loader: DataLoader[Any], seed: int, picks: Sequence[int]) -> list[Any]:
    """Batches of samples of a loader's data set, fetched so that neither data set nor generators notice.

    In one forked worker, under a fixed seed; where processes cannot be forked, from a deep copy.

    Args:
        loader: whose data set and ``collate_fn`` to use.
        seed: of whatever is random in the data set.
        picks: indices of the samples.
    """
    dataset = loader.dataset
    forks = "fork" in multiprocessing.get_all_start_methods()
    subset: Dataset[Any] = Subset(dataset if forks else copy.deepcopy(dataset), list(picks))
    with same_randomness(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside threads
        torch.manual_seed(seed)
        fetched = DataLoader(
            subset,
            batch_size=_BATCH,
            collate_fn=loader.collate_fn,
            num_workers=1 if forks else 0,
            multiprocessing_context="fork" if forks else None,
            worker_init_fn=_seeded if forks else None,
            timeout=300 if forks else 0,
        )
        return [map_tensors(batch, torch.clone) for batch in fetched]  # out of the worker's shared memory


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


def _required(model: nn.Module) -> list[str]:
    """Names of the parameters that ``forward`` cannot do without."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in positional and one.default is inspect.Parameter.empty]


def _labels(candidates: list[Any]) -> Tensor | None:
    whole = [one for one in candidates if isinstance(one, Tensor) and not one.is_floating_point()]
    first = next((one for one in whole if one.dim() == 1 or is_dense(one)), None)
    return None if first is None or is_dense(first) else first.long()  # after masks come numbers of samples, say


def _seeded(worker: int) -> None:
    """Every library's generator from torch's seed, in the worker."""
    import random

    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


def is_indexable(dataset: Any) -> bool:
    """Whether samples can be asked for by number."""
    return not isinstance(dataset, IterableDataset) and hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
