"""Class activation maps: where, seen from a layer, the evidence for a class lies."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_viz.hooks.layers import LayerNotReachedError, Layers, select_layers
from lightning_viz.hooks.maps import as_maps, feature_count
from lightning_viz.hooks.observing import Forward, observe
from lightning_viz.hooks.target import Target


def grad_cam(
    model: nn.Module,
    inputs: Any,
    target: Target = None,
    *,
    layers: Layers = "last_conv",
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    r"""Where the evidence for a class lies, seen from each layer, in one pass (Selvaraju et al., 2017).

    .. math:: L = \operatorname{ReLU}\Big(\sum_k \alpha_k A^k\Big),
        \qquad \alpha_k = \frac{1}{HW} \sum_{ij} \frac{\partial y}{\partial A^k_{ij}}

    Args:
        model: any module; left as found.
        inputs: images as the model takes them, ``[N, C, H, W]``.
        target: class index, one per sample or one for all; the predicted class if omitted.
        layers: those whose output is ``[N, K, H', W']``, or a vision transformer's tokens.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        For each call of each layer the unnormalised map ``[N, 1, H', W']``, non-negative, in logits.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        LayerNotReachedError: the forward pass does not call the layer.
        ValueError: a layer's output has no places, or the target does not depend on it.
    """
    seen = observe(model, inputs, target, layers=layers, gradients=True, forward=forward)
    if seen.unreached:
        raise LayerNotReachedError(f"layers {list(seen.unreached)} are not called in the forward pass")
    maps = {}
    for name, module in select_layers(model, layers).items():
        for call in seen.calls(name):
            slope = seen.gradients[call]
            if slope is None:
                raise ValueError(f"the target does not depend on layer {call!r}")
            heat = class_activation_map(seen.activations[call], slope, features=feature_count(module))
            if heat is None:
                shape = list(seen.activations[call].shape)
                raise ValueError(f"the output of layer {call!r} is {shape}, without places: choose a convolution")
            maps[call] = heat
    return maps


def class_activation_map(activation: Tensor, gradient: Tensor, *, features: int | None = None) -> Tensor | None:
    """Grad-CAM's map from a layer's output and the target's gradient towards it; None where the layer has no places.

    Args:
        activation: ``[N, K, H, W]``, or tokens or channels-last maps (see `lightning_viz.hooks.as_maps`).
        gradient: of the same shape.
        features: K, where it is known.

    Returns:
        ``[N, 1, H, W]``, non-negative, in the target's unit.
    """
    maps, slopes = as_maps(activation, features=features), as_maps(gradient, features=features)
    if maps is None or slopes is None:
        return None
    weights = slopes.mean((2, 3), keepdim=True)  # alpha, [N, K, 1, 1]
    return (weights * maps).sum(1, keepdim=True).relu()
