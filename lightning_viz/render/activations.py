"""Activations: maps of what samples excite in a layer, and what excites its channels most."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.render.colors import NEUTRAL, Colors
from lightning_viz.render.layout import BODY_HEIGHT, COLUMNS, GUTTER, INNER_WIDTH, fit, heads, in_rows
from lightning_viz.render.page import Page, PageInfo, check_count, check_rgb, check_shape, compose
from lightning_viz.render.parts import (
    At,
    Bar,
    ColorBar,
    HStack,
    MapTile,
    Part,
    Sheet,
    Text,
    Tile,
    TileSize,
    VStack,
)
from lightning_viz.render.planes import as_planes
from lightning_viz.render.sample_pairs import BAR_ROOM, CONFIDENCE, pair_layout, pair_rows
from lightning_viz.render.text import DARK, LINE, first_of, number, percent, shorten, some_of, text_width
from lightning_viz.render.tiles import COARSE, count_flaws, find_flaw, map_flaws, to_rgb, verdict_texts

__all__ = [
    "MOST_CHANNELS",
    "MOST_CROPS",
    "Crop",
    "activation_maps",
    "channel_maps",
    "excitations",
]

_MOST_SAMPLES = 8
_FEWEST_SAMPLES = 4
_SMALLEST_TILE = 72  # pixels wide
_SIZE_BAR = 8  # pixels high


def activation_maps(
    tag: str,
    images: NDArray[np.uint8],
    maps: NDArray[Any],
    *,
    layer: str,
    channels: Sequence[int],
    limits: Sequence[tuple[float, float]] | None,
    limits_note: str = "",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of activation maps: samples as rows, the input first, then channels as columns.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``, or series or volumes, see `as_planes`; the first 8 are shown.
        maps: ``[N, K, h, w]``, column k being ``channels[k]``; the first 7 are shown. Of series ``[N, K, l]``, as
            curves; of volumes ``[N, K, d, h, w]``, of which one slice is shown.
        layer: name, for the caption.
        channels: the channels' numbers, K of them.
        limits: of each channel the activations at its color scale's ends, fixed across steps; None: each map has its
            own scale.
        limits_note: where the limits come from, such as "1st to 99th percentile at step 0".
        info: see `PageInfo`.
    """
    samples, most = len(images), min(len(images), _MOST_SAMPLES)
    curves = images.ndim == maps.ndim == 3
    if curves:  # channels are no rows of the input's
        maps = maps[:, :, None]
    images, maps, places = as_planes(images[:most], maps[:most, : COLUMNS - 1], most=1)
    check_rgb(images)
    check_shape("maps", maps, len(images), min(len(channels), COLUMNS - 1), "h", "w")
    if limits is not None:
        check_count("limits", limits, len(channels))
    shape = maps.shape[2:] if images.shape[1] == 1 < maps.shape[2] else images.shape[1:3]  # a vector is a strip
    verdicts, aspect = info.get("verdicts", ()), shape[0] / shape[1]
    under = LINE * max((len(verdict.lines(INNER_WIDTH)) for verdict in verdicts), default=0)
    count, size = _rows_and_size(len(images), min(len(channels), COLUMNS - 1) + 1, aspect, under)
    shown = maps[:count]
    scale = _Scale(shown, limits, curves)
    rows: list[Part] = [_over_columns(channels[: shown.shape[1]], size[0])]
    for index, row in enumerate(shown):
        tiles = [scale.tile(size, index, layer, column, channels[column], values) for column, values in enumerate(row)]
        rows.append(HStack([Tile(size, images[index], sample=index), *tiles], gap=GUTTER))
        if verdicts:
            rows += verdict_texts([verdicts[index]], INNER_WIDTH)
    rows += scale.sizes(size[0])
    table = VStack(rows, gap=GUTTER if not verdicts else 2)
    body = table if curves else VStack([table, scale.bar()], gap=10)
    facts = (
        f"the first {len(shown)} samples" if len(shown) < samples else "",
        *places,
        some_of(shown.shape[1], len(channels), "channels"),
        *scale.words(limits_note),
    )
    reading = "Each row is one sample, the input first; each column is one channel (feature map) of the layer, "
    reading += (
        "as a curve over time: the higher, the more active; the thin line is zero."
        if curves
        else "in the colors of the bar below: on one from blue to red, red is positive and blue negative."
    )
    if limits is not None:
        reading += (
            " Each channel has a scale of its own: how large its activations are is the number below, and its bar."
        )
    warnings = count_flaws(map_flaws(body), "maps")
    return compose(tag, f"Activation maps of {layer}", body, facts, reading, warnings=warnings, **info)


def channel_maps(
    tag: str,
    images: NDArray[np.uint8],
    maps: NDArray[Any],
    *,
    layer: str,
    channels: Sequence[int],
    limits: Sequence[tuple[float, float]] | None,
    limits_note: str = "",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of one channel: its activation maps, large, each beside or below its sample (Yosinski et al., 2015).

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``, or series or volumes, see `as_planes`; the first 8 are shown.
        maps: ``[N, 1, h, w]``, or of series or volumes, see `activation_maps`.
        layer: name, for the caption.
        channels: the channel's number.
        limits: of the channel, see `activation_maps`.
        limits_note: likewise.
        info: see `PageInfo`.
    """
    samples, most = len(images), min(len(images), _MOST_SAMPLES)
    curves = images.ndim == maps.ndim == 3
    images, maps, places = as_planes(images[:most], (maps[:, :, None] if curves else maps)[:most], most=1)
    check_rgb(images)
    check_shape("maps", maps, len(images), 1, "h", "w")
    verdicts, scale = info.get("verdicts", ()), _Scale(maps, limits, curves)
    layout = pair_layout(images, len(images), verdicts, BODY_HEIGHT - BAR_ROOM)
    untouched = [Tile(layout.size, image, sample=index) for index, image in enumerate(images)]
    seen = [scale.tile(layout.size, index, layer, 0, channels[0], values[0]) for index, values in enumerate(maps)]
    figures = ["" if tile.flaw else number(float(values.max())) for tile, values in zip(seen, maps, strict=True)]
    rows = pair_rows(layout, untouched, seen, verdicts, figures)
    ends = [number(end) for end in scale.ends(0, maps)]
    bar = replace(scale.bar(), low=ends[0], high=ends[1], label="activation") if limits else scale.bar()
    where, beside = layout.words
    reading = f"{where} each sample, {beside} the map of the one channel: "
    reading += "a curve over time." if curves else "bright or red where it is active, blue where it is negative."
    facts = (
        first_of(len(images), samples, "samples"),
        *places,
        *(["one display scale for all maps", *scale.words(limits_note)[1:]] if limits else scale.words("")),
        "number: largest activation",
        CONFIDENCE if verdicts else "",
    )
    body = rows if curves else VStack([rows, bar], gap=8)
    title, warnings = f"Channel {channels[0]} of {layer}", count_flaws(map_flaws(body), "maps")
    return compose(tag, title, body, facts, reading, warnings=warnings, **info)


class _Scale:
    """How activations become colors: fixed or per map, sequential or, for both signs, diverging."""

    def __init__(self, maps: NDArray[Any], limits: Sequence[tuple[float, float]] | None, curves: bool = False) -> None:
        finite = maps[np.isfinite(maps)]
        self.maps, self.limits = maps, limits
        self.peaks = [float(np.abs(values).max()) for row in maps for values in row if not find_flaw(values)]
        ends = np.asarray([(finite.min(initial=0), finite.max(initial=0))] if limits is None else limits, dtype=float)
        self.signed = bool(ends.min() < 0 < ends.max())
        self.name = "curve" if curves else "diverging" if self.signed else "magma"
        self.negative = bool(ends.min() < 0)
        self.reaches = np.abs(ends).max(axis=1)[: maps.shape[1]]

    def ends(self, column: int, values: NDArray[Any]) -> tuple[float, float]:
        """The activations at the ends of a map's scale: its channel's, or its own."""
        reach = float(np.abs(values).max() if self.limits is None else self.reaches[column])
        return (-reach if self.negative else 0.0, reach if self.signed or not self.negative else 0.0)

    def tile(self, size: TileSize, sample: int, layer: str, column: int, channel: int, values: NDArray[Any]) -> MapTile:
        """A map in colors, or why there are none."""
        flaw, smooth = find_flaw(values), max(values.shape) > COARSE
        ends = None if flaw else self.ends(column, values)
        colors: dict[str, Any] = {"display": self.name, "limits": ends, "smooth": smooth}
        return MapTile(size, None, flaw, sample, layer, channel, values=values, **colors)

    def bar(self) -> ColorBar:
        most, of = ("max", "of each map") if self.limits is None else ("scale", "of each channel")
        low, high = (f"−{most}" if self.negative else "0"), most if self.signed or not self.negative else "0"
        return ColorBar(self.name, low, high, middle="0" if self.signed else "", label=of)

    def sizes(self, width: int) -> list[Part]:
        """How large each channel is, below its column: the end of its scale, with a bar; or its largest activation."""
        if self.limits is None:
            return [HStack(heads(["largest", *_peaks(self.maps)], width), gap=GUTTER)]
        sign, most = "±" if self.signed else "−" if self.negative else "", self.reaches.max(initial=0) or 1.0
        words = [f"{sign}{number(reach)}" for reach in self.reaches.tolist()]
        shares = [None, *(float(reach / most) for reach in self.reaches)]
        bars = [Bar(width, _SIZE_BAR, share, DARK) for share in shares]
        return [HStack(heads(["scale", *words], width), gap=GUTTER), HStack(bars, gap=GUTTER)]

    def words(self, note: str) -> list[str]:
        if self.limits is None:
            how = "divided by its largest absolute value" if self.signed else "divided by its maximum"
            ends = f"{number(min(self.peaks, default=0))} to {number(max(self.peaks, default=0))}"
            return [f"each map {how} ({ends})"] if self.peaks else []
        finite = np.isfinite(self.maps)
        beyond = float((finite & (np.abs(self.maps) > self.reaches[:, None, None])).sum() / max(1, finite.sum()))
        return ["each channel on its own display scale", note, f"{percent(beyond)} % of values beyond"]


def _over_columns(channels: Sequence[int], width: int) -> HStack:
    """Over each column "input" or the channel's number, with "ch" before it where there is room."""
    short = any(text_width(f"ch {channel}") > width for channel in channels)
    return HStack(heads(["input", *(f"{'' if short else 'ch '}{channel}" for channel in channels)], width), gap=GUTTER)


def _peaks(maps: NDArray[Any]) -> list[str]:
    """The largest size of each channel's activations ``[N, K, h, w]``, in words."""
    sizes = np.where(np.isfinite(maps), np.abs(maps), 0).max(axis=(0, 2, 3))
    return [number(float(size)) for size in sizes]


def _rows_and_size(samples: int, columns: int, aspect: float, under: int) -> tuple[int, TileSize]:
    """How many samples to show, and the tiles' width and height: fewer samples before tiles too small to see."""
    most = max(1, min(samples, _MOST_SAMPLES))
    for count in range(most, 0, -1):
        size = fit(columns, count, aspect, under=under, room=BODY_HEIGHT - 5 * LINE)
        if size[0] >= _SMALLEST_TILE or count <= _FEWEST_SAMPLES:
            break
    return count, size


MOST_CHANNELS = 8
"""Channels on a page of top samples."""
MOST_CROPS = 9
"""Samples of each of them."""
_SIDE = 3  # samples in a row, and rows
_CLOSE, _BETWEEN, _APART = 2, 8, 16  # pixels between tiles, between crops and maps, between channels
_ROWS = 10  # pixels between rows of channels
_LONGEST = 4.0  # side of a tile over its other side
_NEW = (230, 159, 0)  # frame of a new sample
_CUT = (
    "each cut to the part of the image that the channel's maximum depends on (its receptive field; light gray lies "
    "outside the image)"
)
_WHOLE = "each with the part framed that the channel's maximum depends on (its receptive field)"
GROUND = (160, 186, 216)
"""Between tiles: neither their grays nor the page's white."""


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
        sample: its number.
        new: whether it was not among the channel's strongest at the step before.
        window: of a whole image the part that the maximum sees: top, bottom, left and right in its pixels.
    """

    image: Colors
    evidence: NDArray[np.floating] | None
    value: float
    name: str = ""
    top: bool = False
    left: bool = False
    sample: int | None = None
    new: bool = False
    window: tuple[int, int, int, int] | None = None


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
            above 0.
        layer: name, for the caption.
        channels: the channels' numbers.
        population: among what the samples are the strongest, such as "600 validation samples".
        field: how large the crops or frames are, such as "12 x 12 of 32 x 32 pixels".
        method: by which the maps were found.
        info: see `PageInfo`.
    """
    check_count("rows of crops", crops, len(channels))
    shown = [list(some[:MOST_CROPS]) for some in crops[:MOST_CHANNELS]]
    every = [crop for some in shown for crop in some]
    highest, widest = np.max([(1, 1), *(crop.image.shape[:2] for crop in every)], axis=0).tolist()
    frame = (highest, widest)
    most = max(map(len, shown), default=0)
    columns = 1 if len(shown) < 3 else 2
    width = (INNER_WIDTH - _APART * (columns - 1)) // columns
    size = _tile_size(frame, width, -(-len(shown) // columns))
    blocks = [
        _block(layer, channel, some, frame, size, width, population)
        for channel, some in zip(channels, shown, strict=False)
    ]
    rows: list[Part] = [*in_rows(blocks, columns, _APART)]
    maps = [crop.evidence for crop in every if crop.evidence is not None]
    colored = any(len(evidence) == 3 for evidence in maps)
    label = "of each map, in each of its three colors" if colored else "of each map"
    bar = ColorBar("gray", "−max", "max", middle="0", label=label)
    silent = sum(not some for some in shown)
    whole = any(crop.window is not None for crop in every)
    nth = f"{most or MOST_CROPS}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(most, 'th') }"
    facts = (
        some_of(len(shown), len(channels), "channels"),
        f"the {most or MOST_CROPS} strongest of {population}",
        f"framed: what it sees, {field}" if whole else f"cut to what it sees, {field}",
        f"right: its {method}",
        "orange frame: new since the look before",
    )
    reading = (
        f"Each block is one channel (feature map) of {layer}. On its left are the samples that excite it most, the "
        f"strongest first, {_WHOLE if whole else _CUT}. On its right is what in each {'image' if whole else 'crop'} "
        f"drives that one activation ({method}): brighter than gray for what raises it, darker for what lowers it. "
        f"Above them stand the commonest class among them and the largest and {nth} value. A channel that none of them "
        "raises above 0 is hatched: others may."
    )
    warnings = (f"{silent} of {len(shown)} channels at most 0 in these {population}",) if silent else ()
    body = VStack([*rows, bar] if maps else rows, gap=_ROWS)
    title = f"What excites the channels of {layer} most"
    return compose(tag, title, body, facts, reading, warnings=warnings, **info)


def _tile_size(frame: tuple[int, int], width: int, rows: int) -> TileSize:
    """Width and height of tiles so that blocks are `width` wide, and rows of them fit the page."""
    aspect = min(max(frame[0] / frame[1], 1 / _LONGEST), _LONGEST)
    wide = ((width - _BETWEEN) // 2 - _CLOSE) // _SIDE - _CLOSE
    room = (BODY_HEIGHT - 2 * LINE) // max(1, rows) - _ROWS - LINE - 2 * _CLOSE
    high = min(wide * aspect, room // _SIDE - _CLOSE)
    return max(8, round(high / aspect)), max(8, round(high))


def _block(
    layer: str, channel: int, crops: list[Crop], frame: tuple[int, int], size: TileSize, width: int, population: str
) -> Part:
    """One channel: a line of text, the crops, their maps."""
    title = Text([_title(channel, crops, width)], width, color=DARK)
    if not crops:
        square = tuple(_SIDE * (side + _CLOSE) + _CLOSE for side in size)
        both = Tile(
            (2 * square[0] + _BETWEEN, square[1]), flaw=f"at most 0 in these {population}", layer=layer, channel=channel
        )
        return VStack([title, both], gap=_CLOSE)
    images = [
        Tile(
            size,
            framed(crop, crop.image, frame),
            layer=layer,
            channel=channel,
            value=crop.value,
            window=crop.window,
            outline=_NEW if crop.new else None,
        )
        for crop in crops
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
    return Sheet(_SIDE * pitch[0] + _CLOSE, rows * pitch[1] + _CLOSE, places, GROUND)


def _evidence(crop: Crop, frame: tuple[int, int], size: TileSize, layer: str, channel: int) -> Tile:
    flaw = None if crop.evidence is None else find_flaw(crop.evidence, single=False)
    if crop.evidence is None or flaw:
        return Tile(size, flaw=flaw or "no gradient", layer=layer, channel=channel)
    return Tile(size, framed(crop, signed_image(crop.evidence), frame), layer=layer, channel=channel)


def framed(crop: Crop, image: Colors, frame: tuple[int, int]) -> Colors:
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
    return shorten(f"ch {channel} · {common}".rstrip(" ·"), width, suffix=f" · {values}")
