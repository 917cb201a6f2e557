"""What excites a channel: its strongest samples, each cropped to what the maximum sees, and why."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.render.colors import NEUTRAL, Colors
from lightning_viz.render.grid import BODY_HEIGHT, INNER_WIDTH, in_rows
from lightning_viz.render.page import Page, PageInfo, check_count, compose
from lightning_viz.render.parts import At, ColorBar, HStack, Part, Sheet, Text, Tile, TileSize, VStack
from lightning_viz.render.text import DARK, LINE, number, shorten, some_of
from lightning_viz.render.tiles import find_flaw, to_rgb

__all__ = ["MOST_CHANNELS", "MOST_CROPS", "Crop", "excitations"]

MOST_CHANNELS = 8
MOST_CROPS = 9
_SIDE = 3  # samples in a row, and rows
_CLOSE, _BETWEEN, _APART = 2, 8, 16  # pixels between tiles, between crops and maps, between channels
_ROWS = 10  # pixels between rows of channels
_LONGEST = 4.0  # side of a tile over its other side
_GROUND = (160, 186, 216)  # between tiles: neither their grays nor the page's white


@dataclass(frozen=True)
class Crop:
    """A sample's part that a channel's maximum sees.

    Args:
        image: ``[h, w, 3]``.
        evidence: the map of that maximum, signed ``[C, h, w]``; None where there is none.
        value: of the maximum.
        name: of the sample's class, or "".
        top: whether it ends at the image's upper edge, beyond which there would be more of it.
        left: likewise at the left edge.
    """

    image: Colors
    evidence: NDArray[np.floating] | None
    value: float
    name: str = ""
    top: bool = False
    left: bool = False


def signed_image(values: NDArray[np.floating]) -> Colors:
    """A signed map ``[C, h, w]`` as an image ``[h, w, 3]``: its values over its largest, plus a half."""
    image: Colors = to_rgb((values / max(float(np.abs(values).max(initial=0)), 1e-30) + 0.5)[None])[0]
    return image


def excitations(
    tag: str,
    crops: Sequence[Sequence[Crop]],
    *,
    layer: str,
    channels: Sequence[int],
    population: str,
    field: str,
    method: str = "deconvolution",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of strongest samples: those of each channel in a square, beside it the maps of their maxima.

    Args:
        tag: of the page.
        crops: by channel, strongest first; up to 9 of up to 8 channels are shown. None of a channel that is never
            active.
        layer: name, for the caption.
        channels: the channels' numbers.
        population: among what the samples are the strongest, such as "600 validation samples".
        field: how large the crops are, such as "12 x 12 of 32 x 32 pixels".
        method: by which the maps were found.
        info: see `PageInfo`.
    """
    check_count("rows of crops", crops, len(channels))
    shown = [list(some[:MOST_CROPS]) for some in crops[:MOST_CHANNELS]]
    every = [crop for some in shown for crop in some]
    frame = (
        max((crop.image.shape[0] for crop in every), default=1),
        max((crop.image.shape[1] for crop in every), default=1),
    )
    most = max(map(len, shown), default=0)
    columns = 1 if len(shown) < 3 else 2
    width = (INNER_WIDTH - _APART * (columns - 1)) // columns
    size = _tile_size(frame, width, -(-len(shown) // columns))
    blocks = [_block(layer, channel, some, frame, size, width) for channel, some in zip(channels, shown, strict=False)]
    rows: list[Part] = [*in_rows(blocks, columns, _APART)]
    maps = [crop.evidence for crop in every if crop.evidence is not None]
    colored = any(len(evidence) == 3 for evidence in maps)
    label = "of each map, in each of its three colors" if colored else "of each map"
    bar = ColorBar("gray", "−max", "max", middle="0", label=label)
    dead = sum(not some for some in shown)
    cut = any(crop.image.shape[:2] != frame for crop in every)
    nth = f"{most}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(most, 'th') }"
    facts = (
        some_of(len(shown), len(channels), "channels"),
        f"the {most} strongest of {population}",
        f"cut to what it sees, {field}" + (" (light gray: beyond the image)" if cut else ""),
        f"beside them what drives the channel ({method})",
        "above: " + ("commonest class, " if any(crop.name for crop in every) else "") + f"largest and {nth} value",
    )
    reading = (
        f"Each block is one channel (feature map) of {layer}. On its left are the samples that excite it most, the "
        "strongest first, each cut to the part of the image that the channel's maximum depends on (its receptive "
        "field; light gray lies outside the image). On its right is what in each crop drives that one activation "
        f"({method}): brighter than gray for what raises it, darker for what lowers it."
    )
    warnings = (f"{dead} of {len(shown)} channels are never active",) if dead else ()
    body = VStack([*rows, bar] if maps else rows, gap=_ROWS)
    title = f"What excites the channels of {layer} most"
    return compose(tag, title, body, facts, reading=reading, warnings=warnings, **info)


def _tile_size(frame: tuple[int, int], width: int, rows: int) -> TileSize:
    """Width and height of tiles so that blocks are `width` wide, and rows of them fit the page."""
    aspect = min(max(frame[0] / frame[1], 1 / _LONGEST), _LONGEST)
    wide = ((width - _BETWEEN) // 2 - _CLOSE) // _SIDE - _CLOSE
    room = (BODY_HEIGHT - LINE) // max(1, rows) - _ROWS - LINE - 2 * _CLOSE
    high = min(wide * aspect, room // _SIDE - _CLOSE)
    return max(8, round(high / aspect)), max(8, round(high))


def _block(layer: str, channel: int, crops: list[Crop], frame: tuple[int, int], size: TileSize, width: int) -> Part:
    """One channel: a line of text, the crops, their maps."""
    title = Text([_title(channel, crops, width)], width, color=DARK)
    if not crops:
        square = tuple(_SIDE * (side + _CLOSE) + _CLOSE for side in size)
        both = Tile((2 * square[0] + _BETWEEN, square[1]), flaw="never active", layer=layer, channel=channel)
        return VStack([title, both], gap=_CLOSE)
    images = [
        Tile(size, _framed(crop, crop.image, frame), layer=layer, channel=channel, value=crop.value) for crop in crops
    ]
    maps = [_evidence(crop, frame, size, layer, channel) for crop in crops]
    return VStack([title, HStack([_square(images), _square(maps)], gap=_BETWEEN)], gap=_CLOSE)


def _square(tiles: list[Tile]) -> Sheet:
    width, height = tiles[0].size
    pitch, rows = (width + _CLOSE, height + _CLOSE), -(-len(tiles) // _SIDE)
    places = [
        At(_CLOSE + place % _SIDE * pitch[0], _CLOSE + place // _SIDE * pitch[1], tile)
        for place, tile in enumerate(tiles)
    ]
    return Sheet(_SIDE * pitch[0] + _CLOSE, rows * pitch[1] + _CLOSE, places, _GROUND)


def _evidence(crop: Crop, frame: tuple[int, int], size: TileSize, layer: str, channel: int) -> Tile:
    flaw = None if crop.evidence is None else find_flaw(crop.evidence, single=False)
    if crop.evidence is None or flaw:
        return Tile(size, flaw=flaw or "no gradient", layer=layer, channel=channel)
    return Tile(size, _framed(crop, signed_image(crop.evidence), frame), layer=layer, channel=channel)


def _framed(crop: Crop, image: Colors, frame: tuple[int, int]) -> Colors:
    """A crop in a frame of the largest crop's size: one that the image's edge cut lies where its center would be."""
    height, width = image.shape[:2]
    framed = np.full((*frame, 3), NEUTRAL, dtype=np.uint8)
    top, left = frame[0] - height if crop.top else 0, frame[1] - width if crop.left else 0
    framed[top : top + height, left : left + width] = image
    return framed


def _title(channel: int, crops: list[Crop], width: int) -> str:
    if not crops:
        return f"channel {channel}"
    values = f"{number(crops[0].value)} to {number(crops[-1].value)}" if len(crops) > 1 else number(crops[0].value)
    names = Counter(crop.name for crop in crops if crop.name).most_common(1)
    common = f"{names[0][1]} of {len(crops)} “{names[0][0]}” · " if names and names[0][1] > 1 else ""
    return shorten(f"ch {channel} · {common}{values}", width)
