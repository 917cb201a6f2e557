"""The target: the scalar, one per sample, that is explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Union

import torch
from torch import Tensor

from lightning_viz.hooks.structure import first_tensor

Target = Union[int, Sequence[int], Tensor, Callable[[Any], Tensor], None]
"""A class index for all samples or one for each, a function from the model's output to ``[N]``, or None: predicted."""


def class_scores(outputs: Any) -> Tensor:
    """Scores ``[N, classes]`` of what a model returned: its first tensor, summed over positions where it has any.

    Raises:
        TypeError: the output holds no floating-point tensor with a sample dimension.
    """
    scores = first_tensor(outputs)
    if scores is None or scores.dim() == 0:
        raise TypeError(
            f"the model returned {type(outputs).__name__} without a floating-point tensor [N, classes]: "
            "give a function from the output to one scalar per sample as target, or forward="
        )
    return scores.unsqueeze(1) if scores.dim() == 1 else scores.flatten(2).sum(2) if scores.dim() > 2 else scores


def target_scores(outputs: Any, target: Target) -> tuple[Tensor, Tensor | None]:
    """The scalars to explain ``[N]``, and the class indices ``[N]`` that they belong to (None for a function).

    Args:
        outputs: what the model returned.
        target: see `Target`.

    Raises:
        ValueError: a class index that the model does not have, or not one index per sample.
    """
    if callable(target):
        scalars = target(outputs)
        return (scalars if scalars.dim() == 1 else scalars.flatten(1).sum(1)), None
    scores = class_scores(outputs)
    if target is None:
        chosen = scores.detach().argmax(1)
    else:
        chosen = torch.as_tensor(target, device=scores.device).long()
        chosen = chosen.expand(len(scores)) if chosen.dim() == 0 else chosen.flatten()
    count = scores.shape[1]
    if len(chosen) != len(scores):
        raise ValueError(f"{len(chosen)} targets for {len(scores)} samples: give one class, or one per sample")
    if count == 1:
        chosen = torch.zeros_like(chosen)  # one output: a regression, or a binary classifier's single logit
    elif len(chosen) and not (0 <= int(chosen.min()) and int(chosen.max()) < count):
        raise ValueError(f"target class {chosen.tolist()} is out of range: the model has {count} outputs")
    return scores.gather(1, chosen[:, None]).squeeze(1), chosen
