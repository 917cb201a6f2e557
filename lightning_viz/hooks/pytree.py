"""Tensors in whatever layers and models pass around: tensors, tuples, lists, dicts, dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def first_tensor(structure: Any) -> Tensor | None:
    """The first floating-point tensor: what a layer or model returned, the rest being by-products."""
    if isinstance(structure, Tensor):
        return structure if structure.is_floating_point() else None
    return next((found for _, part in _parts(structure) if (found := first_tensor(part)) is not None), None)


def replace_first_tensor(structure: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with its first floating-point tensor changed; the structure given is not touched.

    Args:
        structure: tensors in tuples, lists, dicts, dataclasses; anything else stays as it is.
        change: from the tensor to what stands in its place.
    """
    if isinstance(structure, Tensor):
        return change(structure) if structure.is_floating_point() else structure
    for key, part in _parts(structure):
        if first_tensor(part) is not None:
            return _with_part(structure, key, replace_first_tensor(part, change))
    return structure


def map_tensors(structure: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same structure with every tensor changed; the structure given is not touched.

    Args:
        structure: tensors in tuples, lists, dicts, dataclasses; anything else stays as it is.
        change: from a tensor to what stands in its place.
    """
    if isinstance(structure, Tensor):
        return change(structure)
    for key, part in _parts(structure):
        structure = _with_part(structure, key, map_tensors(part, change))
    return structure


def all_tensors(structure: Any) -> list[Tensor]:
    """Every tensor, in order."""
    if isinstance(structure, Tensor):
        return [structure]
    return [tensor for _, part in _parts(structure) for tensor in all_tensors(part)]


def sample_count(inputs: Any) -> int:
    """How many samples a model's inputs hold: as many as the image, or the first tensor that is no single number."""
    image = image_of(inputs)
    return len(image) if image is not None else next((len(x) for x in all_tensors(inputs) if x.dim() > 0), 0)


def sample_size(inputs: Any) -> int:
    """How many values a model's inputs hold for each sample."""
    count = sample_count(inputs)
    return sum(x[0].numel() for x in all_tensors(inputs) if has_samples(x, count)) if count else 0


def has_samples(tensor: Tensor, count: int) -> bool:
    """Whether an input holds a value for each sample; what all share, a temperature say, is no such input.

    Args:
        tensor: the input.
        count: how many samples there are.
    """
    return tensor.dim() > 0 and len(tensor) == count


def take_samples(tensor: Tensor, samples: Tensor, count: int) -> Tensor:
    """Some samples of an input, or copies of them; what all share stays.

    Args:
        tensor: the input.
        samples: which of them, ``[n]``, on the CPU.
        count: how many there are.
    """
    return tensor[samples.to(tensor.device)] if has_samples(tensor, count) else tensor


def image_of(inputs: Any) -> Tensor | None:
    """The image among a model's inputs: the first ``[N, C, H, W]``; None where there is none."""
    return next((x for x in all_tensors(inputs) if x.is_floating_point() and x.dim() == 4), None)


def flatten_like(structure: Any, like: Any) -> list[Any]:
    """What a structure holds where another of the same form holds its tensors, in order.

    Args:
        structure: what to read.
        like: where its tensors stand, the values are.
    """
    if isinstance(like, Tensor):
        return [structure]
    pairs = zip(_parts(structure), _parts(like), strict=True)
    return [one for (_, part), (_, same) in pairs for one in flatten_like(part, same)]


def _parts(structure: Any) -> list[tuple[Any, Any]]:
    if isinstance(structure, Mapping):
        return list(structure.items())
    if isinstance(structure, (tuple, list)):
        return list(enumerate(structure))
    if dataclasses.is_dataclass(structure) and not isinstance(structure, type):
        return [(field.name, getattr(structure, field.name)) for field in dataclasses.fields(structure)]
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
