"""What a batch holds, by what it is for: told by the module's own step, by names, or by the parameters of `forward`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lightning_viz.callbacks.true_objects import objects_of
from lightning_viz.errors import InvalidTypeError
from lightning_viz.hooks.calls import Call, CallStep, Slot, as_call, padded
from lightning_viz.hooks.detection import Detections
from lightning_viz.hooks.outputs import BINARY_LOSSES, MULTI_LABEL_LOSSES, REGRESSION_LOSSES
from lightning_viz.hooks.pytree import Path, all_tensors, map_leaves, part_at, sample_count

LABEL_NAMES = ("y", "label", "labels", "target", "targets", "class", "classes", "mask", "masks")
REMEDY = "give probe=Probe(inputs=..., labels=...): tensors, or names of the batch's fields"


class BatchParts(NamedTuple):
    """What a batch holds, by what it is for.

    Attributes:
        inputs: what the model takes.
        labels: classes ``[n]``; None where there are none.
        truth: what a dense model is to predict: masks ``[n, H, W]`` or images ``[n, C, H, W]``; of a multi-label one
            zeros and ones ``[n, K]``; None likewise.
        objects: what a detector is to find in each image; None likewise.
    """

    inputs: Any
    labels: Tensor | None
    truth: Tensor | None
    objects: tuple[Detections, ...] | None = None


@dataclass(frozen=True)
class Source:
    """A part of a batch, and what the step does to it before the model takes it.

    Attributes:
        path: keys into the batch.
        order: of its dimensions; as they are if None.
        scale: by which its values are multiplied, one number or one for each channel; None if they are as they are.
        offset: that is then added.
        dtype: to which it is converted.
        listed: of a list of images ``[C, H, W]``: ``"images"`` for them, padded to one size, ``"sizes"`` for their
            heights and widths ``[N, 2]``.
    """

    path: Path
    order: tuple[int, ...] | None = None
    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None
    dtype: torch.dtype | None = None
    listed: str = ""

    def of(self, batch: Any) -> Tensor:
        """The tensor of a batch, as the model takes it.

        Args:
            batch: of the form of the one that was watched.

        Raises:
            InvalidTypeError: the batch has no such part.
        """
        value = field_at(batch, self.path)
        if self.listed and isinstance(value, (list, tuple)):
            return padded(value)[self.listed == "sizes"]
        if not isinstance(value, Tensor):
            raise InvalidTypeError(
                f"{path_words(self.path)} is a {type(value).__name__}, where the step that was watched had a tensor"
            )
        if self.order is not None:
            value = value.permute(self.order).contiguous()
        if self.scale is not None and self.offset is not None:
            shape = (1, -1, *[1] * (value.dim() - 2)) if len(self.scale) > 1 else (1,)
            value = value.float()
            value = value * value.new_tensor(self.scale).view(shape) + value.new_tensor(self.offset).view(shape)
        return value if self.dtype is None else value.to(self.dtype)

    def words(self, shape: Sequence[int] | None = None) -> str:
        """In words: ``batch[0] flattened to [N, 784]``.

        Args:
            shape: to which each sample is then reshaped; None if it is not.
        """
        done = []
        if self.order is not None:
            done.append(f"permuted to {list(self.order)}")
        if self.scale is not None:
            done.append("normalized" if len(self.scale) > 1 else f"times {self.scale[0]:.3g}")
        elif self.dtype is not None:
            done.append(f"as {str(self.dtype).removeprefix('torch.')}")
        if shape is not None:
            done.append(f"{'flattened' if len(shape) == 1 else 'reshaped'} to [N, {', '.join(map(str, shape))}]")
        if self.listed:
            done.append("as a list")
        return " ".join([path_words(self.path), ", ".join(done)]).strip()


@dataclass(frozen=True)
class BatchReading:
    """How the parts of a batch go into the model, as its own step does it.

    Attributes:
        sources: of the call's tensors in the batch; None for what only the step itself can make.
        steps: the modules called, in order.
        labels: where the labels are in the batch; None where no part of it meets the output.
        loss: name of the loss that the output goes into, ``"cross_entropy"``; empty if none was seen.
        squashed: ``"softmax"`` or ``"sigmoid"`` if the output comes out of one; empty otherwise.
        logarithm: whether the loss is given the logarithm of the output.
        scores: keys of the tensor that the loss is given, in what the model returns; None if it was not seen.
        direct: whether the loss is given a number for each of the output's, not similarities of samples, say.
        shift: what the step adds to the labels; None if it changes them otherwise.
        paired: whether the labels only tell which samples are alike.
        itself: whether the loss compares the output with an input, as an autoencoder's does.
        made: the inputs as the step made them, of the first samples; None where all come from the batch.
        made_labels: the labels of these samples.
    """

    sources: tuple[Source | None, ...]
    steps: tuple[CallStep, ...] = (CallStep(),)
    labels: Path | None = None
    loss: str = ""
    squashed: str = ""
    logarithm: bool = False
    scores: Path | None = None
    direct: bool = True
    shift: int | None = 0
    paired: bool = False
    itself: bool = False
    made: Any = None
    made_labels: Tensor | None = None

    @property
    def complete(self) -> bool:
        """Whether the inputs of any batch can be told."""
        return None not in self.sources

    @property
    def plain(self) -> bool:
        """Whether it goes without saying: the batch, or its first part, is what the model itself takes."""
        first = self.sources[0] if len(self.sources) == 1 else None
        usual = self.labels in (None, (1,)) and not self.shifted
        return first in (Source(()), Source((0,))) and self.steps == (CallStep(),) and usual

    @property
    def compared(self) -> str:
        """What of the batch the step compares the output with: ``"labels"``, ``"inputs"`` or ``"nothing"``.

        Noise that the step makes is nothing of the batch. Empty if no loss was seen.
        """
        if self.labels is not None:
            return "labels"
        return "inputs" if self.itself else "nothing" if self.loss else ""

    def split(self, batch: Any) -> BatchParts:
        """The parts of a batch, as the step tells them apart.

        Args:
            batch: as a loader gives it.

        Raises:
            InvalidTypeError: it has not the form of the batch that was watched.
        """
        if not self.complete:
            raise InvalidTypeError(f"{self.words()}: {REMEDY}")
        sources = [source for source in self.sources if source is not None]
        inputs, objects = self.inputs([source.of(batch) for source in sources]), objects_of(batch)
        return BatchParts(inputs, *self.truth(batch)) if objects is None else BatchParts(inputs, None, None, objects)

    def truth(self, batch: Any) -> tuple[Tensor | None, Tensor | None]:
        """Labels and truth of a batch, see `BatchParts`.

        Args:
            batch: of the form of the one that was watched.
        """
        paths = [source.path for source in self.sources if source is not None]
        labels, truth = labels_of(batch, paths, self.labels, self.loss)
        if labels is not None and self.labels is not None:
            labels = None if self.shift is None else labels + self.shift
        return labels, truth

    def inputs(self, tensors: Sequence[Tensor]) -> Any:
        """The call's tensors in the plainest form: a tensor, a tuple or a dict where the model itself takes them so."""
        step, slots = self.steps[-1], [Slot(index) for index in range(len(tensors))]
        if len(self.steps) == 1 and not step.module:
            if not step.keywords and list(step.arguments) == slots:
                return tensors[0] if len(tensors) == 1 else tuple(tensors)
            if not step.arguments and list(step.keywords.values()) == slots:
                return dict(zip(step.keywords, tensors, strict=True))
        return Call(tuple(tensors), self.steps)

    @property
    def shifted(self) -> bool:
        """Whether the step changes the labels before it compares the output with them."""
        return self.shift != 0

    def words(self) -> str:
        """In one line: ``inputs: batch[0] flattened to [N, 784]; labels: batch[2]``."""
        shapes: dict[int, tuple[int, ...] | None] = {}
        for step in self.steps:
            map_leaves((step.arguments, step.keywords), Slot, lambda slot: shapes.setdefault(slot.index, slot.shape))
        parts = [
            "made by the step itself" if source is None else source.words(shapes.get(index))
            for index, source in enumerate(self.sources)
            if source is None or source.listed != "sizes"
        ]
        modules = [step.module for step in self.steps if step.module]
        replayed = next((step.replay[0] for step in self.steps if step.replay is not None), None)
        through = f", through {' and '.join(modules)}" if modules else ""
        through += f" as in {replayed}" if replayed else ""
        labels = "none" if self.labels is None else path_words(self.labels)
        if self.labels is not None and self.shifted:
            labels += ", changed to what is not known" if self.shift is None else f" {self.shift:+d}"
        return f"inputs: {', '.join(dict.fromkeys(parts))}{through}; labels: {labels}"


_READINGS: WeakKeyDictionary[nn.Module, BatchReading] = WeakKeyDictionary()


def reading_of(model: nn.Module) -> BatchReading | None:
    """How a model's own step was seen to call it; None if it has not been watched, or called no module.

    Args:
        model: the LightningModule.
    """
    return _READINGS.get(model)


def keep_reading(model: nn.Module, reading: BatchReading | None) -> None:
    """Have all who split batches of a model do so by a reading; by `forward` alone if it is None.

    Args:
        model: the LightningModule.
        reading: of its step, or as a user names the fields.
    """
    _READINGS.pop(model, None)
    if reading is not None:
        _READINGS[model] = reading


def split_batch(batch: Any, model: nn.Module, reading: BatchReading | None = None) -> BatchParts:
    """The parts of a batch: as its step was seen to tell them apart, else as the model's ``forward`` does.

    Without a reading the model's ``example_input_array`` tells, if it has one. Otherwise a dict is matched with the
    names of ``forward``'s parameters; of a sequence the first elements are taken, as many as ``forward`` requires. Of
    what is left, labels are the first tensor of whole numbers, if it is one-dimensional, and the truth is the first
    that has places.

    Args:
        batch: as a loader gives it.
        model: to be run on it.
        reading: of the model's step, where it was watched.

    Raises:
        InvalidTypeError: the batch holds no tensor that could be an input.
    """
    reading = reading or _of_example(model, batch)
    if reading is not None:
        return reading.split(batch)
    inputs, left = _split(batch, model)
    objects = objects_of(batch)
    return (
        BatchParts(inputs, *_labels_among(left, sample_count(inputs)))
        if objects is None
        else BatchParts(inputs, None, None, objects)
    )


def _of_example(model: nn.Module, batch: Any) -> BatchReading | None:
    """How a Lightning module's ``example_input_array`` says that it is called; None without one that fits the batch."""
    example = getattr(model, "example_input_array", None)
    examples = (example,) if isinstance(example, Tensor) else example
    if not isinstance(examples, tuple) or not isinstance(batch, (tuple, list)) or len(examples) > len(batch):
        return None
    slots = []
    for index, (x, part) in enumerate(zip(examples, batch, strict=False)):
        if (
            not all(isinstance(y, Tensor) and y.dim() > 0 and len(y) for y in (x, part))
            or x[0].numel() != part[0].numel()
        ):
            return None
        slots.append(Slot(index, None if x.shape[1:] == part.shape[1:] else tuple(x.shape[1:])))
    return BatchReading(tuple(Source((slot.index,)) for slot in slots), (CallStep(arguments=tuple(slots)),))


def labels_of(
    batch: Any, inputs: Sequence[Path], labels: Path | None, loss: str = ""
) -> tuple[Tensor | None, Tensor | None]:
    """Classes and truth of a batch, see `BatchParts`.

    Args:
        batch: as a loader gives it.
        inputs: where its inputs are.
        labels: where its labels are; looked for among the rest if None.
        loss: name of the loss that they go into; empty if it is not known.
    """
    if labels is not None:
        value = field_at(batch, labels)
        return told_labels(value, loss) if isinstance(value, Tensor) else (None, None)
    rest = {path: x for path, x in tensors_of(batch) if not any(path[: len(used)] == used for used in inputs)}
    named = [x for path, x in rest.items() if path and path[-1] in LABEL_NAMES]
    given = [part for path in inputs if isinstance(part := field_at(batch, path), (list, tuple, Tensor))]
    count = next((len(part) for part in given if not isinstance(part, Tensor) or part.dim()), 0)
    return _labels_among(named or list(rest.values()), count)


def _labels_among(parts: Sequence[Any], count: int = 0) -> tuple[Tensor | None, Tensor | None]:
    """Classes and truth among parts of a batch of so many samples; not known if 0."""
    tensors = [part for part in parts if isinstance(part, Tensor) and count in (0, *part.shape[:1])]
    whole = [part for part in tensors if not part.is_floating_point()]
    first = next((part for part in whole if part.dim() == 1 or is_dense(part)), None)
    labels = None if first is None or is_dense(first) else first.long()  # after masks come numbers of samples, say
    return labels, next(filter(is_dense, tensors), None)


def told_labels(value: Tensor, loss: str) -> tuple[Tensor | None, Tensor | None]:
    """Classes and truth where labels are known to be: also whole numbers written as floats, one-hot and multi-hot."""
    if is_dense(value):
        return None, value
    if value.dim() == 2 and value.shape[1] == 1:
        value = value[:, 0]
    whole = not value.is_floating_point() or bool((value == value.round()).all())
    if value.dim() == 1:
        classes = whole and (not value.is_floating_point() or (loss != "" and loss not in REGRESSION_LOSSES))
        return (value.long() if classes else None), None
    if value.dim() != 2 or (loss in REGRESSION_LOSSES and not whole) or bool(((value < 0) | (value > 1)).any()):
        return None, None
    each = loss in BINARY_LOSSES | MULTI_LABEL_LOSSES
    if not each and bool(((value.float().sum(1) - 1).abs() < 1e-3).all()):  # one class, or shares of classes
        return value.argmax(1), None
    return None, value.long() if whole else None


def is_dense(truth: Tensor) -> bool:
    """Whether a truth has places: masks ``[N, H, W]`` of whole numbers, or images ``[N, C, H, W]``."""
    return truth.dim() == 4 or (truth.dim() == 3 and not truth.is_floating_point())


def tensors_of(structure: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """All tensors of a batch with their paths, in order."""
    if isinstance(structure, Tensor):
        yield path, structure
    elif isinstance(structure, Mapping):
        for key in structure:
            yield from tensors_of(structure[key], (*path, key))
    elif isinstance(structure, (tuple, list)):
        for index, part in enumerate(structure):
            yield from tensors_of(part, (*path, index))
    elif is_dataclass(structure) and not isinstance(structure, type):
        for field in fields(structure):
            yield from tensors_of(getattr(structure, field.name), (*path, field.name))


def field_at(structure: Any, path: Path) -> Any:
    """The part of a batch at a path.

    Raises:
        InvalidTypeError: there is none.
    """
    try:
        return part_at(structure, path)
    except (KeyError, IndexError, AttributeError, TypeError):
        raise InvalidTypeError(f"a batch of type {type(structure).__name__} has no {path_words(path)}") from None


def path_words(path: Path) -> str:
    """A path as it is written in a step: ``batch[0]["image"]``."""
    return "batch" + "".join(f"[{key!r}]" for key in path)


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
                raise InvalidTypeError(f"no input among the batch's keys {list(batch)}: {REMEDY}")
            name = max(floats, key=lambda key: floats[key].dim())
            inputs, used = floats[name], {name}
        rest = {name: x for name, x in batch.items() if name not in used}
        return inputs, [rest[name] for name in LABEL_NAMES if name in rest] or list(rest.values())
    if isinstance(batch, (tuple, list)) and batch:
        if isinstance(batch[0], (tuple, list)) and len(takes) <= 1 and isinstance(images := as_call([*batch[0]]), Call):
            return images, list(batch[1:])
        if isinstance(batch[0], (tuple, list, Mapping)):
            inputs = tuple(batch[0]) if isinstance(batch[0], list) else batch[0]
            return inputs, list(batch[1:])
        count = max(1, min(len(takes), len(batch)))
        inputs = batch[0] if count == 1 else tuple(batch[:count])
        if all_tensors(inputs):
            return inputs, list(batch[count:])
    raise InvalidTypeError(f"no input found in a batch of type {type(batch).__name__}: {REMEDY}")


def _required(model: nn.Module) -> list[str]:
    """Names of the parameters that ``forward`` cannot do without."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        parameter.name
        for parameter in parameters
        if parameter.kind in positional and parameter.default is inspect.Parameter.empty
    ]
