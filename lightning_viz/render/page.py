"""The page: a caption over parts, and the picture that it is laid out as, 700 px wide on white."""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import Unpack

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.plain_text import plain_text
from lightning_viz.render.layout import INNER_WIDTH, draw
from lightning_viz.render.parts import Part, Text, VStack
from lightning_viz.render.text import GRAY, RED, SEPARATOR, TITLE_SIZE, step_text, text_width, wrap, wrap_items
from lightning_viz.render.tiles import Verdict, verdict_key
from lightning_viz.rich_display import picture

__all__ = ["Page", "PageInfo", "Picture", "compose", "lay_out"]

_COMPRESSION = 4  # of 9: a twentieth larger than at 6, in two thirds of the time
_MARGIN = 12
_HEIGHT, _LEAST_ROOM = 900, 690  # pixels of a page, and of a body for which there is room under any caption
WIDTH = INNER_WIDTH + 2 * _MARGIN  # TensorBoard's card shows it at half

_Kind = TypeVar("_Kind", bound=Part)


class PageInfo(TypedDict, total=False):
    """What every page function takes by keyword.

    Attributes:
        step: number of completed updates of the model, if it is being trained.
        details: further facts for the caption.
        verdicts: one a sample, or none; only on pages of samples.
        notes: further warnings for the caption.
        reading: how to read the picture, for the description; a sentence of the page's own if it is left out or empty.
    """

    step: int | None
    details: Sequence[str]
    verdicts: Sequence[Verdict]
    notes: Sequence[str]
    reading: str


def check_rgb(*pictures: NDArray[Any]) -> None:
    """Raise where images are not ``[N, H, W, 3]`` of 0 to 255."""
    for images in pictures:
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            got = f"{images.dtype} {images.shape}"
            raise InvalidArgumentError(f"images are uint8 [N, H, W, 3], got {got}; use tiles.to_rgb")


def check_count(what: str, given: Sized, count: int) -> None:
    """Raise where there is not one of ``what`` for each of ``count`` things."""
    if len(given) != count:
        raise InvalidArgumentError(f"{len(given)} {what} for {count}: give one each")


def check_shape(name: str, values: NDArray[Any], *shape: int | str, filled: bool = False, remedy: str = "") -> None:
    """Raise where an array has another shape.

    Args:
        name: of the argument.
        values: of any type.
        shape: lengths of the axes; a letter or a word, which the message shows, stands for any.
        filled: raise where there are no values, too.
        remedy: what to do, if it is more than to give that shape.
    """
    known = [(side, length) for side, length in zip(shape, values.shape, strict=False) if isinstance(side, int)]
    if values.ndim != len(shape) or any(side != length for side, length in known) or (filled and not values.size):
        wanted = f"give [{', '.join(map(str, shape))}]{', none of them 0' if filled else ''}"
        raise InvalidArgumentError(
            f"the shape of {name} is {list(values.shape)}: {'; '.join(filter(None, (wanted, remedy)))}"
        )


@dataclass(frozen=True, eq=False)
class Page:
    """A caption over parts: plain data that pictures and reports are made of.

    Args:
        tag: where the picture stands in TensorBoard.
        title: what is shown, of which layer, for which class.
        body: the parts.
        details: step, scale and counts, joined with " · " on the second line.
        reading: one sentence on how to read the picture; in the description only.
        notes: warnings such as "NaN in 3 of 16 maps"; in the picture and in the description.
        step: number of completed updates of the model, or None.
    """

    tag: str
    title: str
    body: Part
    details: tuple[str, ...] = ()
    reading: str = ""
    notes: tuple[str, ...] = ()
    step: int | None = None

    @property
    def explanation(self) -> str:
        """What never changes from step to step, as Markdown: the title, and how to read the picture."""
        return "\n\n".join(filter(None, (f"**{plain_text(self.title)}**", plain_text(self.reading))))

    @property
    def description(self) -> str:
        """The caption as Markdown."""
        notes = (f"⚠ {plain_text(note)}" for note in self.notes)
        head = [f"**{plain_text(self.title)}**", plain_text(SEPARATOR.join(filter(None, self.details))), *notes]
        return "\n\n".join(filter(None, ("  \n".join(filter(None, head)), plain_text(self.reading))))

    def parts(self, kind: type[_Kind]) -> Iterator[_Kind]:
        """All parts of a kind, in reading order.

        Args:
            kind: such as `Tile`.
        """
        return (part for part in self.body.walk() if isinstance(part, kind))

    def _repr_html_(self) -> str:
        return lay_out(self)._repr_html_()


@dataclass(frozen=True)
class Picture:
    """An encoded image with what a sink needs to know of it.

    Args:
        tag: where it stands in TensorBoard.
        image: PNG bytes, or GIF bytes for an animation.
        width: of the image, in pixels.
        height: of the image, in pixels.
        description: Markdown: the header's lines in full, then how to read the picture.
        explanation: of that, what never changes from step to step; empty: all of it. TensorBoard shows the first step's
            for ever.
    """

    tag: str
    image: bytes
    width: int
    height: int
    description: str
    explanation: str = ""

    @property
    def kind(self) -> str:
        """Of the file: ``"gif"`` for an animation, else ``"png"``."""
        return "gif" if self.image.startswith(b"GIF") else "png"

    def _repr_html_(self) -> str:
        return picture(self.image, self.kind, " ".join(self.description.replace("**", "").split()))


def compose(
    tag: str,
    title: str,
    body: Part,
    facts: Sequence[str] = (),
    sentence: str = "",
    *,
    warnings: Sequence[str] = (),
    last: Sequence[str] = (),
    **info: Unpack[PageInfo],
) -> Page:
    """A page of a title and a body; the caption's lines are step, facts and further details.

    From step to step only numbers should change in them, and none should come and go: the page then keeps its layout.

    Args:
        tag: where the picture stands in TensorBoard.
        title: what is shown.
        body: the parts.
        facts: scale and counts; empty ones are left out.
        sentence: on how to read the picture, if the info has none; the key to verdicts follows.
        warnings: before the notes.
        last: facts after the further details.
        info: see `PageInfo`.
    """
    step, details = info.get("step"), _details(facts, last, info)
    reading = " ".join(filter(None, (info.get("reading") or sentence, verdict_key(info.get("verdicts", ())))))
    return Page(tag, title, body, details, reading, (*warnings, *info.get("notes", ())), step)


def _details(facts: Sequence[str], last: Sequence[str], info: PageInfo) -> tuple[str, ...]:
    step = info.get("step")
    return ("" if step is None else step_text(step), *facts, *info.get("details", ()), *last)


def body_room(title: str, facts: Sequence[str] = (), *, last: Sequence[str] = (), **info: Unpack[PageInfo]) -> int:
    """Pixels of height that a page's caption leaves to its body, the same at every step; a least height in any case.

    Args:
        title: as for `compose`.
        facts: likewise.
        last: likewise.
        info: likewise.
    """
    above, _ = _captions(Page("", title, Text([], 1), _details(facts, last, info), step=info.get("step", 0)))
    return max(_LEAST_ROOM, _HEIGHT - draw(above).height - 2 * _MARGIN - _MARGIN // 2)


def lay_out(page: Page | Picture, *, header: bool = True) -> Picture:
    """A page as a picture; a picture, such as an animation, stays as it is.

    Args:
        page: to be laid out; a body wider than the 676 px between the margins is made smaller.
        header: draw the caption over the body; without it the picture is the body alone.
    """
    if isinstance(page, Picture):
        return page
    sheet = draw(page.body).convert("RGB")
    if sheet.width > INNER_WIDTH:
        height = max(1, round(sheet.height * INNER_WIDTH / sheet.width))
        sheet = sheet.resize((INNER_WIDTH, height), Image.Resampling.LANCZOS)
    if header:
        above, below = _captions(page)
        blocks, gap = [draw(above), sheet, *([draw(below)] if below.lines else [])], _MARGIN // 2
        height = sum(block.height + gap for block in blocks) - gap + 2 * _MARGIN
        sheet, top = Image.new("RGB", (WIDTH, height), "white"), _MARGIN
        for block in blocks:
            sheet.paste(block, (_MARGIN, top))
            top += block.height + gap
    return Picture(plain_text(page.tag), png(sheet), sheet.width, sheet.height, page.description, page.explanation)


def _captions(page: Page) -> tuple[VStack, Text]:
    """What stands above the body, title dark, details gray, warnings red; and the warnings that stand below it.

    Of a page that has steps there is room for one line of warnings at each, so that its body does not move when one
    comes or goes. What does not fit on that line stands below the body.
    """
    title = Text(wrap(page.title, INNER_WIDTH, TITLE_SIZE), INNER_WIDTH, size=TITLE_SIZE)
    details = Text(wrap_items(page.details, INNER_WIDTH), INNER_WIDTH, color=GRAY)
    notes, line, count = [f"⚠ {note}" for note in page.notes], "", 0
    while count < len(notes) and text_width(SEPARATOR.join(notes[: count + 1])) <= INNER_WIDTH:
        count += 1
        line = SEPARATOR.join(notes[:count])
    line = line or ("⚠ see below the picture" if notes else "")
    warning = [Text([line], INNER_WIDTH, color=RED)] if line or page.step is not None else []
    return VStack([title, details, *warning], gap=2), Text(
        wrap_items(notes[count:], INNER_WIDTH), INNER_WIDTH, color=RED
    )


def png(image: Image.Image) -> bytes:
    """The image as PNG bytes."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()
