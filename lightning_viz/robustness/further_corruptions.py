"""Four further corruptions, by which the paper validates what was tuned on the fifteen (Hendrycks and Dietterich)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from lightning_viz.robustness.corruption_kinds import Corruption, Photo, convolve_offsets, length_scale

__all__ = ["FURTHER_CORRUPTIONS"]

_WATER = np.array([175, 238, 238]) / 255
_MUD = np.array([63, 42, 20]) / 255
_SHORE = 20  # pixels at 224 from the edge of a drop within which it is shaded


def speckle_noise(image: Photo, severity: int, rng: Generator) -> Photo:
    r"""Speckle noise, which grows with the pixel: :math:`x + \sigma x n`, :math:`n \sim N(0, 1)`.

    The deviations are 0.15, 0.2, 0.35, 0.45, 0.6 (as in the paper).
    """
    deviation = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    return image + deviation * image * rng.standard_normal(image.shape)


def _gaussian_blur(image: Photo, severity: int, rng: Generator) -> Photo:
    """Gaussian blur with a deviation of 1, 2, 3, 4, 6 pixels at 224 (as in the paper), cut at three deviations.

    The image is interpolated between its pixels, so that a deviation below a pixel blurs too, as in `defocus_blur`.
    """
    deviation = (1, 2, 3, 4, 6)[severity - 1] * length_scale(image)
    along = np.linspace(-3 * deviation, 3 * deviation, 2 * math.ceil(12 * deviation) + 21)
    points = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
    return convolve_offsets(image, points, np.exp(-((points / deviation) ** 2).sum(1) / 2))


def spatter(image: Photo, severity: int, rng: Generator) -> Photo:
    """Spatter: drops of water on the lens at severities 1 to 3, of mud at 4 and 5.

    Drops lie where smoothed noise exceeds 1.89, 1.06, 0.71, 0, -0.18 of its deviations, as the paper's do at 224; the
    noise is smoothed over 4, 3, 2, 1, 1 pixels at 224. Water is shaded by its distance from the shore, here without the
    paper's equalization, and added with an opacity of 0.6, 0.6, 0.5 (the paper's); mud covers where it is thick.
    """
    smooth, threshold, opacity = ((4, 1.89, 0.6), (3, 1.06, 0.6), (2, 0.71, 0.5), (1, 0.0, 1.0), (1, -0.18, 1.0))[
        severity - 1
    ]
    noise = gaussian_filter(rng.standard_normal(image.shape[1:]), smooth * length_scale(image))
    level = noise / max(float(noise.std()), np.finfo(float).tiny)
    drops = level > threshold
    color = (_WATER if severity <= 3 else _MUD)[:, None, None]
    if len(image) != 3:
        color = color.mean(axis=0, keepdims=True)
    if severity <= 3:
        return image + opacity * _shading(drops, _SHORE * length_scale(image)) * color
    cover = gaussian_filter(drops.astype(np.float64), 1.5 * length_scale(image))
    cover = np.where(cover < 0.8, 0, cover)
    return (1 - cover) * image + cover * color


def saturate(image: Photo, severity: int, rng: Generator) -> Photo:
    r"""Saturation: replaces :math:`S = 1 - \min_c x_c / \max_c x_c` of each pixel by :math:`a S + b` within [0, 1].

    a is 0.3, 0.1, 2, 5, 20, b is 0, 0, 0, 0.1, 0.2 (as in the paper); value and hue stay. A gray pixel has no hue and
    stays gray, where the paper turns it reddish; images of one channel are all gray.
    """
    factor, added = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    value, least = image.max(axis=0), image.min(axis=0)
    saturation = np.where(value > 0, 1 - least / np.where(value > 0, value, 1), 0)
    colored = saturation > 0
    ratio = np.clip(factor * saturation + added, 0, 1) / np.where(colored, saturation, 1)
    return np.where(colored, value - (value - image) * ratio, image)


FURTHER_CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "speckle_noise": speckle_noise,
        "gaussian_blur": _gaussian_blur,
        "spatter": spatter,
        "saturate": saturate,
    }
)
"""The four further corruptions by kind; like those of `CORRUPTIONS`, but only on request."""


def _shading(drops: NDArray[np.bool_], shore: float) -> NDArray[np.float64]:
    """Light on drops ``[H, W]`` from 0 to 1, from the upper left: the slope of their depth."""
    depth = np.minimum(distance_transform_edt(drops), max(shore, 1))
    down, right = np.gradient(np.pad(depth, 1, mode="edge"))
    light = np.where(drops, 0.5 + 0.5 * (down + right)[1:-1, 1:-1] / np.sqrt(2), 0)
    return np.asarray(np.clip(light, 0, 1))
