"""The record of an attack as a table: what the network says of each sample after each step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .animation import thin
from .colours import Colours, class_colours
from .figure import name_of
from .picture import INNER_WIDTH, Caption, Picture, page
from .text import DARK, GREY, LINE, font, number, percent, shorten
from .tiles import COLUMNS, CROSS, GUTTER, check_images, enlarge

MOST_ROWS = 12
_CELL, _WIDEST, _GAP = 52, 110, 4  # pixels: height of rows, width of columns, between them
_MOVED = 86  # pixels for the last column
_HEADS = 2 * LINE
_PITCH = 22  # pixels between lines within a cell

Texts = list[str]


def record_table(
    tag: str,
    images: NDArray[np.uint8],
    classes: NDArray[Any],
    confidences: NDArray[Any],
    labels: NDArray[Any],
    *,
    names: Sequence[str] | None = None,
    relative: NDArray[Any] | None = None,
    step_numbers: Sequence[int] | None = None,
    attack: str,
    details: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """What the network says after each step of an attack: a row for each sample, a column for each step.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the samples ``[N, H, W, 3]``; the first 12 are shown.
        classes: after each step ``[S, N]``, of the samples as they are first; eight steps are shown, spread evenly
            over their logarithm, the last among them.
        confidences: of those, 0 to 1, ``[S, N]``.
        labels: the right classes ``[N]``.
        names: of all classes; their numbers if omitted.
        relative: length of the change by that of the sample ``[S, N]``; after the last step it is shown.
        step_numbers: of the S steps, ascending; 0, 1, ... if omitted.
        attack: its name, for the caption.
        details: further facts for the caption.
        notes: further warnings for the caption.
    """
    check_images(images)
    classes, confidences, labels = np.asarray(classes), np.asarray(confidences), np.asarray(labels)
    lengths = None if relative is None else np.asarray(relative)
    steps = list(range(len(classes))) if step_numbers is None else list(step_numbers)
    _check((len(steps), len(images)), labels, classes, confidences, *([] if lengths is None else [lengths]))
    if (np.diff(steps) <= 0).any():
        raise ValueError(f"step_numbers={steps}: give them ascending")
    rows, kept = min(len(images), MOST_ROWS), thin(steps, COLUMNS)
    table = _Table(images[:rows], len(kept), moved=lengths is not None)
    count = max(int(classes.max(initial=0)), int(labels.max()), len(names or ()) - 1) + 1
    told = [name_of(each, tuple(names) if names else None) for each in range(count)]
    colours = class_colours(count)
    table.heads([f"{steps[place]:,}" for place in kept])
    for row, label in enumerate(labels[:rows]):
        table.cell(row, 0, [told[label]], colours[label])
        for column, place in enumerate(kept, start=1):
            said = classes[place, row]
            figure = (CROSS if said != label else "") + percent(confidences[place, row])
            table.cell(row, column, [told[said], figure], colours[said])
        if lengths is not None:
            length = 100 * float(lengths[-1, row])
            table.moved(row, f"{number(length)} %" if np.isfinite(length) else "–")
    began, ended = ((each != labels).sum() for each in (classes[0], classes[-1]))
    facts = (
        f"{ended} of {len(labels)} end on another class than their label",
        f"{began} began so" if began else "",
        f"{CROSS.strip()} no longer the label",
        f"the first {rows} of {len(images)} samples" if rows < len(images) else "",
        f"{len(kept)} of {len(steps)} steps" if len(kept) < len(steps) else "",
        "moved: the change's length, of the image's" if lengths is not None else "",
        *details,
    )
    reading = (
        "Each row is one sample, each column a step of the attack: the class that the network then sees, in that "
        "class's colour, and its confidence. Where the colour changes, the network changed its mind."
    )
    return page(tag, Caption(f"The class after each step: {attack}", facts, reading, tuple(notes)), table.sheet)


class _Table:
    """Thumbnails at the left, then the labels' column, then those of the steps, last that of the lengths."""

    def __init__(self, images: NDArray[np.uint8], steps: int, *, moved: bool) -> None:
        aspect = images.shape[1] / images.shape[2]
        thumb = (min(2 * _CELL, max(_CELL // 2, round(_CELL / aspect))), _CELL)
        room = INNER_WIDTH - thumb[0] - 3 * GUTTER - (_MOVED + GUTTER) * moved
        self.width: int = min(_WIDEST, room // (steps + 1) - _GAP)
        self.sheet = Image.new("RGB", (INNER_WIDTH, _HEADS + (_CELL + _GAP) * len(images)), "white")
        self._first: int = thumb[0] + GUTTER
        self._with_lengths = moved
        self._draw = ImageDraw.Draw(self.sheet)
        for row, image in enumerate(images):
            self.sheet.paste(enlarge(image, thumb), (0, self._top(row)))
        self._end = self._left(steps) + self.width + GUTTER

    def heads(self, steps: Texts) -> None:
        """What the columns are, and the steps' numbers."""
        self._draw.text((self._left(1), 0), "class and confidence in %, after step", fill=GREY, font=font())
        for column, text in enumerate(["label", *steps]):
            place = (self._left(column) + self.width / 2, 1.5 * LINE)
            self._draw.text(place, text, fill=DARK if column else GREY, font=font(), anchor="mm")
        if self._with_lengths:
            self._draw.text((self._end, 1.5 * LINE), "moved", fill=GREY, font=font(), anchor="lm")

    def cell(self, row: int, column: int, lines: Texts, colour: Colours) -> None:
        """Lines of text on a colour."""
        left, top = self._left(column), self._top(row)
        corners = (left, top, left + self.width - 1, top + _CELL - 1)
        self._draw.rectangle(corners, fill=tuple(colour.tolist()))
        for place, line in enumerate(lines):
            middle = (left + self.width / 2, top + _CELL / 2 + _PITCH * (place + 0.5 - len(lines) / 2))
            self._draw.text(middle, shorten(line, self.width - 4), fill=_ink(colour), font=font(), anchor="mm")

    def moved(self, row: int, text: str) -> None:
        """How far a sample moved."""
        self._draw.text((self._end, self._top(row) + _CELL / 2), text, fill=DARK, font=font(), anchor="lm")

    def _left(self, column: int) -> int:
        apart = 2 * GUTTER if column else 0
        return self._first + (self.width + _GAP) * column + apart

    @staticmethod
    def _top(row: int) -> int:
        return _HEADS + (_CELL + _GAP) * row


def _ink(colour: Colours) -> tuple[int, int, int]:
    """White or dark, whichever is read better on a colour."""
    luminance = float((colour / 255) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722]))
    return (255, 255, 255) if luminance < 0.2 else DARK  # where the contrasts of both are alike


def _check(shape: tuple[int, int], labels: NDArray[Any], *tables: NDArray[Any]) -> None:
    steps, samples = shape
    if any(each.shape != shape for each in tables) or labels.shape != (samples,) or not steps * samples:
        what = f"classes, confidences and relative are [{steps} steps, {samples} samples], labels [{samples}]"
        got = ", ".join(str(list(each.shape)) for each in (*tables, labels))
        raise ValueError(f"{what}; got {got}: give one epsilon's, and one or more of each")
