"""One axis for the histograms of all layers, which holds from step to step. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.callbacks.fixed_scale import FixedScale, Limits

_BEYOND = 1e-4  # of the activations on either side may lie outside the axis before it is widened
_FINEST = 1e6
_SHARED = "shared"
"""Where a view's state holds the axis of all layers, beside those of single calls."""


def shared_axes(
    counts: Mapping[str, NDArray[np.float64]], edges: NDArray[np.float64], step: int, previous: Mapping[str, Any]
) -> dict[str, FixedScale]:
    """The axes of layers' histograms: one for all; of layers that would be a thin line on it 10, 100, ... times finer.

    Args:
        counts: by call, of its activations between edges, and before and behind them.
        edges: of the bins.
        step: completed updates.
        previous: states of the axes at the step before, see `axis_states`; empty at the first.
    """
    filled = {call: values for call, values in counts.items() if values.sum()}
    known = FixedScale.of_state(previous.get(_SHARED))
    needed = [axis(values, edges, None if known is None else known.limits) for values in filled.values()]
    limits = min((low for low, _ in needed), default=-1.0), max((high for _, high in needed), default=1.0)
    shared = FixedScale(limits, "", step, step) if known is None else known.at(step, limits if needed else None)
    axes = {_SHARED: shared}
    for call in counts:
        before = FixedScale.of_state(previous.get(call))
        finest = _FINEST if before is None or known is None else _finer(known.limits, before.limits)
        times = (
            _times(filled[call], edges, shared.limits, finest) if call in filled else 1.0 if before is None else finest
        )
        own = (shared.limits[0] / times, shared.limits[1] / times)
        axes[call] = FixedScale(own, "", step, step) if before is None else before.at(step, own)
    return axes


def axis_states(axes: Mapping[str, FixedScale]) -> dict[str, Any]:
    """In plain values, for a view's state.

    Args:
        axes: of `shared_axes`.
    """
    return {call: axis.state for call, axis in axes.items()}


def axis_words(axes: Mapping[str, FixedScale], call: str) -> str:
    """What the caption says of a layer's axis.

    Args:
        axes: of `shared_axes`.
        call: of the layer.
    """
    own, times = axes[call], _finer(axes[_SHARED].limits, axes[call].limits)
    which = "the axis of all layers" if times == 1 else f"axis {times:,.0f} times finer than other layers'"
    return which if own.since is None else f"{which}, {own.words}"


def axis(counts: NDArray[np.float64], edges: NDArray[np.float64], previous: Limits | None) -> Limits:
    """From where to where the activations are drawn: as before while they fit, widened on the side where they do not.

    Args:
        counts: as in `shared_axes`.
        edges: likewise.
        previous: the axis of the step before.
    """
    low, high = _reach(counts, edges)
    if previous is None:
        span = max(high - low, 1e-6)
        return (low - 0.1 * span if low < 0 else -0.05 * span), high + 0.25 * span
    span = previous[1] - previous[0]
    low = previous[0] if low >= previous[0] else min(2 * previous[0], low - 0.1 * span)
    high = previous[1] if high <= previous[1] else max(2 * previous[1], high + 0.1 * span)
    return low, high


def _reach(counts: NDArray[np.float64], edges: NDArray[np.float64]) -> Limits:
    """From where to where all but a few of the activations lie, zero among them."""
    ends = np.concatenate([edges[:1], edges, edges[-1:]])  # of the bins, the open ones as narrow as can be
    running = np.cumsum(counts) / counts.sum()
    low = min(0.0, float(ends[int(np.searchsorted(running, _BEYOND))]))
    return low, max(0.0, float(ends[int(np.searchsorted(running, 1 - _BEYOND)) + 1]))


def _finer(shared: Limits, own: Limits) -> float:
    """How many times finer a layer's axis is than that of all: 1, 10, 100, ..."""
    return float(10 ** round(math.log10((shared[1] - shared[0]) / (own[1] - own[0]))))


def _times(counts: NDArray[np.float64], edges: NDArray[np.float64], shared: Limits, finest: float) -> float:
    """How many times finer than the shared axis that of a layer can be."""
    low, high = _reach(counts, edges)
    times = 1.0
    while 10 * times <= finest and low * 10 * times >= shared[0] and high * 10 * times <= shared[1]:
        times *= 10
    return times
