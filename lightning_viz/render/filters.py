"""Weights as images: filters as RGB or per input channel, and the table of a deeper convolution."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.render.colors import table
from lightning_viz.render.grid import BODY_HEIGHT, COLUMNS, GUTTER, INNER_WIDTH
from lightning_viz.render.page import Page, PageInfo, check_shape, compose
from lightning_viz.render.parts import At, ColorBar, Label, Sheet, Tile, TileSize, VStack
from lightning_viz.render.text import LINE, number
from lightning_viz.render.tiles import count_flaws, find_flaw

__all__ = ["filter_table", "filter_to_pixels", "filters"]

_MOST_FILTERS = 64
_MOST_CHANNELS = 15
_MOST_ROWS = 20
_CELL_GAP = 2  # between the input channels of one filter
_GROUP_GAP = 16  # between filters of several input channels
_LARGEST_CELL = 150


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
    per_filter: bool = False,
    as_rgb: bool = True,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of filters, each kernel an image: RGB for three input channels, else a diverging image for each channel.

    Args:
        tag: of the page.
        weights: ``[K, C, h, w]``; at most 64 filters and 15 input channels are shown.
        layer: name, for the caption.
        limit: the absolute weight at the scale's ends; this picture's largest if omitted.
        per_filter: scale each filter by its own largest weight instead.
        as_rgb: show three input channels as one RGB image.
        info: see `PageInfo`.
    """
    check_shape("weights", weights, "filters", "channels", "h", "w", filled=True, remedy="reshape them to kernels")
    count, channels, height, width = weights.shape
    rgb = as_rgb and channels == 3
    grid = _layout(min(count, _MOST_FILTERS), 1 if rgb else min(channels, _MOST_CHANNELS), height, width)
    shown = weights[: grid.shown, : channels if rgb else grid.channels]
    limits = _limits(weights, grid.shown, limit, per_filter)
    cells = Sheet(*grid.size(), _cells(grid, shown, limits, rgb, layer))
    ends = number(float(limits.max()))
    body = cells if rgb else VStack([cells, _bar(ends, per_filter)], gap=10)
    facts = [
        _how_many(grid.shown, count, "filters"),
        "" if rgb else _how_many(shown.shape[1], channels, "input channels"),
        _scale(limits, per_filter, rgb),
        _clipped(shown, limits),
    ]
    warnings = count_flaws([find_flaw(kernel, single=False) for kernel in shown], "filters")
    reading = (
        "Each tile is one filter's weights as a color image: mid gray is zero."
        if rgb
        else "Each tile is one filter's weights towards one input channel: red is positive, blue negative, gray zero; "
        "the input channels of one filter stand side by side."
    )
    title = f"Filters of {layer}{' as RGB' if rgb else ''}, {width} × {height}"
    return compose(tag, title, body, facts, reading=reading, warnings=warnings, **info)


def filter_table(
    tag: str, weights: NDArray[Any], *, layer: str, limit: float | None = None, **info: Unpack[PageInfo]
) -> Page:
    """Page of kernels of a deeper convolution: filters as rows, input channels as columns.

    Args:
        tag: of the page.
        weights: ``[n, m, h, w]``; the first 15 channels of the first 20 filters are shown.
        layer: name, for the caption.
        limit: the absolute weight at the scale's ends; this picture's largest if omitted.
        info: see `PageInfo`.
    """
    check_shape("weights", weights, "filters", "channels", "h", "w", filled=True, remedy="reshape them to kernels")
    shown = weights[:_MOST_ROWS, :_MOST_CHANNELS]
    rows, columns, height, width = shown.shape
    left, top = 58, 2 * LINE
    room = min((INNER_WIDTH - left) // columns - _CELL_GAP, (BODY_HEIGHT - top - 40) // rows - GUTTER, 96)
    grid = _Layout(rows, 1, columns, *_cell_size(height, width, room), left, top)
    limits = _limits(weights, rows, limit, per_filter=False)
    cells = Sheet(*grid.size(), [*_cells(grid, shown, limits, False, layer), *_axes(grid)])
    facts = (_scale(limits, False, False), _clipped(shown, limits))
    of = f"{_first(columns, weights.shape[1], 'channel')} of {_first(rows, len(weights), 'filter')}"
    warnings = count_flaws([find_flaw(kernel, single=False) for kernel in shown], "filters")
    reading = "Rows are filters, columns their input channels; red weights are positive, blue negative, gray zero."
    body = VStack([cells, _bar(number(float(limits.max())), False)], gap=10)
    return compose(tag, f"Weights of {layer}: {of}", body, facts, reading=reading, warnings=warnings, **info)


def _limits(weights: NDArray[Any], shown: int, limit: float | None, per_filter: bool) -> NDArray[np.float64]:
    """The scale's end for each shown filter ``[shown, 1, 1, 1]``."""
    finite = np.abs(np.where(np.isfinite(weights), weights, 0)).astype(np.float64)
    if per_filter:
        return np.asarray(finite[:shown].max(axis=(1, 2, 3), keepdims=True))
    return np.full((shown, 1, 1, 1), finite.max() if limit is None else limit)


def _cells(grid: _Layout, weights: NDArray[Any], limits: NDArray[np.float64], rgb: bool, layer: str) -> list[At]:
    """A tile for each filter, or for each filter and input channel."""
    size, cells = (grid.width, grid.height), []
    for index, pixels in enumerate(filter_to_pixels(weights, limits)):
        flaw = find_flaw(weights[index], single=False)
        for channel in range(grid.channels):
            image = pixels.transpose(1, 2, 0) if rgb else table("diverging")[pixels[channel]]
            kernel = weights[index] if rgb else weights[index, channel]
            limit = float(limits[index].max())
            tile = Tile(size, image, flaw, None, layer, index, value=limit, weights=kernel, average=True)
            cells.append(At(*grid.corner(index, channel), tile))
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


def _scale(limits: NDArray[np.float64], per_filter: bool, rgb: bool) -> str:
    low, high = number(float(limits.min())), number(float(limits.max()))
    if per_filter:
        return f"each filter divided by its own maximum ({low} to {high})"
    return f"weights −{high} to {high}, zero gray" if rgb else f"scale ±{high}"


def _clipped(weights: NDArray[Any], limits: NDArray[np.float64]) -> str:
    clipped = int((np.abs(weights) > limits * (1 + 1e-6)).sum())
    return f"{clipped:,} of {weights.size:,} weights beyond the scale" if clipped else ""


def _how_many(shown: int, count: int, things: str) -> str:
    return f"{count:,} {things if count != 1 else things[:-1]}" if shown == count else f"{shown} of {count:,} {things}"


def _first(shown: int, count: int, thing: str) -> str:
    return f"all {count} {thing}s" if shown == count else f"the first {shown} of {count:,} {thing}s"
