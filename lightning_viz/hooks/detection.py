"""What a detector returns: the boxes, classes, scores and masks that it finds in each image, whatever their form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.rich_display import html_display

__all__ = ["Detections", "detections_of"]

WEAK = 0.05
"""A detection of a lower score is none (torchvision's ``box_score_thresh``)."""

_SAME = 1e-3  # boxes whose intersection over union is this near to 1 are the same, but for rounding
_MASKS = 16  # that are kept of an image
_BOX_NAMES, _LOGIT_NAMES = ("pred_boxes",), ("logits", "pred_logits")


@html_display()
@dataclass(frozen=True)
class Detections:
    """What a detector finds in one image, of D objects.

    Attributes:
        boxes: left, top, right and bottom ``[D, 4]``, in pixels of the image.
        labels: classes ``[D]``.
        scores: confidences ``[D]``, in [0, 1].
        masks: where each object is, in [0, 1], ``[D, H, W]``, or where those that come first are; None of a detector of
            boxes alone.
        relative: whether boxes are in shares of the image's width and height instead of pixels.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor | None = None
    relative: bool = False

    def __len__(self) -> int:
        return len(self.scores)

    def in_pixels(self, height: int, width: int) -> Tensor:
        """The boxes in pixels of an image of some size, ``[D, 4]``."""
        return self.boxes * self.boxes.new_tensor([width, height, width, height]) if self.relative else self.boxes

    def ranked(self) -> Tensor:
        """Numbers of the detections ``[D]``, the most confident first; equal ones in their own order."""
        return self.scores.detach().argsort(descending=True, stable=True)

    def kept(self) -> Detections:
        """A copy without graph, the most confident first, with the masks of these: each is as large as an image."""
        order = self.ranked()
        masks = None if self.masks is None else self.masks.detach()[order[:_MASKS]] > 0.5
        boxes, labels, scores = (part.detach()[order] for part in (self.boxes, self.labels, self.scores))
        return Detections(boxes, labels, scores, masks, self.relative)


def detections_of(outputs: Any) -> list[Detections] | None:
    """What a detector found, image by image; None if a model's output is no detection.

    Known are a list with a dict for each image, ``boxes``, ``scores``, ``labels`` and ``masks`` (torchvision), also
    beside losses in a tuple; one dict of these with a dimension of samples; and ``logits`` or ``pred_logits`` with
    ``pred_boxes``, ``[N, queries, ...]`` (DETR): softmax without the last class, which is none, and boxes as centers
    and sizes in shares of the image.

    Args:
        outputs: what the model returned.

    >>> image = {"boxes": torch.tensor([[0.0, 0.0, 4.0, 2.0]]), "scores": torch.tensor([0.9])}
    >>> [len(detections) for detections in detections_of([image, image])]
    [1, 1]
    """
    if isinstance(outputs, Mapping):
        return _of_fields(outputs)
    if isinstance(outputs, (list, tuple)):
        parts = [_of_image(part) if isinstance(part, Mapping) else None for part in outputs]
        found = [part for part in parts if part is not None]
        if outputs and len(found) == len(outputs):
            return found
        return next((inner for part in outputs if (inner := detections_of(part)) is not None), None)
    fields = {name: getattr(outputs, name, None) for name in (*_LOGIT_NAMES, *_BOX_NAMES)}
    return _of_fields({name: value for name, value in fields.items() if isinstance(value, Tensor)})


def _of_image(fields: Mapping[str, Any]) -> Detections | None:
    """What was found in one image, of a dict ``boxes [D, 4]``, ``scores [D]``."""
    boxes, scores = fields.get("boxes"), fields.get("scores")
    if not isinstance(boxes, Tensor) or not isinstance(scores, Tensor) or boxes.dim() != 2 or boxes.shape[1] != 4:
        return None
    labels, masks = fields.get("labels"), fields.get("masks")
    masks = masks.flatten(1, 2) if isinstance(masks, Tensor) and masks.dim() == 4 and masks.shape[1] == 1 else masks
    labels = labels.long() if isinstance(labels, Tensor) else torch.zeros_like(scores, dtype=torch.long)
    return Detections(boxes, labels, scores, masks if isinstance(masks, Tensor) and masks.dim() == 3 else None)


def _of_fields(fields: Mapping[str, Any]) -> list[Detections] | None:
    """What was found in all images, of one dict with a dimension of samples."""
    boxes: Any = next((fields[name] for name in _BOX_NAMES if name in fields), None)
    logits = next((fields[name] for name in _LOGIT_NAMES if name in fields), None)
    if isinstance(boxes, Tensor) and isinstance(logits, Tensor):
        scores, labels = logits.softmax(-1)[..., :-1].max(-1)
        return [Detections(*parts, relative=True) for parts in zip(corners_of(boxes), labels, scores, strict=True)]
    boxes, confidences = fields.get("boxes"), fields.get("scores")
    if not isinstance(boxes, Tensor) or not isinstance(confidences, Tensor):
        return None
    if boxes.dim() == 2:
        alone = _of_image(fields)
        return None if alone is None else [alone]
    if boxes.dim() != 3 or boxes.shape[2] != 4:
        return None
    names = [name for name in ("boxes", "scores", "labels", "masks") if isinstance(fields.get(name), Tensor)]
    images = [_of_image({name: fields[name][index] for name in names}) for index in range(len(boxes))]
    return [image for image in images if image is not None]


def corners_of(boxes: Tensor) -> Tensor:
    """Left, top, right and bottom ``[..., 4]`` of boxes that are given by their centers and sizes."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], -1)


def overlaps(boxes: Tensor, fixed: Tensor) -> Tensor:
    """Intersection over union of boxes ``[D, 4]`` with a fixed one ``[4]``, in ``[D]``.

    It has a kink where both are the same, which no gradient describes: there it counts as constant.
    """
    size = torch.minimum(boxes[:, 2:], fixed[2:]) - torch.maximum(boxes[:, :2], fixed[:2])
    size = torch.where(size > 0, size, 0.0)  # no ReLU, which rules at ReLUs would take for one of the model's
    shared = size[:, 0] * size[:, 1]
    whole = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) + (fixed[2] - fixed[0]) * (fixed[3] - fixed[1])
    union = whole - shared
    ratio = shared / torch.where(union > 1e-12, union, 1e-12)
    return torch.where(ratio > 1 - _SAME, ratio.detach(), ratio)


@dataclass
class Extents:
    """The share of their maps that images take up, in height and width ``[N, 2]``; None if they fill them."""

    shares: Tensor | None = None


@contextmanager
def resized_images(model: nn.Module) -> Iterator[Extents]:
    """Context in which it is seen how a detector of torchvision's resizes its images and pads them to one size.

    Its layers' maps cover the padding, too: an image begins at their top left and takes up a share of them.
    """
    extents = Extents()

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        images = output[0]
        extents.shares = torch.tensor(images.image_sizes) / torch.tensor(images.tensors.shape[2:])

    handles = [
        module.register_forward_hook(hook)
        for module in model.modules()
        if "GeneralizedRCNNTransform" in [kind.__name__ for kind in type(module).__mro__]
    ]
    try:
        yield extents
    finally:
        for handle in handles:
            handle.remove()
