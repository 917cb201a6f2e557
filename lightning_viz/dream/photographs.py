"""Photographs on their way through a dream: centred, kept within the pixels' bounds, shown as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_viz.dream.climb import visible
from lightning_viz.dream.images import as_bytes
from lightning_viz.pixels import PixelSpace

_SLACK = 0.02  # of the pixels' range: what rounding and resizing overshoot


def centred(inputs: Tensor, space: PixelSpace, what: str) -> Tensor:
    """The centred images ``[N, C, H, W]`` of what a model takes, on the CPU.

    Args:
        inputs: ``[N, C, H, W]``, or one image ``[C, H, W]``.
        space: how they map to pixels.
        what: they are, for the error.

    Raises:
        ValueError: they are no images, or their pixels lie outside the space's bounds.
    """
    if inputs.dim() not in (3, 4):
        raise ValueError(f"{what} is {list(inputs.shape)}: give [N, C, H, W], or one image [C, H, W]")
    images = inputs.detach().cpu().to(torch.promote_types(inputs.dtype, torch.float32)).reshape(-1, *inputs.shape[-3:])
    low, high = space.bounds
    pixels = space.into(images, PixelSpace())  # beyond the bounds, too
    slack = _SLACK * (high - low)
    if not low - slack <= pixels.amin() <= pixels.amax() <= high + slack:
        raise ValueError(
            f"{what} has pixels from {pixels.amin():.3g} to {pixels.amax():.3g}, they should lie in {space.bounds}: "
            "give space=PixelSpace(mean, std) with the mean and std that normalised it"
        )
    return clipped(space.into(images, space.centred()), space)


def clipped(images: Tensor, space: PixelSpace) -> Tensor:
    """Images with their pixels within the bounds.

    Args:
        images: centred, ``[N, C, H, W]``.
        space: how the model's inputs map to pixels.
    """
    own = space.centred()
    return own.to_inputs(own.to_pixels(images))


def frame(images: Tensor, space: PixelSpace) -> Tensor:
    """Pixels in 0 to 255 ``[N, C, H, W]``, on the CPU.

    Args:
        images: centred.
        space: how the model's inputs map to pixels.
    """
    return as_bytes(visible(images, space, bounded=True))
