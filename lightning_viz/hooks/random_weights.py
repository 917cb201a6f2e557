"""A model with random weights in place of its own, and its own back afterwards."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.model_state import preserve_state, same_randomness

__all__ = ["randomized_weights"]

_INITIALIZERS = ("reset_parameters", "_reset_parameters")  # the second is torch's own name in its attention modules


@contextmanager
def randomized_weights(model: nn.Module, layers: Layers | None = None, *, seed: int = 0) -> Iterator[None]:
    """Inside, some layers have weights as if they had never been trained; the real ones are not written to.

    Each parameter points at a fresh tensor, filled by its module's own ``reset_parameters``. One that no initializer
    changes (a class token, a layer scale, a weight under a parametrization) gets its own values in random order.
    Batch norm's statistics are fresh as well, as its initializer makes them. Parameters that share memory go on
    sharing it: of tied ones, those of a layer outside change with those inside. A layer draws the same weights on
    every device, and whichever other layers are re-initialized with it.

    On leaving, also by an exception, all is bit for bit and storage for storage as before, and a pending
    backward goes on.

    Args:
        model: any module; it is not copied. What a lazy module has not made yet stays unmade.
        layers: those to re-initialize, with everything in them; the whole model if omitted.
        seed: of the fresh weights; the global generators are left as they are.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
    """
    roots = [model] if layers is None else list(select_layers(model, layers).values())
    inside = {id(module) for root in roots for module in root.modules()}
    modules = {place: module for place, module in enumerate(model.modules()) if id(module) in inside}
    with preserve_state(model), ExitStack() as stack:
        with torch.inference_mode(False), torch.no_grad():
            for parameter, fresh in _drawn(model, modules, seed):
                stack.callback(setattr, parameter, "data", parameter.data)
                parameter.data = fresh
        yield


def _drawn(model: nn.Module, modules: dict[int, nn.Module], seed: int) -> list[tuple[nn.Parameter, Tensor]]:
    """Each parameter that changes with what it shall point at; drawn on the CPU, on stand-ins for the parameters."""
    chosen = {id(p) for module in modules.values() for p in module.parameters(recurse=False)}
    every = [p for p in model.parameters() if not is_lazy(p)]
    storages = {_memory(p): _to(p.data, "cpu", copy=True) for p in every if id(p) in chosen}
    touched = [p for p in every if _memory(p) in storages]  # also those that share memory with a chosen one
    stand_ins = {id(p): nn.Parameter(_view(storages[_memory(p)], p), requires_grad=False) for p in touched}
    with same_randomness():
        _initialize(modules, stand_ins, seed)
        for place, parameter in enumerate(every):
            if id(parameter) in chosen:
                _shuffle_if_unchanged(stand_ins[id(parameter)], parameter, seed + place)
    moved = {_memory(p): _to(stand_ins[id(p)].data, p.device) for p in touched}
    return [(p, _view(moved[_memory(p)], p)) for p in touched]


def _initialize(modules: dict[int, nn.Module], stand_ins: dict[int, nn.Parameter], seed: int) -> None:
    """Call every initializer, a part's before its whole's, as in construction; the real tensors are out of reach."""
    buffers: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for module in modules.values():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            for name, buffer in module._buffers.items():
                if buffer is not None:  # `preserve_state` puts the real one back
                    module._buffers[name] = buffers.setdefault(id(buffer), buffer.detach().clone())
            for name, parameter in module._parameters.items():
                if parameter is not None and id(parameter) in stand_ins:
                    module._parameters[name] = stand_ins[id(parameter)]
                    stack.callback(module._parameters.__setitem__, name, parameter)
        for place in sorted(modules, reverse=True):
            initialize = _initializer(modules[place])
            if initialize is not None:
                _seed_all(seed, place)
                initialize(modules[place])


def _initializer(module: nn.Module) -> Callable[[nn.Module], None] | None:
    """From the class: a compiled module passes questions on to what it wraps, which has its own turn."""
    for name in _INITIALIZERS:
        found = getattr(type(module), name, None)
        if found is not None and not isinstance(module, torch.jit.ScriptModule):
            needed = [p for p in inspect.signature(found).parameters.values() if p.default is p.empty]
            if len([p for p in needed if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]) == 1:
                return found  # type: ignore[no-any-return]
    return None


def _seed_all(seed: int, place: int) -> None:
    """Seed each layer by itself; not by `torch.manual_seed`, which reaches for the devices too."""
    mixed = int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
    torch.default_generator.manual_seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002
    random.seed(mixed)


def _shuffle_if_unchanged(stand_in: Tensor, parameter: Tensor, seed: int) -> None:
    if torch.equal(stand_in, parameter.detach().to("cpu")):
        order = torch.randperm(stand_in.numel(), generator=torch.Generator().manual_seed(seed))
        stand_in.copy_(stand_in.flatten()[order].view_as(stand_in))


def _memory(tensor: Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.untyped_storage().data_ptr()


def _to(tensor: Tensor, device: torch.device | str, *, copy: bool = False) -> torch.UntypedStorage:
    """A tensor's whole storage on another device."""
    whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
    return whole.to(device, copy=copy).untyped_storage()


def _view(storage: torch.UntypedStorage, like: Tensor) -> Tensor:
    empty = torch.empty(0, dtype=like.dtype, device=storage.device)
    return empty.set_(storage, like.storage_offset(), like.size(), like.stride())
