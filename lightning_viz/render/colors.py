"""What colors mean: sequential for amounts, diverging for signed values, one color a class, hatching for nothing."""

from functools import lru_cache
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from numpy.typing import NDArray

__all__ = ["class_colors"]

Colors: TypeAlias = NDArray[np.uint8]  # [..., 3]

# Okabe and Ito's eight, those that read best on white first; their yellow darkened, for the same reason.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#C8B400")
UNKNOWN = (150, 150, 150)
MOST_NAMES = 20  # beyond it names would cover the points, and colors repeat
NEUTRAL = 232  # light gray: zero stands out from the white page

_DIVERGING = ((5, 48, 97), (33, 102, 172), (90, 160, 205), (NEUTRAL,) * 3, (226, 120, 92), (178, 24, 43), (103, 0, 31))


@lru_cache(maxsize=8)
def table(name: str) -> Colors:
    """256 colors ``[256, 3]``.

    Args:
        name: "diverging" (blue, light gray, red), "beyond usual" (the same, gray over its middle third), "heat"
            (inferno without the ends that pass for black and white, so that it stands out from a gray photograph),
            "bright heat" (without its dark part, for what is seen from its first trace), or any of matplotlib's maps,
            such as "magma".
    """
    if name in ("diverging", "beyond usual"):
        gap = 85 * (name == "beyond usual")
        places = np.concatenate([np.linspace(0, 127.5 - gap / 2, 4), np.linspace(127.5 + gap / 2, 255, 4)])
        anchors = np.array([*_DIVERGING[:4], *_DIVERGING[3:]], dtype=float)
        channels = [np.interp(np.arange(256), places, anchors[:, channel]) for channel in range(3)]
        colors = np.stack(channels, axis=1).round()
    elif name in ("heat", "bright heat"):
        first = 0.2 if name == "heat" else 0.4
        colors = matplotlib.colormaps["inferno"](np.linspace(first, 0.92, 256), bytes=True)[:, :3]
    else:
        colors = matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]
    frozen: Colors = np.array(colors, dtype=np.uint8)
    frozen.setflags(write=False)
    return frozen


def apply(name: str, values: NDArray[Any], low: float, high: float) -> Colors:
    """Colors ``[..., 3]`` of values; beyond the ends the map saturates.

    Args:
        name: of the color map (see `table`).
        values: any shape, finite.
        low: the value at the map's lower end.
        high: the value at its upper end.
    """
    span = high - low if high > low else 1.0
    scaled = np.clip((np.asarray(values, dtype=np.float64) - low) / span, 0, 1)
    return np.asarray(table(name)[np.rint(scaled * 255).astype(np.uint8)])


def class_colors(count: int) -> Colors:
    """One color a class ``[count, 3]``: Okabe-Ito up to eight, then tab20 (dark ten first), cycled beyond twenty."""
    if count <= len(OKABE_ITO):
        palette = [tuple(bytes.fromhex(color[1:])) for color in OKABE_ITO]
    else:
        shades = matplotlib.colormaps["tab20"](np.arange(20), bytes=True)[:, :3]
        palette = [tuple(shade) for shade in (*shades[0::2], *shades[1::2])]
    return np.array([palette[index % len(palette)] for index in range(count)], dtype=np.uint8).reshape(-1, 3)


def colors_of(labels: NDArray[Any] | None, samples: int, classes: int | None = None) -> Colors:
    """The class color of each sample ``[samples, 3]``; gray without labels and for negative ones."""
    colors = np.full((samples, 3), UNKNOWN, dtype=np.uint8)
    if labels is not None and samples:
        labels = np.asarray(labels).astype(int)
        palette = class_colors(max(classes or 0, int(labels.max()) + 1))
        known = labels >= 0
        colors[known] = palette[labels[known]]
    return colors


def name_of(label: int, names: tuple[str, ...] | None) -> str:
    """The class's name, or its number where there is none."""
    return names[label] if names is not None and 0 <= label < len(names) else str(label)


def class_count(labels: NDArray[Any] | None, names: tuple[str, ...] | None) -> int:
    """How many classes there are to color: as many as have names, or as labels say."""
    highest = 0 if labels is None or not len(labels) else int(np.max(labels)) + 1
    return max(highest, len(names or ()))


def key_entries(labels: NDArray[Any] | None, names: tuple[str, ...] | None) -> tuple[list[str], NDArray[np.uint8]]:
    """Names and colors ``[n, 3]`` for a key of the classes, none where they are too many to tell apart."""
    count = class_count(labels, names)
    if not count or count > MOST_NAMES:
        return [], np.zeros((0, 3), dtype=np.uint8)
    named = [name_of(label, names) if names else f"class {label}" for label in range(count)]
    return named, class_colors(count)


def pale(colors: Colors, strength: float) -> Colors:
    """The colors mixed with white, ``strength`` of 1 leaving them as they are."""
    mixed = np.rint(255 - (255 - colors.astype(float)) * strength)
    return np.asarray(mixed, dtype=np.uint8)


def hatch(width: int, height: int) -> Colors:
    """Diagonal light gray lines ``[height, width, 3]``: nothing to see here."""
    rows, columns = np.indices((height, width))
    stripe = (rows + columns) % 12 < 3
    return np.asarray(np.where(stripe[..., None], 205, 240).repeat(3, axis=2), dtype=np.uint8)
