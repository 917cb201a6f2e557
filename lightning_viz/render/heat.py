"""What in the input mattered: heat over the greyed image, saliency beside the untouched one."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .colours import Colours, table
from .legends import colour_bar
from .picture import BODY_HEIGHT, Caption, Picture, beside, page, stack
from .text import GREY, LINE, draw_lines, number, step_text, text_width
from .tiles import VERDICTS, Verdict, check_images, count_flaws, draw_verdicts, enlarge, fit, flaw, hatched, stretch

MOST_SAMPLES = 16
PAIRS = 4  # side by side
CLOSE, APART = 2, 12  # pixels within and between pairs


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
    verdicts: Sequence[Verdict] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """Each sample untouched and, beside it, greyed with the heat over it; each map divided by its maximum.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the inputs ``[N, H, W, 3]``; the first 16 are shown.
        heat: non-negative maps ``[N, h, w]``, enlarged bilinearly (``align_corners=False``).
        layer: name, for the caption.
        step: number of completed updates.
        target: what is explained, such as "the label's logit".
        method: name, for the caption.
        unit: of the heat.
        verdicts: one a sample, or none.
        notes: further warnings for the caption.
    """
    _check(images, heat, "heat", 3)
    shown = np.maximum(heat[:MOST_SAMPLES].astype(np.float64), 0)
    flaws = [flaw(each) for each in shown]
    peaks = [float(each.max()) for each, words in zip(shown, flaws, strict=True) if not words]
    maxima = ["" if words else f"{each.max():.2g}" for each, words in zip(shown, flaws, strict=True)]
    size, columns = _pair_size(images, len(shown), verdicts, maxima)
    seconds = [
        hatched(size, words) if words else overlay(image, each / each.max(), size)
        for image, each, words in zip(images, shown, flaws, strict=False)
    ]
    body = _pairs(images, seconds, size, columns, verdicts, maxima)
    bar = colour_bar("heat", "0", "maximum", label="of each map: the logits under it")
    details = (
        step_text(step),
        _some(len(shown), len(images)),
        f"each map divided by its maximum ({_range(peaks)} {unit})" if peaks else "",
        VERDICTS if verdicts else "",
    )
    reading = f"Left the input, right where in it {method} finds evidence for {target}: the brighter, the more."
    title = f"{method} for {target}, seen from {layer}"
    warnings = tuple(
        note.replace("all zero", "all zero (nothing positive left after its ReLU)")
        for note in count_flaws(flaws, "maps")
    )
    return page(tag, Caption(title, details, reading, (*warnings, *notes)), stack([body, bar], gap=8))


def saliency_maps(
    tag: str,
    images: NDArray[np.uint8],
    gradient: NDArray[Any],
    *,
    method: str,
    step: int,
    target: str,
    reduce: Literal["sum", "max"] = "sum",
    verdicts: Sequence[Verdict] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """Each sample and, beside it, how strongly each pixel moves the target: the gradient's size over the channels.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the inputs ``[N, H, W, 3]``; the first 16 are shown.
        gradient: signed ``[N, C, H, W]``.
        method: name, for the caption.
        step: number of completed updates.
        target: what is explained, such as "the label's logit".
        reduce: "sum" (Fleuret) or "max" (Simonyan) over the channels of the absolute value.
        verdicts: one a sample, or none.
        notes: further warnings for the caption.
    """
    _check(images, gradient, "gradient", 4)
    absolute = np.abs(gradient[:MOST_SAMPLES].astype(np.float64))
    if absolute.shape[1] == 0:
        raise ValueError(f"gradient is [N, C, H, W] with C of at least 1, got {gradient.shape}")
    shown = absolute.sum(axis=1) if reduce == "sum" else absolute.max(axis=1)
    flaws = [flaw(each) for each in shown]
    ends = [top_percentile(each) for each, words in zip(shown, flaws, strict=True) if not words]
    size, columns = _pair_size(images, len(shown), verdicts)
    seconds = [
        hatched(size, words) if words else _sequential(each / top_percentile(each), size)
        for each, words in zip(shown, flaws, strict=True)
    ]
    body = _pairs(images, seconds, size, columns, verdicts)
    bar = colour_bar("magma", "0", "99th percentile", label="of each map")
    details = (
        step_text(step),
        _some(len(shown), len(images)),
        f"the logit's slope, {reduce} over channels of its size"
        if gradient.shape[1] > 1
        else "size of the logit's slope",
        f"each map divided by its 99th percentile ({_range(ends)})" if ends else "",
        VERDICTS if verdicts else "",
    )
    reading = f"Left the input, right how strongly a small change of each pixel moves {target}: the brighter, the more."
    warnings = (*(note.replace("all zero", "all-zero gradient") for note in count_flaws(flaws, "samples")), *notes)
    title = f"{method} for {target}, towards the input"
    return page(tag, Caption(title, details, reading, warnings), stack([body, bar], gap=8))


def overlay(image: Colours, heat: NDArray[Any], size: tuple[int, int]) -> Image.Image:
    """A greyed image with heat over it, whose opacity rises with the heat: where there is none the image is itself.

    Args:
        image: ``[H, W, 3]``, 0 to 255.
        heat: ``[h, w]`` in [0, 1].
        size: width and height in pixels.
    """
    grey = np.asarray(enlarge(image, size).convert("L"), dtype=np.float64)[..., None]
    warmth = np.clip(stretch(heat, size), 0, 1)
    opacity = 0.78 * np.minimum(1, 1.6 * warmth)[..., None]
    colours = table("heat")[np.rint(warmth * 255).astype(np.uint8)]
    return Image.fromarray(np.rint(grey * (1 - opacity) + colours * opacity).astype(np.uint8))


def top_percentile(values: NDArray[Any]) -> float:
    """The 99th percentile of a non-negative map, or its maximum where that is zero."""
    return float(np.percentile(values, 99)) or float(values.max())


def _sequential(values: NDArray[Any], size: tuple[int, int]) -> Image.Image:
    warmth = np.clip(stretch(values, size, smooth=False), 0, 1)
    return Image.fromarray(table("magma")[np.rint(warmth * 255).astype(np.uint8)])


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
    columns = max(sizes, key=lambda each: (sizes[each][0], each))
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
            numbers = [draw_lines([figure or " "], room, colour=GREY) for figure in figures]
            texts = [beside([text, figure], gap=CLOSE) for text, figure in zip(texts, numbers, strict=True)]
        pairs = [stack([pair, text], gap=2) for pair, text in zip(pairs, texts, strict=True)]
    rows = [beside(pairs[start : start + columns], gap=APART) for start in range(0, len(pairs), columns)]
    return stack(rows, gap=APART if not verdicts else 4)


def _check(images: NDArray[Any], values: NDArray[Any], name: str, dimensions: int) -> None:
    check_images(images)
    if values.ndim != dimensions or len(values) != len(images):
        raise ValueError(
            f"{name} has {dimensions} dimensions and one map for each of {len(images)} images, got {values.shape}"
        )


def _some(shown: int, count: int) -> str:
    return f"{shown} of {count} samples" if shown < count else ""


def _range(values: list[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"
