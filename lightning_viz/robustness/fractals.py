"""Fractal textures of weather: clouds of noise, and frost of needles whose branches branch again."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d

_FINER = 2  # factor by which needles are drawn larger, for antialiasing
_STEMS = 40
_BRANCHES = (34, 12)  # of each stem, and of each of these
_LIGHT, _THICKNESS = (235, 170, 110), (0.007, 0.004, 0.0)  # of the three; thickness as a share of the shorter side
_SHORTEST = 1.5  # pixels: shorter branches vanish


def cloud(height: int, width: int, decay: float, rng: Generator) -> NDArray[np.float32]:
    r"""Fractal cloud ``[H, W]`` from 0 to 1: noise on ever finer grids, :math:`\sum_k d^{-2k} n_k`, each half as wide.

    The paper uses the diamond-square algorithm, whose steps shrink by the same factor. Lower decays d are rougher.
    """
    side = max(height, width)
    enlarged = []
    for octave, enlargement in enumerate(_enlargements(side), 1):
        grid = rng.uniform(-1, 1, (enlargement.shape[1],) * 2).astype(np.float32)
        enlarged.append(enlargement[:height] @ (decay ** (-2 * octave) * grid))
    total = np.concatenate(enlarged, axis=1) @ np.concatenate(_enlargements(side), axis=1)[:width].T
    total -= total.min()
    return np.asarray(total / max(total.max(), np.finfo(np.float32).tiny))


@lru_cache(maxsize=2)  # sizes of images: 64 MB each at a side of 4096
def _enlargements(side: int) -> tuple[NDArray[np.float32], ...]:
    """Bicubic interpolation of grids of 3, 5, 9 ... points to a side, as matrices ``[side, points]``."""
    octaves = range(1, max(2, math.ceil(math.log2(side))))
    grids = (Image.fromarray(np.eye(2**octave + 1, dtype=np.float32)) for octave in octaves)
    return tuple(np.asarray(grid.resize((grid.width, side), Image.Resampling.BICUBIC)) for grid in grids)


def frost_cover(height: int, width: int, rng: Generator) -> NDArray[np.float32]:
    """Frost ``[H, W]`` in [0, 1]: needles of ice on a film of noise that is thickest at the needles."""
    needles = _needles(height, width, rng)
    spread = 10 * min(height, width) / 224
    film = _gaussian(height, spread) @ needles @ _gaussian(width, spread).T + 0.35 * cloud(height, width, 1.3, rng)
    return np.asarray(np.clip(0.6 * needles + 0.9 * film, 0, 1))


@lru_cache(maxsize=2)  # sizes of images: 64 MB each at a side of 4096
def _gaussian(side: int, deviation: float) -> NDArray[np.float32]:
    """Smoothing of a line of pixels by a Gaussian, as a matrix: as fast for a wide Gaussian as for a narrow one."""
    return np.asarray(gaussian_filter1d(np.eye(side, dtype=np.float32), deviation, axis=0))


def _needles(height: int, width: int, rng: Generator) -> NDArray[np.float32]:
    """Needles of ice ``[H, W]`` in [0, 1] that grow from the borders, with branches at 60 degrees that branch again."""
    size = _FINER * width, _FINER * height
    levels = [_stems(*size, rng)]
    for count in _BRANCHES:
        levels.append(_branches(*levels[-1], count, rng))
    canvas = np.zeros((size[1] + 2, size[0] + 2), np.uint8)  # within a border, which takes what lies beyond
    for (starts, stretches), light, thickness in reversed(list(zip(levels, _LIGHT, _THICKNESS, strict=True))):
        _draw_lines(canvas, starts, stretches, light, max(1, round(thickness * min(size))))
    ice = np.array(Image.fromarray(canvas[1:-1, 1:-1]).reduce(_FINER), np.float32)
    return np.divide(ice, 255, out=ice)


def _stems(width: int, height: int, rng: Generator) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Needles from the borders, most of them short: starts and stretches ``[n]``, each x + iy."""
    starts = rng.random((_STEMS, 2))
    starts[np.arange(_STEMS), rng.integers(2, size=_STEMS)] = rng.integers(2, size=_STEMS)
    towards = rng.random((_STEMS, 2)) - starts
    stretches = (0.15 + 0.5 * rng.random((_STEMS, 1)) ** 2) * towards
    size = np.array([width, height * 1j])
    return starts @ size, stretches @ size


def _branches(
    starts: NDArray[np.complex128], stretches: NDArray[np.complex128], count: int, rng: Generator
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Visible branches along needles, to both sides at 60 degrees, shorter towards the tip."""
    place = (np.arange(count) + rng.random((len(starts), count))) / count  # along the needle
    angle = np.resize([1, -1], count) * rng.normal(math.pi / 3, 0.1, place.shape)
    reach = 0.5 * (1 - place) ** 0.8 * rng.uniform(0.3, 1, place.shape)
    parent, branch = np.nonzero(reach * np.abs(stretches)[:, None] >= _SHORTEST * _FINER)
    place, angle, reach = (value[parent, branch] for value in (place, angle, reach))
    roots = starts[parent] + place * stretches[parent]
    return roots, reach * (np.cos(angle) + 1j * np.sin(angle)) * stretches[parent]


def _draw_lines(
    canvas: NDArray[np.uint8],
    starts: NDArray[np.complex128],
    stretches: NDArray[np.complex128],
    light: int,
    thickness: int,
) -> None:
    """Draw lines by steps of at most one pixel; what lies beyond the canvas is drawn onto its outermost pixels.

    Thick lines are lines beside one another, in rows if they are flat and in columns if they are steep.
    """
    counts = np.ceil(np.maximum(np.abs(stretches.real), np.abs(stretches.imag))).astype(int) + 1
    steps = stretches / np.maximum(counts - 1, 1)
    first = np.cumsum(counts) - counts
    number = np.arange(counts.sum())
    flat = np.abs(stretches.real) > np.abs(stretches.imag)
    for offset in range(thickness):
        beside = np.where(flat, 1j, 1) * (offset - (thickness - 1) / 2)
        before = starts + beside - first * steps + (1 + 1j)
        x, y = (
            np.clip(np.repeat(part(before), counts) + number * np.repeat(part(steps), counts), 0, side - 1).astype(int)
            for part, side in ((np.real, canvas.shape[1]), (np.imag, canvas.shape[0]))
        )
        canvas[y, x] = light
