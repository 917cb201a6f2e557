"""What views and techniques cost: counted for a model and its samples before they run, not timed. Knows no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

PASSES = 3.0
"""Forward passes that a forward with its backward takes the time of."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Facts:
    """What the cost of a view or technique depends on, of a model and its samples.

    Attributes:
        samples: that techniques may use.
        head: samples of the probe, that go forward and backward.
        classes: that the model tells apart; 0 if it is not a classifier of images.
        channels: of the last layer with maps; 0 if there is none.
        sides: of an image, in pixels; empty if the model takes none.
        labeled: whether the samples' classes are known.
        attends: whether the model is a transformer.
        conflicts: how many cue-conflict images there are.
        private: whether the samples are not to be shown.
    """

    samples: int = 1
    head: int = 1
    classes: int = 0
    channels: int = 0
    sides: tuple[int, ...] = ()
    labeled: bool = False
    attends: bool = False
    conflicts: int = 0
    private: bool = False


class Cost(NamedTuple):
    """What a view or technique takes, at most.

    Attributes:
        passes: forward passes of one sample; a forward with its backward counts as three.
        images: that are corrupted or otherwise made on the CPU.
        pages: that are drawn.
    """

    passes: float = 0.0
    images: float = 0.0
    pages: float = 0.0


def costing(cost: Callable[..., Cost]) -> Callable[[_Function], _Function]:
    """Say what a technique costs, beside its function.

    Args:
        cost: takes `Facts` and the function's settings by keyword.
    """

    def mark(function: _Function) -> _Function:
        function.cost = cost  # type: ignore[attr-defined]
        return function

    return mark


def cost_of(function: Callable[..., Any], facts: Facts, **settings: Any) -> Cost:
    """What a technique costs; nothing if it does not say so.

    Args:
        function: of the technique.
        facts: of model and samples.
        **settings: of the function.
    """
    cost: Callable[..., Cost] | None = getattr(function, "cost", None)
    return Cost() if cost is None else cost(facts, **settings)
