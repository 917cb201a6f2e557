"""Weights: filters as images, the table of a deeper convolution, sizes of updates, and the loss around the weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.animation import thin
from lightning_viz.render.colors import apply, table
from lightning_viz.render.layout import BODY_HEIGHT, COLUMNS, GUTTER, INNER_WIDTH
from lightning_viz.render.page import Page, PageInfo, check_shape, compose
from lightning_viz.render.parts import At, Cell, ColorBar, CurveTile, Label, Part, Sheet, Tile, TileSize, VStack
from lightning_viz.render.text import DARK, LINE, WHITE, first_of, fixed_point, number, shorten, times
from lightning_viz.render.tiles import count_flaws, find_flaw

__all__ = ["filter_table", "filter_to_pixels", "filters", "landscape_table", "update_ratios"]

_MOST_FILTERS = 64
_MOST_CHANNELS = 15
_MOST_ROWS = 20
_CELL_GAP = 2  # between the input channels of one filter
_GROUP_GAP = 16  # between filters of several input channels
_LARGEST_CELL = 150
_CURVE = (2, 3)  # height and width of a curve


def filter_to_pixels(weights: NDArray[Any], limit: float | NDArray[Any]) -> NDArray[np.uint8]:
    """The display's scale: 0.5 + w / (2 limit) in 0..255, zero at mid gray; beyond the limit it saturates.

    Args:
        weights: any shape.
        limit: the absolute weight at the scale's ends; an array broadcasts (one per filter).
    """
    ends = np.asarray(limit, dtype=np.float64)
    scaled = 0.5 + np.nan_to_num(np.asarray(weights, dtype=np.float64)) / (2 * np.where(ends > 0, ends, 1.0))
    return np.asarray(np.rint(np.clip(scaled, 0, 1) * 255), dtype=np.uint8)


@dataclass(frozen=True)
class _Layout:
    """Where cells stand: ``groups`` side by side, each of ``channels`` cells of ``width`` by ``height`` pixels."""

    shown: int
    groups: int
    channels: int
    width: int
    height: int
    left: int = 0
    top: int = 0

    @property
    def gap(self) -> int:
        """Pixels between filters side by side."""
        return GUTTER if self.channels == 1 else _GROUP_GAP

    def corner(self, filter_index: int, channel: int = 0) -> tuple[int, int]:
        """Left and top of a cell in the body."""
        row, column = divmod(filter_index, self.groups)
        group_width = self.channels * (self.width + _CELL_GAP) - _CELL_GAP
        left = self.left + column * (group_width + self.gap) + channel * (self.width + _CELL_GAP)
        return left, self.top + row * (self.height + GUTTER)

    def size(self) -> tuple[int, int]:
        """Width and height of the body."""
        rightmost, _ = self.corner(min(self.shown, self.groups) - 1, self.channels - 1)
        _, lowest = self.corner(self.shown - 1)
        return rightmost + self.width, lowest + self.height


def _layout(count: int, channels: int, height: int, width: int) -> _Layout:
    """Cells as large as all of ``count`` filters allow; fewer filters where they would be too small to see."""
    best: _Layout | None = None
    for groups in range(1, min(COLUMNS, count) + 1):
        gap = _Layout(count, groups, channels, 1, 1).gap
        group_width = (INNER_WIDTH - gap * (groups - 1)) // groups
        room = (group_width - _CELL_GAP * (channels - 1)) // channels
        size = _cell_size(height, width, min(room, _LARGEST_CELL))
        trial = _Layout(count, groups, channels, *size)
        _, pitch = trial.corner(groups)
        rows = max(1, min(-(-count // groups), BODY_HEIGHT // pitch))
        trial = _Layout(min(count, rows * groups), groups, channels, *size)
        if best is None or (trial.shown, trial.width) >= (best.shown, best.width):
            best = trial
    assert best is not None
    return best


def _cell_size(height: int, width: int, room: int) -> TileSize:
    """Width and height of a kernel enlarged by a whole number, so that every weight is a square; shrunk if it must."""
    longest = max(height, width)
    if longest <= room:
        factor = room // longest
        return width * factor, height * factor
    return max(1, width * room // longest), max(1, height * room // longest)


def filters(
    tag: str,
    weights: NDArray[Any],
    *,
    layer: str,
    limit: float | None = None,
    limit_note: str = "",
    per_filter: bool = False,
    as_rgb: bool = True,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of filters, each kernel an image: RGB for three input channels, else a diverging image for each channel.

    A kernel with depth is as many images side by side as it has slices; one of a series is a curve.

    Args:
        tag: of the page.
        weights: ``[K, C, h, w]``, of volumes or videos ``[K, C, d, h, w]``, of series ``[K, C, l]``; at most 64 filters
            of 15 images or curves are shown.
        layer: name, for the caption.
        limit: the absolute weight at the scale's ends; this picture's largest if omitted.
        limit_note: where the limit comes from, such as "1st to 99th percentile at step 0".
        per_filter: scale each filter by its own largest weight instead.
        as_rgb: show three input channels as one RGB image.
        info: see `PageInfo`.
    """
    sides = {3: ("l",), 5: ("d", "h", "w")}.get(weights.ndim, ("h", "w"))
    check_shape("weights", weights, "filters", "channels", *sides, filled=True, remedy="reshape them to kernels")
    count, channels, *kernel = weights.shape
    depth, curves = kernel[0] if len(kernel) == 3 else 1, len(kernel) == 1
    rgb = as_rgb and channels == 3 and not curves
    most = max(1, _MOST_CHANNELS // depth)  # input channels
    planes = _planes(weights if rgb else weights[:, :most], rgb)[:, :_MOST_CHANNELS]
    grid = _layout(min(count, _MOST_FILTERS), planes.shape[1], *(_CURVE if curves else kernel[-2:]))
    shown, planes = weights[: grid.shown, : channels if rgb else most], planes[: grid.shown]
    limits = _limits(weights, grid.shown, limit, per_filter)
    cells = Sheet(*grid.size(), _cells(grid, planes, limits, rgb, layer))
    ends = number(float(limits.max()))
    body = cells if rgb or curves else VStack([cells, _bar(ends, per_filter)], gap=10)
    facts = [
        _how_many(grid.shown, count, "filters"),
        "" if rgb else _how_many(shown.shape[1], channels, "input channels"),
        f"{_how_many(min(depth, _MOST_CHANNELS), depth, 'slices')} each, side by side" if len(kernel) == 3 else "",
        _scale(limits, per_filter, limit_note),
        "" if not (rgb or curves) or per_filter else f"zero {'at the thin line' if curves else 'gray'}",
        "" if per_filter else _clipped(shown, limits),
    ]
    warnings = count_flaws([find_flaw(filter_weights, single=False) for filter_weights in shown], "filters")
    size = times([*kernel[:-2], *kernel[:-3:-1]])
    unit = {1: " steps", 3: " (slices × width × height)"}.get(len(kernel), "")
    title = f"Filters of {layer}{' as RGB' if rgb else ''}, {size}{unit}"
    return compose(tag, title, body, facts, _reading(rgb, curves, len(kernel) == 3), warnings=warnings, **info)


def _reading(rgb: bool, curves: bool, deep: bool) -> str:
    if curves:
        return (
            "Each curve is one filter's weights towards one input channel, step by step from left to right: above the "
            "thin line positive, below it negative; the input channels of one filter stand side by side."
        )
    slices = " Side by side stand the slices of one filter along depth, or the frames of a video, the first at the left"
    if rgb:
        reading = "Each tile is one filter's weights as a color image: mid gray is zero."
        return f"{reading}{slices}." if deep else reading
    reading = "Each tile is one filter's weights towards one input channel: red is positive, blue negative, gray zero;"
    if deep:
        return f"{reading[:-1]}.{slices}, then those towards the next input channel."
    return f"{reading} the input channels of one filter stand side by side."


def _planes(weights: NDArray[Any], rgb: bool) -> NDArray[Any]:
    """In a filter's cells: ``[K, cells, h, w]``, RGB ``[K, cells, 3, h, w]``, of curves ``[K, C, l]``."""
    if rgb:
        return weights.transpose(0, 2, 1, 3, 4) if weights.ndim == 5 else weights[:, None]
    return weights.reshape(len(weights), -1, *weights.shape[3:]) if weights.ndim == 5 else weights


def filter_table(
    tag: str,
    weights: NDArray[Any],
    *,
    layer: str,
    limit: float | None = None,
    limit_note: str = "",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of kernels of a deeper convolution: filters as rows, input channels as columns.

    Args:
        tag: of the page.
        weights: ``[n, m, h, w]``, or with slices ``[n, m, d, h, w]``, side by side, or ``[n, m, l]``, as one row; the
            first 15 channels of the first 20 filters are shown.
        layer: name, for the caption.
        limit: the absolute weight at the scale's ends; this picture's largest if omitted.
        limit_note: where the limit comes from, such as "1st to 99th percentile at step 0".
        info: see `PageInfo`.
    """
    if weights.ndim == 5:
        weights = weights.swapaxes(2, 3).reshape(*weights.shape[:2], weights.shape[3], -1)
    weights = weights[:, :, None] if weights.ndim == 3 else weights
    check_shape("weights", weights, "filters", "channels", "h", "w", filled=True, remedy="reshape them to kernels")
    shown = weights[:_MOST_ROWS, :_MOST_CHANNELS]
    rows, columns, height, width = shown.shape
    left, top = 58, 2 * LINE
    room = min((INNER_WIDTH - left) // columns - _CELL_GAP, (BODY_HEIGHT - top - 40) // rows - GUTTER, 96)
    grid = _Layout(rows, 1, columns, *_cell_size(height, width, room), left, top)
    limits = _limits(weights, rows, limit, per_filter=False)
    cells = Sheet(*grid.size(), [*_cells(grid, shown, limits, False, layer), *_axes(grid)])
    facts = (_scale(limits, False, limit_note), _clipped(shown, limits))
    of = f"{_first(columns, weights.shape[1], 'channel')} of {_first(rows, len(weights), 'filter')}"
    warnings = count_flaws([find_flaw(kernel, single=False) for kernel in shown], "filters")
    reading = "Rows are filters, columns their input channels; red weights are positive, blue negative, gray zero."
    body = VStack([cells, _bar(number(float(limits.max())), False)], gap=10)
    return compose(tag, f"Weights of {layer}: {of}", body, facts, reading, warnings=warnings, **info)


def _limits(weights: NDArray[Any], shown: int, limit: float | None, per_filter: bool) -> NDArray[np.float64]:
    """The scale's end for each shown filter ``[shown, 1, ...]``."""
    finite = np.abs(np.where(np.isfinite(weights), weights, 0)).astype(np.float64)
    if per_filter:
        return np.asarray(finite[:shown].max(axis=tuple(range(1, weights.ndim)), keepdims=True))
    return np.full((shown, *[1] * (weights.ndim - 1)), finite.max() if limit is None else limit)


def _cells(grid: _Layout, planes: NDArray[Any], limits: NDArray[np.float64], rgb: bool, layer: str) -> list[At]:
    """A tile for each of a filter's planes, see `_planes`."""
    size, cells = (grid.width, grid.height), []
    pixels = filter_to_pixels(planes, limits.reshape(-1, *[1] * (planes.ndim - 1)))
    for index, of_filter in enumerate(planes):
        flaw, limit = find_flaw(of_filter, single=False), float(limits[index].max())
        for cell, kernel in enumerate(of_filter):
            tile: Part
            if kernel.ndim == 1 and not flaw:
                tile = CurveTile(kernel.astype(np.float64), *size, limits=(-limit, limit))
            else:
                shades = pixels[index, cell]
                image = shades.transpose(1, 2, 0) if rgb else table("diverging")[shades]
                tile = Tile(size, image, flaw, None, layer, index, value=limit, weights=kernel, average=True)
            cells.append(At(*grid.corner(index, cell), tile))
    return cells


def _axes(grid: _Layout) -> list[Label]:
    """Numbers of filters at the left and of input channels on top, as many as there is room for."""
    labels = [Label(grid.left, 0, "input channel →"), Label(0, LINE, "filter")]
    every = max(1, -(-26 // (grid.width + _CELL_GAP)))
    for channel in range(0, grid.channels, every):
        left, _ = grid.corner(0, channel)
        labels.append(Label((2 * left + grid.width) // 2, LINE, str(channel), anchor="ma"))
    every = max(1, -(-22 // (grid.height + GUTTER)))
    for row in range(0, grid.shown, every):
        _, top = grid.corner(row)
        labels.append(Label(grid.left - 8, (2 * top + grid.height) // 2, str(row), anchor="rm"))
    return labels


def _bar(ends: str, per_filter: bool) -> ColorBar:
    if per_filter:
        return ColorBar("diverging", "−max", "max", middle="0", label="of each filter")
    return ColorBar("diverging", f"−{ends}", ends, middle="0", label="weight")


def _scale(limits: NDArray[np.float64], per_filter: bool, note: str) -> str:
    low, high = number(float(limits.min())), number(float(limits.max()))
    if per_filter:
        return f"each filter divided by its own maximum ({low} to {high})"
    return f"display scale ±{high}" + f" ({note})" * bool(note)


def _clipped(weights: NDArray[Any], limits: NDArray[np.float64]) -> str:
    clipped = int((np.abs(weights) > limits * (1 + 1e-6)).sum())
    return f"{clipped:,} of {weights.size:,} weights beyond the scale"


def _how_many(shown: int, count: int, things: str) -> str:
    return f"{count:,} {things if count != 1 else things[:-1]}" if shown == count else f"{shown} of {count:,} {things}"


def _first(shown: int, count: int, thing: str) -> str:
    return f"all {count} {thing}s" if shown == count else f"the first {shown} of {count:,} {thing}s"


_NAMES, _NAMES_ROW = 220, 30  # pixels: for the layers' names, height of a row
_MOST_LAYERS, _MOST_STEPS = 24, 7
_HEALTHY, _REACH = -3.0, 3.0  # log10 of the usual ratio, and how far from it colors go; within a third it is usual


def update_ratios(
    tag: str,
    layers: Sequence[str],
    steps: Sequence[int],
    ratios: NDArray[Any] | Sequence[Sequence[float]],
    **info: Unpack[PageInfo],
) -> Page:
    """Page of update ratios: log10 of the relative size of single updates, a row for each layer and a column a step.

    Args:
        tag: of the page.
        layers: L names, from the input on; the first 24 are shown.
        steps: S numbers of completed updates, rising; at most 7 are shown, evenly in log steps, the last among them.
        ratios: norm of the update by that of the weights, ``[S, L]``; NaN if it is not known.
        info: see `PageInfo`.
    """
    values = np.asarray(ratios, dtype=np.float64)
    check_shape("ratios", values, len(steps), len(layers), filled=True, remedy="steps by layers")
    names, columns = list(layers[:_MOST_LAYERS]), thin(list(steps), most=_MOST_STEPS)
    with np.errstate(divide="ignore"):
        logarithms = np.log10(values[columns][:, : len(names)]).T  # [L, S]; -inf if nothing moved
    colors = apply("beyond usual", np.nan_to_num(logarithms, nan=_HEALTHY) - _HEALTHY, -_REACH, _REACH)
    width = (INNER_WIDTH - _NAMES) // len(columns)
    parts: list[Part] = [
        Label(_NAMES + width * (place + 0.5), LINE / 2, f"{steps[column]:,}", anchor="mm")
        for place, column in enumerate(columns)
    ]
    parts.append(Label(0, LINE / 2, "after step", anchor="lm"))
    for row, name in enumerate(names):
        top = LINE + row * _NAMES_ROW
        parts.append(Label(0, top + _NAMES_ROW / 2, shorten(name, _NAMES - 12), DARK, "lm"))
        for column, value in enumerate(logarithms[row].tolist()):
            known = not np.isnan(value)
            color = tuple(colors[row, column].tolist()) if known else WHITE
            ink = WHITE if known and sum(color) < 3 * 120 else DARK
            text = "–" if not known else fixed_point(value, 1) if np.isfinite(value) else "0"
            place = (_NAMES + width * column, top, width - 2, _NAMES_ROW - 2)
            parts.append(Cell(*place, color, [text], ink, value if known else None, row, column))
    table = Sheet(INNER_WIDTH, LINE + len(names) * _NAMES_ROW, parts)
    bar = ColorBar("beyond usual", "−6", "0", "usual", label="log10 of update / weights; usual: −4 to −2")
    latest = np.log10(values[-1][np.isfinite(values[-1]) & (values[-1] > 0)])
    highest = ""
    if len(columns) > 1 and np.isfinite(logarithms).any():
        finite = np.where(np.isfinite(logarithms), logarithms, -np.inf)
        which, look = divmod(int(finite.argmax()), len(columns))
        highest = f"highest {fixed_point(finite.max(), 1)}: {names[which]} after step {steps[columns[look]]:,}"
    facts = (
        f"now {fixed_point(latest.min(), 1)} to {fixed_point(latest.max(), 1)}, usual: −4 to −2" if latest.size else "",
        highest,
        f"{len(columns)} of {len(steps)} looks" if len(columns) < len(steps) else "",
        first_of(len(names), len(layers), "layers"),
    )
    reading = (
        "Each number is the power of ten of the norm of one update divided by the norm of the weights that it changed. "
        "In a healthy run they are mostly between −4 and −2, which is gray; red is above, where training may diverge, "
        "blue below, where a layer hardly learns."
    )
    return compose(tag, "Size of single updates, log10", VStack([table, bar], gap=8), facts, reading, **info)


_LABEL, _ROW = 70, 46  # pixels: for the second direction's shares, height of a row


def landscape_table(tag: str, losses: NDArray[Any], *, radius: float, **info: Unpack[PageInfo]) -> Page:
    """Page of a loss landscape: the loss at each point of a plane through the trained weights, which are in the middle.

    Args:
        tag: of the page.
        losses: ``[P, P]``, rows along the second direction; P is odd.
        radius: largest share of the directions.
        info: see `PageInfo`.
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) % 2 == 0:
        raise InvalidArgumentError(f"losses are {list(values.shape)}: give [P, P] with an odd P")
    count, middle = len(values), len(values) // 2
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    colors = apply("magma", np.nan_to_num(values, nan=high, posinf=high), low, max(high, low + 1e-12))
    shares, width = np.linspace(-radius, radius, count), (INNER_WIDTH - _LABEL) // count
    parts: list[Part] = []
    for place, share in enumerate(shares.tolist()):
        parts.append(Label(_LABEL + width * (place + 0.5), LINE / 2, number(share), anchor="mm"))
        parts.append(Label(_LABEL - 10, LINE + _ROW * (place + 0.5), number(share), anchor="rm"))
    for (row, column), value in np.ndenumerate(values):
        left, top, inset = _LABEL + width * column, LINE + _ROW * row, 0
        if row == column == middle:
            parts.append(Cell(left, top, width - 2, _ROW - 2, WHITE))
            inset = 4
        color = tuple(colors[row, column].tolist())
        ink = DARK if sum(color) > 3 * 140 else WHITE
        text = fixed_point(value) if value < 100 else "> 99" if np.isfinite(value) else "NaN"
        size = width - 2 - 2 * inset, _ROW - 2 - 2 * inset
        parts.append(Cell(left + inset, top + inset, *size, color, [text], ink, float(value), row, column))
    table = Sheet(INNER_WIDTH, LINE + _ROW * count, parts)
    bar = ColorBar("magma", number(low), number(high), label="cross-entropy")
    lost = values.size - finite.size
    reading = (
        "The trained weights are in the middle, framed. Around them the loss where weights move in two random "
        "directions, as far as their own norm at 1. A wide flat valley is usual of nets that generalize; a lower loss "
        "elsewhere means that training has not ended."
    )
    facts = (f"at the trained weights {number(float(values[middle, middle]))}",)
    warnings = (f"no finite loss at {lost} of {values.size} points",) if lost else ()
    body = VStack([table, bar], gap=8)
    return compose(tag, "Loss around the trained weights", body, facts, reading, warnings=warnings, **info)
