"""Text as it stands in every picture: one typeface, measured, wrapped and shortened."""

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import ImageFont

__all__ = ["fixed_point", "number", "percent", "step_text"]

TITLE_SIZE = 22
TEXT_SIZE = 18  # the smallest anywhere: TensorBoard's card shows it at 9 px
DARK = (26, 26, 26)
GRAY = (100, 100, 100)
RED = (190, 20, 30)
WHITE = (255, 255, 255)
SEPARATOR = " · "
LINE = 24  # height of one line of TEXT_SIZE


@lru_cache(maxsize=8)
def font(size: int = TEXT_SIZE) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it, so that text looks the same on every machine."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def times(sides: Sequence[int]) -> str:
    """Lengths of sides: "3 × 7 × 7"."""
    return " × ".join(map(str, sides))


def text_width(text: str, size: int = TEXT_SIZE) -> int:
    """Width in pixels."""
    return int(font(size).getlength(text)) + 1


def steady_width(text: str, size: int = TEXT_SIZE) -> int:
    """Width in pixels, with room for any other number of the usual length in place of each that stands there."""
    return text_width(_NUMBER.sub(lambda found: max(found[0], _LONGEST, key=len), text), size)


_NUMBER = re.compile(r"(?<![\w.])−?\d[\d,.]*(?:e-?\d+)?(?![\w×]| ×)")  # neither "1st" nor a size, "5 × 5"
_LONGEST = "000000"
_FIGURE = re.compile(r"−?\d(?:[\d,.]*\d)?(?:e-?\d+)?")


def wrap(text: str, width: int, size: int = TEXT_SIZE, *, measure: Callable[[str, int], int] = text_width) -> list[str]:
    """Lines of at most ``width`` pixels, broken between words, or within a word longer than a line.

    Args:
        text: of any length.
        width: in pixels.
        size: of the type, in pixels.
        measure: `steady_width`, if the lines are to break at the same words whatever the numbers are.
    """
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if measure(longer, size) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        line = ""
        for character in word:
            if line and text_width(line + character, size) > width:
                lines.append(line)
                line = ""
            line += character
    return [*lines, line] if line else lines


def wrap_items(items: Sequence[str], width: int) -> list[str]:
    """Join items with " · ", breaking lines between items where possible, and at the same ones whatever numbers say."""
    lines: list[str] = []
    for item in filter(None, items):
        longer = f"{lines[-1]}{SEPARATOR}{item}" if lines else item
        if lines and steady_width(longer) <= width:
            lines[-1] = longer
        else:
            lines.extend(wrap(item, width, measure=steady_width))
    return lines


def level(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Blocks of lines filled up to the height of the highest."""
    most = max(map(len, texts), default=0)
    return [[*lines, *[""] * (most - len(lines))] for lines in texts]


def shorten(text: str, width: int, size: int = TEXT_SIZE, *, suffix: str = "") -> str:
    """The text, cut with an ellipsis where it is wider than ``width`` pixels; ``suffix`` is never cut.

    A number is whole, or left out: one that is cut would be another number.

    >>> shorten("from 12 to 12345", 140)
    'from 12 to…'
    """
    text = whole = " ".join(text.split())
    if text_width(text + suffix, size) <= width:
        return text + suffix
    while text and text_width(f"{text}…{suffix}", size) > width:
        text = text[:-1]
    inside = (found.start() for found in _FIGURE.finditer(whole) if found.start() < len(text) < found.end())
    text = whole[: next(inside, len(text))]
    return f"{text.rstrip()}…{suffix}"


def end_of(name: str, width: int) -> str:
    """A layer's name, cut at its beginning where it is wider than so many pixels: its end tells layers apart."""
    if text_width(name) <= width:
        return name
    while name and text_width(f"…{name}") > width:
        name = name[1:]
    return f"…{name}"


def number(value: float, digits: int = 3) -> str:
    """Significant digits, thousands separated, a true minus sign: ``1,230``, ``−0.042``, ``3.1e-5``.

    Args:
        value: any; of 1,000 or more three digits stand for every place before the point.
        digits: so many, up to 3.

    >>> number(1234.4), number(1234.4, 2), number(-0.0421), number(0.0000314)
    ('1,234', '1,200', '−0.0421', '3.14e-5')
    """
    if value == 0:
        return "0"
    if digits < 3 and math.isfinite(value):
        value = float(f"{value:.{digits}g}")
    written = f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
    mantissa, _, exponent = written.partition("e")
    written = f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return f"−{written[1:]}" if written.startswith("-") else written


def fixed_point(value: float, decimals: int = 2) -> str:
    """So many decimals and a true minus sign, of zero none: ``0.87``, ``−0.30``; a dash for NaN.

    >>> fixed_point(0.874), fixed_point(-0.3), fixed_point(-0.001), fixed_point(-11.25, decimals=1)
    ('0.87', '−0.30', '0.00', '−11.2')
    """
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    return f"{round(value, decimals) + 0:.{decimals}f}".replace("-", "−")


def percent(share: float, decimals: int = 0) -> str:
    """A share in per cent: never 0 for what is more or 100 for what is less, a dash for NaN.

    >>> percent(0.876), percent(0.0004), percent(0.9999), percent(0.9999, decimals=1), percent(float("nan"))
    ('88', '0.04', '99', '99.9', '–')
    """
    if not math.isfinite(share):
        return "–"
    value, unit = 100 * float(share), 10**-decimals
    if 0 < value < unit:
        return f"{value:.1g}" if value >= 0.01 else "<0.01"
    return f"{round(min(value, 100 - unit), decimals):g}" if value < 100 else "100"


def step_text(step: int) -> str:
    """``step 1,230``."""
    return f"step {step:,}"


def some_of(shown: int, count: int, things: str) -> str:
    """For the caption: "8 of 10 samples", or nothing if all are shown."""
    return f"{shown} of {count} {things}" if shown < count else ""


def first_of(shown: int, count: int, things: str) -> str:
    """For the caption: "the first 8 of 10 samples", or nothing if all are shown."""
    few = "" if shown == 1 else f"{shown} "
    return f"the first {few}of {count} {things}".rstrip() if shown < count else ""
