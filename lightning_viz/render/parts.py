"""Parts of a page: plain data (arrays, text, numbers) that `layout` draws as a picture and a report can read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lightning_viz.render.decision_regions import DecisionRegions
from lightning_viz.render.text import DARK, GRAY, TEXT_SIZE, WHITE

__all__ = [
    "At",
    "Bar",
    "BiasPlot",
    "Cell",
    "ClassKey",
    "ClimbPlot",
    "ColorBar",
    "CurveTile",
    "EpsilonPlot",
    "HStack",
    "HistogramPlot",
    "Label",
    "LayerPlot",
    "MapTile",
    "PaintedTile",
    "Part",
    "PlanePlot",
    "Plot",
    "ScatterPlot",
    "Sheet",
    "SpherePlot",
    "Text",
    "Tile",
    "VStack",
]

Color: TypeAlias = tuple[int, ...]  # red, green and blue, 0 to 255
TileSize: TypeAlias = tuple[int, int]  # width and height in pixels
PlotExtent: TypeAlias = tuple[float, float, float, float]  # x0, x1, y0, y1


@dataclass(frozen=True, eq=False)
class Part:
    """Anything on a page."""

    def children(self) -> Sequence[Part]:
        """The parts that this one consists of; none for a leaf."""
        return ()

    def walk(self) -> Iterator[Part]:
        """This part and all within it, in reading order."""
        yield self
        for part in self.children():
            yield from part.walk()


@dataclass(frozen=True, eq=False)
class VStack(Part):
    """Parts one below the other, aligned left.

    Args:
        parts: from top to bottom.
        gap: pixels between them.
    """

    parts: Sequence[Part]
    gap: int

    def children(self) -> Sequence[Part]:
        """The stacked parts."""
        return self.parts


@dataclass(frozen=True, eq=False)
class HStack(VStack):
    """Parts side by side, aligned at the top; arguments as for `VStack`, from left to right."""


@dataclass(frozen=True, eq=False)
class At(Part):
    """A part at a place of a sheet.

    Args:
        left: of the part within the sheet, in pixels.
        top: likewise.
        part: what stands there.
    """

    left: int
    top: int
    part: Part

    def children(self) -> Sequence[Part]:
        """The part at this place."""
        return (self.part,)


@dataclass(frozen=True, eq=False)
class Label(Part):
    """A line of text at a place of a sheet.

    Args:
        x: of the anchor within the sheet, in pixels.
        y: likewise.
        text: the line.
        color: of the text.
        anchor: which point of the text lies at (x, y), in Pillow's letters: "la" is left and ascender.
    """

    x: float
    y: float
    text: str
    color: Color = GRAY
    anchor: str = "la"


@dataclass(frozen=True, eq=False)
class Cell(Part):
    """A cell of a table, or a bar: a colored rectangle of a sheet with lines of text in its middle.

    Args:
        left: of the rectangle within the sheet, in pixels.
        top: likewise.
        width: of the rectangle, in pixels.
        height: likewise.
        color: of the rectangle.
        lines: of text.
        ink: color of the text.
        value: the number behind the color or the length, if there is one.
        row: of the table, from 0.
        column: likewise.
    """

    left: int
    top: int
    width: int
    height: int
    color: Color
    lines: Sequence[str] = ()
    ink: Color = DARK
    value: float | None = None
    row: int = 0
    column: int = 0


@dataclass(frozen=True, eq=False)
class Sheet(Part):
    """Parts at given places.

    Args:
        width: of the sheet, in pixels.
        height: likewise.
        parts: `At`, `Cell` and `Label`; later ones cover earlier ones.
        ground: the sheet's color.
    """

    width: int
    height: int
    parts: Sequence[Part]
    ground: Color = WHITE

    def children(self) -> Sequence[Part]:
        """The placed parts."""
        return self.parts


@dataclass(frozen=True, eq=False)
class Text(Part):
    """Lines of text.

    Args:
        lines: each fits into the width.
        width: of the block, in pixels.
        size: of the type, in pixels.
        color: of the text.
        centered: rather than aligned left.
    """

    lines: Sequence[str]
    width: int
    size: int = TEXT_SIZE
    color: Color = DARK
    centered: bool = False


@dataclass(frozen=True, eq=False)
class Bar(Part):
    """A thin horizontal bar, of which a share is filled.

    Args:
        width: in pixels.
        height: likewise.
        share: 0 to 1; None: nothing is drawn.
        color: of the share.
        framed: draw a frame with marks at its quarters, as of a gauge.
    """

    width: int
    height: int
    share: float | None
    color: Color = GRAY
    framed: bool = False


@dataclass(frozen=True, eq=False)
class Tile(Part):
    """A sample, a kernel or a dream as an image; hatched, with words, if there is nothing to see.

    Args:
        size: width and height in pixels; images are enlarged by nearest neighbor, never blurred.
        image: ``[H, W, 3]``, 0 to 255; None if there is a flaw, or nothing under a map.
        flaw: why there is nothing to see, in words; None if there is something.
        sample: index of the sample on the page.
        layer: that the tile is of, if any.
        channel: of the layer.
        value: the number that belongs to the tile: a map's divisor, a maximum, a probability.
        weights: a kernel's weights that the image shows.
        rings: pixels to circle, ``[H, W]``.
        window: top, bottom, left and right of a window to frame, in pixels of the image.
        outline: color of a frame along the tile's edge.
        cover: cut the image to the tile's aspect rather than distort it.
        average: make an image smaller by averaging rather than by Lanczos' filter.
    """

    size: TileSize
    image: NDArray[np.uint8] | None = None
    flaw: str | None = None
    sample: int | None = None
    layer: str = ""
    channel: int | None = None
    value: float | None = None
    weights: NDArray[Any] | None = None
    rings: NDArray[np.bool_] | None = None
    window: tuple[int, int, int, int] | None = None
    outline: Color | None = None
    cover: bool = False
    average: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class MapTile(Tile):
    """A map: of a layer's channel, or of what in a sample mattered, over the sample or alone.

    Args:
        values: the map, ``[h, w]`` or ``[C, h, w]``; divided by ``value``, if that is given.
        display: one of `tiles.DISPLAYS`; or the name of a color map, which then needs ``limits``; or "curve", of a map
            ``[1, l]``.
        limits: the values at a color map's ends.
        smooth: enlarge a color map bilinearly rather than by nearest neighbor.
        weak: whether heat over a sample is drawn at half its opacity, with the word, as it is little in all.
        flat: whether the word stands on it, as it is alike everywhere.
    """

    values: NDArray[Any]
    display: str
    limits: tuple[float, float] | None = None
    smooth: bool = True
    weak: bool = False
    flat: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class PaintedTile(Tile):
    """A grayed sample under a layer of colors, each pixel of which stays one.

    Args:
        paint: color and opacity of each pixel, ``[h, w, 4]``.
    """

    paint: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CurveTile(Part):
    """A small curve from its least to its most; a gap at values that are not finite.

    Args:
        values: ``[steps]``.
        width: in pixels.
        height: likewise.
        limits: the values at the lower and the upper end, with a thin line at zero, in place of the least and the most.
        bands: colors of the ground at each step ``[steps, 3]``; an even ground if None.
    """

    values: NDArray[np.float64]
    width: int
    height: int
    limits: tuple[float, float] | None = None
    bands: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class ColorBar(Part):
    """A horizontal bar of a color map with words or numbers at its ends.

    Args:
        name: of the color map.
        low: at the left end.
        high: at the right end.
        middle: over the middle, "0" for signed values.
        label: after the right end, in gray: what the numbers are.
    """

    name: str
    low: str
    high: str
    middle: str = ""
    label: str = ""


@dataclass(frozen=True, eq=False)
class ClassKey(Part):
    """Colored dots with class names, wrapped to the page's width.

    Args:
        names: of the classes.
        colors: ``[n, 3]``.
    """

    names: Sequence[str]
    colors: NDArray[np.uint8]


@dataclass(frozen=True, eq=False, kw_only=True)
class Plot(Part):
    """Anything with axes.

    Args:
        width: in pixels.
        height: likewise.
    """

    width: int
    height: int


@dataclass(frozen=True, eq=False, kw_only=True)
class ScatterPlot(Plot):
    """Samples as points in class colors, on equal axes without ticks.

    Args:
        points: ``[N, 2]``, finite.
        classes: that color the points ``[N]``, negative if unknown; None: gray.
        class_count: how many there are, so that each keeps its color.
        crosses: points that are drawn as crosses ``[N]``.
        names: of classes, each with the place at which it stands.
        extent: (x0, x1, y0, y1) of the view; points beyond it stand at the rim.
        size: of a point, in pixels across.
    """

    points: NDArray[Any]
    classes: NDArray[Any] | None
    class_count: int
    crosses: NDArray[np.bool_] | None = None
    names: Sequence[tuple[str, float, float]] = ()
    extent: PlotExtent
    size: float = 5


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerPlot(Plot):
    """A share of each layer, a curve for each step, the last of them dark; from 0 to 100 %.

    Args:
        names: of the layers, from left to right.
        curves: ``[steps, layers]``, 0 to 1; NaN is left out.
        chance: the share that is reached by knowing nothing, or None.
    """

    names: Sequence[str]
    curves: NDArray[np.float64]
    chance: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class PlanePlot(Plot):
    """Samples on the plane, over decision regions and under the lines at which units switch.

    Args:
        samples: ``[N, 2]``.
        labels: class indices ``[N]``, or None.
        class_count: how many classes there are.
        regions: what is predicted over the extent, or None.
        lines: end points ``[K, 2, 2]`` (unit, end, coordinate); the unit is on to the left of the way between them.
        strengths: opacity of the lines ``[K]``.
        contours: pre-activations ``[K, M, M]`` on a grid over the extent, rows from y0 up, columns from x0, whose zero
            sets are drawn.
        extent: (x0, x1, y0, y1) of the view.
        frame: left and bottom of the axes, their width and height, in pixels.
    """

    samples: NDArray[Any]
    labels: NDArray[Any] | None
    class_count: int
    regions: DecisionRegions | None
    lines: NDArray[np.float64] | None = None
    strengths: NDArray[np.float64] | None = None
    contours: NDArray[Any] | None = None
    extent: PlotExtent
    frame: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class HistogramPlot(Plot):
    """Histograms of several steps, each lower and further in front than the one before; heights logarithmic.

    Args:
        steps: ascending.
        shares: of the values in each bin ``[S, bins]``.
        means: of the values ``[S]``.
        limits: of the axis of values.
    """

    steps: Sequence[int]
    shares: NDArray[Any]
    means: Sequence[float]
    limits: tuple[float, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class ClimbPlot(Plot):
    """Curves over the updates of an optimization.

    Args:
        curves: ``[N, steps]``; NaN is left out.
        label: of the axis of values.
        logarithmic: the axis of values.
    """

    curves: NDArray[np.float64]
    label: str
    logarithmic: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class EpsilonPlot(Plot):
    """Accuracy in per cent against epsilon, each curve's name beside its end.

    Args:
        curves: by name, epsilons and accuracies ``[2, E]``.
        label: of the axis of epsilons.
        trained: the epsilon that a model was trained at, or None.
    """

    curves: dict[str, NDArray[np.float64]]
    label: str
    trained: float | None


@dataclass(frozen=True, eq=False, kw_only=True)
class SpherePlot(Plot):
    """Shares of random directions that change the class, a dot for each sample.

    Args:
        shares: ascending, 0 to 1.
        mean: of them; NaN if there is none.
        few: a share that is marked.
    """

    shares: NDArray[np.float64]
    mean: float
    few: float


@dataclass(frozen=True, eq=False, kw_only=True)
class BiasPlot(Plot):
    """Shape bias of models, a row for each class and a last one for all.

    Args:
        values: ``[models, classes + 1]``, 0 to 1; NaN has no mark.
        models: a name each.
        names: of the rows.
        bottom: pixels below the axes.
    """

    values: NDArray[np.float64]
    models: Sequence[str]
    names: Sequence[str]
    bottom: int
