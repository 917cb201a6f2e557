"""The result of any attribution method as one heatmap per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.hooks.feature_maps import resize
from lightning_viz.hooks.observation import Observation
from lightning_viz.hooks.observe import Forward, observe_resolved
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.hooks.recording import Reduce
from lightning_viz.hooks.target_types import ClassTarget, Target
from lightning_viz.hooks.targets import TargetLike

__all__ = ["Attribute", "as_heat"]

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


def plain_target(target: Target) -> TargetLike:
    """Class indices ``[N]`` in place of a fixed target that is a class, since any attribution method takes them."""
    is_class = isinstance(target, ClassTarget) and target.mask is None and target.index is not None
    return target.index if is_class else target  # type: ignore[attr-defined]
