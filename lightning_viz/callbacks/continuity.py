"""Continuity from step to step: histograms over the run. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.callbacks.draw_task import DrawResult, Histogram
from lightning_viz.render.animation import thin
from lightning_viz.render.histograms import Distribution, distributions, rebin
from lightning_viz.render.layout import INNER_WIDTH
from lightning_viz.render.page import compose
from lightning_viz.render.parts import Tile
from lightning_viz.render.text import percent

_KEPT = 32  # steps of which the histograms are kept


def draw_distribution(
    tag: str,
    counts: NDArray[np.float64],
    edges: NDArray[np.float64],
    *,
    layer: str,
    step: int,
    population: str,
    numbers: Mapping[str, float | None],
    units: tuple[int, str],
    limits: tuple[float, float],
    axis: str = "",
    notes: Sequence[str] = (),
    memory: Mapping[str, Any] | None = None,
) -> DrawResult:
    """Draw a histogram in front of those of earlier steps.

    Args:
        tag: of the picture; the numbers' begin with it.
        counts: of activations, between edges, and before and behind them.
        edges: of the bins.
        layer: name, for the caption.
        step: completed updates.
        population: whose activations they are, in words.
        numbers: mean, std, dead, never_positive, saturated (None if it has no meaning) and zero.
        units: number of the layer's units, and their name.
        limits: of the axis of activations.
        axis: what the caption says of it.
        notes: warnings for the caption.
        memory: the earlier steps' histograms and numbers.
    """
    memory = memory or {"steps": [], "counts": [], "means": [], "deviations": []}
    scalars = {
        f"{tag}/{name}": float(value)
        for name, value in numbers.items()
        if name in ("mean", "std", "dead", "saturated") and value is not None and math.isfinite(value)
    }
    if not counts.sum():
        nothing = Tile((INNER_WIDTH, 200), flaw="no finite activations", layer=layer)
        title = f"How the activations of {layer} are distributed"
        page = compose(tag, title, nothing, (population,), step=step, notes=notes)
        return DrawResult((page,), scalars, memory=memory)
    past = [place for place, earlier in enumerate(memory["steps"]) if earlier < step]
    steps = [*(memory["steps"][place] for place in past), step]
    kept = thin(steps, most=_KEPT)
    history = {
        "steps": steps,
        "counts": [*(np.asarray(memory["counts"][place]) for place in past), np.asarray(counts, dtype=np.float32)],
        "means": [*(memory["means"][place] for place in past), float(numbers["mean"] or 0.0)],
        "deviations": [*(memory["deviations"][place] for place in past), float(numbers["std"] or 0.0)],
    }
    history = {name: [values[place] for place in kept] for name, values in history.items()}
    curves = [
        Distribution(at, rebin(earlier, edges, limits), mean, deviation)
        for at, earlier, mean, deviation in zip(*history.values(), strict=True)
    ]
    picture = distributions(
        tag,
        curves,
        layer=layer,
        limits=limits,
        population=population,
        facts=(*_facts(numbers, units), axis),
        notes=notes,
    )
    shares = rebin(history["counts"][-1], edges, limits)
    shown = Histogram(np.linspace(*limits, len(shares) + 1), shares * float(counts.sum()))
    return DrawResult((picture,), scalars, memory=history, histograms={tag: shown})


def _facts(numbers: Mapping[str, float | None], units: tuple[int, str]) -> tuple[str, ...]:
    dead, silent = numbers["dead"] or 0.0, numbers["never_positive"] or 0.0
    saturated = numbers["saturated"]
    return (
        f"{round(dead * units[0])} of {units[0]:,} {units[1]} dead",
        f"{round(silent * units[0])} never above 0{' (dead, where a ReLU follows)' if silent > dead else ''}",
        f"{percent(numbers['zero'] or 0.0)} % of activations zero",
        f"{percent(saturated)} % saturated" if saturated is not None else "",
    )
