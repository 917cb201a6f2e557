"""Where a model's output meets labels or a loss in its own step, and in what form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_viz.callbacks.batch_parts import tensors_of
from lightning_viz.callbacks.batch_sources import same_memory
from lightning_viz.hooks.pytree import Path


@dataclass(frozen=True)
class Meeting:
    """An output meets another part of the batch, or goes into a loss.

    Attributes:
        calls: numbers of the calls of modules whose outputs meet.
        labels: where the part is in the batch; None where the output meets none.
        loss: name of the loss; empty if it is none.
        logarithm: whether the loss is given the logarithm of the output.
        scores: keys of the tensor that meets, in what the module returned; None if it is made of several, or changed.
        direct: whether there is a number for each of the output's, not similarities of samples, say.
        shift: what was added to the labels before; None if they were changed otherwise.
        paired: whether the labels tell which samples are alike.
        itself: whether the output is compared with an input of the model.
    """

    calls: frozenset[int]
    labels: Path | None
    loss: str
    logarithm: bool
    scores: Path | None = None
    direct: bool = True
    shift: int | None = 0
    paired: bool = False
    itself: bool = False


def form_of_meeting(
    outputs: Sequence[Any], scored: Sequence[Tensor], part: Any, labels: Tensor | None
) -> dict[str, Any]:
    """The form in which outputs meet labels, as arguments of a `Meeting`.

    Args:
        outputs: of the calls of modules.
        scored: what the loss, or the comparison, is given of them.
        part: the labels in the batch.
        labels: what it is given of these; None if nothing.
    """
    own = [(path, x) for output in outputs for path, x in tensors_of(output)]
    return {
        "scores": next((path for path, x in own for y in scored if _is_view(x, y)), None),
        "direct": any(_alike(x, y) for _, x in own for y in scored),
        "shift": 0 if labels is None or not isinstance(part, Tensor) else _shift(part, labels),
        "paired": labels is not None and isinstance(part, Tensor) and _pairs(part, labels),
    }


def _is_view(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are the same, or all values of one in another shape."""
    return first is second or (first.numel() == second.numel() and same_memory(first, second))


def _alike(output: Tensor, scored: Tensor) -> bool:
    """Whether a loss is given the numbers of an output, of all samples or of some, in another order of axes perhaps."""
    sizes, given = (sorted(size for size in x.shape if size > 1) for x in (output, scored))
    if sizes == given:
        return True
    if output.numel() == scored.numel() and output.dim() > 2:
        return scored.shape[-1] in output.shape
    same_classes = output.dim() == scored.dim() == 2 and output.shape[1] == scored.shape[1]
    return same_classes and len(scored) <= len(output)


def _shift(part: Tensor, labels: Tensor) -> int | None:
    if labels.is_floating_point() or labels.dtype is torch.bool or part.numel() != labels.numel() or not part.numel():
        return 0
    steps = labels.reshape(-1).double() - part.reshape(-1).double()
    return int(steps[0]) if bool((steps == steps[0]).all()) and float(steps[0]).is_integer() else None


def _pairs(part: Tensor, labels: Tensor) -> bool:
    count = len(part) if part.dim() else 0
    square = count > 1 and part.dim() == 1 and tuple(labels.shape) == (count, count)
    return square and torch.equal(labels, labels.T)
