"""How irregular the gradient is: partial derivatives at one pixel along a short walk through the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.attribution.gradients import copy_batches, gradient, value_range
from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.hooks.observe import Forward, observe, resolve_target
from lightning_viz.hooks.targets import TargetLike
from lightning_viz.host_copies import to_device
from lightning_viz.rich_display import html_display

__all__ = ["IrregularGradients", "gradient_irregularity"]


@html_display()
@dataclass(frozen=True)
class IrregularGradients:
    """Partial derivatives along a walk from each image in a random direction.

    Attributes:
        curves: of the target with respect to one pixel's values, divided by the largest entry of the gradient at that
            place ``[N, steps, C]``, in -1..1; 0 where the gradient is zero.
        pixels: row and column of each image's pixel ``[N, 2]``.
    """

    curves: Tensor
    pixels: Tensor


def gradient_irregularity(
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    pixel: tuple[int, int] | None = None,
    fraction: float = 0.01,
    steps: int = 100,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> IrregularGradients:
    r"""Gradient irregularity: follows one pixel's partial derivatives along a short walk (Smilkov et al., 2017).

    .. math:: \frac{\partial y / \partial x_i}{\max_j |\partial y / \partial x_j|}(x + t\, \varepsilon), \quad
        t \in [0, 1], \qquad \varepsilon \sim \mathcal{N}(0, \sigma^2), \quad
        \sigma = \text{fraction} \cdot (\max x - \min x)

    Args:
        model: any module; left as found.
        inputs: images as the model takes them, ``[N, C, H, W]``.
        target: what to explain, see `TargetLike`; the class predicted for the image itself if omitted.
        pixel: row and column of the pixel; that of each image's largest gradient, summed in size over channels, if
            omitted.
        fraction: standard deviation of the walk's end, relative to each image's own range (0.01: the paper's).
        steps: places along the walk, both ends among them.
        seed: of the direction, the same for every image.
        batch_size: places per pass; what suits the inputs and fits if None.
        progress: show a bar when it takes long.
        forward: how to run the model, if not ``model(inputs)``.

    Raises:
        InvalidTypeError: the inputs are not one tensor of images.
        NoGradientError: the target does not depend on the input.
        InvalidArgumentError: fewer than 2 steps, or a pixel outside the image.
    """
    if not isinstance(inputs, Tensor) or inputs.dim() != 4:
        raise InvalidTypeError("gradient_irregularity needs images [N, C, H, W], the rest in forward=")
    if steps < 2:
        raise InvalidArgumentError(f"steps is {steps}: give 2 or more, both ends of the walk")
    count, height, width = len(inputs), *inputs.shape[2:]
    fixed = resolve_target(model, inputs, target, forward=forward)
    if pixel is None:
        places = gradient(model, inputs, fixed, forward=forward).abs().sum(1).flatten(1).argmax(1).cpu()
        pixels = torch.stack([places // width, places % width], 1)
    elif 0 <= pixel[0] < height and 0 <= pixel[1] < width:
        pixels = torch.tensor(pixel, device="cpu").expand(count, 2)
    else:
        raise InvalidArgumentError(f"pixel is {pixel}, the images are {height} x {width}: give a row and a column")
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(inputs.shape[1:], generator=generator, dtype=torch.float32, device="cpu").to(inputs)
    reach = fraction * value_range(inputs) * direction
    along, parts = torch.linspace(0, 1, steps, device="cpu"), list[Tensor]()

    def walk(items: Tensor) -> None:
        place, samples = items // count, items % count
        sample = to_device(samples, inputs.device)
        share = to_device(along[place], inputs.device, inputs.dtype).view(-1, 1, 1, 1)
        at = inputs[sample] + share * reach[sample]
        slopes = observe(
            model, batches.lay_out(at), fixed.select(samples), input_gradient=True, forward=forward
        ).input_gradient
        largest = slopes.flatten(1).abs().amax(1, keepdim=True)
        rows, columns = to_device(pixels[samples], slopes.device).unbind(1)
        own = slopes[torch.arange(len(samples), device=slopes.device), :, rows, columns]
        parts.append(own / largest.where(largest > 0, 1))

    batches = copy_batches(model, inputs, steps, batch_size, progress, "gradient irregularity")
    batches.run(walk)
    return IrregularGradients(torch.cat(parts).view(steps, count, -1).transpose(0, 1).contiguous(), pixels)
