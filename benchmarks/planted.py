"""Faults as they strike, and a drawing that one strikes; importable in the drawing process: no torch here."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SIGNALS = {name: getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")}
_FOREVER = 3600.0


class OddError(Exception):
    """An error of a kind that nobody expects."""

    def __str__(self) -> str:
        return "line one\nline two"


ERRORS: dict[str, Callable[[], BaseException]] = {
    "RuntimeError": lambda: RuntimeError("planted"),
    "odd": OddError,
    "StopIteration": lambda: StopIteration("planted"),
    "MemoryError": lambda: MemoryError(),
    "allocator": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    "ENOMEM": lambda: OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    "ENOSPC": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file"),
    "EDQUOT": lambda: OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "a file"),
    "EROFS": lambda: OSError(errno.EROFS, os.strerror(errno.EROFS), "a file"),
    "EACCES": lambda: PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a file"),
}


def strike(how: str) -> None:
    """Have a fault happen in this process; of ``NaN`` nothing does, what is worked on is to be spoiled.

    Args:
        how: an error, a signal, ``kill``, ``hang``, ``stop``, ``hang until Ctrl-C`` or ``NaN``.
    """
    if how in ERRORS:
        raise ERRORS[how]()
    if how in SIGNALS:
        os.kill(os.getpid(), SIGNALS[how])
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "hang until Ctrl-C":
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(_FOREVER)
    elif how == "hang":
        time.sleep(_FOREVER)


def spoiled(value: Any) -> Any:
    """A value in which every number that can be is NaN.

    Args:
        value: arrays, tensors, numbers, and containers and dataclasses of them.
    """
    if isinstance(value, float):
        return float("nan")
    if isinstance(value, np.ndarray):
        return np.full_like(value, np.nan) if value.dtype.kind == "f" else value
    if hasattr(value, "is_floating_point"):  # a tensor
        return value * float("nan") if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: spoiled(part) for key, part in value.items()}
    if isinstance(value, tuple):
        parts = [spoiled(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [spoiled(part) for part in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: spoiled(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        return dataclasses.replace(value, **parts)
    return value


def note(folder: str | Path) -> None:
    """Leave a trace of a fault that is about to strike.

    Args:
        folder: of the run.
    """
    file = os.open(Path(folder) / "fired", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, b"x")
    os.close(file)


def fired(folder: str | Path) -> bool:
    """Whether a fault has struck.

    Args:
        folder: of the run.
    """
    return (Path(folder) / "fired").exists()


def draw(inner: Callable[..., Any], folder: str, how: str, lasting: bool, **arguments: Any) -> Any:
    """What another function draws, if the fault that strikes here lets it.

    Args:
        inner: the function.
        folder: of the run; a file ``cured`` in it ends the fault.
        how: see `strike`.
        lasting: whether it strikes every time.
        **arguments: of the function.
    """
    if not (Path(folder) / "cured").exists() and (lasting or not fired(folder)):
        note(folder)
        strike(how)
        if how == "NaN":
            arguments = spoiled(arguments)
    return inner(**arguments)
