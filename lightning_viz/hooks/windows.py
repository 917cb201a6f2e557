"""Where on the map the tokens of attention windows lie: the shifted windows of Swin (Liu et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_viz.hooks.pytree import first_tensor
from lightning_viz.host_copies import to_device

_TIMM = ("timm.models.swin_transformer", "timm.models.swin_transformer_v2")
_TORCHVISION = "torchvision.models.swin_transformer"


@dataclass(frozen=True)
class Windows:
    """The windows of a call.

    Attributes:
        grid: of the map that they cut, ``(H, W)``.
        places: numbers of the tokens' places on it ``[windows, S]``; -1 in its padding.
    """

    grid: tuple[int, int]
    places: Tensor

    def spread(self, rows: Tensor) -> Tensor:
        """Values of the keys ``[N * windows, heads, S]`` on the map, ``[N, heads, H * W]``."""
        windows, keys = self.places.shape
        by_image = rows.view(-1, windows, rows.shape[1], keys).transpose(1, 2).flatten(2)  # [N, heads, windows * S]
        places = to_device(self.places.flatten(), rows.device)
        whole = rows.new_zeros(*by_image.shape[:2], self.grid[0] * self.grid[1])
        whole[..., places[places >= 0]] = by_image[..., places >= 0]
        return whole


def windows_of(running: Sequence[tuple[nn.Module, Any]], batch: int, keys: int, count: int) -> Windows | None:
    """The windows in which the innermost module attends; None if it is not known how they were cut.

    Args:
        running: modules that run, the innermost last, with their inputs.
        batch: windows of all samples.
        keys: tokens of a window.
        count: number of samples.
    """
    for module, inputs in reversed(running[-2:]):
        x, home = first_tensor(inputs), type(module).__module__
        known = home in (*_TIMM, _TORCHVISION) and hasattr(module, "window_size") and hasattr(module, "shift_size")
        if x is None or x.dim() != 4 or not known:
            continue
        sides: list[int] = [int(side) for side in module.window_size]
        shift: list[int] = [int(step) for step in module.shift_size]
        grid = x.shape[1], x.shape[2]
        windows = Windows(grid, _cut(grid, sides, shift, shifts_first=home in _TIMM))
        return windows if windows.places.shape == (batch // max(1, count), keys) and len(x) == count else None
    return None


def _cut(grid: tuple[int, int], sides: list[int], shift: list[int], *, shifts_first: bool) -> Tensor:
    """Numbers of places as the model cuts its map: padded below and right, shifted, and cut into windows.

    Args:
        grid: height and width.
        sides: of a window.
        shift: of the map, up and left.
        shifts_first: before it is padded, as timm does; else after, and not along a side of one window.
    """
    places = torch.arange(grid[0] * grid[1], device="cpu").view(grid)
    below, right = (-side % window for side, window in zip(grid, sides, strict=True))
    if shifts_first:
        places = places.roll((-shift[0], -shift[1]), (0, 1))
    places = F.pad(places, (0, right, 0, below), value=-1)
    if not shifts_first:
        shift = [0 if window >= side else step for step, window, side in zip(shift, sides, places.shape, strict=True)]
        places = places.roll((-shift[0], -shift[1]), (0, 1))
    rows, columns = places.shape[0] // sides[0], places.shape[1] // sides[1]
    return places.view(rows, sides[0], columns, sides[1]).transpose(1, 2).reshape(rows * columns, -1)
