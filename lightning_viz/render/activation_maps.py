"""What samples excite in a layer: a sample a row, its activation maps beside it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import apply
from lightning_viz.render.page import BODY_HEIGHT, INNER_WIDTH, Caption, Picture, beside, page, stack
from lightning_viz.render.plots import color_bar
from lightning_viz.render.text import GRAY, LINE, draw_lines, number, step_text, text_width
from lightning_viz.render.tiles import (
    COLUMNS,
    GUTTER,
    VERDICTS,
    Verdict,
    check_images,
    count_flaws,
    draw_verdicts,
    enlarge,
    fit,
    flaw,
    hatched,
    stretch,
)

MOST_SAMPLES = 8
FEWEST_SAMPLES = 4
SMALLEST_TILE = 72  # pixels wide
CELLS = 4  # maps of at most so many cells a side are shown as cells: blurred, they could not be told apart


def activation_maps(
    tag: str,
    images: NDArray[np.uint8],
    maps: NDArray[Any],
    *,
    layer: str,
    step: int,
    channels: Sequence[int],
    limits: tuple[float, float] | None,
    limits_note: str = "",
    verdicts: Sequence[Verdict] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """Activation maps: samples as rows, the input first, then channels as columns.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the inputs ``[N, H, W, 3]``; the first 8 are shown.
        maps: ``[N, K, h, w]``, column k being ``channels[k]``; the first 7 are shown.
        layer: name, for the caption.
        step: number of completed updates.
        channels: the channels' numbers, K of them.
        limits: the activations at the color scale's ends, fixed across steps; None: each map has its own scale.
        limits_note: where the limits come from, such as "1st to 99th percentile at step 0".
        verdicts: one a sample, or none.
        notes: further warnings for the caption.
    """
    check_images(images)
    if maps.ndim != 4 or maps.shape[:2] != (len(images), len(channels)):
        raise InvalidArgumentError(
            f"maps are [{len(images)} samples, {len(channels)} channels, h, w], got {maps.shape}"
        )
    aspect = images.shape[1] / images.shape[2]
    count, size = _rows_and_size(len(images), min(len(channels), COLUMNS - 1) + 1, aspect, LINE if verdicts else 0)
    shown = maps[:count, : COLUMNS - 1]
    scale = _Scale(shown, limits)
    flaws = [[flaw(each) for each in row] for row in shown]
    rows = [_heading(channels[: shown.shape[1]], size[0])]
    for index, row in enumerate(shown):
        tiles = [enlarge(images[index], size)]
        for each, words in zip(row, flaws[index], strict=True):
            tiles.append(hatched(size, words) if words else Image.fromarray(scale.color(_stretched(each, size), each)))
        rows.append(beside(tiles, gap=GUTTER))
        if verdicts:
            rows.extend(draw_verdicts([verdicts[index]], INNER_WIDTH)[:1])
    body = stack([stack(rows, gap=GUTTER if not verdicts else 2), scale.bar()], gap=10)
    details = (
        step_text(step),
        f"the first {len(shown)} samples" if len(shown) < len(images) else "",
        f"{shown.shape[1]} of {len(channels)} channels" if shown.shape[1] < len(channels) else "",
        scale.words(limits_note),
        VERDICTS if verdicts else "",
    )
    reading = "Each row is one sample, the input first; each column is one channel (feature map) of the layer, " + (
        "red where it is positive, blue where negative." if scale.signed else "brighter where it is more active."
    )
    every = [each for row in flaws for each in row]
    return page(
        tag, Caption(f"Activation maps of {layer}", details, reading, (*count_flaws(every, "maps"), *notes)), body
    )


class _Scale:
    """How activations become colors: fixed or per map, sequential or, for both signs, diverging."""

    def __init__(self, maps: NDArray[Any], limits: tuple[float, float] | None) -> None:
        self.finite = maps[np.isfinite(maps)]
        self.peaks = [float(np.abs(each).max()) for row in maps for each in row if not flaw(each)]
        low = float(self.finite.min(initial=0)) if limits is None else limits[0]
        high = float(self.finite.max(initial=0)) if limits is None else limits[1]
        self.signed = low < 0 < high
        self.name = "diverging" if self.signed else "magma"
        self.limits = limits
        reach = max(abs(low), abs(high))
        self.ends = (-reach, reach) if self.signed else (low, high)

    def color(self, values: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.uint8]:
        """Colors of a map; ``whole`` is the map before it was enlarged, of which its own scale is taken."""
        low, high = self.ends
        if self.limits is None:
            reach = float(np.abs(whole).max())
            low, high = (-reach, reach) if self.signed else (min(0.0, float(whole.min())), max(0.0, float(whole.max())))
        return apply(self.name, values, low, high)

    def bar(self) -> Image.Image:
        middle = "0" if self.signed else ""
        if self.limits is not None:
            return color_bar(self.name, number(self.ends[0]), number(self.ends[1]), middle=middle, label="activation")
        if self.signed:
            return color_bar(self.name, "−max", "max", middle=middle, label="of each map")
        negative = self.ends[0] < 0
        return color_bar(self.name, "min" if negative else "0", "0" if negative else "max", label="of each map")

    def words(self, note: str) -> str:
        if self.limits is None:
            how = "divided by its largest absolute value" if self.signed else "divided by its maximum"
            return f"each map {how} ({number(min(self.peaks))} to {number(max(self.peaks))})" if self.peaks else ""
        beyond = (
            float(((self.finite < self.ends[0]) | (self.finite > self.ends[1])).mean()) if self.finite.size else 0.0
        )
        words = f"one scale for all maps, {number(self.ends[0])} to {number(self.ends[1])}"
        share = f"{beyond:.0%}".replace("%", " %") if beyond >= 0.01 else "under 1 %"
        inside = [part for part in (note, f"{share} beyond" if beyond else "") if part]
        return f"{words} ({', '.join(inside)})" if inside else words


def _stretched(values: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    return stretch(values, size, smooth=max(values.shape) > CELLS)


def _heading(channels: Sequence[int], width: int) -> Image.Image:
    """Over each column "input" or the channel's number, with "ch" before it where there is room."""
    short = any(text_width(f"ch {channel}") > width for channel in channels)
    names = ["input", *(str(channel) if short else f"ch {channel}" for channel in channels)]
    return beside([draw_lines([name], width, color=GRAY, centered=True) for name in names], gap=GUTTER)


def _rows_and_size(samples: int, columns: int, aspect: float, under: int) -> tuple[int, tuple[int, int]]:
    """How many samples to show, and the tiles' width and height: fewer samples before tiles too small to see."""
    most = max(1, min(samples, MOST_SAMPLES))
    for count in range(most, 0, -1):
        size = fit(columns, count, aspect, under=under, room=BODY_HEIGHT - 3 * LINE)
        if size[0] >= SMALLEST_TILE or count <= FEWEST_SAMPLES:
            break
    return count, size
