"""Scales that hold from step to step, and say when they do not. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.render.text import number

Limits = tuple[float, float]

_CLIPPED = 0.02  # of the values may lie outside before a scale is widened ...
_SLACK = 1.1  # ... by more than a tenth: of few values a single one would widen it at every step


@dataclass(frozen=True)
class FixedScale:
    """A scale of a view's pictures, and the steps at which it changed.

    Attributes:
        limits: the values at its ends.
        origin: what they were at first, such as "1st to 99th percentile".
        first: step at which they were.
        last: step of the latest look.
        since: step of the look at which the scale was changed last; None: it is the first.
        before: step of the look before that.
        times: how many times wider than then.
    """

    limits: Limits
    origin: str
    first: int
    last: int
    since: int | None = None
    before: int = 0
    times: float = 1.0

    @classmethod
    def of_state(cls, state: Mapping[str, Any] | None) -> FixedScale | None:
        """The scale that a view's state holds, or None.

        Args:
            state: as `state` gives it.
        """
        return None if state is None else cls(**state)

    @property
    def state(self) -> dict[str, Any]:
        """In plain values, for a view's state."""
        return asdict(self)

    def at(self, step: int, limits: Limits | None = None) -> FixedScale:
        """The scale at a later look.

        Args:
            step: completed updates.
            limits: its ends; those of before if omitted.
        """
        if limits is None or limits == self.limits:
            return replace(self, last=step)
        times = (limits[1] - limits[0]) / max(self.limits[1] - self.limits[0], np.finfo(np.float64).tiny)
        return replace(self, limits=limits, last=step, since=step, before=self.last, times=times)

    @property
    def words(self) -> str:
        """Where the scale comes from, for the caption: the first look's, or since when it is wider.

        By how much is said once, in `warnings`: next to a limit it would pass for the growth of the values.
        """
        if self.since is None:
            return f"{self.origin} at step {self.first:,}"
        return f"wider since step {self.since:,}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """For the first picture on another scale than the one before."""
        if self.since is None or self.since != self.last:
            return ()
        return (f"display scale {number(self.times)} times wider than at step {self.before:,}",)


def fixed_scale(values: NDArray[np.floating], step: int, previous: Mapping[str, Any] | None) -> FixedScale:
    """The scale for values: the previous one while it holds, doubled until it holds again.

    The first is from the 1st to the 99th percentile, and keeps zero at its end or in its middle. It is doubled when
    more than one value in fifty lies outside by more than a tenth, and made symmetrical when values become negative.

    Args:
        values: to be shown; what is not finite does not count.
        step: completed updates.
        previous: state of the scale at the step before; None at the first.

    >>> first = fixed_scale(np.linspace(0, 100, 101), 0, None)
    >>> first.limits, first.words, first.warnings
    ((0.0, 99.0), '1st to 99th percentile at step 0', ())
    >>> later = fixed_scale(np.linspace(0, 150, 101), 38, first.state)
    >>> later.limits, later.words
    ((0.0, 198.0), 'wider since step 38')
    >>> later.warnings, later.at(76).warnings
    (('display scale 2 times wider than at step 0',), ())
    """
    finite = values[np.isfinite(values)]
    scale = FixedScale.of_state(previous)
    if scale is None or not scale.limits[1] > scale.limits[0]:  # nothing but zeros so far
        return _first_scale(finite, step)
    low, high = scale.limits
    if finite.size and finite.min() < 0 <= low:
        low = -high
    while finite.size and np.mean((finite < _SLACK * low) | (finite > _SLACK * high)) > _CLIPPED:
        low, high = 2 * low, 2 * high
    return scale.at(step, (low, high))


def _first_scale(finite: NDArray[np.floating], step: int) -> FixedScale:
    """From the 1st to the 99th percentile; of values too few, or too many of them zero, up to the largest."""
    low = float(np.percentile(finite, 1, method="lower")) if finite.size else 0.0
    high = float(np.percentile(finite, 99, method="higher")) if finite.size else 0.0
    negative = finite.min(initial=0.0) < 0
    high = max(-low, high) if negative else high
    beyond = np.mean(np.abs(finite) > high) if finite.size else 0.0
    if not high > 0 or beyond > _CLIPPED:
        high, origin = float(np.abs(finite).max(initial=0.0)), "largest value"
    else:
        origin = "1st to 99th percentile"
    return FixedScale((-float(high) if negative else 0.0, float(high)), origin, step, step)
