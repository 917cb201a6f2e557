"""What in the input mattered, as maps of samples: beside them, class by class, method by method, under a patch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.layout import GUTTER, INNER_WIDTH, fit, in_columns, in_rows
from lightning_viz.render.page import Page, PageInfo, body_room, check_rgb, check_shape, compose
from lightning_viz.render.parts import HStack, MapTile, Part, Text, Tile, TileSize, VStack
from lightning_viz.render.planes import as_planes, most_samples
from lightning_viz.render.sample_pairs import BAR_ROOM, CONFIDENCE, pair_layout, pair_rows
from lightning_viz.render.text import (
    DARK,
    GRAY,
    LINE,
    first_of,
    level,
    number,
    shorten,
    some_of,
    times,
    wrap,
)
from lightning_viz.render.tiles import (
    DISPLAYS,
    EVIDENCE,
    FLAT,
    Display,
    Flaw,
    Verdict,
    count_flat,
    count_flaws,
    count_weak,
    map_flaws,
    map_tile,
    on_one_scale,
    verdict_texts,
)

__all__ = [
    "MOST_SAMPLES",
    "MethodMaps",
    "attribution_maps",
    "class_columns",
    "head_columns",
    "method_row",
    "method_sheet",
]

_MOST_PAIRS = 16
_FEW_CELLS = 5  # along a side of a map
_ROWS, _CLASSES = 4, 6  # of samples and classes side by side
_BESIDE = 3  # classes beside a sample where they are more, in several rows
_MOST_LINES = 3  # of a class's name
MOST_TARGETS = 9
_CLASS_ROOM = 724  # pixels of height for them
_SEEN, _NEARLY = 160, 0.95  # pixels of a tile that is large enough on the card, and the share of them that will do
MOST_SAMPLES = 6
"""Samples on a page of maps."""
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
    tokens: int | None = None,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of attribution maps: each sample untouched and, beside it, what in it moves the target, all on one scale.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``, or series or volumes, see `as_planes`; the first 16 are shown.
        maps: ``[N, C, h, w]``, signed, or with other places; as heat enlarged bilinearly (``align_corners=False``).
        method: name, for the caption.
        target: what is explained, such as "the label's logit"; empty if the method knows none.
        display: "heat" over the grayed sample, its opacity on the page's scale, "own heat" on the map's own, or its
            "contrast" above each map's least value; "sum" (Fleuret) or "max" (Simonyan) over the channels of the size,
            their "signed" sum, or as an "image" of its own (see `DISPLAYS`).
        layer: name, for the caption; none for maps towards the input.
        unit: of the maps.
        tokens: of shares of attention, among how many it is shared: they are shown in times uniform attention then.
        info: see `PageInfo`.
    """
    maps, display = _shares(maps, display, tokens)
    samples, most = len(images), most_samples(images, _MOST_PAIRS)
    if len(maps) != samples or 0 in maps.shape[1:2]:
        raise InvalidArgumentError(f"maps are {list(maps.shape)}: give one channel or more for {samples} samples")
    images, maps, places = as_planes(images[:most], maps[:most])
    check_rgb(images)
    check_shape("maps", maps, len(images), "C", "h", "w")
    how, heat, verdicts = DISPLAYS[display], display in _HEATS, info.get("verdicts", ())
    second = [
        map_tile((1, 1), images[index], values, display, sample=index, layer=layer) for index, values in enumerate(maps)
    ]
    scaled, reach = on_one_scale(second)
    figures = [how.figure(tile.value) for tile in second]
    over = f", {'summed over' if display == 'sum' else 'the largest of'} the channels" if maps.shape[1] > 1 else ""
    of = {
        "contrast": "each from its least value",
        "signed": "what speaks for it and what against",
        "image": "signed, gray where it is zero",
    }
    facts = (
        some_of(len(second), samples, "samples"),
        *places,
        "" if layer or heat else of.get(display, f"its absolute value{over}"),
        *info.get("details", ()),
        *_scale_facts(how, tokens, scaled),
        CONFIDENCE if verdicts else "",
        _cells(maps.shape[2:], images.shape[1:3]) if heat else "",
    )
    rest: PageInfo = {**info, "details": ()}  # they stand among the facts already
    title = f"{method}{f' for {target}' if target else ', whatever the class'}{_seen_from(layer)}"
    layout = pair_layout(images, len(second), verdicts, body_room(title, facts, **rest) - BAR_ROOM)
    untouched = [Tile(layout.size, image, sample=index) for index, image in enumerate(images)]
    seen = [replace(tile, size=layout.size) for tile in scaled]
    body = VStack([pair_rows(layout, untouched, seen, verdicts, figures), how.bar_to(reach, unit)], gap=8)
    reads = _READINGS.get(
        "heat" if target and (layer or heat) else display if target else "classless", _READINGS["sum"]
    )
    where, beside = layout.words
    reading = f"{where} the input, {beside} {reads.format(target=target, method=method)} {_scale_words(how)}"
    reading += f" The number below is a map's own {how.divided}{', the bar the confidence' if verdicts else ''}."
    zero = "all zero (nothing positive left after its ReLU)" if heat else "all-zero gradient"
    flaws = count_flaws(map_flaws(body), "maps" if layer else "samples", {Flaw.ZERO: zero})
    warnings = (*flaws, *count_weak(body))
    return compose(tag, title, body, facts, reading, warnings=warnings, **rest)


def _shares(maps: NDArray[Any], display: str, tokens: int | None) -> tuple[NDArray[Any], str]:
    """Shares of attention in times uniform attention, and how they are shown; other maps as they are."""
    return (maps, display) if tokens is None else (tokens * maps, "attention")


def _scale_facts(how: Display, tokens: int | None, tiles: Sequence[MapTile]) -> tuple[str, ...]:
    """What a map's number is, and what uniform attention would be."""
    if tokens is None:
        return (f"number: {how.divided}",)
    return f"number: {how.divided}; 1× is uniform, 1/{tokens:,} to each token", count_flat(VStack(tiles, gap=0))


def _scale_words(how: Display) -> str:
    """On what scale a page's maps are, for the description."""
    if how.own:
        return "Each map is on its own scale, so that its places are seen whatever its size."
    if how.fixed is None:
        return "All maps of the page are on one scale."
    return (
        "All maps are on one scale, the same at every step: clear where attention is uniform or less, then rising by "
        f"its logarithm. A flat map is below {number(FLAT)} times uniform everywhere."
    )


def _cells(grid: Sequence[int], image: Sequence[int]) -> str:
    """Of a map whose cells are larger than a fifth of the image, how large they are."""
    if min(grid) >= _FEW_CELLS or 0 in grid:
        return ""
    return (
        f"each cell sees {times([-(-side // cells) for side, cells in zip(image, grid, strict=True)])} pixels or more"
    )


_HEATS = (*EVIDENCE, "attention")
_READINGS = {
    "classless": "where in it {method} is high, the same whatever class is asked about: the brighter, the more.",
    "heat": "where in it {method} finds evidence for {target}: the brighter, the more.",
    "contrast": "how probable {target} stays, by {method}, where a place is seen: the brighter, the more.",
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
    of: str = "classes",
    first: int = 0,
    count: int | None = None,
    samples: int | None = None,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of several classes: each sample and, beside it, its map for each class, all on one scale.

    More than 6 classes stand in several rows beside their sample.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``, or series or volumes, see `as_planes`; the first 4 are shown, or fewer that
            are larger.
        maps: of T classes ``[T, N, C, h, w]``, or with other places; the first 9 are shown.
        names: what to write under each map, T times N.
        method: name, for the caption.
        display: one of `DISPLAYS`.
        layer: name, for the caption; none for maps towards the input.
        unit: of the maps.
        of: what they are of, ``"classes"`` or ``"targets"``.
        first: how many classes other pages show before these.
        count: of the classes on all pages; T if omitted.
        samples: how many there are, of which the images are some; N if omitted.
        info: see `PageInfo`.
    """
    whose = "class, by its name and probability" if of == "classes" else "target, by its name"
    each = "class by class" if of == "classes" else "target by target"
    last, whole = first + min(len(maps), MOST_TARGETS), count or len(maps)
    columns = _Columns(
        f"{method} {each}{_seen_from(layer)}",
        f"{of} {first + 1} to {last} of {whole}" if first or last < whole else "",
        f"Each sample, then what speaks for each {whose}.",
        samples or len(images),
        ("only what raises it: an improbable class may have more" if of == "classes" and display in EVIDENCE else "",),
    )
    return _side_by_side(tag, images, maps, names, columns, display=display, layer=layer, unit=unit, **info)


def head_columns(
    tag: str,
    images: NDArray[np.uint8],
    maps: NDArray[Any],
    *,
    heads: Sequence[int],
    count: int,
    method: str,
    layer: str,
    query: str,
    unit: str = "",
    tokens: int | None = None,
    samples: int | None = None,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of attention heads: each sample and, beside it, the mean over heads and single heads, all on one scale.

    Args:
        tag: of the page.
        images: the inputs, as of `class_columns`.
        maps: the mean over all heads, then of single ones, ``[1 + heads, N, 1, h, w]``; the first 9 are shown.
        heads: their numbers.
        count: how many heads the layer has.
        method: name, for the caption.
        layer: name, for the caption.
        query: whose attention it is, such as "the class token".
        unit: of the maps.
        tokens: among how many attention is shared; the maps are on the scale of the largest if omitted.
        samples: how many there are, of which the images are some; N if omitted.
        info: see `PageInfo`.
    """
    maps, display = _shares(maps, "heat", tokens)
    names = [["mean"] * len(images), *([f"head {head}"] * len(images) for head in heads)]
    reading = (
        f"Each sample, then where {query} attends in {layer}, as the mean over heads and head by head: the "
        "brighter, the more."
    )
    shown = min(len(heads), MOST_TARGETS - 1)
    facts = f"{count} heads and their mean" if shown == count else f"{shown} of {count} heads, and the mean of all"
    columns = _Columns(f"{method} of {query} in {layer}", facts, reading, samples or len(images), tokens=tokens)
    return _side_by_side(tag, images, maps, names, columns, display=display, layer=layer, unit=unit, **info)


@dataclass(frozen=True)
class _Columns:
    """What stands side by side.

    Attributes:
        title: of the page.
        count: which of how many, in words.
        reading: how to read it.
        samples: how many there are.
        facts: further ones for the caption.
        tokens: among how many attention is shared, if the maps are shares of it.
    """

    title: str
    count: str
    reading: str
    samples: int
    facts: Sequence[str] = ()
    tokens: int | None = None


def _side_by_side(
    tag: str,
    images: NDArray[np.uint8],
    maps: NDArray[Any],
    names: Sequence[Sequence[str]],
    page: _Columns,
    *,
    display: str,
    layer: str,
    unit: str,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of samples with several maps each, ``[T, N, C, h, w]``."""
    verdicts = info.get("verdicts", ())
    images, maps, places = as_planes(images[:_ROWS], maps[:MOST_TARGETS, :_ROWS], lead=3)
    check_rgb(images)
    check_shape("maps", maps, "T", len(images), "C", "h", "w")
    size, rows, across, beside, lines = _class_layout(images, names[: len(maps)])
    tiles = [
        [map_tile(size, image, values, display, sample=index, layer=layer) for values in maps[:, index]]
        for index, image in enumerate(images[:rows])
    ]
    how = DISPLAYS[display]
    every, reach = on_one_scale([tile for row in tiles for tile in row])
    blocks: list[Part] = []
    for index, row in enumerate(tiles):
        input_text = verdict_texts([verdicts[index]] if verdicts else [Verdict()], across)
        untouched = VStack([Tile(size, images[index], sample=index), *input_text], gap=1)
        scaled, columns = every[index * len(row) : (index + 1) * len(row)], list[Part]()
        for tile, on_scale, name in zip(row, scaled, names, strict=False):
            words = [*_whole_lines(name[index], across, lines), how.figure(tile.value) or " "]
            text = VStack([Text(words[:-1], across), Text(words[-1:], across, color=GRAY)], gap=0)
            columns.append(VStack([on_scale, text], gap=1))
        blocks.append(HStack([untouched, VStack(in_rows(columns, beside, GUTTER), gap=4)], gap=GUTTER))
    facts = (
        some_of(rows, page.samples, "samples"),
        page.count,
        *places,
        *_scale_facts(how, page.tokens, every),
        *page.facts,
    )
    compare = "" if how.own else " Rows and columns compare."
    reading = f"{page.reading} {_scale_words(how)}{compare} The number below is a map's own {how.divided}."
    body = VStack([VStack(blocks, gap=4), how.bar_to(reach, unit)], gap=8)
    warnings = (*count_flaws(map_flaws(body), "maps"), *count_weak(body))
    return compose(tag, page.title, body, facts, reading, warnings=warnings, **info)


def _class_layout(images: NDArray[Any], names: Sequence[Sequence[str]]) -> tuple[TileSize, int, int, int, int]:
    """The tiles' size, how many samples are shown, a column's width, classes in a row, and lines of a name.

    As many samples as are large enough on the card.
    """
    written = [name for row in names for name in row[:_ROWS]]
    beside = len(names) if len(names) <= _CLASSES else _BESIDE
    across, in_row = (INNER_WIDTH - GUTTER * beside) // (beside + 1), -(-len(names) // beside)
    lines = min(_MOST_LINES, max(len(_broken(name, across)) for name in written))
    for rows in range(min(_ROWS, len(images)), 0, -1):
        aspect = images.shape[1] / images.shape[2]
        size = fit(beside + 1, rows * in_row, aspect, under=(lines + 1) * LINE, room=_CLASS_ROOM)
        if size[0] >= _NEARLY * min(_SEEN, across):
            break
    return size, rows, across, beside, lines


def _broken(name: str, across: int) -> list[str]:
    """A name in lines, a number and its per cent sign in one."""
    lines = wrap(name, across)
    if len(lines) > 1 and lines[-1] == "%":
        before, _, last = lines[-2].rpartition(" ")
        lines = [*lines[:-2], *filter(None, [before]), f"{last} %"]
    return lines


def _whole_lines(name: str, across: int, lines: int) -> list[str]:
    """A name in so many lines, cut only where it is longer."""
    whole = _broken(name, across)
    kept = [*whole[: lines - 1], " ".join(whole[lines - 1 :])]
    return [shorten(line, across) for line in level([kept, [""] * lines])[0]]


def _seen_from(layer: str) -> str:
    return f", seen from {layer}" if layer else ""


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


_LABELS = {
    "heat": "over the grayed image",
    "own heat": "over the grayed image",
    "contrast": "above the map's least",
    "sum": "of its size",
    "max": "of its size",
    "signed": "the class",
}
