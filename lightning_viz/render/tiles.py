"""Tiles: pixels for display, verdicts under samples, sizes that fill the page, and flaws that leave nothing to see."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import Colors
from lightning_viz.render.parts import BODY_HEIGHT, INNER_WIDTH, HStack, Part, PlotExtent, Text, TileSize, VStack
from lightning_viz.render.text import DARK, GRAY, RED, level, shorten, text_width

__all__ = ["Flaw", "Verdict", "count_flaws", "describe_channels", "find_flaw", "fit", "to_rgb", "verdict_texts"]

GUTTER = 6
COLUMNS = 8
CROSS = "✗ "


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


def describe_channels(channels: int) -> str:
    """What :func:`to_rgb` did to images of so many channels, for the caption: "mean of 6 channels", or nothing."""
    return "" if channels in (1, 3) else f"mean of {channels} channels"


def check_rgb(images: NDArray[Any]) -> None:
    """Raise where ``images`` are not ``[N, H, W, 3]`` of 0 to 255."""
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise InvalidArgumentError(
            f"images are uint8 [N, H, W, 3], got {images.dtype} {images.shape}; use tiles.to_rgb"
        )


def check_count(what: str, given: Sized, count: int) -> None:
    """Raise where there is not one of ``what`` for each of ``count`` things."""
    if len(given) != count:
        raise InvalidArgumentError(f"{len(given)} {what} for {count}: give one each")


def check_shape(name: str, values: NDArray[Any], *shape: int | str, filled: bool = False, remedy: str = "") -> None:
    """Raise where an array has another shape.

    Args:
        name: of the argument.
        values: of any type.
        shape: lengths of the axes; a letter or a word, which the message shows, stands for any.
        filled: raise where there are no values, too.
        remedy: what to do, if it is more than to give that shape.
    """
    known = [(side, length) for side, length in zip(shape, values.shape, strict=False) if isinstance(side, int)]
    if values.ndim != len(shape) or any(side != length for side, length in known) or (filled and not values.size):
        wanted = f"give [{', '.join(map(str, shape))}]{', none of them 0' if filled else ''}"
        raise InvalidArgumentError(
            f"the shape of {name} is {list(values.shape)}: {'; '.join(filter(None, (wanted, remedy)))}"
        )


def some_of(shown: int, count: int, things: str) -> str:
    """For the caption: "8 of 10 samples", or nothing if all are shown."""
    return f"{shown} of {count} {things}" if shown < count else ""


def first_of(shown: int, count: int, things: str) -> str:
    """For the caption: "the first 8 of 10 samples", or nothing if all are shown."""
    return f"the first {shown} of {count} {things}".rstrip() if shown < count else ""


VERDICTS = "true → predicted, confidence"
"""What is written under samples."""


@dataclass(frozen=True)
class Verdict:
    """What a sample is and what the network says.

    Args:
        truth: the label's name.
        prediction: the predicted class's name.
        confidence: of the prediction, 0 to 1.
    """

    truth: str | None = None
    prediction: str | None = None
    confidence: float | None = None

    @property
    def mistaken(self) -> bool:
        """Both are known and differ."""
        return None not in (self.truth, self.prediction) and self.truth != self.prediction

    def lines(self, width: int) -> list[str]:
        """``truth → prediction 87 %`` where it fits into `width` pixels; else ``✓ truth 87 %``, or two lines."""
        cross = CROSS if self.mistaken else ""
        percent = "" if self.confidence is None else f"  {confidence_text(self.confidence)}"
        if self.prediction is None:
            return [shorten(self.truth, width)] if self.truth is not None else []
        if self.truth is None:
            return [shorten(self.prediction, width, suffix=percent)]
        whole = f"{cross}{self.truth} → {self.prediction}{percent}"
        if text_width(whole) <= width:
            return [whole]
        if not cross:
            right = f"✓ {self.truth}{percent}"
            return [right] if text_width(right) <= width else [shorten(f"✓ {self.truth}", width), percent.strip()]
        return [shorten(cross + self.truth, width, suffix=" →"), shorten(self.prediction, width, suffix=percent)]


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


def in_rows(parts: Sequence[Part], columns: int, gap: int) -> list[HStack]:
    """Parts side by side, so many in a row."""
    return [HStack(parts[start : start + columns], gap=gap) for start in range(0, len(parts), columns)]


def in_columns(*rows: Sequence[Part], gap: int) -> list[VStack]:
    """The parts of several rows, such as tiles and texts, those of each column one below the other."""
    return [VStack(parts, gap=gap) for parts in zip(*rows, strict=True)]


def heads(words: Sequence[str], width: int) -> list[Text]:
    """What stands over columns, gray and centered; cut where it is wider."""
    return [Text([shorten(word, width)], width, color=GRAY, centered=True) for word in words]


def fit(
    columns: int,
    rows: int,
    aspect: float,
    *,
    under: int = 0,
    gap: int = GUTTER,
    room: int = BODY_HEIGHT,
    across: int = INNER_WIDTH,
) -> TileSize:
    """Width and height of tiles so that ``columns`` by ``rows`` of them fill the page's width or the room's height.

    Args:
        columns: side by side.
        rows: one below the other.
        aspect: height over width; kept, unless beyond 1:4.
        under: pixels of text below each row.
        gap: pixels between neighbors.
        room: pixels of height for all rows.
        across: pixels of width for all columns; the page's.
    """
    aspect = min(max(aspect, 0.25), 4.0)
    width = (across - gap * (columns - 1)) // columns
    height = room // rows - under - gap
    width = max(8, min(width, int(height / aspect)))
    return width, max(8, round(width * aspect))


def frame_size(extent: PlotExtent, width: int, height: int) -> tuple[int, int]:
    """The largest width and height of an axes with equal units that show ``extent`` within the room given."""
    x0, x1, y0, y1 = extent
    if not (np.isfinite(extent).all() and x1 > x0 and y1 > y0):
        raise InvalidArgumentError(f"extent is (x0, x1, y0, y1) with x0 < x1 and y0 < y1, got {extent}")
    aspect = min(max((y1 - y0) / (x1 - x0), 0.2), 5.0)
    wide = min(width, round(height / aspect))
    return wide, round(wide * aspect)


class Flaw(str, Enum):
    """Why there is nothing to see in a map or an image: the reason in words."""

    NOT_REACHED = "not reached"
    NAN = "NaN"
    INFINITE = "infinite"
    SINGLE = "1 × 1 map"
    ZERO = "all zero"
    FLAT = "flat"
    CONSTANT = "constant"


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
    flaws: Sequence[Flaw | None], things: str, words: Mapping[Flaw, str] = MappingProxyType({})
) -> tuple[str, ...]:
    """Notes for the caption: ("NaN in 3 of 16 maps", "all zero in 2 of 16 maps").

    Args:
        flaws: one for each thing.
        things: what they are, in the plural.
        words: for a flaw that is to be written otherwise than by its value.
    """
    kinds = [flaw for flaw in dict.fromkeys(flaws) if flaw is not None]
    return tuple(f"{words.get(kind, kind.value)} in {flaws.count(kind)} of {len(flaws)} {things}" for kind in kinds)
