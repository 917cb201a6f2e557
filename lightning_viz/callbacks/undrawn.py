"""What a run observed and did not draw: kept in a file beside it, of which nothing runs code when it is read."""

from __future__ import annotations

import errno
import importlib
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import FunctionType
from typing import Any

from lightning_viz.archive import pack, unpack
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.frames import AnimationFrames
from lightning_viz.callbacks.free_space import free_space
from lightning_viz.errors import MalformedFileError

PATTERN = "lightning_viz_undrawn_*.npz"
"""Names of the files."""
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
    archive = pack({part.name: getattr(undrawn, part.name) for part in fields(undrawn)})
    if free_space(folder) - archive.nbytes < spare:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    path = next(path for path in (folder / PATTERN.replace("*", str(n)) for n in count()) if not path.exists())
    part = path.with_name(path.name + ".part")
    try:
        archive.write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def storable(entry: tuple[str, int, DrawTask]) -> bool:
    """Whether a file can hold a task: one of the user's own may draw what is neither an array nor a plain value.

    Args:
        entry: of `Undrawn.tasks`.
    """
    try:
        pack({"entry": entry})
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
        OSError: it cannot be read.
    """
    values = unpack(path, partial(_named, trusted=trusted))
    known = {part.name for part in fields(Undrawn)}
    if "tasks" not in values or not values.keys() <= known or not _is_sound(undrawn := Undrawn(**values)):
        raise MalformedFileError(f"{path} is no file of undrawn pictures: its values are of wrong types")
    return undrawn


def _named(name: str, kind: type, *, trusted: bool) -> Any:
    """A function that draws, or a dataclass of what is drawn; of other packages only if these are trusted."""
    module, _, attribute = name.partition(":")
    ours = module.startswith(_OURS[0]) or module in _OURS
    if not ours and not trusted:
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
