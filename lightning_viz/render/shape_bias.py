"""Shape or texture: images with two cues, what a network says to each, and which cue it follows in each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import Colors
from lightning_viz.render.layout import BODY_HEIGHT, INNER_WIDTH, in_columns, in_rows
from lightning_viz.render.page import Page, PageInfo, check_count, check_rgb, check_shape, compose
from lightning_viz.render.parts import BiasPlot, Cell, HStack, Label, Sheet, Text, Tile, VStack
from lightning_viz.render.text import GRAY, LINE, WHITE, first_of, number, shorten
from lightning_viz.render.tiles import CROSS, confidence_text

__all__ = ["Conflict", "cue_sheet", "shape_bias_plot"]

_MOST_CONFLICTS = 12
_BLOCKS = range(2, 5)  # in a row
_APART = 14  # pixels between blocks
_CLOSE = 4  # pixels between an image and those that it was made of
_COLORS = {"shape": (0, 90, 160), "texture": (180, 75, 0), "neither": GRAY}  # dark enough for white words on them

_ROW = 54  # pixels for a class
_TOP, _BOTTOM = 8, 70  # pixels around the axes
_KEYS, _KEY = 2, 30  # names of networks in a row; pixels for a row


@dataclass(frozen=True)
class Conflict:
    """An image with two cues, and what a network says to it.

    Args:
        image: ``[H, W, 3]``.
        shape: where its shape is from, ``[h, w, 3]``.
        texture: where its texture is from, ``[h, w, 3]``.
        shape_class: name of the shape's class.
        texture_class: name of the texture's class.
        answers: the most probable classes by name, each with its probability; the first is the decision.
    """

    image: Colors
    shape: Colors
    texture: Colors
    shape_class: str
    texture_class: str
    answers: Sequence[tuple[str, float]]

    @property
    def follows(self) -> str:
        """What the decision is the class of: "shape", "texture" or "neither"."""
        decision = self.answers[0][0]
        return "shape" if decision == self.shape_class else "texture" if decision == self.texture_class else "neither"


def cue_sheet(
    tag: str,
    conflicts: Sequence[Conflict],
    *,
    title: str = "Shape or texture: which does the network follow?",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of cue conflicts: images with one class's shape and another's texture, their sources, and the predictions.

    Args:
        tag: of the page.
        conflicts: the first 12 are shown, all are counted.
        title: what is shown, and which network decides.
        info: see `PageInfo`.
    """
    if not conflicts or not all(conflict.answers for conflict in conflicts):
        raise InvalidArgumentError(f"{len(conflicts)} conflicts: give one or more, each with one answer or more")
    for conflict in conflicts:
        check_rgb(*(image[None] for image in (conflict.image, conflict.shape, conflict.texture)))
    shown = conflicts[:_MOST_CONFLICTS]
    lines = 1 + max(len(conflict.answers) for conflict in shown)
    aspect = max(conflict.image.shape[0] / conflict.image.shape[1] for conflict in shown)
    width, columns = _layout(len(shown), aspect, lines)
    made_of = [_made_of(conflict, width, index) for index, conflict in enumerate(shown)]
    blocks = in_columns(made_of, [_answer(conflict, width) for conflict in shown], gap=2)
    followed = [conflict.follows for conflict in conflicts]
    shape, texture, neither = (followed.count(cue) for cue in ("shape", "texture", "neither"))
    facts = (
        first_of(len(shown), len(conflicts), ""),
        f"decisions: {shape} shape, {texture} texture, {neither} neither",
        f"shape bias {number(shape / (shape + texture))}" if shape + texture else "no shape bias",
        "small: where shape and texture are from, the one followed framed",
    )
    return compose(tag, title, VStack(in_rows(blocks, columns, _APART), gap=_APART), facts, _READING, **info)


def shape_bias_plot(
    tag: str,
    class_bias: NDArray[Any],
    bias: Sequence[float],
    *,
    names: Sequence[str],
    models: Sequence[str],
    title: str = "Shape bias of each class",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of shape bias: how often models follow each class's shape rather than another's texture, in one plot.

    Args:
        tag: of the page.
        class_bias: shape / (shape + texture) among the images with each class's shape, ``[models, classes]``; NaN where
            no decision is either, which is left out, and said.
        bias: the same among all images, of each model.
        names: of the classes.
        models: a name each.
        title: what is shown.
        info: see `PageInfo`.
    """
    class_bias = np.asarray(class_bias, dtype=np.float64)
    check_shape("class_bias", class_bias, len(models), len(names))
    check_count("bias", bias, len(models))
    values = np.concatenate([class_bias, np.asarray(bias, dtype=np.float64)[:, None]], axis=1)
    bottom = _BOTTOM + _KEY * -(-len(models) // _KEYS)
    height = _TOP + _ROW * values.shape[1] + bottom
    rows = (*names, "all classes")
    plot = BiasPlot(width=INNER_WIDTH, height=height, values=values, models=models, names=rows, bottom=bottom)
    lost = int(np.isnan(class_bias).sum())
    warnings = (f"no decision for shape or texture, no mark, for {lost} of {class_bias.size} classes",) if lost else ()
    reading = (
        "Each row is a class: images with its shape and another class's texture. A mark at 1 means that the network "
        "always says the shape's class, at 0 always the texture's; decisions for a third class do not count. The "
        "gray row is the bias among all images."
    )
    return compose(tag, title, plot, (), reading, warnings=warnings, **info)


_READING = (
    "Each large image has the shape of the upper small one, of one class, and is painted as the lower one, of another "
    "class. Below it stands which of the two the network's decision follows, and its three most probable classes. A "
    "person sees the shape; many networks see the texture."
)


def _layout(count: int, aspect: float, lines: int) -> tuple[int, int]:
    """Width of a block, and how many stand in a row: as few as the page's height allows."""
    for columns in _BLOCKS:
        width = (INNER_WIDTH - _APART * (columns - 1)) // columns
        height = _large(width) * aspect + LINE * lines + 4 + _APART
        if -(-count // columns) * height <= BODY_HEIGHT:
            break
    return width, columns


def _large(width: int) -> int:
    """Width of the image in a block: two small ones stand beside it, half as large."""
    return (2 * width - _CLOSE) // 3


def _made_of(conflict: Conflict, width: int, sample: int) -> HStack:
    """The image, and at its right its shape above its texture, framed if it is what the decision follows."""
    side = _large(width)
    height = round(side * conflict.image.shape[0] / conflict.image.shape[1])
    small = (width - side - _CLOSE, (height - _CLOSE) // 2)
    sources = [
        Tile(small, image, sample=sample, cover=True, outline=_COLORS[cue] if cue == conflict.follows else None)
        for cue, image in (("shape", conflict.shape), ("texture", conflict.texture))
    ]
    return HStack([Tile((side, height), conflict.image, sample=sample), VStack(sources, gap=_CLOSE)], gap=_CLOSE)


def _answer(conflict: Conflict, width: int) -> VStack:
    """A band that says what the decision follows, and the most probable classes."""
    words = CROSS + conflict.follows if conflict.follows == "neither" else f"→ {conflict.follows}"
    band = Cell(0, 0, width, LINE, _COLORS[conflict.follows])
    lines = [shorten(name, width, suffix=f"  {confidence_text(sure)}") for name, sure in conflict.answers]
    sheet = Sheet(width, LINE, [band, Label(width // 2, LINE // 2, words, WHITE, "mm")])
    return VStack([sheet, Text(lines, width)], gap=2)
