"""Norms of perturbations, with their random starts, step directions and projections; losses of attacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_viz.errors import InvalidArgumentError, by_name

__all__ = ["L2", "LINF", "Norm", "cross_entropy", "dlr", "margin"]

MIN_LENGTH = 1e-12
"""Lower bound of lengths in a denominator."""


class Norm(Protocol):
    """Interface of a norm. Tensors are ``[n, ...]``, lengths ``[n]``, in pixels."""

    @property
    def name(self) -> str:
        """Name for display."""

    def length(self, perturbations: Tensor) -> Tensor:
        """Length of each perturbation, ``[n]``."""

    def inside(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """A random perturbation for each sample, uniform in the ball of radius 1."""

    def normalize(self, gradients: Tensor) -> Tensor:
        """The direction of steepest ascent with length 1; 0 if the gradient is zero."""

    def project(self, perturbations: Tensor, epsilon: Tensor) -> Tensor:
        """The nearest perturbation in the ball of radius epsilon of each sample."""


@dataclass(frozen=True)
class _LInf:
    """The largest change of a pixel."""

    name: ClassVar[str] = "L-inf"

    def length(self, perturbations: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(perturbations.flatten(1), torch.inf, dim=1)
        return length

    def inside(self, like: Tensor, generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device) - 1

    def normalize(self, gradients: Tensor) -> Tensor:
        return gradients.sign()

    def project(self, perturbations: Tensor, epsilon: Tensor) -> Tensor:
        bounds = per_sample(epsilon, perturbations)
        return perturbations.clamp(-bounds, bounds)


@dataclass(frozen=True)
class _L2:
    """The Euclidean length of all pixels' changes."""

    name: ClassVar[str] = "L2"

    def length(self, perturbations: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(perturbations.flatten(1), dim=1)
        return length

    def inside(self, like: Tensor, generator: torch.Generator) -> Tensor:
        kind, device = like.dtype, like.device
        radii = torch.rand(len(like), generator=generator, dtype=kind, device=device) ** (1 / like[0].numel())
        directions = torch.randn(like.shape, generator=generator, dtype=kind, device=device)
        return per_sample(radii, like) * self.normalize(directions)

    def normalize(self, gradients: Tensor) -> Tensor:
        exponents = torch.frexp(gradients.flatten(1).abs().amax(1)).exponent
        scaled = torch.ldexp(gradients, -per_sample(exponents, gradients))  # so that no square underflows
        return scaled / per_sample(self.length(scaled).clamp_min(MIN_LENGTH), scaled)

    def project(self, perturbations: Tensor, epsilon: Tensor) -> Tensor:
        shares = (epsilon / self.length(perturbations).clamp_min(MIN_LENGTH)).clamp_max(1)
        return perturbations * per_sample(shares, perturbations)


LINF = _LInf()
"""The largest change of any pixel; steps by the gradient's sign."""

L2 = _L2()
"""The Euclidean length of the change; steps along the gradient."""


NormName = Literal["linf", "l2"]

NORMS: Mapping[str, Norm] = MappingProxyType({"linf": LINF, "l2": L2})
"""By the name that functions, views and commands take."""


def resolve_norm(norm: Norm | str) -> Norm:
    """A norm, given as an object or by its name."""
    return by_name(NORMS, norm, "norm")


def of_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """Some rows of a tensor; itself, and no copy, where they are all.

    Args:
        tensor: ``[N, ...]``.
        rows: rising numbers ``[n]``.
    """
    return tensor if len(rows) == len(tensor) else tensor[rows]


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """One number per sample, shaped to broadcast.

    Args:
        values: ``[n]``.
        like: what they are to meet, ``[n, ...]``; they take its type and device.
    """
    return values.to(like).view(-1, *[1] * (like.dim() - 1))


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
    return scores.scatter(1, classes[:, None], -torch.inf).amax(1) - scores.gather(1, classes[:, None])[:, 0]


def dlr(scores: Tensor, classes: Tensor) -> Tensor:
    r"""Difference of logits ratio: the margin on a scale of the scores' own (Croce and Hein, 2020).

    .. math:: \frac{\max_{j \ne y} z_j - z_y}{z_{\pi_1} - z_{\pi_3}}

    with pi the classes by descending score. Scores that are shifted or scaled have the same loss.

    Args:
        scores: logits, ``[n, K]``.
        classes: ``[n]``.

    Raises:
        InvalidArgumentError: there are fewer than three classes.
    """
    first, _, third = _highest_scores(scores, 3)
    return margin(scores, classes) / (first - third + MIN_LENGTH)


def targeted_dlr(scores: Tensor, classes: Tensor, target: Tensor) -> Tensor:
    r"""The targeted form of `dlr`, which is not its opposite: the target's lead, over the spread of the highest scores.

    .. math:: \frac{z_t - z_y}{z_{\pi_1} - (z_{\pi_3} + z_{\pi_4}) / 2}

    Args:
        scores: logits, ``[n, K]``.
        classes: to lead away from, ``[n]``.
        target: classes to lead to, ``[n]``.

    Raises:
        InvalidArgumentError: there are fewer than four classes.
    """
    first, _, third, fourth = _highest_scores(scores, 4)
    away, to = (scores.gather(1, of[:, None])[:, 0] for of in (classes, target))
    return (to - away) / (first - (third + fourth) / 2 + MIN_LENGTH)


def _highest_scores(scores: Tensor, count: int) -> tuple[Tensor, ...]:
    """The highest scores in descending order, each ``[n]``."""
    if scores.shape[1] < count:
        raise InvalidArgumentError(
            f"loss='dlr' needs {count} classes{' with a target' * (count == 4)}, the model has {scores.shape[1]}; "
            "pass 'cross_entropy' or 'margin'"
        )
    return scores.topk(count, dim=1).values.unbind(1)


LossName = Literal["cross_entropy", "margin", "dlr"]

LOSSES: Mapping[str, Loss] = MappingProxyType({"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr})
"""By the name that functions and commands take."""


def resolve_loss(loss: Loss | str) -> Loss:
    """A loss, given as a function or by its name."""
    return by_name(LOSSES, loss, "loss")
