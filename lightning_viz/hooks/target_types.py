"""Target: the scalar of each sample that attribution explains and `maximize` climbs; its kinds, and their algebra."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from lightning_viz.errors import InvalidArgumentError, InvalidTypeError, TargetError
from lightning_viz.hooks.layers import nearest_names
from lightning_viz.hooks.outputs import OutputMeaning, class_scores, known_labels, no_classes, no_position, two_classes
from lightning_viz.hooks.recording import Activations
from lightning_viz.hooks.target_indices import (
    Indices,
    as_indices,
    check_indices,
    indices_of,
    kept,
    listed_indices,
    picked,
)
from lightning_viz.host_copies import to_device

__all__ = ["FunctionTarget", "Target"]


class Scores(NamedTuple):
    """The scalars of a target in one pass.

    Attributes:
        values: ``[N]``, or ``[T, N]`` of several targets.
        classes: the class indices that they belong to, of the same shape; None where they are no classes.
        target: the same target with the classes named that depend on the input.
    """

    values: Tensor
    classes: Tensor | None
    target: Target


class Target(ABC):
    """A scalar for each sample, computed from what one pass recorded; targets add, subtract and scale.

    Make one by `logit`, `classes`, `top`, `region`, `unit`, `channel` or `maximum`, of words by `parse_target`, or of a
    function of one's own by `FunctionTarget`.

    Attributes:
        name: in words, ``"conv2 channel 7"``.
        layers: whose outputs it reads; of a layer that is called several times, the call: ``"relu:1"``.
        outputs: whether it reads what the model returns.

    >>> from lightning_viz.hooks import channel, logit
    >>> channel("conv2", 7) - 0.1 * logit(3) + 1
    conv2 channel 7 - 0.1 * logit 3 + 1
    """

    __array_ufunc__ = None  # a NumPy number on the left leaves the arithmetic to the target

    def __init__(self, name: str, *, layers: Sequence[str] = (), outputs: bool = False) -> None:
        self.name, self.layers, self.outputs = name, tuple(layers), outputs

    @property
    def open(self) -> bool:
        """Whether the classes depend on the input, as the predicted one does."""
        return False

    @property
    def several(self) -> bool:
        """Whether it is several targets of each sample, whose results have a leading dimension T."""
        return False

    @abstractmethod
    def scores(self, activations: Activations) -> Scores:
        """The scalars in one pass.

        Args:
            activations: what the pass recorded, the target's layers among it.

        Raises:
            InvalidArgumentError: an index that does not exist, not one per sample, or a layer that was not recorded.
            TargetError: the output is not of classes, or has none of that number.
            OutputError: it is unclear which tensor of the output is meant, or there is none.
        """

    def select(self, samples: Tensor) -> Target:
        """The target of some of the samples, or of copies of them, by their indices ``[n]`` on the CPU."""
        return self

    def check_count(self, count: int) -> None:
        """See that a target that names something for each sample does so for all of so many.

        Raises:
            InvalidArgumentError: it names more or fewer.
        """
        return

    def bind(self, labels: Tensor | None = None, class_names: Sequence[str] = ()) -> Target:
        """The target with labels and class names in place of the words ``label``, ``class:ox`` and ``region``.

        Args:
            labels: of the samples, ``[N]``, or of each pixel, ``[N, H, W]``; words that need them stay if omitted.
            class_names: in the order of the classes.

        Raises:
            InvalidArgumentError: no class has that name.
        """
        return self

    def __repr__(self) -> str:
        return self.name

    def __add__(self, other: Target | float) -> Target:
        return _combined("{} + {}", torch.add, self, other)

    def __radd__(self, other: float) -> Target:
        if isinstance(other, int) and other == 0:  # what `sum` begins with
            return self
        return _combined("{} + {}", torch.add, other, self)

    def __sub__(self, other: Target | float) -> Target:
        return _combined("{} - {}", torch.sub, self, other)

    def __rsub__(self, other: float) -> Target:
        return _combined("{} - {}", torch.sub, other, self)

    def __mul__(self, factor: float) -> Target:
        return self._refuse("times a target") if isinstance(factor, Target) else _scaled(self, factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Target:
        if isinstance(divisor, Target):
            self._refuse("over a target")
        number = _number(divisor)
        if number == 0:
            raise InvalidArgumentError(f"{self.name} / 0: give another number")
        return NotImplemented if number is None else _scaled(self, 1 / number)

    def __rtruediv__(self, number: float) -> NoReturn:
        self._refuse("as a divisor")

    def __pow__(self, exponent: float) -> NoReturn:
        self._refuse("to a power")

    def _refuse(self, what: str) -> NoReturn:
        raise InvalidTypeError(
            f"{self.name} {what}: targets add, subtract and scale by numbers; for any other function of what a pass "
            "records write FunctionTarget(name, function, layers)"
        )

    def __neg__(self) -> Target:
        return _Combination(f"-{_grouped(self)}", torch.neg, (self,))


class FunctionTarget(Target):
    """A target of one's own: a function of the recorded outputs.

    ``FunctionTarget("mean of conv1", lambda activations: activations["conv1"].mean((1, 2, 3)), ("conv1",))``.

    Args:
        name: in words.
        function: from `Activations` to a scalar for each sample, ``[N]``; it must treat the samples alike. What it
            returns beyond the first dimension is summed.
        layers: whose outputs it reads; of a layer that is called several times, the call: ``"relu:1"``.
        outputs: whether it reads what the model returns: a pass then goes to the end.
    """

    def __init__(
        self, name: str, function: Callable[[Activations], Tensor], layers: Sequence[str] = (), outputs: bool = False
    ) -> None:
        super().__init__(name, layers=layers, outputs=outputs)
        self.function = function

    def scores(self, activations: Activations) -> Scores:
        """The function's values; see `Target.scores`."""
        values = self.function(activations)
        if values.dim() == 0:
            raise InvalidArgumentError(
                f"the target function {self.name!r} returned a single number: give one scalar per sample, [N], by "
                ".mean((1, 2, 3)), say"
            )
        return Scores(values if values.dim() == 1 else values.flatten(1).sum(1), None, self)


class ClassTarget(Target):
    """The score of a class: of the model's output, summed over its places or over those of a mask.

    Of a single logit z the class 1 has the score z and 0 has -z (of a probability p and 1 - p); what such a model
    predicts is told by the sign where it is known to tell two classes apart, else the predicted class's score is the
    output itself, as of a regression.

    Attributes:
        index: the class, one for each sample, or several; None for the strongest.
        count: so many of the strongest, as several targets.
        mask: the places that count, ``[H, W]`` or ``[N, H, W]``; all if None.
        word: what stands for the class until labels or class names are known, ``"label"`` or ``"class:ox"``.
        position: in a sequence ``[N, T, K]``.
        labels: whether the indices are the samples' labels: those that name no class give way to the predicted one.
    """

    def __init__(
        self,
        index: Indices | None = None,
        *,
        count: int | None = None,
        mask: Tensor | None = None,
        word: str | None = None,
        position: int | None = None,
        labels: bool = False,
    ) -> None:
        index = kept(index)
        name = word or ("predicted class" if index is None else f"logit {listed_indices(index)}")
        name = f"top {count} classes" if count is not None else name
        name = name if position is None else f"{name} at position {position}"
        super().__init__(name if mask is None else f"{name} in a region", outputs=True)
        self.index, self.count, self.mask, self.word = index, count, mask, word
        self.position, self.labels = position, labels

    @property
    def open(self) -> bool:
        return self.index is None or self.labels

    @property
    def several(self) -> bool:
        return self.count is not None or (self.index is not None and as_indices(self.index).dim() == 2)

    def scores(self, activations: Activations) -> Scores:
        if self.word is not None:
            raise InvalidArgumentError(
                f"target {self.word!r} needs the samples' labels or the classes' names, which are not known here: give "
                "numbers of classes, one for all or one per sample"
            )
        scores, meaning = self._placed(*activations.scores())
        table, index = class_scores(scores, meaning, self.mask), self.index
        numbers = meaning.kind in ("features", "images")
        if numbers and self.open:
            raise no_classes(scores, meaning)
        if table.shape[1] == 1 and not numbers:
            if meaning.kind == "regression" or index is None:
                return self._alone(table, meaning)
            table = two_classes(table, meaning)
        if self.count is not None:
            if self.count > table.shape[1]:
                raise TargetError(f"top({self.count}): the model has {table.shape[1]} outputs")
            index = table.detach().topk(self.count, 1).indices.T
        elif index is None:
            index = table.detach().argmax(1)
        elif self.labels:
            labels = known_labels(as_indices(index).long(), table.shape[1])
            labels = to_device(labels, table.device)
            index = torch.where(labels < 0, table.detach().argmax(1), labels)
        values, chosen = picked(table, index, "target class", "outputs")
        return Scores(values, chosen, self._of(chosen) if self.open else self)

    def _placed(self, scores: Tensor, meaning: OutputMeaning) -> tuple[Tensor, OutputMeaning]:
        """The scores at the target's position of a sequence."""
        if meaning.kind != "tokens" and self.position is None:
            return scores, meaning
        if self.position is None:
            raise no_position(scores)
        if scores.dim() != 3 or self.position >= scores.shape[1]:
            raise TargetError(f"token[{self.position}]: the model returns {list(scores.shape)}, where [N, T, K] has T")
        return scores[:, self.position], OutputMeaning(squashed=meaning.squashed)

    def _alone(self, table: Tensor, meaning: OutputMeaning) -> Scores:
        """The only number ``[N, 1]``, which is of no class."""
        index = as_indices(0 if self.index is None or self.labels else self.index)
        if (self.count or 1) > 1 or bool((index != 0).any()):
            what = f"top({self.count})" if self.count else f"target {sorted(set(index.flatten().tolist()))}"
            raise TargetError(f"{what}: the model returns one number for each sample, target 0")
        values = table[:, 0].expand(*index.shape[: index.dim() - 1], len(table)) if index.dim() > 1 else table[:, 0]
        return Scores(values, None, self)

    def _of(self, index: Indices | None) -> ClassTarget:
        """The same of other classes."""
        return ClassTarget(index, mask=self.mask, position=self.position)

    def select(self, samples: Tensor) -> Target:
        mask = self.mask
        if mask is not None and mask.dim() == 3:
            mask = mask[to_device(samples, mask.device)]
        index = None if self.index is None else indices_of(self.index, samples)
        return ClassTarget(
            index, count=self.count, mask=mask, word=self.word, position=self.position, labels=self.labels
        )

    def check_count(self, count: int) -> None:
        if self.mask is not None and self.mask.dim() == 3 and len(self.mask) != count:
            raise InvalidArgumentError(
                f"{len(self.mask)} masks for {count} samples: give one [H, W], or one per sample [N, H, W]"
            )
        if self.index is not None:
            check_indices(as_indices(self.index).shape, count)

    def bind(self, labels: Tensor | None = None, class_names: Sequence[str] = ()) -> Target:
        kind, _, label = (self.word or "").partition(":")
        if kind == "class":
            return ClassTarget(_class_index(label, class_names), mask=self.mask)
        if kind == "label" and labels is not None and labels.dim() == 1:
            return ClassTarget(labels, mask=self.mask, labels=True)
        if kind == "region" and labels is not None and labels.dim() == 3:
            if label:
                index = _class_index(label, class_names)
                return ClassTarget(index, mask=labels == index)
            largest = torch.stack([torch.bincount(mask[mask > 0].long(), minlength=1).argmax() for mask in labels])
            return ClassTarget(largest, mask=labels == largest[:, None, None])
        return self


class _Combination(Target):
    """A sum, difference or multiple of targets."""

    def __init__(self, name: str, function: Callable[..., Tensor], parts: Iterable[Target]) -> None:
        self._function, self._parts = function, tuple(parts)
        layers = dict.fromkeys(layer for part in self._parts for layer in part.layers)
        super().__init__(name, layers=tuple(layers), outputs=any(part.outputs for part in self._parts))

    @property
    def open(self) -> bool:
        return any(part.open for part in self._parts)

    @property
    def several(self) -> bool:
        return any(part.several for part in self._parts)

    def scores(self, activations: Activations) -> Scores:
        scores = [part.scores(activations) for part in self._parts]
        values = self._function(*(score.values for score in scores))
        return Scores(values, None, self._of(score.target for score in scores) if self.open else self)

    def select(self, samples: Tensor) -> Target:
        return self._of(part.select(samples) for part in self._parts)

    def check_count(self, count: int) -> None:
        for part in self._parts:
            part.check_count(count)

    def bind(self, labels: Tensor | None = None, class_names: Sequence[str] = ()) -> Target:
        return self._of(part.bind(labels, class_names) for part in self._parts)

    def _of(self, parts: Iterable[Target]) -> Target:
        return _Combination(self.name, self._function, parts)


class SideBySide(_Combination):
    """Several targets, of each sample all of them; see `Target.several`.

    Args:
        parts: none of which is several itself.
    """

    def __init__(self, parts: Iterable[Target]) -> None:
        self.parts = tuple(parts)
        super().__init__(", ".join(part.name for part in self.parts), _stacked, self.parts)

    @property
    def several(self) -> bool:
        return True

    def _of(self, parts: Iterable[Target]) -> Target:
        return SideBySide(parts)


def _stacked(*values: Tensor) -> Tensor:
    return torch.stack(values)


def _combined(form: str, function: Callable[..., Tensor], first: Target | float, second: Target | float) -> Target:
    """Two targets, or a target and a number, as one; what is neither is left to Python."""
    parts = [part if isinstance(part, Target) else _number(part) for part in (first, second)]
    if parts[0] is None or parts[1] is None:
        return NotImplemented  # type: ignore[no-any-return]
    first, second = parts[0], parts[1]
    name = form.format(_named(first), _named(second) if function is torch.add else _grouped(second))
    if not isinstance(first, Target):
        function = partial(function, first)
    elif not isinstance(second, Target):
        function = partial(function, other=second)
    return _Combination(name, function, [part for part in (first, second) if isinstance(part, Target)])


def _number(value: object) -> float | None:
    """A finite number, also one of NumPy's or a tensor of one value, as Python's; None if it is none.

    Raises:
        InvalidArgumentError: it is NaN or infinite.
    """
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex() and value.dtype != torch.bool:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if not math.isfinite(value):
        raise InvalidArgumentError(f"a target and {value}: give a finite number")
    return float(value)


def _scaled(target: Target, factor: float) -> Target:
    return _combined("{} * {}", torch.mul, factor, target)


def _named(part: Target | float) -> str:
    return part.name if isinstance(part, Target) else f"{part:g}"


def _grouped(part: Target | float) -> str:
    name = _named(part)
    return f"({name})" if " + " in name or " - " in name else name


def _class_index(name: str, class_names: Sequence[str]) -> int:
    """A class's number, of its name."""
    if name in class_names:
        return list(class_names).index(name)
    if name.isdecimal():
        return int(name)
    nearest = nearest_names(name, class_names)
    known = f"did you mean {', '.join(map(repr, nearest))}?" if nearest else f"known are {_some_names(class_names)}"
    raise InvalidArgumentError(f"no class is called {name!r}: {known}")


def _some_names(names: Sequence[str]) -> str:
    return (", ".join(map(repr, names[:8])) or "none; give its number") + ", ..." * (len(names) > 8)
