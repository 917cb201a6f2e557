"""The gradient of a target with respect to the input: plain, times the input, integrated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lightning_viz._docstrings import documented_like
from lightning_viz.errors import (
    AttributionWarning,
    InterceptionError,
    InvalidArgumentError,
    InvalidTypeError,
    NoGradientError,
    warn_user,
)
from lightning_viz.hooks.batching import Batches
from lightning_viz.hooks.calls import as_call, as_given
from lightning_viz.hooks.observation import Observation, ReLUs
from lightning_viz.hooks.observe import Forward, observe, resolve_target
from lightning_viz.hooks.outputs import class_probabilities
from lightning_viz.hooks.pytree import (
    all_tensors,
    flatten_like,
    has_samples,
    map_tensors,
    sample_count,
    sample_size,
    take_samples,
)
from lightning_viz.hooks.target_types import ClassTarget, Target
from lightning_viz.hooks.targets import TargetLike
from lightning_viz.host_copies import to_device

__all__ = ["gradient", "input_times_gradient", "integrated_gradients"]

Move = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""From an input's index among the inputs, some of its samples ``[n, ...]``, and each one's copy and sample index
``[n]``, to the point at which the gradient is taken."""


class Statistic(NamedTuple):
    """What is computed of maps over all their copies.

    Attributes:
        moments: powers of a map, of which weighted sums are taken, in a leading dimension.
        combine: from these sums, in a leading dimension, to the statistic.
    """

    moments: Callable[[Tensor], Tensor]
    combine: Callable[[Tensor], Tensor]


MEAN = Statistic(lambda maps: maps[None], lambda sums: sums[0])


def gradient(model: nn.Module, inputs: Any, target: TargetLike = None, *, forward: Forward | None = None) -> Any:
    r"""Gradient: how the target changes with each input value, :math:`\partial y / \partial x` (Simonyan et al., 2014).

    Args:
        model: any module; left as found.
        inputs: as the model takes them, ``[N, C, H, W]`` for images, a list of ``[C, H, W]`` for a detector's; several
            as a tuple or dict.
        target: what to explain, see `TargetLike`; the predicted class if omitted.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        The gradient, in the form and shape of `inputs`, in logits per unit of input; None for an input on which the
        target does not depend; summed over samples for what all of them share, a scale say. Several targets stand in
        a leading dimension.

    Raises:
        NoGradientError: the target does not depend on the input, or the model detaches it.
    """
    whole = as_call(inputs)
    gradients = observe(model, whole, target, input_gradient=True, forward=forward).input_gradient
    check_gradient(gradients, whole)
    return as_given(gradients, inputs)


@documented_like(gradient)
def input_times_gradient(
    model: nn.Module, inputs: Any, target: TargetLike = None, *, forward: Forward | None = None
) -> Any:
    r"""Input × gradient: each value's contribution to first order (Shrikumar et al., 2016).

    .. math:: x \cdot \frac{\partial y}{\partial x}

    For a network of ReLUs and max-poolings without biases the contributions sum to the target itself.

    Returns:
        In the form and shape of `inputs`, in logits.
    """
    whole = as_call(inputs)
    return as_given(_times(gradient(model, whole, target, forward=forward), whole, all_tensors(whole)), inputs)


@documented_like(gradient)
def integrated_gradients(  # noqa: D417 (see gradient)
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    baseline: float | Any = 0.0,
    steps: int = 50,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> Any:
    r"""Integrated gradients: integrates the gradient from a baseline to the input (Sundararajan et al., 2017).

    .. math:: (x - x') \int_0^1 \frac{\partial y}{\partial x}\big(x' + t (x - x')\big)\, dt

    The integral by Gauss-Legendre quadrature. The sum over an input's values is :math:`y(x) - y(x')`, as far as the
    quadrature is exact: compare them, and take more steps if they differ.

    Args:
        target: what to explain, see `TargetLike`; the class predicted for the input if omitted.
        baseline: x', a number in the model's input values, or tensors in the form of `inputs` that broadcast to them
            (0: the paper's black; the mean image if inputs are normalized).
        steps: nodes of the quadrature (50: the paper finds 20 to 300 enough).
        batch_size: steps per pass; what suits the inputs and fits if None.
        progress: show a bar when it takes long.

    Returns:
        In the form and shape of `inputs`, in logits; None for integers and for what all samples share.

    Raises:
        NoGradientError: the target does not depend on the input.
        InvalidArgumentError: `steps` or `batch_size` is not positive.
    """
    if steps < 1:
        raise InvalidArgumentError(f"steps is {steps}: give 1 or more")
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(steps))
    whole = as_call(inputs)
    starts = _baselines(as_call(baseline), whole)

    def interpolated(index: int, x: Tensor, copies: Tensor, samples: Tensor) -> Tensor:
        start = starts[index][to_device(samples, x.device)]
        places = (nodes[copies] + 1) / 2  # from [-1, 1] to [0, 1]
        t = to_device(places, x.device, x.dtype).view(-1, *[1] * (x.dim() - 1))
        return start + t * (x - start)

    mean = mean_gradient(
        model,
        whole,
        target,
        move=interpolated,
        weights=weights / 2,
        batches=copy_batches(model, whole, steps, batch_size, progress, "integrated gradients"),
        forward=forward,
    )
    distances = [x - start if x.is_floating_point() else x for x, start in zip(all_tensors(whole), starts, strict=True)]
    return as_given(_times(mean, whole, distances), inputs)


def mean_gradient(
    model: nn.Module,
    inputs: Any,
    target: TargetLike,
    *,
    move: Move,
    weights: Tensor,
    batches: Batches,
    attribute: Callable[[Any, Target], Any] | None = None,
    statistic: Statistic = MEAN,
    forward: Forward | None = None,
) -> Any:
    """A weighted sum of gradients, each taken at another point near the inputs, or another statistic of them.

    Another method's maps, ``attribute(inputs, target)`` in the form of the inputs, may take the gradient's place.
    Classes that depend on the input are those of the inputs as given. Integers stay. The weights are those of the
    copies, ``[copies]``; batches go through ``copies * N`` items, the samples of a copy next to each other.
    """
    tensors = all_tensors(inputs)
    count = sample_count(inputs)
    fixed = resolve_target(model, inputs, target, forward=forward)
    totals: list[Tensor | None] = [None] * len(tensors)

    def plain(at: Any, of: Target) -> Any:
        return observe(model, at, of, input_gradient=True, forward=forward).input_gradient

    attributed = attribute or plain

    def add(items: Tensor) -> None:
        copies, samples = items // count, items % count
        moved = iter([_moved(index, x, copies, samples, count, move, batches) for index, x in enumerate(tensors)])
        at, of = map_tensors(inputs, lambda _: next(moved)), fixed.select(samples)
        gradients = attributed(at, of)
        shares = {}  # all of them first: what runs out of memory is done again, and must not have added a part
        for index, part in enumerate(flatten_like(gradients, inputs)):
            if part is not None and has_samples(tensors[index], count):
                part = part.to(torch.promote_types(part.dtype, torch.float32))  # half precision does not add up
                part = statistic.moments(part)
                dim = part.dim() - tensors[index].dim()  # 2 if several targets come between
                shape = (*part.shape[:dim], count, *part.shape[dim + 1 :])
                weight = to_device(weights[copies], part.device, part.dtype)
                shares[index] = (dim, part * weight.view(-1, *[1] * (tensors[index].dim() - 1)))
                totals[index] = part.new_zeros(shape) if totals[index] is None else totals[index]
        for index, (dim, share) in shares.items():
            total = totals[index]
            assert total is not None
            total.index_add_(dim, to_device(samples, share.device), share)

    batches.run(add)
    pairs = zip(totals, tensors, strict=True)
    sums = iter([total if total is None else statistic.combine(total).to(x) for total, x in pairs])
    mean = map_tensors(inputs, lambda _: next(sums))
    check_gradient(mean, inputs)
    return mean


def _moved(index: int, x: Tensor, copies: Tensor, samples: Tensor, count: int, move: Move, batches: Batches) -> Tensor:
    """Copies of an input's samples at which the gradient is taken; integers and what all samples share stay."""
    taken = take_samples(x, samples, count)
    moves = has_samples(x, count) and x.is_floating_point()
    return batches.lay_out(move(index, taken, copies, samples)) if moves else taken


def copy_batches(model: nn.Module, inputs: Any, copies: int, size: int | None, progress: bool, name: str) -> Batches:
    """The batches of so many copies of each sample."""
    return Batches(model, copies * sample_count(inputs), size, values=sample_size(inputs), progress=progress, name=name)


def value_range(tensor: Tensor) -> Tensor:
    """Each sample's maximum minus its minimum, shaped to go with it."""
    flat = tensor.reshape(len(tensor), -1)
    return (flat.amax(1) - flat.amin(1)).view(-1, *[1] * (tensor.dim() - 1))


def _baselines(baseline: Any, inputs: Any) -> list[Tensor]:
    """A baseline for each input, of its shape."""
    tensors = all_tensors(inputs)
    if isinstance(baseline, (int, float)):
        return [torch.full_like(x, baseline) for x in tensors]
    given = [torch.as_tensor(part) for part in flatten_like(baseline, inputs)]
    try:
        return [start.to(x).expand_as(x) for start, x in zip(given, tensors, strict=True)]
    except RuntimeError as error:
        shapes = [list(start.shape) for start in given], [list(x.shape) for x in tensors]
        raise InvalidArgumentError(f"baselines are {shapes[0]}, the inputs {shapes[1]}: they must broadcast") from error


def _times(gradients: Any, inputs: Any, factors: list[Tensor]) -> Any:
    parts = zip(flatten_like(gradients, inputs), factors, strict=True)
    products = iter([None if part is None else part * factor.detach() for part, factor in parts])
    return map_tensors(inputs, lambda _: next(products))


def check_gradient(gradients: Any, inputs: Any) -> None:
    """Check that there is a gradient with respect to the inputs, and warn of samples for which it is exactly zero.

    Raises:
        NoGradientError: the target does not depend on any input.
    """
    pairs = list(zip(flatten_like(gradients, inputs), all_tensors(inputs), strict=True))
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
        warn_attribution(f"the gradient is exactly zero for {which}: the target does not change with the input there")


def check_relus(relus: ReLUs | None, rule: str) -> str:
    """Check that a backward rule reached the model's ReLUs; there are none if the target depends on nothing.

    Returns:
        A sentence on activations to which it does not apply; empty if there are none.

    Raises:
        InterceptionError: it did not reach some ReLUs, or there are none.
    """
    if relus is None:
        return ""
    others = ", ".join(relus.others)
    if relus.escaped:
        raise InterceptionError(
            f"the {rule} rule did not reach {', '.join(relus.escaped)}: give the model before tracing or wrapping"
        )
    if not relus.met:
        instead = f" (its activations are {others})" if others else ""
        raise InterceptionError(
            f"the {rule} rule met no ReLU{instead}: the map would be the plain gradient, use `gradient` for it"
        )
    return f"the {rule} rule changed {relus.met} ReLUs; {others} have no such rule and stay plain" if others else ""


def scores_of(observation: Observation) -> Tensor:
    """The target's values in an observation.

    Raises:
        InvalidTypeError: the model returned nothing that could be explained.
    """
    if observation.scores is None:
        raise InvalidTypeError("the model returned no scores [N, classes]: give a function as target, or forward=")
    return observation.scores


def probabilities_of(observation: Observation, target: Target) -> Tensor:
    """The probability of the target's class in an observation, ``[N]`` or ``[T, N]``; its value if it is no class."""
    scores, outputs, meaning = scores_of(observation), observation.outputs, observation.meaning
    of_class = isinstance(target, ClassTarget) and target.mask is None and target.position is None
    if not of_class or outputs is None or outputs.dim() > 2 or meaning is None or not meaning.classifies:
        return scores.float()
    shares, classes = class_probabilities(outputs, meaning), observation.targets
    if classes is None:  # the only output, by itself
        return shares[:, 1]
    return shares.gather(1, classes.view(-1, len(shares)).T).T.reshape(scores.shape)


def warn_attribution(message: str) -> None:
    """Warn the caller of an attribution method of what to know about the map; an empty message is no warning."""
    if message:
        warn_user(message, AttributionWarning)
