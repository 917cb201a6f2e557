"""What a colour means, drawn below a picture: bars for numbers, dots for classes."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .colours import Colours, table
from .picture import INNER_WIDTH, beside
from .text import DARK, GREY, LINE, draw_lines, font, shorten, text_width

DOT = 14


def colour_bar(name: str, low: str, high: str, *, middle: str = "", label: str = "") -> Image.Image:
    """A horizontal bar of a colour map with words or numbers at its ends.

    Args:
        name: of the colour map.
        low: at the left end.
        high: at the right end.
        middle: over the middle, "0" for signed values.
        label: after the right end, in grey: what the numbers are.
    """
    width = 200
    bar = Image.fromarray(np.tile(table(name)[np.linspace(0, 255, width).astype(int)], (LINE - 4, 1, 1)))
    if middle:
        ImageDraw.Draw(bar).text((width // 2, LINE // 2 - 2), middle, fill=DARK, font=font(), anchor="mm")
    parts = [_words(low), bar, _words(high)]
    if label:
        parts.append(draw_lines([label], text_width(label), colour=GREY))
    return beside(parts, gap=8)


def _words(text: str) -> Image.Image:
    return draw_lines([text], text_width(text), colour=DARK)


def class_key(names: Sequence[str], colours: Colours, *, width: int = INNER_WIDTH) -> Image.Image:
    """Coloured dots with class names, wrapped to ``width`` pixels."""
    entries = [shorten(name, 200) for name in names]
    places: list[tuple[int, int]] = []
    left = top = 0
    for entry in entries:
        wide = DOT + 6 + text_width(entry) + 18
        if left and left + wide - 18 > width:
            left, top = 0, top + LINE + 2
        places.append((left, top))
        left += wide
    image = Image.new("RGB", (width, top + LINE), "white")
    draw = ImageDraw.Draw(image)
    for (x, y), entry, colour in zip(places, entries, colours, strict=True):
        draw.ellipse((x, y + 4, x + DOT, y + 4 + DOT), fill=tuple(int(value) for value in colour))
        draw.text((x + DOT + 6, y), entry, fill=DARK, font=font())
    return image
