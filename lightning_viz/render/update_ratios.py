"""Relative sizes of updates, layer by layer and step by step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.render.animation import thin
from lightning_viz.render.colors import apply
from lightning_viz.render.grid import INNER_WIDTH
from lightning_viz.render.page import Page, PageInfo, check_shape, compose
from lightning_viz.render.parts import Cell, ColorBar, Label, Part, Sheet, VStack
from lightning_viz.render.text import DARK, LINE, WHITE, first_of, shorten

__all__ = ["update_ratios"]

_LABEL, _ROW = 220, 30  # pixels: for the layers' names, height of a row
_MOST_LAYERS, _MOST_STEPS = 24, 7
_HEALTHY, _REACH = -3.0, 3.0  # log10 of the usual ratio, and how far from it colors go


def update_ratios(
    tag: str,
    layers: Sequence[str],
    steps: Sequence[int],
    ratios: NDArray[Any] | Sequence[Sequence[float]],
    **info: Unpack[PageInfo],
) -> Page:
    """Page of update ratios: log10 of the relative size of single updates, a row for each layer and a column a step.

    Args:
        tag: of the page.
        layers: L names, from the input on; the first 24 are shown.
        steps: S numbers of completed updates, rising; at most 7 are shown, evenly in log steps, the last among them.
        ratios: norm of the update by that of the weights, ``[S, L]``; NaN if it is not known.
        info: see `PageInfo`.
    """
    values = np.asarray(ratios, dtype=np.float64)
    check_shape("ratios", values, len(steps), len(layers), filled=True, remedy="steps by layers")
    names, columns = list(layers[:_MOST_LAYERS]), thin(list(steps), most=_MOST_STEPS)
    with np.errstate(divide="ignore"):
        logarithms = np.log10(values[columns][:, : len(names)]).T  # [L, S]; -inf if nothing moved
    colors = apply("diverging", np.nan_to_num(logarithms, nan=_HEALTHY) - _HEALTHY, -_REACH, _REACH)
    width = (INNER_WIDTH - _LABEL) // len(columns)
    parts: list[Part] = [
        Label(_LABEL + width * (place + 0.5), LINE / 2, f"{steps[column]:,}", anchor="mm")
        for place, column in enumerate(columns)
    ]
    parts.append(Label(0, LINE / 2, "after step", anchor="lm"))
    for row, name in enumerate(names):
        top = LINE + row * _ROW
        parts.append(Label(0, top + _ROW / 2, shorten(name, _LABEL - 12), DARK, "lm"))
        for column, value in enumerate(logarithms[row].tolist()):
            known = not np.isnan(value)
            color = tuple(colors[row, column].tolist()) if known else WHITE
            ink = WHITE if known and sum(color) < 3 * 120 else DARK
            text = "–" if not known else f"{value:.1f}" if np.isfinite(value) else "0"
            place = (_LABEL + width * column, top, width - 2, _ROW - 2)
            parts.append(Cell(*place, color, [text], ink, value if known else None, row, column))
    table = Sheet(INNER_WIDTH, LINE + len(names) * _ROW, parts)
    bar = ColorBar("diverging", "1e-6", "1", "1e-3", label="update / weights")
    latest = values[-1][np.isfinite(values[-1]) & (values[-1] > 0)]
    facts = (
        f"latest from 1e{np.log10(latest.min()):.1f} to 1e{np.log10(latest.max()):.1f}" if latest.size else "",
        first_of(len(names), len(layers), "layers"),
    )
    reading = (
        "Each number is the power of ten of the norm of one update divided by the norm of the weights that it changed. "
        "About -3 is usual in a healthy run; far above it training may diverge, far below it a layer hardly learns."
    )
    return compose(tag, "Size of single updates, log10", VStack([table, bar], gap=8), facts, reading=reading, **info)
