"""A layer's samples in the plane as points: scatter, comparison of methods, sprite for the projector."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image

from .figure import MOST_NAMES, Extent, bare, canvas, class_count, dots, frame_size, key_entries, names_at_medians
from .legends import class_key
from .picture import INNER_WIDTH, Caption, Picture, beside, page, png, stack
from .text import LINE, draw_lines, step_text, wrap
from .thumbnails import grid, thumbnails
from .tiles import check_images

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
    """Samples as points in class colours, class names at the medians.

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
        knn_accuracy: of the labels among nearest neighbours, 0 to 1, or None.
        trustworthiness: of the embedding, 0 to 1, or None.
        details: further words for the caption's second line.
        clusters: a cluster's index for each sample ``[N]``, coloured by its commonest class; or None.
        notes: further warnings for the caption.
    """
    usable = np.isfinite(points).all(axis=1)
    classes = class_count(labels, class_names)
    width, height = frame_size(extent, INNER_WIDTH, HEIGHT)
    with canvas(width, height) as sheet:
        axes = sheet.axes(1, 1, width - 2, height - 2)
        _panel(axes, points, usable, labels, classes, clusters)
        if labels is not None:
            colours = np.asarray(labels) if clusters is None else _commonest(labels, clusters)
            names_at_medians(axes, points[usable], colours[usable], class_names)
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
        f"{classes} classes: no names, colours repeat" if classes > MOST_NAMES else "",
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
        title += ", coloured by class" if clusters is None else ", by commonest class"
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
        raise ValueError("panels are empty; give at least one (name, points)")
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
        stack([draw_lines([*lines, *[""] * (tallest - len(lines))], side, centred=True), image], gap=2)
        for lines, image in drawn
    ]
    rows = [beside(titled[start : start + columns], gap=10) for start in range(0, len(titled), columns)]
    entries, colours = key_entries(labels, class_names)
    body = stack([*rows, *([class_key(entries, colours)] if entries else [])], gap=8)
    count = len(panels[0][1])
    crosses = "k-means in the layer: × outside its cluster's majority class" if clusters and labels is not None else ""
    lines = (step_text(step), f"{count:,} samples", f"{dimension:,} dimensions", crosses, *details)
    reading = "The same samples laid out by each method; near in a panel should mean alike to the layer." + (
        " Colours are classes; with clusters, each cluster's commonest class, and crosses are samples of another."
        if clusters
        else " Colours are classes."
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
    """Points in their classes' colours or, with clusters, in those of their cluster's commonest class."""
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


def _reading(method: str, coloured: bool, clustered: bool) -> str:
    near = "near each other if the layer sees them alike" if method == "t-SNE" else "seen along its two main directions"
    colour = "; colours are the true classes, which a good layer keeps apart" if coloured else ""
    if clustered:
        colour = "; colours are each cluster's commonest class, crosses are samples of another class"
    far = " Distances between groups, and their sizes, mean little." if method == "t-SNE" else ""
    return f"Each point is one sample, {near}{colour}.{far}"
