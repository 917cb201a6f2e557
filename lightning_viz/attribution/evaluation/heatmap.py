"""The result of any attribution method as one heatmap per sample, and whether its maximum lies on the object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import torch
from torch import Tensor, nn

from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.hooks.feature_maps import resize
from lightning_viz.hooks.observation import Observation
from lightning_viz.hooks.observe import Forward, observe_resolved
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.hooks.recording import Reduce
from lightning_viz.hooks.target_types import ClassTarget, Target
from lightning_viz.hooks.targets import TargetLike
from lightning_viz.host_copies import to_device
from lightning_viz.rich_display import html_display

__all__ = ["Attribute", "PointingGame", "as_heat", "pointing_game"]

Attribute = Callable[[nn.Module, Any, TargetLike], Any]
"""An attribution method, ``attribute(model, inputs, target)``; options bound by `functools.partial`."""


def as_heat(attribution: Any, size: tuple[int, int], *, signed: bool = False) -> Tensor:
    """The importance of each location, ``[N, H, W]``.

    Gradients are summed over channels by absolute value, as they are drawn: the helpful sign depends on whether the
    object is brighter or darker than its background. Class activation maps are non-negative already. From occlusion
    only positive drops count.

    Args:
        attribution: ``[N, C, H, W]`` or ``[N, H, W]``, a dict with one such tensor (a layer's class activation map),
            or an object with an attribute ``heat`` (occlusion's result).
        size: H and W of the result; smaller maps are enlarged bilinearly, with ``align_corners=False``.
        signed: sum with signs, and keep negative values.

    Raises:
        InvalidTypeError: it is none of these.
        InvalidArgumentError: it has maps of several layers, or of several targets.
    """
    one_sided = isinstance(getattr(attribution, "heat", None), Tensor)  # an occlusion
    maps: Any = attribution.heat if one_sided else attribution
    if isinstance(maps, Mapping):
        if len(maps) != 1:
            raise InvalidArgumentError(f"the attribution has maps of layers {list(maps)}: choose one by layers=")
        maps = next(iter(maps.values()))
    if not isinstance(maps, Tensor) or maps.dim() < 3:
        shape = f" {list(maps.shape)}" if isinstance(maps, Tensor) else ""
        raise InvalidTypeError(f"the attribution is a {type(maps).__name__}{shape}: give maps [N, C, H, W]")
    if maps.dim() > 4:
        raise InvalidArgumentError(f"the attribution is {list(maps.shape)}, for several targets: check one at a time")
    maps = maps.detach() if maps.dim() == 4 else maps.detach().unsqueeze(1)  # [N, C, h, w]
    heat: Tensor = (maps if signed else maps.relu() if one_sided else maps.abs()).sum(1, keepdim=True)
    if heat.shape[2:] != size:
        heat = resize(heat, size)
    return heat.squeeze(1)


def image_size(inputs: Any) -> tuple[int, int]:
    """H and W of the first images among the inputs.

    Raises:
        InvalidTypeError: no input is ``[N, C, H, W]``.
    """
    for tensor in all_tensors(inputs):
        if tensor.dim() == 4:
            return int(tensor.shape[2]), int(tensor.shape[3])
    shapes = [list(tensor.shape) for tensor in all_tensors(inputs)]
    raise InvalidTypeError(f"the inputs are {shapes or type(inputs).__name__}: checks need images [N, C, H, W]")


def single_target(
    model: nn.Module,
    inputs: Any,
    target: TargetLike,
    *,
    reduce: Mapping[str, Reduce] | None = None,
    forward: Forward | None = None,
) -> tuple[Observation, Target]:
    """An observation, and the target with its class fixed: it stays the same when weights or inputs change.

    Raises:
        InvalidArgumentError: there are several targets.
    """
    observation, fixed = observe_resolved(model, inputs, target, reduce=reduce, forward=forward)
    if observation.scores is not None and observation.scores.dim() > 1:
        raise InvalidArgumentError(f"{len(observation.scores)} targets at once: checks take one per sample; split them")
    return observation, fixed


def plain_target(target: Target, device: torch.device) -> TargetLike:
    """Class indices ``[N]`` in place of a fixed target that is a class, since any attribution method takes them.

    They lie on the device, the inputs': methods of others may gather scores by them.
    """
    if not isinstance(target, ClassTarget) or target.mask is not None or target.index is None:
        return target
    return to_device(target.index, device) if isinstance(target.index, Tensor) else target.index


def importance_order(heat: Tensor, *, seed: int = 0) -> Tensor:
    """Locations of maps ``[N, H, W]`` in descending order of importance ``[N, H * W]``.

    Equal ones are in random order, the same for each sample.

    Raises:
        InvalidArgumentError: a map is not finite.
    """
    flat = heat.flatten(1)
    broken = (~flat.isfinite()).any(1).nonzero().flatten().tolist()
    if broken:
        raise InvalidArgumentError(f"the maps of samples {broken} are not finite")
    shuffled = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed)).to(flat.device)
    return shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]


Boxes = Union[Tensor, Sequence[Tensor]]

MARGIN = 15 / 224
"""Tolerance relative to the images' shorter side: the paper's 15 pixels at its networks' 224."""


@html_display("rate", "hits", "places")
@dataclass(frozen=True)
class PointingGame:
    """The locations of the maxima.

    Attributes:
        hits: whether each sample's maximum is on its object ``[N]``; a constant map has none, and misses.
        places: row and column of the maxima, ``[N, 2]``.
    """

    hits: Tensor
    places: Tensor

    @property
    def rate(self) -> float:
        """Share of the samples that hit, 0..1."""
        return float(self.hits.float().mean())


def pointing_game(
    attribute: Attribute,
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    boxes: Boxes | None = None,
    masks: Tensor | None = None,
    tolerance: float | None = None,
    seed: int = 0,
) -> PointingGame:
    """Pointing game: whether the maximum of each map lies on the target's object (Zhang et al., 2016).

    Args:
        attribute: the method, ``attribute(model, inputs, target)``.
        model: any module; left as found.
        inputs: as the model takes them, images among them.
        target: one per sample, usually the object's label; the predicted class if omitted.
        boxes: of the objects, ``(left, top, right, bottom)`` in pixels, right and bottom exclusive: ``[N, 4]``, or
            ``[K, 4]`` for each sample, of which any counts.
        masks: the objects' pixels instead of boxes, ``[N, H, W]``.
        tolerance: allowed distance of the maximum from the object, in pixels; the paper's 15 pixels for images of
            224 x 224, in proportion for others (2.1 at 32 x 32), if omitted.
        seed: chooses among several equal maxima.

    Raises:
        InvalidTypeError: no images among the inputs, or `attribute` returns no maps.
        InvalidArgumentError: neither or both of boxes and masks, of another size or number than the images, or a
            sample without object; several targets, or maps of several layers or that are not finite.
    """
    size = image_size(inputs)
    heat = as_heat(attribute(model, inputs, target), size).cpu()
    if (boxes is None) == (masks is None):
        raise InvalidArgumentError("give the objects as boxes or as masks, one of them")
    objects = (_filled(boxes, size) if boxes is not None else torch.as_tensor(masks)).cpu().bool()
    if objects.shape != heat.shape:
        raise InvalidArgumentError(f"objects {list(objects.shape)} and maps {list(heat.shape)} must agree in size")
    reach = MARGIN * min(size) if tolerance is None else tolerance
    first = importance_order(heat, seed=seed)[:, 0]
    places = torch.stack([first // size[1], first % size[1]], 1)
    flat = heat.flatten(1)
    hits = [
        _distance(place, mask, sample) <= reach
        for sample, (place, mask) in enumerate(zip(places, objects, strict=True))
    ]
    return PointingGame(torch.tensor(hits) & (flat.amin(1) < flat.amax(1)), places)


def _distance(place: Tensor, mask: Tensor, sample: int) -> float:
    """The distance to the nearest pixel of the object, in pixels."""
    pixels = mask.nonzero()
    if not len(pixels):
        raise InvalidArgumentError(f"sample {sample} has no object within the image")
    return float((pixels - place).float().norm(dim=1).min())


def _filled(boxes: Boxes, size: tuple[int, int]) -> Tensor:
    """Boxes as masks ``[N, H, W]``."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, of_sample in zip(masks, boxes, strict=True):
        for left, top, right, bottom in torch.as_tensor(of_sample).reshape(-1, 4).round().long().tolist():
            mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    return masks
