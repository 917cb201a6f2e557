"""The form of what a checkpoint holds of views, which is checked before it is used: nobody knows who wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_viz.callbacks.serialization import CHECKPOINT, RECIPE, TUPLE
from lightning_viz.hooks.pytree import is_overgrown
from lightning_viz.plain_text import plain_text

_MOST_STEPS = 2**53
_MOST_LEVELS = 64
_MOST_VALUES = 500_000
_SHOWN = 40  # characters of a value in a message

_OF_NUMPY = frozenset(torch.from_numpy(np.zeros(0, kind)).dtype for kind in list("?bBhilefdFD"))


class WrongFormError(Exception):
    """What is wrong, in words that follow "its"."""


def check_views(views: Any) -> Iterator[Tensor]:
    """What this package's views kept, and how they were made (see `View.kept` and `recipe_of`); yields its tensors."""
    check_nesting(views, CHECKPOINT)
    for name, kept in mapping_of(views, CHECKPOINT).items():
        place = f"{CHECKPOINT}[{word_of(name)}]"
        for part, value in mapping_of(kept, place).items():
            where = f"{place}.{part}"
            if part in ("state", "memories", "frames"):
                mapping_of(value, where)
            elif part == "last_step" and value is not None:
                check_whole_number(value, where)
            elif part == "indices" and value is not None:
                for index in items_of(value, where):
                    check_whole_number(index, where)
            elif part == RECIPE and value is not None:
                recipe = mapping_of(value, where)
                mapping_of(recipe.get("arguments"), f"{where}.arguments")
                if not isinstance(recipe.get("view"), str):
                    raise WrongFormError(f"{where}.view is {kind_of(recipe.get('view'))}, no string")
        for tag, pages in mapping_of(kept.get("frames", {}), f"{place}.frames").items():
            for page in items_of(pages, where := f"{place}.frames[{word_of(tag)}]"):
                step, image = [*items_of(page, where), None, None][:2]
                check_whole_number(step, where)
                if not isinstance(image, Tensor):
                    raise WrongFormError(f"{where} holds {kind_of(image)}, no picture")
        for value in _values(kept):
            if isinstance(value, Mapping) and TUPLE in value:
                items_of(value, place)
            elif isinstance(value, Tensor):
                check_tensor(value, f"tensor in {place}")
                if value.requires_grad or value.dtype not in _OF_NUMPY:
                    raise WrongFormError(f"tensor in {place} is of {value.dtype}, or wants a gradient: it is no array")
                yield value


def check_tensor(tensor: Tensor, place: str) -> None:
    """A dense tensor with values."""
    if tensor.is_meta:
        raise WrongFormError(f"{place} is on the meta device: it has a shape and no values")
    if tensor.layout != torch.strided or tensor.is_nested:
        raise WrongFormError(f"{place} is sparse or nested ({tensor.layout}), not dense")
    if tensor.is_quantized:
        raise WrongFormError(f"{place} is quantized ({tensor.dtype})")


def check_nesting(value: Any, place: str) -> None:
    """Refuse what `is_overgrown`."""
    if is_overgrown(value, _inner, levels=_MOST_LEVELS, values=_MOST_VALUES):
        raise WrongFormError(
            f"{place} is nested deeper than {_MOST_LEVELS} levels, or holds more than {_MOST_VALUES:,} values"
        )


def _values(value: Any) -> Iterator[Any]:
    """A value that is not nested too deep, and all in it."""
    waiting = [value]
    while waiting:
        yield (part := waiting.pop())
        waiting += _inner(part)


def _inner(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else []


def mapping_of(value: Any, place: str) -> Mapping[str, Any]:
    """A mapping whose names are strings."""
    if not isinstance(value, Mapping):
        raise WrongFormError(f"{place} is {kind_of(value)}, no mapping")
    strange = next((name for name in value if not isinstance(name, str)), None)
    if strange is not None:
        raise WrongFormError(f"{place} has the name {word_of(strange)}, which is {kind_of(strange)} and no string")
    return value


def items_of(value: Any, place: str) -> Sequence[Any]:
    """Of a list, or of a tuple as `to_plain` writes it."""
    inner = value.get(TUPLE) if isinstance(value, Mapping) else value
    if not isinstance(inner, (list, tuple)):
        raise WrongFormError(f"{place} is {kind_of(value)}, no list")
    return inner


def check_whole_number(value: Any, place: str) -> None:
    """A whole number from 0 on."""
    if not isinstance(value, Integral) or isinstance(value, bool) or not 0 <= int(value) < _MOST_STEPS:
        raise WrongFormError(f"{place} is {word_of(value)}, no whole number from 0 on")


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    return "None" if value is None else f"of type {type(value).__name__}"


def word_of(value: Any) -> str:
    """A short value itself, of others what they are."""
    if isinstance(value, (str, float, bool)) or (isinstance(value, int) and abs(value) < 10**_SHOWN):
        written = plain_text(value[: _SHOWN + 1] if isinstance(value, str) else value)
        written = written if len(written) <= _SHOWN else f"{written[:_SHOWN]}..."
        return f"'{written}'" if isinstance(value, str) else written
    return kind_of(value)
