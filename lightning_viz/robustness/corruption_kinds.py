"""The fifteen common corruptions by family: noise, blur, weather and digital (Hendrycks and Dietterich, 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from io import BytesIO
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

from lightning_viz.robustness.fractals import cloud, frost_cover

__all__ = ["CORRUPTIONS", "CORRUPTION_FAMILIES"]

Photo: TypeAlias = NDArray[np.floating]
"""One image's pixels ``[C, H, W]``, in [0, 1]."""

Corruption = Callable[[Photo, int, Generator], Photo]
"""From pixels, a severity of 1 to 5 and a source of randomness to pixels; numbers in the docstrings are by severity."""

_LUMINANCE = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601)
_ICE = np.array([0.86, 0.94, 1.0])  # the color of frost
_WAVES = 14  # pixels at 224: standard deviation of the Gaussian that smooths the displacements
_CORNERS = 8  # pixels at 224: maximum displacement of the points of the affine map


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


def defocus_blur(image: Photo, severity: int, rng: Generator) -> Photo:
    """Defocus blur: averages the image over a disc of radius 3, 4, 6, 8, 10 pixels at 224 (as in the paper).

    The image is interpolated between its pixels, so that a disc smaller than a pixel blurs too; this replaces the
    paper's smoothing of the disc's edge.
    """
    return convolve(image, _disc((3, 4, 6, 8, 10)[severity - 1] * length_scale(image)))


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
    return np.asarray(gaussian_filter(image, sigma))


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
    return np.asarray(np.mean([image, *enlarged], axis=0))


def snow(image: Photo, severity: int, rng: Generator) -> Photo:
    """Snow: streaks of flakes over a paler image.

    The flakes are the brightest parts of enlarged noise; they fall from one side and, rotated by 180 degrees, from the
    other. The numbers are the paper's; the enlargement, at least 2 (the paper's minimum), and the streaks are lengths
    at 224.
    """
    mean, deviation, size, floor, radius, fade, visibility = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity - 1]
    layer = flakes(image, mean, deviation, size, floor, rng)
    return snowfall(image, layer, radius, fade, visibility, rng.uniform(-135, -45))


def frost(image: Photo, severity: int, rng: Generator) -> Photo:
    """Frost: :math:`a x + b f`, with f the frost.

    The paper takes f from photographs. Here it is generated: needles from the borders inwards, with branches at 60
    degrees that branch again, on a film of fractal noise that is thickest at the needles. It is bluish in color images
    and white in others. a is 1, 0.8, 0.7, 0.65, 0.6, b is 0.4, 0.6, 0.7, 0.7, 0.75 (as in the paper).
    """
    visibility, ice = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    color = (_ICE if len(image) == 3 else np.ones(len(image))).astype(image.dtype)
    height, width = image.shape[1:]
    return np.asarray(visibility * image + ice * color[:, None, None] * frost_cover(height, width, rng))


def fog(image: Photo, severity: int, rng: Generator) -> Photo:
    r"""Fog: :math:`(x + c f) \max x / (\max x + c)`, with f a fractal cloud from 0 to 1.

    c is 1.5, 2, 2.5, 2.5, 3, the decay of the clouds 2, 2, 1.7, 1.5, 1.4 (as in the paper; see `cloud`).
    """
    thickness, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity - 1]
    height, width = image.shape[1:]
    clouds = cloud(height, width, decay, rng)
    brightest = float(image.max())
    return (image + thickness * clouds) * brightest / (brightest + thickness)


def brightness(image: Photo, severity: int, rng: Generator) -> Photo:
    r"""Brightness: raises the value :math:`V = \max_c x_c` of each pixel to :math:`\min(V + b, 1)`, at the same hue.

    b is 0.1, 0.2, 0.3, 0.4, 0.5 (as in the paper); a single channel is its own value.
    """
    added = (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]
    return raise_value(image, added)


def contrast(image: Photo, severity: int, rng: Generator) -> Photo:
    r"""Low contrast: :math:`\bar{x} + c\,(x - \bar{x})`, with the mean of each channel.

    c is 0.4, 0.3, 0.2, 0.1, 0.05 (as in the paper).
    """
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean: Photo = image.mean(axis=(1, 2), keepdims=True)
    return mean + factor * (image - mean)


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
    sums, heights = _block_sums(image, share, 1)
    sums, widths = _block_sums(sums, share, 2)
    sums /= (heights[:, None] * widths).astype(image.dtype)
    return sums.repeat(widths, axis=2).repeat(heights, axis=1)


def jpeg_compression(image: Photo, severity: int, rng: Generator) -> Photo:
    """JPEG compression with qualities of 25, 18, 15, 10, 7 (as in the paper); see `compress_jpeg`.

    Its blocks have 8 pixels in an image of any size, so that small images suffer more.
    """
    return compress_jpeg(image, (25, 18, 15, 10, 7)[severity - 1])


CORRUPTION_FAMILIES: Mapping[str, Mapping[str, Corruption]] = MappingProxyType(
    {
        family: MappingProxyType({kind.__name__: kind for kind in kinds})
        for family, kinds in {
            "noise": (gaussian_noise, shot_noise, impulse_noise),
            "blur": (defocus_blur, glass_blur, motion_blur, zoom_blur),
            "weather": (snow, frost, fog, brightness),
            "digital": (contrast, elastic_transform, pixelate, jpeg_compression),
        }.items()
    }
)
"""Corruptions by family and kind."""

CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {name: kind for family in CORRUPTION_FAMILIES.values() for name, kind in family.items()}
)
"""Corruptions by kind, in the paper's order: functions of one image's pixels in [0, 1]; results may exceed them."""


def length_scale(image: Photo) -> float:
    """Factor of all lengths: the shorter side of the image divided by 224, that of the paper's images."""
    height, width = image.shape[1:]
    return float(min(height, width) / 224)


def raise_value(image: Photo, added: float) -> Photo:
    r"""Set the value :math:`V = \max_c x_c` of each pixel to V plus a number, within [0, 1], at the same hue."""
    value: Photo = image.max(axis=0)
    raised = np.clip(value + added, 0, 1)
    black = value == 0  # has no hue and becomes gray
    return np.asarray(np.where(black, raised, image * raised / np.where(black, 1, value)))


def flakes(image: Photo, mean: float, deviation: float, size: float, floor: float, rng: Generator) -> Photo:
    """Flakes of snow for an image, ``[1, H, W]`` in [0, 1]: enlarged noise where it exceeds a floor."""
    noise = mean + deviation * rng.standard_normal((1, *image.shape[1:]))
    enlarged = magnify(noise, max(2, size * length_scale(image)))
    return np.where(enlarged < floor, 0.0, np.clip(enlarged, 0, 1))


def snowfall(image: Photo, flakes: Photo, radius: float, fade: float, visibility: float, angle: float) -> Photo:
    """A paler image with flakes that fall at an angle in degrees; lengths of their streaks are in pixels at 224."""
    streaks = streak(flakes, radius * length_scale(image), fade * length_scale(image), angle)
    weights = _LUMINANCE if len(image) == 3 else np.full(len(image), 1 / len(image))
    gray = np.tensordot(weights, image, axes=1)
    pale: Photo = visibility * image + (1 - visibility) * np.maximum(image, 1.5 * gray + 0.5)
    return pale + streaks + np.rot90(streaks, 2, axes=(1, 2))


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
    return convolve(image, _kernel(offsets, weights))


def convolve(image: Photo, kernel: NDArray[np.float64]) -> Photo:
    """Convolve with a kernel of odd sides ``[K, K]``, in the image's precision; it is mirrored at its borders."""
    from scipy.signal import fftconvolve  # which takes a while to import

    radius = len(kernel) // 2
    padded = np.pad(image, ((0, 0), (radius, radius), (radius, radius)), mode="symmetric")
    return np.asarray(fftconvolve(padded, kernel[None].astype(image.dtype), mode="valid", axes=(1, 2)))


def _kernel(offsets: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted offsets on a grid of pixels; in sum 1."""
    radius = int(np.abs(offsets).max()) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    whole = np.floor(offsets).astype(int)
    for corner in np.array([[0, 0], [0, 1], [1, 0], [1, 1]]):
        share = np.abs(1 - corner - (offsets - whole)).prod(axis=1)  # of the pixel at this corner of the point
        np.add.at(kernel, tuple((whole + corner + radius).T), weights * share)
    return np.asarray(kernel / kernel.sum())


@lru_cache(maxsize=16)  # one for each severity, and few sizes of images
def _disc(radius: float) -> NDArray[np.float64]:
    """The kernel of a disc of a radius in pixels."""
    along = np.linspace(-radius, radius, 2 * math.ceil(4 * radius) + 21)
    points = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
    disc = points[np.hypot(*points.T) <= radius]
    return _kernel(disc, np.ones(len(disc)))


def _block_sums(image: Photo, share: float, axis: int) -> tuple[Photo, NDArray[np.int64]]:
    """Sums over blocks along an axis, and how many pixels each has."""
    first, counts, longer = _blocks(image.shape[axis], share)
    fewest = image.shape[axis] // len(first)
    sums = image.take(first, axis)
    for step in range(1, fewest):
        sums += image.take(first + step, axis)
    rest = image.take(first + fewest, axis, mode="clip")
    rest *= longer if axis == 2 else longer[:, None]
    sums += rest
    return sums, counts


@lru_cache(maxsize=32)  # a few severities and sizes of images
def _blocks(pixels: int, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Blocks of a line of pixels: the first of each, how many it has, and whether it has one more than the smallest.

    A pixel belongs to the block that its middle lies in.
    """
    blocks = max(1, round(share * pixels))
    first = (2 * np.arange(blocks) * pixels + blocks - 1) // (2 * blocks)
    counts = np.diff(first, append=pixels)
    return first, counts, counts > pixels // blocks


def compress_jpeg(image: Photo, quality: int) -> Photo:
    """Encode an image, quantized to 256 steps, as JPEG of quality 1 to 95 and decode it.

    Three channels are encoded as color, otherwise each channel as gray.
    """
    values = 255 * image
    channels = [Image.fromarray(channel) for channel in np.rint(values, out=values).astype(np.uint8)]
    if len(channels) == 3:
        values[...] = _jpeg_roundtrip(Image.merge("RGB", channels), quality).transpose(2, 0, 1)
    else:
        values[...] = [_jpeg_roundtrip(channel, quality) for channel in channels]
    return np.divide(values, 255, out=values)


def _jpeg_roundtrip(image: Image.Image, quality: int) -> NDArray[np.uint8]:
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer, formats=["JPEG"]))
