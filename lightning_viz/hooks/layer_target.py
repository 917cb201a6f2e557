"""The target of a layer: a unit, a channel or the maximum of its output."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.recording import Activations
from lightning_viz.hooks.target_indices import (
    Indices,
    as_indices,
    check_indices,
    indices_of,
    kept,
    listed_indices,
    picked,
    saved,
)
from lightning_viz.hooks.target_types import Scores, Target
from lightning_viz.host_copies import to_device

_AXES = {2: "channel, place", 3: "channel, row, column", 4: "channel, slice, row, column"}


def _is_place(index: Indices) -> bool:
    """Whether a unit's index is that in maps, a tuple or three numbers, and not one for each sample."""
    return isinstance(index, tuple) or as_indices(index).shape[-1:] == (3,)


class LayerTarget(Target):
    """A unit, a channel or the maximum of a layer's output.

    Attributes:
        layer: its name, or that of a call.
        index: of the unit or channel; None for the maximum of the whole layer.
        kind: ``"unit"``, ``"channel"`` or ``"maximum"``.
    """

    def __init__(self, layer: str, index: Indices | None, kind: str, *, samples: Tensor | None = None) -> None:
        index = kept(index)
        number = "" if index is None else listed_indices(index)
        place = None if index is None else as_indices(index)
        if kind == "unit" and index is not None and place is not None and place.dim() == 1 and _is_place(index):
            name = f"{layer} unit {int(place[0])} at ({', '.join(str(int(axis)) for axis in place[1:])})"
        elif kind == "maximum":
            name = f"maximum of {layer}{f' channel {number}' if number else ''}"
        else:
            name = f"{layer} {kind} {number}"
        super().__init__(name, layers=(layer,))
        self.layer, self.index, self.kind = layer, index, kind
        self._samples = samples  # for which of the samples that `index` is for; all in order if None

    @property
    def several(self) -> bool:
        """Whether it is several units or channels of each sample, see `Target.several`."""
        place = self.kind == "unit" and self.index is not None and _is_place(self.index)
        return not place and self.index is not None and as_indices(self.index).dim() == 2

    def scores(self, activations: Activations) -> Scores:
        """The layer's values ``[N]`` or ``[T, N]``, see `Target.scores`."""
        output, of = activations[self.layer], f"in layer {self.layer!r}"
        if self.index is None:
            if self.kind != "maximum":
                raise InvalidArgumentError(f"no {self.kind} given {of}")
            return Scores(output.flatten(1).max(1).values if output.dim() > 1 else output, None, self)
        what = "unit" if self.kind == "unit" else "channel"
        if what == "channel":
            places = activations.maps(self.layer).flatten(2)  # [N, K, P]
            scores = places.sum(2) if self.kind == "channel" else places.max(2).values
        elif (maps := activations.planes(self.layer)) is not None:
            return Scores(self._units(maps, self.index), None, self)
        else:
            scores = output.flatten(1) if output.dim() > 1 else output[:, None]
        index = self.index if self._samples is None else indices_of(self.index, self._samples)
        return Scores(picked(scores, index, what, f"{what}s {of}")[0], None, self)

    def _units(self, maps: Tensor, index: Indices) -> Tensor:
        """Single values ``[N]`` of maps ``[N, K, *S]``."""
        place, shape = saved(as_indices(index).long()), list(maps.shape[1:])
        of = f"in layer {self.layer!r}"
        if place.dim() == 0:  # a channel alone: in the middle of its map
            place = torch.stack([place, *place.new_tensor([side // 2 for side in shape[1:]])])
        if self._samples is not None and place.dim() == 2:
            place = place[self._samples]
        if place.shape[-1:] != (len(shape),) or place.dim() > 2 or (place.dim() == 2 and len(place) != len(maps)):
            raise InvalidArgumentError(f"unit {index} {of}, whose output is {shape}: give ({_AXES[len(shape)]})")
        if ((place < 0) | (place >= place.new_tensor(shape))).any():
            raise InvalidArgumentError(f"unit {place.tolist()} is out of range: {of} the output is {shape}")
        places = to_device(place.expand(len(maps), len(shape)).T, maps.device)
        where = (torch.arange(len(maps), device=maps.device), *places)
        return maps[where]

    def select(self, samples: Tensor) -> Target:
        """The target of some samples, see `Target.select`."""
        # whether [3] is a place in a map, or a unit for each of three, its layer tells
        return LayerTarget(self.layer, self.index, self.kind, samples=samples)

    def check_count(self, count: int) -> None:
        """See `Target.check_count`."""
        if self.index is not None:
            shape = as_indices(self.index).shape
            check_indices(shape[:-1] if self.kind == "unit" and _is_place(self.index) else shape, count)
