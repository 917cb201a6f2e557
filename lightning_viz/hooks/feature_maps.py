"""A layer's output as maps, whatever the architecture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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


def placed(maps: Tensor, size: Sequence[int], extents: Tensor | None, sizes: Tensor | None) -> Tensor:
    """Maps at another size, bilinear, where images take up a part of them, or of the result, from the top left.

    Args:
        maps: ``[..., N, K, h, w]``.
        size: height and width of the result.
        extents: share of the maps that each image takes up, in height and width ``[N, 2]``; all of them if None.
        sizes: height and width of each image in the result ``[N, 2]``, which is 0 outside; all of it if None.
    """
    height, width = size
    count, channels = maps.shape[-4], maps.shape[-3]
    flat = maps.reshape(-1, *maps.shape[-3:])
    sides = []
    for axis, length in enumerate((height, width)):
        place = torch.arange(length, device=maps.device, dtype=maps.dtype) + 0.5
        whole = place.new_full((count,), length) if sizes is None else sizes[:, axis].to(place)
        share = torch.ones_like(whole) if extents is None else extents[:, axis].to(place)
        sides.append((place / whole[:, None], share))  # [N, length]
    (rows, tall), (columns, wide) = sides
    y, x = (rows * tall[:, None])[:, :, None], (columns * wide[:, None])[:, None]
    grid = torch.stack([x.expand(-1, height, -1), y.expand(-1, -1, width)], -1) * 2 - 1  # [N, H, W, 2]
    inside = ((rows < 1)[:, :, None] & (columns < 1)[:, None])[:, None]  # [N, 1, H, W]
    copies = len(flat) // count
    result = F.grid_sample(flat, grid.repeat(copies, 1, 1, 1), padding_mode="border", align_corners=False)
    return (result * inside.repeat(copies, 1, 1, 1)).view(*maps.shape[:-3], channels, height, width)
