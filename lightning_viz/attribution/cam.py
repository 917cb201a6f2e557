"""Class activation maps: where, seen from a layer, the evidence for a class lies.

A method is a formula of a layer's activations A and the target's gradients with respect to them, ``[N, K, *S]`` each
with one, two or three dimensions S of places, and its row in `lightning_viz.catalogue`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from lightning_viz._docstrings import documented_like
from lightning_viz.attribution.gradients import warn_attribution
from lightning_viz.catalogue import method
from lightning_viz.catalogue_types import CamMethod
from lightning_viz.errors import InvalidArgumentError, LayerNotReachedError, by_name
from lightning_viz.hooks.calls import image_sizes
from lightning_viz.hooks.feature_maps import placed, resize
from lightning_viz.hooks.geometry import as_maps
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.observation import Observation
from lightning_viz.hooks.observe import Forward, observe
from lightning_viz.hooks.pytree import spatial_input
from lightning_viz.hooks.targets import TargetLike, as_target
from lightning_viz.host_copies import to_device

__all__ = [
    "class_activation_map",
    "eigen_cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "layer_cam",
    "xgrad_cam",
]

Formula = Callable[[Tensor, Tensor], Tensor]
"""From activations and gradients ``[N, K, *S]`` to a class activation map ``[N, 1, *S]``, non-negative."""

ReshapeTransform = Callable[[Tensor], Tensor]
"""From a layer's output to maps ``[N, K, *S]``, for layouts that are not recognized (see `Layout`)."""

MERGED = "merged"
"""Name of the map of several layers together."""

FORMULAS: dict[str, Formula] = {}
"""By the name of the method; `cam` adds them."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _decorator(general: Callable[Concatenate[Formula, _P], _R]) -> Callable[[Formula], Callable[_P, _R]]:
    """Make public functions of formulas, with the signature and the arguments' documentation of one general function.

    Type checkers see that signature, too.
    """

    def decorate(formula: Formula) -> Callable[_P, _R]:
        @functools.wraps(formula)
        def public(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            return general(formula, *args, **kwargs)

        signature = inspect.signature(general)
        first, *others = signature.parameters.values()
        vars(public)["__signature__"] = signature.replace(parameters=others)
        public.__annotations__ = {name: hint for name, hint in general.__annotations__.items() if name != first.name}
        FORMULAS[formula.__name__] = formula
        return documented_like(general)(public)

    return decorate


def _explain_layers(  # noqa: D417 (the public functions take no formula)
    formula: Formula,
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    layers: Layers = "last_maps",
    reshape_transform: ReshapeTransform | None = None,
    merge: bool = False,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    """Class activation maps of layers, from one forward and at most one backward pass.

    Args:
        model: any module; left as found.
        inputs: as the model takes them: images ``[N, C, H, W]`` or a detector's list of ``[C, H, W]``, series
            ``[N, C, L]``, volumes ``[N, C, D, H, W]``.
        target: what to explain, see `TargetLike`; the predicted class if omitted.
        layers: those whose output is ``[N, K, H', W']``, ``[N, K, L']`` or ``[N, K, D', H', W']``, or a vision
            transformer's tokens; the last such one, before a transformer's last attention, if omitted.
        reshape_transform: from a layer's output to maps ``[N, K, H', W']``, if its layout is not recognized.
        merge: one map of all layers together, under the name ``"merged"``, at the image's size: the mean of their maps,
            each divided by its maximum, as is usual for a detector's layers of several sizes.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        For each call of each layer the unnormalized map ``[N, 1, H', W']`` (``[N, 1, *S]`` of a series or volume),
        non-negative, in logits; EigenCAM's in units of the activation. Several targets stand in a leading dimension.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        LayerNotReachedError: the forward pass does not call the layer.
        InvalidArgumentError: a layer's output has no locations, or the target does not depend on it.
    """
    gradients = "gradient" in method(formula.__name__).needs
    explained = target if gradients else None
    observation = observe(model, inputs, explained, layers=layers, gradients=gradients, forward=forward)
    maps = class_activation_maps(formula, model, observation, layers, reshape_transform, target)
    return {MERGED: merged_maps(maps.values(), observation)} if merge else maps


cam = _decorator(_explain_layers)
"""Make a method of a formula."""


@cam
def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Grad-CAM: weights each activation map by its mean gradient (Selvaraju et al., 2017).

    .. math:: L = \operatorname{ReLU}\Big(\sum_k \alpha_k A^k\Big),
        \qquad \alpha_k = \frac{1}{HW} \sum_{ij} \frac{\partial y}{\partial A^k_{ij}}
    """
    alpha = gradients.mean(_places(gradients), keepdim=True)  # [N, K, 1, 1]
    return (alpha * activations).sum(1, keepdim=True).relu()


@cam
def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Grad-CAM++: weights each activation map by its positive gradients (Chattopadhay et al., 2018).

    .. math:: L = \operatorname{ReLU}\Big(\sum_k w_k A^k\Big), \qquad
        w_k = \sum_{ij} \alpha^k_{ij} \operatorname{ReLU}(g^k_{ij}), \qquad
        \alpha^k_{ij} = \frac{(g^k_{ij})^2}{2 (g^k_{ij})^2 + \sum_{ab} A^k_{ab} (g^k_{ij})^3}, \qquad
        g = \frac{\partial y}{\partial A}

    The paper's score is the exponential of the logit y; it only scales a sample's map, and is left out.
    """
    # the paper's fraction, reduced by g ** 2, which can underflow
    denominator = 2 + activations.sum(_places(activations), keepdim=True) * gradients
    alpha = torch.where(denominator == 0, 0, 1 / denominator.where(denominator != 0, 1))  # [N, K, H, W]
    weights = (alpha * gradients.relu()).sum(_places(gradients), keepdim=True)
    return (weights * activations).sum(1, keepdim=True).relu()


@cam
def xgrad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""XGrad-CAM: weights each activation map by its gradients, averaged by activation (Fu et al., 2020).

    .. math:: L = \operatorname{ReLU}\Big(\sum_k \alpha_k A^k\Big), \qquad
        \alpha_k = \sum_{ij} \frac{A^k_{ij}}{\sum_{ab} A^k_{ab}} \frac{\partial y}{\partial A^k_{ij}}

    A map whose values cancel out, to less than 1e-7 of the largest map's sum, has no such average: its weight is 0.
    """
    places = _places(activations)
    sums = activations.sum(places, keepdim=True)  # [N, K, 1, 1]
    absolute = activations.abs()
    cancelled = sums.abs() < 1e-7 * absolute.sum(places, keepdim=True).amax(1, keepdim=True)
    if bool((cancelled & (absolute.amax(places, keepdim=True) > 0)).any()):
        warn_attribution("some activation maps sum to zero, which XGrad-CAM divides by: they are left out of the map")
    alpha = torch.where(cancelled, 0, (gradients * activations).sum(places, keepdim=True) / sums.where(~cancelled, 1))
    return (alpha * activations).sum(1, keepdim=True).relu()


@cam
def hires_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""HiResCAM: multiplies activations by gradients at each location (Draelos and Carin, 2020).

    .. math:: L = \operatorname{ReLU}\Big(\sum_k \frac{\partial y}{\partial A^k} \odot A^k\Big)
    """
    return (gradients * activations).sum(1, keepdim=True).relu()


@cam
def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""LayerCAM: weights each location by its own positive gradient (Jiang et al., 2021).

    .. math:: L = \operatorname{ReLU}\Big(\sum_k \operatorname{ReLU}(g^k) \odot A^k\Big), \qquad
        g = \frac{\partial y}{\partial A}
    """
    return (gradients.relu() * activations).sum(1, keepdim=True).relu()


@cam
def eigen_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""EigenCAM: projects the activation maps onto their first principal component (Muhammad and Yeasin, 2020).

    .. math:: L = \operatorname{ReLU}(\pm A v_1), \qquad A = U \Sigma V^\top, \quad A \in \mathbb{R}^{HW \times K}

    The decomposition leaves the sign open; it is chosen so that the projection's sum is positive. The target plays no
    part, and no gradient is computed.
    """
    locations = activations.flatten(2).transpose(1, 2)  # [N, HW, K]
    locations = locations if locations.dtype == torch.float64 else locations.float()  # no decomposition in float16
    u, s, _ = torch.linalg.svd(locations, full_matrices=False)
    projection: Tensor = (u[..., 0] * s[:, :1]).view(len(activations), 1, *activations.shape[2:]).to(activations)
    return (projection * projection.sum(_places(projection), keepdim=True).sign()).relu()


def merged_maps(maps: Iterable[Tensor], observation: Observation) -> Tensor:
    """One map of several layers': the mean of their maps at the image's size, each divided by its maximum.

    Args:
        maps: ``[N, 1, h, w]`` or ``[T, N, 1, h, w]`` each, non-negative.
        observation: of the pass that recorded the layers.

    Returns:
        ``[N, 1, H, W]`` or ``[T, N, 1, H, W]``, in [0, 1].
    """
    shares, image = [], spatial_input(observation.inputs)
    places = tuple(range(2 - (4 if image is None else image.dim()), 0))
    for heat in maps:
        large = image_maps(heat, observation)
        shares.append(large / large.amax(places, keepdim=True).clamp_min(torch.finfo(large.dtype).tiny))
    return torch.stack(shares).mean(0)


def image_maps(maps: Tensor, observation: Observation, samples: Tensor | None = None) -> Tensor:
    """A layer's maps at the size of the images that a model was given, bilinear.

    Where a detector pads its images, or was given images of unlike sizes, the map of each lies on the image alone.

    Args:
        maps: ``[..., N, K, h, w]``.
        observation: of the pass that recorded the layer, with an image among its inputs.
        samples: numbers of the samples ``[N]`` that the maps are of; all in order if omitted.
    """
    image = spatial_input(observation.inputs)
    if image is None:
        raise InvalidArgumentError("the inputs hold no image, series or volume, so maps have no size to be brought to")
    extents, sizes = observation.extents, image_sizes(observation.inputs)
    if samples is not None:
        extents, sizes = (None if x is None else x[to_device(samples, x.device)] for x in (extents, sizes))
    return resize(maps, image.shape[2:]) if extents is sizes is None else placed(maps, image.shape[2:], extents, sizes)


def class_activation_map(activations: Tensor, gradients: Tensor, method: CamMethod = "grad_cam") -> Tensor:
    """A class activation map from a layer's maps and gradients that were recorded before.

    Args:
        activations: ``[N, K, H, W]``, or ``[N, K, L]`` or ``[N, K, D, H, W]`` (see `Observation.maps`).
        gradients: of the target with respect to them, of the same shape, or ``[T, N, ...]`` for several targets.
        method: name of a method that needs no other pass.

    Returns:
        ``[N, 1, H, W]`` or ``[T, N, 1, H, W]``, or with other places, non-negative.

    Raises:
        InvalidArgumentError: there is no such method.
    """
    formula = by_name(FORMULAS, method, "method")
    if gradients.dim() == activations.dim():
        return formula(activations, gradients)
    return torch.stack([formula(activations, part) for part in gradients])


def class_activation_maps(
    formula: Formula,
    model: nn.Module,
    observation: Observation,
    layers: Layers,
    reshape_transform: ReshapeTransform | None,
    target: TargetLike,
) -> dict[str, Tensor]:
    """The class activation maps of all calls of some layers of a model that was observed, with gradients if needed.

    Raises:
        LayerNotReachedError: the forward pass does not call a layer.
        InvalidArgumentError: a layer's output has no locations, or the target does not depend on it.
    """
    maps = {}
    calls = list(layer_calls(model, observation, layers))
    if observation.gradients:
        _check_gradients({call: observation.gradients[call] for call in calls}, target)
    for call in calls:
        activations = observation.activations[call]
        gradients = observation.gradients[call] if observation.gradients else activations
        assert gradients is not None
        located, several = (
            layer_maps(observation, call, activations, reshape_transform),
            gradients.dim() > activations.dim(),
        )
        by_target = [
            formula(located, layer_maps(observation, call, part, reshape_transform))
            for part in (gradients if several else gradients[None])
        ]
        maps[call] = torch.stack(by_target) if several else by_target[0]
    return maps


def _check_gradients(gradients: Mapping[str, Tensor | None], target: TargetLike) -> None:
    """Warn of layers whose gradient is zero: a device is asked once for all of them.

    Raises:
        InvalidArgumentError: a layer has none.
    """
    flows: list[Tensor] = []
    for call, gradient in gradients.items():
        if gradient is None:
            raise InvalidArgumentError(not_before(call, target))
        flows.append(gradient.any().to(flows[0].device if flows else gradient.device))
    for call, flow in zip(gradients, torch.stack(flows).tolist() if flows else (), strict=True):
        if not flow:
            warn_attribution(f"the gradient is exactly zero at layer {call!r}: choose one from which information flows")


def not_before(call: str, target: TargetLike) -> str:
    """Why a target has no gradient at a layer, and what to do.

    Args:
        call: of the layer.
        target: explained.
    """
    described = as_target(target)
    if not described.layers or described.outputs:
        return f"the target does not depend on layer {call!r}"
    own = " and ".join(map(repr, described.layers))
    return (
        f"{described.name} does not depend on layer {call!r}, which comes after {own} or on another branch: choose "
        f"{own}, if it has maps, or a layer before"
    )


def layer_calls(model: nn.Module, observation: Observation, layers: Layers) -> list[str]:
    """The calls of the layers that a pass recorded.

    Raises:
        LayerNotReachedError: the forward pass does not call a layer.
    """
    if observation.unreached:
        scripted = any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())
        why = ": traced or scripted code calls none; give the model as it was before" if scripted else ""
        raise LayerNotReachedError(f"layers {list(observation.unreached)} are not called in the forward pass{why}")
    return [call for name in select_layers(model, layers) for call in observation.calls(name)]


def layer_maps(
    observation: Observation, call: str, output: Tensor, reshape_transform: ReshapeTransform | None = None
) -> Tensor:
    """A layer's output, or the gradients of it, as maps.

    Raises:
        InvalidArgumentError: it has no locations.
    """
    layout = observation.layouts.get(call)
    maps = as_maps(output, layout) if reshape_transform is None else reshape_transform(output)
    if maps is not None and maps.dim() > 2:
        return maps
    what = "a sequence, " if output.dim() == 3 and layout is not None and layout.channel_axis == 2 else ""
    raise InvalidArgumentError(
        f"the output of layer {call!r} is {list(output.shape)}, {what}without locations: choose a convolution, or give "
        "reshape_transform="
    )


def _places(maps: Tensor) -> tuple[int, ...]:
    """The axes of places of maps ``[N, K, *S]``."""
    return tuple(range(2, maps.dim()))
