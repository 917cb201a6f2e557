"""Which part of a batch a tensor comes from, and what was done to it on the way."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from lightning_viz.callbacks.batch_parts import Source, tensors_of
from lightning_viz.hooks.pytree import Path

_CLOSE = 1e-4  # of the range: what a normalization in another order of operations may differ by


def source_of(
    part: Tensor, x: Tensor, path: Path, *, normalized: bool
) -> tuple[Source, Tensor, tuple[int, ...] | None] | None:
    """How a tensor comes from a part of the batch: the source, what it gives, and the shape it then takes; or None."""
    if part is x and not normalized:
        return Source(path), x, None
    if part.numel() != x.numel() or part.dim() == 0 or x.dim() == 0 or (normalized and not x.is_floating_point()):
        return None
    dtype = None if part.dtype == x.dtype else x.dtype
    values = part.to(x.dtype)
    for order in permutations(range(1, part.dim())) if part.dim() < 6 else ():
        if tuple(part.shape[axis] for axis in (0, *order)) == tuple(x.shape):
            found = Source(path, None if list(order) == sorted(order) else (0, *order))
            moved = values.permute(0, *order)
            if not normalized and torch.equal(moved, x):
                return replace(found, dtype=dtype), x, None
            if normalized and (scaled := _normalization(moved, x)) is not None:
                return replace(found, scale=scaled[0], offset=scaled[1]), x, None
    if not normalized and len(part) == len(x) and torch.equal(values.reshape(x.shape), x):
        return Source(path, dtype=dtype), values, tuple(x.shape[1:])
    return None


def channels_last(x: Tensor) -> bool:
    """Whether a model takes images ``[N, H, W, C]``: one, three or four channels, and more rows than that."""
    return x.dim() == 4 and x.is_floating_point() and x.shape[3] in (1, 3, 4) and min(x.shape[1:3]) > 4


def _normalization(values: Tensor, x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Scale and offset, of all or of each channel, that make one tensor of another; None if there are none."""
    for channels in (False, True) if x.dim() > 2 else (False,):
        before, after = ((y.transpose(0, 1).flatten(1) if channels else y.reshape(1, -1)).double() for y in (values, x))
        low, high = before.amin(1), before.amax(1)
        if bool((high <= low).any()):
            continue
        picks = before.argmin(1), before.argmax(1)
        ends = [after.gather(1, pick[:, None])[:, 0] for pick in picks]
        scale = (ends[1] - ends[0]) / (high - low)
        offset = ends[0] - scale * low
        error = (before * scale[:, None] + offset[:, None] - after).abs().amax(1)
        if bool((scale != 0).all()) and bool((error <= _CLOSE * (ends[1] - ends[0]).abs()).all()):
            return tuple(scale.tolist()), tuple(offset.tolist())
    return None


def list_of_images(given: Any, batch: Any) -> Path | None:
    """Where in the batch a list of images is that a call is given; None if it is none."""
    if not isinstance(given, (list, tuple)) or not given:
        return None
    if not all(isinstance(x, Tensor) and x.dim() == 3 and x.is_floating_point() for x in given):
        return None
    places = {id(x): path for path, x in tensors_of(batch)}
    paths = [places.get(id(x)) for x in given]
    first = paths[0]
    if first is None or [(*first[:-1], index) for index in range(len(given))] != paths:
        return None
    return first[:-1]


def same_memory(first: Tensor, second: Tensor) -> bool:
    """Whether one tensor is a view of the other."""
    try:
        return first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr() != 0
    except (RuntimeError, NotImplementedError):  # sparse, or without memory of its own
        return False
