"""How `layout` draws samples as points, and curves over layers: with NumPy and Pillow, since cards have several."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_viz.plain_text import plain_text
from lightning_viz.render import parts
from lightning_viz.render.colors import colors_of
from lightning_viz.render.text import DARK, GRAY, LINE, WHITE, font, shorten, text_width

_OPACITY = 0.6  # of a point: where several lie it is darker
_CROSS_OPACITY = 0.85
_FRAME = (191, 191, 191)
_FINER = 4  # curves are drawn so many times larger and made smaller, which smooths them
_PALEST, _PALE = 222, 165  # grays of the first of the earlier curves and of the last
_CHANCE = (150, 150, 150)
AXIS_WIDTH = 70  # pixels, left of curves

Mask = NDArray[np.float64]


def draw_scatter(plot: parts.ScatterPlot) -> Image.Image:
    """Samples as points, those out of view at the rim, and the names of classes over them.

    Args:
        plot: the points.
    """
    image = np.full((plot.height, plot.width, 3), 255.0)
    colors = colors_of(plot.classes, len(plot.points), plot.class_count).astype(np.float64)
    places = _pixels(plot.points, plot)
    crossed = np.zeros(len(plot.points), dtype=bool) if plot.crosses is None else plot.crosses
    _stamp(image, places[~crossed], colors[~crossed], plot.size, _disc)
    _stamp(image, places[crossed], colors[crossed], plot.size + 4, _cross)
    sheet = Image.fromarray(np.rint(image).astype(np.uint8))
    pen = ImageDraw.Draw(sheet)
    for name, x, y in plot.names:
        across, down = _pixels(np.array([[x, y]]), plot)[0]
        words = plain_text(name)
        across = min(max(across, text_width(words) / 2 + 3), plot.width - text_width(words) / 2 - 3)
        down = min(max(down, LINE / 2), plot.height - LINE / 2)
        style: dict[str, Any] = {"font": font(), "anchor": "mm", "stroke_width": 2, "stroke_fill": WHITE}
        pen.text((across, down), words, fill=DARK, **style)
    pen.rectangle((0, 0, plot.width - 1, plot.height - 1), outline=_FRAME)
    return sheet


def _pixels(points: NDArray[Any], plot: parts.ScatterPlot) -> NDArray[np.float64]:
    """Places in the picture ``[N, 2]``, across and down, within its frame."""
    x0, x1, y0, y1 = plot.extent
    size, room = np.array([plot.width, plot.height]), plot.size / 2 + 2
    shares = (np.asarray(points, dtype=np.float64) - (x0, y1)) / (x1 - x0, y0 - y1)
    return np.asarray(np.clip(shares * size, room, size - room))


def _stamp(
    image: NDArray[np.float64],
    places: NDArray[np.float64],
    colors: NDArray[np.float64],
    size: float,
    shape: Callable[[Mask, Mask, float], Mask],
) -> None:
    """Blend marks into the image, one over the other; their edges are smooth, their middles not tied to the pixels."""
    reach = int(size / 2 + 1.5)
    firsts = np.floor(places).astype(int) - reach
    pixels = np.arange(2 * reach + 1) + 0.5
    across, down = (pixels + firsts[:, side, None] - places[:, side, None] for side in (0, 1))
    opacity = shape(across[:, None, :], down[:, :, None], size)
    for (left, top), mask, color in zip(firsts.tolist(), opacity, colors, strict=True):
        above, before = max(0, -top), max(0, -left)
        region = image[top + above : top + len(mask), left + before : left + len(mask)]
        part = mask[above : above + region.shape[0], before : before + region.shape[1]]
        region += part[..., None] * (color - region)


def _disc(across: Mask, down: Mask, size: float) -> Mask:
    """How opaque points are in each pixel ``[N, k, k]``, by the distance of the pixel's middle."""
    return np.asarray(_OPACITY * np.clip(size / 2 + 0.5 - np.sqrt(across**2 + down**2), 0, 1))


def _cross(across: Mask, down: Mask, size: float) -> Mask:
    """The same of a cross with arms two pixels thick."""
    arms = 1.5 - np.minimum(abs(across - down), abs(across + down)) / np.sqrt(2)
    ends = size / 2 + 0.5 - np.maximum(abs(across), abs(down))
    return np.asarray(_CROSS_OPACITY * np.clip(np.minimum(arms, ends), 0, 1))


def draw_layer_plot(plot: parts.LayerPlot) -> Image.Image:
    """Curves over layers: earlier steps' pale, the last one's dark, with its points.

    Args:
        plot: the curves.
    """
    count, bottom = plot.curves.shape[1], plot.height - LINE - 4
    slot = (plot.width - AXIS_WIDTH) / count
    across = AXIS_WIDTH + slot * (np.arange(count) + 0.5)
    top, base = LINE // 2, bottom - 6
    large = Image.new("RGB", (plot.width * _FINER, plot.height * _FINER), WHITE)
    pen = ImageDraw.Draw(large)

    def line(places: Any, color: tuple[int, ...], width: float) -> None:
        pen.line([(x * _FINER, y * _FINER) for x, y in places], fill=color, width=round(width * _FINER), joint="curve")

    for share in (0.0, 0.5, 1.0):
        line([(AXIS_WIDTH, base - share * (base - top)), (plot.width, base - share * (base - top))], (232,) * 3, 1)
    if plot.chance is not None:
        height = base - plot.chance * (base - top)
        for start in range(AXIS_WIDTH, plot.width, 12):
            line([(start, height), (min(start + 6, plot.width), height)], _CHANCE, 1.5)
    grays = np.linspace(_PALEST, _PALE, max(1, len(plot.curves) - 1)).round().astype(int).tolist()
    for number, curve in enumerate(plot.curves):
        last = number == len(plot.curves) - 1
        color, width = (DARK, 3.0) if last else ((grays[number],) * 3, 2.0)
        heights = base - np.clip(curve, 0, 1) * (base - top)
        finite = np.isfinite(curve)
        for place in np.flatnonzero(finite[:-1] & finite[1:]).tolist():
            line([(across[place], heights[place]), (across[place + 1], heights[place + 1])], color, width)
        for x, y in zip(across[finite], heights[finite], strict=True):
            reach = 5.0 if last else 2.0
            pen.ellipse([_FINER * side for side in (x - reach, y - reach, x + reach, y + reach)], fill=color)
    sheet = large.reduce(_FINER)
    pen = ImageDraw.Draw(sheet)
    for share, words in ((0.0, "0 %"), (1.0, "100 %")):
        pen.text((AXIS_WIDTH - 8, base - share * (base - top)), words, fill=GRAY, font=font(), anchor="rm")
    for x, name in zip(across, plot.names, strict=True):
        words = plain_text(shorten(name, int(slot) - 8))
        pen.text((x, plot.height - LINE / 2), words, fill=DARK, font=font(), anchor="mm")
    return sheet
