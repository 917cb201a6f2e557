"""A layer's samples in the plane as points: scatter, comparison of methods."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from typing_extensions import Unpack

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import MOST_NAMES, class_count, key_entries, name_of
from lightning_viz.render.layout import INNER_WIDTH, frame_size, in_columns, in_rows
from lightning_viz.render.page import Page, PageInfo, compose
from lightning_viz.render.parts import ClassKey, PlotExtent, ScatterPlot, Text, VStack
from lightning_viz.render.text import LINE, TEXT_SIZE, fixed_point, level, shorten, steady_width, text_width, wrap

__all__ = ["embedding_panels", "scatter"]

_HEIGHT = 690
_MOST_MEMBERS, _CANDIDATES = 500, 50  # of a class, among whose points its name finds a place


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
    """Page of an embedding: samples as points in class colors, class names on a point of their largest cluster.

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
    body = panel(points, labels, class_names, size, extent, clusters=clusters, named=True)
    facts = (
        f"{len(points):,} samples",
        f"{dimension:,} dimensions",
        "" if knn_accuracy is None else f"k-NN accuracy in the layer {_percent(knn_accuracy)}",
        "" if trustworthiness is None else f"trustworthiness {fixed_point(trustworthiness)}",
        *_purity(labels, clusters),
        f"{beyond(points, extent):,} outliers at the rim",
        f"{classes} classes: no names, colors repeat" if classes > MOST_NAMES else "",
    )
    invalid = len(points) - int(usable.sum())
    warnings = (f"NaN in {invalid:,} of {len(points):,} points",) if invalid else ()
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
    panels: Sequence[tuple[str, NDArray[Any], PlotExtent]],
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
        panels: (name, points ``[N, 2]``, extent of the view), up to three in a row; views are square.
        layer: name, for the caption.
        labels: class indices ``[N]``, or None.
        class_names: by class index; the indices if omitted.
        dimension: of the layer.
        clusters: by panel name, a cluster's index for each sample ``[N]``.
        info: see `PageInfo`.
    """
    if not panels:
        raise InvalidArgumentError("panels are empty; give at least one (name, points, extent)")
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    side = min((INNER_WIDTH - 10 * (columns - 1)) // columns, _HEIGHT - LINE)
    classes = class_count(labels, class_names)
    titles = [
        Text(lines, side, centered=True)
        for lines in level([wrap(name, side, measure=steady_width) for name, *_ in panels])
    ]
    plots = [
        panel(points, labels, class_names, (side, side), extent, clusters=(clusters or {}).get(name))
        for name, points, extent in panels
    ]
    rows = in_rows(in_columns(titles, plots, gap=2), columns, 10)
    entries, colors = key_entries(labels, class_names)
    body = VStack([*rows, *([ClassKey(entries, colors)] if entries else [])], gap=8)
    count = len(panels[0][1])
    crosses = "k-means colors: a cluster's commonest class, ×: not of it" if clusters and labels is not None else ""
    facts = (f"{count:,} samples", f"{dimension:,} dimensions", crosses)
    reading = "The same samples laid out by each method; near in a panel should mean alike to the layer." + (
        " Colors are classes; with clusters, each cluster's commonest class, and crosses are samples of another."
        if clusters
        else " Colors are classes."
        if classes
        else ""
    )
    plain = [name.partition(" (")[0] for name, *_ in panels]
    listed = plain[0] if len(plain) == 1 else f"{', '.join(plain[:-1])} and {plain[-1]}"
    title = f"{layer}: its samples by {listed}"
    return compose(tag, title, body, facts, reading, **info)


def panel(
    points: NDArray[Any],
    labels: NDArray[Any] | None,
    class_names: tuple[str, ...] | None,
    size: tuple[int, int],
    extent: PlotExtent,
    *,
    clusters: NDArray[Any] | None = None,
    named: bool = False,
) -> ScatterPlot:
    """Points in their classes' colors or, with clusters, in those of their cluster's commonest class.

    Args:
        points: ``[N, 2]``; those that are not finite are left out.
        labels: class indices ``[N]``, or None.
        class_names: by class index; the indices if None.
        size: in pixels.
        extent: (x0, x1, y0, y1) of the view.
        clusters: a cluster's index for each sample ``[N]``, or None.
        named: whether classes have their names on a point of their largest cluster.
    """
    usable = np.isfinite(points).all(axis=1)
    colored = None if labels is None else np.asarray(labels)
    crosses = None
    if clusters is not None:
        colored = clusters if labels is None else _commonest(labels, clusters)
        crosses = np.zeros(len(points), dtype=bool) if labels is None else colored != labels
    names: Sequence[tuple[str, float, float]] = ()
    if named and labels is not None and colored is not None:
        names = named_places(points[usable], colored[usable], class_names, size, extent)
    return ScatterPlot(
        width=size[0],
        height=size[1],
        points=points[usable],
        classes=None if colored is None else colored[usable],
        class_count=class_count(labels, class_names),
        crosses=None if crosses is None else crosses[usable],
        names=names,
        extent=extent,
        size=point_size(len(points)),
    )


def point_size(count: int) -> float:
    """How many pixels a point is across: 5 of many, up to 11 of few."""
    return float(np.clip(11 - 3 * np.log10(max(count, 1) / 8), 5, 11))


def named_places(
    points: NDArray[Any],
    classes: NDArray[Any],
    names: tuple[str, ...] | None,
    size: tuple[int, int],
    extent: PlotExtent,
) -> tuple[tuple[str, float, float], ...]:
    """Each class's name on a point of its largest cluster, apart from other names if it can be; none of too many.

    Args:
        points: ``[N, 2]``, finite.
        classes: of the points ``[N]``; negative ones have no name.
        names: by class index; the indices if None.
        size: of the picture, in pixels.
        extent: (x0, x1, y0, y1) of the view.
    """
    present = [int(label) for label in np.unique(classes) if label >= 0]
    if len(present) > MOST_NAMES:
        return ()
    span = np.array([extent[1] - extent[0], extent[3] - extent[2]])
    taken: list[tuple[NDArray[Any], int]] = []  # places in pixels, and half the names' widths
    placed: list[tuple[str, float, float]] = []
    for label in present:
        members, name = points[classes == label][:_MOST_MEMBERS], shorten(name_of(label, names), 200)
        order = _from_the_middle(members, span[0] * float(np.clip(1.5 / len(members) ** 0.5, 0.06, 0.3)))
        pixels, half = members / span * size, text_width(name) // 2
        free = (place for place in order[:_CANDIDATES] if _is_free(pixels[place], half, taken))
        chosen = next(free, order[0])
        taken.append((pixels[chosen], half))
        placed.append((name, float(members[chosen][0]), float(members[chosen][1])))
    return tuple(placed)


def _from_the_middle(points: NDArray[Any], reach: float) -> NDArray[np.int64]:
    """The points of the largest cluster, whose neighbors are within reach, from its middle outward."""
    distances = cdist(points, points)
    groups = connected_components(distances < reach, directed=False)[1]
    members = np.flatnonzero(groups == np.bincount(groups).argmax())
    return np.asarray(members[np.argsort(distances[np.ix_(members, members)].sum(1), kind="stable")])


def _is_free(place: NDArray[Any], half: int, taken: Sequence[tuple[NDArray[Any], int]]) -> bool:
    """Whether a name there covers no other."""
    return all(
        abs(place[0] - other[0]) > half + wide + 2 or abs(place[1] - other[1]) > TEXT_SIZE for other, wide in taken
    )


def beyond(points: NDArray[Any], extent: PlotExtent) -> int:
    """How many points are out of view, and stand at its rim.

    Args:
        points: ``[N, 2]``.
        extent: (x0, x1, y0, y1) of the view.
    """
    x, y = points[np.isfinite(points).all(axis=1)].T
    return int(((x < extent[0]) | (x > extent[1]) | (y < extent[2]) | (y > extent[3])).sum())


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
    return f"{fixed_point(100 * share, 0)} %"
