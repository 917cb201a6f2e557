"""The layers' samples in the plane side by side, from the input to the output: how the classes come apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import MOST_NAMES, class_count, key_entries, name_of
from lightning_viz.render.embedding import panel
from lightning_viz.render.layout import BODY_HEIGHT, INNER_WIDTH, in_rows, key_height
from lightning_viz.render.page import Page, PageInfo, compose
from lightning_viz.render.parts import ClassKey, LayerPlot, Part, PlotExtent, Text, Tile, VStack
from lightning_viz.render.points import AXIS_WIDTH
from lightning_viz.render.text import GRAY, LINE, end_of, percent, step_text, text_width

__all__ = ["LayerPanel", "evenly_chosen", "layer_panels"]

MOST_PANELS = 12
SAME = "the same for all samples"
"""A layer's flaw."""
_GAP = 8  # pixels between panels
_PLOT, _LEAST_PLOT = 180, 130  # height of the curves, in pixels
_NARROW = 200  # pixels of a column, in which fewer words fit
_MOST_CURVES = 8
_FEWEST = 30  # points that have names among them
_SHORT_NAME = 40  # pixels of a class's name that may stand in a panel


@dataclass(frozen=True)
class LayerPanel:
    """A layer's samples in the plane.

    Args:
        layer: name.
        dimension: of the layer.
        points: ``[N, 2]``; None if there is a flaw.
        extent: (x0, x1, y0, y1) of the view, fixed over a run; of points.
        knn_accuracy: of the labels among nearest neighbors in the layer, 0 to 1, or None.
        flaw: why there is nothing to see, in words.
    """

    layer: str
    dimension: int
    points: NDArray[Any] | None = None
    extent: PlotExtent | None = None
    knn_accuracy: float | None = None
    flaw: str = ""


def evenly_chosen(count: int, most: int = MOST_PANELS) -> list[int]:
    """Which of many layers have a panel: the first, the last, and others evenly between them.

    Args:
        count: of the layers.
        most: panels.

    >>> evenly_chosen(3), evenly_chosen(30, most=4)
    ([0, 1, 2], [0, 10, 19, 29])
    """
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def unit_radius(points: NDArray[Any]) -> NDArray[Any]:
    """Points at a root mean square radius of 1: t-SNE's unit means nothing, yet its clouds grow and shrink.

    Args:
        points: ``[N, 2]``.
    """
    centered = points - points.mean(0)
    radius = float(np.sqrt((centered**2).sum(1).mean()))
    return np.asarray(centered / radius if radius > 0 else centered)


def layer_panels(
    tag: str,
    panels: Sequence[LayerPanel],
    *,
    labels: NDArray[Any] | None,
    class_names: tuple[str, ...] | None = None,
    method: Literal["t-SNE", "PCA"] = "t-SNE",
    left_out: Sequence[str] = (),
    history: Sequence[tuple[int, Sequence[float | None]]] = (),
    curves: bool = True,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of small scatters of the same samples, one for each layer, and of the layers' k-NN accuracies as curves.

    Args:
        tag: of the page.
        panels: of the layers in their order, up to 12; the layout depends on how many they are.
        labels: class indices ``[N]``, or None.
        class_names: by class index; the indices if omitted.
        method: that made the points.
        left_out: names of layers that have no panel.
        history: of earlier steps, the accuracy of each panel's layer.
        curves: whether the accuracies have curves, where classes are known.
        info: see `PageInfo`.
    """
    if not panels or len(panels) > MOST_PANELS:
        raise InvalidArgumentError(f"{len(panels)} panels: give 1 to {MOST_PANELS} layers")
    counts = {len(drawn.points) for drawn in panels if drawn.points is not None}
    if len(counts) > 1:
        raise InvalidArgumentError(f"panels of {sorted(counts)} samples: give the same samples in each")
    known = labels is not None and bool((np.asarray(labels) >= 0).any())
    classes = class_count(labels, class_names)
    curves, named = known and curves, known and _fit_into_panels(labels, class_names)
    entries, colors = key_entries(labels, class_names) if known and not named else ([], np.zeros((0, 3), np.uint8))
    key = [ClassKey(entries, colors)] if entries else []
    room = BODY_HEIGHT - sum(key_height(part.names) + _GAP for part in key)
    columns, width, side, height = _layout(len(panels), room=room, curves=curves)
    layers = [drawn.layer for drawn in panels]
    names = _names(layers)
    leads = [""] * len(panels) if names == layers else [f"{name}: " for name in names]
    blocks = [
        _block(drawn, lead, labels, class_names, width, side, named=named)
        for drawn, lead in zip(panels, leads, strict=True)
    ]
    parts: list[Part] = [*in_rows(blocks, columns, _GAP), *key]
    if curves:
        parts += _curves(panels, names, history, labels, height)
    facts = (
        f"{max(counts):,} samples" if counts else "",
        f"{len(panels)} of {len(panels) + len(left_out)} layers" if left_out else "",
        f"{classes} classes: no names, colors repeat" if classes > MOST_NAMES else "",
    )
    title = "How the classes come apart, layer by layer" if known else "The samples, layer by layer"
    return compose(
        tag, title, VStack(parts, gap=_GAP), facts, _reading(method, left_out, known=known, curves=curves), **info
    )


def _fit_into_panels(labels: NDArray[Any] | None, names: tuple[str, ...] | None) -> bool:
    """Whether names of classes are few and short enough to stand among the points, and would not cover all of them."""
    count, samples = class_count(labels, names), 0 if labels is None else len(labels)
    short = all(text_width(name_of(label, names)) <= _SHORT_NAME for label in range(count))
    return count <= MOST_NAMES and short and samples >= _FEWEST


def _layout(count: int, *, room: int, curves: bool) -> tuple[int, int, int, int]:
    """Number of columns, their width, the side of a panel and the height of the curves, in pixels."""
    columns = {1: 1, 2: 2, 4: 2}.get(count, 3 if count <= 6 else 4)
    rows = -(-count // columns)
    width = (INNER_WIDTH - _GAP * (columns - 1)) // columns
    left = room - (_PLOT + LINE + 2 * _GAP if curves else 0)
    side = min(width, left // rows - 2 * LINE - _GAP)
    if curves and side < width:  # the curves may give way
        more = min(_PLOT - _LEAST_PLOT, (width - side) * rows)
        return columns, width, side + more // rows, _PLOT - more
    return columns, width, side, _PLOT


def _names(layers: Sequence[str]) -> list[str]:
    """What stands under the curves: layers' names, or numbers if the names are too wide."""
    slot = (INNER_WIDTH - AXIS_WIDTH) // len(layers) - 8
    return (
        list(layers) if all(text_width(name) <= slot for name in layers) else [str(n + 1) for n in range(len(layers))]
    )


def _block(
    drawn: LayerPanel,
    lead: str,
    labels: NDArray[Any] | None,
    class_names: tuple[str, ...] | None,
    width: int,
    side: int,
    *,
    named: bool,
) -> VStack:
    """A panel under its layer's name, dimension and accuracy."""
    facts = [f"{drawn.dimension:,}-d"]
    if drawn.knn_accuracy is not None:
        share = f"{percent(drawn.knn_accuracy)} %"
        facts.append(share if width < _NARROW else f"k-NN {share}")
    title = Text([lead + end_of(drawn.layer, width - text_width(lead))], width)
    below = Text([" · ".join(facts)], width, color=GRAY)
    scatter: Part
    if drawn.points is None or drawn.extent is None or drawn.flaw:
        scatter = Tile((side, side), flaw=drawn.flaw or "nothing to see", layer=drawn.layer)
    else:
        scatter = panel(drawn.points, labels, class_names, (side, side), drawn.extent, named=named)
    return VStack([title, below, scatter], gap=0)


def _curves(
    panels: Sequence[LayerPanel],
    names: Sequence[str],
    history: Sequence[tuple[int, Sequence[float | None]]],
    labels: NDArray[Any] | None,
    height: int,
) -> list[Part]:
    """The accuracies over the layers, those of earlier steps behind, and what they are."""
    chosen = evenly_chosen(len(history), _MOST_CURVES) if history else []
    earlier = [history[place] for place in chosen]
    now = [drawn.knn_accuracy for drawn in panels]
    curves = np.array([*(values for _, values in earlier), now], dtype=np.float64)
    known = np.asarray(labels)[np.asarray(labels) >= 0]
    chance = float(np.bincount(known).max() / len(known))
    first = f", pale since {step_text(earlier[0][0])}" if earlier else ""
    words = f"k-NN accuracy by layer: dark now{first}, dashed chance"
    return [
        Text([words], INNER_WIDTH),
        LayerPlot(width=INNER_WIDTH, height=height, names=names, curves=curves, chance=chance),
    ]


def _reading(method: str, left_out: Sequence[str], *, known: bool, curves: bool) -> str:
    """How to read the page, the same at every step."""
    sentences = [
        "Each panel is a layer, from the input to the output, and each point a sample, the same ones in all panels"
        + (", colored by its true class." if known else "."),
        "Samples that the layer sees alike lie near each other; distances between groups, and their sizes, mean little."
        if method == "t-SNE"
        else "Samples are seen along the two main directions of the layer.",
    ]
    if curves:
        sentences.append(
            "Over a panel: the layer's dimension, and its k-NN accuracy, the share of samples whose nearest neighbors "
            "in the layer itself, not in the picture, are of their class."
        )
    if left_out:
        sentences.append(f"Without a panel: {', '.join(left_out)}.")
    return " ".join(sentences)
