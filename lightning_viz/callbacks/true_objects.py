"""What a batch says that a detector is to find."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lightning_viz.hooks.detection import Detections, corners_of
from lightning_viz.hooks.pytree import Path, part_at


def objects_path(batch: Any) -> Path | None:
    """Where a batch holds what a detector is to find: a list with a dict of ``boxes`` and ``labels`` for each image.

    Hugging Face's detectors call the latter ``class_labels``.
    """
    entries: list[tuple[Any, Any]] = []
    if isinstance(batch, Mapping):
        entries = list(batch.items())
    elif isinstance(batch, (tuple, list)):
        entries = list(enumerate(batch))
    return next(((key,) for key, part in entries if are_objects(part)), None)


def are_objects(part: Any) -> bool:
    """Whether a part of a batch is a list of true objects, image by image."""
    return (
        isinstance(part, (tuple, list))
        and len(part) > 0
        and all(
            isinstance(image, Mapping) and "boxes" in image and ("labels" in image or "class_labels" in image)
            for image in part
        )
    )


def objects_of(batch: Any) -> tuple[Detections, ...] | None:
    """What a detector is to find in each image of a batch, on the CPU; None if the batch does not say."""
    path = objects_path(batch)
    if path is None:
        return None
    images = []
    for image in part_at(batch, path):
        shares = "labels" not in image  # Hugging Face's: centers and sizes in shares of the image
        boxes, labels, masks = (image.get(name) for name in ("boxes", "class_labels" if shares else "labels", "masks"))
        boxes, labels = (part.detach().cpu() for part in (boxes.reshape(-1, 4).float(), labels.reshape(-1).long()))
        boxes = corners_of(boxes) if shares else boxes
        if masks is not None:
            masks = masks.detach().cpu().reshape(len(labels), *masks.shape[-2:]) > 0
        images.append(Detections(boxes, labels, torch.ones(len(labels)), masks, relative=shares))
    return tuple(images)
