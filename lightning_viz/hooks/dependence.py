"""Which of a model's several images the call of a layer depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.hooks.calls import as_call, call_model
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.pytree import all_tensors, map_tensors, spatial_input
from lightning_viz.hooks.recording import call_names, recording


def images_among(inputs: Any) -> list[Tensor]:
    """The images among a model's inputs, or its series or volumes; those like the first, which pictures show.

    Args:
        inputs: of the model.
    """
    shown = spatial_input(inputs)
    if shown is None:
        return []
    images = [x for x in all_tensors(inputs) if x.is_floating_point() and x.dim() == shown.dim()]
    return [x for x in images if x.shape[1] == shown.shape[1] or x is shown]


def images_of_calls(model: nn.Module, inputs: Any, layers: Sequence[str]) -> dict[str, int]:
    """By call of a layer the number of the image that its output depends on, if it is one of several.

    The towers of a siamese net are called once for each image. One forward of a sample tells, whose graph is followed.

    Args:
        model: any module; its state is restored.
        inputs: as the model takes them, where it is.
        layers: names of layers.
    """
    if len(images_among(inputs)) < 2 or not layers:
        return {}
    inputs = as_call(inputs)
    with evaluation_mode(model):
        first = map_tensors(inputs, lambda x: _leaf(x[:1] if x.dim() else x))
        numbers = {id(image): number for number, image in enumerate(images_among(first))}
        modules = select_layers(model, layers)
        with recording(model, first, modules, gradients=modules) as record:
            call_model(model, map_tensors(first, torch.clone))
        seen = {call: _leaves(output) & numbers.keys() for call, output in call_names(record.calls).items()}
    return {call: numbers[next(iter(images))] for call, images in seen.items() if len(images) == 1}


def _leaf(x: Tensor) -> Tensor:
    copy = x.detach().clone()
    return copy.requires_grad_() if x.is_floating_point() else copy


def _leaves(output: Tensor) -> set[int]:
    """The ids of the leaves of a graph."""
    nodes, leaves, visited = [output.grad_fn], set[int](), set[Any]()
    while nodes:
        node = nodes.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        nodes += [parent for parent, _ in node.next_functions]
    return leaves
