"""Layer-wise relevance propagation: the target handed back layer by layer, each input's share by size."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_viz._docstrings import documented_like
from lightning_viz.attribution.gradients import check_gradient, gradient
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.calls import as_call, as_given, call_model
from lightning_viz.hooks.observe import Forward, observe
from lightning_viz.hooks.relevance import Relevance, RelevanceTarget
from lightning_viz.hooks.targets import TargetLike, as_target

__all__ = ["lrp"]


@documented_like(gradient)
def lrp(  # noqa: D417 (see gradient)
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    epsilon: float = 1e-6,
    forward: Forward | None = None,
) -> Any:
    r"""LRP: hands the target back layer by layer, to each input its share of what the layer summed (Bach et al., 2015).

    .. math:: R_j = \sum_k \frac{\tilde x_j \tilde w_{jk}}{\sum_i \tilde x_i \tilde w_{ik} + \tilde b_k} R_k

    with a rule for each kind of layer (Montavon et al., 2019): in linear layers, poolings and sums the values
    themselves and epsilon added to the denominator (LRP-epsilon); in convolutions positive products alone (z+); at the
    input ones in place of values and weights (flat), so that a color image's channels are equal, and those of a fully
    connected first layer all inputs. Batch normalization is folded into the layer before it; max-pooling hands
    everything to its maximum; activation functions pass it on. Without biases the map sums to the target.

    Args:
        epsilon: of the denominators, in units of the activation and with their sign (1e-6: zennit's).

    Returns:
        The relevance, in the form and shape of `inputs`, in logits; None for an input on which the target does not
        depend. Several targets stand in a leading dimension.

    Raises:
        InterceptionError: a part of the model has no rule: attention, layer normalization, products of activations,
            batch normalization that does not follow a layer, TorchScript, an output that softmax squashes.
        NoGradientError: the target does not depend on the input, or the model detaches it.
        InvalidArgumentError: `epsilon` is not positive.
    """
    if not epsilon > 0:
        raise InvalidArgumentError(f"epsilon is {epsilon}: give a number above 0, which keeps denominators from 0")
    whole = as_call(inputs)

    def ruled(model: nn.Module, inputs: Any) -> Any:
        with Relevance(epsilon):
            return call_model(model, inputs, forward)

    explained = RelevanceTarget(as_target(target, model=model), model)
    relevance = observe(model, whole, explained, input_gradient=True, forward=ruled).input_gradient
    check_gradient(relevance, whole)
    return as_given(relevance, inputs)
