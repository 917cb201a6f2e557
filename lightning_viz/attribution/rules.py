"""The gradient towards the input under other backward rules at ReLUs."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_viz.attribution.faults import check_gradient, check_relus
from lightning_viz.hooks.observing import Forward, observe
from lightning_viz.hooks.relu import Rule
from lightning_viz.hooks.target import Target


def guided_backprop(model: nn.Module, inputs: Any, target: Target = None, *, forward: Forward | None = None) -> Any:
    r"""The gradient, of which each ReLU passes back what is positive and where it was on (Springenberg et al., 2015).

    At a ReLU with input s, from the gradient g above it: :math:`1[s > 0]\, 1[g > 0]\, g`, however the ReLU is called
    (see `lightning_viz.hooks.relu_rule`).

    Args:
        model: any module; left as found.
        inputs: as the model takes them, ``[N, C, H, W]`` for images; several as a tuple or dict.
        target: what to explain, see `Target`; the predicted class if omitted.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        In the form and shape of `inputs`; None for an input on which the target does not depend.

    Raises:
        InterceptionError: the model has no ReLU, or runs some where no rule reaches them (TorchScript).
        NoGradientError: the target does not depend on the input, or the model detaches it.
    """
    return _ruled(model, inputs, target, "guided", forward)


def deconvolution(model: nn.Module, inputs: Any, target: Target = None, *, forward: Forward | None = None) -> Any:
    r"""The gradient, of which each ReLU passes back what is positive (Zeiler and Fergus, 2014).

    At a ReLU, from the gradient g above it: :math:`1[g > 0]\, g`; max-pooling's switches are autograd's own.

    Args:
        model: any module; left as found.
        inputs: as the model takes them, ``[N, C, H, W]`` for images; several as a tuple or dict.
        target: what to explain, see `Target`; the predicted class if omitted.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        In the form and shape of `inputs`; None for an input on which the target does not depend.

    Raises:
        InterceptionError: the model has no ReLU, or runs some where no rule reaches them (TorchScript).
        NoGradientError: the target does not depend on the input, or the model detaches it.
    """
    return _ruled(model, inputs, target, "deconvolution", forward)


def _ruled(model: nn.Module, inputs: Any, target: Target, rule: Rule, forward: Forward | None) -> Any:
    seen = observe(model, inputs, target, rules=(rule,), forward=forward)
    check_relus(seen.relus, rule)
    check_gradient(seen.ruled[rule], inputs)
    return seen.ruled[rule]
