"""The loss around trained weights, as a table of colored cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import apply
from lightning_viz.render.grid import INNER_WIDTH
from lightning_viz.render.page import Page, PageInfo, compose
from lightning_viz.render.parts import Cell, ColorBar, Label, Part, Sheet, VStack
from lightning_viz.render.text import DARK, LINE, number

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["landscape_table"]

_LABEL, _ROW = 70, 46  # pixels: for the second direction's shares, height of a row
_WHITE = (255, 255, 255)


def landscape_table(tag: str, losses: NDArray[Any], *, radius: float, **info: Unpack[PageInfo]) -> Page:
    """Page of a loss landscape: the loss at each point of a plane through the trained weights, which are in the middle.

    Args:
        tag: of the page.
        losses: ``[P, P]``, rows along the second direction; P is odd.
        radius: largest share of the directions.
        info: see `PageInfo`.
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) % 2 == 0:
        raise InvalidArgumentError(f"losses are {list(values.shape)}: give [P, P] with an odd P")
    count, middle = len(values), len(values) // 2
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    colors = apply("magma", np.nan_to_num(values, nan=high, posinf=high), low, max(high, low + 1e-12))
    shares, width = np.linspace(-radius, radius, count), (INNER_WIDTH - _LABEL) // count
    parts: list[Part] = []
    for place, share in enumerate(shares.tolist()):
        parts.append(Label(_LABEL + width * (place + 0.5), LINE / 2, f"{share:.3g}", anchor="mm"))
        parts.append(Label(_LABEL - 10, LINE + _ROW * (place + 0.5), f"{share:.3g}", anchor="rm"))
    for (row, column), value in np.ndenumerate(values):
        left, top, inset = _LABEL + width * column, LINE + _ROW * row, 0
        if row == column == middle:
            parts.append(Cell(left, top, width - 2, _ROW - 2, _WHITE))
            inset = 4
        color = tuple(colors[row, column].tolist())
        ink = DARK if sum(color) > 3 * 140 else _WHITE
        text = f"{value:.2f}" if value < 100 else "> 99" if np.isfinite(value) else "NaN"
        size = width - 2 - 2 * inset, _ROW - 2 - 2 * inset
        parts.append(Cell(left + inset, top + inset, *size, color, [text], ink, float(value), row, column))
    table = Sheet(INNER_WIDTH, LINE + _ROW * count, parts)
    bar = ColorBar("magma", number(low), number(high), label="cross-entropy")
    lost = values.size - finite.size
    reading = (
        "The trained weights are in the middle, framed. Around them the loss where weights move in two random "
        "directions, as far as their own norm at 1. A wide flat valley is usual of nets that generalize; a lower loss "
        "elsewhere means that training has not ended."
    )
    facts = (f"at the trained weights {number(float(values[middle, middle]))}",)
    warnings = (f"no finite loss at {lost} of {values.size} points",) if lost else ()
    body = VStack([table, bar], gap=8)
    return compose(tag, "Loss around the trained weights", body, facts, reading=reading, warnings=warnings, **info)
