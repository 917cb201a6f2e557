"""A layer's samples in the plane as points: scatter, comparison of methods, sprite for the projector."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from typing_extensions import Unpack

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import MOST_NAMES, class_count, colors_of, key_entries, name_of
from lightning_viz.render.layout import INNER_WIDTH, frame_size, in_columns, in_rows
from lightning_viz.render.page import Page, PageInfo, check_rgb, check_shape, compose, png
from lightning_viz.render.parts import At, ClassKey, PlotExtent, ScatterPlot, Sheet, Text, Tile, VStack
from lightning_viz.render.text import LINE, level, shorten, wrap

__all__ = ["embedding_panels", "grid", "scatter", "sprite", "thumbnails"]

_HEIGHT = 690
_SPRITE_SIDE = 8192  # the projector's limit, in pixels
_SPRITE_TILE = 96
_THUMBNAIL = 28  # pixels, frame included
_FRAME = 3
_COVERED = 0.5  # neighbors may overlap by the rest
_MOST_CELLS = 20  # a side: 400 samples of 34 px
_FRAMES = ("frame: true class", " A frame's color is the true class.")


def scatter(
    tag: str,
    points: NDArray[Any],
    *,
    layer: str,
    labels: NDArray[Any] | None,
    class_names: tuple[str, ...] | None = None,
    extent: PlotExtent,
    method: Literal["t-SNE", "PCA", "k-means"],
    dimension: int,
    knn_accuracy: float | None,
    trustworthiness: float | None,
    clusters: NDArray[Any] | None = None,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of an embedding: samples as points in class colors, class names at the medians.

    Args:
        tag: of the page.
        points: ``[N, 2]``.
        layer: name, for the caption.
        labels: class indices ``[N]``, or None.
        class_names: by class index; the indices if omitted.
        extent: (x0, x1, y0, y1) of the view, fixed over a run.
        method: that made the points.
        dimension: of the layer.
        knn_accuracy: of the labels among nearest neighbors, 0 to 1, or None.
        trustworthiness: of the embedding, 0 to 1, or None.
        clusters: a cluster's index for each sample ``[N]``, colored by its commonest class; or None.
        info: see `PageInfo`.
    """
    usable, classes = np.isfinite(points).all(axis=1), class_count(labels, class_names)
    size = frame_size(extent, INNER_WIDTH, _HEIGHT)
    body = _panel(points, labels, class_names, clusters, size, extent, named=True)
    x0, x1, y0, y1 = extent
    inside = (points[:, 0] >= x0) & (points[:, 0] <= x1) & (points[:, 1] >= y0) & (points[:, 1] <= y1)
    outside = int((usable & ~inside).sum())
    facts = (
        f"{len(points):,} samples",
        f"{dimension:,} dimensions",
        "" if knn_accuracy is None else f"k-NN accuracy in the layer {_percent(knn_accuracy)}",
        "" if trustworthiness is None else f"trustworthiness {trustworthiness:.2f}",
        *_purity(labels, clusters),
        f"{classes} classes: no names, colors repeat" if classes > MOST_NAMES else "",
    )
    warnings = (
        *([f"NaN in {len(points) - int(usable.sum()):,} of {len(points):,} points"] if not usable.all() else []),
        *([f"{outside:,} of {len(points):,} points out of view"] if outside else []),
    )
    near = "near each other if the layer sees them alike" if method == "t-SNE" else "seen along its two main directions"
    far = " Distances between groups, and their sizes, mean little." if method == "t-SNE" else ""
    color = "; colors are the true classes, which a good layer keeps apart" if labels is not None else ""
    if clusters is not None:
        color = "; colors are each cluster's commonest class, crosses are samples of another class"
    reading = f"Each point is one sample, {near}{color}.{far}"
    clustered = f"clusters ({method})" if method != "k-means" else "k-means clusters"
    title = f"{method if clusters is None else clustered} of {layer}"
    if labels is not None:
        title += ", colored by class" if clusters is None else ", by commonest class"
    return compose(tag, title, body, facts, reading, warnings=warnings, **info)


def embedding_panels(
    tag: str,
    panels: Sequence[tuple[str, NDArray[Any]]],
    *,
    layer: str,
    labels: NDArray[Any] | None,
    class_names: tuple[str, ...] | None = None,
    dimension: int,
    clusters: Mapping[str, NDArray[Any]] | None = None,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of small scatters of the same samples side by side, one for each method.

    Args:
        tag: of the page.
        panels: (name, points ``[N, 2]``), up to three in a row, each in its own extent.
        layer: name, for the caption.
        labels: class indices ``[N]``, or None.
        class_names: by class index; the indices if omitted.
        dimension: of the layer.
        clusters: by panel name, a cluster's index for each sample ``[N]``.
        info: see `PageInfo`.
    """
    if not panels:
        raise InvalidArgumentError("panels are empty; give at least one (name, points)")
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    side = min((INNER_WIDTH - 10 * (columns - 1)) // columns, _HEIGHT - LINE)
    classes = class_count(labels, class_names)
    titles = [Text(lines, side, centered=True) for lines in level([wrap(name, side) for name, _ in panels])]
    plots = [_panel(points, labels, class_names, (clusters or {}).get(name), (side, side)) for name, points in panels]
    rows = in_rows(in_columns(titles, plots, gap=2), columns, 10)
    entries, colors = key_entries(labels, class_names)
    body = VStack([*rows, *([ClassKey(entries, colors)] if entries else [])], gap=8)
    count = len(panels[0][1])
    crosses = "k-means in the layer: × outside its cluster's majority class" if clusters and labels is not None else ""
    facts = (f"{count:,} samples", f"{dimension:,} dimensions", crosses)
    reading = "The same samples laid out by each method; near in a panel should mean alike to the layer." + (
        " Colors are classes; with clusters, each cluster's commonest class, and crosses are samples of another."
        if clusters
        else " Colors are classes."
        if classes
        else ""
    )
    plain = [name.partition(" (")[0] for name, _ in panels]
    listed = plain[0] if len(plain) == 1 else f"{', '.join(plain[:-1])} and {plain[-1]}"
    title = f"{layer}: its samples by {listed}"
    return compose(tag, title, body, facts, reading, **info)


def sprite(images: NDArray[np.uint8]) -> tuple[bytes, int]:
    """Thumbnails on one square PNG, row by row, for TensorBoard's projector.

    Args:
        images: ``[N, H, W, 3]``, at most 96 px a side, less where the sprite would exceed 8192; oblong: white edges.

    Returns:
        The PNG's bytes and the side of one thumbnail in pixels.
    """
    check_rgb(images)
    columns = max(1, ceil(len(images) ** 0.5))
    side = max(1, min(max(images.shape[1:3]), _SPRITE_TILE, _SPRITE_SIDE // columns))
    sheet = Image.new("RGB", (columns * side, columns * side), "white")
    for index, image in enumerate(images):
        tile = Image.fromarray(np.ascontiguousarray(image))
        if max(tile.size) > side:
            tile.thumbnail((side, side), Image.Resampling.LANCZOS)
        row, column = divmod(index, columns)
        sheet.paste(tile, (column * side + (side - tile.width) // 2, row * side + (side - tile.height) // 2))
    return png(sheet), side


def _panel(
    points: NDArray[Any],
    labels: NDArray[Any] | None,
    class_names: tuple[str, ...] | None,
    clusters: NDArray[Any] | None,
    size: tuple[int, int],
    extent: PlotExtent | None = None,
    *,
    named: bool = False,
) -> ScatterPlot:
    """Points in their classes' colors or, with clusters, in those of their cluster's commonest class."""
    usable = np.isfinite(points).all(axis=1)
    colored = None if labels is None else np.asarray(labels)
    crosses = None
    if clusters is not None:
        colored = clusters if labels is None else _commonest(labels, clusters)
        crosses = np.zeros(len(points), dtype=bool) if labels is None else colored != labels
    names: Sequence[tuple[str, float, float]] = ()
    if named and labels is not None and colored is not None:
        names = _names_at_medians(points[usable], colored[usable], class_names)
    return ScatterPlot(
        width=size[0],
        height=size[1],
        points=points[usable],
        classes=None if colored is None else colored[usable],
        class_count=class_count(labels, class_names),
        crosses=None if crosses is None else crosses[usable],
        names=names,
        extent=extent or _square(points[usable]),
    )


def _names_at_medians(
    points: NDArray[Any], classes: NDArray[Any], names: tuple[str, ...] | None
) -> tuple[tuple[str, float, float], ...]:
    """Each class's name at the median of its points; none where there are too many to read."""
    present = [int(label) for label in np.unique(classes) if label >= 0]
    if len(present) > MOST_NAMES:
        return ()
    medians = [np.median(points[classes == label], axis=0) for label in present]
    return tuple((shorten(name_of(label, names), 200), *at) for label, at in zip(present, medians, strict=True))


def _square(points: NDArray[Any]) -> PlotExtent:
    """A square view around all points, with a little air."""
    if not len(points):
        return (0.0, 1.0, 0.0, 1.0)
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, float((high - low).max()) * 0.53 or 1.0
    (x0, y0), (x1, y1) = (middle - half).tolist(), (middle + half).tolist()
    return (x0, x1, y0, y1)


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
    others = float((_commonest(labels, clusters) != labels).mean())
    return (count, f"crosses: samples of other classes, {_percent(others)}")


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def thumbnails(
    tag: str,
    points: NDArray[Any],
    images: NDArray[np.uint8],
    *,
    layer: str,
    labels: NDArray[Any] | None = None,
    extent: PlotExtent,
    dimension: int,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of samples as thumbnails at their places; those that would cover an earlier one are left out.

    Args:
        tag: of the page.
        points: ``[N, 2]``.
        images: ``[N, H, W, 3]``.
        layer: name, for the caption.
        labels: class indices ``[N]`` for the frames' colors, or None.
        extent: (x0, x1, y0, y1) of the view, fixed over a run.
        dimension: of the layer.
        info: see `PageInfo`.
    """
    check_rgb(images)
    check_shape("points", points, len(images), 2)
    width, height = frame_size(extent, INNER_WIDTH, _HEIGHT)
    tiles = _framed(images, labels, _THUMBNAIL)
    across = (points[:, 0] - extent[0]) / (extent[1] - extent[0]) * (width - _THUMBNAIL)
    down = (extent[3] - points[:, 1]) / (extent[3] - extent[2]) * (height - _THUMBNAIL)
    places: list[tuple[float, float]] = []
    parts = []
    for left, top, tile in zip(across, down, tiles, strict=True):
        if not (0 <= left <= width - _THUMBNAIL and 0 <= top <= height - _THUMBNAIL):
            continue  # out of view, or not finite
        if any(max(abs(left - x), abs(top - y)) < _THUMBNAIL * _COVERED for x, y in places):
            continue
        places.append((left, top))
        corner = round(left + (_THUMBNAIL - tile.width) / 2), round(top + (_THUMBNAIL - tile.height) / 2)
        parts.append(At(*corner, tile))
    frame, color = _FRAMES if labels is not None else ("", "")
    shown = f"{len(places):,} of {len(points):,} samples, the rest would cover these"
    facts = (shown, f"{dimension:,} dimensions", frame)
    reading = f"Each sample stands at its place in the embedding; those that would cover another are left out.{color}"
    body = Sheet(width, height, parts, (246, 246, 246))
    return compose(tag, f"Samples at their places in {layer}'s t-SNE", body, facts, reading, **info)


def grid(
    tag: str,
    points: NDArray[Any],
    images: NDArray[np.uint8],
    *,
    layer: str,
    labels: NDArray[Any] | None = None,
    dimension: int,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of samples on a square grid (Karpathy's): the assignment to cells that moves points least.

    Args:
        tag: of the page.
        points: ``[N, 2]``; the first 400 are shown.
        images: ``[N, H, W, 3]``.
        layer: name, for the caption.
        labels: class indices ``[N]`` for the frames' colors, or None.
        dimension: of the layer.
        info: see `PageInfo`.
    """
    check_rgb(images)
    check_shape("points", points, len(images), 2)
    usable = np.flatnonzero(np.isfinite(points).all(axis=1))[: _MOST_CELLS**2]
    side = max(1, int(np.ceil(len(usable) ** 0.5)))
    size = min(INNER_WIDTH // side, 120)
    tiles = _framed(images[usable], None if labels is None else np.asarray(labels)[usable], size - 2)
    parts = []
    for (column, row), tile in zip(assign(points[usable], side), tiles, strict=True):
        left, top = column * size + (size - tile.width) // 2, (side - 1 - row) * size + (size - tile.height) // 2
        parts.append(At(int(left), int(top), tile))
    count = f"{len(usable):,}" if len(usable) == len(points) else f"{len(usable):,} of {len(points):,}"
    frame, color = _FRAMES if labels is not None else ("", "")
    facts = (f"{count} samples", f"{dimension:,} dimensions", frame, "gaps removed")
    reading = f"The embedding spread over a grid: neighbors in the grid are samples that the layer sees alike.{color}"
    warnings = ("NaN in some points",) if not np.isfinite(points).all() else ()
    body, title = Sheet(side * size, side * size, parts), f"{layer}'s t-SNE, spread over a grid"
    return compose(tag, title, body, facts, reading, warnings=warnings, **info)


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


def _framed(images: NDArray[np.uint8], labels: NDArray[Any] | None, side: int) -> list[Sheet]:
    """Images fitted into ``side`` pixels, framed in their class's color where there are labels."""
    edge = _FRAME if labels is not None else 0
    room = max(1, side - 2 * edge)
    height, width = images.shape[1:3]
    size = (max(1, room * width // max(height, width)), max(1, room * height // max(height, width)))
    colors = colors_of(labels, len(images))
    return [
        Sheet(size[0] + 2 * edge, size[1] + 2 * edge, [At(edge, edge, Tile(size, image, sample=index))], tuple(color))
        for index, (image, color) in enumerate(zip(images, colors.tolist(), strict=True))
    ]
