"""What in the input mattered, as maps of samples: beside them, class by class, method by method, under a patch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.layout import GUTTER, INNER_WIDTH, fit, in_columns, in_rows
from lightning_viz.render.page import Page, PageInfo, check_rgb, check_shape, compose
from lightning_viz.render.parts import HStack, Part, Text, Tile, TileSize, VStack
from lightning_viz.render.planes import as_planes, most_samples
from lightning_viz.render.text import DARK, GRAY, LINE, first_of, number, some_of, times, wrap
from lightning_viz.render.tiles import (
    BAR,
    DISPLAYS,
    Display,
    Flaw,
    Verdict,
    count_flaws,
    map_flaws,
    map_tile,
    verdict_blocks,
    verdict_lines,
    verdict_texts,
)

__all__ = [
    "MOST_SAMPLES",
    "MethodMaps",
    "attribution_maps",
    "class_columns",
    "method_row",
    "method_sheet",
]

_MOST_PAIRS = 16
_FEW_CELLS = 5  # along a side of a map
_ROOM = 828  # pixels of height for pairs: eight square ones are 80 wide on the card
_PAIRS = 4  # side by side
_CLOSE, _APART = 2, 12  # pixels within and between pairs
_ROWS, _CLASSES = 4, 6  # of samples and classes side by side
MOST_SAMPLES = 6
_LABEL = 216  # pixels for names and numbers


def attribution_maps(
    tag: str,
    images: NDArray[np.uint8],
    maps: NDArray[Any],
    *,
    method: str,
    target: str,
    display: str = "sum",
    layer: str = "",
    unit: str = "",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of attribution maps: each sample untouched and, beside it, what in it moves the target, all on one scale.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``, or series or volumes, see `as_planes`; the first 16 are shown.
        maps: ``[N, C, h, w]``, signed, or with other places; as heat enlarged bilinearly (``align_corners=False``).
        method: name, for the caption.
        target: what is explained, such as "the label's logit".
        display: "heat" over the grayed sample, its opacity on the page's scale; "sum" (Fleuret) or "max" (Simonyan)
            over the channels of the size, their "signed" sum, or as an "image" of its own (see `DISPLAYS`).
        layer: name, for the caption; none for maps towards the input.
        unit: of the maps.
        info: see `PageInfo`.
    """
    samples, most = len(images), most_samples(images, _MOST_PAIRS)
    if len(maps) != samples or 0 in maps.shape[1:2]:
        raise InvalidArgumentError(f"maps are {list(maps.shape)}: give one channel or more for {samples} samples")
    images, maps, places = as_planes(images[:most], maps[:most])
    check_rgb(images)
    check_shape("maps", maps, len(images), "C", "h", "w")
    how, heat, verdicts = DISPLAYS[display], display == "heat", info.get("verdicts", ())
    second = [
        map_tile((1, 1), images[index], values, display, sample=index, layer=layer) for index, values in enumerate(maps)
    ]
    figures = [number(tile.value) if tile.value else "" for tile in second]
    size, columns = pair_size(images, len(second), verdicts)
    reach = max((tile.value for tile in second if tile.value), default=None)
    pairs: list[Part] = [
        HStack(
            [Tile(size, images[index], sample=index), replace(tile, size=size, value=tile.value and reach)], gap=_CLOSE
        )
        for index, tile in enumerate(second)
    ]
    known = list(verdicts[: len(pairs)]) or [Verdict()] * len(pairs)
    blocks = in_columns(pairs, verdict_blocks(known, 2 * size[0] + _CLOSE, figures), gap=2)
    body = VStack([VStack(in_rows(blocks, columns, _APART), gap=GUTTER), how.bar_to(reach, unit)], gap=8)
    over = f", {'summed' if display == 'sum' else 'the largest'} of the channels" if maps.shape[1] > 1 else ""
    of = {"signed": "what speaks for it and what against", "image": "signed, gray where it is zero"}
    facts = (
        some_of(len(second), samples, "samples"),
        *places,
        "" if layer else of.get(display, f"its absolute value{over}"),
        *info.get("details", ()),
        f"one scale for all; under each map its own {how.divided}",
        _cells(maps.shape[2:], images.shape[1:3]) if layer else "",
    )
    reads = _READINGS["layer"] if layer else _READINGS.get(display, _READINGS["sum"])
    reading = f"Left the input, right {reads.format(target=target, method=method)}"
    zero = "all zero (nothing positive left after its ReLU)" if heat else "all-zero gradient"
    warnings = count_flaws(map_flaws(body), "maps" if layer else "samples", {Flaw.ZERO: zero})
    rest: PageInfo = {**info, "details": ()}  # they stand among the facts already
    title = f"{method} for {target}{_seen_from(layer)}"
    return compose(tag, title, body, facts, reading, warnings=warnings, **rest)


def _cells(grid: Sequence[int], image: Sequence[int]) -> str:
    """Of a map whose cells are larger than a fifth of the image, how large they are."""
    if min(grid) >= _FEW_CELLS or 0 in grid:
        return ""
    return (
        f"each cell sees {times([-(-side // cells) for side, cells in zip(image, grid, strict=True)])} pixels or more"
    )


_READINGS = {
    "layer": "where in it {method} finds evidence for {target}: the brighter, the more.",
    "sum": "how strongly a small change of each pixel moves {target}: the brighter, the more.",
    "signed": "what each pixel adds to {target}: red speaks for it, blue against.",
    "image": "the pattern in it that moves {target}: bright where more of a color raises it.",
}


def class_columns(
    tag: str,
    images: NDArray[np.uint8],
    maps: NDArray[Any],
    *,
    names: Sequence[Sequence[str]],
    method: str,
    display: str,
    layer: str = "",
    unit: str = "logits",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of several classes: each sample and, beside it, its map for each class, on one scale.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``, or series or volumes, see `as_planes`; the first 4 are shown.
        maps: of T classes ``[T, N, C, h, w]``, or with other places; the first 6 are shown.
        names: what to write under each map, T times N.
        method: name, for the caption.
        display: one of `DISPLAYS`.
        layer: name, for the caption; none for maps towards the input.
        unit: of the maps.
        info: see `PageInfo`.
    """
    samples, classes = len(images), len(maps)
    images, maps, places = as_planes(images[:_ROWS], maps[:_CLASSES, :_ROWS], lead=3)
    check_rgb(images)
    check_shape("maps", maps, "T", len(images), "C", "h", "w")
    how, verdicts, shown = DISPLAYS[display], info.get("verdicts", ()), maps
    rows = shown.shape[1]
    size = fit(len(shown) + 1, rows, images.shape[1] / images.shape[2], under=LINE * (2 if verdicts else 1))
    reaches, lines = [], []
    for index in range(rows):
        row = [map_tile(size, images[index], values, display, sample=index, layer=layer) for values in shown[:, index]]
        reaches.append(max((tile.value for tile in row if tile.value), default=None))
        tiles = [Tile(size, images[index], sample=index)]
        tiles += [replace(tile, value=tile.value and reaches[-1]) for tile in row]
        texts = verdict_texts([verdicts[index]] if verdicts else [Verdict()], size[0])
        texts += [Text([names[place][index]], size[0], centered=True) for place in range(len(shown))]
        lines.append(HStack(in_columns(tiles, texts, gap=1), gap=GUTTER))
    facts = (
        first_of(rows, samples, "samples"),
        some_of(len(shown), classes, "classes"),
        *places,
        "only what speaks for a class" if display == "heat" else "",
        _divided("row", how, reaches, unit),
    )
    reading = "Each row is one sample, then what speaks for each class, on the row's own scale: columns compare."
    body = VStack([VStack(lines, gap=4), how.bar_of("of each row")], gap=8)
    title, warnings = f"{method} class by class{_seen_from(layer)}", count_flaws(map_flaws(body), "maps")
    return compose(tag, title, body, facts, reading, warnings=warnings, **info)


def _seen_from(layer: str) -> str:
    return f", seen from {layer}" if layer else ""


def pair_size(images: NDArray[Any], count: int, verdicts: Sequence[Verdict]) -> tuple[TileSize, int]:
    """The tiles' size and the number of pairs in a row, of which the tiles come out largest; alike at every step."""
    aspect, sizes = images.shape[1] / images.shape[2], {}
    for columns in range(1, min(_PAIRS, max(count, 1)) + 1):
        rows = max(1, -(-count // columns))
        for lines in (1, 2):  # two where the longest verdict does not fit on one
            size = fit(2 * columns, rows, aspect, under=lines * LINE + BAR + 2, gap=_APART, room=_ROOM)
            if verdict_lines(verdicts[:count], 2 * size[0] + _CLOSE) <= lines:
                break
        sizes[columns] = size
    largest = max(width for width, _ in sizes.values())
    columns = max(count for count in sizes if sizes[count][0] >= 0.9 * largest)  # rather a full page than a last pixel
    return sizes[columns], columns


def _divided(thing: str, display: Display, reaches: Sequence[float | None], unit: str) -> str:
    reached = [number(reach) for reach in sorted(filter(None, reaches))]
    if not reached:
        return ""
    ends = reached[0] if reached[0] == reached[-1] else f"{reached[0]} to {reached[-1]}"
    return f"each {thing} divided by its {display.divided} ({f'{ends} {unit}'.rstrip()})"


@dataclass(frozen=True)
class MethodMaps:
    """What a method makes of samples.

    Args:
        name: of the method.
        maps: ``[N, C, h, w]``.
        display: one of `DISPLAYS`.
        words: lines under its name: what was measured of it.
    """

    name: str
    maps: NDArray[Any]
    display: str
    words: Sequence[str] = ()


def method_row(images: NDArray[np.uint8], method: MethodMaps, size: TileSize, *, label: int, gap: int) -> HStack:
    """A method's maps, each on its own scale, its name and words to the left.

    Args:
        images: the samples ``[N, H, W, 3]``.
        method: its maps, one for each of them.
        size: of a tile, width and height in pixels.
        label: pixels for name and words.
        gap: pixels between neighbors.
    """
    tiles = [
        map_tile(size, image, values, method.display, sample=index)
        for index, (image, values) in enumerate(zip(images, method.maps, strict=True))
    ]
    names = Text(wrap(method.name, label), label, color=DARK)
    words = [Text(method.words, label, color=GRAY)] if method.words else []
    return HStack([VStack([names, *words], gap=2), *tiles], gap=gap)


def method_sheet(
    tag: str,
    images: NDArray[np.uint8],
    methods: Sequence[MethodMaps],
    *,
    title: str,
    target: str,
    key: Sequence[str] = (),
    **info: Unpack[PageInfo],
) -> Page:
    """Page of attribution methods on the same samples: the samples on top, then a row for each method.

    Args:
        tag: of the page.
        images: the samples ``[N, H, W, 3]``; the first 6 are shown.
        methods: with a map for each sample.
        title: what they are.
        target: what is explained, such as "the predicted class's logit".
        key: to the words under their names, in lines beside the samples.
        info: see `PageInfo`; its reading says what the words mean.
    """
    check_rgb(images)
    if not methods or any(method.maps.ndim != 4 or len(method.maps) != len(images) for method in methods):
        shapes = {method.name: list(method.maps.shape) for method in methods}
        raise InvalidArgumentError(f"give one method or more, with maps [{len(images)}, C, h, w] each, got {shapes}")
    shown, verdicts = images[:MOST_SAMPLES], info.get("verdicts", ())
    across = INNER_WIDTH - _LABEL - GUTTER
    size = fit(len(shown), len(methods) + 1, shown.shape[1] / shown.shape[2], room=760, across=across)
    tops: list[Part] = [Tile(size, image, sample=index) for index, image in enumerate(shown)]
    if verdicts:
        tops = [*in_columns(tops, verdict_texts(verdicts[: len(shown)], size[0]), gap=1)]
    head = VStack([Text(["the image"], _LABEL), Text(key, _LABEL, color=GRAY)], gap=2)
    rows = [HStack([head, *tops], gap=GUTTER)]
    for method in methods:
        kept = replace(method, maps=method.maps[: len(shown)])
        rows.append(method_row(shown, kept, size, label=_LABEL, gap=GUTTER))
    facts = (f"for {target}", first_of(len(shown), len(images), "samples"), "each map on its own scale")
    displays = dict.fromkeys(method.display for method in methods)
    bars = [replace(DISPLAYS[display].bar, label=_LABELS.get(display, "")) for display in displays]
    reading = f"Each row is one method's answer to what in the image moved {target}. {info.get('reading', '')}".rstrip()
    body = VStack([*rows, *bars], gap=GUTTER)
    rest: PageInfo = {**info, "reading": reading}
    return compose(tag, title, body, facts, warnings=count_flaws(map_flaws(body), "maps"), **rest)


_LABELS = {"heat": "over the grayed image", "sum": "of its size", "max": "of its size", "signed": "the class"}
