"""The page every picture stands on: 700 px wide, white, two lines on top, the body below."""

from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from lightning_viz.render.text import DARK, GRAY, RED, SEPARATOR, TITLE_SIZE, draw_lines, wrap, wrap_items

WIDTH = 700  # TensorBoard's card shows it at half
MARGIN = 12
INNER_WIDTH = WIDTH - 2 * MARGIN
BODY_HEIGHT = 780  # with the header about 900


@dataclass(frozen=True)
class Picture:
    """An encoded image with what a sink needs to know of it.

    Args:
        tag: where it stands in TensorBoard.
        image: PNG bytes, or GIF bytes for an animation.
        width: of the image, in pixels.
        height: of the image, in pixels.
        description: Markdown: the header's lines in full, then how to read the picture.
        origin: left and top of the body within the page, in pixels.
    """

    tag: str
    image: bytes
    width: int
    height: int
    description: str
    origin: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Caption:
    """What the header says.

    Args:
        title: what is shown, of which layer, for which class.
        details: step, scale and counts, joined with " · " on the second line.
        reading: one sentence on how to read the picture; in the description only.
        notes: warnings such as "NaN in 3 of 16 maps"; in the picture and in the description.
    """

    title: str
    details: tuple[str, ...] = ()
    reading: str = ""
    notes: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """The caption as Markdown."""
        head = [f"**{self.title}**", SEPARATOR.join(filter(None, self.details)), *(f"⚠ {note}" for note in self.notes)]
        return "\n\n".join(part for part in ("  \n".join(filter(None, head)), self.reading) if part)


def page(tag: str, caption: Caption, body: Image.Image) -> Picture:
    """Put a body under its caption.

    Args:
        tag: where the picture stands in TensorBoard.
        caption: the header's text; lines longer than the page wrap.
        body: any size; made smaller where it is wider than the page's 676 px between the margins.
    """
    body = body.convert("RGB")
    if body.width > INNER_WIDTH:
        height = max(1, round(body.height * INNER_WIDTH / body.width))
        body = body.resize((INNER_WIDTH, height), Image.Resampling.LANCZOS)
    head = header(caption)
    top = MARGIN + head.height + MARGIN // 2
    sheet = Image.new("RGB", (WIDTH, top + body.height + MARGIN), "white")
    sheet.paste(head, (MARGIN, MARGIN))
    sheet.paste(body, (MARGIN, top))
    return Picture(tag, png(sheet), sheet.width, sheet.height, caption.description, (MARGIN, top))


def header(caption: Caption) -> Image.Image:
    """The caption drawn: title dark, details gray, notes red with a warning sign."""
    parts = [
        draw_lines(wrap(caption.title, INNER_WIDTH, TITLE_SIZE), INNER_WIDTH, size=TITLE_SIZE, color=DARK),
        draw_lines(wrap_items(caption.details, INNER_WIDTH), INNER_WIDTH, color=GRAY),
    ]
    notes = wrap_items([f"⚠ {note}" for note in caption.notes], INNER_WIDTH)
    if notes:
        parts.append(draw_lines(notes, INNER_WIDTH, color=RED))
    return stack(parts, gap=2)


def png(image: Image.Image) -> bytes:
    """The image as PNG bytes."""
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def stack(images: list[Image.Image], *, gap: int) -> Image.Image:
    """Images one below the other on white, aligned left."""
    height = sum(image.height for image in images) + gap * max(0, len(images) - 1)
    sheet = Image.new("RGB", (max((image.width for image in images), default=1), max(1, height)), "white")
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height + gap
    return sheet


def beside(images: list[Image.Image], *, gap: int) -> Image.Image:
    """Images side by side on white, aligned at the top."""
    width = sum(image.width for image in images) + gap * max(0, len(images) - 1)
    sheet = Image.new("RGB", (max(1, width), max((image.height for image in images), default=1)), "white")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + gap
    return sheet
