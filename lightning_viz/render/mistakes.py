"""What a classifier gets wrong: its worst samples with what it looked at, and which classes it takes for which."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.render.colors import apply
from lightning_viz.render.layout import INNER_WIDTH
from lightning_viz.render.page import Page, PageInfo, body_room, check_rgb, check_shape, compose
from lightning_viz.render.parts import Cell, ColorBar, Label, MapTile, Part, Sheet, Tile, VStack
from lightning_viz.render.planes import as_planes
from lightning_viz.render.sample_pairs import BAR_ROOM, CONFIDENCE, pair_layout, pair_rows
from lightning_viz.render.text import DARK, LINE, WHITE, percent, shorten, some_of, text_width
from lightning_viz.render.tiles import DISPLAYS, count_flaws, count_weak, map_flaws, map_tile, on_one_scale

__all__ = ["MOST_CLASSES", "MOST_WORST", "confusion_table", "worst_samples"]

MOST_WORST = 8
"""Samples on a page of mistakes."""
MOST_CLASSES = 12
"""Classes in a confusion matrix."""
_NEW = "new"


def worst_samples(
    tag: str,
    images: NDArray[np.uint8],
    maps: NDArray[Any] | None,
    *,
    new: Sequence[bool] | None,
    wrong: int,
    samples: int,
    population: str,
    flawed: int = 0,
    layer: str = "",
    unit: str = "logits",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of the samples with the largest loss, the worst first, each with what speaks for the predicted class.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``, or series or volumes, see `as_planes`; the first 8 are shown.
        maps: Grad-CAM for each sample's predicted class ``[N, 1, h, w]``; None: there are no maps.
        new: which samples were not among those shown at the step before; None at the first.
        wrong: number of the samples that are wrong.
        samples: number of all samples that are counted.
        population: among which they are the worst, such as "500 validation samples".
        flawed: number of the samples that are not counted, as the model's scores of them are NaN.
        layer: of the maps.
        unit: of the maps.
        info: see `PageInfo`.
    """
    title, flaws = (
        "What it gets wrong: the worst samples",
        (f"NaN in the scores of {flawed:,} of {flawed + samples:,} samples",) * bool(flawed),
    )
    if not len(images):
        nothing = Tile((INNER_WIDTH, 200), flaw="no sample has a score that is a number")
        return compose(tag, title, nothing, (population,), warnings=flaws, **info)
    verdicts, heat = info.get("verdicts", ()), DISPLAYS["heat"]
    images = images[:MOST_WORST]
    grids = np.zeros((len(images), 1, 1, 1)) if maps is None else maps[:MOST_WORST]
    pictures, grids, places = as_planes(images, grids)
    check_rgb(pictures)
    counted = population if population.startswith(f"{samples:,} ") else f"{samples:,}"
    facts = (
        f"{wrong:,} of {counted} wrong ({percent(wrong / max(1, samples))} %)",
        f"the {MOST_WORST} with the largest loss" + f" of {population}" * (counted != population),
        *places,
        "Grad-CAM for the predicted class" if maps is not None else "",
        CONFIDENCE,
        "new: not at the look before",
    )
    layout = pair_layout(
        pictures, MOST_WORST, verdicts, body_room(title, facts, **info) - BAR_ROOM * (maps is not None)
    )
    shown = [Tile(layout.size, image, sample=index) for index, image in enumerate(pictures)]
    tiles: list[MapTile] = []
    bars: list[Part] = []
    if maps is not None:
        tiles = [map_tile(layout.size, pictures[index], grid, "heat", sample=index) for index, grid in enumerate(grids)]
        tiles, reach = on_one_scale([replace(tile, layer=layer) for tile in tiles])
        bars = [heat.bar_to(reach, unit)]
    marks = [_NEW if new is not None and new[index] else " " for index in range(len(shown))]
    body = VStack([pair_rows(layout, shown, tiles, verdicts, marks), *bars], gap=8)
    reading = (
        "The samples with the largest loss, the worst first; a right one is there if fewer are wrong. A label that "
        "looks wrong to you may be wrong."
    )
    if maps is not None:
        where = "Below" if layout.stacked else "Beside"
        reading += f" {where} each: where the evidence for the predicted class lies (Grad-CAM)."
    warnings = (*flaws, *count_flaws(map_flaws(body), "maps"), *count_weak(body))
    return compose(tag, title, body, facts, reading, warnings=warnings, **info)


_LABEL, _ROW, _HEAD = 150, 44, 2 * LINE  # pixels: for names of true classes, height of a row, of the heads


def confusion_table(
    tag: str,
    counts: NDArray[np.int64],
    *,
    names: Sequence[str],
    classes: int,
    population: str,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of a confusion matrix: true classes as rows, predicted ones as columns.

    Args:
        tag: of the page.
        counts: of samples ``[K, K]``.
        names: of these classes; at most 12 are shown.
        classes: how many there are in all.
        population: what was counted, such as "500 validation samples".
        info: see `PageInfo`.
    """
    check_shape("counts", counts, len(names), len(names), filled=True)
    counts, names = counts[:MOST_CLASSES, :MOST_CLASSES], list(names[:MOST_CLASSES])
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    colors, width = apply("magma_r", shares, 0.0, 1.0), (INNER_WIDTH - _LABEL) // len(names)
    parts: list[Part] = [Label(_LABEL, 0, "predicted →"), Label(0, LINE, "true")]
    for place, name in enumerate(names):
        middle = _LABEL + width * (place + 0.5)
        parts.append(Label(middle, 1.5 * LINE, shorten(name, width - 4), DARK, "mm"))
        parts.append(Label(0, _HEAD + _ROW * (place + 0.5), shorten(name, _LABEL - 12), DARK, "lm"))
    for (row, column), count in np.ndenumerate(counts):
        color = tuple(colors[row, column].tolist())
        ink = DARK if sum(color) > 3 * 140 else WHITE
        text = f"{count:,}" if count and text_width(f"{count:,}") <= width - 6 else ""
        corner = (_LABEL + width * column, _HEAD + _ROW * row, width - 2, _ROW - 2)
        parts.append(Cell(*corner, color, [text], ink, float(count), row, column))
    table = Sheet(INNER_WIDTH, _HEAD + len(names) * _ROW, parts)
    wrong = int(counts.sum() - np.trace(counts))
    facts = (
        population,
        f"{wrong:,} off the diagonal",
        some_of(len(names), classes, "classes, those with most mistakes at the first look"),
    )
    reading = (
        "Each row is a true class, each column a predicted one: how many samples of the row were taken for the column. "
        "Right ones lie on the diagonal. Colors are shares of the row."
    )
    bar = ColorBar("magma_r", "0 %", "100 %", label="of the row's samples")
    return compose(tag, "Which classes it takes for which", VStack([table, bar], gap=8), facts, reading, **info)
