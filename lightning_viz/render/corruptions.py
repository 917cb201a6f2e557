"""Robustness: one image in all its corruptions, and a table of what each of them costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import apply
from lightning_viz.render.page import Page, PageInfo, compose
from lightning_viz.render.parts import (
    BODY_HEIGHT,
    INNER_WIDTH,
    WHITE,
    Cell,
    ColorBar,
    HStack,
    Label,
    Part,
    Sheet,
    Text,
    Tile,
    VStack,
)
from lightning_viz.render.text import DARK, GRAY, LINE, percent, shorten, text_width
from lightning_viz.render.tiles import COLUMNS, GUTTER, check_rgb, first_of, fit

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["corruption_sheet", "corruption_table"]

_MOST_ROWS = 16
_LABEL = 170  # pixels for the names of rows
_MOST_RATIOS = 3
_ROW = 40  # pixels high, of the table
_APART = 6  # pixels between kinds and their mean
_RATIOS = 210  # pixels for all columns of ratios
_COLORS = "magma"


def corruption_sheet(
    tag: str,
    clean: NDArray[np.uint8],
    corrupted: NDArray[np.uint8],
    *,
    kinds: Sequence[str],
    severities: Sequence[int],
    title: str = "One image under corruptions",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of one image in all its corruptions: a row for each kind, the clean image at the left, then its severities.

    Args:
        tag: of the page.
        clean: the image ``[H, W, 3]``.
        corrupted: the same corrupted, ``[K, S, H, W, 3]``; the first 16 kinds and the first 7 severities are shown.
        kinds: K names; underscores are shown as spaces.
        severities: S of them.
        title: what it is.
        info: see `PageInfo`.
    """
    check_rgb(clean[None])
    _check_corrupted(corrupted, (len(kinds), len(severities), *clean.shape))
    shown = corrupted[:_MOST_ROWS, : COLUMNS - 1]
    names = _names(kinds[: len(shown)])
    label = min(_LABEL, max(map(text_width, names)) + GUTTER)
    columns = shown.shape[1] + 1
    aspect, across = clean.shape[0] / clean.shape[1], INNER_WIDTH - label - GUTTER
    size = fit(columns, len(shown), aspect, room=BODY_HEIGHT - LINE, across=across)
    pitch = size[0] + GUTTER  # a head may be as wide as a tile with what is around it
    heads = ["clean", *(f"{severity}" for severity in severities[: columns - 1])]
    words = [Text([shorten(head, pitch)], pitch, color=GRAY, centered=True) for head in heads]
    sheet: list[Part] = [HStack([Text(["severity"], label + GUTTER // 2, color=GRAY), *words], gap=0)]
    for name, row in zip(names, shown, strict=True):
        tiles = [Tile(size, image, sample=0) for image in (clean, *row)]
        sheet.append(HStack([_middle(name, label, size[1]), *tiles], gap=GUTTER))
    facts = (
        first_of(len(shown), len(kinds), "kinds"),
        first_of(columns - 1, len(severities), "severities"),
    )
    reading = "Each row is one kind of corruption, from the image as it is to the highest severity."
    return compose(tag, title, VStack(sheet, gap=GUTTER), facts, reading=reading, **info)


def corruption_table(
    tag: str,
    errors: NDArray[Any],
    *,
    kinds: Sequence[str],
    severities: Sequence[int],
    clean: float,
    name: str,
    ratios: Mapping[str, Sequence[float]] = MappingProxyType({}),
    reference: str = "",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of corruption errors: of one network for each kind and severity, and relative to a reference for several.

    Args:
        tag: of the page.
        errors: share of mistakes ``[K, S]``, 0 to 1.
        kinds: K names; underscores are shown as spaces.
        severities: S of them.
        clean: share of mistakes on the images as they are.
        name: of the network that errs.
        ratios: corruption errors ``[K]`` by the network's name, NaN where there are none; the first three are shown.
            None of a network that is measured against no other.
        reference: name of the network that they are measured against.
        info: see `PageInfo`.
    """
    errors = np.asarray(errors, dtype=np.float64)
    columns = {model: np.asarray(values, dtype=np.float64) for model, values in ratios.items()}
    if errors.shape != (len(kinds), len(severities)) or any(
        values.shape != (len(kinds),) for values in columns.values()
    ):
        what = f"errors are {list(errors.shape)}, ratios {[list(values.shape) for values in columns.values()]}"
        raise InvalidArgumentError(
            f"{what}: give [{len(kinds)} kinds, {len(severities)} severities] and [{len(kinds)}]"
        )
    names = _names(kinds)
    means = {
        model: float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else np.nan
        for model, values in columns.items()
    }
    wide = _RATIOS // min(_MOST_RATIOS, max(2, len(columns)))
    shown = [
        _column(["CE of", shorten(model, wide), *map(_ratio, [*columns[model], means[model]])], wide)
        for model in list(columns)[:_MOST_RATIOS]
    ]
    cells = _heat(errors, severities, INNER_WIDTH - _LABEL - (wide + GUTTER) * len(shown) - GUTTER)
    table = HStack([_column(["", "", *names, "mean"], _LABEL), cells, *shown], gap=GUTTER)
    bar = ColorBar(_COLORS, "0 %", "100 %", label=f"error of {name}")
    facts = (
        f"clean error {percent(clean)} %",
        f"CE: error over that of {reference}" if columns else "",
        *(f"mCE of {model} {_ratio(mean)}" for model, mean in means.items()),
        f"columns of the first {_MOST_RATIOS} of {len(columns)}" if len(columns) > _MOST_RATIOS else "",
    )
    reading = f"How often {name} is mistaken under each kind of corruption"
    reading += (
        f", and CE, that error summed over the severities, divided by the same of {reference}: 1 is as bad, less is "
        "better. mCE is the mean over the kinds."
        if columns
        else ", and in the mean over the kinds, from the least severity to the highest."
    )
    lost = [kind for place, kind in enumerate(names) if any(np.isnan(values[place]) for values in columns.values())]
    undefined = (f"CE undefined for {', '.join(lost)}: {reference} makes no mistake",) if lost else ()
    body = VStack([table, bar], gap=GUTTER)
    return compose(tag, f"What corruptions cost {name}", body, facts, reading=reading, warnings=undefined, **info)


def _heat(errors: NDArray[np.float64], severities: Sequence[int], width: int) -> Sheet:
    """The errors in per cent as colored cells, their mean over the kinds last; the severities on top."""
    rows = np.vstack([errors, errors.mean(axis=0)])
    colors = apply(_COLORS, rows, 0, 1)
    cell = width // len(severities)
    parts: list[Part] = [Label(0, _top(0.5), "error in %, at severity", anchor="lm")]
    for (row, column), error in np.ndenumerate(rows):
        place = (cell * column, _top(row + 2, last=row == len(errors)), cell - 2, _ROW - 2)
        color = colors[row, column]
        ink = WHITE if color.mean() < 140 else DARK
        parts.append(Cell(*place, tuple(color.tolist()), [percent(error)], ink, float(error), row, column))
    for column, severity in enumerate(severities):
        parts.append(Label(cell * (column + 0.5), _top(1.5), f"{severity}", anchor="mm"))
    return Sheet(width, _top(len(rows) + 2, last=True), parts)


def _column(texts: Sequence[str], width: int) -> Sheet:
    """Texts one below the other, a row of the table each; the first two are heads, the last is the mean."""
    parts = []
    for row, text in enumerate(texts):
        middle = _top(row + 0.5, last=row == len(texts) - 1) - 1
        parts.append(Label(0, middle, text, GRAY if row < 2 else DARK, "lm"))
    return Sheet(width, _top(len(texts), last=True), parts)


def _top(row: float, *, last: bool = False) -> int:
    """Where a row of the table begins; the last is set apart."""
    return round(_ROW * row + _APART * last)


def _check_corrupted(corrupted: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    if corrupted.dtype != np.uint8 or corrupted.shape != shape:
        what = f"corrupted images are uint8 {list(shape)} for these kinds and severities"
        raise InvalidArgumentError(f"{what}, got {corrupted.dtype} {list(corrupted.shape)}; use tiles.to_rgb")


def _middle(text: str, width: int, height: int) -> Sheet:
    """A text at the left of a row, in its middle."""
    return Sheet(width, height, [Label(0, height / 2, text, DARK, "lm")])


def _names(kinds: Sequence[str]) -> list[str]:
    return [shorten(kind.replace("_", " "), _LABEL) for kind in kinds]


def _ratio(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "–"
