"""A layer's output as maps, whatever the architecture."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

__all__ = ["feature_count", "resize"]

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def feature_count(module: nn.Module) -> int | None:
    """How many features a layer puts out, from its last weights; None where it has none (an activation, a pooling)."""
    count = None
    for part in module.modules():
        if isinstance(part, _ConvNd):
            count = part.out_channels
        elif isinstance(part, nn.Linear):
            count = part.out_features
        elif isinstance(part, nn.LayerNorm):
            count = part.normalized_shape[-1]
        elif isinstance(part, _NormBase):
            count = part.num_features
    return count


def resize(maps: Tensor, size: Sequence[int], *, antialias: bool = False) -> Tensor:
    """Maps, images, series or volumes at another size: linear, bilinear or trilinear (``align_corners=False``).

    Args:
        maps: ``[..., C, *s]``.
        size: of the result, in one, two or three dimensions.
        antialias: in two dimensions, average over the pixels that fall together when the result is smaller.
    """
    dimensions = len(size)
    flat = maps.reshape(-1, *maps.shape[-dimensions - 1 :])
    mode, smooth = _MODES[dimensions], antialias and dimensions == 2
    resized = F.interpolate(flat, tuple(size), mode=mode, align_corners=False, antialias=smooth)
    return resized.view(*maps.shape[:-dimensions], *resized.shape[-dimensions:])
