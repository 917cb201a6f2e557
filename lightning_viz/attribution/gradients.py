"""The gradient of a target towards the input, plain and smoothed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.hooks.observing import Forward, observe
from lightning_viz.hooks.structure import all_tensors, in_place_of_tensors, map_tensors
from lightning_viz.hooks.target import Target


class NoGradientError(RuntimeError):
    """The target does not depend, differentiably, on what the gradient was asked towards."""

    def __init__(
        self, message: str = "the target does not depend on the input: does the model detach it, or use no_grad inside?"
    ) -> None:
        super().__init__(message)


def gradient(model: nn.Module, inputs: Any, target: Target = None, *, forward: Forward | None = None) -> Any:
    r"""How the target changes with each input value, :math:`\partial y / \partial x`, signed (Simonyan et al., 2014).

    Args:
        model: any module; left as found.
        inputs: as the model takes them, ``[N, C, H, W]`` for images; several as a tuple or dict.
        target: class index, one per sample or one for all; the predicted class if omitted.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        The gradient, in the form and shape of `inputs`, in logits per unit of input; None for an input on which the
        target does not depend.

    Raises:
        NoGradientError: the target does not depend on the input, or the model detaches it.
    """
    found = observe(model, inputs, target, input_gradient=True, forward=forward).input_gradient
    if not any(isinstance(tensor, Tensor) for tensor in all_tensors(found)):
        raise NoGradientError
    return found


def smooth_grad(
    model: nn.Module,
    inputs: Any,
    target: Target = None,
    *,
    samples: int = 50,
    fraction: float = 0.15,
    seed: int = 0,
    batch_size: int = 32,
    forward: Forward | None = None,
) -> Any:
    r"""The gradient averaged over noisy copies of the input (Smilkov et al., 2017).

    .. math:: \frac{1}{n} \sum_{i=1}^{n} \frac{\partial y}{\partial x}(x + \varepsilon_i),
        \qquad \varepsilon_i \sim \mathcal{N}(0, \sigma^2), \quad \sigma = \text{fraction} \cdot (\max x - \min x)

    Args:
        model: any module; left as found.
        inputs: as the model takes them, ``[N, C, H, W]`` for images; several as a tuple or dict.
        target: class index, one per sample or one for all; the class predicted for the clean input if omitted.
        samples: n, copies per input (50: the paper's).
        fraction: noise level, of each sample's own range (0.15: the paper finds 0.1 to 0.2 best).
        seed: of the noise: the same numbers whatever the batch size and the device.
        batch_size: copies per pass.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        The mean *signed* gradient, in the form and shape of `inputs`; None for whole numbers, which get no noise.

    Raises:
        NoGradientError: the target does not depend on the input.
        ValueError: `samples` or `batch_size` is not positive.
    """
    if samples < 1 or batch_size < 1:
        raise ValueError(f"samples is {samples} and batch_size {batch_size}: both must be 1 or more")
    if target is None:
        target = observe(model, inputs, forward=forward).targets
    tensors = all_tensors(inputs)
    count = len(tensors[0])
    totals: list[Tensor | None] = [None] * len(tensors)
    generator = torch.Generator().manual_seed(seed)
    together = max(1, batch_size // count)
    for done in range(0, samples, together):
        copies = min(together, samples - done)
        noisy = iter(_noisy(tensors, copies, fraction, generator))
        found = gradient(
            model, map_tensors(inputs, lambda _: next(noisy)), _repeated(target, count, copies), forward=forward
        )
        for place, part in enumerate(in_place_of_tensors(found, inputs)):
            if part is not None:
                total, summed = totals[place], part.view(copies, count, *part.shape[1:]).sum(0)
                totals[place] = summed if total is None else total + summed
    means = iter([None if total is None else total / samples for total in totals])
    return map_tensors(inputs, lambda _: next(means))


def _noisy(tensors: list[Tensor], copies: int, fraction: float, generator: torch.Generator) -> list[Tensor]:
    """Copies ``[copies * N, ...]`` of each tensor with noise, which is the same for every sample of a batch.

    So a sample's map depends neither on its place in the batch nor on how many copies go through at once. Whole
    numbers (token indices) are only copied.
    """
    real = [x for x in tensors if x.is_floating_point()]
    draws = [[torch.randn(x.shape[1:], generator=generator) for x in real] for _ in range(copies)]
    noise = iter([torch.stack(of_one) for of_one in zip(*draws, strict=True)])
    return [
        _copies(x, copies) + fraction * _range(x, copies) * next(noise).repeat_interleave(len(x), 0).to(x)
        if x.is_floating_point()
        else _copies(x, copies)
        for x in tensors
    ]


def _copies(tensor: Tensor, copies: int) -> Tensor:
    return tensor.repeat(copies, *[1] * (tensor.dim() - 1))


def _range(tensor: Tensor, copies: int) -> Tensor:
    """Each sample's maximum minus its minimum, shaped to go with its copies."""
    flat = tensor.flatten(1)
    return _copies((flat.amax(1) - flat.amin(1)).view(-1, *[1] * (tensor.dim() - 1)), copies)


def _repeated(target: Target, count: int, copies: int) -> Target:
    if target is None or callable(target) or isinstance(target, int):
        return target
    return torch.as_tensor(target).expand(count).repeat(copies)
