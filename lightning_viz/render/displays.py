"""Displays: how a map becomes a tile, with heat over the sample, sequential, diverging, or as an image of its own."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_viz.render.colors import Colors, table
from lightning_viz.render.parts import ColorBar, MapTile, TileSize
from lightning_viz.render.tiles import find_flaw, to_rgb

__all__ = ["DISPLAYS", "Display", "map_tile"]


@dataclass(frozen=True)
class Display:
    """One way to show maps.

    Args:
        reduced: from a map ``[C, h, w]`` to what is shown of it, ``[h, w]`` or ``[C, h, w]``.
        reach: from that to the number by which it is divided.
        tile: from the image ``[H, W, 3]``, the divided map and a size (width, height) to the tile.
        bar: what the colors mean.
        divided: what it is divided by, for the caption.
    """

    reduced: Callable[[NDArray[Any]], NDArray[Any]]
    reach: Callable[[NDArray[Any]], float]
    tile: Callable[[Colors, NDArray[Any], TileSize], Image.Image]
    bar: ColorBar
    divided: str

    def bar_of(self, maps: str) -> ColorBar:
        """The bar, and after it which maps' colors it explains."""
        return replace(self.bar, label=maps + self.bar.label)


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


def overlay(image: Colors, heat: NDArray[Any], size: TileSize) -> Image.Image:
    """A grayed image with heat over it, whose opacity rises with the heat: where there is none the image is itself.

    Args:
        image: ``[H, W, 3]``, 0 to 255.
        heat: ``[h, w]`` in [0, 1].
        size: width and height in pixels.
    """
    gray = np.asarray(enlarge(image, size).convert("L"), dtype=np.float64)[..., None]
    warmth = np.clip(stretch(heat, size), 0, 1)
    opacity = 0.78 * np.minimum(1, 1.6 * warmth)[..., None]
    colors = table("heat")[np.rint(warmth * 255).astype(np.uint8)]
    return Image.fromarray(np.rint(gray * (1 - opacity) + colors * opacity).astype(np.uint8))


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
DISPLAYS = {
    "heat": Display(lambda g: np.maximum(g.sum(0), 0), _largest, overlay, ColorBar("heat", "0", "maximum"), "maximum"),
    "sum": Display(lambda g: np.abs(g).sum(0), top_percentile, sequential, _SIZE, _99TH),
    "max": Display(lambda g: np.abs(g).max(0), top_percentile, sequential, _SIZE, _99TH),
    "signed": Display(lambda g: g.sum(0), top_percentile, diverging, _SIGNS, _99TH),
    "image": Display(lambda g: g, _largest, as_image, _HALVES, "largest value"),
}
"""By name: heat over the image; the size, summed or largest over the channels; the signed sum; an image of its own."""


def map_tile(
    size: TileSize,
    image: Colors | None,
    values: NDArray[Any],
    display: str,
    *,
    reach: float | None = None,
    sample: int | None = None,
    layer: str = "",
) -> MapTile:
    """A tile of a reduced map, or of why it cannot be shown.

    Args:
        size: width and height in pixels.
        image: the sample ``[H, W, 3]``; None if it plays no part.
        values: what the display's ``reduced`` leaves of a map.
        display: one of `DISPLAYS`.
        reach: what the map is divided by; the display's own for this map if omitted.
        sample: index of the sample on the page.
        layer: name of the layer that the map is of, if any.
    """
    flaw = find_flaw(values)
    value = None if flaw else DISPLAYS[display].reach(values) if reach is None else reach
    return MapTile(size, image, flaw, sample, layer, value=value, values=values, display=display)
