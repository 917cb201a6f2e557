"""Class activation maps: where, seen from a layer, the evidence for a class lies. All weigh what one pass recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.attribution.faults import warn
from lightning_viz.attribution.weightings import (
    Weighting,
    by_mean_gradient,
    by_place,
    by_positive_gradients,
    by_positive_place,
    first_direction,
)
from lightning_viz.hooks.layers import LayerNotReachedError, Layers, select_layers
from lightning_viz.hooks.maps import as_maps, feature_count
from lightning_viz.hooks.observation import Observation
from lightning_viz.hooks.observing import Forward, observe
from lightning_viz.hooks.target import Target

Maps = Callable[[Tensor], Tensor]
"""From a layer's output to maps ``[N, K, H, W]``, for layouts that do not tell by themselves."""


def grad_cam(
    model: nn.Module,
    inputs: Any,
    target: Target = None,
    *,
    layers: Layers = "last_maps",
    maps: Maps | None = None,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    r"""Where the evidence for a class lies, seen from each layer, in one pass (Selvaraju et al., 2017).

    .. math:: L = \operatorname{ReLU}\Big(\sum_k \alpha_k A^k\Big),
        \qquad \alpha_k = \frac{1}{HW} \sum_{ij} \frac{\partial y}{\partial A^k_{ij}}

    Args:
        model: any module; left as found.
        inputs: images as the model takes them, ``[N, C, H, W]``.
        target: what to explain, see `Target`; the predicted class if omitted.
        layers: those whose output is ``[N, K, H', W']``, or a vision transformer's tokens; the last such one, before
            a transformer's last attention, if omitted.
        maps: from a layer's output to maps, where their layout does not tell by itself (`as_maps`).
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        For each call of each layer the unnormalised map ``[N, 1, H', W']``, non-negative, in logits. Several targets
        stand in a leading dimension.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        LayerNotReachedError: the forward pass does not call the layer.
        ValueError: a layer's output has no places, or the target does not depend on it.
    """
    return _cams(by_mean_gradient, model, inputs, target, layers, maps, forward)


def grad_cam_plus_plus(
    model: nn.Module,
    inputs: Any,
    target: Target = None,
    *,
    layers: Layers = "last_maps",
    maps: Maps | None = None,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    r"""Grad-CAM that sees several objects of a class (Chattopadhay et al., 2018).

    .. math:: L = \operatorname{ReLU}\Big(\sum_k w_k A^k\Big), \qquad
        w_k = \sum_{ij} \alpha^k_{ij} \operatorname{ReLU}(g^k_{ij}), \qquad
        \alpha^k_{ij} = \frac{(g^k_{ij})^2}{2 (g^k_{ij})^2 + \sum_{ab} A^k_{ab} (g^k_{ij})^3}, \qquad
        g = \frac{\partial y}{\partial A}

    The paper's score is the exponential of the logit y; it multiplies a sample's map by a number only, and is left out.

    Args:
        model: any module; left as found.
        inputs: images as the model takes them, ``[N, C, H, W]``.
        target: what to explain, see `Target`; the predicted class if omitted.
        layers: as for `grad_cam`.
        maps: as for `grad_cam`.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        As `grad_cam`.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        LayerNotReachedError: the forward pass does not call the layer.
        ValueError: a layer's output has no places, or the target does not depend on it.
    """
    return _cams(by_positive_gradients, model, inputs, target, layers, maps, forward)


def hires_cam(
    model: nn.Module,
    inputs: Any,
    target: Target = None,
    *,
    layers: Layers = "last_maps",
    maps: Maps | None = None,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    r"""Grad-CAM in which each place keeps its own gradient (Draelos and Carin, 2020).

    .. math:: L = \operatorname{ReLU}\Big(\sum_k \frac{\partial y}{\partial A^k} \odot A^k\Big)

    Args:
        model: any module; left as found.
        inputs: images as the model takes them, ``[N, C, H, W]``.
        target: what to explain, see `Target`; the predicted class if omitted.
        layers: as for `grad_cam`.
        maps: as for `grad_cam`.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        As `grad_cam`.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        LayerNotReachedError: the forward pass does not call the layer.
        ValueError: a layer's output has no places, or the target does not depend on it.
    """
    return _cams(by_place, model, inputs, target, layers, maps, forward)


def layer_cam(
    model: nn.Module,
    inputs: Any,
    target: Target = None,
    *,
    layers: Layers = "last_maps",
    maps: Maps | None = None,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    r"""Class activation maps that are sharp in early layers, too (Jiang et al., 2021).

    .. math:: L = \operatorname{ReLU}\Big(\sum_k \operatorname{ReLU}(g^k) \odot A^k\Big), \qquad
        g = \frac{\partial y}{\partial A}

    Args:
        model: any module; left as found.
        inputs: images as the model takes them, ``[N, C, H, W]``.
        target: what to explain, see `Target`; the predicted class if omitted.
        layers: as for `grad_cam`.
        maps: as for `grad_cam`.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        As `grad_cam`.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        LayerNotReachedError: the forward pass does not call the layer.
        ValueError: a layer's output has no places, or the target does not depend on it.
    """
    return _cams(by_positive_place, model, inputs, target, layers, maps, forward)


def eigen_cam(
    model: nn.Module,
    inputs: Any,
    target: Target = None,
    *,
    layers: Layers = "last_maps",
    maps: Maps | None = None,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    r"""What a layer's maps have most in common, whatever the class (Muhammad and Yeasin, 2020).

    .. math:: L = \operatorname{ReLU}(\pm A v_1), \qquad A = U \Sigma V^\top, \quad A \in \mathbb{R}^{HW \times K}

    The sign, which the decomposition leaves open, is the one that most of the map has.

    Args:
        model: any module; left as found.
        inputs: images as the model takes them, ``[N, C, H, W]``.
        target: plays no part; it is there so that all methods are called alike.
        layers: as for `grad_cam`.
        maps: as for `grad_cam`.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        For each call of each layer the map ``[N, 1, H', W']``, non-negative, in units of the activation.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        LayerNotReachedError: the forward pass does not call the layer.
        ValueError: a layer's output has no places.
    """
    seen = observe(model, inputs, layers=layers, forward=forward)
    return {call: first_direction(each) for call, each in recorded_maps(model, seen, layers, maps).items()}


def class_activation_map(
    activation: Tensor, gradient: Tensor, weighting: Weighting = by_mean_gradient, *, features: int | None = None
) -> Tensor | None:
    """A map from a layer's output and the target's gradient towards it; None where the layer has no places.

    Args:
        activation: ``[N, K, H, W]``, or tokens or channels-last maps (see `lightning_viz.hooks.as_maps`).
        gradient: of the same shape, or ``[T, N, ...]`` for several targets.
        weighting: how the layer's maps are weighed.
        features: K, where it is known.

    Returns:
        ``[N, 1, H, W]`` or ``[T, N, 1, H, W]``, non-negative.
    """
    return _weighed(activation, gradient, weighting, lambda output: as_maps(output, features=features))


def recorded_maps(model: nn.Module, seen: Observation, layers: Layers, maps: Maps | None) -> dict[str, Tensor]:
    """The layers' outputs as maps, by call.

    Args:
        model: that was observed.
        seen: what was recorded.
        layers: as they were asked for.
        maps: as for `grad_cam`.

    Raises:
        LayerNotReachedError: the forward pass does not call a layer.
        ValueError: a layer's output has no places.
    """
    return {
        call: _with_places(_turned(seen.activations[call], module, maps), seen.activations[call], call)
        for call, module in _calls(model, seen, layers)
    }


def _cams(
    weighting: Weighting,
    model: nn.Module,
    inputs: Any,
    target: Target,
    layers: Layers,
    maps: Maps | None,
    forward: Forward | None,
) -> dict[str, Tensor]:
    seen = observe(model, inputs, target, layers=layers, gradients=True, forward=forward)
    return cams(weighting, model, seen, layers, maps)


def cams(
    weighting: Weighting, model: nn.Module, seen: Observation, layers: Layers, maps: Maps | None
) -> dict[str, Tensor]:
    """The maps of every call of some layers.

    Args:
        weighting: how each layer's maps are weighed.
        model: that was observed.
        seen: what was recorded, with gradients.
        layers: as they were asked for.
        maps: as for `grad_cam`.

    Raises:
        LayerNotReachedError: the forward pass does not call a layer.
        ValueError: a layer's output has no places, or the target does not depend on it.
    """
    found = {}
    for call, module in _calls(model, seen, layers):
        output, slope = seen.activations[call], seen.gradients[call]
        if slope is None:
            raise ValueError(f"the target does not depend on layer {call!r}")
        if not slope.any():
            warn(f"the gradient is exactly zero at layer {call!r}: choose one from which information still flows")
        heat = _weighed(output, slope, weighting, lambda one, module=module: _turned(one, module, maps))  # type: ignore[misc]
        found[call] = _with_places(heat, output, call)
    return found


def _calls(model: nn.Module, seen: Observation, layers: Layers) -> list[tuple[str, nn.Module]]:
    if seen.unreached:
        scripted = any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())
        why = ": traced or scripted code calls none; give the model as it was before" if scripted else ""
        raise LayerNotReachedError(f"layers {list(seen.unreached)} are not called in the forward pass{why}")
    return [(call, module) for name, module in select_layers(model, layers).items() for call in seen.calls(name)]


def _turned(output: Tensor, module: nn.Module, maps: Maps | None) -> Tensor | None:
    return as_maps(output, features=feature_count(module)) if maps is None else maps(output)


def _weighed(
    output: Tensor, slope: Tensor, weighting: Weighting, turn: Callable[[Tensor], Tensor | None]
) -> Tensor | None:
    """One map for each sample, or for each target and sample."""
    activation = turn(output)
    if activation is None:
        return None
    slopes = [turn(one) for one in (slope if slope.dim() > output.dim() else slope[None])]
    heats = [weighting(activation, one) for one in slopes if one is not None]
    return torch.stack(heats) if slope.dim() > output.dim() else heats[0]


def _with_places(maps: Tensor | None, output: Tensor, call: str) -> Tensor:
    if maps is None or maps.dim() < 4:
        raise ValueError(
            f"the output of layer {call!r} is {list(output.shape)}, without places: choose a convolution, or give maps="
        )
    return maps
