"""Noise corruptions: Gaussian, shot and impulse noise."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Photo: TypeAlias = NDArray[np.float64]
"""One image's pixels ``[C, H, W]``, in [0, 1]."""


def gaussian_noise(image: Photo, severity: int, rng: Generator) -> Photo:
    r"""Gaussian noise, as in low light: :math:`x + \sigma n`, :math:`n \sim N(0, 1)`.

    The deviations are 0.08, 0.12, 0.18, 0.26, 0.38 (as in the paper).
    """
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return image + deviation * rng.standard_normal(image.shape)


def shot_noise(image: Photo, severity: int, rng: Generator) -> Photo:
    r"""Shot noise of counted photons: :math:`\mathrm{Poisson}(\lambda x) / \lambda`, of variance :math:`x / \lambda`.

    A white pixel has 60, 25, 12, 5, 3 photons (as in the paper).
    """
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return rng.poisson(photons * image) / photons


def impulse_noise(image: Photo, severity: int, rng: Generator) -> Photo:
    """Impulse noise: sets a fraction of the values to 0 or 1 in equal parts, independently in each channel.

    The fraction is 3, 6, 9, 17, 27 % (as in the paper).
    """
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    uniform = rng.random(image.shape)
    return np.where(uniform < share / 2, 0.0, np.where(uniform > 1 - share / 2, 1.0, image))
