"""Class activation maps by what a layer's maps let through: one forward per channel."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_viz.attribution.batches import Batches
from lightning_viz.attribution.cam import Maps, recorded_maps
from lightning_viz.attribution.faults import scores_of
from lightning_viz.hooks.layers import Layers
from lightning_viz.hooks.observing import Forward, first_look, observe
from lightning_viz.hooks.structure import image_of, map_tensors, sample_size, take_samples
from lightning_viz.hooks.target import Target, of_samples


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
        raise ValueError("score_cam needs an image [N, C, H, W] among the inputs")
    first, target = first_look(model, inputs, target, layers=layers, forward=forward)
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
            scores.append(scores_of(observe(model, given, of_samples(target, of), forward=forward)))

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
