"""What is read of a checkpoint, and of which form it must be: checked once, before anything else looks at it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_viz.analysis.files import is_overgrown
from lightning_viz.callbacks.run import UPDATES
from lightning_viz.callbacks.serialization import CHECKPOINT, RECIPE, TUPLE
from lightning_viz.errors import MalformedFileError
from lightning_viz.plain_text import plain_text

TENSORS = ("state_dict", "hyper_parameters", CHECKPOINT)
"""Those parts of a checkpoint that are read and may hold tensors."""
_MOST_STEPS = 2**53
_MOST_LEVELS = 64
_MOST_VALUES = 500_000
_MOST_REPEATED = 8  # times that weights which share memory may be larger than the file
_FREE_BYTES = 64 * 2**20
_SHOWN = 40  # characters of a value in a message
_EXTRA_STATE = "_extra_state"  # of a module, beside its weights


class _WrongFormError(Exception):
    """What is wrong, in words that follow "its"."""


def check_archive(path: Path) -> None:
    """Refuse an archive whose entries are larger than the file, before memory is taken for them.

    Args:
        path: of a file; other kinds than `torch.save` writes today are not looked at.

    Raises:
        MalformedFileError: its entries are compressed, or declare more bytes than the file has.
        zipfile.BadZipFile: it is cut short.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    size, declared = path.stat().st_size, sum(entry.file_size for entry in entries)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or declared > size:
        raise MalformedFileError(
            f"{plain_text(path)} is no checkpoint: its entries are compressed, or declare more bytes ({declared:,}) "
            f"than the file has ({size:,}); give one that torch.save wrote"
        )


def check_content(content: Any, path: Path) -> Mapping[str, Any]:
    """A checkpoint as Lightning saved it; of a file of weights alone ``{"state_dict": ...}``.

    What the analysis does not read (of optimizers, of other callbacks) is not looked at.

    Args:
        content: of the file.
        path: of it, for the message; its size bounds that of the weights.

    Raises:
        MalformedFileError: it holds no weights, or a part of it is of another form than Lightning and we write.
    """
    name = plain_text(path)
    weights = _weights_of(content, name)
    checkpoint = content if "state_dict" in content else {"state_dict": weights}
    try:
        _mapping(weights, "state_dict")
        _check_counts(checkpoint)
        _check_hyper_parameters(checkpoint)
        tensors = [*_check_weights(weights), *_check_views(checkpoint.get(CHECKPOINT, {}))]
        _check_memory(tensors, path.stat().st_size)
    except _WrongFormError as error:
        raise MalformedFileError(f"{name} is no checkpoint that Lightning saved: its {error}; copy it again") from error
    return checkpoint


def _weights_of(content: Any, name: str) -> Any:
    if isinstance(content, Mapping) and "state_dict" in content:
        return content["state_dict"]
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        return content
    listed = ", ".join(map(_word, list(content)[:5])) if isinstance(content, Mapping) else ""
    entries = f"the entries [{listed}]" if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise MalformedFileError(f"{name} holds no weights: a checkpoint has a 'state_dict', this file has {entries}")


def _check_counts(checkpoint: Mapping[str, Any]) -> None:
    """Steps and epochs."""
    for name in ("global_step", "epoch"):
        _count(checkpoint.get(name, 0), name)
    part, (*places, number) = checkpoint, UPDATES
    for depth, place in enumerate(places, 1):
        part = _mapping(part.get(place, {}), ".".join(places[:depth]))
    _count(part.get(number, 0), ".".join(UPDATES))


def _check_hyper_parameters(checkpoint: Mapping[str, Any]) -> None:
    """What a module kept; names that are no strings are not read."""
    kept, name = checkpoint.get("hyper_parameters"), checkpoint.get("hparams_name")
    if kept is not None:
        if not isinstance(kept, Mapping):
            raise _WrongFormError(f"hyper_parameters are {_kind(kept)}, no mapping")
        _check_nesting(kept, "hyper_parameters")
    if name is not None and not isinstance(name, str):
        raise _WrongFormError(f"hparams_name is {_kind(name)}, no string")


def _check_weights(weights: Mapping[str, Any]) -> list[Tensor]:
    tensors = []
    for name, weight in weights.items():
        if name.rpartition(".")[2] == _EXTRA_STATE and not isinstance(weight, Tensor):
            _check_nesting(weight, f"state_dict[{_word(name)}]")
            continue
        if not isinstance(weight, Tensor):
            raise _WrongFormError(f"weight {_word(name)} is {_kind(weight)}, no tensor")
        _check_tensor(weight, f"weight {_word(name)}")
        tensors.append(weight)
    return tensors


def _check_views(views: Any) -> Iterator[Tensor]:
    """What this package's views kept, and how they were made (see `View.kept` and `recipe_of`); yields its tensors."""
    _check_nesting(views, CHECKPOINT)
    for name, kept in _mapping(views, CHECKPOINT).items():
        place = f"{CHECKPOINT}[{_word(name)}]"
        for part, value in _mapping(kept, place).items():
            where = f"{place}.{part}"
            if part in ("state", "memories", "frames"):
                _mapping(value, where)
            elif part == "last_step" and value is not None:
                _count(value, where)
            elif part == "indices" and value is not None:
                for index in _items(value, where):
                    _count(index, where)
            elif part == RECIPE and value is not None:
                recipe = _mapping(value, where)
                _mapping(recipe.get("arguments"), f"{where}.arguments")
                if not isinstance(recipe.get("view"), str):
                    raise _WrongFormError(f"{where}.view is {_kind(recipe.get('view'))}, no string")
        for tag, pages in _mapping(kept.get("frames", {}), f"{place}.frames").items():
            for page in _items(pages, where := f"{place}.frames[{_word(tag)}]"):
                step, image = [*_items(page, where), None, None][:2]
                _count(step, where)
                if not isinstance(image, Tensor):
                    raise _WrongFormError(f"{where} holds {_kind(image)}, no picture")
        for value in _values(kept):
            if isinstance(value, Mapping) and TUPLE in value:
                _items(value, place)
            elif isinstance(value, Tensor):
                _check_tensor(value, f"tensor in {place}")
                if value.requires_grad or value.dtype not in _OF_NUMPY:
                    raise _WrongFormError(f"tensor in {place} is of {value.dtype}, or wants a gradient: it is no array")
                yield value


_OF_NUMPY = frozenset(torch.from_numpy(np.zeros(0, kind)).dtype for kind in list("?bBhilefdFD"))


def _check_tensor(tensor: Tensor, place: str) -> None:
    if tensor.is_meta:
        raise _WrongFormError(f"{place} is on the meta device: it has a shape and no values")
    if tensor.layout != torch.strided or tensor.is_nested:
        raise _WrongFormError(f"{place} is sparse or nested ({tensor.layout}), not dense")
    if tensor.is_quantized:
        raise _WrongFormError(f"{place} is quantized ({tensor.dtype})")


def _check_memory(tensors: Sequence[Tensor], size: int) -> None:
    """A view of one number may say that it is a matrix of any size."""
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if needed > _MOST_REPEATED * size + _FREE_BYTES:
        raise _WrongFormError(f"tensors take {needed:,} bytes, in a file of {size:,}")
    if needed > (memory := _memory()):
        raise _WrongFormError(f"tensors take {needed:,} bytes, and this machine has {memory:,}")


def _memory() -> float:
    """Bytes of the machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system
        return float("inf")


def _check_nesting(value: Any, place: str) -> None:
    """Refuse what `is_overgrown`."""
    if is_overgrown(value, _inner, levels=_MOST_LEVELS, values=_MOST_VALUES):
        raise _WrongFormError(
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


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _WrongFormError(f"{place} is {_kind(value)}, no mapping")
    strange = next((name for name in value if not isinstance(name, str)), None)
    if strange is not None:
        raise _WrongFormError(f"{place} has the name {_word(strange)}, which is {_kind(strange)} and no string")
    return value


def _items(value: Any, place: str) -> Sequence[Any]:
    """Of a list, or of a tuple as `to_plain` writes it."""
    inner = value.get(TUPLE) if isinstance(value, Mapping) else value
    if not isinstance(inner, (list, tuple)):
        raise _WrongFormError(f"{place} is {_kind(value)}, no list")
    return inner


def _count(value: Any, place: str) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or not 0 <= int(value) < _MOST_STEPS:
        raise _WrongFormError(f"{place} is {_word(value)}, no whole number from 0 on")


def _kind(value: Any) -> str:
    """What a value is, in words."""
    return "None" if value is None else f"of type {type(value).__name__}"


def _word(value: Any) -> str:
    """A short value itself, of others what they are."""
    if isinstance(value, (str, float, bool)) or (isinstance(value, int) and abs(value) < 10**_SHOWN):
        written = plain_text(value[: _SHOWN + 1] if isinstance(value, str) else value)
        written = written if len(written) <= _SHOWN else f"{written[:_SHOWN]}..."
        return f"'{written}'" if isinstance(value, str) else written
    return _kind(value)
