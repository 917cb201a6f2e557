"""Which maps a fully connected layer's input was flattened from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.hooks.calls import call_model
from lightning_viz.hooks.layers import convolutions
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.pytree import map_tensors, on_device, sample_count, take_samples

__all__ = ["flattened_maps"]

_VIEWS = ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0")
_BETWEEN = ("Relu", "LeakyRelu", "Gelu", "Tanh", "Sigmoid", "Clone", "Alias")  # may stand behind a flattening


def flattened_maps(model: nn.Module, inputs: Any, layers: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """The maps ``(C, H, W)`` that layers' inputs were flattened from, as the graph of a pass tells.

    Args:
        model: any module; if it has convolutions, it runs once, on one sample, and is left as found.
        inputs: as it takes them.
        layers: by name, of which the fully connected ones count.

    Returns:
        For each layer whose input is a flattened map of more than one place, channels first, its shape.
    """
    connected = {name: module for name, module in layers.items() if isinstance(module, nn.Linear)}
    if not connected or not convolutions(model):
        return {}
    found: dict[str, tuple[int, ...]] = {}

    def record(name: str, module: nn.Module, given: tuple[Any, ...]) -> None:
        shape = _before_flattening(given[0].grad_fn) if given and isinstance(given[0], Tensor) else None
        if shape is not None and len(shape) in (3, 4) and torch.Size(shape).numel() == given[0].shape[-1]:
            found.setdefault(name, shape)

    count = sample_count(inputs)
    first = map_tensors(on_device(model, inputs), lambda x: take_samples(x, torch.tensor([0]), count))
    floats = map_tensors(first, lambda x: x.detach().requires_grad_() if x.is_floating_point() else x)
    handles = [module.register_forward_pre_hook(partial(record, name)) for name, module in connected.items()]
    try:
        with evaluation_mode(model):
            call_model(model, floats)
    finally:
        for handle in handles:
            handle.remove()
    return {name: shape for name, shape in found.items() if torch.Size(shape[1:]).numel() > 1}


def _is_turned(node: Any) -> bool:
    """Whether a tensor's axes were exchanged just before, so that its channels may not come first."""
    while node is not None and type(node).__name__.startswith("Clone"):
        node = node.next_functions[0][0]
    return type(node).__name__ in ("PermuteBackward0", "TransposeBackward0")


def _before_flattening(node: Any) -> tuple[int, ...] | None:
    """The shape ``(C, H, W)`` without samples of what a vector was flattened from; None if the graph does not tell."""
    while node is not None:
        name = type(node).__name__
        if name in _VIEWS:
            shape = tuple(int(side) for side in node._saved_self_sym_sizes)
            if len(shape) > 2:
                return None if _is_turned(node.next_functions[0][0]) else shape[1:]
        elif not name.startswith(_BETWEEN):
            return None
        node = node.next_functions[0][0] if node.next_functions else None
    return None
