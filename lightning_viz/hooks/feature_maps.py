"""A layer's output as maps, whatever the architecture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

__all__ = ["as_maps", "feature_count", "resize"]

_REGISTERS = 8  # at most so many class and register tokens stand before a vision transformer's patches


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


def as_maps(output: Tensor, *, features: int | None = None) -> Tensor | None:
    """Turn a layer's output into maps ``[N, K, H, W]``; None where it has no places (a vector per sample).

    Maps come as they are; channels that come last (Swin) are brought forward. Tokens ``[N, T, K]`` of a vision
    transformer go back to their square, without the class and register tokens in front.

    Args:
        output: ``[N, K, H, W]``, ``[N, H, W, K]`` or ``[N, T, K]``.
        features: K where it is known (`feature_count`): it tells which dimension holds the channels.
    """
    if output.dim() == 4:
        return output.permute(0, 3, 1, 2) if _channels_last(output, features) else output
    if output.dim() != 3 or features not in (None, output.shape[2]):
        return None
    side = math.isqrt(output.shape[1])
    extra = output.shape[1] - side * side
    if side < 2 or extra > _REGISTERS:
        return None
    return output[:, extra:].transpose(1, 2).reshape(len(output), -1, side, side)


def resize(maps: Tensor, size: Sequence[int], *, antialias: bool = False) -> Tensor:
    """Maps or images at another size, bilinear (``align_corners=False``).

    Args:
        maps: ``[..., C, h, w]``.
        size: height and width of the result.
        antialias: average over the pixels that fall together when the result is smaller.
    """
    flat = maps.reshape(-1, *maps.shape[-3:])
    resized = F.interpolate(flat, tuple(size), mode="bilinear", align_corners=False, antialias=antialias)
    return resized.view(*maps.shape[:-2], *resized.shape[-2:])


def _channels_last(output: Tensor, features: int | None) -> bool:
    """Whether maps ``[N, ., ., .]`` hold their channels last, as far as their shape and `features` tell.

    The last weights' features need not be the output's: an Inception block's are one branch's, which may be as many
    as the map has columns; Swin's patch merging names its normalization after the reduction that follows it. There a
    square tells.
    """
    first, second, third = output.shape[1:]
    if features is None or first == features:
        return False
    return second != third if third == features else first == second != third
