"""Copies of one map that differ in a window each, kept as that map and the windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.hooks.reach import PatchWindows
from lightning_viz.hooks.work import Work
from lightning_viz.host_copies import to_device

_MOST = 2**28  # values of shared maps that are kept: a gigabyte in single precision


class NotFollowedError(Exception):
    """What a model does with its maps cannot be followed in windows."""


class SharedMaps:
    """What passes compute from the maps that all copies share, kept for the next pass, call by call.

    Attributes:
        spared: what the present pass did not do, for each copy, less what it did besides.
        followed: operations that the present pass did in windows.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[Any, Any, Any]] = []  # what tells them apart, their arguments and results
        self._next, self._values = 0, 0
        self.spared = Work()
        self.followed = 0

    def start_pass(self) -> None:
        """The next call is the first of a pass."""
        self._next, self.followed = 0, 0
        self.spared = Work()

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What a pure function returns; what it returned before, if the pass before made the same call here.

        Raises:
            NotFollowedError: the maps are too many to be kept.
        """
        identity = function, _identity(args), _identity(kwargs)
        index, self._next = self._next, self._next + 1
        if index < len(self._calls) and self._calls[index][0] == identity:
            return self._calls[index][2]
        result = function(*args, **kwargs)
        replaced = sum(_values(call[2]) for call in self._calls[index : index + 1])
        self._values += _values(result) - replaced
        if self._values > _MOST:
            raise NotFollowedError(f"the model's maps are {self._values:,} values, at most {_MOST:,} are kept")
        # the arguments are kept, too, because while they live no other tensor has their id
        self._calls[index : index + 1] = [(identity, (args, kwargs), result)]
        return result


def _values(result: Any) -> int:
    return sum(tensor.numel() for tensor in all_tensors(result))


def _identity(part: Any) -> Any:
    """Of a tensor which one it is, and how often it was changed; of other arguments their values."""
    if isinstance(part, Tensor):
        return Tensor, id(part), None if part.is_inference() else part._version
    if isinstance(part, (list, tuple)):
        return tuple(map(_identity, part))
    if isinstance(part, dict):
        return tuple((name, _identity(value)) for name, value in part.items())
    return type(part), part


@dataclass(frozen=True)
class Patched:
    """Copies of a map that differ in a window each.

    Attributes:
        shared: the map where no copy differs, ``[1, ...]``.
        axes: of its places: (2, 3) of an image, channels first.
        windows: where the copies may differ from it.
        values: of the copies there, ``[n, ...]``.
        kept: what was computed from the shared maps.
    """

    shared: Tensor
    axes: tuple[int, ...]
    windows: PatchWindows
    values: Tensor
    kept: SharedMaps

    @property
    def sides(self) -> tuple[int, ...]:
        """Height and width of the map."""
        return tuple(self.shared.shape[axis] for axis in self.axes)

    @property
    def outside(self) -> float:
        """The share of the map that is outside the windows."""
        return 1 - math.prod(self.windows.size) / math.prod(self.sides)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the copies."""
        return (len(self.values), *self.shared.shape[1:])

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the copies in memory, in the order of the shared map's."""
        return (self.shared.numel(), *torch.empty_like(self.shared, device="meta").stride()[1:])

    def cut(self, windows: PatchWindows) -> Tensor:
        """The copies in other windows, ``[n, ...]``."""
        return self.values if self.windows.matches(windows) else self.cut_padded(windows, [0] * len(self.axes))

    def cut_padded(
        self, windows: PatchWindows, before: Sequence[int], after: Sequence[int] | None = None, value: float = 0.0
    ) -> Tensor:
        """Windows of the padded copies, ``[n, ...]``.

        Args:
            windows: of the padded copies.
            before: rows added above and columns on the left.
            after: likewise below and on the right; as many as before if None.
            value: with which they are filled.
        """
        before, after = tuple(before), tuple(before if after is None else after)
        rows, sides = self.kept.call(_padded_rows, self.shared, self.axes, before, after, value)
        first = places_first(self.values, self.axes)
        cut = rows_in(windows, rows, sides).view(len(first), *windows.size, *first.shape[1 + len(self.axes) :])
        _paste(cut, first, self.windows.moved(before), windows)
        self.kept.spared.moved -= (cut.numel() + first.numel()) / len(first)
        return places_back(cut, self.axes)

    def copies(self) -> Tensor:
        """The copies as an ordinary tensor, ``[n, ...]``."""
        whole = torch.empty_strided(self.shape, self.strides, dtype=self.shared.dtype, device=self.shared.device)
        whole.copy_(self.shared.expand(self.shape))
        self.kept.spared.moved -= self.shared.numel()
        everywhere = PatchWindows(torch.zeros_like(self.windows.starts), self.sides)
        _paste(places_first(whole, self.axes), places_first(self.values, self.axes), self.windows, everywhere)
        return whole


def covered_copies(image: Tensor, cover: Tensor, windows: PatchWindows, kept: SharedMaps) -> Patched:
    """Copies of an image, with a window of each replaced.

    Args:
        image: ``[1, C, *S]``.
        cover: what the windows show, of the same shape.
        windows: that lie on the image, or beyond its lower and right border.
        kept: by the passes before.
    """
    axes, sides = tuple(range(2, image.dim())), tuple(image.shape[2:])
    first, end = windows.extents
    inside = PatchWindows.around(torch.stack([first, torch.minimum(end, torch.tensor(sides, device="cpu"))]), sides)
    shown = []
    for part in (cover, image):
        rows, _ = kept.call(_padded_rows, part, axes, (0,) * len(axes), (0,) * len(axes), 0.0)
        shown.append(rows_in(inside, rows, sides))
    values, uncovered = shown
    for axis in range(len(axes)):
        along = inside.starts[:, axis, None] + torch.arange(inside.size[axis], device="cpu")
        before = along < first[:, axis, None]  # moved back onto the image, the window begins too early
        if before.any():
            places = before.view(len(before), *(-1 if axis == other else 1 for other in range(len(axes))), 1)
            values = torch.where(to_device(places, values.device), uncovered, values)
    return Patched(image, axes, inside, places_back(values, axes), kept)


def places_first(values: Tensor, axes: Sequence[int]) -> Tensor:
    """A view with the places behind the copies, ``[n, *S, ...]``; from ``[n, C, *S]`` what is called channels last."""
    return values.permute(0, *axes, *(axis for axis in range(1, values.dim()) if axis not in axes))


def places_back(values: Tensor, axes: Sequence[int]) -> Tensor:
    """The inverse of `places_first`.

    Args:
        values: with the places behind the copies.
        axes: where they are to stand.
    """
    order = [0, *axes, *(axis for axis in range(1, values.dim()) if axis not in axes)]
    return values.permute([order.index(axis) for axis in range(values.dim())])


def rows_in(windows: PatchWindows, rows: Tensor, sides: Sequence[int]) -> Tensor:
    """What stands in windows of a map, ``[n, *size, values]``.

    Args:
        windows: on the map.
        rows: a row of values for each of its places.
        sides: its height and width.
    """
    places = to_device(windows.places(sides).flatten(), rows.device)
    return rows.index_select(0, places).view(len(windows.starts), *windows.size, rows.shape[1])


def _padded_rows(
    shared: Tensor, axes: Sequence[int], before: Sequence[int], after: Sequence[int], value: float
) -> tuple[Tensor, tuple[int, ...]]:
    """A padded map as a row of values for each place, and its sides."""
    first = places_first(shared, axes)
    if any((*before, *after)):
        widths = [width for axis in reversed(range(len(axes))) for width in (before[axis], after[axis])]
        first = F.pad(first, [*[0, 0] * (first.dim() - 1 - len(axes)), *widths], value=value)
    sides = tuple(first.shape[1 : 1 + len(axes)])
    return first.reshape(math.prod(sides), -1), sides


def _paste(onto: Tensor, values: Tensor, at: PatchWindows, windows: PatchWindows) -> None:
    """Write the values of windows ``[n, *size, ...]`` onto other windows of the same copies, where they overlap."""
    offsets = at.starts - windows.starts
    if bool((offsets == offsets[0]).all()):
        to, of = [slice(None)], [slice(None)]
        for offset, size, limit in zip(offsets[0].tolist(), at.size, windows.size, strict=True):
            to.append(slice(max(0, offset), max(0, min(limit, offset + size))))
            of.append(slice(max(0, -offset), max(0, min(size, limit - offset))))
        onto[tuple(to)] = values[tuple(of)]
        return
    index = [torch.arange(len(offsets), device="cpu").view(-1, *[1] * len(at.size))]
    inside = torch.ones((), dtype=torch.bool, device="cpu")
    for axis, (size, limit) in enumerate(zip(at.size, windows.size, strict=True)):
        along = offsets[:, axis, None] + torch.arange(size, device="cpu")
        index.append(along.view(len(along), *(-1 if axis == other else 1 for other in range(len(at.size)))))
        inside = inside & (index[-1] >= 0) & (index[-1] < limit)
    if not bool(inside.all()):
        inside = inside.expand(values.shape[: 1 + len(at.size)])
        index = [part.expand(inside.shape)[inside] for part in index]
        values = values[inside.to(values.device)]
    onto[tuple(to_device(part, onto.device) for part in index)] = values
