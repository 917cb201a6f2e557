"""Pages of many steps as one animated GIF."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.page import Picture
from lightning_viz.render.text import DARK, GRAY, RED

__all__ = ["animate", "thin"]

_MOST_FRAMES = 60
_MOST_BYTES = 2_000_000
FRAME_MILLISECONDS = 125
_LAST_MILLISECONDS = 2000
_SMALLEST = 0.7  # of the pages' size, before frames are dropped instead
_FEWEST = 12
_SPARED = 2
_EXACT = ((255, 255, 255), DARK, GRAY, RED)  # ground and text keep their colors


def thin(steps: Sequence[int], most: int = _MOST_FRAMES) -> list[int]:
    """Which frames to keep, spread evenly over the logarithm of the step; first and last always.

    Args:
        steps: ascending.
        most: frames to keep at the most.

    Returns:
        Ascending indices into ``steps``.

    >>> thin([0, 1, 2, 3, 6, 10, 18, 32, 56, 100], most=4)
    [0, 3, 6, 9]
    """
    if len(steps) <= most:
        return list(range(len(steps)))
    if most < 2:
        return [len(steps) - 1]
    places = np.log1p(np.asarray(steps, dtype=np.float64) - steps[0])
    kept = [0]
    # Greedy, so that as many frames as are wanted are kept even where the steps are not logarithmic.
    for slot in range(1, most - 1):
        wanted = places[-1] * slot / (most - 1)
        first, last = kept[-1] + 1, len(steps) - (most - slot)
        kept.append(first + int(np.abs(places[first : last + 1] - wanted).argmin()))
    return [*kept, len(steps) - 1]


def animate(
    tag: str, frames: Sequence[tuple[int, bytes]], *, description: str, hold: int = _LAST_MILLISECONDS
) -> Picture:
    """An animated GIF: eight frames a second, the last held for two, at most 60 frames and 2 MB.

    Args:
        tag: where the picture stands in TensorBoard.
        frames: (step, PNG bytes) of pages that show their step, in any order.
        description: Markdown for TensorBoard.
        hold: of the last frame, in milliseconds.
    """
    if not frames:
        raise InvalidArgumentError("an animation needs at least one frame, got none")
    ordered = sorted(frames, key=lambda frame: frame[0])
    steps = [step for step, _ in ordered]
    kept = thin(steps)
    pages = _same_size([Image.open(BytesIO(ordered[index][1])).convert("RGB") for index in kept])
    steps = [steps[index] for index in kept]
    scale = 1.0
    while True:
        data, size = _encode(pages, scale, hold)
        if len(data) <= _MOST_BYTES or (len(pages) <= 2 and scale < 0.2):
            return Picture(tag, data, *size, description)
        excess = len(data) / _MOST_BYTES
        if scale > _SMALLEST or len(pages) <= _FEWEST:
            floor = _SMALLEST if scale > _SMALLEST else 0.1
            scale = max(floor, scale * min(0.93, 0.97 / excess**0.5))
        else:
            kept = thin(steps, max(_FEWEST, int(len(pages) * min(0.9, 0.97 / excess))))
            pages, steps = [pages[index] for index in kept], [steps[index] for index in kept]


def _same_size(pages: list[Image.Image]) -> list[Image.Image]:
    """Pages on white canvases as large as the largest, so that nothing jumps."""
    width, height = max(page.width for page in pages), max(page.height for page in pages)
    sheets = [Image.new("RGB", (width, height), "white") for _ in pages]
    for sheet, page in zip(sheets, pages, strict=True):
        sheet.paste(page, (0, 0))
    return sheets


def _encode(pages: list[Image.Image], scale: float, hold: int) -> tuple[bytes, tuple[int, int]]:
    size = (max(1, round(pages[0].width * scale)), max(1, round(pages[0].height * scale)))
    frames = pages if scale == 1 else [page.resize(size, Image.Resampling.LANCZOS) for page in pages]
    palette = _shared_palette(frames)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [FRAME_MILLISECONDS] * (len(indexed) - 1) + [hold]
    buffer = BytesIO()
    indexed[0].save(
        buffer, format="GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=True
    )  # optimized: what does not change from frame to frame is not written again
    return buffer.getvalue(), size


def _shared_palette(frames: list[Image.Image], samples: int = 8) -> Image.Image:
    """One palette for all frames, so that colors do not flicker: of a few of them, the first and the last included."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(samples, len(frames))).round().astype(int))
    width, height = -(-frames[0].width // _SPARED), -(-frames[0].height // _SPARED)
    strip = Image.new("RGB", (width, height * len(chosen)))
    for place, index in enumerate(chosen):  # every second pixel of every second row holds the same colors
        strip.paste(frames[index].resize((width, height), Image.Resampling.NEAREST), (0, place * height))
    palettes = [_palette(strip, method) for method in (Image.Quantize.MEDIANCUT, Image.Quantize.FASTOCTREE)]
    return min(palettes, key=lambda palette: _error(strip, palette))


def _palette(image: Image.Image, method: Image.Quantize) -> Image.Image:
    """The exact colors, and those that a method finds for the rest."""
    exact = [value for color in _EXACT for value in color]
    found = image.quantize(colors=256 - len(_EXACT), method=method).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette((exact + found)[: 3 * 256])
    return palette


def _error(image: Image.Image, palette: Image.Image) -> float:
    """What a palette does to an image: median cut is good at grays, an octree at rare colors.

    The mean fourth power of the difference, so that a few that are far off count for more than many that are near.
    """
    indexed = image.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB")
    difference = np.asarray(image, np.float32) - np.asarray(indexed, np.float32)
    return float(np.power(difference, 4).mean())
