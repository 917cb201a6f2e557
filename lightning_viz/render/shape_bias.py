"""Shape or texture: images with two cues, what a network says to each, and which cue it follows in each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import Colors, class_colors
from lightning_viz.render.page import BODY_HEIGHT, INNER_WIDTH, Caption, Picture, beside, page, stack
from lightning_viz.render.plots import POINT, canvas
from lightning_viz.render.text import GRAY, LINE, TEXT_SIZE, draw_lines, font, number, shorten
from lightning_viz.render.tiles import CROSS, check_images, confidence_text, enlarge

MOST_CONFLICTS = 12
_BLOCKS = range(2, 5)  # in a row
_APART = 14  # pixels between blocks
_CLOSE = 4  # pixels between an image and those that it was made of
_FRAME = 5
_COLORS = {"shape": (0, 90, 160), "texture": (180, 75, 0), "neither": GRAY}  # dark enough for white words on them

_ROW = 54  # pixels for a class
_SPREAD = 0.26  # of a row: networks lie one below the other
_LEFT, _RIGHT, _TOP, _BOTTOM = 140, 30, 8, 70  # pixels around the axes
_KEYS, _KEY, _KEY_WIDTH = 2, 30, 260  # names of networks in a row; pixels for a row, and for a name
_MARKERS = "oDs^vPX*"


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
    details: Sequence[str] = (),
    reading: str = "",
    notes: Sequence[str] = (),
) -> Picture:
    """Images with one class's shape and another's texture, what they are made of, and what a network says.

    Args:
        tag: where the picture stands in TensorBoard.
        conflicts: the first 12 are shown, all are counted.
        title: what is shown, and which network decides.
        details: further facts for the caption.
        reading: how to read the picture, for the description; a sentence of its own if empty.
        notes: further warnings for the caption.
    """
    if not conflicts or not all(one.answers for one in conflicts):
        raise InvalidArgumentError(f"{len(conflicts)} conflicts: give one or more, each with one answer or more")
    for one in conflicts:
        for image in (one.image, one.shape, one.texture):
            check_images(image[None])
    shown = conflicts[:MOST_CONFLICTS]
    lines = 1 + max(len(one.answers) for one in shown)
    width, columns = _layout(len(shown), max(one.image.shape[0] / one.image.shape[1] for one in shown), lines)
    blocks = [
        stack([_made_of(one, width), _verdict(one.follows, width), _answers(one.answers, width)], gap=2)
        for one in shown
    ]
    rows = [beside(blocks[at : at + columns], gap=_APART) for at in range(0, len(blocks), columns)]
    followed = [one.follows for one in conflicts]
    shape, texture, neither = (followed.count(cue) for cue in ("shape", "texture", "neither"))
    facts = (
        f"the first {len(shown)} of {len(conflicts)}" if len(shown) < len(conflicts) else "",
        f"decisions: {shape} shape, {texture} texture, {neither} neither",
        f"shape bias {number(shape / (shape + texture))}" if shape + texture else "no shape bias",
        "small: where shape and texture are from, the one followed framed",
        *details,
    )
    return page(tag, Caption(title, facts, reading or _READING, tuple(notes)), stack(rows, gap=_APART))


def shape_bias_plot(
    tag: str,
    class_bias: NDArray[Any],
    bias: Sequence[float],
    *,
    names: Sequence[str],
    models: Sequence[str],
    title: str = "Shape bias of each class",
    details: Sequence[str] = (),
    reading: str = "",
    notes: Sequence[str] = (),
) -> Picture:
    """For each class how often a network follows its shape rather than another's texture, several networks in one plot.

    Args:
        tag: where the picture stands in TensorBoard.
        class_bias: shape / (shape + texture) among the images with each class's shape, ``[models, classes]``; NaN where
            no decision is either, which is left out, and said.
        bias: the same among all images, of each model.
        names: of the classes.
        models: a name each.
        title: what is shown.
        details: facts for the caption: how many images, and what share of the decisions is either.
        reading: how to read the picture, for the description; a sentence of its own if empty.
        notes: further warnings for the caption.
    """
    class_bias = np.asarray(class_bias, dtype=np.float64)
    if class_bias.shape != (len(models), len(names)) or len(bias) != len(models):
        what = f"class_bias is {class_bias.shape}, bias {len(bias)}"
        raise InvalidArgumentError(f"{what} for {len(models)} models and {len(names)} classes: give one each")
    colors = class_colors(len(models)) / 255
    values = np.concatenate([class_bias, np.asarray(bias, dtype=np.float64)[:, None]], axis=1)
    bottom = _BOTTOM + _KEY * -(-len(models) // _KEYS)
    height = _TOP + _ROW * values.shape[1] + bottom
    rows = np.arange(values.shape[1])[::-1]
    spread = np.linspace(_SPREAD, -_SPREAD, len(models)) if len(models) > 1 else np.zeros(1)
    size = TEXT_SIZE * POINT
    with canvas(INNER_WIDTH, height) as sheet:
        axes = sheet.axes(_LEFT, bottom, INNER_WIDTH - _LEFT - _RIGHT, height - bottom - _TOP)
        axes.hlines(rows[:-2] - 0.5, -0.04, 1.04, color="0.88", linewidth=1)
        axes.axhspan(-0.5, 0.5, color="0.94", zorder=0)
        axes.axvline(0.5, color="0.88", linewidth=1, zorder=1)
        for place, (model, color) in enumerate(zip(models, colors, strict=True)):
            marker = _MARKERS[place % len(_MARKERS)]
            label = shorten(model, _KEY_WIDTH, suffix="  –" if np.isnan(bias[place]) else f"  {number(bias[place])}")
            style = {"color": color, "markersize": 14 * POINT, "clip_on": False, "zorder": 3}
            axes.plot(values[place], rows + spread[place], marker, label=label, **style)
        axes.set_xlim(-0.04, 1.04)
        axes.set_ylim(-0.5, len(rows) - 0.5)
        axes.set_xticks([0, 0.5, 1], ["0 texture", "0.5", "shape 1"])
        axes.set_yticks(rows, [shorten(name, _LEFT - 12) for name in (*names, "all classes")])
        axes.tick_params(colors="0.2", labelsize=size, length=0)
        axes.set_xlabel("shape / (shape + texture)", color="0.35", fontsize=size)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        sheet.figure.legend(
            loc="lower left", ncols=_KEYS, frameon=False, borderpad=0, borderaxespad=0, handletextpad=0.2, fontsize=size
        )
        plot = sheet.image()
    lost = int(np.isnan(class_bias).sum())
    warnings = (f"no decision for shape or texture, no mark, for {lost} of {class_bias.size} classes",) if lost else ()
    reads = reading or (
        "Each row is a class: images with its shape and another class's texture. A mark at 1 means that the network "
        "always says the shape's class, at 0 always the texture's; decisions for a third class do not count. The "
        "gray row is the bias among all images."
    )
    return page(tag, Caption(title, tuple(details), reads, (*warnings, *notes)), plot)


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


def _made_of(one: Conflict, width: int) -> Image.Image:
    """The image, and at its right its shape above its texture."""
    side = _large(width)
    height = round(side * one.image.shape[0] / one.image.shape[1])
    small = (width - side - _CLOSE, (height - _CLOSE) // 2)
    parts = [_part(one.shape, small, "shape", one.follows), _part(one.texture, small, "texture", one.follows)]
    return beside([enlarge(one.image, (side, height)), stack(parts, gap=_CLOSE)], gap=_CLOSE)


def _part(image: Colors, size: tuple[int, int], cue: str, followed: str) -> Image.Image:
    """A shape or a texture, cut to the size's form; framed if it is what the decision follows."""
    tile = ImageOps.fit(Image.fromarray(np.ascontiguousarray(image)), size, Image.Resampling.LANCZOS)
    if cue == followed:
        ImageDraw.Draw(tile).rectangle((0, 0, size[0] - 1, size[1] - 1), outline=_COLORS[cue], width=_FRAME)
    return tile


def _verdict(followed: str, width: int) -> Image.Image:
    """A band that says what the decision follows."""
    band = Image.new("RGB", (width, LINE), _COLORS[followed])
    words = CROSS + followed if followed == "neither" else f"→ {followed}"
    ImageDraw.Draw(band).text((width // 2, LINE // 2), words, fill="white", font=font(), anchor="mm")
    return band


def _answers(answers: Sequence[tuple[str, float]], width: int) -> Image.Image:
    return draw_lines([shorten(name, width, suffix=f"  {confidence_text(sure)}") for name, sure in answers], width)
