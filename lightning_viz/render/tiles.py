"""Tiles: pixels for display, how maps become colors, verdicts under samples, and flaws that leave nothing to see."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import Colors, table
from lightning_viz.render.parts import ColorBar, MapTile, Part, Text, TileSize
from lightning_viz.render.text import DARK, RED, level, number, shorten, text_width

__all__ = [
    "DISPLAYS",
    "Display",
    "Flaw",
    "Verdict",
    "count_flaws",
    "describe_channels",
    "find_flaw",
    "map_tile",
    "to_rgb",
    "verdict_key",
    "verdict_texts",
]

CROSS, CHECK = "✗ ", "✓ "

COARSE = 4  # maps of at most so many cells a side are shown as cells: blurred, they could not be told apart
_WEAK = 0.25  # of the largest total of a page, below which a map has little evidence
FLAT, _FULL = 1.5, 16.0  # times uniform attention, below which a map is flat, and at which heat is full
_NEUTRAL = 208  # gray of a ground on which nothing is shown


def to_rgb(pixels: NDArray[Any]) -> Colors:
    """Images for display.

    Args:
        pixels: ``[N, C, H, W]`` in [0, 1]; one channel is gray, three are RGB, of any other number the mean is gray.

    Returns:
        ``[N, H, W, 3]``, 0 to 255.
    """
    if pixels.ndim != 4:
        raise InvalidArgumentError(f"pixels are [N, C, H, W], got shape {pixels.shape}; add or merge dimensions")
    pixels = np.nan_to_num(np.asarray(pixels, dtype=np.float64))
    if pixels.shape[1] != 3:
        pixels = pixels.mean(axis=1, keepdims=True).repeat(3, axis=1)
    bytewise = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(bytewise.transpose(0, 2, 3, 1))


def neutral(images: NDArray[Any]) -> NDArray[Any]:
    """An even ground in place of images, of their shape: gray pixels, or curves at zero.

    Args:
        images: uint8 ``[N, ..., 3]``, or series ``[N, C, L]``.
    """
    return np.full_like(images, _NEUTRAL if images.dtype == np.uint8 else 0)


def describe_channels(channels: int) -> str:
    """What :func:`to_rgb` did to images of so many channels, for the caption: "mean of 6 channels", or nothing."""
    return "" if channels in (1, 3) else f"mean of {channels} channels"


@dataclass(frozen=True)
class Verdict:
    """What a sample is and what the network says.

    Args:
        truth: the label's name.
        prediction: the predicted class's name.
        confidence: of the prediction, 0 to 1.
        longest: of the names that may stand there at other steps, for which room is left.
    """

    truth: str | None = None
    prediction: str | None = None
    confidence: float | None = None
    longest: str = ""

    @property
    def mistaken(self) -> bool:
        """Both are known and differ."""
        return None not in (self.truth, self.prediction) and self.truth != self.prediction

    def lines(self, width: int, *, confidence: bool = True) -> list[str]:
        """``✓ class 99 %``, ``✗ truth → prediction 87 %``, or ``prediction 87 %`` if the truth is not known.

        On two lines where the longest names would not fit on one of `width` pixels; names are cut, numbers never.

        Args:
            width: in pixels.
            confidence: whether it is written.
        """
        sign = "" if self.truth is None or self.prediction is None else CROSS if self.mistaken else CHECK
        percent = f"  {confidence_text(self.confidence)}" if confidence and self.confidence is not None else ""
        if self.prediction is None:
            return [shorten(self.truth, width)] if self.truth is not None else []
        room = max(filter(None, (self.truth, self.prediction, self.longest)), key=text_width, default="")
        pair = f"{CROSS}{room} → {room}" if self.truth is not None else room
        if text_width(f"{pair}  100 %" if confidence else pair) <= width:
            return [
                f"{sign}{self.truth} → {self.prediction}{percent}"
                if self.mistaken
                else f"{sign}{self.prediction}{percent}"
            ]
        if self.mistaken:
            return [
                shorten(f"{sign}{self.truth}", width, suffix=" →"),
                shorten(f"{self.prediction}", width, suffix=percent),
            ]
        return [shorten(f"{sign}{self.prediction}", width), percent.strip()]


def verdict_key(verdicts: Sequence[Verdict]) -> str:
    """How to read what is written under samples; nothing if there is nothing.

    Args:
        verdicts: of the samples of a page.
    """
    if not verdicts:
        return ""
    if any(verdict.truth is not None for verdict in verdicts):
        return "Under a sample: ✓ its class, or ✗ true → predicted class, and the confidence in the prediction."
    return "Under a sample: the predicted class and the confidence in it."


def confidence_text(confidence: float) -> str:
    """``87 %``; never 100 % for what is less."""
    return f"{round(confidence * 100) if confidence >= 1 else min(99, round(confidence * 100))} %"


def verdict_texts(verdicts: Sequence[Verdict], width: int) -> list[Text]:
    """The verdicts as blocks of one height, ``width`` pixels wide."""
    texts = level([verdict.lines(width) for verdict in verdicts])
    return [
        Text(lines, width, color=RED if verdict.mistaken else DARK)
        for verdict, lines in zip(verdicts, texts, strict=True)
    ]


class Flaw(str, Enum):
    """Why there is nothing to see in a map or an image: the reason in words."""

    NOT_REACHED = "not reached"
    NAN = "NaN"
    INFINITE = "infinite"
    SINGLE = "1 × 1 map"
    ZERO = "all zero"
    FLAT = "flat"
    CONSTANT = "constant"

    __str__ = str.__str__


def find_flaw(values: NDArray[Any], *, single: bool = True) -> Flaw | None:
    """Why a map ``[h, w]`` cannot be shown, or None.

    Args:
        values: any shape.
        single: whether a map of one value is a flaw.
    """
    if values.size == 0:
        return Flaw.NOT_REACHED
    if np.isnan(values).any():
        return Flaw.NAN
    if np.isinf(values).any():
        return Flaw.INFINITE
    if single and values.shape[-2:] == (1, 1):
        return Flaw.SINGLE
    return None if values.any() else Flaw.ZERO


def count_flaws(
    flaws: Sequence[str | None], things: str, words: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, ...]:
    """Notes for the caption: ("NaN in 3 of 16 maps", "all zero in 2 of 16 maps").

    Args:
        flaws: one for each thing; None of a thing without.
        things: what they are, in the plural.
        words: for a flaw that is to be written otherwise than by its value.
    """
    kinds = filter(None, dict.fromkeys(flaws))
    return tuple(f"{words.get(kind, kind)} in {flaws.count(kind)} of {len(flaws)} {things}" for kind in kinds)


def map_flaws(body: Part) -> list[str | None]:
    """Of each map on a page, why it cannot be shown, or None."""
    return [part.flaw for part in body.walk() if isinstance(part, MapTile)]


@dataclass(frozen=True)
class Display:
    """One way to show maps.

    Args:
        reduced: from a map ``[C, h, w]`` to what is shown of it, ``[h, w]`` or ``[C, h, w]``.
        reach: from that to the number by which it is divided.
        tile: from the image ``[H, W, 3]``, the divided map and a size (width, height) to the tile.
        bar: what the colors mean.
        divided: what it is divided by, for the caption.
        fixed: by which all maps are divided in its place, the same on every page; None: the largest of the page's.
        sign: after a map's number.
        own: whether each map is divided by its own number on every page: its places are to be seen, whatever its size.
    """

    reduced: Callable[[NDArray[Any]], NDArray[Any]]
    reach: Callable[[NDArray[Any]], float]
    tile: Callable[[Colors, NDArray[Any], TileSize], Image.Image]
    bar: ColorBar
    divided: str
    fixed: float | None = None
    sign: str = ""
    own: bool = False

    def figure(self, value: float | None) -> str:
        """A map's number, as it stands below it; nothing if there is none."""
        return f"{number(value)}{self.sign}" if value else ""

    def bar_to(self, reach: float | None, unit: str) -> ColorBar:
        """The bar of maps on one scale, with numbers at its ends.

        Args:
            reach: by which the maps are divided; None if there is nothing to see in any.
            unit: of the maps.
        """
        if reach is None or self.fixed is not None or self.own:
            return self.bar
        half = reach / 2 if self.bar is _HALVES else reach
        low, high = "0" if self.bar.low == "0" else f"−{number(half)}", number(half)
        if self.bar is _SIGNS:
            low, high = f"{self.bar.low} {low}", f"{self.bar.high} {high}"
        return replace(self.bar, low=low, high=high, label=f"{unit}{self.bar.label}")


def enlarge(image: Colors, size: TileSize, *, average: bool = False) -> Image.Image:
    """An image ``[H, W, 3]`` at ``size`` (width, height): enlarged by nearest neighbor, never blurred.

    Args:
        image: 0 to 255.
        size: width and height in pixels.
        average: make it smaller by averaging rather than by Lanczos' filter.
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    larger = size[0] >= picture.width and size[1] >= picture.height
    smaller = Image.Resampling.BOX if average else Image.Resampling.LANCZOS
    return picture.resize(size, Image.Resampling.NEAREST if larger else smaller)


def stretch(values: NDArray[Any], size: TileSize, *, smooth: bool = True) -> NDArray[np.float32]:
    """A map ``[h, w]`` at ``size`` (width, height), bilinear (``align_corners=False``) or by nearest neighbor."""
    values = np.asarray(values, dtype=np.float32)
    smaller = size[0] < values.shape[1] or size[1] < values.shape[0]
    method = Image.Resampling.BILINEAR if smooth or smaller else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(values).resize(size, method))


def _largest(values: NDArray[Any]) -> float:
    return float(np.abs(values).max())


def top_percentile(values: NDArray[Any]) -> float:
    """The 99th percentile of the size of a map, or its maximum where that is zero."""
    size = np.abs(values)
    return float(np.percentile(size, 99)) or float(size.max())


def overlay(image: Colors, heat: NDArray[Any], size: TileSize, *, name: str = "heat", gain: float = 1.6) -> Image.Image:
    """A grayed image with heat over it, whose opacity rises with the heat: where there is none the image is itself.

    Args:
        image: ``[H, W, 3]``, 0 to 255.
        heat: ``[h, w]`` in [0, 1].
        size: width and height in pixels.
        name: of the color map.
        gain: how many times as fast as the heat its opacity rises.
    """
    gray = np.asarray(enlarge(image, size).convert("L"), dtype=np.float64)[..., None]
    warmth = np.clip(stretch(heat, size, smooth=max(np.shape(heat)) > COARSE), 0, 1)
    opacity = 0.78 * np.minimum(1, gain * warmth)[..., None]
    colors = table(name)[np.rint(warmth * 255).astype(np.uint8)]
    return Image.fromarray(np.rint(gray * (1 - opacity) + colors * opacity).astype(np.uint8))


def above_uniform(image: Colors, values: NDArray[Any], size: TileSize) -> Image.Image:
    """Heat by the logarithm, over a grayed image that is itself where attention is uniform or less.

    Args:
        image: ``[H, W, 3]``, 0 to 255.
        values: times uniform attention, as a share of those at which heat is full ``[h, w]``.
        size: width and height in pixels.
    """
    return overlay(image, np.log(np.maximum(_FULL * values, 1)) / np.log(_FULL), size, name="bright heat", gain=2.5)


def sequential(image: Colors, values: NDArray[Any], size: TileSize) -> Image.Image:
    """A map ``[h, w]`` in [0, 1], black where it is zero; the image plays no part."""
    warmth = np.clip(stretch(values, size, smooth=False), 0, 1)
    return Image.fromarray(table("magma")[np.rint(warmth * 255).astype(np.uint8)])


def diverging(image: Colors, values: NDArray[Any], size: TileSize) -> Image.Image:
    """A map ``[h, w]`` in [-1, 1], blue, gray, red; the image plays no part."""
    signed = np.clip(stretch(values, size, smooth=False), -1, 1)
    return Image.fromarray(table("diverging")[np.rint((signed + 1) / 2 * 255).astype(np.uint8)])


def as_image(image: Colors, values: NDArray[Any], size: TileSize) -> Image.Image:
    """A map ``[C, h, w]`` as an image around middle gray, g / max + 0.5; the image plays no part."""
    return enlarge(to_rgb(values[None] + 0.5)[0], size)


_99TH = "99th percentile"
_SIZE = ColorBar("magma", "0", _99TH)
_SIGNS = ColorBar("diverging", "against", "for", middle="0")
_HALVES = ColorBar("gray", "−½ max", "½ max", middle="0", label=", for red, green and blue")
_ABOVE = ColorBar("heat", "0", "range", label=" above each map's least")
_OWN = ColorBar("heat", "0", "each map's maximum")
_UNIFORM = ColorBar("bright heat", "uniform 1×", f"{number(_FULL)}×", label="or more, logarithmic")
DISPLAYS = {
    "heat": Display(lambda g: np.maximum(g.sum(0), 0), _largest, overlay, ColorBar("heat", "0", "maximum"), "maximum"),
    "own heat": Display(lambda g: np.maximum(g.sum(0), 0), _largest, overlay, _OWN, "maximum", own=True),
    "contrast": Display(lambda g: g.sum(0) - g.sum(0).min(), _largest, overlay, _ABOVE, "range"),
    "sum": Display(lambda g: np.abs(g).sum(0), top_percentile, sequential, _SIZE, _99TH),
    "max": Display(lambda g: np.abs(g).max(0), top_percentile, sequential, _SIZE, _99TH),
    "signed": Display(lambda g: g.sum(0), top_percentile, diverging, _SIGNS, _99TH),
    "image": Display(lambda g: g, _largest, as_image, _HALVES, "largest value"),
    "attention": Display(
        lambda g: np.maximum(g.sum(0), 0), _largest, above_uniform, _UNIFORM, "maximum", fixed=_FULL, sign="×"
    ),
}
"""By name: heat over the image, on the page's scale, on the map's own, or from its least value; the size, summed or
largest over the channels; the signed sum; an image of its own; heat of attention, in times uniform attention."""


def map_tile(
    size: TileSize,
    image: Colors | None,
    values: NDArray[Any],
    display: str,
    *,
    sample: int | None = None,
    layer: str = "",
) -> MapTile:
    """A tile of a map, divided by its display's number, or of why it cannot be shown.

    Args:
        size: width and height in pixels.
        image: the sample ``[H, W, 3]``; None if it plays no part.
        values: the map ``[C, h, w]``.
        display: one of `DISPLAYS`.
        sample: index of the sample on the page.
        layer: name of the layer that the map is of, if any.
    """
    reduced = DISPLAYS[display].reduced(values.astype(np.float64))
    flaw = find_flaw(reduced)
    reach = None if flaw else DISPLAYS[display].reach(reduced)
    return MapTile(size, image, flaw, sample, layer, value=reach, values=reduced, display=display)


def on_one_scale(tiles: Sequence[MapTile]) -> tuple[list[MapTile], float | None]:
    """Maps divided by the largest of their numbers, or by what is fixed, and that number; None if there is nothing.

    Of heat, which is evidence, a map is marked as weak whose total is less than a quarter of the largest: a place in it
    would else pass for what the network looks at. Of attention a map is marked as flat that is nowhere half as much
    again as uniform, and as weak if less than a quarter of it lies on the map.

    Args:
        tiles: of the maps of a page, each divided by a number of its own.
    """
    reach = max((tile.value for tile in tiles if tile.value), default=None)
    fixed = next((DISPLAYS[tile.display].fixed for tile in tiles), None)
    reach = reach if fixed is None or reach is None else fixed
    totals = [float(tile.values.mean()) if tile.value and tile.display in _TOTALED else 0.0 for tile in tiles]
    least = _WEAK * (max(totals, default=0.0) if fixed is None else 1.0)
    marked = []
    for tile, total in zip(tiles, totals, strict=True):
        weak = 0 < total < least
        flat = fixed is not None and not weak and tile.value is not None and 0 < tile.value < FLAT
        divided_by = tile.value if DISPLAYS[tile.display].own else tile.value and reach
        marked.append(replace(tile, value=divided_by, weak=weak, flat=flat))
    return marked, reach


EVIDENCE = ("heat", "own heat")
"""Displays of evidence for a target as heat over the image."""
_TOTALED = ("heat", "attention")  # displays of maps whose total means something


def count_weak(body: Part) -> tuple[str, ...]:
    """A note for the caption on maps of a page that are marked as weak.

    Args:
        body: of the page.
    """
    maps = [part for part in body.walk() if isinstance(part, MapTile)]
    weak = [part for part in maps if part.weak]
    below = "in sum below ¼ of the strongest"
    if any(DISPLAYS[part.display].fixed for part in weak):
        below = "over ¾ of the attention is on no patch"
    return (f"weak: {len(weak)} of {len(maps)} maps, {below}",) if weak else ()


def count_flat(body: Part) -> str:
    """For the caption, how many maps of a page are marked as flat.

    Args:
        body: of the page.
    """
    flat = [part.flat for part in body.walk() if isinstance(part, MapTile)]
    return f"flat: {sum(flat)} of {len(flat)} maps"
