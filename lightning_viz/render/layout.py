"""Layout: the page's measures, tiles in rows and columns that fill it, and how every kind of part is drawn."""

from collections.abc import Sequence
from functools import singledispatch

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.plain_text import plain_text
from lightning_viz.render import parts
from lightning_viz.render.colors import apply, hatch, table
from lightning_viz.render.points import draw_layer_plot, draw_scatter
from lightning_viz.render.text import DARK, GRAY, LINE, RED, TEXT_SIZE, WHITE, font, shorten, text_width, wrap
from lightning_viz.render.tiles import DISPLAYS, enlarge, stretch

__all__ = ["draw", "fit"]

INNER_WIDTH = 676  # pixels between a page's margins
BODY_HEIGHT = 756  # with the header about 900
GUTTER = 6
COLUMNS = 8


def in_rows(items: Sequence[parts.Part], columns: int, gap: int) -> list[parts.HStack]:
    """Parts side by side, so many in a row."""
    return [parts.HStack(items[start : start + columns], gap=gap) for start in range(0, len(items), columns)]


def in_columns(*rows: Sequence[parts.Part], gap: int) -> list[parts.VStack]:
    """The parts of several rows, such as tiles and texts, those of each column one below the other."""
    return [parts.VStack(column, gap=gap) for column in zip(*rows, strict=True)]


def heads(words: Sequence[str], width: int) -> list[parts.Text]:
    """What stands over columns, gray and centered; cut where it is wider."""
    return [parts.Text([shorten(word, width)], width, color=GRAY, centered=True) for word in words]


def fit(
    columns: int,
    rows: int,
    aspect: float,
    *,
    under: int = 0,
    gap: int = GUTTER,
    room: int = BODY_HEIGHT,
    across: int = INNER_WIDTH,
) -> parts.TileSize:
    """Width and height of tiles so that ``columns`` by ``rows`` of them fill the page's width or the room's height.

    Args:
        columns: side by side.
        rows: one below the other.
        aspect: height over width; kept, unless beyond 1:4.
        under: pixels of text below each row.
        gap: pixels between neighbors.
        room: pixels of height for all rows.
        across: pixels of width for all columns; the page's.
    """
    aspect = min(max(aspect, 0.25), 4.0)
    width = (across - gap * (columns - 1)) // columns
    height = room // rows - under - gap
    width = max(8, min(width, int(height / aspect)))
    return width, max(8, round(width * aspect))


def frame_size(extent: parts.PlotExtent, width: int, height: int) -> tuple[int, int]:
    """The largest width and height of an axes with equal units that show ``extent`` within the room given."""
    x0, x1, y0, y1 = extent
    if not (np.isfinite(extent).all() and x1 > x0 and y1 > y0):
        raise InvalidArgumentError(f"extent is (x0, x1, y0, y1) with x0 < x1 and y0 < y1, got {extent}")
    aspect = min(max((y1 - y0) / (x1 - x0), 0.2), 5.0)
    wide = min(width, round(height / aspect))
    return wide, round(wide * aspect)


_CURVE_GROUND, _CURVE_ZERO = (244, 244, 244), (165, 165, 165)  # of curves on a scale, and their line at zero
_FINER = 4  # thin lines are drawn so many times larger and made smaller, which smooths them
_RING = 9  # a ring's least radius in pixels
BAR_LENGTH = 200  # pixels, of a color bar
_DOT = 14  # pixels, of a key
_THICK_FRAMES = 80  # pixels of a tile's side, below which a window's frame is thin
_OUTLINE = 5  # pixels
_EMPTY = (222, 222, 222)  # of a bar
_NOTHING = np.zeros((1, 1, 3), dtype=np.uint8)


@singledispatch
def draw(part: parts.Part) -> Image.Image:
    """A part as an image.

    Args:
        part: with all that it consists of.

    Raises:
        InvalidTypeError: a part that stands only within a sheet.
    """
    raise InvalidTypeError(f"a {type(part).__name__} has no place of its own; put it into a Sheet")


@draw.register
def _stack(part: parts.VStack) -> Image.Image:
    images, along = [draw(child) for child in part.parts], 0 if isinstance(part, parts.HStack) else 1
    size = [max((image.size[side] for image in images), default=1) for side in (0, 1)]
    size[along] = max(1, sum(image.size[along] for image in images) + part.gap * max(0, len(images) - 1))
    sheet, corner = Image.new("RGB", (size[0], size[1]), WHITE), [0, 0]
    for image in images:
        sheet.paste(image, (corner[0], corner[1]))
        corner[along] += image.size[along] + part.gap
    return sheet


@draw.register
def _sheet(part: parts.Sheet) -> Image.Image:
    sheet = Image.new("RGB", (part.width, part.height), part.ground)
    pen = ImageDraw.Draw(sheet)
    for item in part.parts:
        if isinstance(item, parts.At):
            sheet.paste(draw(item.part), (item.left, item.top))
        elif isinstance(item, parts.Label):
            pen.text((item.x, item.y), plain_text(item.text), fill=item.color, font=font(), anchor=item.anchor)
        elif isinstance(item, parts.Cell):
            _cell(pen, item)
    return sheet


def _cell(pen: ImageDraw.ImageDraw, cell: parts.Cell) -> None:
    corners = (cell.left, cell.top, cell.left + cell.width - 1, cell.top + cell.height - 1)
    pen.rectangle(corners, fill=cell.color)
    pitch = LINE - 2
    for place, line in enumerate(cell.lines):
        middle = cell.top + cell.height / 2 + pitch * (place + 0.5 - len(cell.lines) / 2)
        text = shorten(line, cell.width - 4)
        pen.text((cell.left + cell.width / 2, middle), plain_text(text), fill=cell.ink, font=font(), anchor="mm")


@draw.register
def _text(part: parts.Text) -> Image.Image:
    pitch = LINE if part.size == TEXT_SIZE else part.size + 6
    image = Image.new("RGB", (part.width, max(1, pitch * len(part.lines))), WHITE)
    pen = ImageDraw.Draw(image)
    for index, line in enumerate(part.lines):
        left = (part.width - text_width(line, part.size)) // 2 if part.centered else 0
        pen.text((max(0, left), index * pitch), plain_text(line), fill=part.color, font=font(part.size))
    return image


@draw.register
def _bar(part: parts.Bar) -> Image.Image:
    image = Image.new("RGB", (part.width, part.height), WHITE)
    if part.share is not None:
        pen, filled = ImageDraw.Draw(image), round(part.width * min(max(part.share, 0.0), 1.0))
        pen.rectangle((0, 0, part.width - 1, part.height - 1), fill=_EMPTY)
        if filled:
            pen.rectangle((0, 0, filled - 1, part.height - 1), fill=part.color)
        if part.framed:
            pen.rectangle((0, 0, part.width - 1, part.height - 1), outline=part.color)
            for quarter in (1, 2, 3):
                place = round(part.width * quarter / 4)
                pen.line((place, 0, place, part.height - 1), fill=WHITE if place < filled else part.color)
    return image


@draw.register
def _tile(part: parts.Tile) -> Image.Image:
    if part.flaw or part.image is None:
        return _hatched(part.size, part.flaw or "")
    if part.cover:
        tile = ImageOps.fit(Image.fromarray(np.ascontiguousarray(part.image)), part.size, Image.Resampling.LANCZOS)
    else:
        tile = enlarge(part.image, part.size, average=part.average)
    if part.rings is not None:
        tile = _circled(tile, part)
    pen = ImageDraw.Draw(tile)
    if part.outline is not None:
        pen.rectangle((0, 0, tile.width - 1, tile.height - 1), outline=part.outline, width=_OUTLINE)
    if part.window is not None:
        top, bottom, left, right = part.window
        across, down = tile.width / part.image.shape[1], tile.height / part.image.shape[0]
        corners = (left * across, top * down, right * across - 1, bottom * down - 1)
        thick = 3 if min(tile.size) >= _THICK_FRAMES else 1
        pen.rectangle(corners, outline="white", width=thick + 2)
        pen.rectangle(corners, outline=RED, width=thick)
    return tile


@draw.register
def _map_tile(part: parts.MapTile) -> Image.Image:
    if part.flaw:
        return _hatched(part.size, part.flaw)
    values = part.values if part.value is None else part.values / part.value
    if part.display == "curve":
        return draw(parts.CurveTile(np.asarray(values, dtype=np.float64).ravel(), *part.size, part.limits))
    if part.limits is not None:
        return Image.fromarray(apply(part.display, stretch(values, part.size, smooth=part.smooth), *part.limits))
    picture, how = _NOTHING if part.image is None else part.image, DISPLAYS[part.display]
    tile = how.tile(picture, values, part.size)
    if part.weak:
        tile = Image.blend(how.tile(picture, 0 * values, part.size), tile, 0.5)
    if part.weak or part.flat:
        word = "weak" if part.weak else "flat"
        plate = parts.Sheet(58, LINE, [parts.Label(29, LINE // 2, word, WHITE, "mm")], GRAY)
        tile.paste(draw(plate), (0, part.size[1] - LINE))
    return tile


@draw.register
def _painted_tile(part: parts.PaintedTile) -> Image.Image:
    assert part.image is not None
    gray = np.asarray(enlarge(part.image, part.size).convert("L"), dtype=np.float64)[..., None]
    color = np.asarray(enlarge(np.rint(part.paint[..., :3]).astype(np.uint8), part.size), dtype=np.float64)
    opacity = Image.fromarray(part.paint[..., 3].astype(np.float32)).resize(part.size, Image.Resampling.NEAREST)
    share = np.asarray(opacity)[..., None]
    return Image.fromarray(np.rint(gray * (1 - share) + color * share).astype(np.uint8))


def _hatched(size: parts.TileSize, words: str) -> Image.Image:
    """A hatched tile with words in its middle, if they fit."""
    tile = Image.fromarray(hatch(*size))
    lines = wrap(words, size[0])
    while lines and len(lines) * LINE > size[1]:
        lines.pop()
    if lines and size[0] > 2 * TEXT_SIZE:
        plate = draw(parts.Text(lines, min(size[0], max(map(text_width, lines)) + 6), centered=True))
        tile.paste(plate, ((size[0] - plate.width) // 2, (size[1] - plate.height) // 2))
    return tile


def _circled(tile: Image.Image, part: parts.Tile) -> Image.Image:
    """The tile with a thin ring around each of some pixels, red within white, so that it is seen on any ground."""
    assert part.rings is not None
    across, down = tile.width / part.rings.shape[1] * _FINER, tile.height / part.rings.shape[0] * _FINER
    radius = max(_RING * _FINER, 0.9 * max(across, down))
    rings = Image.new("RGBA", (tile.width * _FINER, tile.height * _FINER), (255, 255, 255, 0))
    pen = ImageDraw.Draw(rings)
    for width, color in ((4 * _FINER, WHITE), (2 * _FINER, RED)):
        for row, column in np.argwhere(part.rings):
            x, y, reach = (column + 0.5) * across, (row + 0.5) * down, radius + width / 2
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), outline=(*color, 255), width=width)
    rings = rings.resize(tile.size, Image.Resampling.LANCZOS)
    return Image.alpha_composite(tile.convert("RGBA"), rings).convert("RGB")


@draw.register
def _curve_tile(part: parts.CurveTile) -> Image.Image:
    width, height, thickness = part.width * _FINER, part.height * _FINER, 2 * _FINER
    image = Image.new("RGB", (width, height), WHITE if part.limits is None else _CURVE_GROUND)
    if part.bands is not None:
        image = enlarge(part.bands[None], (width, height))
    pen = ImageDraw.Draw(image)
    values, finite = part.values, np.isfinite(part.values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    if part.limits is not None:
        low, high = part.limits
        values = np.clip(values, low, high)
    count = max(2, len(values))
    across = np.linspace(thickness, width - thickness, count)
    if part.limits is not None:  # as under an input's steps
        across = (np.arange(count) + 0.5) / count * width
    shares = (values - low) / (high - low) if high > low else np.where(finite, 0.5, np.nan)  # a flat one in the middle
    up = height - 2 * thickness - shares * (height - 4 * thickness)
    if part.bands is None and part.limits is not None and low <= 0 <= high and high > low:
        zero = height - 2 * thickness + low / (high - low) * (height - 4 * thickness)
        pen.line([(0, zero), (width, zero)], fill=_CURVE_ZERO, width=_FINER)
    color = GRAY if part.limits is None else DARK
    strokes = [(color, thickness)] if part.bands is None else [(WHITE, 3 * thickness), (color, thickness)]
    for ink, stroke in strokes:  # on colors the line has a white rim
        for place in np.flatnonzero(finite[:-1] & finite[1:]):
            ends = (across[place], up[place]), (across[place + 1], up[place + 1])
            pen.line(ends, fill=ink, width=stroke)
    return image.resize((part.width, part.height), Image.Resampling.LANCZOS)


@draw.register
def _color_bar(part: parts.ColorBar) -> Image.Image:
    colors = table(part.name)[np.linspace(0, 255, BAR_LENGTH).astype(int)]
    size = (BAR_LENGTH, LINE - 4)
    middle = [parts.Label(size[0] // 2, size[1] // 2, part.middle, color=DARK, anchor="mm")] if part.middle else []
    bar = parts.Sheet(*size, [parts.At(0, 0, parts.Tile(size, np.tile(colors, (size[1], 1, 1)))), *middle])
    texts: list[parts.Part] = [_words(part.low), bar, _words(part.high)]
    return draw(parts.HStack([*texts, *([_words(part.label, GRAY)] if part.label else [])], gap=8))


def _words(text: str, color: parts.Color = DARK) -> parts.Text:
    return parts.Text([text], text_width(text), color=color)


@draw.register
def _class_key(part: parts.ClassKey) -> Image.Image:
    entries = [shorten(name, 200) for name in part.names]
    image = Image.new("RGB", (INNER_WIDTH, key_height(part.names)), WHITE)
    pen = ImageDraw.Draw(image)
    for (x, y), entry, color in zip(_key_places(entries), entries, part.colors, strict=True):
        pen.ellipse((x, y + 4, x + _DOT, y + 4 + _DOT), fill=tuple(int(value) for value in color))
        pen.text((x + _DOT + 6, y), plain_text(entry), fill=DARK, font=font())
    return image


def key_height(names: Sequence[str]) -> int:
    """Pixels of a key of classes."""
    return max((top for _, top in _key_places([shorten(name, 200) for name in names])), default=0) + LINE


def _key_places(entries: Sequence[str]) -> list[tuple[int, int]]:
    """Left and top of each entry of a key, in lines as wide as the page."""
    places: list[tuple[int, int]] = []
    left = top = 0
    for entry in entries:
        wide = _DOT + 6 + text_width(entry) + 18
        if left and left + wide - 18 > INNER_WIDTH:
            left, top = 0, top + LINE + 2
        places.append((left, top))
        left += wide
    return places


@draw.register
def _scatter_plot(part: parts.ScatterPlot) -> Image.Image:
    return draw_scatter(part)


@draw.register
def _layer_plot(part: parts.LayerPlot) -> Image.Image:
    return draw_layer_plot(part)


@draw.register
def _plot(part: parts.Plot) -> Image.Image:
    from lightning_viz.render.plots import draw_plot  # matplotlib's figures, which training need not import

    return draw_plot(part)
