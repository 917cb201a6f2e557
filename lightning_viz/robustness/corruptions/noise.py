"""Noise: what a sensor adds where there is little light, where photons are counted, where bits are lost."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Photo: TypeAlias = NDArray[np.float64]
"""One image's pixels ``[C, H, W]``, in [0, 1]."""


def gaussian_noise(image: Photo, severity: int, rng: Generator) -> Photo:
    r"""Low light: :math:`x + \sigma n`, :math:`n \sim N(0, 1)`.

    Args:
        image: pixels.
        severity: 1 to 5, for deviations of 0.08, 0.12, 0.18, 0.26, 0.38 (the paper's).
        rng: what is drawn from.
    """
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return image + deviation * rng.standard_normal(image.shape)


def shot_noise(image: Photo, severity: int, rng: Generator) -> Photo:
    r"""Light that comes in photons: :math:`\mathrm{Poisson}(\lambda x) / \lambda`, of variance :math:`x / \lambda`.

    Args:
        image: pixels.
        severity: 1 to 5, for 60, 25, 12, 5, 3 photons in a white pixel (the paper's).
        rng: what is drawn from.
    """
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return rng.poisson(photons * image) / photons


def impulse_noise(image: Photo, severity: int, rng: Generator) -> Photo:
    """Bits lost: some of the values become 0 or 1, salt and pepper in equal parts, each channel on its own.

    Args:
        image: pixels.
        severity: 1 to 5, for 3, 6, 9, 17, 27 % of the values (the paper's).
        rng: what is drawn from.
    """
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    drawn = rng.random(image.shape)
    return np.where(drawn < share / 2, 0.0, np.where(drawn > 1 - share / 2, 1.0, image))
