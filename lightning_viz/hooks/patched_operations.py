"""How operations on copies of a map that differ in a window each are done in the windows alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_viz.hooks.patched_copies import Patched, SharedMaps, places_back, places_first, rows_in
from lightning_viz.hooks.pytree import map_leaves
from lightning_viz.hooks.reach import PatchWindows, Sliding, union

_Result = Union[Patched, list[Patched], None]
"""Of an operation: the copies, or those of several maps, or None where it cannot be done in the windows."""

_ENOUGH = 0.8  # of a map: windows that cover more cost as much as the whole

aten = torch.ops.aten


def follow(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Result:
    """Do an operation in the windows.

    Args:
        func: as torch dispatches it, not in place, or `torch.nn.functional.linear`.
        args: with `Patched` copies of one map among them.
        kwargs: likewise.

    Returns:
        The first of its results, or the list that it returns; None where it cannot be done in the windows.
    """
    rule = _RULES.get(getattr(func, "overloadpacket", func))
    if rule is None and torch.Tag.pointwise in getattr(func, "tags", ()) and "out" not in kwargs:
        rule = _pointwise
    return None if rule is None else rule(func, args, kwargs)


def _pointwise(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Result:
    """Operations place by place, of maps and of what broadcasts to them."""
    maps = [part for part in leaves((args, kwargs)) if isinstance(part, Patched)]
    first = maps[0]
    dims, sides, axes = first.shared.dim(), first.sides, first.axes
    if any(part.axes != axes or part.sides != sides or part.shared.dim() != dims for part in maps):
        return None
    windows = union([part.windows for part in maps], sides)
    operands: dict[int, Tensor] = {}
    for tensor in (part for part in leaves((args, kwargs)) if isinstance(part, Tensor)):
        operand = _window_of_operand(tensor, first, windows)
        if operand is None:
            return None
        operands[id(tensor)] = operand
    shared_args, shared_kwargs = map_leaves((list(args), kwargs), Patched, lambda part: part.shared)
    shared = first.kept.call(func, *shared_args, **shared_kwargs)
    if not isinstance(shared, Tensor) or shared.dim() != dims or tuple(shared.shape[axis] for axis in axes) != sides:
        return None
    own_args, own_kwargs = map_leaves(
        (list(args), kwargs),
        (Patched, Tensor),
        lambda part: part.cut(windows) if isinstance(part, Patched) else operands[id(part)],
    )
    return Patched(shared, axes, windows, func(*own_args, **own_kwargs), first.kept)


def _window_of_operand(operand: Tensor, maps: Patched, windows: PatchWindows) -> Tensor | None:
    """What of a tensor goes with the windows of maps; None where it is not the same for all copies."""
    dims = maps.shared.dim()
    if operand.dim() > dims:
        return None
    aligned = operand[(None,) * (dims - operand.dim())]
    if aligned.shape[0] != 1:
        return None
    if all(aligned.shape[axis] == 1 for axis in maps.axes):
        return operand
    shape = [maps.shared.shape[axis] if axis in maps.axes else aligned.shape[axis] for axis in range(dims)]
    whole = aligned.expand(shape)
    rows = places_first(whole, maps.axes)
    cut = rows_in(windows, rows.reshape(math.prod(maps.sides), -1), maps.sides)
    return places_back(cut.view(*cut.shape[:-1], *rows.shape[1 + len(maps.axes) :]), maps.axes)


def _of_one(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Result:
    """Operations place by place on one map, whose other arguments have no places."""
    maps, *others = args
    if not isinstance(maps, Patched) or any(isinstance(part, Patched) for part in leaves((others, kwargs))):
        return None
    shared = maps.kept.call(func, maps.shared, *others, **kwargs)
    values = func(maps.values, *others, **kwargs)
    if isinstance(shared, tuple):
        shared, values = shared[0], values[0]
    return replace(maps, shared=shared, values=values)


def _batch_norm(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Result:
    """With running statistics."""
    if kwargs or not isinstance(args[0], Patched) or args[0].axes != tuple(range(2, args[0].shared.dim())):
        return None
    return None if len(args) != 8 or args[5] else _of_one(func, args, kwargs)


def _layer_norm(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Result:
    """Over channels alone, which come last."""
    maps, shape = args[0], args[1]
    alone = isinstance(maps, Patched) and max(maps.axes) < maps.shared.dim() - len(shape)
    return _of_one(func, args, kwargs) if alone else None


def _linear(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Result:
    """From channels that come last, place by place."""
    maps = args[0]
    if not isinstance(maps, Patched) or max(maps.axes) == maps.shared.dim() - 1:
        return None
    result = _of_one(func, args, kwargs)
    if isinstance(result, Patched):
        _count(maps.kept, result, maps.shared.shape[-1])
    return result


def _convolution(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Result:
    maps, weight, bias, stride, padding, dilation, transposed, _, groups = args
    if transposed or kwargs or not isinstance(maps, Patched) or isinstance(weight, Patched):
        return None
    sliding = _sliding(maps, weight.shape[2:], stride, padding, dilation)
    if sliding is None:
        return None
    return _slid(
        maps,
        sliding,
        lambda: maps.kept.call(func, maps.shared, *args[1:]),
        lambda values: func(values, weight, bias, stride, [0] * len(stride), dilation, False, args[7], groups),
        multiplications=weight[0].numel(),
    )


def _max_pool(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Result:
    maps, kernel, stride, padding, dilation, ceil = _filled(args, (None, None, [], [0], [1], False))
    sliding = None if kwargs else _sliding(maps, kernel, stride or kernel, padding, dilation)
    if sliding is None:
        return None
    return _slid(
        maps,
        sliding,
        lambda: maps.kept.call(func, maps.shared, kernel, stride, padding, dilation, ceil)[0],
        lambda values: func(values, kernel, stride, [0], dilation)[0],
        border=-math.inf,
    )


def _average_pool(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Result:
    """Where each mean is over as many values."""
    filled = _filled(args, (None, None, [], [0], False, True, None))
    maps, kernel, stride, padding, ceil, counts_padding, divisor = filled
    uneven = ceil or (any(padding) and not counts_padding and divisor is None)
    sliding = None if kwargs or uneven else _sliding(maps, kernel, stride or kernel, padding, [1])
    if sliding is None:
        return None
    return _slid(
        maps,
        sliding,
        lambda: maps.kept.call(func, maps.shared, *args[1:]),
        lambda values: func(values, kernel, stride, [0], False, True, divisor),
    )


def _slid(
    maps: Patched,
    sliding: Sliding,
    on_shared: Callable[[], Tensor],
    on_values: Callable[[Tensor], Tensor],
    *,
    border: float = 0.0,
    multiplications: int = 0,
) -> Patched | None:
    """A convolution or pooling in the windows.

    Args:
        maps: that it reads.
        sliding: of its kernel.
        on_shared: the whole operation on the shared map.
        on_values: the operation on windows, without padding.
        border: what it pads with.
        multiplications: for each value that it puts out.
    """
    shared = on_shared()
    sides = tuple(shared.shape[2:])
    windows = sliding.reached(maps.windows, sides)
    if math.prod(windows.size) > _ENOUGH * math.prod(sides):
        return None
    read = sliding.read(windows)
    plain = not any(sliding.padding) and read.matches(maps.windows)
    after = sliding.missing(sides, maps.sides)
    values = on_values(maps.values if plain else maps.cut_padded(read, sliding.padding, after, border))
    result = Patched(shared, maps.axes, windows, values, maps.kept)
    _count(maps.kept, result, multiplications)
    return result


def _sliding(
    maps: Any, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Sliding | None:
    """How a kernel slides over maps ``[n, C, *S]``, with one number for all axes or one for each."""
    if not isinstance(maps, Patched) or maps.axes != tuple(range(2, maps.shared.dim())):
        return None
    numbers = (tuple(part) * (len(maps.axes) // len(part)) for part in (kernel, stride, padding, dilation))
    return Sliding(*numbers)


def _concatenation(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Result:
    """Along another axis than those of places."""
    parts, axis = _filled(args, (None, 0))
    if kwargs or not all(isinstance(part, Patched) for part in parts):
        return None
    first, axis = parts[0], axis % parts[0].shared.dim()
    if axis == 0 or any(axis in part.axes or part.axes != first.axes or part.sides != first.sides for part in parts):
        return None
    windows = union([part.windows for part in parts], first.sides)
    shared = first.kept.call(func, [part.shared for part in parts], axis)
    return Patched(shared, first.axes, windows, func([part.cut(windows) for part in parts], axis), first.kept)


def _permutation(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Result:
    maps: Patched = args[0]
    order = [axis % maps.shared.dim() for axis in args[1]]
    if order[0] != 0:
        return None
    axes = tuple(order.index(axis) for axis in maps.axes)
    return replace(maps, shared=maps.kept.call(func, maps.shared, order), values=func(maps.values, order), axes=axes)


def _part(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Result:
    """Parts of the channels."""
    maps: Patched = args[0]
    axis = _filled(args, (None, 0))[1] if func is aten.slice.Tensor else _filled(args, (None, None, 0))[2]
    axis = kwargs.get("dim", axis) % maps.shared.dim()
    if axis == 0 or axis in maps.axes:
        return None
    shared, values = maps.kept.call(func, maps.shared, *args[1:], **kwargs), func(maps.values, *args[1:], **kwargs)
    if isinstance(shared, Tensor):
        return replace(maps, shared=shared, values=values)
    return [replace(maps, shared=of, values=part) for of, part in zip(shared, values, strict=True)]


def _count(kept: SharedMaps, result: Patched, multiplications: int) -> None:
    """Note what an operation spared."""
    kept.spared.multiplications += result.shared[0].numel() * multiplications * result.outside


def _filled(args: Sequence[Any], defaults: Sequence[Any]) -> list[Any]:
    """Arguments with the defaults of those that were left out."""
    return [*args, *defaults[len(args) :]]


def leaves(structure: Any) -> list[Any]:
    """What arguments hold, in lists and mappings or not."""
    if isinstance(structure, dict):
        structure = list(structure.values())
    if isinstance(structure, (list, tuple)):
        return [leaf for part in structure for leaf in leaves(part)]
    return [structure]


_RULES: dict[Any, Callable[[Any, Sequence[Any], dict[str, Any]], _Result]] = {
    F.linear: _linear,
    aten.convolution: _convolution,
    aten.max_pool2d_with_indices: _max_pool,
    aten.max_pool3d_with_indices: _max_pool,
    aten.avg_pool2d: _average_pool,
    aten.avg_pool3d: _average_pool,
    aten.native_batch_norm: _batch_norm,
    aten.cudnn_batch_norm: _batch_norm,
    aten.miopen_batch_norm: _batch_norm,
    aten.native_layer_norm: _layer_norm,
    aten.cat: _concatenation,
    aten.permute: _permutation,
    aten.split: _part,
    aten.split_with_sizes: _part,
    aten.slice: _part,
    **dict.fromkeys(
        (aten.detach, aten.alias, aten._to_copy, aten.hardswish, aten.hardsigmoid, aten.rsub, aten.celu, aten.selu),
        _pointwise,
    ),
}
