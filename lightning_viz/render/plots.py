"""Plots: matplotlib's object interface on white, with the page's type sizes, whatever the user's settings are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import Colors, class_colors, colors_of, table
from lightning_viz.render.page import INNER_WIDTH, beside
from lightning_viz.render.text import DARK, GRAY, LINE, TEXT_SIZE, draw_lines, font, number, shorten, text_width

Extent = tuple[float, float, float, float]  # x0, x1, y0, y1

DPI = 100
POINT = 72 / DPI  # points in a pixel
MOST_NAMES = 20  # beyond it names would cover the points, and colors repeat
DOT = 5  # pixels


class Canvas:
    """A figure of some pixels and what it becomes."""

    def __init__(self, width: int, height: int) -> None:
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        self.agg = FigureCanvasAgg(self.figure)

    def axes(self, left: int, bottom: int, width: int, height: int) -> Axes:
        """Axes at a place given in pixels."""
        whole_width, whole_height = (float(side) for side in self.agg.get_width_height())
        place = (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
        return self.figure.add_axes(place)

    def image(self) -> Image.Image:
        """The figure drawn."""
        self.agg.draw()
        return Image.fromarray(np.asarray(self.agg.buffer_rgba())[..., :3].copy())


@contextmanager
def canvas(width: int, height: int) -> Iterator[Canvas]:
    """A blank figure of ``width`` by ``height`` pixels, under matplotlib's default style."""
    with matplotlib.style.context("default"):
        yield Canvas(width, height)


def frame_size(extent: Extent, width: int, height: int) -> tuple[int, int]:
    """The largest width and height of an axes with equal units that show ``extent`` within the room given."""
    x0, x1, y0, y1 = extent
    if not (np.isfinite(extent).all() and x1 > x0 and y1 > y0):
        raise InvalidArgumentError(f"extent is (x0, x1, y0, y1) with x0 < x1 and y0 < y1, got {extent}")
    aspect = min(max((y1 - y0) / (x1 - x0), 0.2), 5.0)
    wide = min(width, round(height / aspect))
    return wide, round(wide * aspect)


def bare(axes: Axes, extent: Extent) -> None:
    """Equal units, a fixed extent, no ticks, a pale frame."""
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("0.75")


def ticks(axes: Axes, extent: Extent) -> None:
    """Numbers at the ends of both axes."""
    axes.set_xticks(extent[:2], [number(value) for value in extent[:2]], fontsize=TEXT_SIZE * POINT, color="0.35")
    axes.set_yticks(extent[2:], [number(value) for value in extent[2:]], fontsize=TEXT_SIZE * POINT, color="0.35")
    # Inwards from the ends, so that numbers do not run out of the picture.
    axes.get_xticklabels()[0].set_horizontalalignment("left")
    axes.get_xticklabels()[1].set_horizontalalignment("right")
    axes.get_yticklabels()[0].set_verticalalignment("bottom")
    axes.get_yticklabels()[1].set_verticalalignment("top")


def dots(
    axes: Axes,
    points: NDArray[Any],
    labels: NDArray[Any] | None,
    *,
    classes: int | None = None,
    size: float = DOT,
    alpha: float = 0.6,
    edge: str = "none",
    marker: str = "o",
) -> None:
    """Points ``[N, 2]`` in class colors, ``size`` pixels across."""
    colors = colors_of(labels, len(points), classes) / 255
    axes.scatter(
        points[:, 0],
        points[:, 1],
        s=(size * POINT) ** 2,
        c=colors,
        alpha=alpha,
        marker=marker,
        linewidths=2 * POINT if marker == "x" else 0.5 if edge != "none" else 0,
        edgecolors=None if marker == "x" else edge,
        zorder=3,
    )


def names_at_medians(
    axes: Axes, points: NDArray[Any], labels: NDArray[Any], names: tuple[str, ...] | None, *, size: int = TEXT_SIZE
) -> None:
    """Each class's name, haloed in white, at the median of its points; none where there are too many to read."""
    present = [int(label) for label in np.unique(labels) if label >= 0]
    if len(present) > MOST_NAMES:
        return
    for label in present:
        middle = np.median(points[labels == label], axis=0)
        axes.text(
            middle[0],
            middle[1],
            shorten(name_of(label, names), 200),
            fontsize=size * POINT,
            ha="center",
            va="center",
            color=np.array(DARK) / 255,
            path_effects=[withStroke(linewidth=4 * POINT, foreground="white", alpha=0.9)],
            zorder=5,
            clip_on=True,
        )


def name_of(label: int, names: tuple[str, ...] | None) -> str:
    """The class's name, or its number where there is none."""
    return names[label] if names is not None and 0 <= label < len(names) else str(label)


def class_count(labels: NDArray[Any] | None, names: tuple[str, ...] | None) -> int:
    """How many classes there are to color: as many as have names, or as labels say."""
    highest = 0 if labels is None or not len(labels) else int(np.max(labels)) + 1
    return max(highest, len(names or ()))


def key_entries(
    labels: NDArray[Any] | None, names: tuple[str, ...] | None, most: int = MOST_NAMES
) -> tuple[list[str], NDArray[np.uint8]]:
    """Names and colors ``[n, 3]`` for a key of the classes, none where they are too many to tell apart."""
    count = class_count(labels, names)
    if not count or count > most:
        return [], np.zeros((0, 3), dtype=np.uint8)
    named = [name_of(label, names) if names else f"class {label}" for label in range(count)]
    return named, class_colors(count)


KEY_DOT = 14


def color_bar(name: str, low: str, high: str, *, middle: str = "", label: str = "") -> Image.Image:
    """A horizontal bar of a color map with words or numbers at its ends.

    Args:
        name: of the color map.
        low: at the left end.
        high: at the right end.
        middle: over the middle, "0" for signed values.
        label: after the right end, in gray: what the numbers are.
    """
    width = 200
    bar = Image.fromarray(np.tile(table(name)[np.linspace(0, 255, width).astype(int)], (LINE - 4, 1, 1)))
    if middle:
        ImageDraw.Draw(bar).text((width // 2, LINE // 2 - 2), middle, fill=DARK, font=font(), anchor="mm")
    parts = [_words(low), bar, _words(high)]
    if label:
        parts.append(draw_lines([label], text_width(label), color=GRAY))
    return beside(parts, gap=8)


def _words(text: str) -> Image.Image:
    return draw_lines([text], text_width(text), color=DARK)


def class_key(names: Sequence[str], colors: Colors, *, width: int = INNER_WIDTH) -> Image.Image:
    """Colored dots with class names, wrapped to ``width`` pixels."""
    entries = [shorten(name, 200) for name in names]
    places: list[tuple[int, int]] = []
    left = top = 0
    for entry in entries:
        wide = KEY_DOT + 6 + text_width(entry) + 18
        if left and left + wide - 18 > width:
            left, top = 0, top + LINE + 2
        places.append((left, top))
        left += wide
    image = Image.new("RGB", (width, top + LINE), "white")
    draw = ImageDraw.Draw(image)
    for (x, y), entry, color in zip(places, entries, colors, strict=True):
        draw.ellipse((x, y + 4, x + KEY_DOT, y + 4 + KEY_DOT), fill=tuple(int(value) for value in color))
        draw.text((x + KEY_DOT + 6, y), entry, fill=DARK, font=font())
    return image
