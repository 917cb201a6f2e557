"""How the units of a network on the plane cut it up: lines of the first layer, zero sets of deeper ones."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray
from PIL import Image

from lightning_viz.render.colors import class_colors, pale
from lightning_viz.render.page import INNER_WIDTH, Caption, Picture, page, stack
from lightning_viz.render.plots import (
    POINT,
    Extent,
    canvas,
    class_count,
    class_key,
    dots,
    frame_size,
    key_entries,
    ticks,
)
from lightning_viz.render.text import step_text

LEFT, BELOW = 64, 30  # pixels for the axes' numbers
HEIGHT = 690
LINE_WIDTH = 1.8  # pixels
FAINTEST = 0.12


def clip_lines(weights: NDArray[Any], biases: NDArray[Any], extent: Extent) -> NDArray[np.float64]:
    """Where the line {x : w . x + b = 0} of each unit enters and leaves the view.

    Args:
        weights: ``[K, 2]``.
        biases: ``[K]``.
        extent: (x0, x1, y0, y1).

    Returns:
        End points ``[K, 2, 2]`` (unit, end, coordinate); NaN where the line is out of view or the unit has no weights.
    """
    weights, biases = np.asarray(weights, dtype=np.float64), np.asarray(biases, dtype=np.float64)
    low, high = np.array(extent[0::2]), np.array(extent[1::2])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        nearest = -biases[:, None] * weights / (weights**2).sum(axis=1, keepdims=True)  # to the origin
        along = np.stack([-weights[:, 1], weights[:, 0]], axis=1) / np.linalg.norm(weights, axis=1, keepdims=True)
        at_low, at_high = (low - nearest) / along, (high - nearest) / along
    # A line parallel to an axis meets that axis's two sides nowhere: it lies between them always or never.
    between = (low <= nearest) & (nearest <= high)
    parallel = along == 0
    enter = np.where(parallel, np.where(between, -np.inf, np.inf), np.minimum(at_low, at_high)).max(axis=1)
    leave = np.where(parallel, np.where(between, np.inf, -np.inf), np.maximum(at_low, at_high)).min(axis=1)
    with np.errstate(invalid="ignore"):
        ends = nearest[:, None] + np.stack([enter, leave], axis=1)[..., None] * along[:, None]
        ends[~(enter < leave)] = np.nan
    return np.asarray(ends)


def hyperplanes(
    tag: str,
    *,
    layer: str,
    step: int,
    weights: NDArray[Any],
    biases: NDArray[Any],
    importance: NDArray[Any],
    samples: NDArray[Any],
    labels: NDArray[Any] | None,
    extent: Extent,
    regions: NDArray[Any] | None,
    class_names: tuple[str, ...] | None = None,
    counts: Mapping[str, int],
    accuracy: float | None = None,
) -> Picture:
    """The lines where the first layer's units switch, over samples and decision regions.

    Args:
        tag: where the picture stands in TensorBoard.
        layer: name, for the caption.
        step: number of completed updates.
        weights: ``[K, 2]``.
        biases: ``[K]``.
        importance: how much each unit weighs in the output ``[K]``, 0 to 1: fainter lines weigh less.
        samples: ``[N, 2]``.
        labels: class indices ``[N]``, or None.
        extent: (x0, x1, y0, y1) of the view, fixed over a run.
        regions: predicted class ``[M, M]`` on a grid over the extent, rows from y0 up, columns from x0; or None.
        class_names: by class index; the indices if omitted.
        counts: of units, such as {"dead": 1, "duplicate": 2, "out of view": 3}.
        accuracy: 0 to 1, or None.
    """
    ends = clip_lines(weights, biases, extent)
    seen = np.isfinite(ends).all(axis=(1, 2))
    strength = FAINTEST + (1 - FAINTEST) * np.clip(np.nan_to_num(importance[seen]), 0, 1)

    def lines(axes: Axes) -> None:
        colors = [(0.1, 0.1, 0.1, each) for each in strength]
        axes.add_collection(LineCollection(list(ends[seen]), colors=colors, linewidths=LINE_WIDTH * POINT, zorder=4))

    details = (
        step_text(step),
        f"{len(weights)} units" + "".join(f", {count} {kind}" for kind, count in counts.items() if count),
        "" if accuracy is None else f"{accuracy:.0%} of these samples right".replace("%", " %"),
        "background: predicted class" if regions is not None else "",
        "fainter: weighs less in the output" if seen.any() else "",
    )
    reading = (
        "Each dark line is where one unit switches on; the pale ground is the class the network predicts there, "
        "the dots are samples in their true classes' colors. A dead unit is on for none of the samples, a duplicate "
        "has another's line."
    )
    notes = ("NaN in the weights",) if np.isnan(weights).any() or np.isnan(biases).any() else ()
    caption = Caption(f"Layer “{layer}”: where its units switch (w · x + b = 0)", details, reading, notes)
    return page(tag, caption, _plane(lines, samples, labels, extent, regions, class_names))


def zero_sets(
    tag: str,
    *,
    layer: str,
    step: int,
    values: NDArray[Any],
    samples: NDArray[Any],
    labels: NDArray[Any] | None,
    extent: Extent,
    regions: NDArray[Any] | None,
    class_names: tuple[str, ...] | None = None,
) -> Picture:
    """The bent lines where deeper units switch: their pre-activations' zero contours, traced on a grid.

    Args:
        tag: where the picture stands in TensorBoard.
        layer: name, for the caption.
        step: number of completed updates.
        values: pre-activations ``[K, M, M]`` on a grid over the extent, rows from y0 up, columns from x0.
        samples: ``[N, 2]``.
        labels: class indices ``[N]``, or None.
        extent: (x0, x1, y0, y1) of the view, fixed over a run.
        regions: predicted class ``[M, M]`` on the same grid, or None.
        class_names: by class index; the indices if omitted.
    """
    finite = np.isfinite(values).all(axis=(1, 2))
    crossing = finite & (values.min(axis=(1, 2)) < 0) & (values.max(axis=(1, 2)) > 0)
    x, y = np.linspace(*extent[:2], values.shape[2]), np.linspace(*extent[2:], values.shape[1])

    def contours(axes: Axes) -> None:
        for unit in values[crossing]:
            axes.contour(x, y, unit, levels=[0], colors=[(0.1, 0.1, 0.1, 0.6)], linewidths=LINE_WIDTH * POINT, zorder=4)

    count, one_sign = len(values), int((finite & ~crossing).sum())
    details = (
        step_text(step),
        f"{count} units",
        f"{one_sign} of one sign in all of the view" if one_sign else "",
        "background: predicted class" if regions is not None else "",
    )
    reading = (
        "Each dark line is where one unit's pre-activation is zero; the pale ground is the class the network predicts "
        "there, the dots are samples in their true classes' colors."
    )
    notes = () if finite.all() else (f"NaN in {count - int(finite.sum())} of {count} units",)
    caption = Caption(f"Layer “{layer}”: where its units switch (pre-activation = 0)", details, reading, notes)
    return page(tag, caption, _plane(contours, samples, labels, extent, regions, class_names))


def _plane(
    draw: Callable[[Axes], None],
    samples: NDArray[Any],
    labels: NDArray[Any] | None,
    extent: Extent,
    regions: NDArray[Any] | None,
    names: tuple[str, ...] | None,
) -> Image.Image:
    """Regions, samples and what ``draw`` adds, with equal axes and a key of the classes."""
    classes = max(class_count(labels, names), 0 if regions is None else int(regions.max()) + 1)
    width, height = frame_size(extent, INNER_WIDTH - LEFT - 8, HEIGHT - BELOW - 8)
    with canvas(LEFT + width + 8, BELOW + height + 8) as sheet:
        axes = sheet.axes(LEFT, BELOW, width, height)
        if regions is not None:
            # The grid's outermost nodes lie on the extent's edges, the pixels' middles therefore too.
            x_half = (extent[1] - extent[0]) / (2 * max(1, regions.shape[1] - 1))
            y_half = (extent[3] - extent[2]) / (2 * max(1, regions.shape[0] - 1))
            edges = (extent[0] - x_half, extent[1] + x_half, extent[2] - y_half, extent[3] + y_half)
            ground = pale(class_colors(classes))[regions.astype(int)]
            axes.imshow(ground, extent=edges, origin="lower", interpolation="nearest", aspect="auto", zorder=1)
        dots(axes, samples, labels, classes=classes, size=7, alpha=0.9, edge="white")
        draw(axes)
        axes.set_xlim(extent[0], extent[1])
        axes.set_ylim(extent[2], extent[3])
        ticks(axes, extent)
        image = sheet.image()
    entries, colors = key_entries(np.array([classes - 1]), names)
    return stack([image, class_key(entries, colors)], gap=6) if entries else image
