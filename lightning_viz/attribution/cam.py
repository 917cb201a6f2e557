"""Class activation maps: where, seen from a layer, the evidence for a class lies. All weigh what one pass recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_viz.attribution.gradients import scores_of, warn_attribution
from lightning_viz.errors import InvalidArgumentError, LayerNotReachedError
from lightning_viz.hooks.batching import Batches
from lightning_viz.hooks.feature_maps import as_maps, feature_count
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.observation import Observation
from lightning_viz.hooks.observe import Forward, observe, observe_resolved
from lightning_viz.hooks.pytree import image_of, map_tensors, sample_size, take_samples
from lightning_viz.hooks.targets import Target, select_samples

__all__ = ["class_activation_map", "eigen_cam", "grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam", "score_cam"]

Weighting = Callable[[Tensor, Tensor], Tensor]
"""From maps A and gradients G ``[N, K, H, W]`` to a class activation map ``[N, 1, H, W]``, non-negative."""


def by_mean_gradient(maps: Tensor, slopes: Tensor) -> Tensor:
    """Grad-CAM: each map weighs as much as its mean gradient.

    Args:
        maps: A, ``[N, K, H, W]``.
        slopes: G, of the same shape.
    """
    alpha = slopes.mean((2, 3), keepdim=True)  # [N, K, 1, 1]
    return (alpha * maps).sum(1, keepdim=True).relu()


def by_positive_gradients(maps: Tensor, slopes: Tensor) -> Tensor:
    """Grad-CAM++: each map weighs as much as its positive gradients, of which each place counts by itself.

    Args:
        maps: A, ``[N, K, H, W]``.
        slopes: G, of the same shape.
    """
    denominator = 2 + maps.sum((2, 3), keepdim=True) * slopes  # the paper's, reduced by g ** 2, which can underflow
    alpha = torch.where(denominator == 0, 0, 1 / denominator.where(denominator != 0, 1))  # [N, K, H, W]
    weights = (alpha * slopes.relu()).sum((2, 3), keepdim=True)
    return (weights * maps).sum(1, keepdim=True).relu()


def by_place(maps: Tensor, slopes: Tensor) -> Tensor:
    """HiResCAM: each place weighs as much as its own gradient.

    Args:
        maps: A, ``[N, K, H, W]``.
        slopes: G, of the same shape.
    """
    return (slopes * maps).sum(1, keepdim=True).relu()


def by_positive_place(maps: Tensor, slopes: Tensor) -> Tensor:
    """LayerCAM: each place weighs as much as its own gradient, where that is positive.

    Args:
        maps: A, ``[N, K, H, W]``.
        slopes: G, of the same shape.
    """
    return (slopes.relu() * maps).sum(1, keepdim=True).relu()


def first_direction(maps: Tensor) -> Tensor:
    """EigenCAM: the maps' projection on their first principal direction, with the sign that most of it has.

    Args:
        maps: A, ``[N, K, H, W]``.
    """
    places = maps.flatten(2).transpose(1, 2)  # [N, HW, K]
    places = places if places.dtype == torch.float64 else places.float()  # no decomposition in half precision
    u, s, _ = torch.linalg.svd(places, full_matrices=False)
    projection: Tensor = (u[..., 0] * s[:, :1]).view(len(maps), 1, *maps.shape[2:]).to(maps)
    return (projection * projection.sum((2, 3), keepdim=True).sign()).relu()


WEIGHTINGS: dict[str, Weighting] = {
    "grad_cam": by_mean_gradient,
    "grad_cam_plus_plus": by_positive_gradients,
    "hires_cam": by_place,
    "layer_cam": by_positive_place,
    "eigen_cam": lambda maps, slopes: first_direction(maps),
}
"""By the name of the method."""


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
        For each call of each layer the unnormalized map ``[N, 1, H', W']``, non-negative, in logits. Several targets
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
            raise InvalidArgumentError(f"the target does not depend on layer {call!r}")
        if not slope.any():
            warn_attribution(
                f"the gradient is exactly zero at layer {call!r}: choose one from which information still flows"
            )
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
        raise InvalidArgumentError(
            f"the output of layer {call!r} is {list(output.shape)}, without places: choose a convolution, or give maps="
        )
    return maps


def score_cam(
    model: nn.Module,
    inputs: Any,
    target: Target = None,
    *,
    layers: Layers = "last_maps",
    maps: Maps | None = None,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    r"""Each of a layer's maps weighs as much as the target keeps when the image is seen through it (Wang et al., 2020).

    .. math:: L = \operatorname{ReLU}\Big(\sum_k \alpha_k A^k\Big), \qquad
        \alpha = \operatorname{softmax}_k\, y(x \odot H^k), \qquad
        H^k = \frac{A^k - \min A^k}{\max A^k - \min A^k} \text{, enlarged bilinearly}

    The paper subtracts the score of a black image, which the softmax undoes. A constant map lets nothing through.
    No gradients: a forward for each channel of each layer.

    Args:
        model: any module; left as found.
        inputs: as the model takes them, an image ``[N, C, H, W]`` among them.
        target: what to explain, see `Target`; the predicted class if omitted.
        layers: as for `grad_cam`.
        maps: as for `grad_cam`.
        batch_size: masked images per pass; what goes fastest and fits if None.
        progress: show a bar when it takes long.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        For each call of each layer the map ``[N, 1, H', W']``, non-negative, in units of the activation. Several
        targets stand in a leading dimension.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        LayerNotReachedError: the forward pass does not call the layer.
        ValueError: the inputs hold no image, or a layer's output has no places.
    """
    image = image_of(inputs)
    if image is None:
        raise InvalidArgumentError("score_cam needs an image [N, C, H, W] among the inputs")
    first, target = observe_resolved(model, inputs, target, layers=layers, forward=forward)
    recorded = recorded_maps(model, first, layers, maps)
    values, count = sample_size(inputs), len(image)
    found = {}
    for call, activation in recorded.items():
        masks = _unit_range(activation)
        scores: list[Tensor] = []  # [n] or [T, n], batch after batch

        def look(items: Tensor, masks: Tensor = masks, scores: list[Tensor] = scores) -> None:
            channels, of = items // count, items % count
            mask = masks[of.to(masks.device), channels.to(masks.device)][:, None]
            mask = F.interpolate(mask, image.shape[2:], mode="bilinear", align_corners=False)
            seen = batches.lay_out(take_samples(image, of, count) * mask.to(image))
            given = map_tensors(inputs, lambda x: seen if x is image else take_samples(x, of, count))
            scores.append(scores_of(observe(model, given, select_samples(target, of), forward=forward)))

        items = activation.shape[1] * count
        batches = Batches(model, items, batch_size, values=values, progress=progress, name=f"Score-CAM of {call}")
        batches.run(look)
        every = torch.cat(scores, -1)
        by_channel = every.view(*every.shape[:-1], -1, count)  # [K, N] or [T, K, N]
        alpha = by_channel.softmax(-2).movedim(-1, -2)[..., None, None].to(activation)
        found[call] = (alpha * activation).sum(-3, keepdim=True).relu()
    return found


def _unit_range(maps: Tensor) -> Tensor:
    """Each map from 0 to 1; a constant one is zero."""
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)
