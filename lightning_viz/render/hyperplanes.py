"""How the units of a network on the plane cut it up: lines of the first layer, zero sets of deeper ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.render.colors import MOST_NAMES, class_count, key_entries
from lightning_viz.render.decision_regions import DecisionRegions, class_shades
from lightning_viz.render.layout import BODY_HEIGHT, INNER_WIDTH, frame_size, key_height
from lightning_viz.render.page import Page, PageInfo, compose
from lightning_viz.render.parts import ClassKey, HStack, Part, PlanePlot, PlotExtent, Text, Tile, VStack
from lightning_viz.render.text import DARK, GRAY, LINE, percent, text_width

__all__ = ["clip_lines", "hyperplanes", "zero_sets"]

_LEFT, _BELOW = 64, 30  # pixels for the axes' numbers
_GAP = 6
_FAINTEST = 0.12  # of a line's opacity
_BAR, _MOST_STRIPES = 180, 5  # pixels of the key to probabilities, and classes in it
_MARKS = "▲ the side on which a unit is on"
_READING = (
    "The ground's color is the class that the network predicts there, the paler, the less probable; the dots are "
    "samples in their true classes' colors."
)


def clip_lines(weights: NDArray[Any], biases: NDArray[Any], extent: PlotExtent) -> NDArray[np.float64]:
    """Where the line {x : w . x + b = 0} of each unit enters and leaves the view.

    Args:
        weights: ``[K, 2]``.
        biases: ``[K]``.
        extent: (x0, x1, y0, y1).

    Returns:
        End points ``[K, 2, 2]`` (unit, end, coordinate), the side where w . x + b > 0 on the left of the way from the
        first to the second; NaN where the line is out of view or the unit has no weights.
    """
    weights, biases = np.asarray(weights, dtype=np.float64), np.asarray(biases, dtype=np.float64)
    low, high = np.array(extent[0::2]), np.array(extent[1::2])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        nearest = -biases[:, None] * weights / (weights**2).sum(axis=1, keepdims=True)  # to the origin
        along = np.stack([weights[:, 1], -weights[:, 0]], axis=1) / np.linalg.norm(weights, axis=1, keepdims=True)
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
    regions: DecisionRegions | None,
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
        regions: what the network predicts over the extent, or None.
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
        "" if accuracy is None else f"{percent(accuracy)} % of these samples right",
        _unnamed(labels, class_names, regions),
    )
    reading = (
        "Each dark line is where one unit switches: it is on (w · x + b > 0) on the side of its small triangles, and "
        f"off on the other. The fainter a line, the less its unit weighs in the output. {_READING} A dead unit is on "
        "for none of the samples, a duplicate has another's line."
    )
    warnings = ("NaN in the weights",) if np.isnan(weights).any() or np.isnan(biases).any() else ()
    marks = f"{_MARKS} · fainter: weighs less in the output"
    body = _plane(samples, labels, extent, regions, class_names, marks, lines=ends[seen], strengths=strength)
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
    regions: DecisionRegions | None,
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
        regions: what the network predicts over the extent, or None.
        class_names: by class index; the indices if omitted.
        info: see `PageInfo`.
    """
    finite = np.isfinite(values).all(axis=(1, 2))
    crossing = finite & (values.min(axis=(1, 2)) < 0) & (values.max(axis=(1, 2)) > 0)
    count, one_sign = len(values), int((finite & ~crossing).sum())
    facts = (
        f"{count} units",
        f"{one_sign} of one sign in all of the view" if one_sign else "",
        _unnamed(labels, class_names, regions),
    )
    reading = (
        "Each dark line is where one unit's pre-activation is zero: it is positive, and the unit on, on the side of "
        f"the small triangles. {_READING}"
    )
    warnings = () if finite.all() else (f"NaN in {count - int(finite.sum())} of {count} units",)
    body = _plane(samples, labels, extent, regions, class_names, _MARKS, contours=values[crossing])
    title = f"Layer “{layer}”: where its units switch (pre-activation = 0)"
    return compose(tag, title, body, facts, reading, warnings=warnings, **info)


def _class_count(labels: NDArray[Any] | None, names: tuple[str, ...] | None, regions: DecisionRegions | None) -> int:
    return max(class_count(labels, names), 0 if regions is None else regions.class_count)


def _unnamed(labels: NDArray[Any] | None, names: tuple[str, ...] | None, regions: DecisionRegions | None) -> str:
    """For the caption: that classes are too many to have a color each."""
    count = _class_count(labels, names, regions)
    return f"{count} classes: no names, colors repeat" if count > MOST_NAMES else ""


def _plane(
    samples: NDArray[Any],
    labels: NDArray[Any] | None,
    extent: PlotExtent,
    regions: DecisionRegions | None,
    names: tuple[str, ...] | None,
    marks: str,
    **lines: NDArray[Any],
) -> Part:
    """Regions, samples and lines, with equal axes, and below them what dots, ground and marks mean."""
    classes = _class_count(labels, names, regions)
    entries, colors = key_entries(np.array([classes - 1]), names)
    below: list[Part] = [ClassKey(entries, colors)] if entries else []
    below += [] if regions is None else [_strength_key(regions, classes)]
    below.append(Text([marks], INNER_WIDTH, color=GRAY))
    room = BODY_HEIGHT - key_height(entries) - (len(below) + 1) * (LINE + _GAP)
    width, height = frame_size(extent, INNER_WIDTH - _LEFT - 8, room - _BELOW - 8)
    plot = PlanePlot(
        width=_LEFT + width + 8,
        height=_BELOW + height + 8,
        samples=samples,
        labels=labels,
        class_count=classes,
        regions=regions,
        extent=extent,
        frame=(_LEFT, _BELOW, width, height),
        **lines,
    )
    return VStack([plot, *below], gap=_GAP)


def _strength_key(regions: DecisionRegions, classes: int) -> Part:
    """What the strength of the ground means: a bar in some classes' colors with numbers at its ends."""
    shades = class_shades(np.arange(min(classes, _MOST_STRIPES)), classes)
    bar = Tile((_BAR, LINE - 4), shades[:, np.linspace(0, shades.shape[1] - 1, _BAR).round().astype(int)])
    chance, label = f"{percent(regions.chance)} %", "ground: probability of its class"
    texts = [
        Text([text], text_width(text), color=color) for text, color in ((label, GRAY), (chance, DARK), ("100 %", DARK))
    ]
    return HStack([texts[0], texts[1], bar, texts[2]], gap=8)
