"""Sequences of small steps away from or across an image: the ten kinds of ImageNet-P (Hendrycks and Dietterich)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hints import unknown_name
from lightning_viz.pixels import PixelSpace
from lightning_viz.robustness.corruption_kinds import (
    Photo,
    flakes,
    length_scale,
    magnify,
    raise_value,
    snowfall,
    streak,
)
from lightning_viz.robustness.corruptions import from_photos, to_photos

__all__ = ["PERTURBATIONS", "perturbation_sequence"]

Perturbation = Callable[[Photo, Generator], NDArray[np.float64]]
"""From one image's pixels ``[C, H, W]`` in [0, 1] and a source of randomness to frames ``[T, C, H, W]``."""

NOISE = ("gaussian_noise", "shot_noise")
"""Kinds of which every frame is compared with the image, not with the frame before: their noise has no order."""

_STEPS = np.arange(31)  # frames, in the paper as well


def _gaussian_noise(image: Photo, rng: Generator) -> NDArray[np.float64]:
    """The image, then 30 times with Gaussian noise of deviation 0.03 (ImageNet-P's)."""
    noisy = image + 0.03 * rng.standard_normal((len(_STEPS) - 1, *image.shape))
    return np.concatenate([image[None], noisy])


def _shot_noise(image: Photo, rng: Generator) -> NDArray[np.float64]:
    """The image, then 30 times with shot noise; a white pixel has 300 photons (ImageNet-P's)."""
    counted = rng.poisson(300 * image, (len(_STEPS) - 1, *image.shape)) / 300
    return np.concatenate([image[None], counted])


def _motion_blur(image: Photo, rng: Generator) -> NDArray[np.float64]:
    """Streaks of radius 10 and deviation 3 pixels at 224 that turn from -120 to 0 degrees, by 4 at a time."""
    radius, deviation = 10 * length_scale(image), 3 * length_scale(image)
    return np.stack([streak(image, radius, deviation, 4.0 * step) for step in _STEPS - _STEPS[-1]])


def _zoom_blur(image: Photo, rng: Generator) -> NDArray[np.float64]:
    """The mean of the image and its enlargements by 1.004, 1.008 and so on to 1.12, one more in every frame."""
    enlarged = np.stack([image, *(magnify(image, 1 + 0.004 * step) for step in _STEPS[1:])])
    return np.cumsum(enlarged, axis=0) / (_STEPS + 1)[:, None, None, None]


def _snow(image: Photo, rng: Generator) -> NDArray[np.float64]:
    """The same flakes, falling at -150 to -30 degrees, by 4 at a time; radius 14, deviation 4 pixels at 224."""
    layer = flakes(image, 0.05, 0.3, 3, 0.5, rng)
    return np.stack([snowfall(image, layer, 14, 4, 0.85, 4.0 * step - 150) for step in _STEPS])


def _brightness(image: Photo, rng: Generator) -> NDArray[np.float64]:
    """Every pixel's value plus -0.3 to 0.3, by 0.02 at a time."""
    return np.stack([raise_value(image, 0.02 * step) for step in _STEPS - _STEPS[-1] // 2])


def _translate(image: Photo, rng: Generator) -> NDArray[np.float64]:
    """The image moved by -20 to 20 pixels at 224 to the right, one at a time: 41 frames; mirrored at its borders."""
    moves = np.arange(-20, 21) * length_scale(image)
    return _warped(image, np.array([[[1, 0, -move], [0, 1, 0], [0, 0, 1]] for move in moves]))


def _rotate(image: Photo, rng: Generator) -> NDArray[np.float64]:
    """The image turned by -15 to 15 degrees, one at a time; mirrored at its borders."""
    angles = np.deg2rad(_STEPS - 15.0)
    turns = [[[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]] for a in angles]
    return _warped(image, np.array(turns))


def _tilt(image: Photo, rng: Generator) -> NDArray[np.float64]:
    """The image's plane turned by -15 to 15 degrees about both axes, one at a time, seen from its diagonal's length."""
    far = math.hypot(*image.shape[1:])
    seen = np.stack([_perspective(angle, far) for angle in np.deg2rad(_STEPS - 15.0)])
    return _warped(image, np.asarray(np.linalg.inv(seen), dtype=np.float64))


def _scale(image: Photo, rng: Generator) -> NDArray[np.float64]:
    """The image at 40 to 115 % of its size, by 2.5 at a time, on black."""
    factors = (2.5 * _STEPS + 40) / 100
    return _warped(image, np.stack([np.diag([1 / factor, 1 / factor, 1]) for factor in factors]), beyond="zeros")


PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType(
    {
        "gaussian_noise": _gaussian_noise,
        "shot_noise": _shot_noise,
        "motion_blur": _motion_blur,
        "zoom_blur": _zoom_blur,
        "snow": _snow,
        "brightness": _brightness,
        "translate": _translate,
        "rotate": _rotate,
        "tilt": _tilt,
        "scale": _scale,
    }
)
"""Sequences by kind, in the paper's order: functions of one image's pixels in [0, 1]; results may exceed them."""


def perturbation_sequence(
    inputs: Tensor, kind: str, *, pixel_space: PixelSpace | None = None, seed: int = 0, first: int = 0
) -> Tensor:
    """Perturbation sequence: frames of an image that change in small steps (Hendrycks and Dietterich, 2019).

    The steps are those of ImageNet-P, with lengths multiplied by the image's shorter side divided by 224. Where the
    paper crops a larger photograph, so that moved images stay filled, images are mirrored at their borders here. The
    first frame of the two kinds of noise is the image; the others each have noise of their own. Every sample has a
    random generator of its own.

    Args:
        inputs: images as the model takes them, ``[N, C, H, W]``.
        kind: one of `PERTURBATIONS`.
        pixel_space: maps inputs to pixels; inputs are pixels in [0, 1] if omitted.
        seed: of everything random, 0 or more.
        first: index of the first sample, if the images are one batch of many.

    Returns:
        The frames ``[N, T, C, H, W]``, within the pixels' bounds; T is 31, and 41 of ``"translate"``.

    Raises:
        InvalidArgumentError: an unknown kind, no images, or pixels outside the bounds.
    """
    check_sequences([kind], seed)
    pixel_space = pixel_space or PixelSpace()
    number = list(PERTURBATIONS).index(kind)
    frames = [
        PERTURBATIONS[kind](photo, np.random.default_rng([seed, first + index, number]))
        for index, photo in enumerate(to_photos(inputs, pixel_space))
    ]
    flat = from_photos(np.concatenate(frames).clip(0, 1), inputs, pixel_space)
    return flat.view(len(frames), -1, *inputs.shape[1:])


def check_sequences(kinds: Sequence[str] | None, seed: int) -> tuple[str, ...]:
    """Validated names of kinds; all if None.

    Raises:
        InvalidArgumentError: an unknown kind, none, or a negative seed.
    """
    names = tuple(PERTURBATIONS) if kinds is None else (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if words := unknown_name("perturbation", names, PERTURBATIONS):
        raise InvalidArgumentError(words)
    if not names or seed < 0:
        raise InvalidArgumentError(f"kinds={names}, seed={seed}: pass one kind or more, and a seed of 0 or more")
    return names


def _perspective(angle: float, far: float) -> NDArray[np.float64]:
    """Where a point of the plane, in pixels from its middle, is seen when the plane is turned about both axes."""
    sine, cosine = math.sin(angle), math.cos(angle)
    about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    about_y = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
    # Points (x, y, 0); the eye is `far` away from the plane, and sees them at that scale.
    turned = (about_x @ about_y)[:, :2]
    return np.array([[*(far * turned[0]), 0], [*(far * turned[1]), 0], [*turned[2], far]])


def _warped(image: Photo, sources: NDArray[np.float64], *, beyond: str = "reflection") -> NDArray[np.float64]:
    """Frames ``[T, C, H, W]`` of an image under homographies ``[T, 3, 3]`` from places in a frame to places in it.

    Places are columns and rows, in pixels from the middle.
    """
    size = torch.tensor([image.shape[2], image.shape[1]], dtype=torch.float64)
    columns, rows = (torch.arange(int(side), dtype=torch.float64) - (side - 1) / 2 for side in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], -1) @ torch.from_numpy(sources)[:, None].mT
    grid = 2 * (places[..., :2] / places[..., 2:]) / size
    frames = torch.from_numpy(image).expand(len(grid), *image.shape)
    return F.grid_sample(frames, grid, padding_mode=beyond, align_corners=False).numpy()
