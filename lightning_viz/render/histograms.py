"""How a layer's activations are distributed, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.layout import INNER_WIDTH
from lightning_viz.render.page import Page, PageInfo, compose
from lightning_viz.render.parts import HistogramPlot
from lightning_viz.render.text import number

__all__ = ["BINS", "Distribution", "distributions", "rebin"]

_MOST = 8  # distributions
BINS = 60
"""On the picture's axis."""


@dataclass(frozen=True)
class Distribution:
    """A distribution at a step.

    Args:
        step: number of completed updates.
        shares: of the activations in each bin of the axis ``[BINS]``.
        mean: of all activations.
        deviation: of all activations.
    """

    step: int
    shares: NDArray[np.floating]
    mean: float
    deviation: float


def rebin(counts: NDArray[Any], edges: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.float64]:
    """Shares ``[BINS]`` of a histogram on an axis of equal bins; what a bin holds is spread evenly over it.

    Args:
        counts: of bins between the edges, and of one before and one behind them.
        edges: increasing.
        limits: of the axis; what lies beyond does not count.
    """
    running = np.concatenate([[0.0], np.cumsum(counts[1:-1])]) + counts[0]
    below = np.interp(np.linspace(*limits, BINS + 1), edges, running)
    return np.asarray(np.diff(below) / max(1.0, float(counts.sum())))


def distributions(
    tag: str,
    curves: Sequence[Distribution],
    *,
    layer: str,
    limits: tuple[float, float],
    population: str,
    facts: Sequence[str] = (),
    **info: Unpack[PageInfo],
) -> Page:
    """Page of histograms over each other, the latest in front; heights logarithmic.

    Args:
        tag: of the page.
        curves: the latest last; of more than 8 the first, the latest and some between are shown.
        layer: name, for the caption.
        limits: of the axis of activations.
        population: of what, such as "600 validation samples".
        facts: further numbers of the latest step, in words.
        info: see `PageInfo`.
    """
    if not curves:
        raise InvalidArgumentError("no curves: give one at least")
    places = np.linspace(0, len(curves) - 1, min(len(curves), _MOST))  # the first, the latest, some evenly between
    shown, latest = [curves[place] for place in sorted({round(place) for place in places})], curves[-1]
    plot = HistogramPlot(
        width=INNER_WIDTH,
        height=500,
        steps=[curve.step for curve in shown],
        shares=np.stack([curve.shares for curve in shown]),
        means=[curve.mean for curve in shown],
        limits=limits,
    )
    facts = (
        population,
        f"mean {number(latest.mean)}, deviation {number(latest.deviation)}",
        *facts,
        "heights are logarithms",
    )
    reading = (
        f"Each hill is the histogram of all activations of {layer} at one step, the latest in front and lowest; black "
        "strokes mark the means. Heights are logarithmic, down to 1/10,000 of the highest, so that rare values are "
        "seen beside common ones."
    )
    title = f"How the activations of {layer} are distributed"
    latest_info: PageInfo = {**info, "step": latest.step}
    return compose(tag, title, plot, facts, reading, **latest_info)
