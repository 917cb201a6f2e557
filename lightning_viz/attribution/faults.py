"""What can be wrong with an attribution, so that it is said rather than drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_viz.hooks.observation import Observation, ReLUs
from lightning_viz.hooks.structure import all_tensors, has_samples, in_place_of_tensors, sample_count
from lightning_viz.hooks.telling import tell


class AttributionWarning(UserWarning):
    """A map that is right, but not what its name promises."""


class NoGradientError(RuntimeError):
    """The target does not depend, differentiably, on what the gradient was asked towards."""

    def __init__(
        self, message: str = "the target does not depend on the input: does the model detach it, or use no_grad inside?"
    ) -> None:
        super().__init__(message)


class InterceptionError(RuntimeError):
    """A backward rule at ReLUs met no ReLU, or not all of them."""


def check_gradient(found: Any, inputs: Any) -> None:
    """See that a gradient towards the inputs is there, and warn of samples for which it is exactly zero.

    Args:
        found: in the form of the inputs, for each ``[N, ...]``, or ``[T, N, ...]`` for several targets, or None.
        inputs: what it was taken towards.

    Raises:
        NoGradientError: the target does not depend on any input.
    """
    pairs = list(zip(in_place_of_tensors(found, inputs), all_tensors(inputs), strict=True))
    if all(gradient is None for gradient, _ in pairs):
        raise NoGradientError
    count = sample_count(inputs)
    by_sample = [
        gradient.transpose(0, gradient.dim() - x.dim()).reshape(count, -1).any(1)
        for gradient, x in pairs
        if gradient is not None and has_samples(x, count)
    ]
    if not by_sample:
        return
    zero = (~torch.stack(by_sample).any(0)).nonzero().flatten().tolist()
    if zero:
        which = "every sample" if len(zero) == len(by_sample[0]) else f"samples {zero}"
        warn(f"the gradient is exactly zero for {which}: nothing that the network passes on moves the target there")


def check_relus(relus: ReLUs | None, rule: str) -> str:
    """See that a rule changed what it should, and tell what it does not apply to.

    Args:
        relus: what the rule came upon; None where the target depends on nothing.
        rule: its name.

    Returns:
        A sentence on activations that stayed plain; empty if there are none.

    Raises:
        InterceptionError: some ReLUs ran past it, or it met none.
    """
    if relus is None:
        return ""
    others = ", ".join(relus.others)
    if relus.escaped:
        raise InterceptionError(
            f"the {rule} rule did not reach {', '.join(relus.escaped)}: give the model as it was before it was "
            "traced, scripted or wrapped"
        )
    if not relus.met:
        instead = f" (its activations are {others})" if others else ""
        raise InterceptionError(
            f"the {rule} rule met no ReLU{instead}: the map would be the plain gradient, use `gradient` for it"
        )
    return f"the {rule} rule changed {relus.met} ReLUs; {others} have no such rule and stay plain" if others else ""


def scores_of(seen: Observation) -> Tensor:
    """The explained scalars of a pass.

    Args:
        seen: the pass.

    Raises:
        TypeError: the model returned nothing that could be explained.
    """
    if seen.scores is None:
        raise TypeError(
            "the model returned no scores [N, classes]: give a function of its output as target, or forward="
        )
    return seen.scores


def warn(message: str) -> None:
    """Say it to whoever asked for the map.

    Args:
        message: what is to be known of the map; nothing is said if it is empty.
    """
    if message:
        tell(message, AttributionWarning)
