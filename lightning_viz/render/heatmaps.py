"""What in the input mattered: each sample beside its map, or beside its maps for several classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import Colors, table
from lightning_viz.render.page import BODY_HEIGHT, Caption, Picture, beside, page, stack
from lightning_viz.render.plots import color_bar
from lightning_viz.render.text import GRAY, LINE, draw_lines, number, step_text, text_width
from lightning_viz.render.tiles import (
    VERDICTS,
    Verdict,
    check_images,
    count_flaws,
    draw_verdicts,
    enlarge,
    fit,
    flaw,
    hatched,
    stretch,
    to_rgb,
)

Size = tuple[int, int]


@dataclass(frozen=True)
class Display:
    """One way to show maps.

    Args:
        reduced: from a map ``[C, h, w]`` to what is shown of it, ``[h, w]`` or ``[C, h, w]``.
        reach: from that to the number by which it is divided.
        tile: from the image ``[H, W, 3]``, the divided map and a size (width, height) to the tile.
        bar: what the colors mean; of which maps goes after it.
        divided: what it is divided by, for the caption.
    """

    reduced: Callable[[NDArray[Any]], NDArray[Any]]
    reach: Callable[[NDArray[Any]], float]
    tile: Callable[[Colors, NDArray[Any], Size], Image.Image]
    bar: Callable[[str], Image.Image]
    divided: str


def top_percentile(values: NDArray[Any]) -> float:
    """The 99th percentile of the size of a map, or its maximum where that is zero."""
    size = np.abs(values)
    return float(np.percentile(size, 99)) or float(size.max())


def overlay(image: Colors, heat: NDArray[Any], size: Size) -> Image.Image:
    """A grayed image with heat over it, whose opacity rises with the heat: where there is none the image is itself.

    Args:
        image: ``[H, W, 3]``, 0 to 255.
        heat: ``[h, w]`` in [0, 1].
        size: width and height in pixels.
    """
    gray = np.asarray(enlarge(image, size).convert("L"), dtype=np.float64)[..., None]
    warmth = np.clip(stretch(heat, size), 0, 1)
    opacity = 0.78 * np.minimum(1, 1.6 * warmth)[..., None]
    colors = table("heat")[np.rint(warmth * 255).astype(np.uint8)]
    return Image.fromarray(np.rint(gray * (1 - opacity) + colors * opacity).astype(np.uint8))


def sequential(image: Colors, values: NDArray[Any], size: Size) -> Image.Image:
    """A map drawn black where it is zero.

    Args:
        image: plays no part.
        values: ``[h, w]`` in [0, 1].
        size: width and height in pixels.
    """
    warmth = np.clip(stretch(values, size, smooth=False), 0, 1)
    return Image.fromarray(table("magma")[np.rint(warmth * 255).astype(np.uint8)])


def diverging(image: Colors, values: NDArray[Any], size: Size) -> Image.Image:
    """A map drawn blue, gray, red.

    Args:
        image: plays no part.
        values: ``[h, w]`` in [-1, 1].
        size: width and height in pixels.
    """
    signed = np.clip(stretch(values, size, smooth=False), -1, 1)
    return Image.fromarray(table("diverging")[np.rint((signed + 1) / 2 * 255).astype(np.uint8)])


def as_image(image: Colors, values: NDArray[Any], size: Size) -> Image.Image:
    """A map as an image around middle gray: g / max + 0.5.

    Args:
        image: plays no part.
        values: g / max, ``[C, h, w]``.
        size: width and height in pixels.
    """
    return enlarge(to_rgb(values[None] + 0.5)[0], size)


DISPLAYS = {
    "heat": Display(
        lambda g: np.maximum(g.sum(0), 0),
        lambda heat: float(heat.max()),
        overlay,
        lambda of: color_bar("heat", "0", "maximum", label=of),
        "maximum",
    ),
    "sum": Display(
        lambda g: np.abs(g).sum(0),
        top_percentile,
        sequential,
        lambda of: color_bar("magma", "0", "99th percentile", label=of),
        "99th percentile",
    ),
    "max": Display(
        lambda g: np.abs(g).max(0),
        top_percentile,
        sequential,
        lambda of: color_bar("magma", "0", "99th percentile", label=of),
        "99th percentile",
    ),
    "signed": Display(
        lambda g: g.sum(0),
        top_percentile,
        diverging,
        lambda of: color_bar("diverging", "against", "for", middle="0", label=of),
        "99th percentile",
    ),
    "image": Display(
        lambda g: g,
        lambda g: float(np.abs(g).max()),
        as_image,
        lambda of: color_bar("gray", "−½ max", "½ max", middle="0", label=f"{of}, for red, green and blue"),
        "largest value",
    ),
}
"""By name: heat over the image; the size, summed or largest over the channels; the signed sum; an image of its own."""


MOST_SAMPLES = 16
PAIRS = 4  # side by side
CLOSE, APART = 2, 12  # pixels within and between pairs
ROWS, CLASSES = 4, 6  # of samples and classes side by side


def heat_overlays(
    tag: str,
    images: NDArray[np.uint8],
    heat: NDArray[Any],
    *,
    layer: str,
    step: int,
    target: str,
    method: str = "Grad-CAM",
    unit: str = "logits",
    details: Sequence[str] = (),
    verdicts: Sequence[Verdict] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """Each sample untouched and, beside it, grayed with the heat over it; each map divided by its maximum.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the inputs ``[N, H, W, 3]``; the first 16 are shown.
        heat: non-negative maps ``[N, h, w]``, enlarged bilinearly (``align_corners=False``).
        layer: name, for the caption.
        step: number of completed updates.
        target: what is explained, such as "the label's logit".
        method: name, for the caption.
        unit: of the heat.
        details: further facts for the caption.
        verdicts: one a sample, or none.
        notes: further warnings for the caption.
    """
    _check(images, heat, "heat", 3)
    reading = f"Left the input, right where in it {method} finds evidence for {target}: the brighter, the more."
    caption = Caption(f"{method} for {target}, seen from {layer}", tuple(details), reading, tuple(notes))
    return _paired(tag, images, heat[:, None], DISPLAYS["heat"], caption, step, unit, verdicts, "maps")


def saliency_maps(
    tag: str,
    images: NDArray[np.uint8],
    gradient: NDArray[Any],
    *,
    method: str,
    step: int,
    target: str,
    display: str = "sum",
    unit: str = "",
    details: Sequence[str] = (),
    verdicts: Sequence[Verdict] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """Each sample and, beside it, how its pixels move the target.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the inputs ``[N, H, W, 3]``; the first 16 are shown.
        gradient: signed ``[N, C, H, W]``.
        method: name, for the caption.
        step: number of completed updates.
        target: what is explained, such as "the label's logit".
        display: "sum" (Fleuret) or "max" (Simonyan) over the channels of the size, their "signed" sum, or as an
            "image" of its own (see `DISPLAYS`).
        unit: of the map.
        details: further facts for the caption.
        verdicts: one a sample, or none.
        notes: further warnings for the caption.
    """
    _check(images, gradient, "gradient", 4)
    if gradient.shape[1] == 0:
        raise InvalidArgumentError(f"gradient is [N, C, H, W] with C of at least 1, got {gradient.shape}")
    over = f", {'summed' if display == 'sum' else 'the largest'} of the channels" if gradient.shape[1] > 1 else ""
    size = f"its absolute value{over}"
    of = {"signed": "what speaks for it and what against", "image": "signed, gray where it is zero"}.get(display, size)
    caption = Caption(f"{method} for {target}", (of, *details), _reading(display, target), tuple(notes))
    return _paired(tag, images, gradient, DISPLAYS[display], caption, step, unit, verdicts, "samples")


def class_columns(
    tag: str,
    images: NDArray[np.uint8],
    maps: NDArray[Any],
    *,
    names: Sequence[Sequence[str]],
    method: str,
    step: int,
    display: str,
    layer: str = "",
    unit: str = "logits",
    details: Sequence[str] = (),
    verdicts: Sequence[Verdict] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """Each sample and, beside it, its maps for several classes, on one scale.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the inputs ``[N, H, W, 3]``; the first 4 are shown.
        maps: of T classes ``[T, N, C, h, w]``; the first 6 are shown.
        names: what to write under each map, T times N.
        method: name, for the caption.
        step: number of completed updates.
        display: one of `DISPLAYS`.
        layer: name, for the caption; none for maps towards the input.
        unit: of the maps.
        details: further facts for the caption.
        verdicts: one a sample, or none.
        notes: further warnings for the caption.
    """
    check_images(images)
    if maps.ndim != 5 or maps.shape[1] != len(images):
        raise InvalidArgumentError(f"maps are [T, {len(images)} samples, C, h, w], got {maps.shape}")
    how = DISPLAYS[display]
    shown = maps[:CLASSES, :ROWS].astype(np.float64)
    columns, rows = len(shown) + 1, shown.shape[1]
    size = fit(columns, rows, images.shape[1] / images.shape[2], under=LINE * (2 if verdicts else 1))
    flaws, reaches, lines = [], [], []
    for index in range(rows):
        reduced = [how.reduced(each) for each in shown[:, index]]
        wrong = [flaw(each) for each in reduced]
        reach = max((how.reach(each) for each, words in zip(reduced, wrong, strict=True) if not words), default=0.0)
        flaws += wrong
        reaches += [reach] * (reach > 0)
        tiles = [enlarge(images[index], size)] + [
            hatched(size, words) if words else how.tile(images[index], each / reach, size)
            for each, words in zip(reduced, wrong, strict=True)
        ]
        texts = draw_verdicts([verdicts[index]] if verdicts else [Verdict()], size[0])
        texts += [draw_lines([names[place][index]], size[0], centered=True) for place in range(len(shown))]
        lines.append(beside([stack([tile, text], gap=1) for tile, text in zip(tiles, texts, strict=True)], gap=6))
    facts = (
        step_text(step),
        _some(rows, len(images)),
        f"{len(shown)} of {len(maps)} classes" if len(shown) < len(maps) else "",
        "only what speaks for a class" if display == "heat" else "",
        f"each row divided by its {how.divided} ({' '.join([_range(reaches), unit]).rstrip()})" if reaches else "",
        *details,
        VERDICTS if verdicts else "",
    )
    seen_from = f", seen from {layer}" if layer else ""
    reading = "Each row is one sample, then what speaks for each class, on the row's own scale: columns compare."
    title = f"{method} class by class{seen_from}"
    body = stack([stack(lines, gap=4), how.bar("of each row")], gap=8)
    return page(tag, Caption(title, facts, reading, (*count_flaws(flaws, "maps"), *notes)), body)


def _paired(
    tag: str,
    images: NDArray[np.uint8],
    maps: NDArray[Any],
    display: Display,
    caption: Caption,
    step: int,
    unit: str,
    verdicts: Sequence[Verdict],
    things: str,
) -> Picture:
    """Samples and their maps side by side, each map on its own scale; under heat its maximum."""
    shown = [display.reduced(each) for each in maps[:MOST_SAMPLES].astype(np.float64)]
    heat = display is DISPLAYS["heat"]
    flaws = [flaw(each) for each in shown]
    reaches = [0.0 if words else display.reach(each) for each, words in zip(shown, flaws, strict=True)]
    figures = [f"{reach:.2g}" if reach else "" for reach in reaches] if heat else []
    size, columns = _pair_size(images, len(shown), verdicts, figures)
    seconds = [
        hatched(size, words) if words else display.tile(image, each / reach, size)
        for image, each, words, reach in zip(images, shown, flaws, reaches, strict=False)
    ]
    bar = display.bar("of each map: the number under it" if heat else "of each map")
    body = stack([_pairs(images, seconds, size, columns, verdicts, figures), bar], gap=8)
    ends = list(filter(None, reaches))
    details = (
        step_text(step),
        _some(len(shown), len(images)),
        *caption.details,
        f"each map divided by its {display.divided} ({' '.join([_range(ends), unit]).rstrip()})" if ends else "",
        VERDICTS if verdicts else "",
    )
    zero = "all zero (nothing positive left after its ReLU)" if heat else "all-zero gradient"
    warnings = tuple(note.replace("all zero", zero) for note in count_flaws(flaws, things))
    return page(tag, Caption(caption.title, details, caption.reading, (*warnings, *caption.notes)), body)


def _reading(display: str, target: str) -> str:
    if display == "signed":
        return f"Left the input, right what each pixel adds to {target}: red speaks for it, blue against."
    if display == "image":
        return f"Left the input, right the pattern in it that moves {target}: bright where more of a color raises it."
    return f"Left the input, right how strongly a small change of each pixel moves {target}: the brighter, the more."


def _pair_size(
    images: NDArray[Any], count: int, verdicts: Sequence[Verdict], figures: Sequence[str] = ()
) -> tuple[tuple[int, int], int]:
    """The tiles' size and the number of pairs in a row, of which the tiles come out largest."""
    aspect = images.shape[1] / images.shape[2]
    figure = max(map(text_width, figures), default=0)
    sizes = {}
    for columns in range(1, min(PAIRS, max(count, 1)) + 1):
        rows = max(1, -(-count // columns))
        for lines in (1, 2):  # two where a verdict does not fit on one
            under = lines * LINE if verdicts or figures else 0
            size = fit(2 * columns, rows, aspect, under=under, gap=APART, room=BODY_HEIGHT - LINE)
            room = 2 * size[0] - figure  # as `_pairs` leaves
            if all(len(verdict.lines(room)) <= lines for verdict in verdicts[:count]):
                break
        sizes[columns] = size
    largest = max(width for width, _ in sizes.values())
    columns = max(each for each in sizes if sizes[each][0] >= 0.9 * largest)  # rather a full page than the last pixel
    return sizes[columns], columns


def _pairs(
    images: NDArray[np.uint8],
    seconds: list[Image.Image],
    size: tuple[int, int],
    columns: int,
    verdicts: Sequence[Verdict],
    figures: Sequence[str] = (),
) -> Image.Image:
    """Inputs and maps side by side; under them the verdict and, at the right end, a number."""
    pairs = [beside([enlarge(image, size), second], gap=CLOSE) for image, second in zip(images, seconds, strict=False)]
    if verdicts or figures:
        room = max(map(text_width, figures), default=0)
        said = list(verdicts[: len(pairs)]) or [Verdict()] * len(pairs)
        texts = draw_verdicts(said, 2 * size[0] - room)
        if figures:
            numbers = [draw_lines([figure or " "], room, color=GRAY) for figure in figures]
            texts = [beside([text, figure], gap=CLOSE) for text, figure in zip(texts, numbers, strict=True)]
        pairs = [stack([pair, text], gap=2) for pair, text in zip(pairs, texts, strict=True)]
    rows = [beside(pairs[start : start + columns], gap=APART) for start in range(0, len(pairs), columns)]
    return stack(rows, gap=APART if not verdicts else 4)


def _check(images: NDArray[Any], values: NDArray[Any], name: str, dimensions: int) -> None:
    check_images(images)
    if values.ndim != dimensions or len(values) != len(images):
        raise InvalidArgumentError(
            f"{name} has {dimensions} dimensions and one map for each of {len(images)} images, got {values.shape}"
        )


def _some(shown: int, count: int) -> str:
    return f"{shown} of {count} samples" if shown < count else ""


def _range(values: list[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"
