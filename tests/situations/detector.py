"""A small detector with torchvision's interface: lists of images in; losses, or boxes, labels and scores out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELL = 8
"""Pixels of a cell, each of which is a candidate."""


class Detector(nn.Module):
    """Finds a bright cell: class 1 if it is red, 2 if it is blue; with masks on request.

    In training mode it takes targets and returns losses, in evaluation mode a list of dicts, as torchvision's.
    """

    def __init__(self, *, masks: bool = False, threshold: float = 0.05) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(CELL))
        self.head = nn.Conv2d(4, 2, 1)
        weight = torch.zeros(4, 3, 3, 3)
        weight[0, 0, 1, 1] = weight[1, 2, 1, 1] = 1.0
        self.backbone[0].weight.data, self.backbone[0].bias.data = weight, torch.zeros(4)
        self.head.weight.data = torch.tensor([[20.0, -20, 0, 0], [-20, 20, 0, 0]])[:, :, None, None]
        self.head.bias.data = torch.full((2,), -6.0)
        self.masks, self.threshold = masks, threshold

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        scores = [self.head(self.backbone(image[None]))[0] for image in images]
        if self.training:
            if targets is None:
                raise ValueError("targets should not be none when in training mode")
            return {"loss_classifier": torch.stack([cells.mean() for cells in scores]).mean()}
        return [self.detections(cells.sigmoid(), image) for cells, image in zip(scores, images, strict=True)]

    def detections(self, scores: Tensor, image: Tensor) -> dict[str, Tensor]:
        """The cells above the threshold, most confident first."""
        best, kinds = scores.flatten(1).max(0)
        order = best.argsort(descending=True)
        order = order[best[order] > self.threshold]
        columns = scores.shape[2]
        corner = torch.stack([order % columns, order // columns], 1).float() * CELL
        found = {"boxes": torch.cat([corner, corner + CELL], 1), "labels": kinds[order] + 1, "scores": best[order]}
        if self.masks:
            places = F.one_hot(order, best.numel()).float().view(-1, 1, *scores.shape[1:])
            found["masks"] = F.interpolate(places, image.shape[1:])
        return found


def box_iou(boxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union of boxes ``[n, 4]`` with one ``[4]``."""
    low, high = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
    common = (high - low).clamp_min(0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return common / (areas + (box[2:] - box[:2]).prod() - common)


def box_score(detector: Detector, images: list[Tensor], fixed: list[dict[str, Tensor]], index: int = 0) -> Tensor:
    """Of each image the maximum of score times IoU with a fixed box, over detections of its class ``[N]``."""
    values = []
    for found, kept in zip(detector(images), fixed, strict=True):
        alike = found["labels"] == kept["labels"][index]
        overlaps = box_iou(found["boxes"], kept["boxes"][index])
        values.append((found["scores"] * overlaps * alike).max() if len(alike) else images[0].new_zeros(()))
    return torch.stack(values)
