"""Blur: what a lens, a frosted pane, a moving hand and a fast approach make of an image."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.signal import fftconvolve

from lightning_viz.robustness.corruptions.noise import Photo


def relative_size(image: Photo) -> float:
    """Pixels of this image in one of the paper's, whose shorter side is 224: what every length is multiplied by.

    Args:
        image: of any size.
    """
    height, width = image.shape[1:]
    return float(min(height, width) / 224)


def defocus_blur(image: Photo, severity: int, rng: Generator) -> Photo:
    """Out of focus: every point becomes a disc.

    The mean over the disc of the image interpolated between its pixels, so that a disc smaller than a pixel blurs too;
    this takes the place of the paper's smoothing of the disc's edge.

    Args:
        image: pixels.
        severity: 1 to 5, for radii of 3, 4, 6, 8, 10 pixels at 224 (the paper's).
        rng: not used: no two discs differ.
    """
    radius = (3, 4, 6, 8, 10)[severity - 1] * relative_size(image)
    along = np.linspace(-radius, radius, 2 * math.ceil(4 * radius) + 21)
    points = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
    disc = points[np.hypot(*points.T) <= radius]
    return spread_points(image, disc, np.ones(len(disc)))


def glass_blur(image: Photo, severity: int, rng: Generator) -> Photo:
    """Frosted glass: blurred, pixels shuffled among their neighbors some times over, blurred again.

    A pixel takes the value of one at most d away in each direction, drawn evenly. Where d is no whole number, as in
    small images, it is rounded up or down by chance, so that it holds in the mean.

    Args:
        image: pixels.
        severity: 1 to 5, for a deviation of the blur of 0.7, 0.9, 1, 1.1, 1.5 pixels, d of 1, 2, 2, 3, 4 pixels, both
            at 224, and 2, 1, 3, 2, 2 shuffles (the paper's).
        rng: what is drawn from.
    """
    deviation, most, times = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    height, width = image.shape[1:]
    sigma = (0, deviation * relative_size(image), deviation * relative_size(image))
    image = gaussian_filter(image, sigma)
    rows, columns = np.indices((height, width))
    for _ in range(times):
        reach = most * relative_size(image) * rng.uniform(-1, 1, (2, height, width))
        down, right = np.floor(reach + rng.random(reach.shape)).astype(int)
        image = image[:, np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)]
    blurred: Photo = gaussian_filter(image, sigma)
    return blurred


def motion_blur(image: Photo, severity: int, rng: Generator) -> Photo:
    """A moving camera: every point becomes a streak that fades, at up to 45 degrees from the horizontal.

    Args:
        image: pixels.
        severity: 1 to 5, for streaks that fade with a deviation of 3, 5, 8, 12, 15 pixels and end after twice 10, 15,
            15, 15, 20, both at 224 (the paper's).
        rng: what is drawn from.
    """
    radius, deviation = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    return streaked(image, radius * relative_size(image), deviation * relative_size(image), rng.uniform(-45, 45))


def zoom_blur(image: Photo, severity: int, rng: Generator) -> Photo:
    """A fast approach: the mean of the image and of its enlargements, from once to so many times its size.

    Args:
        image: pixels.
        severity: 1 to 5, for 1.10, 1.15, 1.20, 1.24 and 1.30 times in steps of 0.01, 0.01, 0.02, 0.02, 0.03 (the
            paper's).
        rng: not used: the center is the image's.
    """
    count, step = ((11, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03))[severity - 1]
    enlarged = [magnified(image, 1 + step * number) for number in range(count)]
    mean: Photo = np.mean([image, *enlarged], axis=0)
    return mean


def magnified(image: Photo, factor: float) -> Photo:
    """The middle of an image enlarged to its whole, between pixels linearly.

    Args:
        image: pixels.
        factor: 1 or more.
    """
    middle = (np.array(image.shape[1:]) - 1) / 2
    shrink = np.full(2, 1 / factor)
    layers = [
        affine_transform(channel, shrink, middle * (1 - 1 / factor), order=1, mode="nearest") for channel in image
    ]
    return np.stack(layers)


def streaked(image: Photo, radius: float, deviation: float, angle: float) -> Photo:
    """An image in which every point is a streak, brightest where it begins.

    Args:
        image: pixels.
        radius: half of the streak's length, in pixels.
        deviation: of the Gaussian by which it fades, in pixels.
        angle: in degrees, 0 for the horizontal.
    """
    along = np.linspace(0, 2 * radius, 2 * math.ceil(4 * radius) + 21)
    direction = np.array([math.sin(math.radians(angle)), math.cos(math.radians(angle))])
    return spread_points(image, along[:, None] * direction, np.exp(-((along / deviation) ** 2) / 2))


def spread_points(image: Photo, offsets: NDArray[np.float64], weights: NDArray[np.float64]) -> Photo:
    r"""Every point spread over others: :math:`y(p) = \sum_i w_i\, x(p - u_i) / \sum_i w_i`, x linear between pixels.

    Args:
        image: pixels; it is mirrored at its borders.
        offsets: u, rows and columns, ``[P, 2]``.
        weights: w, ``[P]``.
    """
    radius = int(np.abs(offsets).max()) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    whole = np.floor(offsets).astype(int)
    for corner in np.array([[0, 0], [0, 1], [1, 0], [1, 1]]):
        share = np.abs(1 - corner - (offsets - whole)).prod(axis=1)  # of the pixel at this corner of the point
        np.add.at(kernel, tuple((whole + corner + radius).T), weights * share)
    padded = np.pad(image, ((0, 0), (radius, radius), (radius, radius)), mode="symmetric")
    blurred: Photo = fftconvolve(padded, kernel[None] / kernel.sum(), mode="valid", axes=(1, 2))
    return blurred
