"""What a run observed and did not draw: kept in a file beside it, as NumPy arrays and JSON, which run no code."""

from __future__ import annotations

import errno
import importlib
import inspect
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import count
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.frames import AnimationFrames
from lightning_viz.callbacks.free_space import free_space
from lightning_viz.errors import MalformedFileError

PATTERN = "lightning_viz_undrawn_*.npz"
"""Names of the files."""
_JSON = "tasks.json"
_MOST_JSON = 2**26  # bytes
_OURS = (
    "lightning_viz.render.",
    "lightning_viz.callbacks.continuity",
    "lightning_viz.callbacks.draw_embeddings",
    "lightning_viz.callbacks.draw_task",
)
_RETURNS = ("Page", "Picture", "DrawResult")


@dataclass(frozen=True)
class Undrawn:
    """Tasks that were not drawn, and what they go on from.

    Attributes:
        tasks: name of the view, step and task, in their order.
        memories: by name of a task, what the one before the first of these left.
        frames: by view that is animated, the pages that were drawn before.
    """

    tasks: Sequence[tuple[str, int, DrawTask]]
    memories: Mapping[str, Any] = field(default_factory=dict)
    frames: Mapping[str, AnimationFrames] = field(default_factory=dict)


def write_undrawn(folder: Path, undrawn: Undrawn, *, spare: float = 0.0) -> Path:
    """Write a new file, which is whole or not there.

    Args:
        folder: of the run.
        undrawn: what to keep.
        spare: bytes of the disk that are left to others.

    Returns:
        The file's path.

    Raises:
        OSError: there is no room.
        TypeError: something is neither a plain value nor an array, nor a dataclass or function with a name.
    """
    arrays: list[Any] = []
    content = json.dumps({part.name: _encode(getattr(undrawn, part.name), arrays) for part in fields(undrawn)})
    if free_space(folder) - len(content) - sum(array.nbytes for array in arrays) < spare:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    path = next(path for path in (folder / PATTERN.replace("*", str(n)) for n in count()) if not path.exists())
    partial = path.with_name(path.name + ".part")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            for number, array in enumerate(arrays):
                with archive.open(f"{number}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(_JSON, content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def storable(entry: tuple[str, int, DrawTask]) -> bool:
    """Whether a file can hold a task: one of the user's own may draw what is neither an array nor a plain value.

    Args:
        entry: of `Undrawn.tasks`.
    """
    try:
        _encode(entry, [])
    except TypeError:
        return False
    return True


def read_undrawn(path: Path, *, trusted: bool = False) -> Undrawn:
    """Read a file of `write_undrawn`.

    Args:
        path: of the file.
        trusted: whether functions and dataclasses may be imported from other packages than this one.

    Raises:
        MalformedFileError: it is no such file, or names what may not be called.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise MalformedFileError(f"{path} is compressed, which a file of undrawn pictures is not")
            if archive.getinfo(_JSON).file_size > _MOST_JSON:
                raise MalformedFileError(f"{path} holds more than {_MOST_JSON} bytes of {_JSON}")
            content = json.loads(archive.read(_JSON))
            arrays = [_array(archive.read(f"{number}.npy")) for number in range(len(members) - 1)]
        undrawn = Undrawn(**{name: _Decoder(arrays, trusted).decode(part) for name, part in content.items()})
    except MalformedFileError:
        raise
    except OSError:
        raise
    except Exception as error:  # of whatever kind the content provokes
        raise MalformedFileError(f"{path} is no file of undrawn pictures, or cut short ({error})") from error
    if not _is_sound(undrawn):
        raise MalformedFileError(f"{path} is no file of undrawn pictures: its values are of wrong types")
    return undrawn


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
    if value is None or type(value) in (bool, int, float, str):
        return value
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
        trusted: whether names of other packages may be imported.
    """

    arrays: Sequence[Any]
    trusted: bool

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
            return self._named(content, FunctionType)
        if kind == "object" and more:
            return self._named(content, type)(**{name: self.decode(part) for name, part in more[0][1].items()})
        raise ValueError(f"unknown kind {kind!r}")

    def _named(self, name: str, kind: type) -> Any:
        """A function that draws, or a dataclass of what is drawn."""
        module, _, attribute = name.partition(":")
        ours = module.startswith(_OURS[0]) or module in _OURS
        if not ours and not self.trusted:
            raise MalformedFileError(
                f"the drawings need {name}, which is not of lightning_viz: --trust imports and calls it"
            )
        thing = getattr(importlib.import_module(module), attribute)
        draws = isinstance(thing, FunctionType) and (not ours or _return_type(thing) in _RETURNS)
        holds = isinstance(thing, type) and is_dataclass(thing)
        if thing.__module__ != module or not (draws if kind is FunctionType else holds):
            raise MalformedFileError(f"{name} draws nothing")
        return thing


def _return_type(function: FunctionType) -> str:
    written = inspect.get_annotations(function).get("return")
    return written if isinstance(written, str) else getattr(written, "__name__", "")


def _is_sound(undrawn: Undrawn) -> bool:
    """Whether the parts are of their types; what a task is given shows when it is drawn."""
    return (
        isinstance(undrawn.tasks, list)
        and all(
            isinstance(entry, tuple)
            and len(entry) == 3
            and isinstance(entry[0], str)
            and type(entry[1]) is int
            and isinstance(entry[2], DrawTask)
            and isinstance(entry[2].function, FunctionType)
            and isinstance(entry[2].arguments, dict)
            and all(type(value) in (int, float) for value in entry[2].scalars.values())
            for entry in undrawn.tasks
        )
        and isinstance(undrawn.memories, dict)
        and isinstance(undrawn.frames, dict)
        and all(
            isinstance(pages, list) and all(isinstance(page, tuple) and type(page[0]) is int for page in pages)
            for tags in undrawn.frames.values()
            for pages in tags.values()
        )
    )
