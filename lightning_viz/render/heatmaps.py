"""What in the input mattered: each sample beside its map, or beside its maps for several classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.displays import DISPLAYS, map_tile
from lightning_viz.render.page import Page, PageInfo, compose
from lightning_viz.render.parts import BODY_HEIGHT, HStack, Part, Text, Tile, TileSize, VStack
from lightning_viz.render.text import GRAY, LINE, number, text_width
from lightning_viz.render.tiles import Flaw, Verdict, check_rgb, count_flaws, find_flaw, fit, verdict_texts

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["class_columns", "heat_overlays", "saliency_maps"]

_MOST_SAMPLES = 16
_PAIRS = 4  # side by side
_CLOSE, _APART = 2, 12  # pixels within and between pairs
_ROWS, _CLASSES = 4, 6  # of samples and classes side by side


def heat_overlays(
    tag: str,
    images: NDArray[np.uint8],
    heat: NDArray[Any],
    *,
    layer: str,
    target: str,
    method: str = "Grad-CAM",
    unit: str = "logits",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of heat maps: each sample untouched and, beside it, grayed under its heat, divided by the map's maximum.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``; the first 16 are shown.
        heat: non-negative maps ``[N, h, w]``, enlarged bilinearly (``align_corners=False``).
        layer: name, for the caption.
        target: what is explained, such as "the label's logit".
        method: name, for the caption.
        unit: of the heat.
        info: see `PageInfo`.
    """
    _check(images, heat, "heat", 3)
    title = f"{method} for {target}, seen from {layer}"
    reading = f"Left the input, right where in it {method} finds evidence for {target}: the brighter, the more."
    facts = tuple(info.get("details", ()))
    return _paired(
        tag, title, images, heat[:, None], "heat", facts, reading, unit=unit, layer=layer, things="maps", info=info
    )


def saliency_maps(
    tag: str,
    images: NDArray[np.uint8],
    gradient: NDArray[Any],
    *,
    method: str,
    target: str,
    display: str = "sum",
    unit: str = "",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of saliency maps: each sample and, beside it, how its pixels move the target.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``; the first 16 are shown.
        gradient: signed ``[N, C, H, W]``.
        method: name, for the caption.
        target: what is explained, such as "the label's logit".
        display: "sum" (Fleuret) or "max" (Simonyan) over the channels of the size, their "signed" sum, or as an
            "image" of its own (see `DISPLAYS`).
        unit: of the map.
        info: see `PageInfo`.
    """
    _check(images, gradient, "gradient", 4)
    if gradient.shape[1] == 0:
        raise InvalidArgumentError(f"gradient is [N, C, H, W] with C of at least 1, got {gradient.shape}")
    over = f", {'summed' if display == 'sum' else 'the largest'} of the channels" if gradient.shape[1] > 1 else ""
    size = f"its absolute value{over}"
    of = {"signed": "what speaks for it and what against", "image": "signed, gray where it is zero"}.get(display, size)
    facts = (of, *info.get("details", ()))
    reading = _READINGS.get(display, _READINGS["sum"]).format(target=target)
    return _paired(tag, f"{method} for {target}", images, gradient, display, facts, reading, unit=unit, info=info)


_READINGS = {
    "sum": "Left the input, right how strongly a small change of each pixel moves {target}: the brighter, the more.",
    "signed": "Left the input, right what each pixel adds to {target}: red speaks for it, blue against.",
    "image": "Left the input, right the pattern in it that moves {target}: bright where more of a color raises it.",
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
        images: the inputs ``[N, H, W, 3]``; the first 4 are shown.
        maps: of T classes ``[T, N, C, h, w]``; the first 6 are shown.
        names: what to write under each map, T times N.
        method: name, for the caption.
        display: one of `DISPLAYS`.
        layer: name, for the caption; none for maps towards the input.
        unit: of the maps.
        info: see `PageInfo`.
    """
    check_rgb(images)
    if maps.ndim != 5 or maps.shape[1] != len(images):
        raise InvalidArgumentError(f"maps are [T, {len(images)} samples, C, h, w], got {maps.shape}")
    how, verdicts = DISPLAYS[display], info.get("verdicts", ())
    shown = maps[:_CLASSES, :_ROWS].astype(np.float64)
    columns, rows = len(shown) + 1, shown.shape[1]
    size = fit(columns, rows, images.shape[1] / images.shape[2], under=LINE * (2 if verdicts else 1))
    flaws, reaches, lines = [], [], []
    for index in range(rows):
        reduced = [how.reduced(values) for values in shown[:, index]]
        broken = [find_flaw(values) for values in reduced]
        reach = max((how.reach(values) for values, flaw in zip(reduced, broken, strict=True) if not flaw), default=0.0)
        flaws += broken
        reaches += [reach] * (reach > 0)
        tiles = [Tile(size, images[index], sample=index)] + [
            map_tile(size, images[index], values, display, reach=reach, sample=index, layer=layer) for values in reduced
        ]
        texts = verdict_texts([verdicts[index]] if verdicts else [Verdict()], size[0])
        texts += [Text([names[place][index]], size[0], centered=True) for place in range(len(shown))]
        lines.append(HStack([VStack([tile, text], gap=1) for tile, text in zip(tiles, texts, strict=True)], gap=6))
    facts = (
        _some(rows, len(images)),
        f"{len(shown)} of {len(maps)} classes" if len(shown) < len(maps) else "",
        "only what speaks for a class" if display == "heat" else "",
        f"each row divided by its {how.divided} ({' '.join([_range(reaches), unit]).rstrip()})" if reaches else "",
    )
    title = f"{method} class by class" + (f", seen from {layer}" if layer else "")
    reading = "Each row is one sample, then what speaks for each class, on the row's own scale: columns compare."
    body = VStack([VStack(lines, gap=4), how.bar("of each row")], gap=8)
    return compose(tag, title, body, facts, reading=reading, warnings=count_flaws(flaws, "maps"), **info)


def _paired(
    tag: str,
    title: str,
    images: NDArray[np.uint8],
    maps: NDArray[Any],
    display: str,
    facts: tuple[str, ...],
    reading: str,
    *,
    unit: str,
    layer: str = "",
    things: str = "samples",
    info: PageInfo,
) -> Page:
    """Samples and their maps side by side, each map on its own scale; under heat its maximum."""
    how, heat, verdicts = DISPLAYS[display], display == "heat", info.get("verdicts", ())
    shown = [how.reduced(values) for values in maps[:_MOST_SAMPLES].astype(np.float64)]
    flaws = [find_flaw(values) for values in shown]
    reaches = [0.0 if flaw else how.reach(values) for values, flaw in zip(shown, flaws, strict=True)]
    figures = [f"{reach:.2g}" if reach else "" for reach in reaches] if heat else []
    size, columns = _pair_size(images, len(shown), verdicts, figures)
    pairs: list[Part] = []
    for index, (values, reach) in enumerate(zip(shown, reaches, strict=True)):
        second = map_tile(size, images[index], values, display, reach=reach, sample=index, layer=layer)
        pairs.append(HStack([Tile(size, images[index], sample=index), second], gap=_CLOSE))
    pairs = _with_texts(pairs, size, verdicts, figures)
    rows = [HStack(pairs[start : start + columns], gap=_APART) for start in range(0, len(pairs), columns)]
    bar = how.bar("of each map: the number under it" if heat else "of each map")
    body = VStack([VStack(rows, gap=_APART if not verdicts else 4), bar], gap=8)
    ends = list(filter(None, reaches))
    facts = (
        _some(len(shown), len(images)),
        *facts,
        f"each map divided by its {how.divided} ({' '.join([_range(ends), unit]).rstrip()})" if ends else "",
    )
    zero = "all zero (nothing positive left after its ReLU)" if heat else "all-zero gradient"
    warnings = count_flaws(flaws, things, {Flaw.ZERO: zero})
    rest: PageInfo = {**info, "details": ()}  # they stand among the facts already
    return compose(tag, title, body, facts, reading=reading, warnings=warnings, **rest)


def _pair_size(
    images: NDArray[Any], count: int, verdicts: Sequence[Verdict], figures: Sequence[str] = ()
) -> tuple[TileSize, int]:
    """The tiles' size and the number of pairs in a row, of which the tiles come out largest."""
    aspect = images.shape[1] / images.shape[2]
    figure = max(map(text_width, figures), default=0)
    sizes = {}
    for columns in range(1, min(_PAIRS, max(count, 1)) + 1):
        rows = max(1, -(-count // columns))
        for lines in (1, 2):  # two where a verdict does not fit on one
            under = lines * LINE if verdicts or figures else 0
            size = fit(2 * columns, rows, aspect, under=under, gap=_APART, room=BODY_HEIGHT - LINE)
            room = 2 * size[0] - figure  # as `_with_texts` leaves
            if all(len(verdict.lines(room)) <= lines for verdict in verdicts[:count]):
                break
        sizes[columns] = size
    largest = max(width for width, _ in sizes.values())
    columns = max(count for count in sizes if sizes[count][0] >= 0.9 * largest)  # rather a full page than a last pixel
    return sizes[columns], columns


def _with_texts(pairs: list[Part], size: TileSize, verdicts: Sequence[Verdict], figures: Sequence[str]) -> list[Part]:
    """Pairs, and under them the verdict and, at the right end, a number."""
    if not verdicts and not figures:
        return pairs
    room = max(map(text_width, figures), default=0)
    texts: list[Part] = [*verdict_texts(list(verdicts[: len(pairs)]) or [Verdict()] * len(pairs), 2 * size[0] - room)]
    if figures:
        numbers = [Text([figure or " "], room, color=GRAY) for figure in figures]
        texts = [HStack([text, figure], gap=_CLOSE) for text, figure in zip(texts, numbers, strict=True)]
    return [VStack([pair, text], gap=2) for pair, text in zip(pairs, texts, strict=True)]


def _check(images: NDArray[Any], values: NDArray[Any], name: str, dimensions: int) -> None:
    check_rgb(images)
    if values.ndim != dimensions or len(values) != len(images):
        raise InvalidArgumentError(
            f"{name} has {dimensions} dimensions and one map for each of {len(images)} images, got {values.shape}"
        )


def _some(shown: int, count: int) -> str:
    return f"{shown} of {count} samples" if shown < count else ""


def _range(values: list[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"
