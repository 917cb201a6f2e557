"""Attribution methods side by side: a row for each, its name and numbers at the left, then its maps of the samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import class_colors
from lightning_viz.render.heatmaps import DISPLAYS
from lightning_viz.render.page import INNER_WIDTH, Caption, Picture, beside, page, stack
from lightning_viz.render.plots import class_key, color_bar
from lightning_viz.render.text import DARK, GRAY, LINE, draw_lines, number, step_text, wrap
from lightning_viz.render.tiles import (
    GUTTER,
    VERDICTS,
    Verdict,
    check_images,
    count_flaws,
    draw_verdicts,
    enlarge,
    fit,
    flaw,
    hatched,
)

MOST_COLUMNS = 6
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
    images: NDArray[np.uint8], method: MethodMaps, size: tuple[int, int], *, label: int, gap: int
) -> tuple[Image.Image, list[str]]:
    """A method's maps, each on its own scale, its name and words to the left; and what is wrong with each map.

    Args:
        images: the samples ``[N, H, W, 3]``.
        method: its maps, one for each of them.
        size: of a tile, width and height in pixels.
        label: pixels for name and words.
        gap: pixels between neighbors.
    """
    how, tiles, flaws = DISPLAYS[method.display], [], []
    for image, each in zip(images, method.maps, strict=True):
        reduced = how.reduced(each.astype(np.float64))
        wrong = flaw(reduced)
        flaws.append(wrong)
        tiles.append(hatched(size, wrong) if wrong else how.tile(image, reduced / how.reach(reduced), size))
    names = draw_lines(wrap(method.name, label), label, color=DARK)
    words = [draw_lines(method.words, label, color=GRAY)] if method.words else []
    return beside([stack([names, *words], gap=2), *tiles], gap=gap), flaws


def method_sheet(
    tag: str,
    images: NDArray[np.uint8],
    methods: Sequence[MethodMaps],
    *,
    title: str,
    target: str,
    key: Sequence[str] = (),
    step: int | None = None,
    verdicts: Sequence[Verdict] = (),
    details: Sequence[str] = (),
    reading: str = "",
    notes: Sequence[str] = (),
) -> Picture:
    """Methods side by side on the same samples: the samples on top, then a row for each method.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the samples ``[N, H, W, 3]``; the first 6 are shown.
        methods: with a map for each sample.
        title: what they are.
        target: what is explained, such as "the predicted class's logit".
        key: to the words under their names, in lines beside the samples.
        step: number of completed updates.
        verdicts: one a sample, or none.
        details: further facts for the caption.
        reading: what the words mean, for the description.
        notes: further warnings for the caption.
    """
    check_images(images)
    if not methods or any(one.maps.ndim != 4 or len(one.maps) != len(images) for one in methods):
        shapes = {one.name: list(one.maps.shape) for one in methods}
        raise InvalidArgumentError(f"give one method or more, with maps [{len(images)}, C, h, w] each, got {shapes}")
    shown = images[:MOST_COLUMNS]
    size = fit(
        len(shown),
        len(methods) + 1,
        shown.shape[1] / shown.shape[2],
        room=_ROOM,
        across=INNER_WIDTH - _LABEL - GUTTER,
    )
    tops = [enlarge(image, size) for image in shown]
    if verdicts:
        said = draw_verdicts(list(verdicts[: len(shown)]), size[0])
        tops = [stack([top, words], gap=1) for top, words in zip(tops, said, strict=True)]
    head = stack([draw_lines(["the image"], _LABEL), draw_lines(key, _LABEL, color=GRAY)], gap=2)
    rows = [beside([head, *tops], gap=GUTTER)]
    flaws: list[str] = []
    for one in methods:
        kept = MethodMaps(one.name, one.maps[: len(shown)], one.display, one.words)
        row, wrong = method_row(shown, kept, size, label=_LABEL, gap=GUTTER)
        rows.append(row)
        flaws += wrong
    facts = (
        "" if step is None else step_text(step),
        f"for {target}",
        f"the first {len(shown)} of {len(images)} samples" if len(shown) < len(images) else "",
        "each map on its own scale",
        *details,
        VERDICTS if verdicts else "",
    )
    reads = f"Each row is one method's answer to what in the image moved {target}. {reading}".rstrip()
    caption = Caption(title, facts, reads, (*count_flaws(flaws, "maps"), *notes))
    return page(tag, caption, stack([*rows, *_bars(methods)], gap=GUTTER))


def _bars(methods: Sequence[MethodMaps]) -> list[Image.Image]:
    """What the colors mean, of the displays that are there."""
    bars = {
        "heat": lambda: color_bar("heat", "0", "maximum", label="over the grayed image"),
        "sum": lambda: color_bar("magma", "0", "99th percentile", label="of its size"),
        "max": lambda: color_bar("magma", "0", "99th percentile", label="of its size"),
        "signed": lambda: color_bar("diverging", "against", "for", middle="0", label="the class"),
        "image": lambda: color_bar("gray", "−½ max", "½ max", middle="0"),
    }
    return [bars[display]() for display in dict.fromkeys(one.display for one in methods)]


MOST_SAMPLES = 6
_NOTHING = np.zeros((1, 1, 3), np.uint8)  # the image plays no part


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
    step: int,
    target: str,
    patch: tuple[int, int],
    positions: tuple[int, int],
    details: Sequence[str] = (),
    verdicts: Sequence[Verdict] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """A sample a row: the input; how much the target drops; the most probable class; a feature's activity.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the inputs ``[N, H, W, 3]``; the first 6 are shown.
        drop: of the target where the patch lies ``[N, h, w]``, in logits.
        predicted: the most probable class with the patch there ``[N, h, w]``.
        activity: of a feature with the patch there ``[N, h, w]``, or None.
        feature: its name.
        class_names: by class index; empty for the indices.
        classes: how many the network tells apart, so that each keeps its color.
        step: number of completed updates.
        target: what is explained, such as "the label's logit".
        patch: its height and width in pixels.
        positions: how many, downwards and across.
        details: further facts for the caption.
        verdicts: one a sample, or none.
        notes: further warnings for the caption.
    """
    check_images(images)
    shown = drop[:MOST_SAMPLES].astype(np.float64)
    columns = 3 if activity is None else 4
    size = fit(columns, len(shown), images.shape[1] / images.shape[2], under=LINE if verdicts else 0)
    seen = [int(one) for one in np.unique(predicted[:MOST_SAMPLES])]
    palette = class_colors(classes)
    flaws = [flaw(each) for each in shown]
    signed = DISPLAYS["signed"]
    heads = ["input", "drop", "prediction", "activity"][:columns]
    rows = [beside([draw_lines([word], size[0], centered=True) for word in heads], gap=6)]
    for index, (image, each) in enumerate(zip(images, shown, strict=False)):
        tiles = [enlarge(image, size), _drop(each, size), enlarge(palette[predicted[index]], size)]
        if activity is not None:
            tiles.append(_activity(activity[index].astype(np.float64), size))
        rows.append(beside(tiles, gap=6))
        if verdicts:
            rows.extend(draw_verdicts([verdicts[index]], 660)[:1])
    names = [class_names[one] if one < len(class_names) else str(one) for one in seen]
    bars = [
        color_bar("diverging", "rises", "drops", middle="0", label="the target, with the patch there"),
        class_key(names, palette[seen]),
    ]
    reaches = [signed.reach(each) for each, words in zip(shown, flaws, strict=True) if not words]
    facts = (
        step_text(step),
        f"the first {len(shown)} samples" if len(shown) < len(images) else "",
        f"a patch of {patch[0]} × {patch[1]} px at {positions[0]} × {positions[1]} positions",
        f"each drop divided by its 99th percentile ({number(min(reaches))} to {number(max(reaches))} logits)"
        if reaches
        else "",
        f"activity of {feature} with the patch there, dark: least" if activity is not None else "",
        *details,
        VERDICTS if verdicts else "",
    )
    reading = (
        f"Each row is one sample; each place of a map tells what happens when the patch covers it: how much {target} "
        "drops (red: what lay there spoke for it), what the network then takes the sample for, and how active a "
        "feature map remains."
    )
    caption = Caption(f"Occlusion for {target}", facts, reading, (*count_flaws(flaws, "maps"), *notes))
    return page(tag, caption, stack([stack(rows, gap=4), *bars], gap=6))


def _drop(values: NDArray[Any], size: tuple[int, int]) -> Image.Image:
    """A drop with its sign, divided by its 99th percentile."""
    words, signed = flaw(values), DISPLAYS["signed"]
    return hatched(size, words) if words else signed.tile(_NOTHING, values / signed.reach(values), size)


def _activity(values: NDArray[Any], size: tuple[int, int]) -> Image.Image:
    """An activity from its least to its most, which need not be positive."""
    words = flaw(values)
    span = float(np.ptp(values)) if not words else 0.0
    if not span:
        return hatched(size, words or "constant")
    return DISPLAYS["sum"].tile(_NOTHING, (values - values.min()) / span, size)
