"""The target: the scalar, one per sample, that is explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Union

import torch
from torch import Tensor

from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.hooks.feature_maps import as_maps
from lightning_viz.hooks.observation import is_call
from lightning_viz.hooks.pytree import first_tensor

__all__ = ["Target", "channel", "classes", "maximum", "region", "top", "unit"]

Indices = Union[int, Sequence[int], Tensor]
"""Numbers of classes or channels: one for all samples, one each ``[N]``, or several ``[T, N]`` or ``[T, 1]``."""

Target = Union[Indices, Callable[[Any], Tensor], "Top", "Region", "Inner", None]
"""What to explain. None is each sample's predicted class; otherwise:

- a class index for all samples, or one for each ``[N]`` (their labels, say);
- several of them, ``classes(281, 207)``, the most probable ones, ``top(5)``, or any index tensor ``[T, N]``: all from
  one shared forward, and every result has a leading dimension T;
- a class summed over a region of a dense output, ``region(mask, 15)``;
- something inside the model: ``unit(layer, index)``, ``channel(layer, index)``, ``maximum(layer, index)``;
- a function from the model's output to ``[N]``. It may be called on some of the samples, or on copies of them, so it
  must treat every sample alike.

Classes are explained by their scores as the model returns them, logits as a rule.
"""


@dataclass(frozen=True)
class Top:
    """The most probable classes of each sample."""

    count: int


@dataclass(frozen=True)
class Region:
    """A class summed over some places of a dense output; the class that is strongest there if none is given."""

    mask: Tensor
    index: Indices | Top | None = None


@dataclass(frozen=True)
class Inner:
    """A unit, channel or maximum of a layer's output."""

    layer: str
    index: Indices | None
    kind: str
    samples: Tensor | None = None  # for which of the samples that `index` is for; all in order if None


class Scores(NamedTuple):
    """What a target comes to.

    Attributes:
        values: the scalars, ``[N]``, or ``[T, N]`` for several targets.
        classes: the class indices that they belong to, of the same shape; None where they are no classes.
    """

    values: Tensor
    classes: Tensor | None


def classes(*indices: int) -> Tensor:
    """Several classes side by side, each for all samples, over one shared forward.

    Args:
        indices: the classes, T of them; every result has a leading dimension T.

    Raises:
        ValueError: there are none.
    """
    if not indices:
        raise InvalidArgumentError("classes(): give 1 class or more")
    return torch.tensor(indices, dtype=torch.long)[:, None]


def top(count: int) -> Top:
    """Each sample's most probable classes side by side, over one shared forward.

    Args:
        count: how many, T; every result has a leading dimension T.

    Raises:
        ValueError: `count` is not positive.
    """
    if count < 1:
        raise InvalidArgumentError(f"top({count}): give 1 class or more")
    return Top(count)


def region(mask: Tensor, index: Indices | Top | None = None) -> Region:
    """A class summed over a region of a dense output ``[N, classes, H, W]``, a segmentation's say.

    Args:
        mask: the places, ``[H, W]`` for all samples or ``[N, H, W]``: True or a weight where they count.
        index: the class, or several, ``classes(281, 207)`` or ``top(5)``; the strongest in the region if omitted.
    """
    return Region(mask, index)


def unit(layer: str, index: Indices) -> Inner:
    """One scalar of a layer.

    Args:
        layer: name; of a layer that is called several times the call, ``"relu:1"``.
        index: of a vector's unit; of maps channel, row and column ``(k, y, x)``, for all samples or ``[N, 3]``.
    """
    return Inner(layer, index, "unit")


def channel(layer: str, index: Indices) -> Inner:
    """A layer's channel, summed over its map.

    Args:
        layer: name; of a layer that is called several times the call, ``"relu:1"``.
        index: the channel, one for each sample ``[N]``, or several ``[T, 1]``.
    """
    return Inner(layer, index, "channel")


def maximum(layer: str, index: Indices | None = None) -> Inner:
    """The maximum of a channel's map, or of a layer.

    Args:
        layer: name; of a layer that is called several times the call, ``"relu:1"``.
        index: the channel, as for `channel`; the whole layer if omitted.
    """
    return Inner(layer, index, "maximum")


def layer_of(target: Target) -> str | None:
    """The layer that a target lies in; None for the model's output."""
    return target.layer if isinstance(target, Inner) else None


def target_scores(
    outputs: Any, target: Target, inner: Mapping[str, Tensor] | None = None, *, features: int | None = None
) -> Scores:
    """The scalars to explain, and the classes that they belong to.

    Args:
        outputs: what the model returned.
        target: see `Target`.
        inner: outputs of layers, by call; the layer of an inner target must be among them.
        features: how many channels that layer has, where it is known.

    Raises:
        ValueError: an index that does not exist, or not one per sample.
        TypeError: the output holds no floating-point tensor with a sample dimension.
    """
    if isinstance(target, Inner):
        return Scores(_inside(_call(inner or {}, target.layer), target, features), None)
    if callable(target):
        scalars = target(outputs)
        if scalars.dim() == 0:
            raise InvalidArgumentError("the target function returned a single number: give one scalar per sample, [N]")
        return Scores(scalars if scalars.dim() == 1 else scalars.flatten(1).sum(1), None)
    scores = class_scores(outputs, target.mask if isinstance(target, Region) else None)
    asked = target.index if isinstance(target, Region) else target
    if asked is None:
        asked = scores.detach().argmax(1)
    elif isinstance(asked, Top):
        if asked.count > scores.shape[1]:
            raise InvalidArgumentError(f"top({asked.count}): the model has {scores.shape[1]} outputs")
        asked = scores.detach().topk(asked.count, 1).indices.T
    if scores.shape[1] == 1:
        asked = torch.zeros_like(torch.as_tensor(asked))  # a regression, or a binary classifier's single logit
    return _picked(scores, asked, "target class", "outputs")


def class_scores(outputs: Any, mask: Tensor | None = None) -> Tensor:
    """Scores ``[N, classes]`` of what a model returned: its first tensor, summed over places where it has any.

    Args:
        outputs: what the model returned.
        mask: the places that count, ``[H, W]`` or ``[N, H, W]``; all if omitted.

    Raises:
        TypeError: the output holds no floating-point tensor with a sample dimension.
        ValueError: the mask does not fit the output.
    """
    scores = first_tensor(outputs)
    if scores is None or scores.dim() == 0:
        raise InvalidTypeError(
            f"the model returned {type(outputs).__name__} without a floating-point tensor [N, classes]: "
            "give a function from the output to one scalar per sample as target, or forward="
        )
    if mask is not None:
        shape = list(scores.shape)
        if scores.dim() != 4 or list(mask.shape) not in (shape[2:], [shape[0], *shape[2:]]):
            raise InvalidArgumentError(
                f"the region's mask is {list(mask.shape)}, the model's output {shape}: give [H, W] of it"
            )
        scores = scores * _saved(mask).to(scores).unsqueeze(-3)
    return scores.unsqueeze(1) if scores.dim() == 1 else scores.flatten(2).sum(2) if scores.dim() > 2 else scores


def depends_on_input(target: Target) -> bool:
    """Whether the classes meant depend on the input."""
    index = target.index if isinstance(target, Region) else target
    return index is None or isinstance(index, Top)


def with_classes(target: Target, found: Tensor | None) -> Target:
    """The same target; of an open one with the classes named that a pass found.

    Args:
        target: see `Target`.
        found: the classes, ``[N]`` or ``[T, N]``.
    """
    if not depends_on_input(target):
        return target
    return replace(target, index=found) if isinstance(target, Region) else found


def check_count(target: Target, count: int) -> None:
    """See that a target that names something for each sample does so for all.

    Args:
        target: see `Target`.
        count: how many samples there are.

    Raises:
        ValueError: it names more or fewer.
    """
    index = target.index if isinstance(target, (Region, Inner)) else target
    if isinstance(target, Region) and target.mask.dim() == 3 and len(target.mask) != count:
        raise InvalidArgumentError(
            f"{len(target.mask)} masks for {count} samples: give one [H, W], or one per sample [N, H, W]"
        )
    if index is None or isinstance(index, Top) or callable(index):
        return
    shape = torch.as_tensor(index).shape
    places = isinstance(target, Inner) and target.kind == "unit" and shape[-1:] == (3,)  # (k, y, x)
    if places:
        shape = shape[:-1]
    if len(shape) and shape[-1] != count and not (len(shape) == 2 and shape[1] == 1):
        raise InvalidArgumentError(_miscounted(shape[-1], count, "target"))


def select_samples(target: Target, samples: Tensor) -> Target:
    """The target of some of the samples, or of copies of them.

    Args:
        target: of all samples, not open.
        samples: which of them, ``[n]``, on the CPU.
    """
    if isinstance(target, Region):
        mask = target.mask
        index = target.index if target.index is None or isinstance(target.index, Top) else _some(target.index, samples)
        return Region(mask[samples.to(mask.device)] if mask.dim() == 3 else mask, index)
    if isinstance(target, Inner):  # whether [3] is a place in a map, or a unit for each of three, its layer tells
        return replace(target, samples=samples)
    return target if target is None or callable(target) or isinstance(target, Top) else _some(target, samples)


def _some(index: Indices, samples: Tensor) -> Indices:
    """The indices of some samples."""
    if isinstance(index, int):
        return index
    tensor = torch.as_tensor(index)
    if tensor.dim() == 0 or (tensor.dim() == 2 and tensor.shape[1] == 1):
        return tensor
    return tensor[..., samples.to(tensor.device)]


def _saved(tensor: Tensor) -> Tensor:
    """Fit to be kept for a backward, also where it was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def _picked(scores: Tensor, asked: Indices, what: str, of: str) -> Scores:
    """From scores ``[N, K]`` those asked for, ``[N]`` or ``[T, N]``."""
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
    return Scores(values if index.dim() == 2 else values[0], index)


def _miscounted(given: int, samples: int, what: str) -> str:
    return f"{given} targets for {samples} samples: give one {what}, one per sample [N], or several [T, N]"


def _call(inner: Mapping[str, Tensor], layer: str) -> Tensor:
    if layer in inner:
        return inner[layer]
    several = [name for name in inner if is_call(name, layer)]
    if several:
        raise InvalidArgumentError(
            f"the target's layer {layer!r} is called {len(several)} times: name the call, one of {several}"
        )
    raise InvalidArgumentError(f"the target's layer {layer!r} is not called in the forward pass")


def _inside(output: Tensor, target: Inner, features: int | None) -> Tensor:
    """A layer's unit, channel or maximum, ``[N]`` or ``[T, N]``."""
    output = output.unsqueeze(1) if output.dim() == 1 else output  # one unit
    if target.kind == "maximum" and target.index is None:
        return output.flatten(1).max(1).values
    maps = as_maps(output, features=features)
    of = f"in layer {target.layer!r}"
    if target.kind == "unit" and maps is not None:
        place = _saved(torch.as_tensor(target.index, device=maps.device).long())
        if target.samples is not None and place.dim() == 2:
            place = place[target.samples.to(place.device)]
        shape = list(maps.shape[1:])
        if place.shape[-1:] != (3,) or place.dim() > 2 or (place.dim() == 2 and len(place) != len(maps)):
            raise InvalidArgumentError(
                f"unit {target.index} {of}, whose output is {shape}: give (channel, row, column)"
            )
        if bool((place < 0).any()) or bool((place >= torch.tensor(shape, device=place.device)).any()):
            raise InvalidArgumentError(f"unit {place.tolist()} is out of range: {of} the output is {shape}")
        k, y, x = place.expand(len(maps), 3).T
        return maps[torch.arange(len(maps), device=maps.device), k, y, x]
    if target.index is None:
        raise InvalidArgumentError(f"no {target.kind} given {of}")
    index = target.index if target.samples is None else _some(target.index, target.samples)
    if target.kind == "unit":
        return _picked(output.flatten(1), index, "unit", f"units {of}").values
    if maps is None:  # a vector, a sequence, or places beyond two dimensions
        maps = output.transpose(1, 2) if output.dim() == 3 and output.shape[2] == features else output
    places = maps.unsqueeze(2).flatten(2)  # [N, K, P]
    scores = places.sum(2) if target.kind == "channel" else places.max(2).values
    return _picked(scores, index, "channel", f"channels {of}").values
