"""Dreams: images made by optimization, each with what it was made for, how far it came, and its climb."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.render.activations import GROUND, Crop, framed
from lightning_viz.render.animation import animate, thin
from lightning_viz.render.colors import class_colors
from lightning_viz.render.layout import BODY_HEIGHT, COLUMNS, GUTTER, INNER_WIDTH, fit, heads, in_columns, in_rows
from lightning_viz.render.page import (
    Page,
    PageInfo,
    Picture,
    body_room,
    check_count,
    check_rgb,
    check_shape,
    compose,
    lay_out,
)
from lightning_viz.render.parts import (
    At,
    ClassKey,
    ClimbPlot,
    Color,
    CurveTile,
    HStack,
    Part,
    Sheet,
    Text,
    Tile,
    TileSize,
    VStack,
)
from lightning_viz.render.text import DARK, GRAY, LINE, RED, first_of, shorten, text_width, wrap
from lightning_viz.render.tiles import CROSS, Flaw, count_flaws

__all__ = ["climb_curves", "dream_animation", "dream_table", "dream_tiles"]

_MOST_TILES = 40
_MOST_LINES = 2  # of a name, or of the words under it
_SPARK = 30  # pixels high
_LARGE = 0.7  # of the largest tiles: rather full rows than the last pixel
_LABEL = 150  # pixels for the names of rows
_APART = 10  # pixels between rows of tiles
_SAMPLES, _CLOSE = 2, 2  # beside a dream; pixels between them


def dream_tiles(
    tag: str,
    images: NDArray[np.uint8],
    *,
    title: str,
    names: Sequence[str],
    words: Sequence[str] = (),
    reached: Sequence[bool] = (),
    curves: NDArray[Any] | None = None,
    samples: Sequence[Sequence[Crop]] = (),
    sample_count: int = 0,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of dreams side by side: what each was made for under it, how far it came, and how it came there.

    Args:
        tag: of the page.
        images: the dreams ``[N, H, W, 3]``; the first 40 are shown.
        title: what they are.
        names: what each was made for.
        words: how far each came ("logit 12.3, 99 %"), or none.
        reached: whether the model takes each for what it was made for; one that it does not carries a cross.
        curves: the objective before each update ``[N, steps]``, drawn under each tile on its own scale.
        samples: the strongest of each unit, drawn beside its dream, two at most; or none.
        sample_count: among how many they are the strongest.
        info: see `PageInfo`.
    """
    check_rgb(images)
    check_count("names", names, len(images))
    check_count("words", words or names, len(images))
    check_count("reached", reached or names, len(images))
    shown = images[:_MOST_TILES]
    if curves is not None:
        check_shape("curves", curves, len(images), "steps")
    climbs = None if curves is None else np.asarray(curves, dtype=np.float64)[: len(shown)]
    missed = [not each for each in reached] if reached else [False] * len(images)
    under = [CROSS * miss + word for miss, word in zip(missed, words or [""] * len(images), strict=True)][: len(shown)]
    check_count("rows of samples", samples or names, len(images))
    silent = f"hatched: 0 on all of these {sample_count:,} samples, others may excite it" if samples else ""
    facts = (first_of(len(shown), len(images), ""), silent)
    last = ("" if curves is None else f"curves: the objective over {curves.shape[1]:,} updates, each on its own scale",)
    room = body_room(title, facts, last=last, **info)
    size, columns = _layout(shown, names, under, _SPARK if climbs is not None else 0, room, beside=bool(samples))
    flaws = [_find_flaw(image, None if climbs is None else climbs[index]) for index, image in enumerate(shown)]
    blocks: list[Sequence[Part]] = [
        _beside(size, shown, flaws, samples, sample_count) if samples else _tiles(size, shown, flaws),
        _texts(names[: len(shown)], size[0], columns, [DARK] * len(shown)),
    ]
    if any(under):
        blocks.append(_texts(under, size[0], columns, [RED if miss else GRAY for miss in missed]))
    if climbs is not None:
        blocks.append([CurveTile(climb, size[0], _SPARK) for climb in climbs])
    body = VStack(in_rows(in_columns(*blocks, gap=0), columns, GUTTER), gap=_APART)
    lost = f"{sum(missed)} of {len(images)} are not taken for what they were made for" if any(missed) else ""
    warnings = (*filter(None, [lost]), *count_flaws(flaws, "dreams"))
    info = {**info, "reading": " ".join([info.get("reading") or _READING, *[_BESIDE] * bool(samples)])}
    return compose(tag, title, body, facts, warnings=warnings, last=last, **info)


def dream_table(
    tag: str,
    images: NDArray[np.uint8],
    *,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str] = (),
    words: Sequence[Sequence[str]] = (),
    **info: Unpack[PageInfo],
) -> Page:
    """Page of dreams as a table: a row per layer or prior, say, and a column per class or seed.

    Args:
        tag: of the page.
        images: the dreams ``[R, C, H, W, 3]``.
        title: what they are.
        rows: a name each, at the left.
        columns: a name each, on top, or none.
        words: a line under each tile, ``[R][C]``, or none.
        info: see `PageInfo`.
    """
    check_shape("images", images, "rows", "columns", "H", "W", 3)
    check_rgb(images.reshape(-1, *images.shape[2:]))
    check_count("rows", rows, len(images))
    check_count("columns", columns or range(images.shape[1]), images.shape[1])
    check_count("words", words or rows, len(images))
    label = min(_LABEL, max(text_width(name) for name in rows))
    across, room, under = INNER_WIDTH - label - GUTTER, BODY_HEIGHT - LINE * bool(columns), LINE * bool(words)
    size = fit(images.shape[1], len(images), images.shape[2] / images.shape[3], under=under, room=room, across=across)
    sheet = [HStack([Text([""], label), *heads(columns, size[0])], gap=GUTTER)] if columns else []
    flaws = [[_find_flaw(image) for image in row] for row in images]
    for place, (row, name) in enumerate(zip(images, rows, strict=True)):
        tiles: Sequence[Part] = _tiles(size, row, flaws[place])
        if words:
            texts = [Text([shorten(word, size[0])], size[0], color=GRAY) for word in words[place]]
            tiles = in_columns(tiles, texts, gap=0)
        sheet.append(HStack([_text(name, label, max(1, size[1] // LINE), DARK), *tiles], gap=GUTTER))
    warnings = count_flaws([flaw for row in flaws for flaw in row], "dreams")
    return compose(tag, title, VStack(sheet, gap=GUTTER), (), _READING, warnings=warnings, **info)


def climb_curves(
    tag: str,
    curves: NDArray[Any],
    *,
    names: Sequence[str],
    title: str,
    label: str = "objective",
    logarithmic: bool = False,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of objectives, errors or losses over the updates, in one plot.

    Args:
        tag: of the page.
        curves: ``[N, steps]``, a value before each update; what is not finite is left out, and said.
        names: of the curves.
        title: what they are.
        label: of the axis: what the values are.
        logarithmic: the axis of the values; what is not positive is then left out too.
        info: see `PageInfo`.
    """
    curves = np.asarray(curves, dtype=np.float64)
    check_shape("curves", curves, "N", "steps")
    check_count("names", names, len(curves))
    shown = np.where(np.isfinite(curves) & ((curves > 0) | (not logarithmic)), curves, np.nan)
    colors = class_colors(len(curves))
    plot = ClimbPlot(width=INNER_WIDTH, height=460, curves=shown, label=label, logarithmic=logarithmic)
    lost = int(np.isnan(shown).any(axis=1).sum())
    which = "not finite, or not positive," if logarithmic else "not finite"
    warnings = (f"{which} in {lost} of {len(curves)} curves",) if lost else ()
    facts = (f"{curves.shape[1]:,} updates", "logarithmic" if logarithmic else "")
    reading = f"Each line is one dream: its {label} before each update of the image."
    body = VStack([plot, ClassKey(names, colors)], gap=6)
    return compose(tag, title, body, facts, reading, warnings=warnings, **info)


def dream_animation(
    tag: str,
    frames: NDArray[np.uint8],
    steps: Sequence[int],
    *,
    title: str,
    names: Sequence[str],
    **info: Unpack[PageInfo],
) -> Picture:
    """Animation of dreams on their way: a page for each frame, which shows its update.

    Args:
        tag: of the picture.
        frames: the dreams on the way ``[F, N, H, W, 3]``; at most 60 are kept, spread over the log of the update.
        steps: updates made by each frame, ascending.
        title: what they are.
        names: what each was made for.
        info: see `PageInfo`.
    """
    check_count("steps", steps, len(frames))
    pictures, description = [], ""
    for place in thin(steps):
        more: PageInfo = {**info, "details": (f"update {steps[place]:,}", *info.get("details", ()))}
        picture = lay_out(dream_tiles(tag, frames[place], title=title, names=names, **more))
        pictures.append((steps[place], picture.image))
        description = picture.description
    return animate(tag, pictures, description=description)


_BESIDE = (
    "One that is cut was made for the position in the middle of the channel's map alone, and shows all that this one "
    "sees. At its right are the samples that excite the same unit most, each cut to what its maximum depends on (its "
    "receptive field; light gray lies outside the image); hatched if none of these few raises it above 0: others may."
)
_READING = "Each image was made from scratch to excite what is written under it: what the network looks for there."


def stretch_contrast(pixels: NDArray[Any]) -> NDArray[Any]:
    """Images on a scale of their own: from 0, their 1st percentile, to 1, their 99th; of one color as they are.

    Args:
        pixels: ``[N, C, H, W]``.
    """
    flat = np.nan_to_num(np.asarray(pixels, dtype=np.float64)).reshape(len(pixels), -1)
    low, high = np.percentile(flat, [1, 99], axis=1)[..., None]
    spread = high - low
    scaled = np.where(spread > 0, (flat - low) / np.where(spread > 0, spread, 1), flat)
    return np.clip(scaled, 0, 1).reshape(pixels.shape)


def _beside(
    size: TileSize,
    images: NDArray[np.uint8],
    flaws: Sequence[Flaw | None],
    samples: Sequence[Sequence[Crop]],
    count: int,
) -> list[Sheet]:
    """Dreams, each with its unit's strongest of so many samples one below the other at its right."""
    width, height = round((size[0] - 3 * _CLOSE) / (1 + 1 / _SAMPLES)), size[1] - 2 * _CLOSE
    small = (size[0] - 3 * _CLOSE - width, (height - (_SAMPLES - 1) * _CLOSE) // _SAMPLES)
    every = [crop.image.shape[:2] for row in samples for crop in row[:_SAMPLES]]
    highest, widest = np.max([(1, 1), *every], axis=0).tolist()
    blocks = []
    for dream, row in zip(_tiles((width, height), images, flaws), samples, strict=False):
        tiles = [Tile(small, framed(crop, crop.image, (highest, widest)), value=crop.value) for crop in row[:_SAMPLES]]
        left, pitch, missing = width + 2 * _CLOSE, small[1] + _CLOSE, _SAMPLES - len(tiles)
        if missing:  # one tile, as high as those that are not there
            tiles.append(Tile((small[0], pitch * missing - _CLOSE), flaw=f"0 in {count - len(tiles):,}"))
        places = [At(left, _CLOSE + pitch * place, tile) for place, tile in enumerate(tiles)]
        blocks.append(Sheet(*size, [At(_CLOSE, _CLOSE, dream), *places], GROUND))
    return blocks


def _layout(
    images: NDArray[Any], names: Sequence[str], words: Sequence[str], spark: int, room: int, *, beside: bool = False
) -> tuple[TileSize, int]:
    """The tiles' size, and how many stand in a row so that they come out large and fill their rows."""
    count = max(1, len(images))
    aspect = images.shape[1] / images.shape[2] / (1 + beside / _SAMPLES)
    sizes = {}
    for columns in range(2, max(2, min(COLUMNS, count)) + 1):
        lines = 1
        for _ in range(2):  # the lines of text follow from the width, which follows from the lines
            under = LINE * lines + spark + _APART
            size = fit(columns, -(-count // columns), aspect, under=under, room=room)
            lines = _lines(names[:count], size[0]) + _lines(words, size[0]) * any(words)
        sizes[columns] = size
    largest = max(width for width, _ in sizes.values())
    share = 1.0 if beside else _LARGE  # samples are small beside their dream
    large = [columns for columns, (width, _) in sizes.items() if width >= share * largest]
    columns = min(large, key=lambda number: (-count % number, -sizes[number][0]))
    return sizes[columns], columns


def _lines(texts: Sequence[str], width: int) -> int:
    return min(_MOST_LINES, max([1, *(len(wrap(text, width)) for text in texts)]))


def _texts(texts: Sequence[str], width: int, columns: int, colors: Sequence[Color]) -> list[Text]:
    """What stands under tiles; in a row of them all of one height."""
    rows = [texts[at : at + columns] for at in range(0, len(texts), columns)]
    lines = [_lines(row, width) for row in rows for _ in row]
    return [_text(*each) for each in zip(texts, [width] * len(texts), lines, colors, strict=False)]


def _text(text: str, width: int, lines: int, color: Color) -> Text:
    """A text wrapped into so many lines; what does not fit is cut out before its last word, the number mostly."""
    wrapped = wrap(text, width)
    if len(wrapped) > lines:
        rest, _, end = " ".join(wrapped[lines - 1 :]).rpartition(" ")
        wrapped = [*wrapped[: lines - 1], shorten(rest, width, suffix=f" {end}") if rest else shorten(end, width)]
    return Text([*wrapped, *[""] * (lines - len(wrapped))], width, color=color)


def _tiles(size: TileSize, images: NDArray[np.uint8], flaws: Sequence[Flaw | None]) -> list[Tile]:
    return [Tile(size, image, flaw, index) for index, (image, flaw) in enumerate(zip(images, flaws, strict=True))]


def _find_flaw(image: NDArray[np.uint8], climb: NDArray[np.float64] | None = None) -> Flaw | None:
    """Why a dream cannot be shown: its objective became NaN, or it is of one color, which holds nothing."""
    if climb is not None and len(climb) and np.isnan(climb[-1]):
        return Flaw.NAN
    return None if (image != image[:1, :1]).any() else Flaw.FLAT
