"""Targets in a model: classes of its output, regions, and units, channels and maxima of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import torch
from torch import Tensor

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.feature_maps import class_scores
from lightning_viz.hooks.layers import nearest_names
from lightning_viz.hooks.recording import Activations
from lightning_viz.hooks.target_algebra import Scores, Target

__all__ = ["channel", "classes", "logit", "maximum", "region", "top", "unit"]

Indices = Union[int, Sequence[int], Sequence[Sequence[int]], Tensor]
"""Numbers of classes or channels: one for all samples, one each ``[N]``, or several ``[T, N]`` or ``[T, 1]``."""


class ClassTarget(Target):
    """The score of a class: of the model's output, summed over its places or over those of a mask.

    Attributes:
        index: the class, one for each sample, or several; None for the strongest.
        count: so many of the strongest, as several targets.
        mask: the places that count, ``[H, W]`` or ``[N, H, W]``; all if None.
        word: what stands for the class until labels or class names are known, ``"label"`` or ``"class:ox"``.
    """

    def __init__(
        self,
        index: Indices | None = None,
        *,
        count: int | None = None,
        mask: Tensor | None = None,
        word: str | None = None,
    ) -> None:
        name = word or ("predicted class" if index is None else f"logit {_listed(index)}")
        name = f"top {count} classes" if count is not None else name
        super().__init__(name if mask is None else f"{name} in a region", outputs=True)
        self.index, self.count, self.mask, self.word = index, count, mask, word

    @property
    def open(self) -> bool:
        return self.index is None

    def scores(self, activations: Activations) -> Scores:
        if self.word is not None:
            raise InvalidArgumentError(
                f"target {self.word!r} needs the samples' labels or the classes' names, which are not known here: give "
                "numbers of classes, one for all or one per sample"
            )
        scores = class_scores(activations.outputs, self.mask)
        index = self.index
        if self.count is not None:
            if self.count > scores.shape[1]:
                raise InvalidArgumentError(f"top({self.count}): the model has {scores.shape[1]} outputs")
            index = scores.detach().topk(self.count, 1).indices.T
        elif index is None:
            index = scores.detach().argmax(1)
        if scores.shape[1] == 1:
            index = torch.zeros_like(torch.as_tensor(index))  # a regression, or a binary classifier's single logit
        values, chosen = _picked(scores, index, "target class", "outputs")
        return Scores(values, chosen, ClassTarget(chosen, mask=self.mask) if self.open else self)

    def select(self, samples: Tensor) -> Target:
        mask = self.mask
        if mask is not None and mask.dim() == 3:
            mask = mask[samples.to(mask.device)]
        index = None if self.index is None else _some(self.index, samples)
        return ClassTarget(index, count=self.count, mask=mask, word=self.word)

    def check_count(self, count: int) -> None:
        if self.mask is not None and self.mask.dim() == 3 and len(self.mask) != count:
            raise InvalidArgumentError(
                f"{len(self.mask)} masks for {count} samples: give one [H, W], or one per sample [N, H, W]"
            )
        if self.index is not None:
            _check_indices(torch.as_tensor(self.index).shape, count)

    def bind(self, labels: Tensor | None = None, class_names: Sequence[str] = ()) -> Target:
        kind, _, label = (self.word or "").partition(":")
        if kind == "class":
            return ClassTarget(_class_index(label, class_names), mask=self.mask)
        if kind == "label" and labels is not None and labels.dim() == 1:
            return ClassTarget(labels, mask=self.mask)
        if kind == "region" and labels is not None and labels.dim() == 3:
            if label:
                index = _class_index(label, class_names)
                return region(labels == index, index)
            largest = torch.stack([torch.bincount(mask[mask > 0].long(), minlength=1).argmax() for mask in labels])
            return region(labels == largest[:, None, None], largest)
        return self


class LayerTarget(Target):
    """A unit, a channel or the maximum of a layer's output.

    Attributes:
        layer: its name, or that of a call.
        index: of the unit or channel; None for the maximum of the whole layer.
        kind: ``"unit"``, ``"channel"`` or ``"maximum"``.
    """

    def __init__(self, layer: str, index: Indices | None, kind: str, *, samples: Tensor | None = None) -> None:
        number = "" if index is None else _listed(index)
        place = None if index is None else torch.as_tensor(index, device="cpu")
        if kind == "unit" and place is not None and place.shape == (3,):
            name = f"{layer} unit {int(place[0])} at ({int(place[1])}, {int(place[2])})"
        elif kind == "maximum":
            name = f"maximum of {layer}{f' channel {number}' if number else ''}"
        else:
            name = f"{layer} {kind} {number}"
        super().__init__(name, layers=(layer,))
        self.layer, self.index, self.kind = layer, index, kind
        self._samples = samples  # for which of the samples that `index` is for; all in order if None

    def scores(self, activations: Activations) -> Scores:
        output = activations[self.layer]
        of = f"in layer {self.layer!r}"
        if self.index is None:
            if self.kind != "maximum":
                raise InvalidArgumentError(f"no {self.kind} given {of}")
            return Scores(output.flatten(1).max(1).values if output.dim() > 1 else output, None, self)
        if self.kind == "unit":
            return Scores(self._units(output, activations.planes(self.layer), self.index, of), None, self)
        index = self.index if self._samples is None else _some(self.index, self._samples)
        places = activations.maps(self.layer).flatten(2)  # [N, K, P]
        scores = places.sum(2) if self.kind == "channel" else places.max(2).values
        return Scores(_picked(scores, index, "channel", f"channels {of}")[0], None, self)

    def _units(self, output: Tensor, maps: Tensor | None, index: Indices, of: str) -> Tensor:
        """Single values of a layer's output, ``[N]`` or ``[T, N]``."""
        if maps is None:
            index = index if self._samples is None else _some(index, self._samples)
            return _picked(output.flatten(1) if output.dim() > 1 else output[:, None], index, "unit", f"units {of}")[0]
        place, shape = _saved(torch.as_tensor(index, device=maps.device).long()), list(maps.shape[1:])
        if place.dim() == 0:  # a channel alone: in the middle of its map
            place = torch.stack([place, *place.new_tensor([shape[1] // 2, shape[2] // 2])])
        if self._samples is not None and place.dim() == 2:
            place = place[self._samples.to(place.device)]
        if place.shape[-1:] != (3,) or place.dim() > 2 or (place.dim() == 2 and len(place) != len(maps)):
            raise InvalidArgumentError(f"unit {self.index} {of}, whose output is {shape}: give (channel, row, column)")
        if bool((place < 0).any()) or bool((place >= torch.tensor(shape, device=place.device)).any()):
            raise InvalidArgumentError(f"unit {place.tolist()} is out of range: {of} the output is {shape}")
        k, y, x = place.expand(len(maps), 3).T
        return maps[torch.arange(len(maps), device=maps.device), k, y, x]

    def select(self, samples: Tensor) -> Target:
        # whether [3] is a place in a map, or a unit for each of three, its layer tells
        return LayerTarget(self.layer, self.index, self.kind, samples=samples)

    def check_count(self, count: int) -> None:
        if self.index is not None:
            shape = torch.as_tensor(self.index).shape
            _check_indices(shape[:-1] if self.kind == "unit" and shape[-1:] == (3,) else shape, count)  # (k, y, x)


def logit(index: Indices) -> Target:
    """A class's score, before the softmax; of a dense output summed over its places.

    Args:
        index: the class, one for each sample ``[N]``, or several ``[T, 1]`` or ``[T, N]``.
    """
    return ClassTarget(index)


def classes(*indices: int) -> Target:
    """Several classes side by side, each for all samples, over one shared forward.

    Args:
        indices: the classes, T of them; every result has a leading dimension T.

    Raises:
        InvalidArgumentError: there are none.
    """
    if not indices:
        raise InvalidArgumentError("classes(): give 1 class or more")
    return ClassTarget(torch.tensor(indices, dtype=torch.long)[:, None])


def top(count: int) -> Target:
    """Each sample's most probable classes side by side, over one shared forward.

    Args:
        count: how many, T; every result has a leading dimension T.

    Raises:
        InvalidArgumentError: `count` is not positive.
    """
    if count < 1:
        raise InvalidArgumentError(f"top({count}): give 1 class or more")
    return ClassTarget(count=count)


def region(mask: Tensor, index: Indices | Target | None = None) -> Target:
    """A class summed over a region of a dense output ``[N, classes, H, W]``, a segmentation's say.

    Args:
        mask: the places, ``[H, W]`` for all samples or ``[N, H, W]``: True or a weight where they count.
        index: the class, or several, ``classes(281, 207)`` or ``top(5)``; the strongest in the region if omitted.

    Raises:
        InvalidArgumentError: `index` is not a class.
    """
    target = index if isinstance(index, Target) else ClassTarget(index)
    if not isinstance(target, ClassTarget):
        raise InvalidArgumentError(f"region(mask, {target.name}): a region is of a class, as in region(mask, 3)")
    return ClassTarget(target.index, count=target.count, mask=mask, word=target.word)


def unit(layer: str, index: Indices) -> Target:
    """One scalar of a layer.

    Args:
        layer: name; of a layer that is called several times the call, ``"relu:1"``.
        index: of a vector's unit; of maps channel, row and column ``(k, y, x)``, for all samples or ``[N, 3]``, or the
            channel alone: in the middle of its map.
    """
    return LayerTarget(layer, index, "unit")


def channel(layer: str, index: Indices) -> Target:
    """A layer's channel, summed over its map.

    Args:
        layer: name; of a layer that is called several times the call, ``"relu:1"``.
        index: the channel, one for each sample ``[N]``, or several ``[T, 1]``.
    """
    return LayerTarget(layer, index, "channel")


def maximum(layer: str, index: Indices | None = None) -> Target:
    """The maximum of a channel's map, or of a layer.

    Args:
        layer: name; of a layer that is called several times the call, ``"relu:1"``.
        index: the channel, as for `channel`; the whole layer if omitted.
    """
    return LayerTarget(layer, index, "maximum")


def _saved(tensor: Tensor) -> Tensor:
    """Fit to be kept for a backward, also where it was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def _some(index: Indices, samples: Tensor) -> Indices:
    """The indices of some samples."""
    if isinstance(index, int):
        return index
    tensor = index if isinstance(index, Tensor) else torch.as_tensor(index, device="cpu")
    if tensor.dim() == 0 or (tensor.dim() == 2 and tensor.shape[1] == 1):
        return tensor
    return tensor[..., samples.to(tensor.device)]


def _picked(scores: Tensor, asked: Indices, what: str, of: str) -> tuple[Tensor, Tensor]:
    """From scores ``[N, K]`` those asked for, ``[N]`` or ``[T, N]``, and their indices."""
    index = _saved(torch.as_tensor(asked, device=scores.device).long())
    samples, count = scores.shape
    if index.dim() == 0 or (index.dim() == 2 and index.shape[1] == 1):
        index = index.expand(*index.shape[:-1], samples)
    if index.dim() > 2 or index.shape[-1] != samples:
        raise InvalidArgumentError(_miscounted(index.shape[-1], samples, what))
    if index.numel() and not (0 <= int(index.min()) and int(index.max()) < count):
        raise InvalidArgumentError(f"{what} {index.tolist()} is out of range: the model has {count} {of}")
    rows = index if index.dim() == 2 else index[None]
    values = scores.gather(1, rows.T).T
    return values if index.dim() == 2 else values[0], index


def _check_indices(shape: Sequence[int], count: int) -> None:
    if len(shape) and shape[-1] != count and not (len(shape) == 2 and shape[1] == 1):
        raise InvalidArgumentError(_miscounted(shape[-1], count, "target"))


def _miscounted(given: int, samples: int, what: str) -> str:
    return f"{given} targets for {samples} samples: give one {what}, one per sample [N], or several [T, N]"


def _listed(index: Indices) -> str:
    """Indices in words: ``3``, ``281, 207``, ``one per sample``."""
    tensor = torch.as_tensor(index, device="cpu")
    if tensor.dim() == 2 and tensor.shape[1] == 1:
        return ", ".join(map(str, tensor[:, 0].tolist()))
    return str(int(tensor)) if tensor.dim() == 0 else "of one per sample"


def _class_index(name: str, class_names: Sequence[str]) -> int:
    """A class's number, of its name."""
    if name in class_names:
        return list(class_names).index(name)
    if name.isdecimal():
        return int(name)
    nearest = nearest_names(name, class_names)
    known = f"did you mean {', '.join(map(repr, nearest))}?" if nearest else f"known are {_some_names(class_names)}"
    raise InvalidArgumentError(f"no class is called {name!r}: {known}")


def _some_names(names: Sequence[str]) -> str:
    return (", ".join(map(repr, names[:8])) or "none; give its number") + ", ..." * (len(names) > 8)
