"""Dreams: images made by optimization, each with what it was made for, how far it came, and its climb."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.animation import animate, thin
from lightning_viz.render.colors import class_colors
from lightning_viz.render.page import BODY_HEIGHT, INNER_WIDTH, Caption, Picture, beside, page, stack
from lightning_viz.render.plots import POINT, canvas, class_key
from lightning_viz.render.text import (
    DARK,
    GRAY,
    LINE,
    TEXT_SIZE,
    draw_lines,
    number,
    shorten,
    step_text,
    text_width,
    wrap,
)
from lightning_viz.render.tiles import COLUMNS, GUTTER, check_images, count_flaws, enlarge, fit, hatched

MOST_TILES = 40
MOST_LINES = 2  # of a name, or of the words under it
PLOT_HEIGHT = 460
_SPARK = 30  # pixels high
_FINER = 4  # a sparkline is drawn so many times larger and made smaller, which smooths it
_LARGE = 0.7  # of the largest tiles: rather full rows than the last pixel
_LABEL = 150  # pixels for the names of rows
_APART = 10  # pixels between rows of tiles
_LEFT, _RIGHT, _BOTTOM = 100, 20, 64  # pixels around the axes


def dream_tiles(
    tag: str,
    images: NDArray[np.uint8],
    *,
    title: str,
    names: Sequence[str],
    words: Sequence[str] = (),
    curves: NDArray[Any] | None = None,
    step: int | None = None,
    details: Sequence[str] = (),
    reading: str = "",
    notes: Sequence[str] = (),
) -> Picture:
    """Dreams side by side: what each was made for under it, how far it came, and how it came there.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the dreams ``[N, H, W, 3]``; the first 40 are shown.
        title: what they are.
        names: what each was made for.
        words: how far each came ("logit 12.3, 99 %"), or none.
        curves: the objective before each update ``[N, steps]``, drawn under each tile on its own scale.
        step: number of completed updates of the network, if it is being trained.
        details: further facts for the caption.
        reading: how to read the picture, for the description; a sentence of its own if empty.
        notes: further warnings for the caption.
    """
    check_images(images)
    _check_names("names", names, len(images))
    _check_names("words", words or names, len(images))
    shown = images[:MOST_TILES]
    if curves is not None and (curves.ndim != 2 or len(curves) != len(images)):
        raise InvalidArgumentError(f"curves are [{len(images)}, steps], got {curves.shape}")
    climbs = [None] * len(shown) if curves is None else list(np.asarray(curves, dtype=np.float64)[: len(shown)])
    said = list(words[: len(shown)]) or [""] * len(shown)
    size, columns = _layout(shown, names, said, _SPARK if curves is not None else 0)
    flaws = [_flaw(image, climb) for image, climb in zip(shown, climbs, strict=True)]
    tiles = [hatched(size, flaw) if flaw else enlarge(image, size) for image, flaw in zip(shown, flaws, strict=True)]
    blocks = [tiles, _texts(names[: len(shown)], size[0], columns, DARK)]
    blocks += [_texts(said, size[0], columns, GRAY)] * any(said)
    blocks += [[_sparkline(climb, size[0]) for climb in climbs if climb is not None]] * (curves is not None)
    cells = [stack(list(parts), gap=0) for parts in zip(*blocks, strict=True)]
    body = stack([beside(cells[at : at + columns], gap=GUTTER) for at in range(0, len(cells), columns)], gap=_APART)
    facts = (
        "" if step is None else step_text(step),
        f"the first {len(shown)} of {len(images)}" if len(shown) < len(images) else "",
        *details,
        "" if curves is None else f"curves: the objective over {curves.shape[1]:,} updates, each on its own scale",
    )
    caption = Caption(title, facts, reading or _READING, (*count_flaws(flaws, "dreams"), *notes))
    return page(tag, caption, body)


def dream_table(
    tag: str,
    images: NDArray[np.uint8],
    *,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str] = (),
    words: Sequence[Sequence[str]] = (),
    details: Sequence[str] = (),
    reading: str = "",
    notes: Sequence[str] = (),
) -> Picture:
    """Dreams as a table: a row per layer or prior, say, and a column per class or seed.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the dreams ``[R, C, H, W, 3]``.
        title: what they are.
        rows: a name each, at the left.
        columns: a name each, on top, or none.
        words: a line under each tile, ``[R][C]``, or none.
        details: facts for the caption.
        reading: how to read the picture, for the description; a sentence of its own if empty.
        notes: further warnings for the caption.
    """
    if images.ndim != 5:
        raise InvalidArgumentError(f"images are [rows, columns, H, W, 3], got {images.shape}")
    check_images(images.reshape(-1, *images.shape[2:]))
    _check_names("rows", rows, len(images))
    _check_names("columns", columns or range(images.shape[1]), images.shape[1])
    _check_names("words", words or rows, len(images))
    label = min(_LABEL, max(text_width(name) for name in rows))
    across = INNER_WIDTH - label - GUTTER
    room = BODY_HEIGHT - LINE * bool(columns)
    under = LINE * bool(words)
    aspect = images.shape[2] / images.shape[3]
    size = fit(images.shape[1], len(images), aspect, under=under, room=room, across=across)
    sheet = []
    if columns:
        heads = [draw_lines([shorten(name, size[0])], size[0], color=GRAY, centered=True) for name in columns]
        sheet.append(beside([Image.new("RGB", (label, LINE), "white"), *heads], gap=GUTTER))
    flaws = [[_flaw(image) for image in row] for row in images]
    for place, (row, name) in enumerate(zip(images, rows, strict=True)):
        tiles = [
            hatched(size, flaw) if flaw else enlarge(image, size) for image, flaw in zip(row, flaws[place], strict=True)
        ]
        if words:
            said = [draw_lines([shorten(word, size[0])], size[0], color=GRAY) for word in words[place]]
            tiles = [stack([tile, word], gap=0) for tile, word in zip(tiles, said, strict=True)]
        lines = max(1, size[1] // LINE)
        sheet.append(beside([_text(name, label, lines, DARK), *tiles], gap=GUTTER))
    every = [flaw for row in flaws for flaw in row]
    caption = Caption(title, tuple(details), reading or _READING, (*count_flaws(every, "dreams"), *notes))
    return page(tag, caption, stack(sheet, gap=GUTTER))


def climb_curves(
    tag: str,
    curves: NDArray[Any],
    *,
    names: Sequence[str],
    title: str,
    label: str = "objective",
    logarithmic: bool = False,
    details: Sequence[str] = (),
    reading: str = "",
    notes: Sequence[str] = (),
) -> Picture:
    """Objectives, errors or losses over the updates, in one plot.

    Args:
        tag: where the picture stands in TensorBoard.
        curves: ``[N, steps]``, a value before each update; what is not finite is left out, and said.
        names: of the curves.
        title: what they are.
        label: of the axis: what the values are.
        logarithmic: the axis of the values; what is not positive is then left out too.
        details: facts for the caption.
        reading: how to read the picture, for the description; a sentence of its own if empty.
        notes: further warnings for the caption.
    """
    curves = np.asarray(curves, dtype=np.float64)
    if curves.ndim != 2:
        raise InvalidArgumentError(f"curves are [N, steps], got {curves.shape}")
    _check_names("names", names, len(curves))
    shown = np.where(np.isfinite(curves) & ((curves > 0) | (not logarithmic)), curves, np.nan)
    colors = class_colors(len(curves))
    with canvas(INNER_WIDTH, PLOT_HEIGHT) as sheet:
        axes = sheet.axes(_LEFT, _BOTTOM, INNER_WIDTH - _LEFT - _RIGHT, PLOT_HEIGHT - _BOTTOM - 12)
        for place, (values, color) in enumerate(zip(shown, colors, strict=True)):
            dashes = ("-", "--", ":")[place // 20 % 3]  # where colors come again
            axes.plot(values, color=color / 255, linewidth=2.5 * POINT, linestyle=dashes)
        if logarithmic:
            axes.set_yscale("log")
        else:
            ticks = list(axes.get_yticks()[1:-1])
            axes.set_yticks(ticks, [number(round(value, 10)) for value in ticks])
        axes.set_xlim(0, max(1, curves.shape[1] - 1))
        axes.tick_params(colors="0.35", labelsize=TEXT_SIZE * POINT)
        axes.set_xlabel("updates", fontsize=TEXT_SIZE * POINT, color="0.35")
        axes.set_ylabel(label, fontsize=TEXT_SIZE * POINT, color="0.35")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        plot = sheet.image()
    lost = int(np.isnan(shown).any(axis=1).sum())
    which = "not finite, or not positive," if logarithmic else "not finite"
    warnings = (f"{which} in {lost} of {len(curves)} curves",) if lost else ()
    facts = (f"{curves.shape[1]:,} updates", "logarithmic" if logarithmic else "", *details)
    reads = reading or f"Each line is one dream: its {label} before each update of the image."
    body = stack([plot, class_key(names, colors)], gap=6)
    return page(tag, Caption(title, facts, reads, (*warnings, *notes)), body)


def dream_animation(
    tag: str,
    frames: NDArray[np.uint8],
    steps: Sequence[int],
    *,
    title: str,
    names: Sequence[str],
    details: Sequence[str] = (),
    reading: str = "",
) -> Picture:
    """The climb as an animation: a page of dreams for each frame, which says its update.

    Args:
        tag: where the picture stands in TensorBoard.
        frames: the dreams on the way ``[F, N, H, W, 3]``; at most 60 are kept, spread over the log of the update.
        steps: updates made by each frame, ascending.
        title: what they are.
        names: what each was made for.
        details: further facts for the caption.
        reading: how to read the pictures, for the description; a sentence of its own if empty.
    """
    _check_names("steps", steps, len(frames))
    pages = []
    for place in thin(steps):
        burnt_in = (f"update {steps[place]:,}", *details)
        one = dream_tiles(tag, frames[place], title=title, names=names, details=burnt_in, reading=reading)
        pages.append((steps[place], one))
    description = pages[-1][1].description if pages else ""
    return animate(tag, [(step, one.image) for step, one in pages], description=description)


_READING = "Each image was made from scratch to excite what is written under it: what the network looks for there."


def _layout(
    images: NDArray[Any], names: Sequence[str], words: Sequence[str], spark: int
) -> tuple[tuple[int, int], int]:
    """The tiles' size, and how many stand in a row so that they come out large and fill their rows."""
    count = max(1, len(images))
    sizes = {}
    for columns in range(2, max(2, min(COLUMNS, count)) + 1):
        lines = 1
        for _ in range(2):  # the lines of text follow from the width, which follows from the lines
            under = LINE * lines + spark + _APART
            size = fit(columns, -(-count // columns), images.shape[1] / images.shape[2], under=under)
            lines = _lines(names[:count], size[0]) + _lines(words, size[0]) * any(words)
        sizes[columns] = size
    largest = max(width for width, _ in sizes.values())
    large = [columns for columns, (width, _) in sizes.items() if width >= _LARGE * largest]
    columns = min(large, key=lambda each: (-count % each, -sizes[each][0]))
    return sizes[columns], columns


def _lines(texts: Sequence[str], width: int) -> int:
    return min(MOST_LINES, max([1, *(len(wrap(text, width)) for text in texts)]))


def _texts(texts: Sequence[str], width: int, columns: int, color: tuple[int, int, int]) -> list[Image.Image]:
    """What stands under tiles; in a row of them all of one height."""
    rows = [texts[at : at + columns] for at in range(0, len(texts), columns)]
    return [_text(text, width, _lines(row, width), color) for row in rows for text in row]


def _text(text: str, width: int, lines: int, color: tuple[int, int, int]) -> Image.Image:
    """A text wrapped into so many lines; what does not fit is cut out before its last word, the number mostly."""
    wrapped = wrap(text, width)
    if len(wrapped) > lines:
        rest, _, end = " ".join(wrapped[lines - 1 :]).rpartition(" ")
        wrapped = [*wrapped[: lines - 1], shorten(rest, width, suffix=f" {end}") if rest else shorten(end, width)]
    return draw_lines([*wrapped, *[""] * (lines - len(wrapped))], width, color=color)


def _sparkline(values: NDArray[np.float64], width: int) -> Image.Image:
    """A curve from its least to its most; where it is not finite there is a gap, and a flat one lies in the middle."""
    wide, high, pen = width * _FINER, _SPARK * _FINER, 2 * _FINER
    image = Image.new("RGB", (wide, high), "white")
    draw = ImageDraw.Draw(image)
    finite = np.isfinite(values)
    low, high_end = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    across = np.linspace(pen, wide - pen, max(2, len(values)))
    shares = (values - low) / (high_end - low) if high_end > low else np.where(finite, 0.5, np.nan)
    up = high - 2 * pen - shares * (high - 4 * pen)
    for place in np.flatnonzero(finite[:-1] & finite[1:]):
        draw.line([(across[place], up[place]), (across[place + 1], up[place + 1])], fill=GRAY, width=pen)
    return image.resize((width, _SPARK), Image.Resampling.LANCZOS)


def _flaw(image: NDArray[np.uint8], climb: NDArray[np.float64] | None = None) -> str:
    """Why a dream cannot be shown: its objective became NaN, or it is of one color, which holds nothing."""
    if climb is not None and len(climb) and np.isnan(climb[-1]):
        return "NaN"
    return "" if (image != image[:1, :1]).any() else "flat"


def _check_names(what: str, names: Any, count: int) -> None:
    if len(names) != count:
        raise InvalidArgumentError(f"{len(names)} {what} for {count}: give one each")
