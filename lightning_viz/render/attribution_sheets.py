"""Attribution methods side by side: a row for each, its name and numbers at the left, then its maps of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import class_colors
from lightning_viz.render.displays import DISPLAYS, map_tile
from lightning_viz.render.page import Page, PageInfo, compose
from lightning_viz.render.parts import (
    INNER_WIDTH,
    ClassKey,
    ColorBar,
    HStack,
    MapTile,
    Part,
    Text,
    Tile,
    TileSize,
    VStack,
)
from lightning_viz.render.text import DARK, GRAY, LINE, number, wrap
from lightning_viz.render.tiles import GUTTER, Flaw, check_rgb, count_flaws, find_flaw, first_of, fit, verdict_texts

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["MOST_SAMPLES", "MethodMaps", "method_row", "method_sheet", "occlusion_maps"]

MOST_SAMPLES = 6
_LABEL = 216  # pixels for names and numbers
_ROOM = 760  # pixels for all rows


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


def method_row(
    images: NDArray[np.uint8], method: MethodMaps, size: TileSize, *, label: int, gap: int
) -> tuple[HStack, list[Flaw | None]]:
    """A method's maps, each on its own scale, its name and words to the left; and what is wrong with each map.

    Args:
        images: the samples ``[N, H, W, 3]``.
        method: its maps, one for each of them.
        size: of a tile, width and height in pixels.
        label: pixels for name and words.
        gap: pixels between neighbors.
    """
    reduced = [DISPLAYS[method.display].reduced(values.astype(np.float64)) for values in method.maps]
    tiles = [
        map_tile(size, image, values, method.display, sample=index)
        for index, (image, values) in enumerate(zip(images, reduced, strict=True))
    ]
    names = Text(wrap(method.name, label), label, color=DARK)
    words = [Text(method.words, label, color=GRAY)] if method.words else []
    return HStack([VStack([names, *words], gap=2), *tiles], gap=gap), [find_flaw(values) for values in reduced]


def method_sheet(
    tag: str,
    images: NDArray[np.uint8],
    methods: Sequence[MethodMaps],
    *,
    title: str,
    target: str,
    key: Sequence[str] = (),
    reading: str = "",
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
        reading: what the words mean, for the description.
        info: see `PageInfo`.
    """
    check_rgb(images)
    if not methods or any(method.maps.ndim != 4 or len(method.maps) != len(images) for method in methods):
        shapes = {method.name: list(method.maps.shape) for method in methods}
        raise InvalidArgumentError(f"give one method or more, with maps [{len(images)}, C, h, w] each, got {shapes}")
    shown, verdicts = images[:MOST_SAMPLES], info.get("verdicts", ())
    across = INNER_WIDTH - _LABEL - GUTTER
    size = fit(len(shown), len(methods) + 1, shown.shape[1] / shown.shape[2], room=_ROOM, across=across)
    tops: list[Part] = [Tile(size, image, sample=index) for index, image in enumerate(shown)]
    if verdicts:
        words = verdict_texts(verdicts[: len(shown)], size[0])
        tops = [VStack([top, text], gap=1) for top, text in zip(tops, words, strict=True)]
    head = VStack([Text(["the image"], _LABEL), Text(key, _LABEL, color=GRAY)], gap=2)
    rows = [HStack([head, *tops], gap=GUTTER)]
    flaws: list[Flaw | None] = []
    for method in methods:
        row, broken = method_row(shown, replace(method, maps=method.maps[: len(shown)]), size, label=_LABEL, gap=GUTTER)
        rows.append(row)
        flaws += broken
    facts = (
        f"for {target}",
        first_of(len(shown), len(images), "samples"),
        "each map on its own scale",
    )
    bars = [
        replace(DISPLAYS[display].bar(""), label=_LABELS[display])
        for display in dict.fromkeys(method.display for method in methods)
    ]
    reads = f"Each row is one method's answer to what in the image moved {target}. {reading}".rstrip()
    body = VStack([*rows, *bars], gap=GUTTER)
    return compose(tag, title, body, facts, reading=reads, warnings=count_flaws(flaws, "maps"), **info)


_LABELS = {
    "heat": "over the grayed image",
    "sum": "of its size",
    "max": "of its size",
    "signed": "the class",
    "image": "",
}


def occlusion_maps(
    tag: str,
    images: NDArray[np.uint8],
    drop: NDArray[Any],
    predicted: NDArray[Any],
    *,
    activity: NDArray[Any] | None,
    feature: str,
    class_names: Sequence[str],
    classes: int,
    target: str,
    patch: tuple[int, int],
    positions: tuple[int, int],
    **info: Unpack[PageInfo],
) -> Page:
    """Page of occlusion maps, a sample a row: input, drop of the target, predicted class, a feature's activity.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``; the first 6 are shown.
        drop: of the target where the patch lies ``[N, h, w]``, in logits.
        predicted: the most probable class with the patch there ``[N, h, w]``.
        activity: of a feature with the patch there ``[N, h, w]``, or None.
        feature: its name.
        class_names: by class index; empty for the indices.
        classes: how many the network tells apart, so that each keeps its color.
        target: what is explained, such as "the label's logit".
        patch: its height and width in pixels.
        positions: how many, downwards and across.
        info: see `PageInfo`.
    """
    check_rgb(images)
    verdicts = info.get("verdicts", ())
    shown = drop[:MOST_SAMPLES].astype(np.float64)
    columns = 3 if activity is None else 4
    size = fit(columns, len(shown), images.shape[1] / images.shape[2], under=LINE if verdicts else 0)
    seen = [int(label) for label in np.unique(predicted[:MOST_SAMPLES])]
    palette = class_colors(classes)
    heads = ["input", "drop", "prediction", "activity"][:columns]
    rows: list[Part] = [HStack([Text([word], size[0], centered=True) for word in heads], gap=6)]
    drops = [map_tile(size, None, values, "signed", sample=index) for index, values in enumerate(shown)]
    for index, tile in enumerate(drops):
        prediction = Tile(size, palette[predicted[index]], sample=index)
        tiles = [Tile(size, images[index], sample=index), tile, prediction]
        if activity is not None:
            tiles.append(_activity(activity[index].astype(np.float64), size, index))
        rows.append(HStack(tiles, gap=6))
        if verdicts:
            rows += verdict_texts([verdicts[index]], 660)
    names = [class_names[label] if label < len(class_names) else str(label) for label in seen]
    bars = [
        ColorBar("diverging", "rises", "drops", middle="0", label="the target, with the patch there"),
        ClassKey(names, palette[seen]),
    ]
    reaches = [tile.value for tile in drops if tile.value is not None]
    facts = (
        f"the first {len(shown)} samples" if len(shown) < len(images) else "",
        f"a patch of {patch[0]} × {patch[1]} px at {positions[0]} × {positions[1]} positions",
        f"each drop divided by its 99th percentile ({number(min(reaches))} to {number(max(reaches))} logits)"
        if reaches
        else "",
        f"activity of {feature} with the patch there, dark: least" if activity is not None else "",
    )
    reading = (
        f"Each row is one sample; each place of a map tells what happens when the patch covers it: how much {target} "
        "drops (red: what lay there spoke for it), what the network then takes the sample for, and how active a "
        "feature map remains."
    )
    warnings = count_flaws([find_flaw(values) for values in shown], "maps")
    body = VStack([VStack(rows, gap=4), *bars], gap=6)
    return compose(tag, f"Occlusion for {target}", body, facts, reading=reading, warnings=warnings, **info)


def _activity(values: NDArray[Any], size: TileSize, sample: int) -> MapTile:
    """An activity from its least to its most, which need not be positive."""
    flaw = find_flaw(values) or (None if np.ptp(values) else Flaw.CONSTANT)
    shown = values if flaw else (values - values.min()) / float(np.ptp(values))
    return MapTile(size, flaw=flaw.value if flaw else "", sample=sample, values=shown, display="sum")
