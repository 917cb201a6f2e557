"""Layer selection by name, pattern, type or role."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Union

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lightning_viz.errors import LayerNotFoundError

__all__ = ["Layers", "select_layers"]

Layers = Union[str, type[nn.Module], Sequence[Union[str, type[nn.Module]]]]
"""Names (``"layer4.1"``), globs (``"layer4.*"``), types (``nn.Conv2d`` or ``"Conv2d"``) or roles (see `ROLES`)."""


NORMALIZATIONS: tuple[type[nn.Module], ...] = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Types of layers that normalize what another layer puts out."""
_FAST_PATHS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


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


def attends(model: nn.Module) -> bool:
    """Whether a model holds a module that attends, by its class: torch's own, or one whose name says so."""
    return any(isinstance(module, _FAST_PATHS) or "Attention" in type(module).__name__ for module in model.modules())


def weighted(model: nn.Module) -> list[str]:
    """Names of the layers with weights of their own, normalizations among them, in order of registration.

    Left out is what lies inside torch's own attention and transformer layers: its fast path in eval mode calls no
    modules, and a hook there would switch it off, which changes the last digits of outputs.
    """
    outer = [module for module in named_layers(model).values() if isinstance(module, _FAST_PATHS)]
    inside = {id(part) for module in outer for part in module.modules()}
    return _distinct(model, lambda module: _has_weight(module) and id(module) not in inside)


def _has_weight(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule):  # does not support hooks
        return False
    weight = module._parameters.get("weight")  # not the attribute: one that is computed moves on when asked for
    parts = module._modules.get("parametrizations")
    computed = parts is not None and "weight" in parts._modules
    return computed or isinstance(module, (nn.RNNBase, *NORMALIZATIONS)) or (weight is not None and weight.dim() > 1)


def last_conv(model: nn.Module) -> list[str]:
    """Name of the last convolution outside auxiliary heads, which serve training only; of a detector of its backbone.

    A detector's heads, and the pyramid below them, have several maps, of which a detection depends on one or none.
    """
    names = [name for name in convolutions(model) if not any(part.startswith("aux") for part in name.split("."))]
    backbone = _backbone(model)
    return [name for name in names if name.startswith(backbone)][-1:]


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

    - In a transformer the normalization before the last attention, because after it a classifier on the class token
      depends on no other token; of an encoder with a decoder the encoder's.
    - In a mixer, whose only convolution cuts the patches, the last of the repeated blocks.
    - In a segmentation net the last block of the encoder, because behind it every place has a score of its own.
    - In any other model, including hybrids that begin with convolutions, the block that ends with the last convolution
      (the convolution itself where there is none), or the normalization and activation that follow it.
    """
    layers = named_layers(model)
    encoder = _encoder(layers)
    if encoder:
        inner = layers[encoder]
        return [f"{encoder}.{name}" for name in last_maps(inner)] or [encoder]
    names = list(layers)
    convolution = last_conv(model)
    attention = _before_attention(layers)
    attentions = [name for name in names if "Attention" in type(layers[name]).__name__]
    if attention and (not convolution or names.index(convolution[0]) < names.index(attentions[0])):
        return [attention]
    if not convolution:
        return []
    upsampling = [name for name in names if isinstance(layers[name], (nn.Upsample, _ConvTransposeNd))]
    if upsampling:  # the coarsest maps are those before the first
        before = [name for name in convolutions(model) if names.index(name) < names.index(upsampling[0])]
        convolution = before[-1:] or convolution
    mixers = [name for name in _repeated(model) if names.index(name) > names.index(convolution[0])]
    mixers = [name for name in mixers if _holds(layers[name], nn.Linear) and not _holds(layers[name], _ConvNd)]
    return mixers[-1:] or [_end_of_block(model, convolution[0])]


def _encoder(layers: dict[str, nn.Module]) -> str | None:
    """The part of a segmentation net whose maps its head reads; None if the model is no such net."""
    for name, module in layers.items():
        holder, _, last = name.rpartition(".")
        if last in ("encoder", "backbone") and _holds(module, _ConvNd):
            heads = [other for other in _directly_in(layers, holder) if other.rpartition(".")[2] in _DENSE_HEADS]
            if any(_holds(layers[head], _ConvNd) for head in heads):
                return name
    for name, module in layers.items():
        holder, _, last = name.rpartition(".")
        if last in _SEGMENTATION_HEADS and _holds(module, _ConvNd):
            others = [other for other in _directly_in(layers, holder) if _holds(layers[other], _ConvNd)]
            others.remove(name)
            if len(others) == 1:  # Hugging Face calls it by the model's name
                return others[0]
    return None


_SEGMENTATION_HEADS = ("decode_head", "segmentation_head", "seg_head")
_DENSE_HEADS = ("decoder", "classifier", *_SEGMENTATION_HEADS)


def _before_attention(layers: dict[str, nn.Module]) -> str | None:
    """The normalization before the last attention; of an encoder's, if there is one beside the decoder."""
    names = list(layers)
    attentions = [index for index, module in enumerate(layers.values()) if "Attention" in type(module).__name__]
    encoding = [index for index in attentions if "encoder" in names[index].split(".")]
    decoding = [index for index in attentions if "decoder" in names[index].split(".")]
    for attention in reversed(encoding if encoding and decoding else attentions):
        beside = _directly_in(layers, names[attention].rpartition(".")[0])
        norms = [name for name in beside if type(layers[name]).__name__.endswith(("LayerNorm", "RMSNorm"))]
        before = [name for name in norms if names.index(name) < attention] or norms[:1]
        if before:
            return before[-1]
    return None


def _end_of_block(model: nn.Module, convolution: str) -> str:
    """The block that ends with a convolution, or what normalizes and activates its output in the same container."""
    layers, classes = named_layers(model), _block_classes(model)
    parts = convolution.split(".")
    for depth in range(1, len(parts)):
        name = ".".join(parts[:depth])
        if type(layers[name]) in classes and not _ends_in_vector(layers[name]):
            holder = name.rpartition(".")[0]  # a dense block joins the outputs of its layers
            joins = isinstance(layers.get(holder), _LISTS) and type(layers[holder]) not in _LISTS
            return holder if joins else name
    parent = convolution.rpartition(".")[0]
    beside = _directly_in(layers, parent)
    after = beside[beside.index(convolution) + 1 :]
    if not after or not isinstance(layers[after[0]], _NormBase):
        return convolution
    if not isinstance(layers.get(parent, model), nn.Sequential):
        return after[0]
    end = after[1] if len(after) > 1 and type(layers[after[1]]).__module__ == nn.ReLU.__module__ else after[0]
    return parent if parent and end == beside[-1] else end


def _ends_in_vector(module: nn.Module) -> bool:
    """Whether a module's own parts make a vector of its maps, as a whole net's do."""
    return any(isinstance(part, nn.Flatten) for part in module.modules()) or any(
        isinstance(part, nn.Linear) for part in module.children()
    )


def _directly_in(layers: dict[str, nn.Module], holder: str) -> list[str]:
    """Names of the modules that a module holds itself; empty is the name of the model."""
    return [name for name in layers if name.rpartition(".")[0] == holder]


def _holds(module: nn.Module, kind: type[nn.Module]) -> bool:
    return any(isinstance(part, kind) for part in module.modules())


def top_level_blocks(model: nn.Module) -> list[str]:
    """Names of the outermost modules with weights; a single wrapper (``self.net = ...``) is entered."""
    layers = named_layers(model)
    names = _parts(layers, "")
    while len(names) == 1 and (inner := _parts(layers, names[0] + ".")):
        names = inner
    return names


def repeated_blocks(model: nn.Module) -> list[str]:
    """Names of the blocks of which a model is built: modules of one class that follow each other in a container.

    Also modules of one class that are attributes of one module. Of more than 16 blocks the stages that hold them, or,
    where there are none, as many of them, evenly spaced, with the last. Without any such block the outermost modules
    with weights.
    """
    layers = named_layers(model)
    blocks = _repeated(model)
    if len(blocks) < 2:
        return top_level_blocks(model)
    if len(blocks) <= _MOST_BLOCKS:
        return blocks
    stages = list(dict.fromkeys(_stage(layers, name) for name in blocks))
    if "" not in stages and 1 < len(stages) <= _MOST_BLOCKS:
        return stages
    step = -(-len(blocks) // _MOST_BLOCKS)
    return blocks[::-1][::step][::-1]


_MOST_BLOCKS = 16
_LISTS = (nn.ModuleList, nn.ModuleDict)
_CONTAINERS = (nn.Sequential, *_LISTS)
_WEIGHTED = (_ConvNd, nn.Linear, nn.RNNBase, nn.MultiheadAttention)


def _repeated(model: nn.Module) -> list[str]:
    """Names of all repeated blocks, of which none lies in another; of stages that repeat, those inside."""
    layers, classes = named_layers(model), _block_classes(model)
    for outer in list(classes):
        stages = [module for module in layers.values() if type(module) is outer]
        inside = [_block_classes(stage, attributes=False) for stage in stages]
        if all(_make_up(stage, inner) for stage, inner in zip(stages, inside, strict=True)):
            classes = (classes - {outer}).union(*inside)
    return _outermost(layers, classes)


def _block_classes(model: nn.Module, *, attributes: bool = True) -> set[type[nn.Module]]:
    """Classes of modules with several weight layers, or at least one, of which two follow each other."""
    repeated: dict[type[nn.Module], int] = {}  # with the number of weight layers inside
    for holder in model.modules():
        items = list(holder.children())
        if isinstance(holder, _CONTAINERS):
            pairs = [one for one, other in pairwise(items) if type(one) is type(other)]
        else:
            kinds = [type(item) for item in items] if attributes else []
            pairs = [item for item in items if kinds.count(type(item)) > 1 and _weight_layers(item) > 1]
        repeated.update({type(item): _weight_layers(item) for item in pairs if type(item) not in _CONTAINERS})
    several = {kind for kind, count in repeated.items() if count > 1}
    return several or ({kind for kind, count in repeated.items() if count} if attributes else set())


def _make_up(stage: nn.Module, classes: set[type[nn.Module]]) -> bool:
    """Whether modules of some classes hold nearly all weights of a stage."""
    blocks = [part for part in stage.modules() if type(part) in classes]
    held = {id(weight): weight.numel() for block in blocks for weight in block.parameters()}
    return bool(held) and sum(held.values()) > 0.8 * sum(weight.numel() for weight in stage.parameters())


def _weight_layers(module: nn.Module) -> int:
    """Number of the layers with weights inside a module, itself not among them."""
    return sum(isinstance(part, _WEIGHTED) for part in module.modules() if part is not module)


def _outermost(layers: dict[str, nn.Module], classes: set[type[nn.Module]]) -> list[str]:
    """Names of the modules of some classes that lie in no other, each module once."""
    names: list[str] = []
    visited: set[int] = set()
    for name, module in layers.items():
        auxiliary = any(part.startswith("aux") for part in name.split("."))  # serves training only
        if type(module) in classes and id(module) not in visited and not auxiliary:
            visited.add(id(module))
            if not any(name.startswith(f"{outer}.") for outer in names):
                names.append(name)
    return names


def _stage(layers: dict[str, nn.Module], block: str) -> str:
    """The innermost module that holds a block and is called, not a mere list; empty for the model itself."""
    name = block.rpartition(".")[0]
    while name and type(layers[name]) in _LISTS:
        name = name.rpartition(".")[0]
    return name


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
    "blocks": repeated_blocks,
    "parts": top_level_blocks,
    "weighted": weighted,
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
    selectors = [layers] if isinstance(layers, (str, type)) else list(layers)
    if not selectors:
        return {}
    layers_by_name = named_layers(model)
    names: dict[str, None] = {}
    for selector in selectors:
        names.update(dict.fromkeys(_matching(model, layers_by_name, selector)))
    return {name: layers_by_name[name] for name in names}


def _matching(model: nn.Module, layers_by_name: dict[str, nn.Module], selector: str | type[nn.Module]) -> list[str]:
    if isinstance(selector, type):
        names = _distinct(model, lambda module: isinstance(module, selector))
    elif selector in layers_by_name and not (selector in ROLES and type(layers_by_name[selector]) in _CONTAINERS):
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
        return f"the model has no {role}; its layers are {_listed(names, most=4)}"
    nearest = nearest_names(selector, names)
    hint = f"did you mean {_listed(nearest)}?" if nearest else f"the model's layers are {_listed(names)}"
    return f"no layer matches {selector!r}; {hint}"


def nearest_names(name: str, names: Iterable[str]) -> list[str]:
    """At most three names of layers or classes that are similar to a misspelt one."""
    return difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)


def _listed(names: list[str], most: int = 12) -> str:
    printed = ", ".join(repr(name) for name in names[:most])
    return printed + (f" and {len(names) - most} more" if len(names) > most else "") if names else "none"


def _distinct(model: nn.Module, predicate: Callable[[nn.Module], bool]) -> list[str]:
    """Names of the modules that satisfy a predicate, each module once."""
    visited: set[int] = set()
    names = []
    for name, module in named_layers(model).items():
        if predicate(module) and id(module) not in visited:
            visited.add(id(module))
            names.append(name)
    return names
