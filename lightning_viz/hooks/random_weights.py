"""Randomized weights: a model with freshly initialized weights inside a context."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_viz.errors import ObservationError
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.model_state import preserve_state, same_randomness
from lightning_viz.hooks.shards import is_sharded

__all__ = ["randomized_weights"]

_INITIALIZERS = ("reset_parameters", "_reset_parameters")  # the second is torch's own name in its attention modules


@contextmanager
def randomized_weights(model: nn.Module, layers: Layers | None = None, *, seed: int = 0) -> Iterator[None]:
    """Randomized weights: reinitializes layers inside the context, without writing to the trained weights.

    Each parameter gets a new tensor, filled by its module's own ``reset_parameters``. One that no initializer changes
    (a class token, a layer scale, a weight under a parametrization) gets its own values in random order. Batch-norm
    statistics are reset as well. Parameters that share memory keep sharing it, so tied ones outside the selected layers
    change too. The weights of a layer depend neither on the device nor on the other selected layers.

    On leaving, also after an exception, values and storages are restored, and a pending backward stays valid.

    Args:
        model: any module; it is not copied. Uninitialized parameters of lazy modules are skipped.
        layers: layers to reinitialize, with their submodules; the whole model if omitted.
        seed: of the new weights; the global generators are restored.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        ObservationError: the weights are sharded over processes.
    """
    if is_sharded(model):
        raise ObservationError("the weights are sharded over processes, and cannot be replaced by random ones")
    roots = [model] if layers is None else list(select_layers(model, layers).values())
    inside = {id(module) for root in roots for module in root.modules()}
    modules = {index: module for index, module in enumerate(model.modules()) if id(module) in inside}
    with preserve_state(model), ExitStack() as stack:
        with torch.inference_mode(False), torch.no_grad():
            for parameter, fresh in _draw_weights(model, modules, seed):
                stack.callback(setattr, parameter, "data", parameter.data)
                parameter.data = fresh
        yield


def _draw_weights(model: nn.Module, modules: dict[int, nn.Module], seed: int) -> list[tuple[nn.Parameter, Tensor]]:
    """The parameters that change with their new tensors, drawn on the CPU in stand-ins for the parameters."""
    chosen = {id(p) for module in modules.values() for p in module.parameters(recurse=False)}
    parameters = [p for p in model.parameters() if not is_lazy(p)]
    storages = {_memory(p): _to(p.data, "cpu", copy=True) for p in parameters if id(p) in chosen}
    affected = [p for p in parameters if _memory(p) in storages]  # also those that share memory with a selected one
    stand_ins = {id(p): nn.Parameter(_view(storages[_memory(p)], p), requires_grad=False) for p in affected}
    with same_randomness():
        _initialize(modules, stand_ins, seed)
        for index, parameter in enumerate(parameters):
            if id(parameter) in chosen:
                _shuffle_if_unchanged(stand_ins[id(parameter)], parameter, seed + index)
    on_device = {_memory(p): _to(stand_ins[id(p)].data, p.device) for p in affected}
    return [(p, _view(on_device[_memory(p)], p)) for p in affected]


def _initialize(modules: dict[int, nn.Module], stand_ins: dict[int, nn.Parameter], seed: int) -> None:
    """Call every initializer, a submodule's before its parent's, with stand-ins for the real tensors."""
    buffers: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for module in modules.values():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            for name, buffer in module._buffers.items():
                if buffer is not None:  # `preserve_state` restores the real one
                    module._buffers[name] = buffers.setdefault(id(buffer), buffer.detach().clone())
            for name, parameter in module._parameters.items():
                if parameter is not None and id(parameter) in stand_ins:
                    module._parameters[name] = stand_ins[id(parameter)]
                    stack.callback(module._parameters.__setitem__, name, parameter)
        for index in sorted(modules, reverse=True):
            initialize = _initializer(modules[index])
            if initialize is not None:
                _seed_all(seed, index)
                initialize(modules[index])


def _initializer(module: nn.Module) -> Callable[[nn.Module], None] | None:
    """The initializer of the class, because a compiled module forwards attributes to the module it wraps."""
    for name in _INITIALIZERS:
        method = getattr(type(module), name, None)
        if method is not None and not isinstance(module, torch.jit.ScriptModule):
            needed = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
            if len([p for p in needed if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]) == 1:
                return method  # type: ignore[no-any-return]
    return None


def _seed_all(seed: int, index: int) -> None:
    """Seed each layer on its own, without `torch.manual_seed`, which would initialize devices."""
    mixed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
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
