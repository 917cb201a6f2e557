"""The pointing game: does a map's maximum lie on the object?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

import torch
from torch import Tensor, nn

from lightning_viz.attribution.evaluation.heatmap import Attribute, as_heat, image_size
from lightning_viz.attribution.evaluation.insertion_deletion import importance_order
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.targets import TargetLike

__all__ = ["PointingGame", "pointing_game"]

Boxes = Union[Tensor, Sequence[Tensor]]

MARGIN = 15 / 224
"""Tolerance relative to the images' shorter side: the paper's 15 pixels at its networks' 224."""


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
