"""Guided backpropagation, deconvolution and guided Grad-CAM: the input gradient under other rules at ReLUs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_viz._docstrings import documented_like
from lightning_viz.attribution.cam import FORMULAS, ReshapeTransform, class_activation_maps, grad_cam, image_maps
from lightning_viz.attribution.gradients import check_gradient, check_relus, gradient, warn_attribution
from lightning_viz.errors import InvalidArgumentError, NoGradientError
from lightning_viz.hooks.calls import as_call, as_given
from lightning_viz.hooks.layers import Layers
from lightning_viz.hooks.observe import Forward, observe
from lightning_viz.hooks.pytree import all_tensors, flatten_like, spatial_input
from lightning_viz.hooks.relu import Rule
from lightning_viz.hooks.targets import TargetLike

__all__ = ["deconvolution", "guided_backprop", "guided_grad_cam"]


@documented_like(gradient)
def guided_backprop(model: nn.Module, inputs: Any, target: TargetLike = None, *, forward: Forward | None = None) -> Any:
    r"""Guided backpropagation: keeps only positive gradients at active ReLUs (Springenberg et al., 2015).

    A ReLU with input s turns the gradient g above it into :math:`1[s > 0]\, 1[g > 0]\, g`, in whatever form it is
    called (see `lightning_viz.hooks.relu_rule`).

    Returns:
        In the form and shape of `inputs`; None for an input on which the target does not depend.

    Raises:
        InterceptionError: the model has no ReLU, or runs some where no rule reaches them (TorchScript).
        NoGradientError: the target does not depend on the input, or the model detaches it.
    """
    return _ruled(model, inputs, target, "guided", forward)


@documented_like(guided_backprop)
def deconvolution(model: nn.Module, inputs: Any, target: TargetLike = None, *, forward: Forward | None = None) -> Any:
    r"""Deconvolution: keeps only positive gradients at every ReLU, active or not (Zeiler and Fergus, 2014).

    A ReLU turns the gradient g above it into :math:`1[g > 0]\, g`; max-pooling's switches are autograd's own.
    """
    return _ruled(model, inputs, target, "deconvolution", forward)


@documented_like(grad_cam)
def guided_grad_cam(  # noqa: D417 (see grad_cam)
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    layers: Layers = "last_maps",
    reshape_transform: ReshapeTransform | None = None,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    """Guided Grad-CAM: multiplies the guided gradient by the class activation map (Selvaraju et al., 2017).

    Both come from one forward pass.

    Args:
        inputs: as the model takes them, an image ``[N, C, H, W]`` among them.

    Returns:
        For each call of each layer guided backpropagation towards the image, times the layer's Grad-CAM at the
        image's size (bilinear), ``[N, C, H, W]``. Several targets stand in a leading dimension.

    Raises:
        InterceptionError: the model has no ReLU, or runs some where no rule reaches them (TorchScript).
        NoGradientError: the target does not depend on the image.
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        LayerNotReachedError: the forward pass does not call the layer.
        InvalidArgumentError: the inputs hold no image, a layer has no locations, or the target does not depend on it.
    """
    inputs = as_call(inputs)
    image = spatial_input(inputs)
    if image is None:
        raise InvalidArgumentError("guided_grad_cam needs an image [N, C, H, W], a series or a volume among the inputs")
    observation = observe(model, inputs, target, layers=layers, gradients=True, rules=("guided",), forward=forward)
    warn_attribution(check_relus(observation.relus, "guided"))
    check_gradient(observation.ruled["guided"], inputs)
    place = next(place for place, x in enumerate(all_tensors(inputs)) if x is image)
    guided = flatten_like(observation.ruled["guided"], inputs)[place]
    if guided is None:
        raise NoGradientError
    maps = class_activation_maps(FORMULAS["grad_cam"], model, observation, layers, reshape_transform, target)
    several = observation.scores is not None and observation.scores.dim() == 2
    for call, heat in maps.items():
        if heat.dim() - several != image.dim():
            raise InvalidArgumentError(
                f"guided_grad_cam enlarges maps to the inputs {list(image.shape)}, but layer {call!r} has maps "
                f"{list(heat.shape)}: choose another"
            )
    return {call: guided * image_maps(heat, observation) for call, heat in maps.items()}


def _ruled(model: nn.Module, inputs: Any, target: TargetLike, rule: Rule, forward: Forward | None) -> Any:
    whole = as_call(inputs)
    observation = observe(model, whole, target, rules=(rule,), forward=forward)
    warn_attribution(check_relus(observation.relus, rule))
    check_gradient(observation.ruled[rule], whole)
    return as_given(observation.ruled[rule], inputs)
