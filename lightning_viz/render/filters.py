"""Weights as images: filters as RGB or per input channel, and the table of a deeper convolution."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import table
from lightning_viz.render.page import BODY_HEIGHT, INNER_WIDTH, Caption, Picture, page, stack
from lightning_viz.render.plots import color_bar
from lightning_viz.render.text import GRAY, LINE, font, number, step_text
from lightning_viz.render.tiles import COLUMNS, GUTTER, count_flaws, flaw, hatched

Box = tuple[int, int, int, int]

MOST_FILTERS = 64
MOST_CHANNELS = 15
MOST_ROWS = 20
CELL_GAP = 2  # between the input channels of one filter
GROUP_GAP = 16  # between filters of several input channels
LARGEST_CELL = 150


def filter_to_pixels(weights: NDArray[Any], limit: float | NDArray[Any]) -> NDArray[np.uint8]:
    """The display's scale: 0.5 + w / (2 limit) in 0..255, zero at mid gray; beyond the limit it saturates.

    Args:
        weights: any shape.
        limit: the absolute weight at the scale's ends; an array broadcasts (one per filter).
    """
    ends = np.asarray(limit, dtype=np.float64)
    scaled = 0.5 + np.nan_to_num(np.asarray(weights, dtype=np.float64)) / (2 * np.where(ends > 0, ends, 1.0))
    return np.asarray(np.rint(np.clip(scaled, 0, 1) * 255), dtype=np.uint8)


def pixels_to_filter(pixels: NDArray[Any], limit: float | NDArray[Any]) -> NDArray[np.float64]:
    """The weights behind pixels in 0..255, to within limit / 255: the inverse of :func:`filter_to_pixels`."""
    return np.asarray((np.asarray(pixels, dtype=np.float64) / 255 - 0.5) * 2 * limit)


@dataclass(frozen=True)
class Layout:
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
        return GUTTER if self.channels == 1 else GROUP_GAP

    def box(self, filter_index: int, channel: int = 0) -> Box:
        """Left, top, right and bottom of a cell in the body."""
        row, column = divmod(filter_index, self.groups)
        group_width = self.channels * (self.width + CELL_GAP) - CELL_GAP
        left = self.left + column * (group_width + self.gap) + channel * (self.width + CELL_GAP)
        top = self.top + row * (self.height + GUTTER)
        return left, top, left + self.width, top + self.height

    def blank(self) -> Image.Image:
        """The white body that the cells go into."""
        rightmost = self.box(min(self.shown, self.groups) - 1, self.channels - 1)[2]
        return Image.new("RGB", (rightmost, self.box(self.shown - 1)[3]), "white")


def layout(count: int, channels: int, height: int, width: int) -> Layout:
    """Cells as large as all of ``count`` filters allow; fewer filters where they would be too small to see."""
    best: Layout | None = None
    for groups in range(1, min(COLUMNS, count) + 1):
        gap = Layout(count, groups, channels, 1, 1).gap
        group_width = (INNER_WIDTH - gap * (groups - 1)) // groups
        room = (group_width - CELL_GAP * (channels - 1)) // channels
        size = _cell_size(height, width, min(room, LARGEST_CELL))
        trial = Layout(count, groups, channels, *size)
        pitch = trial.box(groups)[1]
        rows = max(1, min(-(-count // groups), BODY_HEIGHT // pitch))
        trial = Layout(min(count, rows * groups), groups, channels, *size)
        if best is None or (trial.shown, trial.width) >= (best.shown, best.width):
            best = trial
    assert best is not None
    return best


def _cell_size(height: int, width: int, room: int) -> tuple[int, int]:
    """Width and height of a kernel enlarged by a whole number, so that every weight is a square; shrunk if it must."""
    longest = max(height, width)
    if longest <= room:
        factor = room // longest
        return width * factor, height * factor
    return max(1, width * room // longest), max(1, height * room // longest)


def tile_boxes(count: int, height: int, width: int, *, channels: int = 1) -> list[Box]:
    """Where :func:`filters` draws each cell: (left, top, right, bottom) in the body, which is at ``Picture.origin``.

    Args:
        count: number of filters.
        height: of a kernel.
        width: of a kernel.
        channels: cells per filter: 1 for RGB filters and for one input channel.

    Returns:
        One box per shown filter and channel, channels fastest.
    """
    grid = layout(min(count, MOST_FILTERS), channels, height, width)
    return [grid.box(index, channel) for index in range(grid.shown) for channel in range(grid.channels)]


def filters(
    tag: str,
    weights: NDArray[Any],
    *,
    layer: str,
    step: int,
    limit: float | None = None,
    per_filter: bool = False,
    as_rgb: bool = True,
) -> Picture:
    """Each kernel an image: RGB where it has three input channels, else one diverging image per input channel.

    Args:
        tag: where the picture stands in TensorBoard.
        weights: ``[K, C, h, w]``; at most 64 filters and 15 input channels are shown.
        layer: name, for the caption.
        step: number of completed updates.
        limit: the absolute weight at the scale's ends; this picture's largest if omitted.
        per_filter: scale each filter by its own largest weight instead.
        as_rgb: show three input channels as one RGB image.
    """
    _check(weights)
    count, channels, height, width = weights.shape
    rgb = as_rgb and channels == 3
    grid = layout(min(count, MOST_FILTERS), 1 if rgb else min(channels, MOST_CHANNELS), height, width)
    shown = weights[: grid.shown, : channels if rgb else grid.channels]
    limits = _limits(weights, grid.shown, limit, per_filter)
    body = _draw(grid, shown, limits, rgb)
    ends = number(float(limits.max()))
    if not rgb:
        body = stack([body, _bar(ends, per_filter)], gap=10)
    details = [
        step_text(step),
        _how_many(grid.shown, count, "filters"),
        "" if rgb else _how_many(shown.shape[1], channels, "input channels"),
        _scale(limits, per_filter, rgb),
        _clipped(shown, limits),
    ]
    reading = (
        "Each tile is one filter's weights as a color image: mid gray is zero."
        if rgb
        else "Each tile is one filter's weights towards one input channel: red is positive, blue negative, gray zero; "
        "the input channels of one filter stand side by side."
    )
    flaws = [flaw(kernel, single=False) for kernel in shown]
    title = f"Filters of {layer}{' as RGB' if rgb else ''}, {width} × {height}"
    return page(tag, Caption(title, tuple(details), reading, count_flaws(flaws, "filters")), body)


def filter_table(tag: str, weights: NDArray[Any], *, layer: str, step: int, limit: float | None = None) -> Picture:
    """Kernels of a deeper convolution: filters as rows, input channels as columns.

    Args:
        tag: where the picture stands in TensorBoard.
        weights: ``[n, m, h, w]``; the first 15 channels of the first 20 filters are shown.
        layer: name, for the caption.
        step: number of completed updates.
        limit: the absolute weight at the scale's ends; this picture's largest if omitted.
    """
    _check(weights)
    shown = weights[:MOST_ROWS, :MOST_CHANNELS]
    rows, columns, height, width = shown.shape
    left, top = 58, 2 * LINE
    room = min((INNER_WIDTH - left) // columns - CELL_GAP, (BODY_HEIGHT - top - 40) // rows - GUTTER, 96)
    grid = Layout(rows, 1, columns, *_cell_size(height, width, room), left, top)
    limits = _limits(weights, rows, limit, per_filter=False)
    body = _draw(grid, shown, limits, rgb=False)
    _label_axes(body, grid)
    details = (step_text(step), _scale(limits, False, False), _clipped(shown, limits))
    title = (
        f"Weights of {layer}: {_first(columns, weights.shape[1], 'channel')} of {_first(rows, len(weights), 'filter')}"
    )
    reading = "Rows are filters, columns their input channels; red weights are positive, blue negative, gray zero."
    notes = count_flaws([flaw(kernel, single=False) for kernel in shown], "filters")
    return page(
        tag, Caption(title, details, reading, notes), stack([body, _bar(number(float(limits.max())), False)], gap=10)
    )


def _check(weights: NDArray[Any]) -> None:
    if weights.ndim != 4 or 0 in weights.shape:
        raise InvalidArgumentError(
            f"weights are [filters, channels, height, width], got {weights.shape}; reshape them to kernels"
        )


def _limits(weights: NDArray[Any], shown: int, limit: float | None, per_filter: bool) -> NDArray[np.float64]:
    """The scale's end for each shown filter ``[shown, 1, 1, 1]``."""
    finite = np.abs(np.where(np.isfinite(weights), weights, 0)).astype(np.float64)
    if per_filter:
        return np.asarray(finite[:shown].max(axis=(1, 2, 3), keepdims=True))
    return np.full((shown, 1, 1, 1), finite.max() if limit is None else limit)


def _draw(grid: Layout, weights: NDArray[Any], limits: NDArray[np.float64], rgb: bool) -> Image.Image:
    body = grid.blank()
    pixels = filter_to_pixels(weights, limits)
    for index, kernel in enumerate(pixels):
        words = flaw(weights[index], single=False)
        for channel in range(grid.channels):
            left, top, right, bottom = grid.box(index, channel)
            size = (right - left, bottom - top)
            if words:
                body.paste(hatched(size, words), (left, top))
                continue
            image = kernel.transpose(1, 2, 0) if rgb else table("diverging")[kernel[channel]]
            larger = size[0] >= image.shape[1]
            how = Image.Resampling.NEAREST if larger else Image.Resampling.BOX
            body.paste(Image.fromarray(np.ascontiguousarray(image)).resize(size, how), (left, top))
    return body


def _label_axes(body: Image.Image, grid: Layout) -> None:
    """Numbers of filters at the left and of input channels on top, as many as there is room for."""
    draw = ImageDraw.Draw(body)
    draw.text((grid.left, 0), "input channel →", fill=GRAY, font=font())
    draw.text((0, LINE), "filter", fill=GRAY, font=font())
    every = max(1, -(-26 // (grid.width + CELL_GAP)))
    for channel in range(0, grid.channels, every):
        left, _, right, _ = grid.box(0, channel)
        draw.text(((left + right) // 2, LINE), str(channel), fill=GRAY, font=font(), anchor="ma")
    every = max(1, -(-22 // (grid.height + GUTTER)))
    for row in range(0, grid.shown, every):
        _, top, _, bottom = grid.box(row)
        draw.text((grid.left - 8, (top + bottom) // 2), str(row), fill=GRAY, font=font(), anchor="rm")


def _bar(ends: str, per_filter: bool) -> Image.Image:
    if per_filter:
        return color_bar("diverging", "−max", "max", middle="0", label="of each filter")
    return color_bar("diverging", f"−{ends}", ends, middle="0", label="weight")


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
