"""Which layers to look at: by name, pattern, type or role."""

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
    """All submodules by name, as the user wrote them: what `torch.compile` wraps goes by its own name.

    A module that stands in several places is listed under each.
    """
    layers: dict[str, nn.Module] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        name = ".".join(part for part in path.split(".") if part != "_orig_mod")
        if name:
            layers[name] = module  # the inner module comes after its wrapper, and stays
    return layers


def convolutions(model: nn.Module) -> list[str]:
    """Names of the convolutions, in the order in which the model holds them."""
    return _once(model, lambda module: isinstance(module, _ConvNd))


def fully_connected(model: nn.Module) -> list[str]:
    """Names of the fully connected layers, in the order in which the model holds them."""
    return _once(model, lambda module: isinstance(module, nn.Linear))


def last_conv(model: nn.Module) -> list[str]:
    """Name of the last convolution that the output depends on: not in an auxiliary head, which serves training."""
    return [name for name in convolutions(model) if not any(part.startswith("aux") for part in name.split("."))][-1:]


def last_maps(model: nn.Module) -> list[str]:
    """Name of the last layer that still has places, and from whose every place information flows to the output.

    Of a transformer it is the normalization before the last attention: behind that, a classifier that reads the class
    token depends on no other token. Of any other model, hybrids with convolutions among them, the last convolution.
    """
    layers = list(named_layers(model).items())
    names = [name for name, _ in layers]
    attentions = [place for place, (_, module) in enumerate(layers) if "Attention" in type(module).__name__]
    convolution = last_conv(model)
    if attentions and (not convolution or names.index(convolution[0]) < attentions[0]):
        for place in reversed(attentions):
            block = names[place].rpartition(".")[0]
            norms = [
                at for at, (name, module) in enumerate(layers) if name.rpartition(".")[0] == block and _norms(module)
            ]
            before = [at for at in norms if at < place] or norms[:1]
            if before:
                return [names[before[-1]]]
    return convolution


def _norms(module: nn.Module) -> bool:
    return type(module).__name__.endswith(("LayerNorm", "RMSNorm"))


def top_level_blocks(model: nn.Module) -> list[str]:
    """Names of the outermost parts that hold weights; a lone wrapper (``self.net = ...``) is entered."""
    layers = named_layers(model)
    names = _parts(layers, "")
    while len(names) == 1 and (inner := _parts(layers, names[0] + ".")):
        names = inner
    return names


def _parts(layers: dict[str, nn.Module], prefix: str) -> list[str]:
    """Names of the parts with weights right under a prefix; a list or dict of modules is never called: its parts."""
    names = []
    for name, module in layers.items():
        scripted = isinstance(module, torch.jit.ScriptModule)  # takes no hooks
        if name.startswith(prefix) and name.count(".") == prefix.count(".") and _has_weights(module) and not scripted:
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
"""Layers by what they are in a model: words that may stand where a name stands."""


def select_layers(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """The layers that are meant, by name, in the order asked for.

    Args:
        model: any module.
        layers: one or several of: a name, a glob, a module type, the name of a type, a role (`ROLES`).

    Raises:
        LayerNotFoundError: nothing matches one of them; the message lists the nearest names.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    >>> list(select_layers(net, ["first_conv", nn.Linear]))
    ['0', '3']
    """
    every = named_layers(model)
    asked = [layers] if isinstance(layers, (str, type)) else list(layers)
    names: dict[str, None] = {}
    for one in asked:
        names.update(dict.fromkeys(_matching(model, every, one)))
    return {name: every[name] for name in names}


def _matching(model: nn.Module, every: dict[str, nn.Module], asked: str | type[nn.Module]) -> list[str]:
    if isinstance(asked, type):
        found = _once(model, lambda module: isinstance(module, asked))
    elif asked in every:
        found = [asked]
    elif asked in ROLES:
        found = ROLES[asked](model)
    else:
        found = [name for name in every if fnmatchcase(name, asked)]
        found = found or _once(model, lambda module: asked in {base.__name__ for base in type(module).__mro__})
    if not found:
        raise LayerNotFoundError(_not_found(asked, every))
    return found


def _not_found(asked: str | type[nn.Module], every: Iterable[str]) -> str:
    names = list(every)
    if isinstance(asked, type):
        return f"no layer is a {asked.__name__}; the model's layers are {_listed(names)}"
    if asked in ROLES:
        role = "convolution or attention, so no last maps" if asked == "last_maps" else asked.replace("_", " ")
        return f"the model has no {role}; its layers are {_listed(names)}"
    nearest = nearest_names(asked, names)
    hint = f"did you mean {_listed(nearest)}?" if nearest else f"the model's layers are {_listed(names)}"
    return f"no layer matches {asked!r}; {hint}"


def nearest_names(name: str, names: Iterable[str]) -> list[str]:
    """At most three names that look like one.

    Args:
        name: that is none of them.
        names: of layers or classes.
    """
    return difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "") if names else "none"


def _once(model: nn.Module, chosen: Callable[[nn.Module], bool]) -> list[str]:
    """Names of the chosen modules, each module once."""
    seen: set[int] = set()
    names = []
    for name, module in named_layers(model).items():
        if chosen(module) and id(module) not in seen:
            seen.add(id(module))
            names.append(name)
    return names


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
