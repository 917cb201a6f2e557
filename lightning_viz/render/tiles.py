"""Tiles: one sample or one map each, alike in size, enlarged without lying, hatched where there is nothing to see."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import Colors, hatch
from lightning_viz.render.page import BODY_HEIGHT, INNER_WIDTH
from lightning_viz.render.text import DARK, LINE, RED, TEXT_SIZE, draw_lines, shorten, text_width, wrap

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


def check_images(images: NDArray[Any]) -> None:
    """Raise where ``images`` are not ``[N, H, W, 3]`` of 0 to 255."""
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise InvalidArgumentError(
            f"images are uint8 [N, H, W, 3], got {images.dtype} {images.shape}; use tiles.to_rgb"
        )


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


def draw_verdicts(verdicts: list[Verdict], width: int) -> list[Image.Image]:
    """The verdicts as blocks of one height, ``width`` pixels wide."""
    texts = [verdict.lines(width) for verdict in verdicts]
    most = max((len(lines) for lines in texts), default=0)
    return [
        draw_lines([*lines, *[""] * (most - len(lines))], width, color=RED if verdict.mistaken else DARK)
        for verdict, lines in zip(verdicts, texts, strict=True)
    ]


def fit(
    columns: int,
    rows: int,
    aspect: float,
    *,
    under: int = 0,
    gap: int = GUTTER,
    room: int = BODY_HEIGHT,
    across: int = INNER_WIDTH,
) -> tuple[int, int]:
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


def enlarge(image: Colors, size: tuple[int, int]) -> Image.Image:
    """An image ``[H, W, 3]`` at ``size`` (width, height): enlarged by nearest neighbor, never blurred."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    larger = size[0] >= picture.width and size[1] >= picture.height
    return picture.resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS)


def stretch(values: NDArray[Any], size: tuple[int, int], *, smooth: bool = True) -> NDArray[np.float32]:
    """A map ``[h, w]`` at ``size`` (width, height), bilinear (``align_corners=False``) or by nearest neighbor."""
    values = np.asarray(values, dtype=np.float32)
    smaller = size[0] < values.shape[1] or size[1] < values.shape[0]
    how = Image.Resampling.BILINEAR if smooth or smaller else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(values).resize(size, how))


def flaw(values: NDArray[Any], *, single: bool = True) -> str:
    """Why a map ``[h, w]`` cannot be shown: "not reached" (empty), "NaN", "infinite", "1 × 1 map", "all zero", or "".

    Args:
        values: the map.
        single: whether a map of one value cannot be shown either.
    """
    if values.size == 0:
        return "not reached"
    if np.isnan(values).any():
        return "NaN"
    if np.isinf(values).any():
        return "infinite"
    if single and values.shape[-2:] == (1, 1):
        return "1 × 1 map"
    return "" if values.any() else "all zero"


def count_flaws(flaws: list[str], things: str) -> tuple[str, ...]:
    """Notes for the caption: ("NaN in 3 of 16 maps", "all zero in 2 of 16 maps")."""
    kinds = dict.fromkeys(filter(None, flaws))
    return tuple(f"{kind} in {flaws.count(kind)} of {len(flaws)} {things}" for kind in kinds)


def hatched(size: tuple[int, int], words: str) -> Image.Image:
    """A hatched tile of ``size`` (width, height) with words in its middle, where they fit."""
    tile = Image.fromarray(hatch(*size))
    lines = wrap(words, size[0])
    while lines and len(lines) * LINE > size[1]:
        lines.pop()
    if lines and size[0] > 2 * TEXT_SIZE:
        plate = draw_lines(lines, min(size[0], max(map(text_width, lines)) + 6), centered=True)
        tile.paste(plate, ((size[0] - plate.width) // 2, (size[1] - plate.height) // 2))
    return tile
