"""The lines at which units switch, and marks on them: small triangles that stand on the side where the unit is on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from contourpy import LineType, contour_generator
from numpy.typing import NDArray

from lightning_viz.render.parts import PlotExtent

_HALF, _HEIGHT = 7.0, 12.0  # pixels, of a triangle's base and height
_INSET = 30.0  # pixels between an open line's end, where lines are less crowded, and its mark
_APART = 300.0  # pixels between the marks of a closed line
_SHORTEST = 24.0  # pixels of a line that has a mark


def zero_contours(values: NDArray[Any], extent: PlotExtent) -> list[NDArray[np.float64]]:
    """The curves at which values on a grid are zero, points ``[n, 2]`` each, what is positive on the left of the way.

    Args:
        values: ``[M, M]``, rows from y0 up, columns from x0.
        extent: (x0, x1, y0, y1) of the grid's outermost nodes.
    """
    x, y = np.linspace(*extent[:2], values.shape[1]), np.linspace(*extent[2:], values.shape[0])
    found = contour_generator(x, y, values, line_type=LineType.Separate).lines(0)  # what is greater lies on the left
    return cast("list[NDArray[np.float64]]", found)


def side_marks(curve: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Triangles on the left of a curve: near both ends of an open one, evenly along a closed one.

    Args:
        curve: points ``[n, 2]``, the side to be marked on the left of the way along them.
        scale: pixels per unit of each coordinate ``[2]``.

    Returns:
        Corners ``[T, 3, 2]``, in the curve's coordinates.
    """
    points = np.asarray(curve, dtype=np.float64) * scale
    lengths = np.hypot(*np.diff(points, axis=0).T)
    far = np.concatenate([[0], np.cumsum(lengths)])
    triangles = []
    for place in _places(float(far[-1]), closed=len(points) > 2 and np.allclose(points[0], points[-1])):
        segment = min(int(np.searchsorted(far, place, side="right")), len(lengths)) - 1
        along = (points[segment + 1] - points[segment]) / max(lengths[segment], 1e-12)
        middle = points[segment] + (place - far[segment]) * along
        left = np.array([-along[1], along[0]])
        triangles.append([middle - _HALF * along, middle + _HALF * along, middle + _HEIGHT * left])
    return np.reshape(triangles, (-1, 3, 2)) / scale


def _places(length: float, *, closed: bool) -> Iterator[float]:
    """Where marks stand along a curve of so many pixels."""
    if length < _SHORTEST:
        return
    if closed or length < 3 * _INSET:
        count = max(1, round(length / _APART))
        yield from ((place + 0.5) * length / count for place in range(count))
    else:
        yield from (_INSET, length - _INSET)
