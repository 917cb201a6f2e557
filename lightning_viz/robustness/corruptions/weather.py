"""Weather corruptions: snow, frost, fog and brightness."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from lightning_viz.robustness.corruptions.blur import length_scale, magnify, streak
from lightning_viz.robustness.corruptions.noise import Photo

_LUMINANCE = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601)
_ICE = np.array([0.86, 0.94, 1.0])  # the color of frost
_FINER = 2  # factor by which needles are drawn larger, for antialiasing


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
    noise = mean + deviation * rng.standard_normal((1, *image.shape[1:]))
    flakes = magnify(noise, max(2, size * length_scale(image)))
    flakes = np.where(flakes < floor, 0.0, np.clip(flakes, 0, 1))
    streaks = streak(flakes, radius * length_scale(image), fade * length_scale(image), rng.uniform(-135, -45))
    weights = _LUMINANCE if len(image) == 3 else np.full(len(image), 1 / len(image))
    gray = np.tensordot(weights, image, axes=1)
    pale = visibility * image + (1 - visibility) * np.maximum(image, 1.5 * gray + 0.5)
    snowed: Photo = pale + streaks + np.rot90(streaks, 2, axes=(1, 2))
    return snowed


def frost(image: Photo, severity: int, rng: Generator) -> Photo:
    """Frost: :math:`a x + b f`, with f the frost.

    The paper takes f from photographs. Here it is generated: needles from the borders inwards, with branches at 60
    degrees that branch again, on a film of fractal noise that is thickest at the needles. It is bluish in color images
    and white in others. a is 1, 0.8, 0.7, 0.65, 0.6, b is 0.4, 0.6, 0.7, 0.7, 0.75 (as in the paper).
    """
    visibility, ice = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    height, width = image.shape[1:]
    needles = _needles(height, width, rng)
    film = gaussian_filter(needles, 10 * length_scale(image)) + 0.35 * cloud(height, width, 1.3, rng)
    layer = np.clip(0.6 * needles + 0.9 * film, 0, 1)
    color = _ICE if len(image) == 3 else np.ones(len(image))
    frosted: Photo = visibility * image + ice * color[:, None, None] * layer
    return frosted


def fog(image: Photo, severity: int, rng: Generator) -> Photo:
    r"""Fog: :math:`(x + c f) \max x / (\max x + c)`, with f a fractal cloud from 0 to 1.

    c is 1.5, 2, 2.5, 2.5, 3, the decay of the clouds 2, 2, 1.7, 1.5, 1.4 (as in the paper; see `cloud`).
    """
    thickness, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity - 1]
    height, width = image.shape[1:]
    clouds = cloud(height, width, decay, rng)
    brightest = image.max()
    fogged: Photo = (image + thickness * clouds) * brightest / (brightest + thickness)
    return fogged


def brightness(image: Photo, severity: int, rng: Generator) -> Photo:
    r"""Brightness: raises the value :math:`V = \max_c x_c` of each pixel to :math:`\min(V + b, 1)`, at the same hue.

    b is 0.1, 0.2, 0.3, 0.4, 0.5 (as in the paper); a single channel is its own value.
    """
    added = (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]
    value = image.max(axis=0)
    raised = np.minimum(value + added, 1)
    black = value == 0  # has no hue and becomes gray
    bright: Photo = np.where(black, raised, image * raised / np.where(black, 1, value))
    return bright


def cloud(height: int, width: int, decay: float, rng: Generator) -> NDArray[np.float64]:
    r"""Fractal cloud ``[H, W]`` from 0 to 1: noise on ever finer grids, :math:`\sum_k d^{-2k} n_k`, each half as wide.

    The paper uses the diamond-square algorithm, whose steps shrink by the same factor. Lower decays d are rougher.
    """
    side = max(height, width)
    total = np.zeros((side, side))
    for octave in range(1, max(2, math.ceil(math.log2(side)))):
        grid = rng.uniform(-1, 1, (2**octave + 1, 2**octave + 1)).astype(np.float32)
        finer = Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)
        total += decay ** (-2 * octave) * np.asarray(finer)
    total = total[:height, :width] - total[:height, :width].min()
    clouds: NDArray[np.float64] = total / max(total.max(), np.finfo(float).tiny)
    return clouds


def _needles(height: int, width: int, rng: Generator) -> NDArray[np.float64]:
    """Needles of ice ``[H, W]`` in [0, 1] that grow from the borders."""
    canvas = Image.new("L", (_FINER * width, _FINER * height))
    pencil = ImageDraw.Draw(canvas)
    side = min(canvas.size)
    levels = [_stems(np.array(canvas.size, dtype=float), rng)]
    for count in (34, 12):
        starts, ends = _branches(*levels[-1], count, rng)
        visible = np.hypot(*(ends - starts).T) >= 1.5 * _FINER  # shorter ones vanish within a pixel
        levels.append((starts[visible], ends[visible]))
    for level in reversed(range(len(levels))):
        light, thick = (235, 170, 110)[level], max(1, round((0.007, 0.004, 0.0)[level] * side))
        for start, end in zip(*(points.tolist() for points in levels[level]), strict=True):
            pencil.line([*start, *end], fill=light, width=thick)
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX), dtype=np.float64) / 255


def _stems(
    size: NDArray[np.float64], rng: Generator, count: int = 40
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Needles from the borders: x and y of both ends ``[n, 2]``; most are short."""
    starts = rng.random((count, 2))
    starts[np.arange(count), rng.integers(2, size=count)] = rng.integers(2, size=count)
    towards = rng.random((count, 2)) - starts
    return starts * size, (starts + (0.15 + 0.5 * rng.random((count, 1)) ** 2) * towards) * size


def _branches(
    starts: NDArray[np.float64], ends: NDArray[np.float64], count: int, rng: Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Branches along needles, to both sides at 60 degrees, shorter towards the tip."""
    stem = (ends - starts)[:, None]  # [n, 1, 2]
    place = (np.arange(count) + rng.random((len(starts), count)))[..., None] / count  # [n, count, 1]
    angle = np.resize([1, -1], (count, 1)) * rng.normal(math.pi / 3, 0.1, place.shape)
    across = stem[..., ::-1] * [-1, 1]  # the stem turned by a quarter
    roots = starts[:, None] + place * stem
    reach = 0.5 * (1 - place) ** 0.8 * rng.uniform(0.3, 1, place.shape)
    tips = roots + reach * (np.cos(angle) * stem + np.sin(angle) * across)
    return roots.reshape(-1, 2), tips.reshape(-1, 2)
