"""Blur corruptions: defocus, frosted glass, motion and zoom."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.signal import fftconvolve

from lightning_viz.robustness.corruptions.noise import Photo


def length_scale(image: Photo) -> float:
    """Factor of all lengths: the shorter side of the image divided by 224, that of the paper's images."""
    height, width = image.shape[1:]
    return float(min(height, width) / 224)


def defocus_blur(image: Photo, severity: int, rng: Generator) -> Photo:
    """Defocus blur: averages the image over a disc of radius 3, 4, 6, 8, 10 pixels at 224 (as in the paper).

    The image is interpolated between its pixels, so that a disc smaller than a pixel blurs too; this replaces the
    paper's smoothing of the disc's edge.
    """
    radius = (3, 4, 6, 8, 10)[severity - 1] * length_scale(image)
    along = np.linspace(-radius, radius, 2 * math.ceil(4 * radius) + 21)
    points = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
    disc = points[np.hypot(*points.T) <= radius]
    return convolve_offsets(image, disc, np.ones(len(disc)))


def glass_blur(image: Photo, severity: int, rng: Generator) -> Photo:
    """Frosted-glass blur: blurs, displaces pixels randomly several times, and blurs again.

    A pixel takes the value of one at most d away in each direction, drawn uniformly. If d is not an integer, as in
    small images, the displacement is rounded up or down at random, so that its mean is preserved. As in the paper, the
    blur has a deviation of 0.7, 0.9, 1, 1.1, 1.5 pixels and d is 1, 2, 2, 3, 4 pixels, both at 224, in 2, 1, 3, 2, 2
    shuffles.
    """
    deviation, most, times = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    height, width = image.shape[1:]
    sigma = (0, deviation * length_scale(image), deviation * length_scale(image))
    image = gaussian_filter(image, sigma)
    rows, columns = np.indices((height, width))
    for _ in range(times):
        reach = most * length_scale(image) * rng.uniform(-1, 1, (2, height, width))
        down, right = np.floor(reach + rng.random(reach.shape)).astype(int)
        image = image[:, np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)]
    blurred: Photo = gaussian_filter(image, sigma)
    return blurred


def motion_blur(image: Photo, severity: int, rng: Generator) -> Photo:
    """Motion blur: every point becomes a fading streak, at up to 45 degrees from the horizontal.

    Streaks fade with a deviation of 3, 5, 8, 12, 15 pixels and end after twice 10, 15, 15, 15, 20, both at 224 (as in
    the paper).
    """
    radius, deviation = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    return streak(image, radius * length_scale(image), deviation * length_scale(image), rng.uniform(-45, 45))


def zoom_blur(image: Photo, severity: int, rng: Generator) -> Photo:
    """Zoom blur: averages the image and its enlargements.

    Their factors go up to 1.10, 1.15, 1.20, 1.24, 1.30 in steps of 0.01, 0.01, 0.02, 0.02, 0.03 (as in the paper).
    """
    count, step = ((11, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03))[severity - 1]
    enlarged = [magnify(image, 1 + step * number) for number in range(count)]
    mean: Photo = np.mean([image, *enlarged], axis=0)
    return mean


def magnify(image: Photo, factor: float) -> Photo:
    """Enlarge an image around its center by a factor of 1 or more, with linear interpolation."""
    middle = (np.array(image.shape[1:]) - 1) / 2
    shrink = np.full(2, 1 / factor)
    layers = [
        affine_transform(channel, shrink, middle * (1 - 1 / factor), order=1, mode="nearest") for channel in image
    ]
    return np.stack(layers)


def streak(image: Photo, radius: float, deviation: float, angle: float) -> Photo:
    """Convolve an image with a streak that is brightest at its start.

    Its length is twice the radius, its Gaussian fading has a standard deviation, both in pixels; the angle is in
    degrees, 0 for the horizontal.
    """
    along = np.linspace(0, 2 * radius, 2 * math.ceil(4 * radius) + 21)
    direction = np.array([math.sin(math.radians(angle)), math.cos(math.radians(angle))])
    return convolve_offsets(image, along[:, None] * direction, np.exp(-((along / deviation) ** 2) / 2))


def convolve_offsets(image: Photo, offsets: NDArray[np.float64], weights: NDArray[np.float64]) -> Photo:
    r"""Convolve with weighted offsets: :math:`y(p) = \sum_i w_i\, x(p - u_i) / \sum_i w_i`, x interpolated linearly.

    The offsets u are rows and columns ``[P, 2]``, the weights w ``[P]``; the image is mirrored at its borders.
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
