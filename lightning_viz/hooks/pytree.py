"""Nested structures of tensors: tuples, lists, dicts and dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.host_copies import to_device

Path = tuple[Any, ...]
"""Keys into a structure: numbers of a sequence, keys of a mapping, names of fields."""


def part_at(structure: Any, path: Path) -> Any:
    """The part of a structure at a path.

    Raises:
        KeyError, IndexError, AttributeError, TypeError: there is none.
    """
    for key in path:
        structure = structure[key] if isinstance(structure, (Mapping, list, tuple)) else getattr(structure, key)
    return structure


def first_tensor(structure: Any) -> Tensor | None:
    """The first floating-point tensor, taken as the output of a layer or model; None if there is none."""
    if isinstance(structure, Tensor):
        return structure if structure.is_floating_point() else None
    return next((tensor for _, part in _parts(structure) if (tensor := first_tensor(part)) is not None), None)


def replace_first_tensor(structure: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of a structure with its first floating-point tensor changed; other values are kept."""
    if isinstance(structure, Tensor):
        return change(structure) if structure.is_floating_point() else structure
    for key, part in _parts(structure):
        if first_tensor(part) is not None:
            return _with_part(structure, key, replace_first_tensor(part, change))
    return structure


def map_tensors(structure: Any, change: Callable[[Tensor], Any]) -> Any:
    """A copy of a structure with every tensor changed; other values are kept."""
    return map_leaves(structure, Tensor, change)


def map_leaves(structure: Any, kinds: type | tuple[type, ...], change: Callable[[Any], Any]) -> Any:
    """A copy of a structure with every part of some kinds changed; other values are kept."""
    if isinstance(structure, kinds):
        return change(structure)
    for key, part in _parts(structure):
        structure = _with_part(structure, key, map_leaves(part, kinds, change))
    return structure


def all_tensors(structure: Any) -> list[Tensor]:
    """All tensors of a structure, in order."""
    if isinstance(structure, Tensor):
        return [structure]
    return [tensor for _, part in _parts(structure) for tensor in all_tensors(part)]


def sample_count(inputs: Any) -> int:
    """Number of samples in a model's inputs: the length of the image, else of the first tensor that is no scalar."""
    image = image_of(inputs)
    return len(image) if image is not None else next((len(x) for x in all_tensors(inputs) if x.dim() > 0), 0)


def sample_size(inputs: Any) -> int:
    """Number of input values per sample."""
    count = sample_count(inputs)
    return sum(x[0].numel() for x in all_tensors(inputs) if has_samples(x, count)) if count else 0


def has_samples(tensor: Tensor, count: int) -> bool:
    """Whether an input has one entry per sample, unlike one that all samples share, e.g. a temperature."""
    return tensor.dim() > 0 and len(tensor) == count


def take_samples(tensor: Tensor, samples: Tensor, count: int) -> Tensor:
    """Select samples ``[n]`` of an input with `count` of them; one that all samples share is returned unchanged."""
    return tensor[to_device(samples, tensor.device)] if has_samples(tensor, count) else tensor


def image_of(inputs: Any) -> Tensor | None:
    """The image among a model's inputs: the first floating-point ``[N, C, H, W]``; None if there is none."""
    return next((x for x in all_tensors(inputs) if x.is_floating_point() and x.dim() == 4), None)


def spatial_input(inputs: Any) -> Tensor | None:
    """The input with places: the image ``[N, C, H, W]``, else the first series ``[N, C, L]`` or volume.

    A volume is ``[N, C, D, H, W]``. None if there is neither.
    """
    image = image_of(inputs)
    if image is not None:
        return image
    return next((x for x in all_tensors(inputs) if x.is_floating_point() and x.dim() in (3, 5)), None)


def flatten_like(structure: Any, like: Any) -> list[Any]:
    """The values of a structure at the positions of the tensors of another one of the same form, in order."""
    if isinstance(like, Tensor):
        return [structure]
    pairs = zip(_parts(structure), _parts(like), strict=True)
    return [value for (_, part), (_, like_part) in pairs for value in flatten_like(part, like_part)]


def on_device(model: nn.Module, inputs: Any) -> Any:
    """Inputs where the model is."""
    device = device_of(model)
    return map_tensors(inputs, lambda x: to_device(x, device))


def device_of(model: nn.Module) -> torch.device:
    """Where a model is; on the CPU if it holds no tensors."""
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), torch.device("cpu"))


def _parts(structure: Any) -> list[tuple[Any, Any]]:
    if isinstance(structure, Mapping):
        return list(structure.items())
    if isinstance(structure, (tuple, list)):
        return list(enumerate(structure))
    if dataclasses.is_dataclass(structure) and not isinstance(structure, type):
        fields = [field for field in dataclasses.fields(structure) if field.metadata.get("tensors", True)]
        return [(field.name, getattr(structure, field.name)) for field in fields]
    return []


def _with_part(structure: Any, key: Any, part: Any) -> Any:
    if isinstance(structure, tuple):
        parts = [*structure[:key], part, *structure[key + 1 :]]
        return type(structure)(*parts) if hasattr(structure, "_fields") else tuple(parts)
    changed = copy.copy(structure)
    if isinstance(structure, (Mapping, list)):
        changed[key] = part
    else:
        object.__setattr__(changed, key, part)  # also in a frozen dataclass
    return changed


def is_overgrown(content: Any, parts: Callable[[Any], Iterable[Any]], *, levels: int, values: int) -> bool:
    """Whether a structure is nested too deep, holds itself, or is few values that stand in very many places.

    Args:
        content: of a file.
        parts: the values directly in one.
        levels: that it may have.
        values: that it may hold.
    """
    waiting, count = [(content, 0)], 0
    while waiting:
        part, level = waiting.pop()
        count += 1
        if level > levels or count > values:
            return True
        waiting += [(inner, level + 1) for inner in parts(part)]
    return False
