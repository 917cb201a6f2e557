"""The target of a detector: one of its detections, which keeps its class and box while the image is changed."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_viz.errors import AttributionWarning, InvalidArgumentError, format_indices, warn_user
from lightning_viz.hooks.detection import WEAK, Detections, detections_of, overlaps
from lightning_viz.hooks.recording import Activations
from lightning_viz.hooks.target_types import ClassTarget, Scores, Target
from lightning_viz.host_copies import to_device

__all__ = ["box"]

NO_CLASS = -1
"""The class of a detection that an image does not have."""


def box(index: int = 0) -> Target:
    r"""A detection: class and box of each image's most confident one, or of the next (D-RISE; Petsiuk et al., 2021).

    Both are fixed on the image as it is given. In every later pass, of a covered or attacked image say, the target is

    .. math:: \max_d \; s_d \operatorname{IoU}(b_d, b), \qquad d \text{ of the fixed class}

    over the detections of that pass, with scores s and boxes b; 0 if there is none.

    Args:
        index: 0 for the most confident detection of each image, 1 for the next.

    Raises:
        InvalidArgumentError: `index` is negative.

    >>> box(1)
    box[1]
    """
    return BoxTarget(index)


class BoxTarget(Target):
    """The score of a detection; see `box`.

    Attributes:
        index: among each image's detections, the most confident first.
        boxes: as they were found in the unchanged images, ``[N, 4]``; None until then.
        labels: likewise, ``[N]``; -1 for an image without such a detection.
    """

    def __init__(self, index: int = 0, boxes: Tensor | None = None, labels: Tensor | None = None) -> None:
        if index < 0:
            raise InvalidArgumentError(f"box[{index}]: give 0 for the most confident detection, 1 for the next")
        super().__init__(f"box[{index}]", outputs=True)
        self.index, self.boxes, self.labels = index, boxes, labels

    @property
    def open(self) -> bool:
        return self.boxes is None

    def scores(self, activations: Activations) -> Scores:
        images = detections_of(activations.outputs)
        if images is None:
            raise InvalidArgumentError(
                f"target {self.name}: the model returns {type(activations.outputs).__name__} without boxes and scores; "
                "give a class, or forward= that returns a list of dicts with 'boxes', 'labels' and 'scores'"
            )
        target = self._fixed(images) if self.boxes is None or self.labels is None else self
        assert target.boxes is not None and target.labels is not None
        target.check_count(len(images))
        values = [_score(*parts) for parts in zip(images, target.boxes, target.labels, strict=True)]
        return Scores(torch.stack(values), target.labels, target)

    def select(self, samples: Tensor) -> Target:
        boxes, labels = (None if x is None else x[to_device(samples, x.device)] for x in (self.boxes, self.labels))
        return BoxTarget(self.index, boxes, labels)

    def check_count(self, count: int) -> None:
        if self.boxes is not None and len(self.boxes) != count:
            raise InvalidArgumentError(f"target {self.name} was fixed on {len(self.boxes)} images, not {count}")

    def _fixed(self, images: list[Detections]) -> BoxTarget:
        """With class and box of the detections of these images."""
        boxes = torch.zeros(len(images), 4, device=images[0].boxes.device, dtype=images[0].boxes.dtype)
        labels = torch.full((len(images),), NO_CLASS, device=boxes.device)
        for number, image in enumerate(images):
            if self.index < len(image):
                place = image.ranked()[self.index]
                boxes[number], labels[number] = image.boxes[place].detach(), image.labels[place]
        if missing := (labels == NO_CLASS).nonzero().flatten().tolist():
            which = "the images" if len(missing) == len(images) else f"images {format_indices(missing)}"
            warn_user(f"{self.name}: no detection above {WEAK} in {which}, so the target is 0", AttributionWarning)
        return BoxTarget(self.index, boxes, labels)


def _score(image: Detections, fixed: Tensor, label: Tensor) -> Tensor:
    """The largest score times overlap of detections of a class, a scalar."""
    same = image.labels == label
    if not bool(same.any()):
        return image.scores.sum() * 0 + image.boxes.sum() * 0  # of whatever graph there is
    return (image.scores[same] * overlaps(image.boxes[same], fixed.to(image.boxes))).max()


def detector_target(target: Target) -> Target:
    """The target of a detector where a class was meant: its most confident detection for the predicted class.

    Raises:
        InvalidArgumentError: a class is named, and a detector scores no image.
    """
    if not isinstance(target, ClassTarget):
        return target
    if target.word is None and target.index is None and target.count is None and target.mask is None:
        return BoxTarget()
    raise InvalidArgumentError(
        f"target {target.name!r}: the model is a detector, which gives classes to boxes, not to an image: give "
        "'box[0]', each image's most confident detection, 'box[1]', the next, or a function of the list of dicts"
    )
