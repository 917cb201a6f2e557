"""Dense predictions beside the truth: classes of pixels, images, and where in a larger image a class was found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import Colors, apply, class_colors
from lightning_viz.render.heatmaps import overlay
from lightning_viz.render.page import BODY_HEIGHT, INNER_WIDTH, Caption, Picture, beside, page, stack
from lightning_viz.render.plots import class_key, color_bar
from lightning_viz.render.text import GRAY, LINE, RED, draw_lines, number, step_text
from lightning_viz.render.tiles import GUTTER, check_images, count_flaws, enlarge, fit, flaw, hatched

MOST_SAMPLES = 4
UNCOUNTED = -1
"""In the truth: a pixel that does not count."""

_OPACITY = 0.72  # of a class's color over the grayed image
_WRONG = (190, 20, 30)


def class_predictions(
    tag: str,
    images: NDArray[np.uint8],
    truth: NDArray[Any],
    prediction: NDArray[Any],
    *,
    step: int,
    names: Sequence[str],
    overlaps: Sequence[float],
    accuracy: float,
    samples: int,
    background: int | None = 0,
    notes: Sequence[str] = (),
) -> Picture:
    """A segmentation's classes over the grayed image: the truth, the prediction, and where they differ.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the inputs ``[N, H, W, 3]``; the first 4 are shown.
        truth: true class of each pixel ``[N, h, w]``; `UNCOUNTED` where it does not count.
        prediction: predicted class of each pixel ``[N, h, w]``.
        step: number of completed updates.
        names: of the classes, all of them.
        overlaps: intersection over union of each class; NaN for one that did not occur.
        accuracy: share of the pixels that are right.
        samples: how many the figures are of.
        background: class that is left without color; None: every class is colored.
        notes: further warnings for the caption.
    """
    check_images(images)
    if truth.shape != prediction.shape or len(truth) != len(images) or truth.ndim != 3:
        raise InvalidArgumentError(
            f"truth and prediction are [{len(images)}, h, w], got {truth.shape} and {prediction.shape}"
        )
    colors = class_colors(len(names))
    wrong = (truth != prediction) & (truth != UNCOUNTED)
    size, count = _tile_size(images)
    rows = [_heading(("input", "truth", "prediction", "mistakes"), size[0])]
    for index in range(count):
        layers = [
            _classes(truth[index], colors, background),
            _classes(prediction[index], colors, background),
            _mistakes(wrong[index]),
        ]
        tiles = [enlarge(images[index], size), *(_painted(images[index], layer, size) for layer in layers)]
        counted = (truth[index] != UNCOUNTED).sum()
        share = f"{_percent(wrong[index].sum() / counted)} wrong" if counted else "none counts"
        words = beside([draw_lines([text], size[0], color=GRAY) for text in ("", "", "", share)], gap=GUTTER)
        rows.append(stack([beside(tiles, gap=GUTTER), words], gap=1))
    present = [place for place, overlap in enumerate(overlaps) if np.isfinite(overlap)]
    key = class_key(
        [f"{names[place]} {overlaps[place]:.2f}" for place in present],
        np.array([_key_color(place, colors, background) for place in present], dtype=np.uint8).reshape(-1, 3),
    )
    mean = float(np.mean([overlaps[place] for place in present])) if present else float("nan")
    details = (
        step_text(step),
        f"mean IoU {mean:.3f}",
        f"{_percent(accuracy)} of the pixels right",
        f"over {samples} samples" + (f", {count} of them shown" if count < samples else ""),
        "below: each class's IoU",
    )
    reading = (
        "Each row is one sample: the input, the true class of each pixel, the predicted one, and in red where they "
        "differ. The intersection over union (IoU) of a class is 1 where prediction and truth are the same pixels."
    )
    body = stack([stack(rows, gap=4), key], gap=8)
    return page(tag, Caption("Predicted class of each pixel, beside the truth", details, reading, tuple(notes)), body)


def image_predictions(
    tag: str,
    images: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    difference: NDArray[Any],
    *,
    step: int,
    noise_ratios: Sequence[float],
    limit: float,
    truth_name: str = "target",
    notes: Sequence[str] = (),
) -> Picture:
    """Images predicted from images: the input, what it should become, what it became, and the difference.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the inputs ``[N, H, W, 3]``; the first 4 are shown.
        truth: the images to predict ``[N, h, w, 3]``.
        prediction: ``[N, h, w, 3]``.
        difference: mean absolute difference of each pixel's channels ``[N, h, w]``, in pixels of 0 to 1.
        step: number of completed updates.
        noise_ratios: peak signal-to-noise ratio of each sample, in decibels, N or more of them.
        limit: the difference at the color scale's end.
        truth_name: what stands over the truth.
        notes: further warnings for the caption.
    """
    for each in (images, truth, prediction):
        check_images(each)
    size, count = _tile_size(images)
    flaws = ["" if np.isfinite(each).all() else flaw(each) for each in difference[:count]]
    rows = [_heading(("input", truth_name, "prediction", "difference"), size[0])]
    for index in range(count):
        tiles = [enlarge(each[index], size) for each in (images, truth, prediction)]
        heat = apply("magma", difference[index], 0, limit) if not flaws[index] else None
        tiles.append(hatched(size, flaws[index]) if heat is None else enlarge(heat, size))
        ratio = f"PSNR {noise_ratios[index]:.1f} dB"
        words = beside([draw_lines([text], size[0], color=GRAY) for text in ("", "", ratio, "")], gap=GUTTER)
        rows.append(stack([beside(tiles, gap=GUTTER), words], gap=1))
    finite = [ratio for ratio in noise_ratios if np.isfinite(ratio)]
    details = (
        step_text(step),
        f"mean PSNR {np.mean(finite):.1f} dB" if finite else "",
        f"over {len(noise_ratios)} samples" + (f", {count} of them shown" if count < len(noise_ratios) else ""),
        f"difference on a fixed scale, 0 to {number(limit)} of the pixels' range",
    )
    reading = (
        f"Each row is one sample: the input, the {truth_name}, the model's image, and how far the two are apart: black "
        "where they are equal. The higher the peak signal-to-noise ratio (PSNR), the closer."
    )
    bar = color_bar("magma", "0", f"{number(limit)} or more", label="absolute difference")
    caption = Caption(f"Predicted images, beside the {truth_name}", details, reading)
    caption = Caption(caption.title, details, reading, (*count_flaws(flaws, "differences"), *notes))
    return page(tag, caption, stack([stack(rows, gap=4), bar], gap=8))


def found_on_canvas(
    tag: str,
    images: NDArray[np.uint8],
    probabilities: NDArray[Any],
    windows: Sequence[tuple[int, int, int, int]],
    *,
    size: tuple[int, int],
    stride: tuple[int, int],
    names: Sequence[str],
    details: Sequence[str] = (),
) -> Picture:
    """Where on larger images a class was found: a frame around the likeliest window, beside all windows' probabilities.

    Args:
        tag: where the picture stands in TensorBoard.
        images: ``[N, H, W, 3]``; the first 2 are shown.
        probabilities: of the class in each window, ``[N, h, w]``.
        windows: the likeliest: top, bottom, left and right in pixels of the image.
        size: of a window, height and width in pixels.
        stride: rows and columns of pixels from one cell of the map to the next.
        names: of the class that was looked for, one an image.
        details: further facts for the caption.
    """
    check_images(images)
    count = min(len(images), 2)
    side = fit(2, count, images.shape[1] / images.shape[2], under=LINE, room=BODY_HEIGHT - LINE)
    rows = [_heading(("the likeliest window", "all windows, at their middles"), side[0])]
    for index in range(count):
        framed = _framed(enlarge(images[index], side), windows[index], images.shape[1:3])
        spread = _at_centers(probabilities[index], images.shape[1:3], size, stride)
        line = f"{names[index]}: probability {number(float(probabilities[index].max()))}"
        tiles = beside([framed, overlay(images[index], spread, side)], gap=GUTTER)
        rows.append(stack([tiles, draw_lines([line], tiles.width)], gap=1))
    facts = (
        f"windows of {size[0]} × {size[1]} pixels, {stride[0]} apart, in one pass",
        f"{count} of {len(images)} canvases" if count < len(images) else "",
        *details,
    )
    reading = "The frame is the window in which the class is likeliest; to its right its probability in all windows."
    body = stack([stack(rows, gap=4), color_bar("heat", "0", "1", label="probability")], gap=8)
    return page(tag, Caption("Where a classifier finds its class on a larger canvas", facts, reading), body)


def _tile_size(images: NDArray[Any]) -> tuple[tuple[int, int], int]:
    """Width and height of four tiles a row, and how many rows; fewer where the images are high."""
    aspect = images.shape[1] / images.shape[2]
    for count in range(min(MOST_SAMPLES, len(images)), 0, -1):
        size = fit(4, count, aspect, under=LINE, room=BODY_HEIGHT - LINE)
        if size[0] >= INNER_WIDTH // 5:
            break
    return size, count


def _percent(share: float) -> str:
    """``99.5 %``; never 0 for what is more, never 100 for what is less."""
    rounded = round(100 * share, 1)
    return f"{rounded if share in (0, 1) else min(max(rounded, 0.1), 99.9):.1f} %"


def _heading(words: Sequence[str], width: int) -> Image.Image:
    return beside([draw_lines([word], width, color=GRAY, centered=True) for word in words], gap=GUTTER)


def _classes(labels: NDArray[Any], colors: Colors, background: int | None) -> NDArray[np.float64]:
    """Color and opacity of each pixel ``[h, w, 4]``; the background and what does not count show the image."""
    known = np.clip(labels, 0, len(colors) - 1).astype(int)
    shown = (labels != UNCOUNTED) & (labels != background)
    return np.concatenate([colors[known], _OPACITY * shown[..., None]], axis=2)


def _mistakes(wrong: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.concatenate([np.broadcast_to(_WRONG, (*wrong.shape, 3)), 0.9 * wrong[..., None]], axis=2)


def _painted(image: Colors, layer: NDArray[np.float64], size: tuple[int, int]) -> Image.Image:
    """The grayed image under a layer of colors, each pixel of which stays one."""
    gray = np.asarray(enlarge(image, size).convert("L"), dtype=np.float64)[..., None]
    color = np.asarray(enlarge(np.rint(layer[..., :3]).astype(np.uint8), size), dtype=np.float64)
    opacity = np.asarray(Image.fromarray(layer[..., 3].astype(np.float32)).resize(size, Image.Resampling.NEAREST))
    return Image.fromarray(np.rint(gray * (1 - opacity[..., None]) + color * opacity[..., None]).astype(np.uint8))


def _key_color(place: int, colors: Colors, background: int | None) -> Any:
    return (205, 205, 205) if place == background else colors[place]


def _framed(tile: Image.Image, window: tuple[int, int, int, int], shape: tuple[int, ...]) -> Image.Image:
    """A tile with a frame around a window of its image."""
    top, bottom, left, right = window
    across, down = tile.width / shape[1], tile.height / shape[0]
    corners = (left * across, top * down, right * across - 1, bottom * down - 1)
    draw = ImageDraw.Draw(tile)
    draw.rectangle(corners, outline="white", width=5)
    draw.rectangle(corners, outline=RED, width=3)
    return tile


def _at_centers(
    cells: NDArray[Any], shape: tuple[int, ...], size: tuple[int, int], stride: tuple[int, int]
) -> NDArray[np.float64]:
    """A map ``[h, w]`` spread over its image ``[H, W]``: each cell on the pixels around its window's middle."""
    spread = np.zeros(shape)
    for (row, column), value in np.ndenumerate(cells):
        top = row * stride[0] + (size[0] - stride[0]) // 2
        left = column * stride[1] + (size[1] - stride[1]) // 2
        spread[top : top + stride[0], left : left + stride[1]] = value
    return spread
