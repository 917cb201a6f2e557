"""Dense predictions beside the truth: classes of pixels, images, and where in a larger image a class was found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.render.colors import Colors, apply, class_colors
from lightning_viz.render.layout import BODY_HEIGHT, GUTTER, INNER_WIDTH, fit, heads
from lightning_viz.render.page import Page, PageInfo, check_rgb, check_shape, compose
from lightning_viz.render.parts import ClassKey, ColorBar, HStack, MapTile, PaintedTile, Part, Text, Tile, VStack
from lightning_viz.render.text import GRAY, LINE, RED, fixed_point, number, some_of
from lightning_viz.render.tiles import count_flaws, find_flaw

__all__ = ["MOST_PREDICTIONS", "UNCOUNTED", "class_predictions", "found_on_canvas", "image_predictions"]

MOST_PREDICTIONS = 4
"""Samples on a page of predictions."""
UNCOUNTED = -1
"""In the truth: a pixel that does not count."""

_OPACITY = 0.72  # of a class's color over the grayed image


def class_predictions(
    tag: str,
    images: NDArray[np.uint8],
    truth: NDArray[Any],
    prediction: NDArray[Any],
    *,
    names: Sequence[str],
    overlaps: Sequence[float],
    accuracy: float,
    samples: int,
    background: int | None = 0,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of a segmentation: true and predicted classes over the grayed image, and where they differ.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``; the first 4 are shown.
        truth: true class of each pixel ``[N, h, w]``; `UNCOUNTED` where it does not count.
        prediction: predicted class of each pixel ``[N, h, w]``.
        names: of the classes, all of them.
        overlaps: intersection over union of each class; NaN for one that did not occur.
        accuracy: share of the pixels that are right.
        samples: how many the figures are of.
        background: class that is left without color; None: every class is colored.
        info: see `PageInfo`.
    """
    check_rgb(images)
    check_shape("truth", truth, len(images), "h", "w")
    check_shape("prediction", prediction, *truth.shape)
    colors = class_colors(len(names))
    wrong = (truth != prediction) & (truth != UNCOUNTED)
    size, count = _tile_size(images)
    rows: list[Part] = [HStack(heads(("input", "truth", "prediction", "mistakes"), size[0]), gap=GUTTER)]
    for index in range(count):
        classes = [_classes(labels[index], colors, background) for labels in (truth, prediction)]
        mistakes = np.concatenate(
            [np.broadcast_to(RED, (*wrong[index].shape, 3)), 0.9 * wrong[index][..., None]], axis=2
        )
        tiles = [PaintedTile(size, images[index], sample=index, paint=paint) for paint in (*classes, mistakes)]
        counted = (truth[index] != UNCOUNTED).sum()
        share = f"{_percent(wrong[index].sum() / counted)} wrong" if counted else "none counts"
        rows.append(_row([Tile(size, images[index], sample=index), *tiles], ("", "", "", share)))
    present = [place for place, overlap in enumerate(overlaps) if np.isfinite(overlap)]
    colors[np.arange(len(colors)) == background] = 205  # in the key
    key = ClassKey([f"{names[place]}: {fixed_point(overlaps[place])}" for place in present], colors[present])
    mean = float(np.mean([overlaps[place] for place in present])) if present else float("nan")
    facts = (
        f"mean IoU {fixed_point(mean, 3)}",
        f"{_percent(accuracy)} of the pixels right",
        _over(samples, count),
        "below: each class's IoU",
    )
    reading = (
        "Each row is one sample: the input, the true class of each pixel, the predicted one, and in red where they "
        "differ. The intersection over union (IoU) of a class is 1 where prediction and truth are the same pixels."
    )
    body = VStack([VStack(rows, gap=4), key], gap=8)
    return compose(tag, "Predicted class of each pixel, beside the truth", body, facts, reading, **info)


def image_predictions(
    tag: str,
    images: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    difference: NDArray[Any],
    *,
    noise_ratios: Sequence[float],
    limit: float,
    truth_name: str = "target",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of images predicted from images: input, target, prediction and their difference.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``; the first 4 are shown.
        truth: the images to predict ``[N, h, w, 3]``.
        prediction: ``[N, h, w, 3]``.
        difference: mean absolute difference of each pixel's channels ``[N, h, w]``, in pixels of 0 to 1.
        noise_ratios: peak signal-to-noise ratio of each sample, in decibels, N or more of them.
        limit: the difference at the color scale's end.
        truth_name: what stands over the truth.
        info: see `PageInfo`.
    """
    check_rgb(images, truth, prediction)
    size, count = _tile_size(images)
    flaws = [None if np.isfinite(values).all() else find_flaw(values) for values in difference[:count]]
    rows: list[Part] = [HStack(heads(("input", truth_name, "prediction", "difference"), size[0]), gap=GUTTER)]
    for index, flaw in enumerate(flaws):
        tiles = [Tile(size, shown[index], sample=index) for shown in (images, truth, prediction)]
        heat = None if flaw else apply("magma", difference[index], 0, limit)
        tiles.append(Tile(size, heat, flaw, sample=index, weights=difference[index]))
        rows.append(_row(tiles, ("", "", f"PSNR {fixed_point(noise_ratios[index], 1)} dB", "")))
    finite = [ratio for ratio in noise_ratios if np.isfinite(ratio)]
    facts = (
        f"mean PSNR {fixed_point(float(np.mean(finite)), 1)} dB" if finite else "",
        _over(len(noise_ratios), count),
        f"difference on a fixed scale, 0 to {number(limit)} of the pixels' range",
    )
    reading = (
        f"Each row is one sample: the input, the {truth_name}, the model's image, and how far the two are apart: black "
        "where they are equal. The higher the peak signal-to-noise ratio (PSNR), the closer."
    )
    bar = ColorBar("magma", "0", f"{number(limit)} or more", label="absolute difference")
    title, body = f"Predicted images, beside the {truth_name}", VStack([VStack(rows, gap=4), bar], gap=8)
    return compose(tag, title, body, facts, reading, warnings=count_flaws(flaws, "differences"), **info)


def found_on_canvas(
    tag: str,
    images: NDArray[np.uint8],
    probabilities: NDArray[Any],
    windows: Sequence[tuple[int, int, int, int]],
    *,
    size: tuple[int, int],
    stride: tuple[int, int],
    names: Sequence[str],
    **info: Unpack[PageInfo],
) -> Page:
    """Page of a class found on larger images: the likeliest window framed, beside the probabilities of all windows.

    Args:
        tag: of the page.
        images: ``[N, H, W, 3]``; the first 2 are shown.
        probabilities: of the class in each window, ``[N, h, w]``.
        windows: the likeliest: top, bottom, left and right in pixels of the image.
        size: of a window, height and width in pixels.
        stride: rows and columns of pixels from one cell of the map to the next.
        names: of the class that was looked for, one an image.
        info: see `PageInfo`.
    """
    check_rgb(images)
    count = min(len(images), 2)
    side = fit(2, count, images.shape[1] / images.shape[2], under=LINE, room=BODY_HEIGHT - LINE)
    rows: list[Part] = [HStack(heads(("the likeliest window", "all windows, at their middles"), side[0]), gap=GUTTER)]
    for index in range(count):
        spread = _at_centers(probabilities[index], images.shape[1:3], size, stride)
        highest = float(probabilities[index].max())
        tiles = [
            Tile(side, images[index], sample=index, value=highest, window=windows[index]),
            MapTile(side, images[index], sample=index, values=spread, display="heat"),
        ]
        line = Text([f"{names[index]}: probability {number(highest)}"], 2 * side[0] + GUTTER)
        rows.append(VStack([HStack(tiles, gap=GUTTER), line], gap=1))
    facts = (
        f"windows of {size[0]} × {size[1]} pixels, {stride[0]} apart, in one pass",
        some_of(count, len(images), "canvases"),
    )
    reading = "The frame is the window in which the class is likeliest; to its right its probability in all windows."
    body = VStack([VStack(rows, gap=4), ColorBar("heat", "0", "1", label="probability")], gap=8)
    return compose(tag, "Where a classifier finds its class on a larger canvas", body, facts, reading, **info)


def _tile_size(images: NDArray[Any]) -> tuple[tuple[int, int], int]:
    """Width and height of four tiles a row, and how many rows; fewer where the images are high."""
    aspect = images.shape[1] / images.shape[2]
    for count in range(min(MOST_PREDICTIONS, len(images)), 0, -1):
        size = fit(4, count, aspect, under=LINE, room=BODY_HEIGHT - LINE)
        if size[0] >= INNER_WIDTH // 5:
            break
    return size, count


def _percent(share: float) -> str:
    """``99.5 %``; never 0 for what is more, never 100 for what is less."""
    rounded = round(100 * share, 1)
    return f"{fixed_point(rounded if share in (0, 1) else min(max(rounded, 0.1), 99.9), 1)} %"


def _row(tiles: Sequence[Tile], words: Sequence[str]) -> VStack:
    """Tiles of a sample, and what stands under each."""
    texts = [Text([text], tile.size[0], color=GRAY) for text, tile in zip(words, tiles, strict=True)]
    return VStack([HStack(tiles, gap=GUTTER), HStack(texts, gap=GUTTER)], gap=1)


def _over(samples: int, shown: int) -> str:
    return f"over {samples} samples" + (f", the first {shown} shown" if shown < samples else "")


def _classes(labels: NDArray[Any], colors: Colors, background: int | None) -> NDArray[np.float64]:
    """Color and opacity of each pixel ``[h, w, 4]``; the background and what does not count show the image."""
    known = np.clip(labels, 0, len(colors) - 1).astype(int)
    shown = (labels != UNCOUNTED) & (labels != background)
    return np.concatenate([colors[known], _OPACITY * shown[..., None]], axis=2)


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
