"""Which channels of a layer to show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Union

import torch
from torch import Tensor

from lightning_viz.errors import InvalidArgumentError

__all__ = ["Channels", "choose_channels"]

Channels = Union[Literal["random", "first", "strongest"], Sequence[int]]


def choose_channels(maps: Tensor, channels: Channels, count: int, *, seed: int = 0) -> list[int]:
    """Which channels of a layer to show.

    Args:
        maps: of a first observation, ``[N, K, H, W]``.
        channels: ``"random"`` (seeded), ``"first"``, ``"strongest"`` (by mean absolute value), or numbers.
        count: how many at most.
        seed: of the random choice.

    Raises:
        ValueError: a channel that the layer does not have.
    """
    available = maps.shape[1]
    if channels == "first":
        return list(range(min(count, available)))
    if channels == "random":
        generator = torch.Generator().manual_seed(seed)
        return sorted(torch.randperm(available, generator=generator)[:count].tolist())
    if channels == "strongest":
        strength = maps.float().abs().mean((0, 2, 3)).nan_to_num()
        return strength.argsort(descending=True, stable=True)[:count].tolist()
    chosen = [int(channel) for channel in channels]
    wrong = [channel for channel in chosen if not 0 <= channel < available]
    if wrong:
        raise InvalidArgumentError(f"channels {wrong} do not exist: the layer has {available}, numbered from 0")
    return chosen[:count]
