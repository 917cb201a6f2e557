"""What attacks raise: functions of scores and classes, of each sample its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
"""From scores ``[n, K]`` and classes ``[n]`` to what an attack raises, ``[n]``."""


def cross_entropy(scores: Tensor, classes: Tensor) -> Tensor:
    r"""Minus the log probability of a class, :math:`-\log \operatorname{softmax}(z)_y`, in double precision.

    In single precision nothing is left of 1 - p when the model is surer than 1 - 6e-8: the label's own part is then
    missing from the gradient, and what is left points elsewhere.

    Args:
        scores: logits, ``[n, K]``.
        classes: ``[n]``.
    """
    precise = scores if scores.device.type == "mps" else scores.double()  # which has no double precision
    return F.cross_entropy(precise, classes, reduction="none")


def margin(scores: Tensor, classes: Tensor) -> Tensor:
    r"""By how much the best other class leads: :math:`\max_{j \ne y} z_j - z_y` (Carlini and Wagner, 2017).

    Args:
        scores: logits, ``[n, K]``.
        classes: ``[n]``.
    """
    return scores.scatter(1, classes[:, None], -torch.inf).amax(1) - _own(scores, classes)


def _own(scores: Tensor, classes: Tensor) -> Tensor:
    return scores.gather(1, classes[:, None])[:, 0]
