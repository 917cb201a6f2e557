"""Style transfer: what one image shows, as another is painted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_viz.dream.maximize import Dream, Optimizer, maximize
from lightning_viz.dream.objectives import gram, recorded
from lightning_viz.dream.parametrization import centered, pixels, visible
from lightning_viz.errors import InvalidArgumentError, by_name
from lightning_viz.hooks.observe import Forward
from lightning_viz.hooks.recording import Activations
from lightning_viz.hooks.target_types import FunctionTarget, Target
from lightning_viz.host_copies import to_device
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_display

__all__ = ["StyleTransfer", "VGG19_CONTENT", "VGG19_STYLE", "style_transfer"]

VGG19_CONTENT = ("features.21",)
"""The paper's conv4_2, in torchvision's VGG19."""

VGG19_STYLE = ("features.0", "features.5", "features.10", "features.19", "features.28")
"""The paper's conv1_1, conv2_1, conv3_1, conv4_1 and conv5_1, in torchvision's VGG19."""

_OPTIMIZERS: Mapping[str, Optimizer] = {
    "lbfgs": partial(
        torch.optim.LBFGS,
        max_iter=1,  # the losses are known at each
        max_eval=20,
        history_size=20,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",  # without it the first steps from noise lead away
    ),
    "adam": partial(torch.optim.Adam, lr=0.1),
}


@html_display("content_weight", "style_weight", "content_loss", "style_loss", images=("pixels",))
@dataclass(frozen=True)
class StyleTransfer:
    """The content of one image in the style of another.

    Attributes:
        images: centered, ``[1, C, H, W]`` (see `PixelSpace.centered`).
        inputs: the same as the model takes it.
        pixel_space: how the inputs map to pixels.
        content_weight: alpha.
        style_weight: beta.
        content_loss: before each update and of the image at last, ``[steps + 1]``.
        style_loss: the same of the style.
        frames: pixels in 0 to 255 on the way, the first and the last among them, ``[F, 1, C, H, W]``.
        frame_steps: updates made by then.
    """

    images: Tensor
    inputs: Tensor
    pixel_space: PixelSpace
    content_weight: float
    style_weight: float
    content_loss: Tensor
    style_loss: Tensor
    frames: Tensor
    frame_steps: tuple[int, ...]

    @property
    def loss(self) -> Tensor:
        """What was minimized, alpha times the content's loss and beta times the style's, ``[steps + 1]``."""
        return self.content_weight * self.content_loss + self.style_weight * self.style_loss

    @property
    def pixels(self) -> Tensor:
        """What to look at, ``[1, C, H, W]`` in [0, 1]."""
        return visible(self.images, self.pixel_space, bounded=True)


def style_transfer(
    model: nn.Module,
    content: Tensor,
    style: Tensor,
    *,
    content_layers: Sequence[str] = VGG19_CONTENT,
    style_layers: Sequence[str] = VGG19_STYLE,
    content_weight: float = 1.0,
    style_weight: float | None = None,
    start: Literal["content", "noise"] = "content",
    optimizer: Literal["lbfgs", "adam"] = "lbfgs",
    steps: int = 300,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    frames: int = 30,
    progress: bool = True,
    forward: Forward | None = None,
) -> StyleTransfer:
    r"""Neural style transfer: the content of one image in the style of another (Gatys et al., 2016).

    .. math:: L = \alpha \sum_l \tfrac{1}{2} \lVert F^l - P^l \rVert^2
        + \beta \sum_l \frac{w_l}{4 N_l^2} \Big\lVert \frac{G^l}{M_l} - \frac{G_0^l}{M_0^l} \Big\rVert^2

    with the image's activations F, the content's P, Gram matrices G and, of the style, G_0 (see `gram`), and
    w = 1 / number of style layers. Pixels keep to their bounds by a sigmoid (see `maximize`): a content image starts
    with those at the bounds a thousandth nearer, so that its content loss is next to 0 at first, and grows.

    Args:
        model: any module; what it does behind the layers need not work at these sizes.
        content: as the model takes it, ``[C, H, W]`` or ``[1, C, H, W]``; the result has its size.
        style: another, of any size.
        content_layers: by name; of a layer that is called several times, a call: ``"relu:1"``. The paper's by default.
        style_layers: the same.
        content_weight: alpha.
        style_weight: beta. If omitted, so that blank activations (zeros) would lose as much style as content:
            unlike the paper's ratios, this depends on neither the image's size nor the scale of the activations.
        start: from the content image, or from noise around gray, of deviation 0.01.
        optimizer: L-BFGS with a line search (the paper's; about two passes for each step), or Adam, lr 0.1 (one).
        steps: updates.
        pixel_space: how the model's inputs map to pixels; inputs are pixels in [0, 1] if omitted.
        seed: of the noise.
        frames: how many images on the way to keep, evenly in log steps.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, images)``, if not ``model(images)``.

    Raises:
        LayerNotFoundError: no such layer; the message lists the nearest names.
        ValueError: several images, images that do not lie in the space, no layers, or an option that there is not.
    """
    photograph = _single(content, "the content")
    transfers = transfer_batch(
        model,
        photograph,
        style,
        content_layers=content_layers,
        style_layers=style_layers,
        content_weight=content_weight,
        style_weight=style_weight,
        start=start,
        optimizer=optimizer,
        steps=steps,
        pixel_space=pixel_space,
        seed=seed,
        frames=frames,
        progress=progress,
        forward=forward,
    )
    return StyleTransfer(
        images=transfers.dream.images,
        inputs=transfers.dream.inputs,
        pixel_space=transfers.dream.pixel_space,
        content_weight=content_weight,
        style_weight=transfers.style_weights.item() if style_weight is None else style_weight,
        content_loss=transfers.content_loss[0],
        style_loss=transfers.style_loss[0],
        frames=transfers.dream.frames,
        frame_steps=transfers.dream.frame_steps,
    )


@dataclass(frozen=True)
class Transfers:
    """The contents of N images in one style.

    Attributes:
        dream: the images.
        style_weights: beta of each, ``[N]``.
        content_loss: before each update and at the end, ``[N, steps + 1]``.
        style_loss: the same of the style.
    """

    dream: Dream
    style_weights: Tensor
    content_loss: Tensor
    style_loss: Tensor


def transfer_batch(  # noqa: D417 (others: `style_transfer`)
    model: nn.Module,
    contents: Tensor,
    style: Tensor,
    *,
    content_layers: Sequence[str],
    style_layers: Sequence[str],
    content_weight: float = 1.0,
    style_weight: float | None = None,
    style_strength: float = 1.0,
    start: Literal["content", "noise"] = "content",
    optimizer: Literal["lbfgs", "adam"] = "adam",
    steps: int = 300,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    frames: int = 0,
    progress: bool = False,
    forward: Forward | None = None,
) -> Transfers:
    """`style_transfer` of one style to several contents ``[N, C, H, W]`` in the same passes.

    With Adam no image depends on another. L-BFGS has one line search for all parameters, so it takes one image.

    Args:
        style_strength: times the weight of the style; of the balanced one if `style_weight` is omitted.
    """
    _check(content_layers, style_layers, start, optimizer)
    if optimizer == "lbfgs" and contents.dim() == 4 and len(contents) > 1:
        raise InvalidArgumentError(f"L-BFGS has one line search for {len(contents)} images; use 'adam' or one image")
    pixel_space = pixel_space or PixelSpace()
    photographs, shown = _recorded(model, contents, content_layers, pixel_space, forward, "the content")
    _, painted = _recorded(model, _single(style, "the style"), style_layers, pixel_space, forward, "the style")
    of_content, of_style = _content(shown, content_layers), _style(painted, style_layers)
    if style_weight is None:
        style_weights = (content_weight or 1) * _blank(of_content, shown) / _blank(of_style, painted)
    else:
        style_weights = torch.full([len(photographs)], style_weight, dtype=torch.float32)
    style_weights = style_strength * style_weights.cpu()
    losses: tuple[list[Tensor], list[Tensor]] = [], []
    steps_begin: list[int] = []

    def ascent(parameters: list[Tensor]) -> torch.optim.Optimizer:
        made = _OPTIMIZERS[optimizer](parameters)
        made.register_step_pre_hook(lambda *_: steps_begin.append(len(losses[0])))
        return made

    dream = maximize(
        model,
        content_weight * _with_losses(of_content, losses[0]) + _with_losses(of_style, losses[1], style_weights),
        image=pixels(photographs.shape[1:], start=photographs if start == "content" else None),
        pixel_space=pixel_space,
        bounded=True,
        steps=steps,
        optimizer=ascent,
        copies=len(photographs),
        seed=seed,
        frames=frames,
        progress=progress,
        forward=forward,
    )
    content_loss, style_loss = (torch.stack(loss, 1)[:, [*steps_begin, -1]].cpu() for loss in losses)
    return Transfers(dream, style_weights, content_loss, style_loss)


def _content(shown: Activations, layers: Sequence[str]) -> Target:
    """Minus the content's loss of each image."""

    def function(activations: Activations) -> Tensor:
        distances = [(activations[name] - shown[name].to(activations[name])).flatten(1) for name in layers]
        return -0.5 * torch.stack([distance.square().sum(1) for distance in distances]).sum(0)

    return FunctionTarget("content", function, layers)


def _style(painted: Activations, layers: Sequence[str]) -> Target:
    """Minus the style's loss, the mean over layers."""
    return 1 / len(layers) * reduce(add, [gram(name, painted.maps(name)) for name in layers])


def _with_losses(target: Target, losses: list[Tensor], weights: Tensor | None = None) -> Target:
    """The same target, weighted for each image; every time that it is evaluated, its losses ``[N]`` join a list."""

    def function(activations: Activations) -> Tensor:
        values = target.scores(activations).values
        losses.append(-values.detach())
        if weights is None:
            return values
        return to_device(weights, values.device, values.dtype).clone() * values  # they may come from inference mode

    return FunctionTarget(target.name, function, target.layers, target.outputs)


def _blank(target: Target, activations: Activations) -> Tensor:
    """The losses of activations that are zero, one for each image."""
    zeros = {name: torch.zeros_like(call) for name, call in activations.calls.items()}
    return -target.scores(replace(activations, calls=zeros)).values


def _single(inputs: Tensor, what: str) -> Tensor:
    if inputs.dim() == 4 and len(inputs) != 1:
        raise InvalidArgumentError(f"{what} is {len(inputs)} images: give one")
    return inputs


def _recorded(
    model: nn.Module, inputs: Tensor, layers: Sequence[str], pixel_space: PixelSpace, forward: Forward | None, what: str
) -> tuple[Tensor, Activations]:
    """Images, centered, and what they excite in layers, nowhere nothing at all."""
    images = centered(inputs, pixel_space, what)
    activations = recorded(model, pixel_space.centered().into(images, pixel_space), layers, forward=forward)
    silent = [name for name in layers if not activations[name].flatten(1).any(1).all()]
    if silent:
        raise InvalidArgumentError(f"layers {silent} put out nothing but 0 for {what}: nothing to keep; take others")
    return images, activations


def _check(content_layers: Sequence[str], style_layers: Sequence[str], start: str, optimizer: str) -> None:
    for name, layers in (("content_layers", content_layers), ("style_layers", style_layers)):
        if isinstance(layers, str) or not layers:
            raise InvalidArgumentError(f"{name} is {layers!r}: give the names of one layer or more, ['conv4']")
    if start not in ("content", "noise"):
        raise InvalidArgumentError(f"start is {start!r}: give 'content' or 'noise'")
    by_name(_OPTIMIZERS, optimizer, "optimizer")
