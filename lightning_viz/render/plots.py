"""Plots: how `layout` draws parts with axes, by matplotlib's object interface, whatever the user's settings are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lightning_viz.plain_text import plain_text
from lightning_viz.render import parts
from lightning_viz.render.colors import class_colors, colors_of, table
from lightning_viz.render.side_marks import side_marks, zero_contours
from lightning_viz.render.text import LINE, TEXT_SIZE, number, percent, shorten, step_text, text_width

_DPI = 100
_POINT = 72 / _DPI  # points in a pixel
_SIZE = TEXT_SIZE * _POINT
_OF_CONTOURS = 0.6  # of their opacity
_WORDS: dict[str, Any] = {"fontsize": _SIZE, "color": "0.35"}


def draw_plot(plot: parts.Plot) -> Image.Image:
    """A plot as an image, under matplotlib's default style.

    Args:
        plot: of any kind.
    """
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(plot.width / _DPI, plot.height / _DPI), dpi=_DPI, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        _DRAWINGS[type(plot)](figure, plot)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _axes(figure: Figure, left: int, bottom: int, width: int, height: int) -> Axes:
    """Axes at a place given in pixels."""
    whole_width, whole_height = (float(side) for side in figure.canvas.get_width_height())
    return figure.add_axes((left / whole_width, bottom / whole_height, width / whole_width, height / whole_height))


def _ticks(axes: Axes, extent: parts.PlotExtent) -> None:
    """Numbers at the ends of both axes."""
    axes.set_xticks(extent[:2], [number(value) for value in extent[:2]], **_WORDS)
    axes.set_yticks(extent[2:], [number(value) for value in extent[2:]], **_WORDS)
    # Inwards from the ends, so that numbers do not run out of the picture.
    axes.get_xticklabels()[0].set_horizontalalignment("left")
    axes.get_xticklabels()[1].set_horizontalalignment("right")
    axes.get_yticklabels()[0].set_verticalalignment("bottom")
    axes.get_yticklabels()[1].set_verticalalignment("top")


def _plane(figure: Figure, plot: parts.PlanePlot) -> None:
    axes, extent = _axes(figure, *plot.frame), plot.extent
    scale = np.array(plot.frame[2:]) / (extent[1] - extent[0], extent[3] - extent[2])  # pixels per unit
    if plot.regions is not None:
        ground = plot.regions.colors(plot.frame[2:], plot.class_count)
        axes.imshow(ground, extent=extent, interpolation="nearest", aspect="auto", zorder=1)
    dots: dict[str, Any] = {"alpha": 0.9, "zorder": 3, "linewidths": 0.5, "edgecolors": "white"}
    dots["c"] = colors_of(plot.labels, len(plot.samples), plot.class_count) / 255
    axes.scatter(plot.samples[:, 0], plot.samples[:, 1], (7 * _POINT) ** 2, **dots)
    curves, strengths = [], []
    if plot.lines is not None and plot.strengths is not None:
        curves, strengths = list(plot.lines), list(plot.strengths)
    for unit in () if plot.contours is None else plot.contours:
        found = zero_contours(unit, extent)
        curves, strengths = [*curves, *found], [*strengths, *[_OF_CONTOURS] * len(found)]
    colors = [(0.1, 0.1, 0.1, strength) for strength in strengths]
    axes.add_collection(LineCollection(curves, colors=colors, linewidths=1.8 * _POINT, zorder=4))
    for curve, color in zip(curves, colors, strict=True):
        axes.add_collection(PolyCollection(list(side_marks(curve, scale)), facecolors=color, linewidths=0, zorder=4))
    axes.set(xlim=extent[:2], ylim=extent[2:])
    _ticks(axes, extent)


def _histograms(figure: Figure, plot: parts.HistogramPlot) -> None:
    left, right, bottom, overlap = 130, 24, 64, 1.7  # pixels around the axes; how many rows high the highest curve is
    axes = _axes(figure, left, bottom, plot.width - left - right, plot.height - bottom - 8)
    count, bins = plot.shares.shape
    colors = table("viridis")[np.linspace(220, 40, count).astype(int)] / 255
    middles = np.linspace(*plot.limits, 2 * bins + 1)[1::2]
    least = 1e-4 * float(plot.shares.max()) or 1.0  # heights are logarithms, from 1/10,000 of the peak to the peak
    axes.axvline(0, color="0.7", linewidth=1.5 * _POINT, zorder=-1)
    for row, (shares, mean, color) in enumerate(zip(plot.shares, plot.means, colors, strict=True)):
        base = count - 1 - row
        top = base + overlap * np.log(np.maximum(shares, least) / least) / np.log(1e4)
        axes.fill_between(middles, base, top, step="mid", color=color, alpha=0.8, zorder=row, linewidth=0)
        axes.step(middles, top, where="mid", color="white", linewidth=2 * _POINT, zorder=row)
        axes.plot([mean] * 2, [base, base + 0.3], color="black", linewidth=4 * _POINT, zorder=count)
    axes.set_yticks(range(count), [step_text(step) for step in plot.steps[::-1]], fontsize=_SIZE)
    axes.set_xlim(*plot.limits)
    axes.set_ylim(-0.05, count - 1 + overlap * 1.05)
    inside = [value for value in axes.get_xticks() if plot.limits[0] <= value <= plot.limits[1]]
    axes.set_xticks(inside, [number(value) for value in inside], fontsize=_SIZE)
    axes.set_xlabel("activation", **_WORDS)
    axes.tick_params(colors="0.35", length=4)
    _hide(axes, "top", "right", "left")


def _climb(figure: Figure, plot: parts.ClimbPlot) -> None:
    left, right, bottom = 100, 20, 64  # pixels around the axes
    axes = _axes(figure, left, bottom, plot.width - left - right, plot.height - bottom - 12)
    for place, (values, color) in enumerate(zip(plot.curves, class_colors(len(plot.curves)), strict=True)):
        dashes = ("-", "--", ":")[place // 20 % 3]  # where colors come again
        axes.plot(values, color=color / 255, linewidth=2.5 * _POINT, linestyle=dashes)
    if plot.logarithmic:
        axes.set_yscale("log")
    else:
        ticks = list(axes.get_yticks()[1:-1])
        axes.set_yticks(ticks, [number(round(value, 10)) for value in ticks])
    axes.set_xlim(0, max(1, plot.curves.shape[1] - 1))
    axes.tick_params(colors="0.35", labelsize=_SIZE)
    axes.set_xlabel("updates", **_WORDS)
    axes.set_ylabel(plot.label, **_WORDS)
    _hide(axes, "top", "right")


_LEFT, _BOTTOM, _TOP = 96, 64, 36  # pixels around the axes of robustness
_MARKERS = "osD^vP*X<>hd"
_MARKER = 8 * _POINT
_NAME_WIDTH = 240  # pixels for names at the ends of curves


def _epsilon(figure: Figure, plot: parts.EpsilonPlot) -> None:
    beside = min(_NAME_WIDTH, max(map(text_width, plot.curves))) + 44
    height = plot.height - _BOTTOM - _TOP
    axes = _axes(figure, _LEFT, _BOTTOM, plot.width - _LEFT - beside, height)
    colors = class_colors(len(plot.curves)) / 255
    for (x, y), color, marker in zip(plot.curves.values(), colors, _MARKERS, strict=False):
        (drawn,) = axes.plot(x, y, color=color, marker=marker, markersize=_MARKER, linewidth=2.5 * _POINT)
        drawn.set(clip_on=False, zorder=3)
    axes.set_xlim(0, max(plot.trained or 0, *(float(x[-1]) for x, _ in plot.curves.values())) or 1)
    _percent_axis(axes, 100, "accuracy under attack")
    axes.set_xlabel(plot.label, **_WORDS)
    if plot.trained is not None:
        axes.axvline(plot.trained, color="0.35", linewidth=1.5 * _POINT, linestyle="--", zorder=1)
        axes.text(plot.trained, 103, f"trained at {number(plot.trained)}", **_WORDS, ha="center", va="bottom")
    _names_at_ends(axes, plot.curves, colors, height)


def _sphere(figure: Figure, plot: parts.SpherePlot) -> None:
    axes = _axes(figure, _LEFT, 40, plot.width - _LEFT - 20, plot.height - 40 - 12)
    count = len(plot.shares)
    (line,) = axes.plot(np.arange(1, count + 1), 100 * plot.shares, "o", color="#0072B2", markersize=_MARKER)
    line.set(clip_on=False, zorder=3, alpha=0.7, markeredgewidth=0)
    axes.set_xlim(0, count + 1)
    _percent_axis(axes, min(100, max(5, 115 * plot.shares.max(initial=0))), "directions that change the class")
    axes.set_xticks([])
    axes.set_xlabel("samples, sorted: one dot each", **_WORDS, labelpad=10)
    _level(axes, 100 * plot.few, f"{number(100 * plot.few)} %", "0.35", "--", right=True)
    if np.isfinite(plot.mean):
        _level(axes, 100 * plot.mean, f"mean {percent(plot.mean, decimals=1)} %", "#D55E00", "-", right=False)


def _bias(figure: Figure, plot: parts.BiasPlot) -> None:
    left, right, top = 140, 30, 8  # pixels around the axes
    axes = _axes(figure, left, plot.bottom, plot.width - left - right, plot.height - plot.bottom - top)
    rows = np.arange(plot.values.shape[1])[::-1]
    count = len(plot.models)
    spread = np.linspace(0.26, -0.26, count) if count > 1 else np.zeros(1)  # models lie one below the other in a row
    axes.hlines(rows[:-2] - 0.5, -0.04, 1.04, color="0.88", linewidth=1)
    axes.axhspan(-0.5, 0.5, color="0.94", zorder=0)
    axes.axvline(0.5, color="0.88", linewidth=1, zorder=1)
    for place, (model, color) in enumerate(zip(plot.models, class_colors(count) / 255, strict=True)):
        values = plot.values[place]
        label = shorten(model, 260, suffix="  –" if np.isnan(values[-1]) else f"  {number(values[-1])}")
        style = {"color": color, "markersize": 14 * _POINT, "clip_on": False, "zorder": 3}
        axes.plot(values, rows + spread[place], "oDs^vPX*"[place % 8], label=_literal(label), **style)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xticks([0, 0.5, 1], ["0 texture", "0.5", "shape 1"])
    axes.set_yticks(rows, [_literal(shorten(name, left - 12)) for name in plot.names])
    axes.tick_params(colors="0.2", labelsize=_SIZE, length=0)
    axes.set_xlabel("shape / (shape + texture)", **_WORDS)
    _hide(axes, "top", "right", "left")
    key = {"frameon": False, "borderpad": 0, "borderaxespad": 0, "handletextpad": 0.2, "fontsize": _SIZE}
    figure.legend(loc="lower left", ncols=2, **key)


def _hide(axes: Axes, *sides: str) -> None:
    for side in sides:
        axes.spines[side].set_visible(False)


def _percent_axis(axes: Axes, highest: float, label: str) -> None:
    """From 0 to the highest, with few numbers; no frame at the top and the right."""
    axes.set_ylim(0, highest)
    ticks = [tick for tick in axes.get_yticks() if 0 <= tick <= highest + 1e-9]
    axes.set_yticks(ticks, [f"{number(round(tick, 6))} %" for tick in ticks])
    axes.tick_params(colors="0.35", labelsize=_SIZE)
    axes.set_ylabel(label, **_WORDS)
    axes.grid(axis="y", color="0.9", linewidth=_POINT)
    axes.set_axisbelow(True)
    _hide(axes, "top", "right")


def _literal(name: str) -> str:
    """A name as matplotlib writes it, which takes what stands between dollar signs for a formula."""
    return plain_text(name).replace("$", r"\$")


def _level(axes: Axes, at: float, words: str, color: str, dashes: str, *, right: bool) -> None:
    """A horizontal line with words over one of its ends."""
    axes.axhline(at, color=color, linewidth=2 * _POINT, linestyle=dashes, zorder=2)
    x = axes.get_xlim()[1] * (0.99 if right else 0.01)
    style = {**_WORDS, "color": color, "ha": "right" if right else "left", "va": "bottom"}
    axes.annotate(words, (x, at), (0, 3), textcoords="offset pixels", zorder=4, **style)


def _names_at_ends(
    axes: Axes, lines: Mapping[str, NDArray[np.float64]], colors: NDArray[np.float64], height: int
) -> None:
    """Each line's name beside its end, a line of text apart from the next; where it had to move, a thin line leads."""
    ends = {}
    for name, (x, y) in lines.items():
        known = np.flatnonzero(np.isfinite(y))
        ends[name] = (float(x[known[-1]]), float(y[known[-1]])) if len(known) else (float(x[-1]), 0.0)
    # Of lines that end at one point the higher one is named higher.
    order = sorted(ends, key=lambda name: (ends[name][1], float(np.nanmean([0, *lines[name][1]]))))
    places = space_out([ends[name][1] for name in order], 100 * LINE / height, 100)
    edge = axes.get_xlim()[1]
    for name, place in zip(order, places, strict=True):
        color = colors[list(lines).index(name)]
        shift = (edge * (1 + 30 / max(axes.bbox.width, 1)), place)
        lead = {"arrowstyle": "-", "color": color, "linewidth": _POINT, "shrinkA": 2, "shrinkB": 5}
        style = {**_WORDS, "color": color, "va": "center", "annotation_clip": False}
        axes.annotate(_literal(shorten(name, _NAME_WIDTH)), ends[name], shift, arrowprops=lead, **style)


def space_out(values: Sequence[float], apart: float, highest: float) -> list[float]:
    """Ascending values moved so that neighbors are ``apart``, between 0 and the highest where there is room.

    >>> space_out([0, 0, 1, 90], apart=5, highest=100)
    [0, 5, 10, 90]
    """
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + apart) if places else value)
    ceiling = highest
    for place in reversed(range(len(places))):
        places[place] = min(places[place], ceiling)
        ceiling = places[place] - apart
    return places


_DRAWINGS: dict[type[parts.Plot], Callable[[Figure, Any], None]] = {
    parts.PlanePlot: _plane,
    parts.HistogramPlot: _histograms,
    parts.ClimbPlot: _climb,
    parts.EpsilonPlot: _epsilon,
    parts.SpherePlot: _sphere,
    parts.BiasPlot: _bias,
}
