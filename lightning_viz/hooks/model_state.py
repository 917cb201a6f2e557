"""Preservation of a model's state, bit for bit, and of the random generators."""

from __future__ import annotations

import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from operator import is_
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_viz.errors import warn_user
from lightning_viz.hooks.shards import (
    IN_PLACE,
    economize,
    fsdp_records,
    gathered_groups,
    keep_in_place,
    own_part,
    settle,
)

__all__ = ["evaluation_mode", "same_randomness", "preserve_state"]

Restore = Callable[[], object]

_RESTORES: ContextVar[Mapping[int, Sequence[Restore]]] = ContextVar("restores", default=MappingProxyType({}))
"""By the id of a model, the functions that restore its state between the passes of one `evaluation_mode`."""

_CONTAINERS = frozenset((dict, OrderedDict, defaultdict, Counter, list, set, deque))
_HOLDERS = _CONTAINERS | {tuple}  # a tuple does not change, but what it holds may
_CONSTANTS = frozenset((bool, int, float, str, type(None)))


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[None]:
    """Restore the model and the random generators on leaving, also after an exception.

    These are restored bit for bit: the mode of every submodule, ``requires_grad``, ``.grad``, buffers,
    hooks, the attributes of every submodule (tensors, generators and counters among them), what its lists, dicts, sets
    and deques hold, those that are nested in one another included, and the global generators of torch (CPU and
    devices), NumPy and Python. ``log`` and ``log_dict`` of a LightningModule do nothing inside. Not restored, because
    only a deep copy could: weights, and tensors in containers, that are changed in place, and the state of objects that
    are no modules.
    """
    with _preserved(model):
        yield


@contextmanager
def _preserved(model: nn.Module) -> Iterator[tuple[list[nn.Module], list[Restore]]]:
    """See `preserve_state`; the model's modules, and restores for what their attributes hold."""
    modules = list(model.modules())
    parameters = _parameters(modules)
    contents = _content_states(modules)
    restores: list[Restore] = [
        partial(keep_in_place, model, gathered_groups(model)),
        *random_states(),
        *map(_parameter_state, parameters),
        *(
            partial(setattr, module, "training", module.training)
            for module in modules
            if "training" not in vars(module)
        ),
        *contents,
        _attributes_state([vars(module) for module in modules]),
        *(restore for record in fsdp_records(model) for restore in _record_state(record)),
    ]
    with _restored(restores):
        for parameter in parameters:
            parameter.grad = None  # so that a backward inside does not accumulate into it in place
        for module in modules:
            _silence(module)
        yield modules, contents


def random_states() -> Iterator[Restore]:
    """For each global random generator, a function that restores its present state."""
    yield partial(random.setstate, random.getstate())
    yield partial(np.random.set_state, np.random.get_state())  # noqa: NPY002
    yield partial(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        yield partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    if torch.backends.mps.is_available():
        yield partial(torch.mps.set_rng_state, torch.mps.get_rng_state())


def seed_torch(seed: int) -> None:
    """Seed torch's global generators, also those of devices; call it inside `preserve_state`, which restores them."""
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would initialize unused devices
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


@contextmanager
def same_randomness() -> Iterator[None]:
    """Restore all global random generators on leaving."""
    with _restored(random_states()):
        yield


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode, and restore its state on leaving (see `preserve_state`).

    Wrap many passes in one context, because saving the state costs as much as a small pass. A nested context restores
    only the modules' attributes and the random generators, so that each pass starts from the same state. Of a sharded
    model all processes must enter it: what FSDP2 has gathered for one more pass is let go of.

    Args:
        model: any module.
    """
    if id(model) in _RESTORES.get():
        restores = _RESTORES.get()[id(model)]
        with same_randomness(), torch.inference_mode(False), torch.enable_grad(), _restored(restores):
            yield
        return
    settle(model)  # from here on the parameters are those that the optimizer has
    with _preserved(model) as (modules, contents), evaluating(model):
        attributes = _attributes_state([vars(module) for module in modules])
        restores = [*contents, attributes, partial(settle, model)]
        token = _RESTORES.set({**_RESTORES.get(), id(model): restores})
        try:
            yield
        finally:
            _RESTORES.reset(token)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set every submodule to eval mode, weights to no gradient, gradients to enabled, and compiled code to eager.

    Open it inside `preserve_state`, which undoes it. The flags are set directly, because ``eval()`` has side effects in
    some modules (LoRA layers merge their weights).
    """
    modules = list(model.modules())
    for module in modules:
        if module.training:
            module.training = False
        if isinstance(module, nn.DataParallel):
            module.device_ids = []  # run in this thread: rules and hooks do not reach the replicas' threads
    for parameter in _parameters(modules):
        parameter.requires_grad_(False)
    economize(model)
    compiles = "torch._dynamo" in sys.modules  # otherwise nothing is compiled, and the import takes seconds
    stance = torch.compiler.set_stance("force_eager") if compiles else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), stance:
        yield


@contextmanager
def _restored(restores: Iterable[Restore]) -> Iterator[None]:
    """Run all restores on leaving, the last one first, even if one raises."""
    waiting, errors = list(restores), list[BaseException]()
    try:
        yield
    finally:
        while waiting:
            try:
                waiting[-1]()
                waiting.pop()
            except KeyboardInterrupt as error:  # it may have come in the midst of a restore, which may run again
                errors.append(error)
            except BaseException as error:
                errors.append(error)
                waiting.pop()
        if errors:
            raise errors[0]


def _parameters(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The modules' own parameters, each once."""
    held = (parameter for module in modules for parameter in module._parameters.values() if parameter is not None)
    return list(dict.fromkeys(held))


def _parameter_state(parameter: nn.Parameter) -> Restore:
    grad, requires_grad = parameter.grad, parameter.requires_grad

    def restore() -> None:
        parameter.grad = grad
        if parameter.requires_grad != requires_grad:
            parameter.requires_grad_(requires_grad)

    return restore


def _content_states(modules: Iterable[nn.Module]) -> list[Restore]:
    """Restores for what the modules' attributes hold that can change: containers, tensors and random generators.

    Run `_attributes_state`'s after them, that is before them in the order of `_restored`.
    """
    containers, empty = list[Any](), list[Any]()
    restores: list[Restore] = []
    for module in modules:
        if isinstance(module, torch.jit.ScriptModule):  # its attributes are not visible to Python
            restores += map(_tensor_state, module.buffers(recurse=False))
            continue
        attributes = vars(module)
        for value in attributes.values():
            kind = type(value)
            if kind in _CONSTANTS:
                continue
            if kind in _HOLDERS:
                if value:
                    containers += _nested(value)
                elif kind is not tuple:
                    empty.append(value)
            elif isinstance(value, Tensor):
                restores.append(_tensor_state(value))
            elif (restore := _generator_state(value)) is not None:
                restores.append(restore)
        restores += [_tensor_state(buffer) for buffer in module._buffers.values() if buffer is not None]
        if _has_max_norm(module):  # an embedding, or another layer, that renormalizes its weight in place
            restores += [_tensor_state(weight) for weight in module._parameters.values() if weight is not None]
    return [*restores, _containers_state(containers, empty)]


def _has_max_norm(module: nn.Module) -> bool:
    held = vars(module), module._buffers, module._parameters
    named = any("max_norm" in names for names in held) or hasattr(type(module), "max_norm")
    return named and getattr(module, "max_norm", None) is not None  # asked of every module, it would take microseconds


def _generator_state(value: Any) -> Restore | None:
    """Restores a random generator; None for anything else."""
    if type(value) is torch.Generator:  # isinstance takes 15 microseconds with torch's metaclass
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    if isinstance(value, np.random.RandomState):
        return partial(value.set_state, value.get_state())
    if isinstance(value, np.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    return None


def _record_state(record: Any) -> Iterator[Restore]:
    """Restores for an object's attributes, and for what those of them hold that are containers."""
    attributes = vars(record)
    yield _containers_state([value for value in attributes.values() if type(value) in _CONTAINERS], ())
    yield _attributes_state([attributes], except_name=IN_PLACE)


def _attributes_state(attribute_dicts: Iterable[dict[str, Any]], *, except_name: str | None = None) -> Restore:
    """Restores which attributes each object has, and which objects they are; one by its name left alone."""
    saved = [(attributes, attributes.copy()) for attributes in attribute_dicts]

    def restore() -> None:
        for attributes, before in saved:
            if not _is_same(attributes, before):
                for name in attributes.keys() - before.keys():
                    del attributes[name]
                for name, value in before.items():
                    if name != except_name and attributes.get(name, attributes) is not value:
                        attributes[name] = value

    return restore


def _nested(container: Any) -> list[Any]:
    """A container, and all those in it, each once; a tuple is passed through, but holds nothing that can change."""
    if _HOLDERS.isdisjoint(map(type, container.values() if isinstance(container, dict) else container)):
        return [] if type(container) is tuple else [container]
    found: dict[int, Any] = {}
    waiting = [container]
    while waiting:
        container = waiting.pop()
        if id(container) not in found:
            found[id(container)] = container
            parts = container.values() if isinstance(container, dict) else container
            waiting += [part for part in parts if type(part) in _HOLDERS]
    return [container for container in found.values() if type(container) is not tuple]


def _containers_state(containers: Iterable[Any], empty: Iterable[Any]) -> Restore:
    """Restores what containers hold; those that are empty, as nearly all of a module's are, need no copy."""
    saved = [(container, container.copy()) for container in containers]

    def restore() -> None:
        for container in empty:
            if container:
                container.clear()
        for container, before in saved:
            if not _is_same(container, before):
                container.clear()
                container.extend(before) if isinstance(container, (list, deque)) else container.update(before)

    return restore


def _is_same(container: Any, before: Any) -> bool:
    """Whether a container holds the very objects that its copy holds, in their order if it has one."""
    if len(container) != len(before):
        return False
    if isinstance(container, dict):
        return all(map(is_, container, before)) and all(map(is_, container.values(), before.values()))
    if isinstance(container, set):  # the copy of one may have another order
        return bool(container == before)
    return all(map(is_, container, before))


def _tensor_state(tensor: Tensor) -> Restore:
    """Restores a tensor's storage and content. The version is no evidence: batch norm does not increase it."""
    tensor = own_part(tensor)
    strided = tensor.layout is torch.strided
    storage, before, version = tensor.data, tensor.detach().clone(), None if strided else tensor._version
    expanded = strided and any(step == 0 and side > 1 for step, side in zip(tensor.stride(), tensor.shape, strict=True))
    compared = not strided or expanded or tensor.device.type == "cpu"  # for a device's answer the CPU would wait

    def restore() -> None:
        with torch.inference_mode(tensor.is_inference()), torch.no_grad():
            if strided and (tensor.data_ptr() != storage.data_ptr() or tensor.shape != storage.shape):
                tensor.data = storage
            if compared:
                unchanged = _equal_bits(tensor, before) if strided else tensor._version == version
                if not unchanged:
                    tensor.copy_(before)  # only then: a write would make a pending backward fail
            else:
                tensor.data.copy_(before)  # which counts as no write

    return restore


def _equal_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) or torch.equal(_bytes(a), _bytes(b))  # NaN is not equal to itself


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().flatten().contiguous().view(torch.uint8)


def _silence(module: nn.Module) -> None:
    """Shadow Lightning's ``log`` and ``log_dict`` in the instance, until its attributes are restored."""
    if callable(getattr(type(module), "log", None)) and callable(getattr(type(module), "log_dict", None)):
        module.__dict__["log"] = module.__dict__["log_dict"] = _log_nothing


def _log_nothing(*args: Any, **options: Any) -> None:
    """Replaces ``log`` and ``log_dict`` inside `preserve_state`."""


def warn_if_training(model: nn.Module, category: type[Warning], *, name: str = "the model") -> None:
    """Warn, with a category, that a model in train mode is run in eval mode; `name` is the model in words."""
    if any(module.training for module in model.modules()):
        which = name if model.training else f"a part of {name}"
        warn_user(f"{which} is in train mode: it is run in eval mode, with the statistics it is used with", category)
