"""Plain values in a file: NumPy arrays and JSON in a ZIP archive, of which nothing runs code when it is read."""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import FunctionType
from typing import IO, Any

import numpy as np

from lightning_viz.errors import MalformedFileError

_JSON = "values.json"
_MOST_JSON = 2**26  # bytes
_MOST_COMPRESSED = 2**28  # bytes that a compressed file may expand to

_Lookup = Callable[[str, type], Any]
"""From ``module:name`` and a kind, `type` or `FunctionType`, to the dataclass or function, if it may be named."""


@dataclass(frozen=True)
class Archive:
    """Values as they are written.

    Attributes:
        content: JSON, in which arrays stand as their numbers.
        arrays: in their order.
    """

    content: str
    arrays: Sequence[Any]

    @property
    def nbytes(self) -> int:
        """About the size of the file, uncompressed."""
        return len(self.content) + sum(int(array.nbytes) for array in self.arrays)

    def write(self, file: IO[bytes] | Path, *, compressed: bool = False) -> None:
        """Write the file.

        Args:
            file: a path, or a file that is open.
            compressed: smaller, and slower to write.
        """
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
            for number, array in enumerate(self.arrays):
                with archive.open(f"{number}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(_JSON, self.content)


def pack(values: Mapping[str, Any]) -> Archive:
    """Values by name, to be written.

    Args:
        values: plain ones, arrays, bytes, dataclasses and functions that can be imported by their names; lists, tuples
            and mappings of them.

    Raises:
        TypeError: something is none of these.
    """
    arrays: list[Any] = []
    content = json.dumps({name: _encode(value, arrays) for name, value in values.items()})
    return Archive(content, arrays)


def unpack(file: IO[bytes] | Path, lookup: _Lookup, *, compressed: bool = False) -> dict[str, Any]:
    """Read values that were written.

    Args:
        file: a path, or a file that is open.
        lookup: gives dataclasses and functions.
        compressed: whether the file may be.

    Raises:
        MalformedFileError: it is no such file, is cut short, is far larger than it looks, or names what it may not.
        OSError: it cannot be read.
    """
    name = file if isinstance(file, os.PathLike) else getattr(file, "name", "the file")
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if not compressed and any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise MalformedFileError(f"{name} is compressed, which such a file is not")
            if compressed and sum(member.file_size for member in members) > _MOST_COMPRESSED:
                raise MalformedFileError(f"{name} expands to more than {_MOST_COMPRESSED} bytes")
            if archive.getinfo(_JSON).file_size > _MOST_JSON:
                raise MalformedFileError(f"{name} holds more than {_MOST_JSON} bytes of {_JSON}")
            content = json.loads(archive.read(_JSON))
            arrays = [_array(archive.read(f"{number}.npy")) for number in range(len(members) - 1)]
        return {key: _Decoder(arrays, lookup).decode(value) for key, value in content.items()}
    except (MalformedFileError, OSError):
        raise
    except Exception as error:  # of whatever kind the content provokes
        raise MalformedFileError(f"{name} cannot be read: it is cut short, or of another kind ({error})") from error


def _array(content: bytes) -> Any:
    """An array of a member, whose header may claim no more than is there."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject or int(np.prod(shape, dtype=object)) * dtype.itemsize > len(content):
        raise ValueError(f"an array of shape {shape} and type {dtype}")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _encode(value: Any, arrays: list[Any]) -> Any:
    """A value in JSON's terms; arrays are added to the list, and stand as their number."""
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # an enumeration's plain value
    if type(value) is list:
        return [_encode(part, arrays) for part in value]
    if type(value) is tuple:
        return {"tuple": [_encode(part, arrays) for part in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_encode(key, arrays), _encode(part, arrays)] for key, part in value.items()]}
    if isinstance(value, (np.ndarray, np.generic, bytes)):
        array = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.asarray(value)
        if array.dtype.hasobject:
            raise TypeError(f"an array of {array.dtype} cannot be kept")
        arrays.append(array)
        kind = "bytes" if isinstance(value, bytes) else "array" if isinstance(value, np.ndarray) else "number"
        return {kind: len(arrays) - 1}
    if isinstance(value, FunctionType):
        return {"function": _name_of(value)}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: _encode(getattr(value, part.name), arrays) for part in fields(value)}
        return {"object": _name_of(type(value)), "fields": parts}
    raise TypeError(f"a value of {type(value).__name__} cannot be kept: give arrays and plain values to draw")


def _name_of(thing: Any) -> str:
    """Where a function or class is imported from."""
    if "<" in thing.__qualname__ or "." in thing.__qualname__:
        raise TypeError(f"{thing.__qualname__} cannot be kept: it is no name of its module {thing.__module__}")
    return f"{thing.__module__}:{thing.__qualname__}"


@dataclass(frozen=True)
class _Decoder:
    """Undoes `_encode`.

    Attributes:
        arrays: of the file.
        lookup: gives dataclasses and functions.
    """

    arrays: Sequence[Any]
    lookup: _Lookup

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(part) for part in value]
        if not isinstance(value, dict):
            return value
        (kind, content), *more = value.items()
        if kind == "tuple":
            return tuple(self.decode(content))
        if kind == "dict":
            return {self.decode(key): self.decode(part) for key, part in content}
        if kind in ("array", "number", "bytes"):
            array = self.arrays[content]
            return array if kind == "array" else array[()] if kind == "number" else array.tobytes()
        if kind == "function":
            return self.lookup(content, FunctionType)
        if kind == "object" and more:
            return self.lookup(content, type)(**{name: self.decode(part) for name, part in more[0][1].items()})
        raise ValueError(f"unknown kind {kind!r}")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there.

    Args:
        path: of the file, which is replaced.
        content: all of it.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")  # other runs may write to the same folder
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def json_values(value: Any) -> Any:
    """Values that JSON has: tensors as lists, NaN and infinity as None.

    Args:
        value: numbers, words, tensors, arrays; mappings and sequences of them.
    """
    if isinstance(value, Mapping):
        return {str(name): json_values(item) for name, item in value.items()}
    if hasattr(value, "tolist"):
        return json_values(value.tolist())
    if isinstance(value, (list, tuple)):
        return [json_values(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
