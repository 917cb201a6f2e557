"""Common corruptions of images in five severities (Hendrycks and Dietterich, 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_viz.dream.parametrization import OVERSHOOT
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hints import unknown_name
from lightning_viz.pixels import PixelSpace, check_pixels
from lightning_viz.robustness.corruption_kinds import CORRUPTIONS, Photo
from lightning_viz.robustness.further_corruptions import FURTHER_CORRUPTIONS

__all__ = ["Corrupted", "all_corruptions", "corrupt"]

SEVERITIES = (1, 2, 3, 4, 5)
_PIXELS = PixelSpace()
_KINDS = {**CORRUPTIONS, **FURTHER_CORRUPTIONS}


class Corrupted(NamedTuple):
    """Images with one corruption.

    Attributes:
        kind: one of `CORRUPTIONS` or `FURTHER_CORRUPTIONS`.
        severity: 1 to 5.
        inputs: the images as the model takes them.
    """

    kind: str
    severity: int
    inputs: Tensor


def corrupt(
    inputs: Tensor, kind: str, severity: int, *, pixel_space: PixelSpace | None = None, seed: int = 0, first: int = 0
) -> Tensor:
    """Common corruption: applies one kind of corruption to images (Hendrycks and Dietterich, 2019).

    The severities are the paper's for ImageNet. Lengths (radii, displacements) are multiplied by the image's shorter
    side divided by 224, so that the effect does not depend on the size. Each sample has a random generator of its own,
    the same for all severities of a kind: the result does not depend on the batch, and the same noise grows with the
    severity. Global generators are not used. Some kinds differ from the paper, as their functions describe (frost is
    generated, elastic displacements have other numbers, snow and glass are drawn differently): compare models with each
    other, not with results published for ImageNet-C.

    Args:
        inputs: images as the model takes them, ``[N, C, H, W]``.
        kind: one of `CORRUPTIONS` or `FURTHER_CORRUPTIONS`.
        severity: 1 to 5.
        pixel_space: maps inputs to pixels; inputs are pixels in [0, 1] if omitted.
        seed: of everything random, 0 or more.
        first: index of the first sample, if the images are one batch of many.

    Returns:
        The images corrupted, within the pixels' bounds; of the shape and precision given, on the same device.

    Raises:
        InvalidArgumentError: an unknown kind or severity, no images, or pixels outside the bounds.
    """
    return next(
        all_corruptions(inputs, kinds=[kind], severities=[severity], pixel_space=pixel_space, seed=seed, first=first)
    ).inputs


def all_corruptions(
    inputs: Tensor,
    *,
    kinds: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    first: int = 0,
) -> Iterator[Corrupted]:
    """Apply several kinds and severities of corruption to images, one after the other (see `corrupt`).

    Args:
        inputs: images as the model takes them, ``[N, C, H, W]``.
        kinds: names in `CORRUPTIONS` or `FURTHER_CORRUPTIONS`; the former's 15 if omitted.
        severities: of each kind, some of 1 to 5.
        pixel_space: maps inputs to pixels; inputs are pixels in [0, 1] if omitted.
        seed: of everything random, 0 or more.
        first: index of the first sample, if the images are one batch of many.

    Raises:
        InvalidArgumentError: an unknown kind or severity, no images, or pixels outside the bounds.
    """
    kind_names = check_kinds(kinds, severities, seed)
    pixel_space = pixel_space or _PIXELS
    photos = to_photos(inputs, pixel_space, torch.promote_types(inputs.dtype, torch.float32))

    def corrupt_batch(kind: str, severity: int) -> Tensor:
        number = list(_KINDS).index(kind)
        corrupted = np.empty_like(photos)
        for index, photo in enumerate(photos):
            shares = _KINDS[kind](photo, severity, np.random.default_rng([seed, first + index, number]))
            np.clip(shares, 0, 1, out=corrupted[index], casting="same_kind")
        return from_photos(corrupted, inputs, pixel_space)

    return (Corrupted(kind, severity, corrupt_batch(kind, severity)) for kind in kind_names for severity in severities)


def check_kinds(kinds: Sequence[str] | None, severities: Sequence[int], seed: int) -> tuple[str, ...]:
    """Validated names of kinds; all if None.

    Raises:
        InvalidArgumentError: an unknown kind, a severity or seed out of range, or no kind or severity.
    """
    kind_names = tuple(CORRUPTIONS) if kinds is None else (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if words := unknown_name("corruption", kind_names, _KINDS):
        raise InvalidArgumentError(words)
    if not kind_names or not severities or any(severity not in SEVERITIES for severity in severities):
        raise InvalidArgumentError(f"kinds={kind_names}, severities={severities}: pass one or more, and some of 1 to 5")
    if seed < 0:
        raise InvalidArgumentError(f"seed={seed} must be 0 or more")
    return kind_names


def to_photos(inputs: Tensor, pixel_space: PixelSpace, precision: torch.dtype = torch.float64) -> Photo:
    """Pixels ``[N, C, H, W]`` of images as shares of their range, in [0, 1], on the CPU; may share the inputs' memory.

    Args:
        inputs: as the model takes them.
        pixel_space: maps them to pixels.
        precision: of the shares.

    Raises:
        InvalidArgumentError: no images, or pixels outside the bounds.
    """
    if inputs.dim() != 4 or not inputs.numel() or not inputs.is_floating_point():
        raise InvalidArgumentError(
            f"the images are {inputs.dtype} {list(inputs.shape)}; pass one or more, in floating point, [N, C, H, W]"
        )
    low, high = pixel_space.bounds
    images = inputs.detach().cpu().to(torch.promote_types(inputs.dtype, torch.float32))
    pixels = pixel_space.into(images, _PIXELS)
    least, most = check_pixels(pixels, pixel_space, OVERSHOOT)
    pixels = (pixels if low <= least and most <= high else pixels.clamp(low, high)).to(precision).contiguous()
    return (pixels if (low, high) == (0, 1) else (pixels - low) / (high - low)).numpy()


def from_photos(photos: Photo, like: Tensor, pixel_space: PixelSpace) -> Tensor:
    """Images as the model takes them, of a tensor's precision and device, from shares of the pixels' range.

    Args:
        photos: in [0, 1].
        like: the tensor.
        pixel_space: maps inputs to pixels.
    """
    low, high = pixel_space.bounds
    shares = torch.from_numpy(photos).to(torch.promote_types(like.dtype, torch.float32))
    return _PIXELS.into(low + (high - low) * shares if (low, high) != (0, 1) else shares, pixel_space).to(like)
