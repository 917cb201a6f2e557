"""A layer's samples in the plane as points: scatter, comparison of methods, sprite for the projector."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import Colors, colors_of
from lightning_viz.render.page import INNER_WIDTH, Caption, Picture, beside, page, png, stack
from lightning_viz.render.plots import (
    MOST_NAMES,
    Extent,
    bare,
    canvas,
    class_count,
    class_key,
    dots,
    frame_size,
    key_entries,
    names_at_medians,
)
from lightning_viz.render.text import LINE, draw_lines, step_text, wrap
from lightning_viz.render.tiles import check_images, enlarge

__all__ = ["compare", "grid", "scatter", "sprite", "thumbnails"]

HEIGHT = 690
SPRITE_SIDE = 8192  # the projector's limit, in pixels
SPRITE_TILE = 96


def scatter(
    tag: str,
    points: NDArray[Any],
    *,
    layer: str,
    step: int,
    labels: NDArray[Any] | None,
    class_names: tuple[str, ...] | None = None,
    extent: Extent,
    method: Literal["t-SNE", "PCA", "k-means"],
    dimension: int,
    knn_accuracy: float | None,
    trustworthiness: float | None,
    details: tuple[str, ...] = (),
    clusters: NDArray[Any] | None = None,
    notes: Sequence[str] = (),
) -> Picture:
    """Samples as points in class colors, class names at the medians.

    Args:
        tag: where the picture stands in TensorBoard.
        points: ``[N, 2]``.
        layer: name, for the caption.
        step: number of completed updates.
        labels: class indices ``[N]``, or None.
        class_names: by class index; the indices if omitted.
        extent: (x0, x1, y0, y1) of the view, fixed over a run.
        method: that made the points.
        dimension: of the layer.
        knn_accuracy: of the labels among nearest neighbors, 0 to 1, or None.
        trustworthiness: of the embedding, 0 to 1, or None.
        details: further words for the caption's second line.
        clusters: a cluster's index for each sample ``[N]``, colored by its commonest class; or None.
        notes: further warnings for the caption.
    """
    usable = np.isfinite(points).all(axis=1)
    classes = class_count(labels, class_names)
    width, height = frame_size(extent, INNER_WIDTH, HEIGHT)
    with canvas(width, height) as sheet:
        axes = sheet.axes(1, 1, width - 2, height - 2)
        _panel(axes, points, usable, labels, classes, clusters)
        if labels is not None:
            colors = np.asarray(labels) if clusters is None else _commonest(labels, clusters)
            names_at_medians(axes, points[usable], colors[usable], class_names)
        bare(axes, extent)
        body = sheet.image()
    x0, x1, y0, y1 = extent
    inside = (points[:, 0] >= x0) & (points[:, 0] <= x1) & (points[:, 1] >= y0) & (points[:, 1] <= y1)
    outside = int((usable & ~inside).sum())
    lines = (
        step_text(step),
        f"{len(points):,} samples",
        f"{dimension:,} dimensions",
        "" if knn_accuracy is None else f"k-NN accuracy in the layer {_percent(knn_accuracy)}",
        "" if trustworthiness is None else f"trustworthiness {trustworthiness:.2f}",
        *_purity(labels, clusters),
        f"{classes} classes: no names, colors repeat" if classes > MOST_NAMES else "",
        *details,
    )
    warnings = (
        *([f"NaN in {len(points) - int(usable.sum()):,} of {len(points):,} points"] if not usable.all() else []),
        *([f"{outside:,} of {len(points):,} points out of view"] if outside else []),
        *notes,
    )
    reading = _reading(method, labels is not None, clusters is not None)
    clustered = f"clusters ({method})" if method != "k-means" else "k-means clusters"
    title = f"{method if clusters is None else clustered} of {layer}"
    if labels is not None:
        title += ", colored by class" if clusters is None else ", by commonest class"
    return page(tag, Caption(title, lines, reading, warnings), body)


def compare(
    tag: str,
    panels: Sequence[tuple[str, NDArray[Any]]],
    *,
    layer: str,
    step: int,
    labels: NDArray[Any] | None,
    class_names: tuple[str, ...] | None = None,
    details: tuple[str, ...] = (),
    dimension: int,
    clusters: Mapping[str, NDArray[Any]] | None = None,
) -> Picture:
    """Small scatters of the same samples side by side, one for each method.

    Args:
        tag: where the picture stands in TensorBoard.
        panels: (name, points ``[N, 2]``), up to three in a row, each in its own extent.
        layer: name, for the caption.
        step: number of completed updates.
        labels: class indices ``[N]``, or None.
        class_names: by class index; the indices if omitted.
        details: further words for the caption's second line.
        dimension: of the layer.
        clusters: by panel name, a cluster's index for each sample ``[N]``.
    """
    if not panels:
        raise InvalidArgumentError("panels are empty; give at least one (name, points)")
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    side = min((INNER_WIDTH - 10 * (columns - 1)) // columns, HEIGHT - LINE)
    classes = class_count(labels, class_names)
    drawn = []
    for name, points in panels:
        usable = np.isfinite(points).all(axis=1)
        with canvas(side, side) as sheet:
            axes = sheet.axes(1, 1, side - 2, side - 2)
            _panel(axes, points, usable, labels, classes, (clusters or {}).get(name))
            bare(axes, _square(points[usable]))
            drawn.append((wrap(name, side), sheet.image()))
    tallest = max(len(lines) for lines, _ in drawn)
    titled = [
        stack([draw_lines([*lines, *[""] * (tallest - len(lines))], side, centered=True), image], gap=2)
        for lines, image in drawn
    ]
    rows = [beside(titled[start : start + columns], gap=10) for start in range(0, len(titled), columns)]
    entries, colors = key_entries(labels, class_names)
    body = stack([*rows, *([class_key(entries, colors)] if entries else [])], gap=8)
    count = len(panels[0][1])
    crosses = "k-means in the layer: × outside its cluster's majority class" if clusters and labels is not None else ""
    lines = (step_text(step), f"{count:,} samples", f"{dimension:,} dimensions", crosses, *details)
    reading = "The same samples laid out by each method; near in a panel should mean alike to the layer." + (
        " Colors are classes; with clusters, each cluster's commonest class, and crosses are samples of another."
        if clusters
        else " Colors are classes."
        if classes
        else ""
    )
    return page(tag, Caption(f"{layer}: its samples by {_listed([name for name, _ in panels])}", lines, reading), body)


def sprite(images: NDArray[np.uint8]) -> tuple[bytes, int]:
    """Thumbnails on one square PNG, row by row, for TensorBoard's projector.

    Args:
        images: ``[N, H, W, 3]``, at most 96 px a side, less where the sprite would exceed 8192; oblong: white edges.

    Returns:
        The PNG's bytes and the side of one thumbnail in pixels.
    """
    check_images(images)
    columns = max(1, ceil(len(images) ** 0.5))
    side = max(1, min(max(images.shape[1:3]), SPRITE_TILE, SPRITE_SIDE // columns))
    sheet = Image.new("RGB", (columns * side, columns * side), "white")
    for index, image in enumerate(images):
        tile = Image.fromarray(np.ascontiguousarray(image))
        if max(tile.size) > side:
            tile.thumbnail((side, side), Image.Resampling.LANCZOS)
        row, column = divmod(index, columns)
        sheet.paste(tile, (column * side + (side - tile.width) // 2, row * side + (side - tile.height) // 2))
    return png(sheet), side


def _listed(names: list[str]) -> str:
    """The methods, without what stands in brackets behind them."""
    plain = [name.partition(" (")[0] for name in names]
    return plain[0] if len(plain) == 1 else f"{', '.join(plain[:-1])} and {plain[-1]}"


def _panel(
    axes: Axes,
    points: NDArray[Any],
    usable: NDArray[np.bool_],
    labels: NDArray[Any] | None,
    classes: int,
    clusters: NDArray[Any] | None,
) -> None:
    """Points in their classes' colors or, with clusters, in those of their cluster's commonest class."""
    if clusters is None:
        dots(axes, points[usable], None if labels is None else np.asarray(labels)[usable], classes=classes)
        return
    commonest = clusters if labels is None else _commonest(labels, clusters)
    strangers = np.zeros(len(points), dtype=bool) if labels is None else commonest != labels
    dots(axes, points[usable & ~strangers], commonest[usable & ~strangers], classes=classes)
    dots(
        axes, points[usable & strangers], commonest[usable & strangers], classes=classes, size=7, alpha=0.8, marker="x"
    )


def _square(points: NDArray[Any]) -> Extent:
    """A square view around all points, with a little air."""
    if not len(points):
        return (0.0, 1.0, 0.0, 1.0)
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, float((high - low).max()) * 0.53 or 1.0
    x, y = float(middle[0]), float(middle[1])
    return (x - half, x + half, y - half, y + half)


def _commonest(labels: NDArray[Any], clusters: NDArray[Any]) -> NDArray[Any]:
    """For each sample the commonest class of its cluster ``[N]``."""
    result = np.empty(len(labels), dtype=int)
    for cluster in np.unique(clusters):
        classes, counts = np.unique(np.asarray(labels)[clusters == cluster], return_counts=True)
        result[clusters == cluster] = classes[counts.argmax()]
    return result


def _purity(labels: NDArray[Any] | None, clusters: NDArray[Any] | None) -> tuple[str, ...]:
    """How well clusters agree with classes: the share of samples that are of their cluster's commonest class."""
    if clusters is None:
        return ()
    several = len(np.unique(clusters))
    count = f"{several} cluster{'s' if several != 1 else ''}"
    if labels is None or not len(labels):
        return (count,)
    return (
        count,
        f"crosses: samples of other classes, {_percent(float((_commonest(labels, clusters) != labels).mean()))}",
    )


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _reading(method: str, colored: bool, clustered: bool) -> str:
    near = "near each other if the layer sees them alike" if method == "t-SNE" else "seen along its two main directions"
    color = "; colors are the true classes, which a good layer keeps apart" if colored else ""
    if clustered:
        color = "; colors are each cluster's commonest class, crosses are samples of another class"
    far = " Distances between groups, and their sizes, mean little." if method == "t-SNE" else ""
    return f"Each point is one sample, {near}{color}.{far}"


GRID_HEIGHT = 690
THUMBNAIL = 28  # pixels, frame included
FRAME = 3
COVERED = 0.5  # neighbors may overlap by the rest
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
        labels: class indices ``[N]`` for the frames' colors, or None.
        extent: (x0, x1, y0, y1) of the view, fixed over a run.
        details: further words for the caption's second line.
        dimension: of the layer.
    """
    _check(points, images)
    width, height = frame_size(extent, INNER_WIDTH, GRID_HEIGHT)
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
        " A frame's color is the true class." if labels is not None else ""
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
        labels: class indices ``[N]`` for the frames' colors, or None.
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
    reading = "The embedding spread over a grid: neighbors in the grid are samples that the layer sees alike." + (
        " A frame's color is the true class." if labels is not None else ""
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
    """Images fitted into ``side`` pixels, framed in their class's color where there are labels."""
    edge = FRAME if labels is not None else 0
    room = max(1, side - 2 * edge)
    height, width = images.shape[1:3]
    size = (max(1, room * width // max(height, width)), max(1, room * height // max(height, width)))
    colors: Colors = colors_of(labels, len(images))
    framed = []
    for image, color in zip(images, colors, strict=True):
        tile = Image.new("RGB", (size[0] + 2 * edge, size[1] + 2 * edge), tuple(int(value) for value in color))
        tile.paste(enlarge(image, size), (edge, edge))
        framed.append(tile)
    return framed


def _check(points: NDArray[Any], images: NDArray[np.uint8]) -> None:
    check_images(images)
    if points.shape != (len(images), 2):
        raise InvalidArgumentError(f"points are [{len(images)}, 2], one for each image, got {points.shape}")
