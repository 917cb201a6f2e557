"""Target: the scalar of each sample that attribution explains and `maximize` climbs; targets add and scale."""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.recording import Activations

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

    @abstractmethod
    def scores(self, activations: Activations) -> Scores:
        """The scalars in one pass.

        Args:
            activations: what the pass recorded, the target's layers among it.

        Raises:
            InvalidArgumentError: an index that does not exist, not one per sample, or a layer that was not recorded.
            InvalidTypeError: the model's output holds no floating-point tensor with a sample dimension.
        """

    def select(self, samples: Tensor) -> Target:
        """The target of some of the samples, or of copies of them.

        Args:
            samples: which of them, ``[n]``, on the CPU.
        """
        return self

    def check_count(self, count: int) -> None:
        """See that a target that names something for each sample does so for all.

        Args:
            count: how many samples there are.

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
        return _combined("{} + {}", torch.add, self, other) if _is_term(other) else NotImplemented

    def __radd__(self, other: float) -> Target:
        if isinstance(other, int) and other == 0:  # what `sum` begins with
            return self
        return _combined("{} + {}", torch.add, other, self) if _is_term(other) else NotImplemented

    def __sub__(self, other: Target | float) -> Target:
        return _combined("{} - {}", torch.sub, self, other) if _is_term(other) else NotImplemented

    def __rsub__(self, other: float) -> Target:
        return _combined("{} - {}", torch.sub, other, self) if _is_term(other) else NotImplemented

    def __mul__(self, factor: float) -> Target:
        if isinstance(factor, Target) or not _is_term(factor):
            return NotImplemented
        return _combined("{} * {}", torch.mul, factor, self)

    __rmul__ = __mul__

    def __neg__(self) -> Target:
        return _Combination(f"-{_grouped(self)}", lambda values: -values, (self,))


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


class _Combination(Target):
    """A sum, difference or multiple of targets."""

    def __init__(self, name: str, function: Callable[..., Tensor], parts: Sequence[Target | float]) -> None:
        targets = [part for part in parts if isinstance(part, Target)]
        layers = dict.fromkeys(layer for target in targets for layer in target.layers)
        super().__init__(name, layers=tuple(layers), outputs=any(target.outputs for target in targets))
        self._function, self._parts, self._targets = function, tuple(parts), targets

    @property
    def open(self) -> bool:
        return any(target.open for target in self._targets)

    def scores(self, activations: Activations) -> Scores:
        scores = iter([target.scores(activations) for target in self._targets])
        parts = [next(scores) if isinstance(part, Target) else part for part in self._parts]
        values = self._function(*(part.values if isinstance(part, Scores) else part for part in parts))
        named = [part.target if isinstance(part, Scores) else part for part in parts]
        return Scores(values, None, _Combination(self.name, self._function, named) if self.open else self)

    def select(self, samples: Tensor) -> Target:
        return self._of([part.select(samples) if isinstance(part, Target) else part for part in self._parts])

    def check_count(self, count: int) -> None:
        for target in self._targets:
            target.check_count(count)

    def bind(self, labels: Tensor | None = None, class_names: Sequence[str] = ()) -> Target:
        parts = [part.bind(labels, class_names) if isinstance(part, Target) else part for part in self._parts]
        return self._of(parts)

    def _of(self, parts: Sequence[Target | float]) -> Target:
        return _Combination(self.name, self._function, parts)


def _combined(form: str, function: Callable[..., Tensor], first: Target | float, second: Target | float) -> Target:
    """Two targets, or a target and a number, as one."""
    right = _named(second) if function is torch.add else _grouped(second)
    return _Combination(form.format(_named(first), right), function, (first, second))


def _is_term(value: object) -> bool:
    return isinstance(value, (Target, numbers.Real)) and not isinstance(value, bool)


def _named(part: Target | float) -> str:
    return part.name if isinstance(part, Target) else f"{part:g}"


def _grouped(part: Target | float) -> str:
    name = _named(part)
    return f"({name})" if " + " in name or " - " in name else name
