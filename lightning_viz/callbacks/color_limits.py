"""Scales that stay the same from step to step, so that learning can be watched, without hiding that values grow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Limits = tuple[float, float]

_CLIPPED = 0.02  # of the values may lie outside before a scale is widened


def fixed_limits(values: NDArray[np.floating], previous: Limits | None) -> Limits:
    """The scale for values: the previous one while it holds, doubled until it holds again.

    The first is from the 1st to the 99th percentile, and keeps zero at its end or in its middle. It is doubled, which
    is rare and shows in the caption, when more than one value in fifty lies outside.

    Args:
        values: to be shown; what is not finite does not count.
        previous: the scale of the step before.

    >>> fixed_limits(np.linspace(0, 100, 101), None)
    (0.0, 99.0)
    >>> fixed_limits(np.linspace(0, 150, 101), (0.0, 99.0))
    (0.0, 198.0)
    """
    finite = values[np.isfinite(values)]
    if previous is None:
        low, high = np.percentile(finite, [1, 99]).tolist() if finite.size else (0.0, 0.0)
        if low < 0:
            high = max(-low, high)
            low = -high
        else:
            low = 0.0
        previous = (low, high)
    low, high = previous
    if finite.size and finite.min() < 0 <= low:
        low = -high
    if not high > low:  # nothing but zeros so far
        high = float(np.abs(finite).max(initial=0.0))
        low = -high if finite.min(initial=0.0) < 0 else 0.0
    while finite.size and high > low and np.mean((finite < low) | (finite > high)) > _CLIPPED:
        low, high = 2 * low, 2 * high
    return float(low), float(high)
