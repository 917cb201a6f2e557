"""A share as a bar on its track."""

import math

from lightning_viz.render.parts import Cell, Color

_TRACK = (240, 240, 240)


def bar_of(
    share: float, place: tuple[int, int, int, int], color: Color, *, end: float = 1.0, row: int = 0, column: int = 0
) -> list[Cell]:
    """A bar of a share, and the track that it lies on; the track alone of what is not finite, or shorter than a pixel.

    Args:
        share: its length, of the axis that ends at `end`; longer and shorter ones are cut.
        place: of the track: left, top, width and height in pixels.
        color: of the bar.
        end: of the axis.
        row: of the table that it is in, from 0.
        column: likewise.
    """
    left, top, width, height = place
    length = round(width * min(max(share / end, 0), 1)) if math.isfinite(share) else 0
    track = [Cell(left, top, width, height, _TRACK)]
    return track + [Cell(left, top, length, height, color, value=share, row=row, column=column)] * (length > 0)
