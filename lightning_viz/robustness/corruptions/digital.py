"""Digital corruptions: contrast, elastic deformation, pixelation and JPEG compression."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from lightning_viz.robustness.corruptions.blur import length_scale
from lightning_viz.robustness.corruptions.noise import Photo

_WAVES = 14  # pixels at 224: standard deviation of the Gaussian that smooths the displacements
_CORNERS = 8  # pixels at 224: maximum displacement of the points of the affine map


def contrast(image: Photo, severity: int, rng: Generator) -> Photo:
    r"""Low contrast: :math:`\bar{x} + c\,(x - \bar{x})`, with the mean of each channel.

    c is 0.4, 0.3, 0.2, 0.1, 0.05 (as in the paper).
    """
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean = image.mean(axis=(1, 2), keepdims=True)
    pale: Photo = mean + factor * (image - mean)
    return pale


def elastic_transform(image: Photo, severity: int, rng: Generator) -> Photo:
    """Elastic deformation: an affine map that displaces three points, and smooth random displacements.

    The numbers differ from the paper's, whose severities are not monotone: the first two, almost affine, cost far more
    accuracy than the next two, whose displacements vanish in a small image. Here the affine part is the same for all
    severities, and the displacements grow to the paper's strongest: waves of 2, 3.5, 5, 7.5, 10 pixels at 224 (root of
    the mean square, of each direction), whose slope, height over wave length, is 0.1 to 0.5. The image is mirrored at
    its borders.
    """
    height, width = image.shape[1:]
    rise = (2, 3.5, 5, 7.5, 10)[severity - 1] * length_scale(image)
    third = min(height, width) / 3
    points = np.array([[third, third], [third, -third], [-third, -third]])  # from the middle
    displaced = points + _CORNERS * length_scale(image) * rng.uniform(-1, 1, points.shape)
    affine = np.linalg.solve(np.column_stack([points, np.ones(3)]), displaced)  # [3, 2]
    noise = rng.uniform(-1, 1, (height, width, 2))
    waves = gaussian_filter(noise, (_WAVES * length_scale(image), _WAVES * length_scale(image), 0))
    waves *= rise / np.sqrt(np.mean(waves**2, axis=(0, 1)))
    middle = (np.array([height, width]) - 1) / 2
    places = np.moveaxis(np.indices((height, width)), 0, -1) - middle + waves
    sources = np.moveaxis(places @ affine[:2] + affine[2] + middle, -1, 0)
    return np.stack([map_coordinates(channel, sources, order=1, mode="mirror") for channel in image])


def pixelate(image: Photo, severity: int, rng: Generator) -> Photo:
    """Pixelation: shows a smaller image, with every pixel as a block of one color.

    Its sides are 0.6, 0.5, 0.4, 0.3, 0.25 of the image's (as in the paper), rounded to pixels.
    """
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    height, width = image.shape[1:]
    smaller = (max(1, round(share * width)), max(1, round(share * height)))

    def blocks(channel: Photo) -> Photo:
        small = Image.fromarray(channel.astype(np.float32)).resize(smaller, Image.Resampling.BOX)
        return np.asarray(small.resize((width, height), Image.Resampling.NEAREST), dtype=np.float64)

    return np.stack([blocks(channel) for channel in image])


def jpeg_compression(image: Photo, severity: int, rng: Generator) -> Photo:
    """JPEG compression with qualities of 25, 18, 15, 10, 7 (as in the paper); see `compress_jpeg`.

    Its blocks have 8 pixels in an image of any size, so that small images suffer more.
    """
    return compress_jpeg(image, (25, 18, 15, 10, 7)[severity - 1])


def compress_jpeg(image: Photo, quality: int) -> Photo:
    """Encode an image, quantized to 256 steps, as JPEG of quality 1 to 95 and decode it.

    Three channels are encoded as color, otherwise each channel as gray.
    """
    levels = np.rint(255 * image).astype(np.uint8)
    parts = [levels.transpose(1, 2, 0)] if len(levels) == 3 else list(levels)
    decoded = [np.asarray(_jpeg_roundtrip(Image.fromarray(part), quality)) / 255 for part in parts]
    return decoded[0].transpose(2, 0, 1) if len(levels) == 3 else np.stack(decoded)


def _jpeg_roundtrip(image: Image.Image, quality: int) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer)
