"""Look at a model and leave it, bit for bit, as it was found."""

from __future__ import annotations

import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["evaluation_mode", "same_randomness", "preserve_state"]

Restore = Callable[[], None]

_LOOKED_AT: ContextVar[Mapping[int, Sequence[Restore]]] = ContextVar("looked_at", default=MappingProxyType({}))
"""By module, what puts its state back between two passes of one look."""

_CONTAINERS = (dict, OrderedDict, defaultdict, Counter, list, set, deque)


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[None]:
    """Whatever happens inside, also an exception, leaves no trace in the model or in a random generator.

    On leaving, these are bit for bit as before: the mode of every submodule, ``requires_grad``, ``.grad``, buffers,
    hooks, the attributes of every submodule (tensors, generators and counters among them; lists, dicts and sets one
    level deep), and the global generators of torch (CPU and devices), NumPy and Python. ``log`` and ``log_dict`` of
    a LightningModule do nothing inside. Not covered, because only a copy of everything could: weights that are
    changed in place, and what objects that are no modules keep to themselves.
    """
    restores = [
        *random_states(),
        *(_parameter_state(parameter) for parameter in model.parameters()),
        *(restore for module in model.modules() for restore in _module_state(module)),
    ]
    with ExitStack() as stack:  # runs every one of them, also when one raises
        for restore in restores:
            stack.callback(restore)
        for parameter in model.parameters():
            parameter.grad = None  # out of reach of a stray backward, which would add to it in place
        for module in model.modules():
            _silence(module)
        yield


def random_states() -> Iterator[Restore]:
    """For each global random generator, a function that puts its present state back."""
    yield _later(random.setstate, random.getstate())
    yield _later(np.random.set_state, np.random.get_state())  # noqa: NPY002
    yield _later(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        yield _later(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    if torch.backends.mps.is_available():
        yield _later(torch.mps.set_rng_state, torch.mps.get_rng_state())


def seed_torch(seed: int) -> None:
    """Seed torch's global generators, the devices' too; to be called inside `preserve_state`, which puts them back.

    Args:
        seed: of all of them.
    """
    torch.default_generator.manual_seed(seed)  # not `torch.manual_seed`, which reaches for devices that nobody uses
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


@contextmanager
def same_randomness() -> Iterator[None]:
    """All global random generators leave as they came."""
    with ExitStack() as stack:
        for restore in random_states():
            stack.callback(restore)
        yield


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """To run a model in: it evaluates, and is left as found (see `preserve_state`).

    Many passes in a row are put into one look, because taking down all that is to be put back costs as much as a small
    pass. Looking again inside puts back what the modules hold and the random generators: each pass begins alike.

    Args:
        model: any module.
    """
    if id(model) in _LOOKED_AT.get():
        with same_randomness(), torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
            for restore in _LOOKED_AT.get()[id(model)]:
                stack.callback(restore)
            yield
        return
    with preserve_state(model), evaluating(model):
        states = [restore for module in model.modules() for restore in _module_state(module)]
        token = _LOOKED_AT.set({**_LOOKED_AT.get(), id(model): states})
        try:
            yield
        finally:
            _LOOKED_AT.reset(token)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every submodule in eval mode, no weight asking for a gradient, gradients possible, compiled code run eagerly.

    To be opened inside `preserve_state`, which undoes it. The flags are set one by one: ``eval()`` of some modules does
    more than its name says (LoRA layers merge their weights).
    """
    for module in model.modules():
        module.training = False
        if isinstance(module, nn.DataParallel):
            module.device_ids = []  # run it here: rules and hooks do not reach its replicas' threads
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _later(function: Callable[[Any], Any], state: Any) -> Restore:
    def restore() -> None:
        function(state)

    return restore


def _parameter_state(parameter: nn.Parameter) -> Restore:
    grad, requires_grad = parameter.grad, parameter.requires_grad

    def restore() -> None:
        parameter.grad = grad
        if parameter.requires_grad != requires_grad:
            parameter.requires_grad_(requires_grad)

    return restore


def _module_state(module: nn.Module) -> Iterator[Restore]:
    """Restores what the module's attributes are, and then what is in those that can change in place."""
    yield _later(lambda mode: setattr(module, "training", mode), module.training)
    if isinstance(module, torch.jit.ScriptModule):  # keeps its attributes out of Python's sight
        yield from (_tensor_state(buffer) for buffer in module.buffers(recurse=False))
        return
    attributes = module.__dict__
    for value in attributes.values():
        if type(value) in _CONTAINERS:
            if value:
                yield _container_state(value)
        elif isinstance(value, Tensor):
            yield _tensor_state(value)
        elif type(value) is torch.Generator:  # isinstance takes 15 microseconds with torch's metaclass
            yield _later(value.set_state, value.get_state())
        elif isinstance(value, random.Random):
            yield _later(value.setstate, value.getstate())
        elif isinstance(value, np.random.RandomState):
            yield _later(value.set_state, value.get_state())
        elif isinstance(value, np.random.Generator):
            bits = value.bit_generator
            yield _later(lambda state, bits=bits: setattr(bits, "state", state), bits.state)  # type: ignore[misc]
    yield from (_tensor_state(buffer) for buffer in module._buffers.values() if buffer is not None)
    if getattr(module, "max_norm", None) is not None:  # an embedding that shrinks, in place, the rows it is asked for
        yield from (_tensor_state(weight) for weight in module._parameters.values() if weight is not None)
    yield _emptied([value for value in attributes.values() if type(value) in _CONTAINERS and not value])
    yield _attributes_state(attributes)


def _attributes_state(attributes: dict[str, Any]) -> Restore:
    before = dict(attributes)

    def restore() -> None:
        for name in attributes.keys() - before.keys():
            del attributes[name]
        for name, value in before.items():
            if attributes.get(name, attributes) is not value:
                attributes[name] = value

    return restore


def _emptied(containers: list[Any]) -> Restore:
    """Restores what was empty: of a module's dozen hook dictionaries, nearly all."""

    def restore() -> None:
        for container in containers:
            container.clear()

    return restore


def _container_state(container: Any) -> Restore:
    before = container.copy()

    def same() -> bool:
        if len(container) != len(before):
            return False
        if isinstance(container, dict):
            pairs = zip(container.items(), before.items(), strict=True)
            return all(new[0] == old[0] and new[1] is old[1] for new, old in pairs)
        return isinstance(container, set) or all(new is old for new, old in zip(container, before, strict=True))

    def restore() -> None:
        if not same():
            container.clear()
            container.extend(before) if isinstance(container, (list, deque)) else container.update(before)

    return restore


def _tensor_state(tensor: Tensor) -> Restore:
    """Restores a tensor's storage and content. Its version does not tell: batch norm and ``.data`` write past it."""
    strided = tensor.layout is torch.strided
    storage, before, version = tensor.data, tensor.detach().clone(), None if strided else tensor._version

    def restore() -> None:
        with torch.inference_mode(tensor.is_inference()), torch.no_grad():
            if strided and (tensor.data_ptr() != storage.data_ptr() or tensor.shape != storage.shape):
                tensor.data = storage
            if not (_same(tensor, before) if strided else tensor._version == version):
                tensor.copy_(before)  # only then: it counts as a write, on which a pending backward would stumble

    return restore


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or torch.equal(_bytes(one), _bytes(other))  # NaN is not equal to itself


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().flatten().contiguous().view(torch.uint8)


def _silence(module: nn.Module) -> None:
    """Shadow Lightning's ``log`` and ``log_dict``; the shadow goes with the restored attributes."""
    if callable(getattr(type(module), "log", None)) and callable(getattr(type(module), "log_dict", None)):
        module.__dict__["log"] = module.__dict__["log_dict"] = _log_nothing


def _log_nothing(*args: Any, **options: Any) -> None:
    """Stands in for ``log`` and ``log_dict`` while a model is looked at."""
