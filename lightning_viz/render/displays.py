"""How a map over an image becomes a tile: as heat over the image, by size, with its sign, or as an image itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .colours import Colours, table
from .legends import colour_bar
from .tiles import enlarge, stretch, to_rgb

Size = tuple[int, int]


@dataclass(frozen=True)
class Display:
    """One way to show maps.

    Args:
        reduced: from a map ``[C, h, w]`` to what is shown of it, ``[h, w]`` or ``[C, h, w]``.
        reach: from that to the number by which it is divided.
        tile: from the image ``[H, W, 3]``, the divided map and a size (width, height) to the tile.
        bar: what the colours mean; of which maps goes after it.
        divided: what it is divided by, for the caption.
    """

    reduced: Callable[[NDArray[Any]], NDArray[Any]]
    reach: Callable[[NDArray[Any]], float]
    tile: Callable[[Colours, NDArray[Any], Size], Image.Image]
    bar: Callable[[str], Image.Image]
    divided: str


def top_percentile(values: NDArray[Any]) -> float:
    """The 99th percentile of the size of a map, or its maximum where that is zero."""
    size = np.abs(values)
    return float(np.percentile(size, 99)) or float(size.max())


def overlay(image: Colours, heat: NDArray[Any], size: Size) -> Image.Image:
    """A greyed image with heat over it, whose opacity rises with the heat: where there is none the image is itself.

    Args:
        image: ``[H, W, 3]``, 0 to 255.
        heat: ``[h, w]`` in [0, 1].
        size: width and height in pixels.
    """
    grey = np.asarray(enlarge(image, size).convert("L"), dtype=np.float64)[..., None]
    warmth = np.clip(stretch(heat, size), 0, 1)
    opacity = 0.78 * np.minimum(1, 1.6 * warmth)[..., None]
    colours = table("heat")[np.rint(warmth * 255).astype(np.uint8)]
    return Image.fromarray(np.rint(grey * (1 - opacity) + colours * opacity).astype(np.uint8))


def sequential(image: Colours, values: NDArray[Any], size: Size) -> Image.Image:
    """A map drawn black where it is zero.

    Args:
        image: plays no part.
        values: ``[h, w]`` in [0, 1].
        size: width and height in pixels.
    """
    warmth = np.clip(stretch(values, size, smooth=False), 0, 1)
    return Image.fromarray(table("magma")[np.rint(warmth * 255).astype(np.uint8)])


def diverging(image: Colours, values: NDArray[Any], size: Size) -> Image.Image:
    """A map drawn blue, grey, red.

    Args:
        image: plays no part.
        values: ``[h, w]`` in [-1, 1].
        size: width and height in pixels.
    """
    signed = np.clip(stretch(values, size, smooth=False), -1, 1)
    return Image.fromarray(table("diverging")[np.rint((signed + 1) / 2 * 255).astype(np.uint8)])


def as_image(image: Colours, values: NDArray[Any], size: Size) -> Image.Image:
    """A map as an image around middle grey: g / max + 0.5.

    Args:
        image: plays no part.
        values: g / max, ``[C, h, w]``.
        size: width and height in pixels.
    """
    return enlarge(to_rgb(values[None] + 0.5)[0], size)


DISPLAYS = {
    "heat": Display(
        lambda g: np.maximum(g.sum(0), 0),
        lambda heat: float(heat.max()),
        overlay,
        lambda of: colour_bar("heat", "0", "maximum", label=of),
        "maximum",
    ),
    "sum": Display(
        lambda g: np.abs(g).sum(0),
        top_percentile,
        sequential,
        lambda of: colour_bar("magma", "0", "99th percentile", label=of),
        "99th percentile",
    ),
    "max": Display(
        lambda g: np.abs(g).max(0),
        top_percentile,
        sequential,
        lambda of: colour_bar("magma", "0", "99th percentile", label=of),
        "99th percentile",
    ),
    "signed": Display(
        lambda g: g.sum(0),
        top_percentile,
        diverging,
        lambda of: colour_bar("diverging", "against", "for", middle="0", label=of),
        "99th percentile",
    ),
    "image": Display(
        lambda g: g,
        lambda g: float(np.abs(g).max()),
        as_image,
        lambda of: colour_bar("gray", "−½ max", "½ max", middle="0", label=f"{of}, for red, green and blue"),
        "largest value",
    ),
}
"""By name: heat over the image; the size, summed or largest over the channels; the signed sum; an image of its own."""
