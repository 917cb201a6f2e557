"""Tiles: pixels for display, verdicts under samples, sizes that fill the page, and flaws that leave nothing to see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import Colors
from lightning_viz.render.parts import Text
from lightning_viz.render.text import DARK, RED, level, shorten, text_width

__all__ = ["Flaw", "Verdict", "count_flaws", "describe_channels", "find_flaw", "to_rgb", "verdict_texts"]

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
