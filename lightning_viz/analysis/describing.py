"""What a model is, in plain values."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_viz.callbacks.probe import Samples
from lightning_viz.hooks.layers import named_layers
from lightning_viz.hooks.structure import all_tensors


def describe(model: nn.Module, samples: Samples) -> dict[str, Any]:
    """Class, size, layers, input and classes of a model.

    Args:
        model: any module.
        samples: of its data.
    """
    layers = [
        {"name": name, "kind": type(layer).__name__, "parameters": sum(x.numel() for x in layer.parameters())}
        for name, layer in named_layers(model).items()
        if not any(layer.children())
    ]
    return {
        "class": type(model).__name__,
        "parameters": sum(x.numel() for x in model.parameters()),
        "input": [list(x.shape[1:]) for x in all_tensors(samples.inputs)],
        "classes": list(samples.class_names),
        "layers": layers,
    }
