"""Series and volumes on a page: series as curves over time, volumes as their slices, and maps beside them likewise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_viz.render.colors import Colors
from lightning_viz.render.text import DARK, RED, WHITE, font, text_width
from lightning_viz.render.tiles import enlarge, stretch

__all__ = ["as_images", "as_planes", "choose_slices", "curve_images", "most_samples", "strongest_slices"]

MOST_SLICES = 9
_MOST_PANELS = 8  # of channels, one below the other; more of them lie over each other in one
_MOST_SAMPLES = {3: 8, 5: 3}  # by the number of axes of the inputs
_CURVE_SIZE = (480, 320)  # width and height in pixels
_STROKE = 4
_SLICE = 96  # pixels that a slice's longer side has at least
_GAP = 4  # between slices
_FRAME = 4
_DIVIDER = (205, 205, 205)  # between panels, and between slices
_PLATE_SIZE = 15  # of a slice's number


def most_samples(images: NDArray[Any], most: int) -> int:
    """How many samples a page shows: fewer of series and volumes, which need room.

    Args:
        images: see `as_planes`.
        most: images on the page.
    """
    return min(most, _MOST_SAMPLES.get(images.ndim, most))


def as_planes(
    images: NDArray[Any], maps: NDArray[Any], *, most: int = MOST_SLICES, lead: int = 2
) -> tuple[Colors, NDArray[Any], tuple[str, ...]]:
    """Inputs as images, maps as maps that lie over them, and what a caption must say of both.

    Args:
        images: ``[N, H, W, 3]``, which stay as they are; series ``[N, C, L]``, which become curves; or volumes and
            videos ``[N, D, H, W, 3]``, which become slices side by side, that in which the map is strongest framed.
        maps: of them ``[N, C, *S]``, of which one row or one slice belongs to one place of the inputs.
        most: slices of a volume; with 1 only that in which its map is strongest.
        lead: axes of the maps before their places; 3 with a class before the sample.

    Returns:
        Images ``[N, H, W, 3]``, maps ``[N, C, h, w]``, facts.
    """
    if images.ndim == 3:
        channels, length = images.shape[1:]
        rows = channels if channels <= _MOST_PANELS else 1
        if maps.ndim == lead + 1:
            by_channel = maps.shape[-2] == rows > 1
            maps = np.expand_dims(maps, -3 if by_channel else -2)
        how = f"one row for each of {channels} channels" if rows > 1 else f"{channels} channels in one" * (channels > 1)
        return curve_images(images), maps, (f"time from left to right, {length:,} steps", *filter(None, [how]))
    if images.ndim == 5:
        pictures, planes, facts = _slices(images, maps if maps.ndim == lead + 3 else None, most, lead)
        return pictures, maps if planes is None else planes, facts
    return images, maps, ()


def as_images(images: NDArray[Any], *, most: int = MOST_SLICES) -> Colors:
    """Inputs alone as images ``[N, H, W, 3]``.

    Args:
        images: see `as_planes`.
        most: slices of a volume; with 1 the middle one.
    """
    if images.ndim == 3:
        return curve_images(images)
    return _slices(images, None, most, 2)[0] if images.ndim == 5 else images


def curve_images(series: NDArray[Any]) -> Colors:
    """Series ``[N, C, L]`` as curves from left to right ``[N, H, W, 3]``, a panel for each channel, first on top.

    A channel's panel reaches from its least to its most value in all samples.
    """
    width, height = _CURVE_SIZE
    values = np.nan_to_num(np.asarray(series, dtype=np.float64))
    panels = values.shape[1] if values.shape[1] <= _MOST_PANELS else 1
    low, high = values.min(axis=(0, 2)), values.max(axis=(0, 2))
    if panels == 1:
        low, high = np.full_like(low, low.min(initial=0)), np.full_like(high, high.max(initial=0))
    reach = np.where(high > low, high - low, 1.0)
    if values.shape[2] > 2 * width:  # the least and the most at each pixel
        parts = np.array_split(values, width, axis=2)
        values = np.stack([end for part in parts for end in (part.min(axis=2), part.max(axis=2))], axis=2)
    across = (np.arange(values.shape[2]) + 0.5) / values.shape[2] * width
    room, pictures = height / panels, []
    for sample in values:
        picture = Image.new("RGB", (width, height), WHITE)
        pen = ImageDraw.Draw(picture)
        for panel in range(1, panels):
            pen.line([(0, panel * room), (width, panel * room)], fill=_DIVIDER, width=2)
        for channel, curve in enumerate(sample):
            bottom = (channel % panels + 1) * room - 2 * _STROKE
            up = bottom - (curve - low[channel]) / reach[channel] * (room - 4 * _STROKE)
            ends = [(0.0, up[0]), *zip(across.tolist(), up.tolist(), strict=True), (float(width), up[-1])]
            pen.line(ends, fill=DARK, width=_STROKE, joint="curve")
        pen.rectangle((0, 0, width - 1, height - 1), outline=_DIVIDER, width=2)
        pictures.append(np.asarray(picture))
    return np.stack(pictures)


def choose_slices(depth: int, strongest: int | None = None, most: int = MOST_SLICES) -> list[int]:
    """Which of a volume's slices are shown: all, or evenly spaced ones with the strongest among them.

    >>> choose_slices(64, strongest=30, most=5)
    [0, 16, 30, 47, 63]
    """
    if most == 1:
        return [depth // 2 if strongest is None else strongest]
    places = sorted({round(place) for place in np.linspace(0, depth - 1, min(most, depth))})
    if strongest is not None and strongest not in places:
        places[min(range(len(places)), key=lambda index: abs(places[index] - strongest))] = strongest
    return places


def strongest_slices(maps: NDArray[Any], lead: int = 2) -> NDArray[np.int64]:
    """Of each sample the slice in which the largest absolute value of its maps ``[N, C, d, h, w]`` lies, ``[N]``.

    Args:
        maps: see `as_planes`.
        lead: likewise.
    """
    return np.asarray(_peaks(maps, lead).argmax(axis=1))


def _peaks(maps: NDArray[Any], lead: int) -> NDArray[Any]:
    """The largest absolute value in each slice of each sample's maps, ``[N, d]``."""
    by_slice = np.moveaxis(np.abs(maps), (lead - 2, -3), (0, 1))
    return np.asarray(by_slice.reshape(*by_slice.shape[:2], -1).max(axis=-1))


def _slices(
    volumes: NDArray[np.uint8], deep: NDArray[Any] | None, most: int, lead: int
) -> tuple[Colors, NDArray[Any] | None, tuple[str, ...]]:
    """Volumes and their maps as mosaics of the same slices."""
    depth, word = volumes.shape[1], "frame" if (volumes.max(axis=-1) != volumes.min(axis=-1)).any() else "slice"
    factor = max(1, -(-_SLICE // max(volumes.shape[2:4])))
    size = (volumes.shape[3] * factor, volumes.shape[2] * factor)
    strongest: list[int | None] = [None] * len(volumes)
    if deep is not None:
        deep = _along_depth(np.nan_to_num(np.asarray(deep, dtype=np.float32)), depth)
        peaks = _peaks(deep, lead)
        strongest = [row.argmax() if row.max() > row.min() else None for row in peaks]  # an even map has none
    pictures, planes = [], []
    for index, volume in enumerate(volumes):
        places = choose_slices(depth, strongest[index], most)
        framed = strongest[index] if most > 1 else None
        enlarged = [enlarge(volume[place], size) for place in places]
        if most > 1 or deep is not None:
            for picture, place in zip(enlarged, places, strict=True):
                _number(picture, f"{word} {place}", place == framed)
        pictures.append(_mosaic(np.stack([np.asarray(picture) for picture in enlarged]), _DIVIDER))
        if deep is not None:
            of_sample = np.moveaxis(deep, lead - 2, 0)[index][..., places, :, :]
            smooth = of_sample.shape[-2:] != volume.shape[1:3]
            flat = [stretch(plane, size, smooth=smooth) for plane in of_sample.reshape(-1, *of_sample.shape[-2:])]
            shaped = np.stack(flat).reshape(*of_sample.shape[:-2], *flat[0].shape)
            planes.append(_mosaic(np.moveaxis(shaped, -3, 0)[..., None], (0,))[..., 0])
    facts = []
    if most == 1:
        facts = [f"of each volume's {depth} {word}s the one in which its map is strongest, numbered from 0"]
    else:
        facts = [
            f"{depth} {word}s, numbered from 0" if depth <= most else f"{most} of {depth:,} {word}s, numbered from 0"
        ]
        facts += ["framed red: where the map is strongest"] if deep is not None else []
    return np.stack(pictures), np.stack(planes, axis=lead - 2) if planes else None, tuple(facts)


def _along_depth(maps: NDArray[np.float32], depth: int) -> NDArray[np.float32]:
    """Maps ``[..., d, h, w]`` with as many slices as the input has, interpolated linearly between their own."""
    own = maps.shape[-3]
    if own == depth:
        return maps
    places = np.clip((np.arange(depth) + 0.5) / depth * own - 0.5, 0, own - 1)
    before = np.floor(places).astype(int)
    after, share = np.minimum(before + 1, own - 1), (places - before).astype(np.float32)[:, None, None]
    return np.asarray(maps[..., before, :, :] * (1 - share) + maps[..., after, :, :] * share, dtype=np.float32)


def _number(picture: Image.Image, words: str, framed: bool) -> None:
    """Write a slice's number into its corner, and frame it if it is the strongest."""
    pen = ImageDraw.Draw(picture)
    words = words if 2 * text_width(words, _PLATE_SIZE) <= picture.width else words.rpartition(" ")[2]
    pen.rectangle((0, 0, text_width(words, _PLATE_SIZE) + 6, _PLATE_SIZE + 4), fill=WHITE)
    pen.text((4, 1), words, fill=RED if framed else DARK, font=font(_PLATE_SIZE))
    if framed:
        pen.rectangle((0, 0, picture.width - 1, picture.height - 1), outline=RED, width=_FRAME)


def _mosaic(slices: NDArray[Any], ground: tuple[int, ...]) -> NDArray[Any]:
    """Slices ``[k, ..., h, w, c]`` in rows, as nearly square as they fill them ``[..., H, W, c]``."""
    count, height, width = len(slices), *slices.shape[-3:-1]
    shares = {n: (n * width / (-(-count // n) * height), -(-count // n) * n / count) for n in range(1, count + 1)}
    columns = min(shares, key=lambda n: abs(np.log(shares[n][0])) + 2 * np.log(shares[n][1]))  # square, filled
    rows = -(-count // columns)
    shape = (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP)
    mosaic = np.empty((*slices.shape[1:-3], *shape, slices.shape[-1]), dtype=slices.dtype)
    mosaic[...] = ground
    for place, plane in enumerate(slices):
        row, column = divmod(place, columns)
        top, left = row * (height + _GAP), column * (width + _GAP)
        mosaic[..., top : top + height, left : left + width, :] = plane
    return mosaic
