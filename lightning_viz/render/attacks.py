"""Attacks on a page: samples above their adversarial twins and what changed, or above few pixels changed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.animation import thin
from lightning_viz.render.colors import Colors, class_colors
from lightning_viz.render.heatmaps import as_image, diverging
from lightning_viz.render.page import BODY_HEIGHT, INNER_WIDTH, Caption, Picture, beside, page, stack
from lightning_viz.render.plots import color_bar, name_of
from lightning_viz.render.text import (
    DARK,
    GRAY,
    LINE,
    RED,
    draw_lines,
    font,
    number,
    percent,
    shorten,
    step_text,
    wrap,
    wrap_items,
)
from lightning_viz.render.tiles import (
    COLUMNS,
    CROSS,
    GUTTER,
    Verdict,
    check_images,
    count_flaws,
    describe_channels,
    draw_verdicts,
    enlarge,
    fit,
    flaw,
    hatched,
)

_UNCHANGED = "no change"
_NARROWEST = (INNER_WIDTH + GUTTER) // COLUMNS - GUTTER  # pixels: a column, whose tile may be narrower
_MOST_RINGS = 50  # beyond it rings would cover the image
_RING, _FINER = 9, 4  # a ring's least radius in pixels; drawn so many times larger and made smaller


def twins(
    tag: str,
    images: NDArray[np.uint8],
    twins: NDArray[np.uint8],
    differences: NDArray[Any],
    *,
    before: Sequence[Verdict],
    after: Sequence[Verdict],
    norms: Sequence[str],
    attack: str,
    norm: str = "its norm",
    step: int | None = None,
    magnify: float | None = None,
    details: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """Samples, below each its adversarial twin, and below that the difference, all magnified alike.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the samples ``[N, H, W, 3]``; the first 8 are shown.
        twins: what the attack made of them ``[N, H, W, 3]``.
        differences: twins minus images ``[N, C, H, W]``, signed, in pixels of 0 to 1.
        before: what the network says of the images; a truth that is not known counts as what it says.
        after: what it says of the twins.
        norms: of each difference, as it is to be written ("1.02 %"; 7 characters fit under each of eight samples).
        attack: its name and how far it went ("PGD, ε 0.05").
        norm: what `norms` are ("its L2 norm, of the image's").
        step: number of completed updates of the network, if it is being trained.
        magnify: by how much differences are multiplied; so that the largest just fills the range if omitted.
        details: further facts for the caption.
        notes: further warnings for the caption.
    """
    check_images(images)
    check_images(twins)
    expected = (len(images), differences.shape[1] if differences.ndim == 4 else 0, *images.shape[1:3])
    if twins.shape != images.shape or differences.shape != expected or not differences.size:
        what = (
            f"twins are {list(images.shape)} and differences [{len(images)}, C, {images.shape[1]}, {images.shape[2]}]"
        )
        raise InvalidArgumentError(f"{what} for these images, got {list(twins.shape)} and {list(differences.shape)}")
    for name, given in (("before", before), ("after", after), ("norms", norms)):
        _check_count(name, given, len(images))
    if magnify is not None and not 0 < magnify < np.inf:
        raise InvalidArgumentError(
            f"magnify={magnify}: differences are multiplied by it; give a number above 0, or None"
        )
    count = min(len(images), COLUMNS)
    shown = np.asarray(differences[:count], dtype=np.float64)
    largest = float(np.abs(shown[np.isfinite(shown)]).max(initial=0))
    factor = magnify or (0.5 / largest if largest else 1.0)
    size, wide = _tile_size(images, rows=3, lines=9)
    flaws = [flaw(each, single=False).replace("all zero", _UNCHANGED) for each in shown]
    changes = [
        hatched(size, words) if words else _difference(image, each, factor, size)
        for image, each, words in zip(images, shown, flaws, strict=False)
    ]
    written = [draw_lines([shorten(each, wide)], wide, color=GRAY) for each in norms[:count]]
    bands = [
        _band("the image", _tiles(images[:count], size), draw_verdicts(list(before[:count]), wide)),
        _band("its adversarial twin", _tiles(twins[:count], size), _outcomes(before, after, wide)[:count]),
        _band(f"the difference × {number(factor)}, and {norm}", changes, written),
        _scale(factor, shown.shape[1]),
    ]
    channels = describe_channels(shown.shape[1])
    facts = (
        "" if step is None else step_text(step),
        f"network {_tally(before, after)}",
        _was_wrong(before),
        _first(count, len(images)),
        f"images: {channels}" if channels else "",
        f"differences above {number(0.5 / factor)} are cut off" if factor * largest > 0.5 + 1e-6 else "",
        *details,
    )
    # A sample that was wrong already is mostly left as it is: no news.
    flaws = ["" if words == _UNCHANGED and each.mistaken else words for words, each in zip(flaws, before, strict=False)]
    reading = (
        "Each column is one sample: as it is, as the attack left it, and what changed, many times enlarged. Where the "
        "upper two look alike and the network's answers differ, it was fooled by what one can hardly see."
    )
    caption = Caption(f"Adversarial twins: {attack}", facts, reading, (*count_flaws(flaws, "samples"), *notes))
    return page(tag, caption, stack(bands, gap=GUTTER))


def pixel_gallery(
    tag: str,
    images: NDArray[np.uint8],
    twins: NDArray[np.uint8],
    *,
    rows: Sequence[str],
    before: Sequence[Verdict],
    after: Sequence[Sequence[Verdict]],
    details: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """Samples, and below them their twins of which few pixels were changed, those circled.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the samples ``[N, H, W, 3]``; the first 8 are shown.
        twins: what R attacks made of them ``[R, N, H, W, 3]``.
        rows: R names ("1 pixel").
        before: what the network says of the images.
        after: what it says of the twins, R times N.
        details: further facts for the caption.
        notes: further warnings for the caption.
    """
    check_images(images)
    if twins.ndim != 5 or twins.shape[1:] != images.shape or twins.dtype != np.uint8 or not twins.size:
        what = f"twins are uint8 [{len(rows)} rows, {', '.join(map(str, images.shape))}] for these images"
        raise InvalidArgumentError(f"{what}, got {twins.dtype} {list(twins.shape)}")
    _check_count("rows", rows, len(twins))
    _check_count("after", after, len(twins))
    _check_count("before", before, len(images))
    for name, each in zip(rows, after, strict=True):
        _check_count(f"after in the row {name!r}", each, len(images))
    count = min(len(images), COLUMNS)
    size, wide = _tile_size(images, rows=1 + len(twins), lines=3 + 3 * len(twins))
    bands = [_band("the image", _tiles(images[:count], size), draw_verdicts(list(before[:count]), wide))]
    crowded = 0
    for name, row, verdicts in zip(rows, twins, after, strict=True):
        changed = (row != images).any(axis=-1)
        crowded += int((changed[:count].sum(axis=(1, 2)) > _MOST_RINGS).sum())
        tiles = [_circled(tile, where) for tile, where in zip(_tiles(row[:count], size), changed, strict=False)]
        bands.append(
            _band(f"{name}: network {_tally(before, verdicts)}", tiles, _outcomes(before, verdicts, wide)[:count])
        )
    warnings = (f"{crowded} twins without rings: more than {_MOST_RINGS} pixels changed",) if crowded else ()
    facts = ("the rings show which pixels changed", _was_wrong(before), _first(count, len(images)), *details)
    reading = "Each column is one sample: as it is, and below with only the circled pixels changed."
    caption = Caption("Few pixels changed, and what the network then says", facts, reading, (*warnings, *notes))
    return page(tag, caption, stack(bands, gap=GUTTER))


def _difference(image: Colors, values: NDArray[np.float64], factor: float, size: tuple[int, int]) -> Image.Image:
    """Of red, green and blue around middle gray; of anything else blue where it fell and red where it rose.

    Of several channels the one that changed most is shown: in their mean opposite changes would cancel.
    """
    if len(values) == 3:
        return as_image(image, factor * values, size)
    strongest = np.abs(values).argmax(axis=0, keepdims=True)
    return diverging(image, 2 * factor * np.take_along_axis(values, strongest, axis=0)[0], size)


def _scale(factor: float, channels: int) -> Image.Image:
    end = number(0.5 / factor)
    name = "gray" if channels == 3 else "diverging"
    what = {1: "a pixel's change", 3: "each color's change"}.get(channels, "the largest change of a pixel's channels")
    return color_bar(name, f"−{end}", end, middle="0", label=f"{what}, of 0 to 1")


def _outcomes(before: Sequence[Verdict], after: Sequence[Verdict], width: int) -> list[Image.Image]:
    """Below a twin: whether the network was fooled, and what it says; blocks of one height."""
    texts = [
        [*wrap(_OUTCOMES[_outcome(first, last)], width), *Verdict(None, last.prediction, last.confidence).lines(width)]
        for first, last in zip(before, after, strict=True)
    ]
    most = max(map(len, texts))
    return [
        draw_lines([*lines, *[""] * (most - len(lines))], width, color=RED if lines[0].startswith(CROSS) else DARK)
        for lines in texts
    ]


_OUTCOMES = {
    "fooled": f"{CROSS}fooled",
    "held": "✓ held",
    "wrong": f"{CROSS}wrong",  # as it was before the attack
    "mended": "✓ right",  # where it was wrong before
}


def _outcome(before: Verdict, after: Verdict) -> str:
    fooled = after.prediction != (before.truth if before.truth is not None else before.prediction)
    if before.mistaken:
        return "wrong" if fooled else "mended"
    return "fooled" if fooled else "held"


def _tally(before: Sequence[Verdict], after: Sequence[Verdict]) -> str:
    """``fooled 5 of 7``, of those that were right before."""
    outcomes = [_outcome(first, last) for first, last in zip(before, after, strict=True)]
    right = [each for each in outcomes if each in ("fooled", "held")]
    return f"fooled on {right.count('fooled')} of the {len(right)} samples it had right" if right else "had none right"


def _tiles(images: NDArray[np.uint8], size: tuple[int, int]) -> list[Image.Image]:
    return [enlarge(image, size) for image in images]


def _tile_size(images: NDArray[Any], *, rows: int, lines: int) -> tuple[tuple[int, int], int]:
    """Of tiles in so many rows, which leave room for lines of text between them; and the width of that text."""
    room = BODY_HEIGHT - LINE * lines - 2 * GUTTER * (rows + 1)
    size = fit(max(1, min(len(images), COLUMNS)), rows, images.shape[1] / images.shape[2], room=room)
    return size, max(size[0], _NARROWEST)


def _band(heading: str, tiles: list[Image.Image], texts: list[Image.Image]) -> Image.Image:
    """A row of tiles under what they are, and a text under each, which may be wider."""
    head = draw_lines(wrap_items([heading], INNER_WIDTH), INNER_WIDTH, color=GRAY)
    cells = [stack([tile, text], gap=1) for tile, text in zip(tiles, texts, strict=True)]
    return stack([head, beside(cells, gap=GUTTER)], gap=1)


def _circled(tile: Image.Image, changed: NDArray[np.bool_]) -> Image.Image:
    """The tile with a thin ring round each pixel that changed, red within white, so that it is seen on any ground."""
    places = np.argwhere(changed)
    if not 0 < len(places) <= _MOST_RINGS:
        return tile
    across, down = tile.width / changed.shape[1] * _FINER, tile.height / changed.shape[0] * _FINER
    radius = max(_RING * _FINER, 0.9 * max(across, down))
    overlay = Image.new("RGBA", (tile.width * _FINER, tile.height * _FINER), (255, 255, 255, 0))
    draw = ImageDraw.Draw(overlay)
    for width, color in ((4 * _FINER, (255, 255, 255)), (2 * _FINER, RED)):
        for row, column in places:
            x, y, reach = (column + 0.5) * across, (row + 0.5) * down, radius + width / 2
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=(*color, 255), width=width)
    rings = overlay.resize(tile.size, Image.Resampling.LANCZOS)
    return Image.alpha_composite(tile.convert("RGBA"), rings).convert("RGB")


def _was_wrong(before: Sequence[Verdict]) -> str:
    return "wrong: as it was before the attack" if any(each.mistaken for each in before) else ""


def _first(shown: int, count: int) -> str:
    return f"the first {shown} of {count} samples" if shown < count else ""


def _check_count(what: str, given: Sequence[Any], count: int) -> None:
    if len(given) != count:
        raise InvalidArgumentError(f"{len(given)} {what} for {count}: give one each")


MOST_ROWS = 12
_CELL, _WIDEST, _GAP = 52, 110, 4  # pixels: height of rows, width of columns, between them
_MOVED = 86  # pixels for the last column
_HEADS = 2 * LINE
_PITCH = 22  # pixels between lines within a cell

Texts = list[str]


def record_table(
    tag: str,
    images: NDArray[np.uint8],
    classes: NDArray[Any],
    confidences: NDArray[Any],
    labels: NDArray[Any],
    *,
    names: Sequence[str] | None = None,
    relative: NDArray[Any] | None = None,
    step_numbers: Sequence[int] | None = None,
    attack: str,
    details: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """What the network says after each step of an attack: a row for each sample, a column for each step.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the samples ``[N, H, W, 3]``; the first 12 are shown.
        classes: after each step ``[S, N]``, of the samples as they are first; eight steps are shown, spread evenly
            over their logarithm, the last among them.
        confidences: of those, 0 to 1, ``[S, N]``.
        labels: the right classes ``[N]``.
        names: of all classes; their numbers if omitted.
        relative: length of the change by that of the sample ``[S, N]``; after the last step it is shown.
        step_numbers: of the S steps, ascending; 0, 1, ... if omitted.
        attack: its name, for the caption.
        details: further facts for the caption.
        notes: further warnings for the caption.
    """
    check_images(images)
    classes, confidences, labels = np.asarray(classes), np.asarray(confidences), np.asarray(labels)
    lengths = None if relative is None else np.asarray(relative)
    steps = list(range(len(classes))) if step_numbers is None else list(step_numbers)
    _check((len(steps), len(images)), labels, classes, confidences, *([] if lengths is None else [lengths]))
    if (np.diff(steps) <= 0).any():
        raise InvalidArgumentError(f"step_numbers={steps}: give them ascending")
    rows, kept = min(len(images), MOST_ROWS), thin(steps, COLUMNS)
    table = _Table(images[:rows], len(kept), moved=lengths is not None)
    count = max(int(classes.max(initial=0)), int(labels.max()), len(names or ()) - 1) + 1
    told = [name_of(each, tuple(names) if names else None) for each in range(count)]
    colors = class_colors(count)
    table.heads([f"{steps[place]:,}" for place in kept])
    for row, label in enumerate(labels[:rows]):
        table.cell(row, 0, [told[label]], colors[label])
        for column, place in enumerate(kept, start=1):
            said = classes[place, row]
            figure = (CROSS if said != label else "") + percent(confidences[place, row])
            table.cell(row, column, [told[said], figure], colors[said])
        if lengths is not None:
            length = 100 * float(lengths[-1, row])
            table.moved(row, f"{number(length)} %" if np.isfinite(length) else "–")
    began, ended = ((each != labels).sum() for each in (classes[0], classes[-1]))
    facts = (
        f"{ended} of {len(labels)} end on another class than their label",
        f"{began} began so" if began else "",
        f"{CROSS.strip()} no longer the label",
        f"the first {rows} of {len(images)} samples" if rows < len(images) else "",
        f"{len(kept)} of {len(steps)} steps" if len(kept) < len(steps) else "",
        "moved: the change's length, of the image's" if lengths is not None else "",
        *details,
    )
    reading = (
        "Each row is one sample, each column a step of the attack: the class that the network then sees, in that "
        "class's color, and its confidence. Where the color changes, the network changed its mind."
    )
    return page(tag, Caption(f"The class after each step: {attack}", facts, reading, tuple(notes)), table.sheet)


class _Table:
    """Thumbnails at the left, then the labels' column, then those of the steps, last that of the lengths."""

    def __init__(self, images: NDArray[np.uint8], steps: int, *, moved: bool) -> None:
        aspect = images.shape[1] / images.shape[2]
        thumb = (min(2 * _CELL, max(_CELL // 2, round(_CELL / aspect))), _CELL)
        room = INNER_WIDTH - thumb[0] - 3 * GUTTER - (_MOVED + GUTTER) * moved
        self.width: int = min(_WIDEST, room // (steps + 1) - _GAP)
        self.sheet = Image.new("RGB", (INNER_WIDTH, _HEADS + (_CELL + _GAP) * len(images)), "white")
        self._first: int = thumb[0] + GUTTER
        self._with_lengths = moved
        self._draw = ImageDraw.Draw(self.sheet)
        for row, image in enumerate(images):
            self.sheet.paste(enlarge(image, thumb), (0, self._top(row)))
        self._end = self._left(steps) + self.width + GUTTER

    def heads(self, steps: Texts) -> None:
        """What the columns are, and the steps' numbers."""
        self._draw.text((self._left(1), 0), "class and confidence in %, after step", fill=GRAY, font=font())
        for column, text in enumerate(["label", *steps]):
            place = (self._left(column) + self.width / 2, 1.5 * LINE)
            self._draw.text(place, text, fill=DARK if column else GRAY, font=font(), anchor="mm")
        if self._with_lengths:
            self._draw.text((self._end, 1.5 * LINE), "moved", fill=GRAY, font=font(), anchor="lm")

    def cell(self, row: int, column: int, lines: Texts, color: Colors) -> None:
        """Lines of text on a color."""
        left, top = self._left(column), self._top(row)
        corners = (left, top, left + self.width - 1, top + _CELL - 1)
        self._draw.rectangle(corners, fill=tuple(color.tolist()))
        for place, line in enumerate(lines):
            middle = (left + self.width / 2, top + _CELL / 2 + _PITCH * (place + 0.5 - len(lines) / 2))
            self._draw.text(middle, shorten(line, self.width - 4), fill=_ink(color), font=font(), anchor="mm")

    def moved(self, row: int, text: str) -> None:
        """How far a sample moved."""
        self._draw.text((self._end, self._top(row) + _CELL / 2), text, fill=DARK, font=font(), anchor="lm")

    def _left(self, column: int) -> int:
        apart = 2 * GUTTER if column else 0
        return self._first + (self.width + _GAP) * column + apart

    @staticmethod
    def _top(row: int) -> int:
        return _HEADS + (_CELL + _GAP) * row


def _ink(color: Colors) -> tuple[int, int, int]:
    """White or dark, whichever is read better on a color."""
    luminance = float((color / 255) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722]))
    return (255, 255, 255) if luminance < 0.2 else DARK  # where the contrasts of both are alike


def _check(shape: tuple[int, int], labels: NDArray[Any], *tables: NDArray[Any]) -> None:
    steps, samples = shape
    if any(each.shape != shape for each in tables) or labels.shape != (samples,) or not steps * samples:
        what = f"classes, confidences and relative are [{steps} steps, {samples} samples], labels [{samples}]"
        got = ", ".join(str(list(each.shape)) for each in (*tables, labels))
        raise InvalidArgumentError(f"{what}; got {got}: give one epsilon's, and one or more of each")
