"""Digital: what light, the way it is stored and the way it is shown do to an image."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from lightning_viz.robustness.corruptions.blur import relative_size
from lightning_viz.robustness.corruptions.noise import Photo

_WAVES = 14  # pixels at 224: the deviation of the Gaussian that smooths them
_CORNERS = 8  # pixels at 224 that the points of an elastic image move at most


def contrast(image: Photo, severity: int, rng: Generator) -> Photo:
    r"""Pale: :math:`\bar{x} + c\,(x - \bar{x})`, with the mean of each channel.

    Args:
        image: pixels.
        severity: 1 to 5, for c of 0.4, 0.3, 0.2, 0.1, 0.05 (the paper's).
        rng: not used.
    """
    kept = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean = image.mean(axis=(1, 2), keepdims=True)
    pale: Photo = mean + kept * (image - mean)
    return pale


def elastic_transform(image: Photo, severity: int, rng: Generator) -> Photo:
    """Stretched: three points of the image are moved and all others with them, then every place by smooth waves.

    Not the paper's numbers, which are no ladder: its first two severities, nearly all affine, cost far more than the
    next two, and those have waves that are lost in a small image. Here the points move alike in all, and the waves
    grow until they bend as the paper's strongest do: their slope, height over wave length, from 0.1 to 0.5.

    Args:
        image: pixels; it is mirrored at its borders.
        severity: 1 to 5, for waves of 2, 3.5, 5, 7.5, 10 pixels at 224 (root of the mean square, of each direction).
        rng: what is drawn from.
    """
    height, width = image.shape[1:]
    rise = (2, 3.5, 5, 7.5, 10)[severity - 1] * relative_size(image)
    third = min(height, width) / 3
    points = np.array([[third, third], [third, -third], [-third, -third]])  # from the middle
    moved = points + _CORNERS * relative_size(image) * rng.uniform(-1, 1, points.shape)
    affine = np.linalg.solve(np.column_stack([points, np.ones(3)]), moved)  # [3, 2]
    noise = rng.uniform(-1, 1, (height, width, 2))
    waves = gaussian_filter(noise, (_WAVES * relative_size(image), _WAVES * relative_size(image), 0))
    waves *= rise / np.sqrt(np.mean(waves**2, axis=(0, 1)))
    middle = (np.array([height, width]) - 1) / 2
    places = np.moveaxis(np.indices((height, width)), 0, -1) - middle + waves
    sources = np.moveaxis(places @ affine[:2] + affine[2] + middle, -1, 0)
    return np.stack([map_coordinates(channel, sources, order=1, mode="mirror") for channel in image])


def pixelate(image: Photo, severity: int, rng: Generator) -> Photo:
    """Shown at a lower resolution: every pixel of a smaller image as a block of one color.

    Args:
        image: pixels.
        severity: 1 to 5, for 0.6, 0.5, 0.4, 0.3, 0.25 of the sides (the paper's), in whole pixels.
        rng: not used.
    """
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    height, width = image.shape[1:]
    smaller = (max(1, round(share * width)), max(1, round(share * height)))

    def blocks(channel: Photo) -> Photo:
        small = Image.fromarray(channel.astype(np.float32)).resize(smaller, Image.Resampling.BOX)
        return np.asarray(small.resize((width, height), Image.Resampling.NEAREST), dtype=np.float64)

    return np.stack([blocks(channel) for channel in image])


def jpeg_compression(image: Photo, severity: int, rng: Generator) -> Photo:
    """Stored as JPEG: three channels as color, one as gray, of any other number each as gray on its own.

    Its blocks are of 8 pixels in an image of any size: what is small is hurt more.

    Args:
        image: pixels; kept in 256 steps.
        severity: 1 to 5, for qualities of 25, 18, 15, 10, 7 (the paper's).
        rng: not used.
    """
    return through_jpeg(image, (25, 18, 15, 10, 7)[severity - 1])


def through_jpeg(image: Photo, quality: int) -> Photo:
    """An image as it comes back from JPEG: three channels as color, one as gray, any other number each as gray.

    Args:
        image: pixels; kept in 256 steps.
        quality: 1 to 95.
    """
    stored = np.rint(255 * image).astype(np.uint8)
    parts = [stored.transpose(1, 2, 0)] if len(stored) == 3 else list(stored)
    back = [np.asarray(_through_jpeg(Image.fromarray(part), quality)) / 255 for part in parts]
    return back[0].transpose(2, 0, 1) if len(stored) == 3 else np.stack(back)


def _through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer)
