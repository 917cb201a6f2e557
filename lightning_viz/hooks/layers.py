"""Layer selection by name, pattern, type or role."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Union

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from lightning_viz.errors import LayerNotFoundError

__all__ = ["Layers", "select_layers"]

Layers = Union[str, type[nn.Module], Sequence[Union[str, type[nn.Module]]]]
"""Names (``"layer4.1"``), globs (``"layer4.*"``), types (``nn.Conv2d`` or ``"Conv2d"``) or roles (see `ROLES`)."""


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """All submodules by name; a module wrapped by `torch.compile` keeps its own name.

    A module that is registered several times is listed under each name.
    """
    layers: dict[str, nn.Module] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        name = ".".join(part for part in path.split(".") if part != "_orig_mod")
        if name:
            layers[name] = module  # the inner module comes after its wrapper and replaces it
    return layers


def convolutions(model: nn.Module) -> list[str]:
    """Names of the convolutions, in order of registration."""
    return _distinct(model, lambda module: isinstance(module, _ConvNd))


def fully_connected(model: nn.Module) -> list[str]:
    """Names of the fully connected layers, in order of registration."""
    return _distinct(model, lambda module: isinstance(module, nn.Linear))


def last_conv(model: nn.Module) -> list[str]:
    """Name of the last convolution outside auxiliary heads, which serve training only; of a detector of its backbone.

    A detector's heads, and the pyramid below them, have several maps, of which a detection depends on one or none.
    """
    names = [name for name in convolutions(model) if not any(part.startswith("aux") for part in name.split("."))]
    return [name for name in names if name.startswith(_backbone(model))][-1:]


def _backbone(model: nn.Module) -> str:
    """Prefix of the layers of a torchvision detector's backbone, without its pyramid; empty of any other model."""
    for name, module in [("", model), *named_layers(model).items()]:
        kinds = {kind.__name__ for kind in type(getattr(module, "transform", None)).__mro__}
        if "GeneralizedRCNNTransform" in kinds and isinstance(getattr(module, "backbone", None), nn.Module):
            path = f"{name}.backbone." if name else "backbone."
            return f"{path}body." if isinstance(getattr(module.backbone, "body", None), nn.Module) else path
    return ""


def last_maps(model: nn.Module) -> list[str]:
    """Name of the last layer with spatial positions that all influence the output.

    In a transformer this is the normalization before the last attention, because after it a classifier on the class
    token depends on no other token. In any other model, including hybrids that begin with convolutions, it is the last
    convolution.
    """
    layers = list(named_layers(model).items())
    names = [name for name, _ in layers]
    attentions = [index for index, (_, module) in enumerate(layers) if "Attention" in type(module).__name__]
    convolution = last_conv(model)
    if attentions and (not convolution or names.index(convolution[0]) < attentions[0]):
        for attention in reversed(attentions):
            block = names[attention].rpartition(".")[0]
            norms = [
                index
                for index, (name, module) in enumerate(layers)
                if name.rpartition(".")[0] == block and type(module).__name__.endswith(("LayerNorm", "RMSNorm"))
            ]
            before = [index for index in norms if index < attention] or norms[:1]
            if before:
                return [names[before[-1]]]
    return convolution


def top_level_blocks(model: nn.Module) -> list[str]:
    """Names of the outermost modules with weights; a single wrapper (``self.net = ...``) is entered."""
    layers = named_layers(model)
    names = _parts(layers, "")
    while len(names) == 1 and (inner := _parts(layers, names[0] + ".")):
        names = inner
    return names


def _parts(layers: dict[str, nn.Module], prefix: str) -> list[str]:
    """Names of the modules with weights directly under a prefix; containers are replaced by their items."""
    names = []
    for name, module in layers.items():
        if not name.startswith(prefix) or name.count(".") > prefix.count("."):
            continue
        scripted = isinstance(module, torch.jit.ScriptModule)  # does not support hooks
        if next(module.parameters(), None) is not None and not scripted:
            names += _parts(layers, name + ".") if isinstance(module, (nn.ModuleList, nn.ModuleDict)) else [name]
    return names


ROLES: dict[str, Callable[[nn.Module], list[str]]] = {
    "first_conv": lambda model: convolutions(model)[:1],
    "last_conv": last_conv,
    "last_maps": last_maps,
    "first_linear": lambda model: fully_connected(model)[:1],
    "last_linear": lambda model: fully_connected(model)[-1:],
    "blocks": top_level_blocks,
}
"""Layers by their role in a model; the key of a role may be used instead of a name."""


def select_layers(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """The selected layers by name, in the order of the selectors.

    Args:
        model: any module.
        layers: one or several selectors: a name, a glob, a module type, the name of a type, or a role (`ROLES`).

    Raises:
        LayerNotFoundError: a selector matches nothing; the message lists the nearest names.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    >>> list(select_layers(net, ["first_conv", nn.Linear]))
    ['0', '3']
    """
    layers_by_name = named_layers(model)
    selectors = [layers] if isinstance(layers, (str, type)) else list(layers)
    names: dict[str, None] = {}
    for selector in selectors:
        names.update(dict.fromkeys(_matching(model, layers_by_name, selector)))
    return {name: layers_by_name[name] for name in names}


def _matching(model: nn.Module, layers_by_name: dict[str, nn.Module], selector: str | type[nn.Module]) -> list[str]:
    if isinstance(selector, type):
        names = _distinct(model, lambda module: isinstance(module, selector))
    elif selector in layers_by_name:
        names = [selector]
    elif selector in ROLES:
        names = ROLES[selector](model)
    else:
        names = [name for name in layers_by_name if fnmatchcase(name, selector)]
        names = names or _distinct(model, lambda module: selector in {base.__name__ for base in type(module).__mro__})
    if not names:
        raise LayerNotFoundError(_not_found(selector, layers_by_name))
    return names


def _not_found(selector: str | type[nn.Module], layers_by_name: Iterable[str]) -> str:
    names = list(layers_by_name)
    if isinstance(selector, type):
        return f"no layer is a {selector.__name__}; the model's layers are {_listed(names)}"
    if selector in ROLES:
        role = "convolution or attention, so no last maps" if selector == "last_maps" else selector.replace("_", " ")
        return f"the model has no {role}; its layers are {_listed(names)}"
    nearest = nearest_names(selector, names)
    hint = f"did you mean {_listed(nearest)}?" if nearest else f"the model's layers are {_listed(names)}"
    return f"no layer matches {selector!r}; {hint}"


def nearest_names(name: str, names: Iterable[str]) -> list[str]:
    """At most three names of layers or classes that are similar to a misspelt one."""
    return difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)


def _listed(names: list[str]) -> str:
    printed = ", ".join(repr(name) for name in names[:12])
    return printed + (f" and {len(names) - 12} more" if len(names) > 12 else "") if names else "none"


def _distinct(model: nn.Module, predicate: Callable[[nn.Module], bool]) -> list[str]:
    """Names of the modules that satisfy a predicate, each module once."""
    visited: set[int] = set()
    names = []
    for name, module in named_layers(model).items():
        if predicate(module) and id(module) not in visited:
            visited.add(id(module))
            names.append(name)
    return names
