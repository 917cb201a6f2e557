"""Attribution methods side by side: a row for each, its name and numbers at the left, then its maps of the samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .displays import DISPLAYS
from .legends import colour_bar
from .picture import INNER_WIDTH, Caption, Picture, beside, page, stack
from .text import DARK, GREY, draw_lines, step_text, wrap
from .tiles import GUTTER, VERDICTS, Verdict, check_images, count_flaws, draw_verdicts, enlarge, fit, flaw, hatched

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
        gap: pixels between neighbours.
    """
    how, tiles, flaws = DISPLAYS[method.display], [], []
    for image, each in zip(images, method.maps, strict=True):
        reduced = how.reduced(each.astype(np.float64))
        wrong = flaw(reduced)
        flaws.append(wrong)
        tiles.append(hatched(size, wrong) if wrong else how.tile(image, reduced / how.reach(reduced), size))
    names = draw_lines(wrap(method.name, label), label, colour=DARK)
    words = [draw_lines(method.words, label, colour=GREY)] if method.words else []
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
        raise ValueError(f"give one method or more, with maps [{len(images)}, C, h, w] each, got {shapes}")
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
    head = stack([draw_lines(["the image"], _LABEL), draw_lines(key, _LABEL, colour=GREY)], gap=2)
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
    """What the colours mean, of the displays that are there."""
    bars = {
        "heat": lambda: colour_bar("heat", "0", "maximum", label="over the greyed image"),
        "sum": lambda: colour_bar("magma", "0", "99th percentile", label="of its size"),
        "max": lambda: colour_bar("magma", "0", "99th percentile", label="of its size"),
        "signed": lambda: colour_bar("diverging", "against", "for", middle="0", label="the class"),
        "image": lambda: colour_bar("gray", "−½ max", "½ max", middle="0"),
    }
    return [bars[display]() for display in dict.fromkeys(one.display for one in methods)]
