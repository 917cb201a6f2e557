"""Samples, each with its map beside it or below it, as large as the page holds them, and what stands under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from lightning_viz.render.layout import GUTTER, fit, in_rows
from lightning_viz.render.parts import At, Bar, HStack, Part, Sheet, Text, Tile, TileSize, VStack
from lightning_viz.render.text import DARK, GRAY, LINE, RED, level
from lightning_viz.render.tiles import Verdict

CONFIDENCE = "bar: confidence, full at 100 %"
BAR_ROOM = 8 + LINE - 4  # pixels of height of a color bar below pairs, with its gap
_BESIDE, _BELOW = 4, 8  # pairs in a row
_CLOSE, _APART = 2, 12  # pixels within and between pairs
_BAR, _LENGTH = 10, 100  # pixels: height of a confidence, and its length at the most
_FIGURE = 92  # pixels, of a number such as −1.23e-5
_WORTH = 1.07  # times larger that tiles are, if maps stand below ...
_LEAST = _FIGURE + 24  # ... and pixels, so that there is room for a number beside its bar


@dataclass(frozen=True)
class PairLayout:
    """Where a page's samples and their maps stand.

    Args:
        size: of a tile, width and height in pixels.
        columns: pairs in a row.
        stacked: whether maps stand below their samples, rather than to the right.
    """

    size: TileSize
    columns: int
    stacked: bool

    @property
    def width(self) -> int:
        """Pixels of a pair."""
        return self.size[0] if self.stacked else 2 * self.size[0] + _CLOSE

    @property
    def words(self) -> tuple[str, str]:
        """Where samples and maps stand, for the description."""
        return ("Above", "below") if self.stacked else ("Left", "right")


def pair_layout(images: NDArray[Any], count: int, verdicts: Sequence[Verdict], room: int) -> PairLayout:
    """The layout in which tiles come out largest; alike at every step.

    Args:
        images: of one size ``[N, H, W, 3]``.
        count: of the pairs.
        verdicts: of the samples, or none.
        room: pixels of height for all pairs.
    """
    beside, below = (_largest(images, max(count, 1), verdicts, room, stacked=stacked) for stacked in (False, True))
    return below if below.size[0] > max(_LEAST, _WORTH * beside.size[0]) else beside


def pair_rows(
    layout: PairLayout,
    samples: Sequence[Tile],
    maps: Sequence[Tile],
    verdicts: Sequence[Verdict],
    figures: Sequence[str],
) -> VStack:
    """The pairs in rows, each with its verdict, its confidence as a bar, and a number or a mark.

    Args:
        layout: of `pair_layout`.
        samples: of its size.
        maps: likewise, one for each sample; none if there are no maps.
        verdicts: of the samples, or none.
        figures: what stands at the right end under each; room is left for the longest there is.
    """
    rows: list[Sequence[Part]] = [samples]
    known = list(verdicts[: len(samples)]) or [Verdict()] * len(samples)
    if maps:
        stack = VStack if layout.stacked else HStack
        rows = [[stack(pair, gap=_CLOSE) for pair in zip(samples, maps, strict=True)]]
    room = layout.width if layout.stacked else layout.width - _FIGURE
    inks = [RED if verdict.mistaken else DARK for verdict in known]
    texts = [Text(lines, room, color=ink) for lines, ink in zip(_lines(known, room), inks, strict=True)]
    blocks: list[Part] = []
    for pair, text, figure, verdict, ink in zip(rows[0], texts, figures, known, inks, strict=True):
        number = Text([figure or " "], _FIGURE, color=GRAY)
        room = layout.width - _FIGURE - 2 * _CLOSE if layout.stacked else layout.width
        share = Bar(min(_LENGTH, room), _BAR, verdict.confidence, ink, framed=True)
        if layout.stacked:
            last = Sheet(layout.width, LINE, [At(0, (LINE - _BAR) // 2, share), At(layout.width - _FIGURE, 0, number)])
            blocks.append(VStack([pair, VStack([text, last], gap=0)], gap=_CLOSE))
        else:
            blocks.append(VStack([pair, VStack([HStack([text, number], gap=0), share], gap=0)], gap=_CLOSE))
    return VStack(in_rows(blocks, layout.columns, _APART), gap=GUTTER)


def _largest(images: NDArray[Any], count: int, verdicts: Sequence[Verdict], room: int, *, stacked: bool) -> PairLayout:
    """The number of pairs in a row of which the tiles come out largest."""
    aspect, layouts = images.shape[1] / images.shape[2], []
    for columns in range(1, min(_BELOW if stacked else _BESIDE, count) + 1):
        rows = -(-count // columns)
        for lines in (1, 2):  # two where the longest verdict does not fit on one
            if stacked:
                half = ((lines + 1) * LINE + 2 * _CLOSE + GUTTER) // 2 - _APART  # two tiles share what is below
                size = fit(columns, 2 * rows, aspect, under=half, gap=_APART, room=room)
            else:
                under = lines * LINE + _BAR + _CLOSE + GUTTER - _APART
                size = fit(2 * columns, rows, aspect, under=under, gap=_APART, room=room)
            layout = PairLayout(size, columns, stacked)
            across = layout.width if stacked else layout.width - _FIGURE
            if max((len(found) for found in _lines(verdicts[:count], across)), default=1) <= lines:
                break
        layouts.append(layout)
    largest = max(layout.size[0] for layout in layouts)
    return [layout for layout in layouts if layout.size[0] >= 0.9 * largest][-1]  # rather a full page than a last pixel


def _lines(verdicts: Sequence[Verdict], width: int) -> list[list[str]]:
    """What is written of each sample: without its confidence, which has a bar, if one line is then enough for all."""
    written = [[verdict.lines(width, confidence=shown) for verdict in verdicts] for shown in (True, False)]
    return level(next((lines for lines in written if max(map(len, lines), default=1) < 2), written[0]))
