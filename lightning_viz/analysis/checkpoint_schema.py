"""What is read of a checkpoint, and of which form it must be: checked once, before anything else looks at it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_viz.callbacks.kept_state import (
    WrongFormError,
    check_nesting,
    check_tensor,
    check_views,
    check_whole_number,
    kind_of,
    mapping_of,
    word_of,
)
from lightning_viz.callbacks.run import UPDATES
from lightning_viz.callbacks.serialization import CHECKPOINT
from lightning_viz.errors import MalformedFileError
from lightning_viz.plain_text import plain_text

TENSORS = ("state_dict", "hyper_parameters", CHECKPOINT)
"""Those parts of a checkpoint that are read and may hold tensors."""
_MOST_REPEATED = 8  # times that weights which share memory may be larger than the file
_FREE_BYTES = 64 * 2**20
_EXTRA_STATE = "_extra_state"  # of a module, beside its weights


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


def check_content(content: Any, path: Path, size: int | None = None) -> Mapping[str, Any]:
    """A checkpoint as Lightning saved it; of a file of weights alone ``{"state_dict": ...}``.

    What the analysis does not read (of optimizers, of other callbacks) is not looked at.

    Args:
        content: of the file.
        path: of it, for the message.
        size: of it in bytes, which bounds that of the weights; the file's own if omitted.

    Raises:
        MalformedFileError: it holds no weights, or a part of it is of another form than Lightning and we write.
    """
    name = plain_text(path)
    weights = _weights_of(content, name)
    checkpoint = content if "state_dict" in content else {"state_dict": weights}
    try:
        mapping_of(weights, "state_dict")
        _check_counts(checkpoint)
        _check_hyper_parameters(checkpoint)
        tensors = [*_check_weights(weights), *check_views(checkpoint.get(CHECKPOINT, {}))]
        _check_memory(tensors, path.stat().st_size if size is None else size)
    except WrongFormError as error:
        raise MalformedFileError(f"{name} is no checkpoint that Lightning saved: its {error}; copy it again") from error
    return checkpoint


def _weights_of(content: Any, name: str) -> Any:
    if isinstance(content, Mapping) and "state_dict" in content:
        return content["state_dict"]
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        return content
    listed = ", ".join(map(word_of, list(content)[:5])) if isinstance(content, Mapping) else ""
    entries = f"the entries [{listed}]" if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise MalformedFileError(f"{name} holds no weights: a checkpoint has a 'state_dict', this file has {entries}")


def _check_counts(checkpoint: Mapping[str, Any]) -> None:
    """Steps and epochs."""
    for name in ("global_step", "epoch"):
        check_whole_number(checkpoint.get(name, 0), name)
    part, (*places, number) = checkpoint, UPDATES
    for depth, place in enumerate(places, 1):
        part = mapping_of(part.get(place, {}), ".".join(places[:depth]))
    check_whole_number(part.get(number, 0), ".".join(UPDATES))


def _check_hyper_parameters(checkpoint: Mapping[str, Any]) -> None:
    """What a module kept; names that are no strings are not read."""
    kept, name = checkpoint.get("hyper_parameters"), checkpoint.get("hparams_name")
    if kept is not None:
        if not isinstance(kept, Mapping):
            raise WrongFormError(f"hyper_parameters are {kind_of(kept)}, no mapping")
        check_nesting(kept, "hyper_parameters")
    if name is not None and not isinstance(name, str):
        raise WrongFormError(f"hparams_name is {kind_of(name)}, no string")


def _check_weights(weights: Mapping[str, Any]) -> list[Tensor]:
    tensors = []
    for name, weight in weights.items():
        if name.rpartition(".")[2] == _EXTRA_STATE and not isinstance(weight, Tensor):
            check_nesting(weight, f"state_dict[{word_of(name)}]")
            continue
        if not isinstance(weight, Tensor):
            raise WrongFormError(f"weight {word_of(name)} is {kind_of(weight)}, no tensor")
        check_tensor(weight, f"weight {word_of(name)}")
        tensors.append(weight)
    return tensors


def _check_memory(tensors: Sequence[Tensor], size: int) -> None:
    """A view of one number may say that it is a matrix of any size."""
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if needed > _MOST_REPEATED * size + _FREE_BYTES:
        raise WrongFormError(f"tensors take {needed:,} bytes, in a file of {size:,}")
    if needed > (memory := _memory()):
        raise WrongFormError(f"tensors take {needed:,} bytes, and this machine has {memory:,}")


def _memory() -> float:
    """Bytes of the machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system
        return float("inf")
