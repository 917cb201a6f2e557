"""Layers that the options of a command name: they are looked for before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_LAYERS = ("layers", "layer", "content_layers", "style_layers")
_TARGETS = ("target", "objectives")
_EITHER = (("deep_dream", "layer"), ("maximize", "objectives"))
"""Methods and options whose values are layers, or targets such as ``conv2[7]``."""
_LOGITS = "logits"


def check_layers(model: nn.Module, method: str, arguments: Mapping[str, Any]) -> None:
    """See that a model has the layers that the arguments of a method name.

    Args:
        model: of the command.
        method: of the catalogue.
        arguments: of its functions, by name.

    Raises:
        LayerNotFoundError: it has not; the message lists the nearest names.
    """
    from lightning_viz.hooks.layers import named_layers, select_layers
    from lightning_viz.hooks.observation import layer_of_call

    for name, value in arguments.items():
        for word in _words(value) if name in (*_LAYERS, *_TARGETS) else ():
            target, either = _target_layers(word), (method, name) in _EITHER
            layers = [word] if name in _LAYERS else target
            if either:  # a number may be a layer's name
                known = word in named_layers(model) or target is None
                layers = [] if word == _LOGITS else [word] if known else target
            for layer in layers or ():
                select_layers(model, layer_of_call(layer))


def _words(value: Any) -> list[str]:
    """The words of a value; numbers and the like name no layers."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [word for word in values if isinstance(word, str)]


def _target_layers(word: str) -> list[str] | None:
    """The layers that a target of words reads; None if the words are of no target."""
    from lightning_viz.errors import InvalidArgumentError
    from lightning_viz.hooks.targets import parse_target

    with suppress(InvalidArgumentError):
        return list(parse_target(word).layers)
    return None
