"""What samples excite in a layer: a sample a row, its activation maps beside it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.render.grid import BODY_HEIGHT, COLUMNS, GUTTER, INNER_WIDTH, fit, heads
from lightning_viz.render.page import Page, PageInfo, check_rgb, check_shape, compose
from lightning_viz.render.parts import ColorBar, HStack, MapTile, Part, Tile, TileSize, VStack
from lightning_viz.render.text import LINE, number, some_of, text_width
from lightning_viz.render.tiles import count_flaws, find_flaw, verdict_texts

__all__ = ["activation_maps"]

_MOST_SAMPLES = 8
_FEWEST_SAMPLES = 4
_SMALLEST_TILE = 72  # pixels wide
_COARSE = 4  # maps of at most so many cells a side are shown as cells: blurred, they could not be told apart


def activation_maps(
    tag: str,
    images: NDArray[np.uint8],
    maps: NDArray[Any],
    *,
    layer: str,
    channels: Sequence[int],
    limits: tuple[float, float] | None,
    limits_note: str = "",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of activation maps: samples as rows, the input first, then channels as columns.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``; the first 8 are shown.
        maps: ``[N, K, h, w]``, column k being ``channels[k]``; the first 7 are shown.
        layer: name, for the caption.
        channels: the channels' numbers, K of them.
        limits: the activations at the color scale's ends, fixed across steps; None: each map has its own scale.
        limits_note: where the limits come from, such as "1st to 99th percentile at step 0".
        info: see `PageInfo`.
    """
    check_rgb(images)
    check_shape("maps", maps, len(images), len(channels), "h", "w")
    verdicts, aspect = info.get("verdicts", ()), images.shape[1] / images.shape[2]
    count, size = _rows_and_size(len(images), min(len(channels), COLUMNS - 1) + 1, aspect, LINE if verdicts else 0)
    shown = maps[:count, : COLUMNS - 1]
    scale = _Scale(shown, limits)
    rows: list[Part] = [_over_columns(channels[: shown.shape[1]], size[0])]
    for index, row in enumerate(shown):
        tiles: list[Part] = [Tile(size, images[index], sample=index)]
        for channel, values in zip(channels, row, strict=False):
            flaw = find_flaw(values)
            ends, smooth = None if flaw else scale.ends_of(values), max(values.shape) > _COARSE
            tile = MapTile(
                size, None, flaw, index, layer, channel, values=values, display=scale.name, limits=ends, smooth=smooth
            )
            tiles.append(tile)
        rows.append(HStack(tiles, gap=GUTTER))
        if verdicts:
            rows += verdict_texts([verdicts[index]], INNER_WIDTH)
    body = VStack([VStack(rows, gap=GUTTER if not verdicts else 2), scale.bar()], gap=10)
    facts = (
        f"the first {len(shown)} samples" if len(shown) < len(images) else "",
        some_of(shown.shape[1], len(channels), "channels"),
        scale.words(limits_note),
    )
    reading = "Each row is one sample, the input first; each column is one channel (feature map) of the layer, " + (
        "red where it is positive, blue where negative." if scale.signed else "brighter where it is more active."
    )
    warnings = count_flaws([find_flaw(values) for row in shown for values in row], "maps")
    return compose(tag, f"Activation maps of {layer}", body, facts, reading=reading, warnings=warnings, **info)


class _Scale:
    """How activations become colors: fixed or per map, sequential or, for both signs, diverging."""

    def __init__(self, maps: NDArray[Any], limits: tuple[float, float] | None) -> None:
        self.finite = maps[np.isfinite(maps)]
        self.peaks = [float(np.abs(values).max()) for row in maps for values in row if not find_flaw(values)]
        low = float(self.finite.min(initial=0)) if limits is None else limits[0]
        high = float(self.finite.max(initial=0)) if limits is None else limits[1]
        self.signed = low < 0 < high
        self.name = "diverging" if self.signed else "magma"
        self.limits = limits
        reach = max(abs(low), abs(high))
        self.ends = (-reach, reach) if self.signed else (low, high)

    def ends_of(self, values: NDArray[Any]) -> tuple[float, float]:
        """The activations at the ends of a map's colors."""
        if self.limits is not None:
            return self.ends
        reach = float(np.abs(values).max())
        return (-reach, reach) if self.signed else (min(0.0, float(values.min())), max(0.0, float(values.max())))

    def bar(self) -> ColorBar:
        middle = "0" if self.signed else ""
        if self.limits is not None:
            return ColorBar(self.name, number(self.ends[0]), number(self.ends[1]), middle=middle, label="activation")
        if self.signed:
            return ColorBar(self.name, "−max", "max", middle=middle, label="of each map")
        negative = self.ends[0] < 0
        return ColorBar(self.name, "min" if negative else "0", "0" if negative else "max", label="of each map")

    def words(self, note: str) -> str:
        if self.limits is None:
            how = "divided by its largest absolute value" if self.signed else "divided by its maximum"
            return f"each map {how} ({number(min(self.peaks))} to {number(max(self.peaks))})" if self.peaks else ""
        beyond = ((self.finite < self.ends[0]) | (self.finite > self.ends[1])).sum() / max(1, self.finite.size)
        words = f"one scale for all maps, {number(self.ends[0])} to {number(self.ends[1])}"
        share = f"{beyond:.0%}".replace("%", " %") if beyond >= 0.01 else "under 1 %"
        inside = list(filter(None, (note, f"{share} beyond" if beyond else "")))
        return f"{words} ({', '.join(inside)})" if inside else words


def _over_columns(channels: Sequence[int], width: int) -> HStack:
    """Over each column "input" or the channel's number, with "ch" before it where there is room."""
    short = any(text_width(f"ch {channel}") > width for channel in channels)
    return HStack(heads(["input", *(f"{'' if short else 'ch '}{channel}" for channel in channels)], width), gap=GUTTER)


def _rows_and_size(samples: int, columns: int, aspect: float, under: int) -> tuple[int, TileSize]:
    """How many samples to show, and the tiles' width and height: fewer samples before tiles too small to see."""
    most = max(1, min(samples, _MOST_SAMPLES))
    for count in range(most, 0, -1):
        size = fit(columns, count, aspect, under=under, room=BODY_HEIGHT - 3 * LINE)
        if size[0] >= _SMALLEST_TILE or count <= _FEWEST_SAMPLES:
            break
    return count, size
