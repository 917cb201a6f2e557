"""Receptive fields: the input pixels that a position of a layer depends on, for any architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_viz.errors import InvalidArgumentError, LayerNotReachedError
from lightning_viz.hooks.batching import choose_batch_size
from lightning_viz.hooks.geometry import Layout, as_maps
from lightning_viz.hooks.observation import layer_of_call
from lightning_viz.hooks.observe import Forward, passes
from lightning_viz.hooks.pytree import image_of, map_tensors

__all__ = ["Rectangle", "receptive_fields"]

_DRAWS = 2  # random inputs, because value-dependent operations without a rule may block a gradient in one of them
_BATCH = 32


class Rectangle(NamedTuple):
    """Rows from `top` to before `bottom` and columns from `left` to before `right` of an image."""

    top: int
    bottom: int
    left: int
    right: int


def receptive_fields(
    model: nn.Module,
    inputs: Any,
    layer: str,
    places: Sequence[tuple[int, int]],
    *,
    seed: int = 0,
    forward: Forward | None = None,
) -> list[Rectangle | None]:
    r"""Receptive fields: the smallest rectangles with all pixels on which positions of a layer's maps depend.

    Computed from the support of a gradient, with a layer's maps :math:`A^k` and random :math:`r_k`:

    .. math:: \Big\{(i, j) : \exists\, c,\ \frac{\partial}{\partial x_{cij}} \sum_k r_k A^k_{yx} \neq 0\Big\}

    A plain gradient is zero where ReLUs are inactive and where max-pooling chose another pixel. Here every activation
    function passes its gradient unchanged, and every max-pooling passes it to its whole window; for other
    value-dependent operations (a clamp, a sort) two random inputs are used. If every position depends on every pixel
    (after attention, squeeze-and-excitation or a fully connected layer), the result is the whole image.

    Args:
        model: any module; its state is restored.
        inputs: as the model takes them, with an image ``[N, C, H, W]`` among them; the first sample is used.
        layer: name of a layer, or of a call if it is called several times: ``"relu:1"``.
        places: rows and columns in the layer's maps (see `as_maps`); (0, 0) if it has none.
        seed: of the random inputs and weights.
        forward: calls the model, ``forward(model, inputs)``; ``model(inputs)`` if omitted.

    Returns:
        One rectangle per position; None if no gradient reaches the image from it.

    Raises:
        LayerNotReachedError: the forward pass does not call the layer.
        InvalidArgumentError: no image among the inputs, maps that are not two-dimensional, or a position outside.
    """
    module_name = layer_of_call(layer)
    rectangles: list[Rectangle | None] = []
    given = image_of(inputs)
    size = _BATCH if given is None else max(1, min(_BATCH, choose_batch_size(given[:1].numel()) // _DRAWS))
    with passes(model, module_name, whole=False, forward=forward) as run:
        for start in range(0, len(places), size):
            batch = list(places[start : start + size])
            image, noisy_inputs = _random_inputs(inputs, len(batch) * _DRAWS, seed)
            activations = run(noisy_inputs)
            if layer not in activations.calls:
                calls = list(activations.calls)
                raise LayerNotReachedError(f"layer {layer!r} is not called in the forward pass; choose one of {calls}")
            values = _at_positions(activations.calls[layer], batch, activations.layouts.get(layer), layer)
            generator = torch.Generator().manual_seed(seed)
            weights = torch.randn(values.shape, generator=generator).to(values)
            gradient = None
            if values.requires_grad:
                with _SupportMode():  # type: ignore[no-untyped-call]
                    (gradient,) = torch.autograd.grad((values * weights).sum(), image, allow_unused=True)
            support = torch.zeros_like(image) if gradient is None else gradient
            mask = (support != 0).any(1).view(_DRAWS, len(batch), *image.shape[2:]).any(0)
            rectangles += map(_bounding_box, mask)
    return rectangles


def _random_inputs(inputs: Any, count: int, seed: int) -> tuple[Tensor, Any]:
    """The image as a leaf of the graph, and all inputs: `count` copies of the first sample, the image with noise."""
    image = image_of(inputs)
    if image is None:
        raise InvalidArgumentError("a receptive field needs an image, but none of the inputs is [N, C, H, W]")
    generator = torch.Generator().manual_seed(seed)
    leaves: dict[int, Tensor] = {}

    def with_noise(tensor: Tensor) -> Tensor:
        copies = tensor[:1].detach().repeat_interleave(count, 0)
        if tensor is not image:
            return copies
        noise = torch.randn(copies.shape, generator=generator).to(copies)
        leaves[id(tensor)] = (copies + noise * copies.std().clamp_min(0.1)).requires_grad_()
        return leaves[id(tensor)].clone()  # the model may write to it

    noisy_inputs = map_tensors(inputs, with_noise)
    return leaves[id(image)], noisy_inputs


def _at_positions(output: Tensor, places: Sequence[tuple[int, int]], layout: Layout | None, layer: str) -> Tensor:
    """The values of all channels at the position of each sample, ``[draws x positions, K]``."""
    maps = as_maps(output, layout)
    maps = output.reshape(len(output), -1, 1, 1) if maps is None else maps
    if maps.dim() != 4:
        raise InvalidArgumentError(
            f"the maps of {layer!r} are {list(maps.shape[2:])}: receptive fields are of images, in two dimensions"
        )
    height, width = maps.shape[2:]
    wrong = [place for place in places if not (0 <= place[0] < height and 0 <= place[1] < width)]
    if wrong:
        raise InvalidArgumentError(f"places {wrong} are outside the maps of {layer!r}, which are {height} x {width}")
    rows, columns = (torch.tensor(axis).repeat(_DRAWS) for axis in zip(*places, strict=True))
    return maps[torch.arange(len(maps)), :, rows, columns]


def _bounding_box(mask: Tensor) -> Rectangle | None:
    rows, columns = (mask.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    return Rectangle(rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if rows else None


# Backward rules below autograd, so that they apply however an activation function or a pooling is called.


class _SupportMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """During a backward, activation functions pass gradients unchanged, and max-poolings to their whole window."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = _RULES.get(getattr(func, "overloadpacket", None))
        return func(*args, **(kwargs or {})) if rule is None else rule(*args)


def _pass(gradient: Tensor, *_: Any) -> Tensor:
    return gradient.clone()


def _max_pool_backward(
    gradient: Tensor, inputs: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, *_: Any
) -> Tensor:
    """The gradient ``[N, C, h, w]`` of a max-pooling, passed to every pixel of its window ``[N, C, H, W]``."""
    kernel, padding, dilation = (tuple(sides) * (2 // len(sides)) for sides in (kernel, padding, dilation))
    stride = tuple(stride) * (2 // len(stride)) if stride else kernel
    batched = gradient if gradient.dim() == 4 else gradient[None]
    steps = [(batched.shape[2 + axis] - 1) * stride[axis] for axis in (0, 1)]
    size = tuple(steps[axis] + dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1))
    windows = batched.flatten(2)[:, :, None].expand(-1, -1, kernel[0] * kernel[1], -1).flatten(1, 2)
    spread = F.fold(windows, size, kernel, dilation=dilation, stride=stride)
    beyond = [inputs.shape[-2 + axis] + 2 * padding[axis] - size[axis] for axis in (0, 1)]
    spread = F.pad(spread, (-padding[1], beyond[1] - padding[1], -padding[0], beyond[0] - padding[0]))
    return spread if gradient.dim() == 4 else spread[0]


def _adaptive_max_pool_backward(gradient: Tensor, inputs: Tensor, *_: Any) -> Tensor:
    spread: Tensor = torch.ops.aten._adaptive_avg_pool2d_backward(gradient, inputs)
    return spread


_PASSED = (
    *("threshold", "hardtanh", "hardswish", "hardsigmoid", "leaky_relu", "elu", "gelu", "silu", "mish"),
    *("sigmoid", "tanh", "softplus", "softshrink", "hardshrink", "log_sigmoid"),
)
_RULES: dict[Any, Callable[..., Tensor]] = {
    **{getattr(torch.ops.aten, f"{name}_backward"): _pass for name in _PASSED},
    torch.ops.aten.max_pool2d_with_indices_backward: _max_pool_backward,
    torch.ops.aten.adaptive_max_pool2d_backward: _adaptive_max_pool_backward,
}
