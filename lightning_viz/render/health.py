"""The health of a network's layers over the steps of its training, on one page."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.render.layout import INNER_WIDTH
from lightning_viz.render.page import Page, PageInfo, check_shape, compose
from lightning_viz.render.parts import Cell, Label, Part, Sheet, Text, VStack
from lightning_viz.render.text import (
    DARK,
    GRAY,
    LINE,
    RED,
    TITLE_SIZE,
    WHITE,
    end_of,
    number,
    percent,
    text_width,
    wrap,
)

__all__ = ["layer_health"]

_NAMES, _BARS, _NUMBERS, _GAP = 136, 74, (100, 115, 95), 4  # pixels: names, of each quantity bars and latest number
_ROW, _BAR = 36, 30  # pixels down
_MOST_ROWS = 18
_FEWEST_SLOTS = 8
_GROUND, _BAR_COLOR, _LINE = (242, 242, 242), (74, 101, 133), (150, 150, 150)
_HEADS = ("dead, saturated", "update / weights", "activation scale")
_RANGES = ((0.0, 1.0), (-6.0, 0.0), (-4.0, 6.0))  # of the bars: a share, and powers of ten
_ENDS = ("0 to 100 %", "1e-6, line 1e-3, 1", "1e-4 to 1e6, log")
_USUAL = 1e-3  # of the update ratio, a thin line
_READING = (
    "Each row is a layer from the input down, each bar a step, the latest at the right, with its number. Dead units "
    "never exceed 0 before a ReLU, on any sample; saturated activations are at a bound of tanh or sigmoid; – stands "
    "for other functions. Layers that learn well may have half of their units dead. An update is usually about 0.1 % "
    "of the weights, the thin line. The scale is the root mean square of a layer's outputs. Red is beyond doubt: "
    "nearly all dead or saturated, NaN or infinity, weights that are trained and do not move."
)


def layer_health(
    tag: str,
    layers: Sequence[str],
    steps: Sequence[int],
    *,
    dead: NDArray[Any],
    saturated: NDArray[Any],
    ratio: NDArray[Any],
    scale: NDArray[Any],
    faults: NDArray[Any],
    notes_of_layers: Sequence[str] = (),
    called: Sequence[bool] = (),
    found: Sequence[str] = (),
    certain: bool = False,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of layers' health: a row for each layer, and for each step a bar of three quantities.

    Args:
        tag: of the page.
        layers: L names, from the input on; of more than 18 neighbors share a row, which shows the worst of them.
        steps: S numbers of completed updates, rising.
        dead: share of units that are dead, ``[S, L]``; NaN where it has no meaning.
        saturated: share of activations that are saturated, likewise.
        ratio: norm of the last update by that of the weights, likewise.
        scale: root mean square of the outputs, likewise.
        faults: which of the three quantities are beyond doubt at fault, ``[S, L, 3]``.
        notes_of_layers: what stands in place of a ratio that is not known at the latest step, ``[L]``.
        called: whether each layer was, at the latest step, ``[L]``.
        found: sentences, the worst first; empty if nothing is wrong.
        certain: whether the first of them is beyond doubt.
        info: see `PageInfo`.
    """
    lost = np.fmax(np.asarray(dead, dtype=np.float64), np.asarray(saturated, dtype=np.float64))
    values = np.stack([lost, ratio, scale], axis=2).astype(np.float64)  # [S, L, 3]
    check_shape("values", values, len(steps), len(layers), 3, filled=True, remedy="steps by layers")
    check_shape("faults", np.asarray(faults), len(steps), len(layers), 3)
    notes = list(notes_of_layers) or [""] * len(layers)
    reached = list(called) or [True] * len(layers)
    names, groups = _rows(layers)
    parts: list[Part] = []
    for place, head in enumerate(_HEADS):
        parts.append(Label(_left(place), LINE / 2, head, GRAY, "lm"))
    for row, (name, group) in enumerate(zip(names, groups, strict=True)):
        top = LINE + row * _ROW
        red = np.asarray(faults, dtype=bool)[:, group]  # [S, G, 3]
        mark, ink = ("✗ ", RED) if red[-1].any() else ("", DARK)
        parts.append(Label(0, top + _BAR / 2, mark + end_of(name, _NAMES - 10 - text_width(mark)), ink, "lm"))
        for place in range(3):
            series = [_worst(values[step, group, place], place) for step in range(len(steps))]
            parts += _bars(series, [bool(step.any()) for step in red[:, :, place]], place, row, top)
            text = _written(series[-1], place) or ("NaN" if red[-1, :, place].any() else "")
            if place == 0 and text and np.nan_to_num(saturated[-1][group]).max() > np.nan_to_num(dead[-1][group]).max():
                text = f"{text} sat."
            if place == 1 and (note := next((notes[layer] for layer in group if notes[layer]), "")):
                text = note if math.isnan(series[-1]) or not series[-1] else text
            if place == 2 and not any(reached[layer] for layer in group):
                text = "not called"
            parts += _number(text or "–", bool(red[-1, :, place].any()), place, top)
    bottom = LINE + len(names) * _ROW
    span = f"{steps[0]:,} to {steps[-1]:,}" if len(steps) > 1 else f"{steps[0]:,}"
    parts.append(
        Label(0, bottom + LINE / 2, f"step {span}" if text_width(f"step {span}") < _NAMES else span, GRAY, "lm")
    )
    parts += [Label(_left(place), bottom + LINE / 2, ends, GRAY, "lm") for place, ends in enumerate(_ENDS)]
    table = Sheet(INNER_WIDTH, bottom + LINE, parts)
    body = VStack([_verdict(found, certain), table], gap=8)
    return compose(tag, "Health of the layers", body, (), _READING, **info)


def _left(place: int) -> int:
    """Left edge of a quantity's columns."""
    return _NAMES + place * (_BARS + _GAP) + sum(_NUMBERS[:place])


def _rows(layers: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """Names of the rows, and which layers each shows."""
    count = len(layers)
    groups = [part.tolist() for part in np.array_split(np.arange(count), min(count, _MOST_ROWS))]
    fits = max(map(text_width, layers)) <= _NAMES - 10
    prefix = "" if fits else _common_prefix(layers)
    names = [layers[group[0]][len(prefix) :] + (f" +{len(group) - 1}" if len(group) > 1 else "") for group in groups]
    return names, groups


def _common_prefix(layers: Sequence[str]) -> str:
    """What all names begin with, up to a dot."""
    split = [name.split(".")[:-1] for name in layers]
    shared = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "".join(f"{part}." for part in shared)


def _worst(values: NDArray[np.float64], place: int) -> float:
    """Of the layers of a row: the largest share or scale, the ratio that is farthest from the usual."""
    known = values[~np.isnan(values)]
    if not known.size:
        return math.nan
    if place != 1 or known.min() == 0:
        return float(known.min() if place == 1 else known.max())
    return float(known[np.argmax(np.abs(np.log10(known / _USUAL)))])


def _height(value: float, place: int) -> float:
    """Of a bar, 0 to 1."""
    low, high = _RANGES[place]
    if place and value <= 0:
        return 0.0
    return min(1.0, max(0.0, ((math.log10(value) if place else value) - low) / (high - low)))


def _bars(series: Sequence[float], red: Sequence[bool], place: int, row: int, top: int) -> list[Part]:
    """A bar for each step, from the left, in slots that stay while there is room."""
    slots = max(_FEWEST_SLOTS, 2 ** math.ceil(math.log2(len(series))))
    left, width = _left(place), _BARS / slots
    parts: list[Part] = [Cell(left, top, _BARS, _BAR, _GROUND)]
    for column, (value, fault) in enumerate(zip(series, red, strict=True)):
        start, end = round(left + column * width), round(left + (column + 1) * width) - (width >= 4)
        known = not math.isnan(value)
        if not known and not fault:
            continue
        height = _BAR if fault else max(1, round(_BAR * _height(value, place)))
        color, shown = RED if fault else _BAR_COLOR, value if known else None
        parts.append(Cell(start, top + _BAR - height, end - start, height, color, value=shown, row=row, column=column))
    if place == 1:
        parts.append(Cell(left, top + _BAR - round(_BAR * _height(_USUAL, 1)), _BARS, 1, _LINE))
    return parts


def _number(text: str, fault: bool, place: int, top: int) -> list[Part]:
    """The latest value beside its bars, white on red if it is at fault."""
    left = _left(place) + _BARS
    if fault:
        return [Cell(left, top, _NUMBERS[place] - 2, _BAR, RED, [text], WHITE)]
    return [Label(left + 6, top + _BAR / 2, text, GRAY if not text[0].isdigit() else DARK, "lm")]


def _written(value: float, place: int) -> str:
    if math.isnan(value):
        return ""
    if place == 0:
        return f"{percent(value)} %"
    if place == 1:
        return (
            "0" if value == 0 else "< 0.001 %" if value < 1e-5 else f"{_short(100 * value, 2 if value > 1e-4 else 1)} %"
        )
    return _short(value)


def _short(value: float, digits: int = 2) -> str:
    """So many significant digits."""
    return number(value, digits) if math.isfinite(value) else "∞"


def _verdict(found: Sequence[str], certain: bool) -> Text:
    """What was found, in two lines of the page, or that nothing was."""
    if not found:
        return Text(["Nothing wrong is seen in any layer.", ""], INNER_WIDTH, size=TITLE_SIZE)
    color, shown = RED if certain else DARK, len(found)
    while True:
        rest = f" · {len(found) - shown} more" if shown < len(found) else ""
        lines = wrap(("✗ " if certain else "") + " · ".join(found[:shown]) + rest, INNER_WIDTH, TITLE_SIZE)
        if len(lines) <= 2 or shown == 1:
            return Text([*lines[:2], ""][:2], INNER_WIDTH, size=TITLE_SIZE, color=color)
        shown -= 1
