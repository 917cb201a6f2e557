"""The gradient towards the input under other backward rules at ReLUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_viz.attribution.cam import Maps, by_mean_gradient, cams
from lightning_viz.attribution.gradients import check_gradient, check_relus, warn_attribution
from lightning_viz.errors import InvalidArgumentError, NoGradientError
from lightning_viz.hooks.layers import Layers
from lightning_viz.hooks.observe import Forward, observe
from lightning_viz.hooks.pytree import all_tensors, flatten_like, image_of
from lightning_viz.hooks.relu import Rule
from lightning_viz.hooks.targets import Target

__all__ = ["deconvolution", "guided_backprop", "guided_grad_cam"]


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


def guided_grad_cam(
    model: nn.Module,
    inputs: Any,
    target: Target = None,
    *,
    layers: Layers = "last_maps",
    maps: Maps | None = None,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    """The guided map where Grad-CAM finds evidence (Selvaraju et al., 2017): their product, from one forward.

    Args:
        model: any module; left as found.
        inputs: as the model takes them, an image ``[N, C, H, W]`` among them.
        target: what to explain, see `Target`; the predicted class if omitted.
        layers: as for `grad_cam`.
        maps: as for `grad_cam`.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        For each call of each layer guided backpropagation towards the image, times the layer's Grad-CAM at the
        image's size (bilinear), ``[N, C, H, W]``. Several targets stand in a leading dimension.

    Raises:
        InterceptionError: the model has no ReLU, or runs some where no rule reaches them (TorchScript).
        NoGradientError: the target does not depend on the image.
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        LayerNotReachedError: the forward pass does not call the layer.
        ValueError: the inputs hold no image, a layer has no places, or the target does not depend on it.
    """
    image = image_of(inputs)
    if image is None:
        raise InvalidArgumentError("guided_grad_cam needs an image [N, C, H, W] among the inputs")
    seen = observe(model, inputs, target, layers=layers, gradients=True, rules=("guided",), forward=forward)
    warn_attribution(check_relus(seen.relus, "guided"))
    check_gradient(seen.ruled["guided"], inputs)
    place = next(place for place, x in enumerate(all_tensors(inputs)) if x is image)
    guided = flatten_like(seen.ruled["guided"], inputs)[place]
    if guided is None:
        raise NoGradientError
    heats = cams(by_mean_gradient, model, seen, layers, maps)
    return {call: guided * enlarged(heat, image.shape[2:]) for call, heat in heats.items()}


def enlarged(heat: Tensor, size: Sequence[int]) -> Tensor:
    """Maps at an image's size, bilinear.

    Args:
        heat: ``[..., 1, h, w]``.
        size: height and width.
    """
    large = F.interpolate(heat.reshape(-1, 1, *heat.shape[-2:]), tuple(size), mode="bilinear", align_corners=False)
    return large.view(*heat.shape[:-2], *large.shape[-2:])


def _ruled(model: nn.Module, inputs: Any, target: Target, rule: Rule, forward: Forward | None) -> Any:
    seen = observe(model, inputs, target, rules=(rule,), forward=forward)
    warn_attribution(check_relus(seen.relus, rule))
    check_gradient(seen.ruled[rule], inputs)
    return seen.ruled[rule]
