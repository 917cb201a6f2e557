"""The page's grid: its measures, and tiles in rows and columns that fill it."""

from collections.abc import Sequence

import numpy as np

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.parts import HStack, Part, PlotExtent, Text, TileSize, VStack
from lightning_viz.render.text import GRAY, shorten

__all__ = ["fit"]

INNER_WIDTH = 676  # pixels between a page's margins
BODY_HEIGHT = 780  # with the header about 900
GUTTER = 6
COLUMNS = 8


def in_rows(parts: Sequence[Part], columns: int, gap: int) -> list[HStack]:
    """Parts side by side, so many in a row."""
    return [HStack(parts[start : start + columns], gap=gap) for start in range(0, len(parts), columns)]


def in_columns(*rows: Sequence[Part], gap: int) -> list[VStack]:
    """The parts of several rows, such as tiles and texts, those of each column one below the other."""
    return [VStack(parts, gap=gap) for parts in zip(*rows, strict=True)]


def heads(words: Sequence[str], width: int) -> list[Text]:
    """What stands over columns, gray and centered; cut where it is wider."""
    return [Text([shorten(word, width)], width, color=GRAY, centered=True) for word in words]


def fit(
    columns: int,
    rows: int,
    aspect: float,
    *,
    under: int = 0,
    gap: int = GUTTER,
    room: int = BODY_HEIGHT,
    across: int = INNER_WIDTH,
) -> TileSize:
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


def frame_size(extent: PlotExtent, width: int, height: int) -> tuple[int, int]:
    """The largest width and height of an axes with equal units that show ``extent`` within the room given."""
    x0, x1, y0, y1 = extent
    if not (np.isfinite(extent).all() and x1 > x0 and y1 > y0):
        raise InvalidArgumentError(f"extent is (x0, x1, y0, y1) with x0 < x1 and y0 < y1, got {extent}")
    aspect = min(max((y1 - y0) / (x1 - x0), 0.2), 5.0)
    wide = min(width, round(height / aspect))
    return wide, round(wide * aspect)
