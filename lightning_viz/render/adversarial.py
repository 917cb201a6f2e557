"""Attacks on a page: samples above their adversarial twins and what changed, or above few pixels changed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .colours import Colours
from .displays import as_image, diverging
from .legends import colour_bar
from .picture import BODY_HEIGHT, INNER_WIDTH, Caption, Picture, beside, page, stack
from .text import DARK, GREY, LINE, RED, draw_lines, number, shorten, step_text, wrap, wrap_items
from .tiles import (
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
        raise ValueError(f"{what} for these images, got {list(twins.shape)} and {list(differences.shape)}")
    for name, given in (("before", before), ("after", after), ("norms", norms)):
        _check_count(name, given, len(images))
    if magnify is not None and not 0 < magnify < np.inf:
        raise ValueError(f"magnify={magnify}: differences are multiplied by it; give a number above 0, or None")
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
    written = [draw_lines([shorten(each, wide)], wide, colour=GREY) for each in norms[:count]]
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
        raise ValueError(f"{what}, got {twins.dtype} {list(twins.shape)}")
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


def _difference(image: Colours, values: NDArray[np.float64], factor: float, size: tuple[int, int]) -> Image.Image:
    """Of red, green and blue around middle grey; of anything else blue where it fell and red where it rose.

    Of several channels the one that changed most is shown: in their mean opposite changes would cancel.
    """
    if len(values) == 3:
        return as_image(image, factor * values, size)
    strongest = np.abs(values).argmax(axis=0, keepdims=True)
    return diverging(image, 2 * factor * np.take_along_axis(values, strongest, axis=0)[0], size)


def _scale(factor: float, channels: int) -> Image.Image:
    end = number(0.5 / factor)
    name = "gray" if channels == 3 else "diverging"
    what = {1: "a pixel's change", 3: "each colour's change"}.get(channels, "the largest change of a pixel's channels")
    return colour_bar(name, f"−{end}", end, middle="0", label=f"{what}, of 0 to 1")


def _outcomes(before: Sequence[Verdict], after: Sequence[Verdict], width: int) -> list[Image.Image]:
    """Below a twin: whether the network was fooled, and what it says; blocks of one height."""
    texts = [
        [*wrap(_OUTCOMES[_outcome(first, last)], width), *Verdict(None, last.prediction, last.confidence).lines(width)]
        for first, last in zip(before, after, strict=True)
    ]
    most = max(map(len, texts))
    return [
        draw_lines([*lines, *[""] * (most - len(lines))], width, colour=RED if lines[0].startswith(CROSS) else DARK)
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
    head = draw_lines(wrap_items([heading], INNER_WIDTH), INNER_WIDTH, colour=GREY)
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
    for width, colour in ((4 * _FINER, (255, 255, 255)), (2 * _FINER, RED)):
        for row, column in places:
            x, y, reach = (column + 0.5) * across, (row + 0.5) * down, radius + width / 2
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=(*colour, 255), width=width)
    rings = overlay.resize(tile.size, Image.Resampling.LANCZOS)
    return Image.alpha_composite(tile.convert("RGBA"), rings).convert("RGB")


def _was_wrong(before: Sequence[Verdict]) -> str:
    return "wrong: as it was before the attack" if any(each.mistaken for each in before) else ""


def _first(shown: int, count: int) -> str:
    return f"the first {shown} of {count} samples" if shown < count else ""


def _check_count(what: str, given: Sequence[Any], count: int) -> None:
    if len(given) != count:
        raise ValueError(f"{len(given)} {what} for {count}: give one each")
