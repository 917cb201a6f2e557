"""Checkpoints that several processes wrote, each its own shards: the weights whole, on the process that reads.

The format is that of ``torch.distributed.checkpoint``: a folder with a file of each process, and ``.metadata``, a
pickle of where each part of each tensor lies. It may name that format's own records, types of numbers and sizes, and
nothing else; what it names is not even torch's, but made here, and forgotten after reading. Nothing is run.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor

from lightning_viz.errors import AnalysisError, MalformedFileError
from lightning_viz.plain_text import plain_text

METADATA = ".metadata"
"""The file by which a folder is known to be such a checkpoint."""
REST = "meta.pt"
"""The file in which Lightning puts what is no tensor."""
_MOST_BYTES = 2**28  # of the metadata
_PREFIXES = ("state_dict.", "model.")  # under which Lightning's strategies save the weights

_RECORDS = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata",
        "TensorStorageMetadata",
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "TensorProperties",
        "MetadataIndex",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},
}
"""All that the metadata may name, but the types of numbers."""


class _Record:
    """What a record of the format held: the arguments that it was made of, its fields, or its state."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.fields = state

    def of(self, name: str) -> Any:
        """A field."""
        return self.fields.get(name)


class _Metadata(pickle.Unpickler):
    """Reads a pickle that names nothing but the format's records; each reading has classes of its own."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._made: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for what a pickle names, which can do nothing.

        Raises:
            AnalysisError: it is none of the format's.
        """
        if module == "torch" and isinstance(kind := vars(torch).get(name), torch.dtype):
            return kind
        if name not in _RECORDS.get(module, ()):
            raise AnalysisError(f"it names {plain_text(f'{module}.{name}')}, and loading that would run code")
        return self._made.setdefault((module, name), type(name, (_Record,), {}))


def is_sharded_checkpoint(path: Path) -> bool:
    """Whether a path is that of a folder in which several processes have saved their shards.

    Args:
        path: any.
    """
    return path.is_dir() and (path / METADATA).exists()


def read_sharded_weights(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder of shards, each whole, by name; nothing in it is run.

    Args:
        folder: with the metadata and a file of each process.

    Raises:
        AnalysisError: the metadata name more than the format's own records.
        MalformedFileError: they are no such metadata, or parts of weights are missing or of another size.
    """
    name = plain_text(folder)
    try:
        metadata = _read_metadata(folder / METADATA)
        tensors = _mapping(metadata.of("state_dict_metadata"))
        places = {
            (index.of("fqn"), _size(index.of("offset"))): info
            for index, info in _mapping(metadata.of("storage_data")).items()
        }
        chosen = _weights(tensors)
        room = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        if sum(math.prod(_size(kind.of("size"))) for _, kind in chosen.values()) > room:  # of a byte or more each
            raise MalformedFileError("its weights are larger than its files")
        return {name: _whole(folder, key, kind, places) for name, (key, kind) in chosen.items()}
    except AnalysisError as error:
        raise type(error)(f"{name} is not loaded: {error}") from error
    except Exception as error:  # a pickle's instructions in an order that nobody wrote raise anything
        said = plain_text(f"{type(error).__name__}: {error}")
        raise MalformedFileError(f"{name} is not loaded: {said}; copy it again") from error


def _read_metadata(path: Path) -> _Record:
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        raise MalformedFileError(f"{METADATA} is no file, or larger than {_MOST_BYTES:,} bytes")
    with path.open("rb") as file:
        metadata = _Metadata(file).load()
    if not isinstance(metadata, _Record):
        raise MalformedFileError(f"{METADATA} holds no metadata")
    return metadata


def _weights(tensors: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """The entries of weights by their names without one of Lightning's prefixes, with their keys; no bytes.

    Those under a prefix alone, all where there is none.
    """
    prefix = next((prefix for prefix in _PREFIXES if any(key.startswith(prefix) for key in tensors)), "")
    return {
        key.removeprefix(prefix): (key, kind)
        for key, kind in tensors.items()
        if key.startswith(prefix) and type(kind).__name__ == "TensorStorageMetadata"
    }


def _whole(folder: Path, name: str, kind: _Record, places: Mapping[Any, _Record]) -> Tensor:
    """A weight, put together of its parts."""
    dtype, size = kind.of("properties").fields[0], _size(kind.of("size"))
    if not isinstance(dtype, torch.dtype):
        raise MalformedFileError(f"{plain_text(name)} is of no type of numbers")
    whole = torch.empty(size, dtype=dtype)
    filled = 0
    for chunk in kind.of("chunks"):
        offsets, sizes = _size(chunk.of("offsets")), _size(chunk.of("sizes"))
        inside = len(offsets) == len(sizes) == len(size)
        if not inside or any(at + count > most for at, count, most in zip(offsets, sizes, size, strict=True)):
            raise MalformedFileError(f"a part of {plain_text(name)} lies outside of it")
        part = _part(folder, places[name, offsets])
        if tuple(part.shape) != sizes or part.dtype != dtype:
            raise MalformedFileError(f"a part of {plain_text(name)} is {list(part.shape)}, {list(sizes)} was expected")
        whole[tuple(slice(at, at + count) for at, count in zip(offsets, sizes, strict=True))] = part
        filled += part.numel()
    if filled != whole.numel():
        raise MalformedFileError(f"{filled:,} of the {whole.numel():,} numbers of {plain_text(name)} are there")
    return whole


def _part(folder: Path, place: _Record) -> Tensor:
    """A part of a tensor, from the file of the process that wrote it."""
    file, offset, length = (place.of(part) for part in ("relative_path", "offset", "length"))
    if not isinstance(file, str) or PurePath(file).name != file or place.of("transform_descriptors"):
        raise MalformedFileError(f"{plain_text(file)} is no file of the folder, or not as torch.save writes it")
    path = folder / file
    if not path.is_file() or not 0 <= offset <= offset + length <= path.stat().st_size:
        raise MalformedFileError(f"{file} is missing, or cut short")
    with path.open("rb") as opened:
        opened.seek(offset)
        content = opened.read(length)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(
        entry.file_size for entry in entries
    ) > len(content):
        raise MalformedFileError(f"{file} holds an archive that is larger than itself")
    part = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if type(part) is not Tensor or part.layout is not torch.strided or part.is_meta:
        raise MalformedFileError(f"{file} holds something else than a tensor")
    return part.detach()


def _mapping(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise MalformedFileError(f"{METADATA} holds no metadata")
    return value


def _size(value: Any) -> tuple[int, ...]:
    """Of a record of a size, its numbers."""
    numbers = tuple(*value.arguments) if isinstance(value, _Record) else ()
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise MalformedFileError("a size is negative, or no number")
    return numbers
