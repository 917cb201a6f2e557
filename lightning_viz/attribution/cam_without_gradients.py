"""Class activation maps whose weights come from forward passes alone, one for each channel: Score-CAM, Ablation-CAM."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_viz._docstrings import documented_like
from lightning_viz.attribution.cam import (
    MERGED,
    ReshapeTransform,
    grad_cam,
    image_maps,
    layer_calls,
    layer_maps,
    merged_maps,
)
from lightning_viz.attribution.gradients import copy_batches, scores_of
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import Batches
from lightning_viz.hooks.calls import as_call
from lightning_viz.hooks.continuation import Continuation, ReplayError
from lightning_viz.hooks.geometry import Layout
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.observation import layer_of_call
from lightning_viz.hooks.observe import Forward, observe, observe_resolved
from lightning_viz.hooks.pytree import map_tensors, sample_count, spatial_input, take_samples
from lightning_viz.hooks.target_types import Target
from lightning_viz.hooks.targets import TargetLike
from lightning_viz.host_copies import to_device

__all__ = ["ablation_cam", "score_cam"]


@documented_like(grad_cam)
def score_cam(  # noqa: D417 (see grad_cam)
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    layers: Layers = "last_maps",
    reshape_transform: ReshapeTransform | None = None,
    merge: bool = False,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    r"""Score-CAM: weights each map by the target's score when the image is masked with it (Wang et al., 2020).

    .. math:: L = \operatorname{ReLU}\Big(\sum_k \alpha_k A^k\Big), \qquad
        \alpha = \operatorname{softmax}_k\, y(x \odot H^k), \qquad
        H^k = \frac{A^k - \min A^k}{\max A^k - \min A^k} \text{, enlarged bilinearly}

    The paper subtracts the score of a black image, which the softmax undoes. A constant map masks everything.
    No gradients: one forward pass for each channel of each layer.

    Args:
        inputs: as the model takes them, an image, a series or a volume among them.
        batch_size: masked images per pass; what suits the inputs and fits if None.
        progress: show a bar when it takes long.

    Returns:
        For each call of each layer the map ``[N, 1, H', W']``, non-negative, in units of the activation. Several
        targets stand in a leading dimension.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        LayerNotReachedError: the forward pass does not call the layer.
        InvalidArgumentError: the inputs hold no image, series or volume, or a layer's output has no such locations.
    """
    inputs = as_call(inputs)
    image = spatial_input(inputs)
    if image is None:
        raise InvalidArgumentError("score_cam needs an image [N, C, H, W], a series or a volume among the inputs")
    observation, fixed = observe_resolved(model, inputs, target, layers=layers, forward=forward)
    count, maps = len(image), {}
    for call in layer_calls(model, observation, layers):
        activations = layer_maps(observation, call, observation.activations[call], reshape_transform)
        if activations.dim() != image.dim():
            places = f"{list(activations.shape[2:])} of inputs {list(image.shape[2:])}"
            raise InvalidArgumentError(f"score_cam masks inputs with maps, but those of layer {call!r} are {places}")
        masks = _unit_range(activations)
        parts: list[Tensor] = []  # scores [n] or [T, n], batch after batch

        def score(items: Tensor, masks: Tensor = masks, parts: list[Tensor] = parts) -> None:
            channels, samples = items // count, items % count
            mask = masks[to_device(samples, masks.device), to_device(channels, masks.device)][:, None]
            mask = image_maps(mask, observation, samples).to(image)
            masked = batches.lay_out(take_samples(image, samples, count) * mask)
            given = map_tensors(inputs, lambda x: masked if x is image else take_samples(x, samples, count))
            parts.append(scores_of(observe(model, given, fixed.select(samples), forward=forward)))

        batches = copy_batches(model, inputs, activations.shape[1], batch_size, progress, f"Score-CAM of {call}")
        batches.run(score)
        scores = torch.cat(parts, -1)
        by_channel = scores.view(*scores.shape[:-1], -1, count)  # [K, N] or [T, K, N]
        weights = by_channel.softmax(-2).movedim(-1, -2)
        alpha = weights.view(*weights.shape, *[1] * (activations.dim() - 2)).to(activations)
        maps[call] = (alpha * activations).sum(1 - activations.dim(), keepdim=True).relu()
    return {MERGED: merged_maps(maps.values(), observation)} if merge else maps


@documented_like(score_cam)
def ablation_cam(  # noqa: D417 (see score_cam)
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    layers: Layers = "last_maps",
    merge: bool = False,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    r"""Ablation-CAM: weights each map by the share of the target that is lost without it (Desai and Ramaswamy, 2020).

    .. math:: L = \operatorname{ReLU}\Big(\sum_k \frac{y - y_k}{|y|} A^k\Big),
        \qquad y_k: \text{ the target with channel } k \text{ of the layer at zero}

    No gradients: one pass for each channel of each layer, which goes on from the layer where the model's modules allow
    it. A target of exactly 0 has no shares: the differences themselves are the weights.

    Args:
        inputs: as the model takes them.
        batch_size: copies per pass, each without another channel; what suits the inputs and fits if None.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        LayerNotReachedError: the forward pass does not call the layer.
        InvalidArgumentError: a layer's output has no locations, or not a row for each sample.
    """
    inputs = as_call(inputs)
    observation, fixed = observe_resolved(model, inputs, target, layers=layers, forward=forward)
    whole, maps = scores_of(observation), {}
    for call in layer_calls(model, observation, layers):
        activations = layer_maps(observation, call, observation.activations[call])
        name = layer_of_call(call)
        index = observation.calls(name).index(call)
        continuation = Continuation(select_layers(model, layers)[name], index, sample_count(inputs), forward)
        observe(model, inputs, fixed, forward=continuation.record)

        def ablated(call: str = call, channels: int = activations.shape[1], to: Continuation = continuation) -> Tensor:
            axis = observation.layouts.get(call, Layout()).channel_axis
            batches = copy_batches(model, inputs, channels + 1, batch_size, progress, f"Ablation-CAM of {call}")
            return _ablated_scores(model, inputs, fixed, to, channels, axis, batches)

        scores = _shortened(continuation, ablated, whole)
        y, without = scores[..., -1:, :], scores[..., :-1, :]  # [K, N] or [T, K, N]
        weights = ((y - without) / y.abs().where(y != 0, 1)).movedim(-1, -2)
        alpha = weights.view(*weights.shape, *[1] * (activations.dim() - 2)).to(activations)
        maps[call] = (alpha * activations).sum(1 - activations.dim(), keepdim=True).relu()
    return {MERGED: merged_maps(maps.values(), observation)} if merge else maps


def _shortened(continuation: Continuation, ablated: Callable[[], Tensor], whole: Tensor) -> Tensor:
    """The scores by passes that go on from the layer; by whole ones if, with no channel ablated, they are not those."""
    if continuation.shortened:
        with suppress(ReplayError):
            scores = ablated()
            tolerance = torch.finfo(scores.dtype).eps ** 0.5 * float(whole.abs().max())
            if bool(((scores[..., -1, :] - whole).abs() <= tolerance).all()):
                return scores
        continuation.shortened = False
    return ablated()


def _ablated_scores(
    model: nn.Module,
    inputs: Any,
    target: Target,
    continuation: Continuation,
    channels: int,
    axis: int,
    batches: Batches,
) -> Tensor:
    """The target's values with each channel at zero, and last with none, ``[K + 1, N]`` or ``[T, K + 1, N]``."""
    count, parts = sample_count(inputs), list[Tensor]()

    def score(items: Tensor) -> None:
        ablated, samples = items // count, items % count

        def without(output: Tensor) -> Tensor:
            if len(output) != len(items):
                raise InvalidArgumentError(
                    f"ablation_cam needs a row for each sample, but of {len(items)} the layer returns {len(output)}"
                )
            places = [len(items), *[1] * (output.dim() - 1)]
            places[axis] = channels
            gone = F.one_hot(ablated, channels + 1)[:, :channels].bool().view(places)
            return output.masked_fill(to_device(gone, output.device), 0)

        given = map_tensors(inputs, lambda x: batches.lay_out(take_samples(x, samples, count)))
        changed = continuation.changed(samples, without)
        parts.append(scores_of(observe(model, given, target.select(samples), forward=changed)))

    batches.run(score)
    scores = torch.cat(parts, -1)
    return scores.view(*scores.shape[:-1], channels + 1, count)


def _unit_range(maps: Tensor) -> Tensor:
    """Each map from 0 to 1; a constant one is zero."""
    places = tuple(range(2, maps.dim()))
    low, high = maps.amin(places, keepdim=True), maps.amax(places, keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)
