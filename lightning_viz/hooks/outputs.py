"""What a model's output means: which tensor holds scores, and of what."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.hooks.detection import detections_of
from lightning_viz.hooks.pytree import first_tensor

__all__ = ["class_scores"]


def class_scores(outputs: Any, mask: Tensor | None = None) -> Tensor:
    """Scores ``[N, classes]`` of what a model returned: its first tensor, summed over places where it has any.

    Args:
        outputs: what the model returned.
        mask: the places that count, ``[H, W]`` or ``[N, H, W]``; all if omitted.

    Raises:
        InvalidTypeError: the output holds no floating-point tensor with a sample dimension.
        InvalidArgumentError: the mask does not fit the output.
    """
    if detections_of(outputs) is not None:
        raise InvalidArgumentError(
            "the model is a detector, which scores boxes and no image: give target='box[0]', or forward="
        )
    scores = first_tensor(outputs)
    if scores is None or scores.dim() == 0:
        raise InvalidTypeError(
            f"the model returned {type(outputs).__name__} without a floating-point tensor [N, classes]: "
            "give a function from the output to one scalar per sample as target, or forward="
        )
    if mask is not None:
        shape = list(scores.shape)
        if scores.dim() != 4 or list(mask.shape) not in (shape[2:], [shape[0], *shape[2:]]):
            raise InvalidArgumentError(f"the mask is {list(mask.shape)}, the output {shape}: give [H, W] of it")
        mask = mask.clone() if mask.is_inference() else mask  # to be kept for a backward
        scores = scores * mask.to(scores).unsqueeze(-3)
    return scores.unsqueeze(1) if scores.dim() == 1 else scores.flatten(2).sum(2) if scores.dim() > 2 else scores
