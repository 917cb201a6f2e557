"""Perturbation stability: how often each network changes its mind along small steps, a bar for each kind."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import class_colors
from lightning_viz.render.layout import INNER_WIDTH
from lightning_viz.render.page import Page, PageInfo, check_shape, compose
from lightning_viz.render.parts import ClassKey, Label, Part, Sheet, VStack
from lightning_viz.render.share_bar import bar_of
from lightning_viz.render.text import DARK, GRAY, first_of, fixed_point, percent, shorten, text_width

__all__ = ["stability_bars"]

_MOST = 4  # networks
_ROW, _APART = 44, 8  # pixels of one kind, and between the kinds and their mean
_LABEL = 170  # pixels for names
_ENDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the axis, of which the least that holds all bars is taken
_BETWEEN = 1  # pixels between the bars of one kind


def stability_bars(
    tag: str,
    flips: Mapping[str, Sequence[float] | NDArray[Any]],
    *,
    kinds: Sequence[str],
    rates: Mapping[str, Sequence[float] | NDArray[Any]] = MappingProxyType({}),
    reference: str = "",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of flip probabilities: a row for each kind of perturbation and their mean, a bar for each network.

    Args:
        tag: of the page.
        flips: by the network's name, its flip probability for each kind ``[K]``, 0 to 1; the first four are shown.
        kinds: K names; underscores are shown as spaces.
        rates: by the network's name, the same divided by the reference's ``[K]``; NaN where it never flips.
        reference: name of the network that rates are relative to.
        info: see `PageInfo`.
    """
    if not flips:
        raise InvalidArgumentError("no network: give at least one, {name: flip probabilities}")
    shown = {name: _with_mean(f"flips[{name!r}]", values, len(kinds)) for name, values in list(flips.items())[:_MOST]}
    ratios = {name: _with_mean(f"rates[{name!r}]", values, len(kinds)) for name, values in rates.items()}
    highest = max(float(np.nanmax(values, initial=0)) for values in shown.values())
    end = next((end for end in _ENDS if highest <= end), 1.0)
    colors = class_colors(max(2, len(shown)))[: len(shown)]
    names = [*(kind.replace("_", " ") for kind in kinds), "mean"]
    figures = [_figures(shown, ratios, row) for row in range(len(names))]
    width = INNER_WIDTH - _LABEL - max(map(text_width, figures)) - 2 * _APART
    parts: list[Part] = []
    for row, kind in enumerate(names):
        top = row * _ROW + _APART * (row == len(names) - 1)
        parts.append(Label(0, top + (_ROW - _APART) / 2, shorten(kind, _LABEL - 12), DARK, "lm"))
        height = (_ROW - _APART) // len(shown)
        for bar, values in enumerate(shown.values()):
            place = (_LABEL, top + bar * height, width, height - _BETWEEN)
            parts += bar_of(float(values[row]), place, tuple(colors[bar].tolist()), end=end, row=row, column=bar)
        middle = top + (_ROW - _APART) / 2
        parts.append(Label(_LABEL + width + _APART, middle, figures[row], DARK, "lm"))
    foot = len(names) * _ROW + _APART
    for share, anchor in ((0.0, "lm"), (end, "rm")):
        parts.append(Label(_LABEL + width * share / end, foot + 8, f"{percent(share)} %", GRAY, anchor))
    bars = Sheet(INNER_WIDTH, foot + 20, parts)
    body = VStack([ClassKey([shorten(name, 200) for name in shown], colors), bars], gap=8) if len(shown) > 1 else bars
    facts = (
        f"axis from 0 to {percent(end)} % of the steps",
        f"FR: flips over those of {reference}" if rates else "",
        first_of(len(shown), len(flips), "networks"),
    )
    reading = (
        "How often the predicted class changes from one small step of an image to the next, right or wrong: a steady "
        "network has short bars. Frames with noise are compared with the image itself."
    )
    return compose(tag, "How often small steps change the class", body, facts, reading, **info)


def _with_mean(name: str, values: Sequence[float] | NDArray[Any], count: int) -> NDArray[np.float64]:
    """One number for each kind, and their mean, ``[K + 1]``."""
    numbers = np.asarray(values, dtype=np.float64)
    check_shape(name, numbers, count, remedy="one for each kind")
    return np.append(numbers, np.nan if np.isnan(numbers).all() else np.nanmean(numbers))


def _figures(shown: Mapping[str, NDArray[np.float64]], rates: Mapping[str, NDArray[np.float64]], row: int) -> str:
    """A kind's numbers beside its bars: its probability, or of several networks their rates."""
    if len(shown) == 1:
        share = float(next(iter(shown.values()))[row])
        return f"{percent(share, decimals=1)} %" if np.isfinite(share) else "–"
    known = [float(rates[name][row]) for name in shown if name in rates]
    return f"FR {' / '.join(fixed_point(rate) if np.isfinite(rate) else '–' for rate in known)}" if known else ""
