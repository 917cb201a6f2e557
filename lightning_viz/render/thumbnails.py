"""A layer's samples in the plane as the images themselves: at their places, or on a grid."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from .colours import Colours, colours_of
from .figure import Extent, frame_size
from .picture import INNER_WIDTH, Caption, Picture, page
from .text import step_text
from .tiles import check_images, enlarge

HEIGHT = 690
THUMBNAIL = 28  # pixels, frame included
FRAME = 3
COVERED = 0.5  # neighbours may overlap by the rest
MOST_CELLS = 20  # a side: 400 samples of 34 px


def thumbnails(
    tag: str,
    points: NDArray[Any],
    images: NDArray[np.uint8],
    *,
    layer: str,
    step: int,
    labels: NDArray[Any] | None = None,
    extent: Extent,
    details: tuple[str, ...] = (),
    dimension: int,
) -> Picture:
    """Samples as thumbnails at their places; those that would cover an earlier one are left out.

    Args:
        tag: where the picture stands in TensorBoard.
        points: ``[N, 2]``.
        images: ``[N, H, W, 3]``.
        layer: name, for the caption.
        step: number of completed updates.
        labels: class indices ``[N]`` for the frames' colours, or None.
        extent: (x0, x1, y0, y1) of the view, fixed over a run.
        details: further words for the caption's second line.
        dimension: of the layer.
    """
    _check(points, images)
    width, height = frame_size(extent, INNER_WIDTH, HEIGHT)
    tiles = _framed(images, labels, THUMBNAIL)
    across = (points[:, 0] - extent[0]) / (extent[1] - extent[0]) * (width - THUMBNAIL)
    down = (extent[3] - points[:, 1]) / (extent[3] - extent[2]) * (height - THUMBNAIL)
    body = Image.new("RGB", (width, height), (246, 246, 246))
    taken: list[tuple[float, float]] = []
    for left, top, tile in zip(across, down, tiles, strict=True):
        if not (0 <= left <= width - THUMBNAIL and 0 <= top <= height - THUMBNAIL):
            continue  # out of view, or not finite
        if any(max(abs(left - x), abs(top - y)) < THUMBNAIL * COVERED for x, y in taken):
            continue
        taken.append((left, top))
        body.paste(tile, (round(left + (THUMBNAIL - tile.width) / 2), round(top + (THUMBNAIL - tile.height) / 2)))
    lines = (
        step_text(step),
        f"{len(taken):,} of {len(points):,} samples, the rest would cover these",
        f"{dimension:,} dimensions",
        _frames(labels),
        *details,
    )
    reading = "Each sample stands at its place in the embedding; those that would cover another are left out." + (
        " A frame's colour is the true class." if labels is not None else ""
    )
    return page(tag, Caption(f"Samples at their places in {layer}'s t-SNE", lines, reading), body)


def grid(
    tag: str,
    points: NDArray[Any],
    images: NDArray[np.uint8],
    *,
    layer: str,
    step: int,
    labels: NDArray[Any] | None = None,
    details: tuple[str, ...] = (),
    dimension: int,
) -> Picture:
    """Samples on a square grid (Karpathy's): the assignment to cells that moves points least.

    Args:
        tag: where the picture stands in TensorBoard.
        points: ``[N, 2]``; the first 400 are shown.
        images: ``[N, H, W, 3]``.
        layer: name, for the caption.
        step: number of completed updates.
        labels: class indices ``[N]`` for the frames' colours, or None.
        details: further words for the caption's second line.
        dimension: of the layer.
    """
    _check(points, images)
    usable = np.flatnonzero(np.isfinite(points).all(axis=1))[: MOST_CELLS**2]
    side = max(1, int(np.ceil(len(usable) ** 0.5)))
    size = min(INNER_WIDTH // side, 120)
    tiles = _framed(images[usable], None if labels is None else np.asarray(labels)[usable], size - 2)
    body = Image.new("RGB", (side * size, side * size), "white")
    for (column, row), tile in zip(assign(points[usable], side), tiles, strict=True):
        left, top = column * size + (size - tile.width) // 2, (side - 1 - row) * size + (size - tile.height) // 2
        body.paste(tile, (left, top))
    count = f"{len(usable):,}" if len(usable) == len(points) else f"{len(usable):,} of {len(points):,}"
    lines = (
        step_text(step),
        f"{count} samples",
        f"{dimension:,} dimensions",
        _frames(labels),
        "gaps removed",
        *details,
    )
    reading = "The embedding spread over a grid: neighbours in the grid are samples that the layer sees alike." + (
        " A frame's colour is the true class." if labels is not None else ""
    )
    notes = ("NaN in some points",) if not np.isfinite(points).all() else ()
    return page(tag, Caption(f"{layer}'s t-SNE, spread over a grid", lines, reading, notes), body)


def assign(points: NDArray[Any], side: int) -> NDArray[np.int64]:
    """Each point's own cell (column, row) ``[N, 2]`` of a grid of ``side`` by ``side``, rows from the bottom up.

    Args:
        points: ``[N, 2]``, N at most side².
        side: of the grid, in cells.
    """
    points = np.asarray(points, dtype=np.float64)
    if not len(points):
        return np.zeros((0, 2), dtype=np.int64)
    spread = np.ptp(points, axis=0)
    unit = (points - points.min(axis=0)) / np.where(spread > 0, spread, 1)
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1).reshape(-1, 2)
    cost = cdist(unit, cells / max(1, side - 1), "sqeuclidean")
    return np.asarray(cells[linear_sum_assignment(cost)[1]], dtype=np.int64)


def _frames(labels: NDArray[Any] | None) -> str:
    return "" if labels is None else "frame: true class"


def _framed(images: NDArray[np.uint8], labels: NDArray[Any] | None, side: int) -> list[Image.Image]:
    """Images fitted into ``side`` pixels, framed in their class's colour where there are labels."""
    edge = FRAME if labels is not None else 0
    room = max(1, side - 2 * edge)
    height, width = images.shape[1:3]
    size = (max(1, room * width // max(height, width)), max(1, room * height // max(height, width)))
    colours: Colours = colours_of(labels, len(images))
    framed = []
    for image, colour in zip(images, colours, strict=True):
        tile = Image.new("RGB", (size[0] + 2 * edge, size[1] + 2 * edge), tuple(int(value) for value in colour))
        tile.paste(enlarge(image, size), (edge, edge))
        framed.append(tile)
    return framed


def _check(points: NDArray[Any], images: NDArray[np.uint8]) -> None:
    check_images(images)
    if points.shape != (len(images), 2):
        raise ValueError(f"points are [{len(images)}, 2], one for each image, got {points.shape}")
