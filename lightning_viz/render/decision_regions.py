"""Decision regions in the plane: the class predicted at each place, the paler the less probable it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_viz.render.colors import Colors, class_colors, pale

__all__ = ["DecisionRegions"]

_PALEST, _STRONGEST = 0.05, 0.38  # of a class's color, where the prediction is a guess and where it is certain
_LEVELS = 32  # of strength: as even as the eye sees, and a far smaller file
_FINER = 2  # edges are found on so many times more pixels each way, which smooths them


@dataclass(frozen=True, eq=False)
class DecisionRegions:
    """What a network predicts over the view, on a grid whose outermost nodes lie on the view's edges.

    Args:
        classes: that are predicted anywhere ``[P]``, ascending.
        log_probabilities: of these at each node ``[P, M, M]``, natural logarithms, rows from y0 up, columns from x0.
        class_count: how many classes the network tells apart.
    """

    classes: NDArray[Any]
    log_probabilities: NDArray[Any]
    class_count: int

    def colors(self, size: tuple[int, int], class_count: int) -> Colors:
        """The ground of a plot ``[height, width, 3]``, its upper row first; white where there is no prediction.

        The logarithms are interpolated bilinearly, and the class is that of the largest: edges are as smooth as they
        are in the network, whatever the grid.

        Args:
            size: width and height in pixels.
            class_count: classes that have colors on the page.
        """
        finer = (size[0] * _FINER, size[1] * _FINER)
        best = np.full(finer[::-1], -np.inf, dtype=np.float32)
        place = np.zeros(finer[::-1], dtype=np.intp)
        for index, values in enumerate(self.log_probabilities):
            stretched = _stretch(values, finer)
            larger = stretched > best
            best[larger], place[larger] = stretched[larger], index
        ground = class_shades(self.classes, class_count)[
            place, np.rint(self._certainty(np.exp(best)) * _LEVELS).astype(np.intp)
        ]
        ground[~np.isfinite(best)] = 255
        blocks = ground.reshape(size[1], _FINER, size[0], _FINER, 3)
        return np.asarray(np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)), dtype=np.uint8)

    @property
    def chance(self) -> float:
        """The least probability that a predicted class has."""
        return 1 / max(self.class_count, 1)

    def _certainty(self, probability: NDArray[Any]) -> NDArray[Any]:
        """From 0, as probable as all others, to 1."""
        return np.clip((probability - self.chance) / max(1 - self.chance, 1e-9), 0, 1)


def class_shades(classes: NDArray[Any], class_count: int) -> Colors:
    """The colors of classes, from a guess's to certainty's ``[P, levels, 3]``.

    Args:
        classes: indices ``[P]``.
        class_count: classes that have colors on the page.
    """
    palette = class_colors(class_count)[np.asarray(classes, dtype=np.intp)]
    return np.stack([pale(palette, share) for share in np.linspace(_PALEST, _STRONGEST, _LEVELS + 1)], axis=1)


def _stretch(values: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Values at nodes ``[M, M]``, from y0 up, at the middles of pixels, from the top down; bilinear."""
    image = Image.fromarray(np.asarray(values[::-1], dtype=np.float32))
    corners = (0.5, 0.5, image.width - 0.5, image.height - 0.5)  # the outermost nodes lie on the edges
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=corners))
