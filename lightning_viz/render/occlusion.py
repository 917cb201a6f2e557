"""What covering each place of a sample does: to the target, to the prediction, and to a feature's activity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.render.attribution_maps import MOST_SAMPLES
from lightning_viz.render.colors import Colors, class_colors, key_entries, name_of
from lightning_viz.render.layout import BAR_LENGTH, GUTTER, INNER_WIDTH, fit, key_height
from lightning_viz.render.page import Page, PageInfo, body_room, check_rgb, compose
from lightning_viz.render.parts import (
    ClassKey,
    ColorBar,
    HStack,
    MapTile,
    PaintedTile,
    Part,
    Text,
    Tile,
    TileSize,
    VStack,
)
from lightning_viz.render.planes import as_planes, most_samples, strongest_slices
from lightning_viz.render.text import GRAY, LINE, first_of, level, number, percent, shorten, text_width, times, wrap
from lightning_viz.render.tiles import Flaw, count_flaws, find_flaw, map_tile, verdict_texts

__all__ = ["occlusion_maps"]

_PAINT = 0.8  # opacity of a class's color
_GAP = 6


@dataclass(frozen=True)
class _Column:
    """Tiles of one kind, one for each sample.

    Attributes:
        head: what stands over them.
        tiles: of the samples.
        words: under each.
        key: to their colors.
        reading: what they tell, for the description.
    """

    head: str
    tiles: Sequence[Tile]
    words: Sequence[str]
    key: Part | None = None
    reading: str = ""


def occlusion_maps(
    tag: str,
    images: NDArray[np.uint8],
    drop: NDArray[Any],
    predicted: NDArray[Any] | None,
    *,
    uncovered: NDArray[Any] | None = None,
    activity: NDArray[Any] | None,
    feature: str,
    class_names: Sequence[str],
    classes: int,
    target: str,
    patch: tuple[int, ...],
    positions: tuple[int, ...],
    unit: str = "logits",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of occlusion maps, a sample a row: input, drop of the target, other predictions, a feature's activity.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``, or series or volumes, see `as_planes`; the first 6 are shown.
        drop: of the target where the patch lies ``[N, h, w]``, in logits; of a series ``[N, l]``, of a volume
            ``[N, d, h, w]``, of which one slice is shown.
        predicted: the most probable class with the patch there ``[N, h, w]``; None if there are no classes.
        uncovered: the most probable class of each untouched sample ``[N]``, whose places keep the image; None if it is
            not known: each place has its class's color.
        activity: of a feature with the patch there ``[N, h, w]``, or None.
        feature: its name.
        class_names: by class index; empty for the indices.
        classes: how many the network tells apart, so that each keeps its color.
        target: what is explained, such as "the label's logit".
        patch: its height and width in pixels; or its length, or depth, height and width.
        positions: how many, in these directions.
        unit: of the target.
        info: see `PageInfo`.
    """
    verdicts, samples = info.get("verdicts", ()), len(images)
    count = min(len(drop), most_samples(images, MOST_SAMPLES))
    given = [values[:count] for values in (drop, predicted, activity) if values is not None]
    images, grids, places = _flat(images[:count], given)
    check_rgb(images)
    names = tuple(class_names) or None
    key = _class_key(classes, names) if predicted is not None else None
    across = (INNER_WIDTH - GUTTER * len(grids)) // (1 + len(grids))
    said = verdict_texts(verdicts[:count], across)
    keys = (1 + (activity is not None)) * (LINE + _GAP) + (0 if key is None else key_height(key.names) + _GAP)
    facts = (
        first_of(count, samples, "samples"),
        *places,
        f"a patch of {times(patch)} {'steps' if len(patch) == 1 else 'px'} at {times(positions)} positions",
        "one scale per column",
    )
    title = f"Occlusion for {target}"
    size = fit(
        1 + len(grids),
        count,
        images.shape[1] / images.shape[2],
        under=LINE * max((len(text.lines) for text in said), default=1),
        room=body_room(title, facts, **info) - 2 * LINE - keys,
    )
    columns = [_Column("input", [Tile(size, image, sample=index) for index, image in enumerate(images)], [])]
    columns.append(_drops(grids[0], size, target, unit))
    if predicted is not None:
        columns.append(_predictions(grids[1], uncovered, images, size, names, classes, key))
    if activity is not None:
        columns.append(_activities(grids[-1], size, feature))
    heads = level([wrap(column.head, across) for column in columns])
    rows: list[Part] = [HStack([Text(head, across) for head in heads], gap=GUTTER)]
    for index in range(count):
        below = [*said[index : index + 1]] or [Text([" "], across)]
        below += [Text([shorten(column.words[index], across)], across, color=GRAY) for column in columns[1:]]
        tiles = [column.tiles[index] for column in columns]
        rows.append(HStack([VStack(pair, gap=0) for pair in zip(tiles, below, strict=True)], gap=GUTTER))
    reading = " ".join(
        ["Each row is one sample. Each place of its maps tells what happens when the patch covers that place."]
        + [column.reading for column in columns[1:]]
    )
    warnings = count_flaws([tile.flaw for tile in columns[1].tiles], "maps")
    body = VStack([VStack(rows, gap=4), *(column.key for column in columns if column.key is not None)], gap=_GAP)
    return compose(tag, title, body, facts, reading, warnings=warnings, **info)


def _drops(drop: NDArray[Any], size: TileSize, target: str, unit: str) -> _Column:
    """How far the target falls, all on the scale of the largest."""
    tiles = [map_tile(size, None, values, "signed", sample=index) for index, values in enumerate(drop[:, None])]
    reach = max((tile.value for tile in tiles if tile.value), default=None)
    words = [
        "" if tile.flaw else f"up to {number(values.max())}" if values.max() > 0 else "none"
        for tile, values in zip(tiles, drop, strict=True)
    ]
    half = "" if reach is None else f" {number(reach)}"
    key = _color_bar(
        "diverging",
        f"rises ≥{half}" if half else "rises",
        f"drops ≥{half}" if half else "drops",
        f"{unit} of the target",
        middle="0",
    )
    reading = (
        f"Drop of the target: how much {target} drops (red: what lies there spoke for it) or rises (blue: it spoke "
        "against it), and below the largest drop; colors end at the largest 99th percentile of a map's size."
    )
    shown = [replace(tile, value=tile.value and reach) for tile in tiles]
    return _Column("drop of target where covered", shown, words, key, reading)


def _predictions(
    predicted: NDArray[Any],
    uncovered: NDArray[Any] | None,
    images: Colors,
    size: TileSize,
    names: tuple[str, ...] | None,
    classes: int,
    key: Part | None,
) -> _Column:
    """The class predicted where it is another than the untouched sample's, over the grayed image."""
    palette, tiles, words = class_colors(classes), [], []
    for index, values in enumerate(predicted):
        other = np.ones(values.shape, dtype=bool) if uncovered is None else values != uncovered[index]
        paint = np.concatenate([palette[values], np.where(other, _PAINT, 0.0)[..., None]], axis=-1)
        tiles.append(PaintedTile(size, images[index], sample=index, paint=paint))
        if not other.any():
            words.append("nowhere")
            continue
        found, counts = np.unique(values[other], return_counts=True)
        name, share = name_of(int(found[counts.argmax()]), names), percent(counts.max() / values.size)
        words.append(shorten(name, size[0], suffix=f": {share} %"))
    reading = (
        "Other class: the color of the class that the network then predicts, where it is not the untouched "
        "sample's, and below the most frequent of them with its share of the places."
    )
    return _Column("other class, its share of places", tiles, words, key, reading)


def _activities(activity: NDArray[Any], size: TileSize, feature: str) -> _Column:
    """How active a feature remains, all on one scale."""
    activity = activity.astype(np.float64)
    flaws = [find_flaw(values) or (None if np.ptp(values) else Flaw.CONSTANT) for values in activity]
    seen = [values for values, flaw in zip(activity, flaws, strict=True) if not flaw]
    low, high = min((values.min() for values in seen), default=0.0), max((values.max() for values in seen), default=1.0)
    tiles = [
        MapTile(size, flaw=flaw, sample=index, values=values, display="magma", limits=(low, high), smooth=False)
        for index, (values, flaw) in enumerate(zip(activity, flaws, strict=True))
    ]
    words = [
        "" if flaw else f"{number(values.min())} to {number(values.max())}"
        for values, flaw in zip(activity, flaws, strict=True)
    ]
    key = _color_bar("magma", number(low), number(high), f"activity of {feature}")
    reading = f"Activity: of {feature}, summed over its map; darker where it needs what lies there."
    return _Column("activity where covered", tiles, words, key, reading)


def _class_key(classes: int, names: tuple[str, ...] | None) -> ClassKey | None:
    """Of all classes, the same at every step; None where they are too many."""
    entries, colors = key_entries(np.array([classes - 1]), names)
    return ClassKey(entries, colors) if entries else None


def _color_bar(name: str, low: str, high: str, label: str, *, middle: str = "") -> ColorBar:
    """A color bar whose label is cut to the page's width."""
    room = INNER_WIDTH - BAR_LENGTH - text_width(low) - text_width(high) - 3 * _GAP - 6
    return ColorBar(name, low, high, middle, shorten(label, room))


def _flat(images: NDArray[Any], grids: list[NDArray[Any]]) -> tuple[Colors, list[NDArray[Any]], tuple[str, ...]]:
    """Inputs and maps on grids of positions, all as planes: of a volume the slice of the largest drop."""
    pictures, _, places = as_planes(images, grids[0][:, None], most=1)
    if grids[0].ndim == 2:
        return pictures, [values[:, None] for values in grids], places
    if grids[0].ndim == 4:
        rows, deepest = np.arange(len(images)), strongest_slices(grids[0][:, None])
        return pictures, [values[rows, deepest] for values in grids], places
    return pictures, grids, places
