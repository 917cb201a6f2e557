"""A device apart from the CPU, as a GPU is, for machines without one: it keeps to its own, and counts who waits for it.

Its tensors say that they are on ``meta``, and hold their values on the CPU. Inside `separate_device` every operation on
them is computed there. What a GPU refuses is refused, operands on several devices say; what makes the CPU wait for a
GPU (see `Waits`) is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from lightning_viz import host_copies
from lightning_viz.hooks.pytree import map_tensors

DEVICE = torch.device("meta")

Waits = Counter[str]
"""How often the CPU waits until the device has done all that it was given, by the operation: to read a value or to know
a size, and for a copy in either direction that is not ``non_blocking``."""

_SIZES_BY_VALUE = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "equal"}
_FROM_VALUES = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
_CONSTANT = 0  # dimensions of a tensor on the CPU that goes with those of any device


class _Far(Tensor):
    """A tensor of the device."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> _Far:
        made: _Far = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            device=DEVICE,
        )  # fmt: skip
        made.values = values
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on the separate device, outside of separate_device()")


class _Operations(TorchDispatchMode):
    """Computes every operation on the CPU, for the device where it is one of its own."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), func._overloadpacket.__name__
        given = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        far = [x for x in given if isinstance(x, _Far)]
        named = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        if not far and named != DEVICE:
            return func(*args, **kwargs)
        if named is not None:
            kwargs["device"] = torch.device("cpu")
        if name in ("_to_copy", "copy_"):
            self._count_copy(name, args, kwargs, named)
        elif far:
            self._refuse_mixed(func, name, args, kwargs)
            self._count(name, args)
        inner = {id(x): x.values for x in far}
        plain_args, plain_kwargs = tree_map(lambda x: inner.get(id(x), x), (args, kwargs))
        result = func(*plain_args, **plain_kwargs)
        if name == "_to_copy" and named is not None and named != DEVICE:
            return result
        if name == "copy_" and not isinstance(args[0], _Far):
            return args[0]
        outer = {id(x.values): x for x in far}

        def outside(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return outer[id(x)] if id(x) in outer else _Far(x.resolve_conj().resolve_neg())

        return tree_map(outside, result)

    def _count_copy(self, name: str, args: Any, kwargs: Any, to: torch.device | None) -> None:
        here = isinstance(args[0], _Far)
        there = isinstance(args[1], _Far) if name == "copy_" else here if to is None else to == DEVICE
        waits = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        source_on_device, target_on_device = (there, here) if name == "copy_" else (here, there)
        if waits and source_on_device != target_on_device and args[name == "copy_"].numel():
            self._waits["to the device" if target_on_device else "to the CPU"] += 1

    def _count(self, name: str, args: Any) -> None:
        if name == "_local_scalar_dense":
            self._waits["value"] += 1
        elif name in _SIZES_BY_VALUE or (name == "repeat_interleave" and len(args) == 1):
            self._waits[name] += 1
        elif name in ("index", "index_put", "index_put_", "_unsafe_index", "_unsafe_index_put"):
            indices = [x for x in args[1] if x is not None]
            filled = name.startswith("index_put") and args[2].dim() == 0 and len(indices) == 1
            if any(x.dtype in (torch.bool, torch.uint8) for x in indices) and not filled:
                self._waits["mask as an index"] += 1
            if any(not isinstance(x, _Far) for x in indices):
                self._waits["index from the CPU"] += 1

    def _refuse_mixed(self, func: Any, name: str, args: Any, kwargs: Any) -> None:
        checked = (args[0], *args[2:]) if name.startswith("index") and isinstance(args[1], (list, tuple)) else args
        strangers = [
            x for x in tree_iter((checked, kwargs)) if isinstance(x, Tensor) and not isinstance(x, _Far)
            and x.dim() > _CONSTANT
        ]  # fmt: skip
        if strangers:
            shapes = [list(x.shape) for x in strangers]
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, but {shapes} are on the CPU")


class _Values(TorchFunctionMode):
    """Makes tensors of numbers on the CPU, and copies them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist and isinstance(args[0], _Far):
            return args[0].cpu().tolist()
        if func in _FROM_VALUES:
            device = kwargs.pop("device", None)
            like = args[0].device if func is Tensor.new_tensor else None
            if func is not Tensor.new_tensor and isinstance(args[0], Tensor):
                like = args[0].device
            where = torch.device(device) if device is not None else like
            if where == DEVICE:
                if func is Tensor.new_tensor:
                    kwargs.setdefault("dtype", args[0].dtype)
                    return torch.tensor(args[1], device="cpu", **kwargs).to(DEVICE)
                if isinstance(args[0], Tensor):
                    return args[0].to(DEVICE, **kwargs)
                return func(*args, device="cpu", **kwargs).to(DEVICE)
            if device is not None:
                kwargs["device"] = device
        return func(*args, **kwargs)


class _Generator(torch.Generator):
    """Draws on the CPU for the device."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:  # type: ignore[misc]
        return super().__new__(cls, "cpu")


def _autocast(device_type: str, *arguments: Any, autocast: Any = torch.autocast, **options: Any) -> Any:
    """Mixed precision of the device is the CPU's."""
    return autocast("cpu" if device_type == DEVICE.type else device_type, *arguments, **options)


@contextmanager
def separate_device() -> Iterator[Waits]:
    """Open the device; what the CPU waits for is counted."""
    waits: Waits = Counter()
    with ExitStack() as stack:
        for owner, name, stand_in in (
            (torch, "Generator", _Generator),
            (torch, "autocast", _autocast),
            (host_copies, "_PINNING", (DEVICE.type,)),
            (host_copies, "pinned", torch.clone),
            (host_copies, "_is_pinned", lambda tensor: True),
            (host_copies.HostCopies, "copy", lambda self, tensor: tensor.to("cpu", non_blocking=True)),
        ):
            stack.enter_context(patch.object(owner, name, stand_in))
        for mode in (_Values(), _Operations(waits)):
            stack.enter_context(mode)
        yield waits


def moved(value: Any) -> Any:
    """A module, in place, or a copy of tensors, on the device; inside `separate_device`."""
    if not isinstance(value, nn.Module):
        return map_tensors(value, lambda x: _Far(x.detach().clone()))
    for module in value.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                there = nn.Parameter(_Far(parameter.detach()), requires_grad=parameter.requires_grad)
                module._parameters[name] = there
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _Far(buffer)
    return value


def values_of(value: Any) -> Any:
    """The values, on the CPU, of what lies on the device."""
    return map_tensors(value, lambda x: x.values if isinstance(x, _Far) else x)


def waits_of_each(work: Callable[[int], object], waits: Waits, few: int, many: int) -> dict[str, float]:
    """How often the CPU waits in one more step, by the operation.

    Args:
        work: takes so many steps.
        waits: counts.
        few: steps.
        many: steps.
    """
    counts = []
    for steps in (few, many):
        waits.clear()
        work(steps)
        counts.append(Counter(waits))
    keys = sorted(counts[0] | counts[1])
    return {key: more for key in keys if (more := (counts[1][key] - counts[0][key]) / (many - few))}
