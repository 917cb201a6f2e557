"""Robustness: one image in all its corruptions, and a table of what each of them costs."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import apply
from lightning_viz.render.page import BODY_HEIGHT, INNER_WIDTH, Caption, Picture, beside, page, stack
from lightning_viz.render.plots import color_bar
from lightning_viz.render.text import DARK, GRAY, LINE, draw_lines, font, percent, shorten, text_width
from lightning_viz.render.tiles import COLUMNS, GUTTER, check_images, enlarge, fit

MOST_ROWS = 16
_LABEL = 170  # pixels for the names of rows
MOST_RATIOS = 3
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
    details: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """One image in all its corruptions: a row for each kind, the image as it is at the left, then its severities.

    Args:
        tag: where the picture stands in TensorBoard.
        clean: the image ``[H, W, 3]``.
        corrupted: the same corrupted, ``[K, S, H, W, 3]``; the first 16 kinds and the first 7 severities are shown.
        kinds: K names; underscores are shown as spaces.
        severities: S of them.
        title: what it is.
        details: facts for the caption.
        notes: warnings for the caption.
    """
    check_images(clean[None])
    _check_corrupted(corrupted, (len(kinds), len(severities), *clean.shape))
    shown = corrupted[:MOST_ROWS, : COLUMNS - 1]
    names = _names(kinds[: len(shown)])
    label = min(_LABEL, max(map(text_width, names)) + GUTTER)
    columns = shown.shape[1] + 1
    aspect, across = clean.shape[0] / clean.shape[1], INNER_WIDTH - label - GUTTER
    size = fit(columns, len(shown), aspect, room=BODY_HEIGHT - LINE, across=across)
    pitch = size[0] + GUTTER  # a head may be as wide as a tile with what is around it
    heads = ["clean", *(f"{severity}" for severity in severities[: columns - 1])]
    words = [draw_lines([shorten(head, pitch)], pitch, color=GRAY, centered=True) for head in heads]
    sheet = [beside([draw_lines(["severity"], label + GUTTER // 2, color=GRAY), *words], gap=0)]
    for name, row in zip(names, shown, strict=True):
        tiles = [enlarge(image, size) for image in (clean, *row)]
        sheet.append(beside([_middle(name, label, size[1]), *tiles], gap=GUTTER))
    facts = (
        f"the first {len(shown)} of {len(kinds)} kinds" if len(shown) < len(kinds) else "",
        f"the first {columns - 1} of {len(severities)} severities" if columns - 1 < len(severities) else "",
        *details,
    )
    reading = "Each row is one kind of corruption, from the image as it is to the highest severity."
    return page(tag, Caption(title, facts, reading, tuple(notes)), stack(sheet, gap=GUTTER))


def corruption_tiles(
    tag: str,
    clean: NDArray[np.uint8],
    corrupted: NDArray[np.uint8],
    *,
    kinds: Sequence[str],
    severity: int,
    details: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """One image in all its corruptions at one severity, large: a tile each, the image as it is first.

    Args:
        tag: where the picture stands in TensorBoard.
        clean: the image ``[H, W, 3]``.
        corrupted: the same corrupted, ``[K, H, W, 3]``; the first 15 are shown.
        kinds: K names; underscores are shown as spaces.
        severity: of all of them.
        details: facts for the caption.
        notes: warnings for the caption.
    """
    check_images(clean[None])
    _check_corrupted(corrupted, (len(kinds), *clean.shape))
    images = [clean, *corrupted[: MOST_ROWS - 1]]
    sizes = {}
    for columns in range(1, COLUMNS + 1):
        rows = -(-len(images) // columns)
        sizes[fit(columns, rows, clean.shape[0] / clean.shape[1], under=LINE)] = columns
    size = max(sizes)
    columns = sizes[size]
    words = ["clean", *_names(kinds[: len(images) - 1])]
    tiles = [
        stack([enlarge(image, size), draw_lines([shorten(word, size[0])], size[0])], gap=0)
        for image, word in zip(images, words, strict=True)
    ]
    body = stack([beside(tiles[at : at + columns], gap=GUTTER) for at in range(0, len(tiles), columns)], gap=GUTTER)
    facts = (f"the first {len(images) - 1} of {len(kinds)} kinds" if len(images) <= len(kinds) else "", *details)
    reading = "The same image under each kind of corruption, the first as it is."
    return page(tag, Caption(f"One image under corruptions of severity {severity}", facts, reading, tuple(notes)), body)


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
    details: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """What corruptions cost: the error of one network for each kind and severity, and the corruption errors of several.

    Args:
        tag: where the picture stands in TensorBoard.
        errors: share of mistakes ``[K, S]``, 0 to 1.
        kinds: K names; underscores are shown as spaces.
        severities: S of them.
        clean: share of mistakes on the images as they are.
        name: of the network that errs.
        ratios: corruption errors ``[K]`` by the network's name, NaN where there are none; the first three are shown.
            None of a network that is measured against no other.
        reference: name of the network that they are measured against.
        details: further facts for the caption.
        notes: further warnings for the caption.
    """
    errors = np.asarray(errors, dtype=np.float64)
    columns = {model: np.asarray(each, dtype=np.float64) for model, each in ratios.items()}
    if errors.shape != (len(kinds), len(severities)) or any(each.shape != (len(kinds),) for each in columns.values()):
        what = f"errors are {list(errors.shape)}, ratios {[list(each.shape) for each in columns.values()]}"
        raise InvalidArgumentError(
            f"{what}: give [{len(kinds)} kinds, {len(severities)} severities] and [{len(kinds)}]"
        )
    names = _names(kinds)
    means = {
        model: float(each[~np.isnan(each)].mean()) if not np.isnan(each).all() else np.nan
        for model, each in columns.items()
    }
    wide = _RATIOS // min(MOST_RATIOS, max(2, len(columns)))
    shown = [
        _column(["CE of", shorten(model, wide), *map(_ratio, [*columns[model], means[model]])], wide)
        for model in list(columns)[:MOST_RATIOS]
    ]
    cells = _heat(errors, severities, INNER_WIDTH - _LABEL - (wide + GUTTER) * len(shown) - GUTTER)
    table = beside([_column(["", "", *names, "mean"], _LABEL), cells, *shown], gap=GUTTER)
    bar = color_bar(_COLORS, "0 %", "100 %", label=f"error of {name}")
    facts = (
        f"clean error {percent(clean)} %",
        f"CE: error over that of {reference}" if columns else "",
        *(f"mCE of {model} {_ratio(mean)}" for model, mean in means.items()),
        f"columns of the first {MOST_RATIOS} of {len(columns)}" if len(columns) > MOST_RATIOS else "",
        *details,
    )
    reading = f"How often {name} is mistaken under each kind of corruption"
    reading += (
        f", and CE, that error summed over the severities, divided by the same of {reference}: 1 is as bad, less is "
        "better. mCE is the mean over the kinds."
        if columns
        else ", and in the mean over the kinds, from the least severity to the highest."
    )
    lost = [kind for place, kind in enumerate(names) if any(np.isnan(each[place]) for each in columns.values())]
    undefined = (f"CE undefined for {', '.join(lost)}: {reference} makes no mistake",) if lost else ()
    caption = Caption(f"What corruptions cost {name}", facts, reading, (*undefined, *notes))
    return page(tag, caption, stack([table, bar], gap=GUTTER))


def _heat(errors: NDArray[np.float64], severities: Sequence[int], width: int) -> Image.Image:
    """The errors in per cent as colored cells, their mean over the kinds last; the severities on top."""
    rows = np.vstack([errors, errors.mean(axis=0)])
    colors = apply(_COLORS, rows, 0, 1)
    image = Image.new("RGB", (width, _top(len(rows) + 2, last=True)), "white")
    draw = ImageDraw.Draw(image)
    draw.text((0, _top(0.5)), "error in %, at severity", fill=GRAY, font=font(), anchor="lm")
    cell = width // len(severities)
    for (row, column), error in np.ndenumerate(rows):
        left, top = cell * column, _top(row + 2, last=row == len(errors))
        color = colors[row, column]
        ink = "white" if color.mean() < 140 else DARK
        draw.rectangle((left, top, left + cell - 3, top + _ROW - 3), fill=tuple(color.tolist()))
        draw.text((left + cell / 2 - 1, top + _ROW / 2 - 1), percent(error), fill=ink, font=font(), anchor="mm")
    for column, severity in enumerate(severities):
        draw.text((cell * (column + 0.5), _top(1.5)), f"{severity}", fill=GRAY, font=font(), anchor="mm")
    return image


def _column(texts: Sequence[str], width: int) -> Image.Image:
    """Texts one below the other, a row of the table each; the first two are heads, the last is the mean."""
    image = Image.new("RGB", (width, _top(len(texts), last=True)), "white")
    draw = ImageDraw.Draw(image)
    for row, text in enumerate(texts):
        middle = _top(row + 0.5, last=row == len(texts) - 1) - 1
        draw.text((0, middle), text, fill=GRAY if row < 2 else DARK, font=font(), anchor="lm")
    return image


def _top(row: float, *, last: bool = False) -> int:
    """Where a row of the table begins; the last is set apart."""
    return round(_ROW * row + _APART * last)


def _check_corrupted(corrupted: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    if corrupted.dtype != np.uint8 or corrupted.shape != shape:
        what = f"corrupted images are uint8 {list(shape)} for these kinds and severities"
        raise InvalidArgumentError(f"{what}, got {corrupted.dtype} {list(corrupted.shape)}; use tiles.to_rgb")


def _middle(text: str, width: int, height: int) -> Image.Image:
    """A text at the left of a row, in its middle."""
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).text((0, height / 2), text, fill=DARK, font=font(), anchor="lm")
    return image


def _names(kinds: Sequence[str]) -> list[str]:
    return [shorten(kind.replace("_", " "), _LABEL) for kind in kinds]


def _ratio(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "–"
