"""How the units of a network on the plane cut it up: lines of the first layer, zero sets of deeper ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.render.colors import class_count, key_entries
from lightning_viz.render.layout import INNER_WIDTH, frame_size
from lightning_viz.render.page import Page, PageInfo, compose
from lightning_viz.render.parts import ClassKey, Part, PlanePlot, PlotExtent, VStack

__all__ = ["clip_lines", "hyperplanes", "zero_sets"]

_LEFT, _BELOW = 64, 30  # pixels for the axes' numbers
_HEIGHT = 690
_FAINTEST = 0.12  # of a line's opacity


def clip_lines(weights: NDArray[Any], biases: NDArray[Any], extent: PlotExtent) -> NDArray[np.float64]:
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
    weights: NDArray[Any],
    biases: NDArray[Any],
    importance: NDArray[Any],
    samples: NDArray[Any],
    labels: NDArray[Any] | None,
    extent: PlotExtent,
    regions: NDArray[Any] | None,
    class_names: tuple[str, ...] | None = None,
    counts: Mapping[str, int],
    accuracy: float | None = None,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of the lines where the first layer's units switch, over samples and decision regions.

    Args:
        tag: of the page.
        layer: name, for the caption.
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
        info: see `PageInfo`.
    """
    ends = clip_lines(weights, biases, extent)
    seen = np.isfinite(ends).all(axis=(1, 2))
    strength = _FAINTEST + (1 - _FAINTEST) * np.clip(np.nan_to_num(importance[seen]), 0, 1)
    facts = (
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
    warnings = ("NaN in the weights",) if np.isnan(weights).any() or np.isnan(biases).any() else ()
    body = _plane(samples, labels, extent, regions, class_names, lines=ends[seen], strengths=strength)
    title = f"Layer “{layer}”: where its units switch (w · x + b = 0)"
    return compose(tag, title, body, facts, reading, warnings=warnings, **info)


def zero_sets(
    tag: str,
    *,
    layer: str,
    values: NDArray[Any],
    samples: NDArray[Any],
    labels: NDArray[Any] | None,
    extent: PlotExtent,
    regions: NDArray[Any] | None,
    class_names: tuple[str, ...] | None = None,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of the bent lines where deeper units switch: their pre-activations' zero contours, traced on a grid.

    Args:
        tag: of the page.
        layer: name, for the caption.
        values: pre-activations ``[K, M, M]`` on a grid over the extent, rows from y0 up, columns from x0.
        samples: ``[N, 2]``.
        labels: class indices ``[N]``, or None.
        extent: (x0, x1, y0, y1) of the view, fixed over a run.
        regions: predicted class ``[M, M]`` on the same grid, or None.
        class_names: by class index; the indices if omitted.
        info: see `PageInfo`.
    """
    finite = np.isfinite(values).all(axis=(1, 2))
    crossing = finite & (values.min(axis=(1, 2)) < 0) & (values.max(axis=(1, 2)) > 0)
    count, one_sign = len(values), int((finite & ~crossing).sum())
    facts = (
        f"{count} units",
        f"{one_sign} of one sign in all of the view" if one_sign else "",
        "background: predicted class" if regions is not None else "",
    )
    reading = (
        "Each dark line is where one unit's pre-activation is zero; the pale ground is the class the network predicts "
        "there, the dots are samples in their true classes' colors."
    )
    warnings = () if finite.all() else (f"NaN in {count - int(finite.sum())} of {count} units",)
    body = _plane(samples, labels, extent, regions, class_names, contours=values[crossing])
    title = f"Layer “{layer}”: where its units switch (pre-activation = 0)"
    return compose(tag, title, body, facts, reading, warnings=warnings, **info)


def _plane(
    samples: NDArray[Any],
    labels: NDArray[Any] | None,
    extent: PlotExtent,
    regions: NDArray[Any] | None,
    names: tuple[str, ...] | None,
    **marks: NDArray[Any],
) -> Part:
    """Regions, samples and marks, with equal axes and a key of the classes."""
    classes = max(class_count(labels, names), 0 if regions is None else int(regions.max()) + 1)
    width, height = frame_size(extent, INNER_WIDTH - _LEFT - 8, _HEIGHT - _BELOW - 8)
    plot = PlanePlot(
        width=_LEFT + width + 8,
        height=_BELOW + height + 8,
        samples=samples,
        labels=labels,
        class_count=classes,
        regions=regions,
        extent=extent,
        frame=(_LEFT, _BELOW, width, height),
        **marks,
    )
    entries, colors = key_entries(np.array([classes - 1]), names)
    return VStack([plot, ClassKey(entries, colors)], gap=6) if entries else plot
