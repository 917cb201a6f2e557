"""Samples that augmentation has moved a little out of the range of pixels, for attacks, which keep within it."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_viz.callbacks.messages import ViewError
from lightning_viz.pixels import PixelSpace


def bounded(inputs: Tensor, space: PixelSpace, slack: float) -> Tensor:
    """Inputs whose pixels are clamped into the bounds, at least in single precision.

    Args:
        inputs: as the model takes them, ``[N, ...]``.
        space: how they map to pixels.
        slack: share of the pixels' range by which they may lie outside.

    Raises:
        ViewError: they lie further outside.
    """
    inputs = inputs.detach().to(torch.promote_types(inputs.dtype, torch.float32))
    (low, high), pixels = space.bounds, space.into(inputs, PixelSpace())
    least, most = (end.item() for end in pixels.aminmax())
    if max(low - least, most - high) > slack * (high - low):
        raise ViewError(
            f"the samples have pixels from {least:.3g} to {most:.3g}, they should lie in {space.bounds}: give "
            "pixels=PixelSpace(mean, std) with the mean and std that normalised them"
        )
    return space.to_inputs(pixels.clamp(low, high))
