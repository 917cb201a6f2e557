"""How a layer's activations are distributed, now and earlier in the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import table
from lightning_viz.render.page import INNER_WIDTH, Caption, Picture, page
from lightning_viz.render.plots import POINT, canvas
from lightning_viz.render.text import TEXT_SIZE, number, step_text

HEIGHT = 500
MOST_CURVES = 8
CELLS = 60
"""Bins on the picture's axis."""
_LEFT, _RIGHT, _BOTTOM = 130, 24, 64  # pixels around the axes
_OVERLAP = 1.7  # how many rows high the highest curve is
_DEEPEST = 1e-4  # of the highest bin: what is rarer is not drawn


@dataclass(frozen=True)
class Curve:
    """A distribution at a step.

    Args:
        step: number of completed updates.
        shares: of the activations in each bin of the axis ``[CELLS]``.
        mean: of all activations.
        deviation: of all activations.
    """

    step: int
    shares: NDArray[np.floating]
    mean: float
    deviation: float


def rebin(counts: NDArray[Any], edges: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.float64]:
    """Shares ``[CELLS]`` of a histogram on an axis of equal bins; what a bin holds is spread evenly over it.

    Args:
        counts: of bins between the edges, and of one before and one behind them.
        edges: increasing.
        limits: of the axis; what lies beyond does not count.
    """
    running = np.concatenate([[0.0], np.cumsum(counts[1:-1])]) + counts[0]
    below = np.interp(np.linspace(*limits, CELLS + 1), edges, running)
    return np.asarray(np.diff(below) / max(1.0, float(counts.sum())))


def distributions(
    tag: str,
    curves: Sequence[Curve],
    *,
    layer: str,
    limits: tuple[float, float],
    population: str,
    facts: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """Histograms over each other, the latest in front; heights logarithmic.

    Args:
        tag: where the picture stands in TensorBoard.
        curves: the latest last; of more than 8 the first, the latest and some between are shown.
        layer: name, for the caption.
        limits: of the axis of activations.
        population: of what, such as "600 validation samples".
        facts: further numbers of the latest step, in words.
        notes: further warnings for the caption.
    """
    if not curves:
        raise InvalidArgumentError("no curves: give one at least")
    shown = [curves[place] for place in _some(len(curves))]
    latest = curves[-1]
    with canvas(INNER_WIDTH, HEIGHT) as sheet:
        axes = sheet.axes(_LEFT, _BOTTOM, INNER_WIDTH - _LEFT - _RIGHT, HEIGHT - _BOTTOM - 8)
        colors = table("viridis")[np.linspace(220, 40, len(shown)).astype(int)] / 255
        middles = np.linspace(*limits, 2 * CELLS + 1)[1::2]
        peak = max(float(curve.shares.max()) for curve in shown)
        axes.axvline(0, color="0.7", linewidth=1.5 * POINT, zorder=-1)
        for row, (curve, color) in enumerate(zip(shown, colors, strict=True)):
            base = len(shown) - 1 - row
            top = base + _OVERLAP * _logarithmic(curve.shares, peak)
            axes.fill_between(middles, base, top, step="mid", color=color, alpha=0.8, zorder=row, linewidth=0)
            axes.step(middles, top, where="mid", color="white", linewidth=2 * POINT, zorder=row)
            axes.plot([curve.mean] * 2, [base, base + 0.3], color="black", linewidth=4 * POINT, zorder=len(shown))
        axes.set_yticks(range(len(shown)), [step_text(curve.step) for curve in shown[::-1]], fontsize=TEXT_SIZE * POINT)
        axes.set_xlim(*limits)
        axes.set_ylim(-0.05, len(shown) - 1 + _OVERLAP * 1.05)
        ticks = axes.get_xticks()
        inside = [value for value in ticks if limits[0] <= value <= limits[1]]
        axes.set_xticks(inside, [number(value) for value in inside], fontsize=TEXT_SIZE * POINT)
        axes.set_xlabel("activation", fontsize=TEXT_SIZE * POINT, color="0.35")
        axes.tick_params(colors="0.35", length=4)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        body = sheet.image()
    details = (
        step_text(latest.step),
        population,
        f"mean {number(latest.mean)}, deviation {number(latest.deviation)}",
        *facts,
        "heights are logarithmic",
        "black: the mean",
    )
    reading = (
        f"Each hill is the histogram of all activations of {layer} at one step, the latest in front and lowest; black "
        "strokes mark the means. Heights are logarithmic, down to 1/10,000 of the highest, so that rare values are "
        "seen beside common ones."
    )
    return page(tag, Caption(f"How the activations of {layer} are distributed", details, reading, tuple(notes)), body)


def _logarithmic(shares: NDArray[Any], peak: float) -> NDArray[np.float64]:
    """Heights from 0 to 1: the logarithm of the share, from the least that is drawn to the peak."""
    least = peak * _DEEPEST
    return np.asarray(np.log(np.maximum(shares, least) / least) / np.log(1 / _DEEPEST)) if peak > 0 else shares * 0.0


def _some(count: int) -> list[int]:
    """Numbers of the curves to draw: the first, the latest, and some evenly between."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, MOST_CURVES))})
