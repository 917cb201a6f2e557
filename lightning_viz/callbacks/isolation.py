"""Isolation of a forked process on Linux: nothing that it reads, writes or counts reaches the one it came from."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import mmap
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lightning_viz.errors import InvalidArgumentError

MOST_COPIED = 2**30
"""Bytes of shared memory without a file of its own that are copied, at most."""

_FILES, _MAPS = Path("/proc/self/fd"), Path("/proc/self/maps")
_PRIVATE, _FIXED, _ANONYMOUS = mmap.MAP_PRIVATE, 0x10, mmap.MAP_ANONYMOUS
_SIGNAL_AT_PARENTS_END = 1  # PR_SET_PDEATHSIG
_FAILED = ctypes.c_void_p(-1).value


def isolate_process(keep: int, seconds: float, parent: int) -> None:
    """Cut a process that has just been forked off from its parent; call it before anything else there.

    Files get a description, and so an offset, of their own, and can only be read; what is shared in memory becomes
    a private copy; pipes and sockets are dead, because what one process takes from them, the other misses. The parent's
    signal handlers, standard streams and finalizers are out of reach.

    Args:
        keep: number of the one file that stays as it is.
        seconds: after which the process ends, whatever it does.
        parent: number of the parent, at whose end it ends, too, however that comes about.

    Raises:
        InvalidArgumentError: more memory without a file is shared than can be copied.
    """
    ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_END, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(0)
    gc.disable()  # what is collected here might close or delete what the parent still uses
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    for file in [int(path.name) for path in _FILES.iterdir()]:
        if file != keep:
            with suppress(OSError):  # the listing's own, which is closed by now
                _own_description(file, os.fstat(file))
    for mapping in list(_shared_mappings()):
        _make_private(mapping)


def _own_description(file: int, status: os.stat_result) -> None:
    """Replace a file by one that shares nothing with the parent's."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    if stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode):
        if flags & os.O_ACCMODE == os.O_WRONLY:
            new = os.open(os.devnull, os.O_WRONLY)
        else:
            try:
                new = os.open(_FILES / str(file), os.O_RDONLY | flags & os.O_DIRECT)  # also where it was deleted
                os.lseek(new, os.lseek(file, 0, os.SEEK_CUR), os.SEEK_SET)
            except OSError:
                new = _dead_file()
    elif file in (1, 2):
        new = os.open(os.devnull, os.O_WRONLY)
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return
    else:
        new = _dead_file()
    os.dup2(new, file, inheritable=os.get_inheritable(file))
    os.close(new)


def _dead_file() -> int:
    """A file that can be neither read nor written: whoever tries is told, and does not take nothing for data."""
    return os.open("/", os.O_PATH)


class _Mapping(NamedTuple):
    """A part of memory that is shared with other processes and can be written.

    Attributes:
        start: its address.
        size: in bytes.
        protection: as for ``mmap``.
        offset: in its file.
        inode: of its file.
        path: of its file, if it still has one.
    """

    start: int
    size: int
    protection: int
    offset: int
    inode: int
    path: str


def _shared_mappings() -> Iterator[_Mapping]:
    for line in _MAPS.read_text().splitlines():
        addresses, permissions, offset, _, inode, *path = line.split(maxsplit=5)
        name = path[0] if path else ""
        device = name.startswith("/dev/") and not name.startswith(("/dev/shm/", "/dev/zero"))  # a GPU's, say
        if permissions[1] != "w" or permissions[3] != "s" or device or name.startswith("anon_inode:"):
            continue
        start, end = (int(address, 16) for address in addresses.split("-"))
        protection = sum(1 << place for place, letter in enumerate(permissions[:3]) if letter != "-")
        yield _Mapping(start, end - start, protection, int(offset, 16), int(inode), name)


def _make_private(mapping: _Mapping) -> None:
    """Put a private mapping of the same content in the place of a shared one."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]

    def place(flags: int, file: int, offset: int) -> None:
        flags |= _PRIVATE | _FIXED
        if library.mmap(mapping.start, mapping.size, mapping.protection, flags, file, offset) == _FAILED:
            raise OSError(ctypes.get_errno(), f"{mapping.size:,} bytes of shared memory cannot be set apart")

    file = _file_of(mapping)
    if file is not None:  # pages are copied when they are written
        place(0, file, mapping.offset)
        os.close(file)
        return
    if mapping.size > MOST_COPIED:
        raise InvalidArgumentError(f"{mapping.size:,} bytes of shared memory are too many to be set apart")
    content = ctypes.string_at(mapping.start, mapping.size)
    place(_ANONYMOUS, -1, 0)
    ctypes.memmove(mapping.start, content, mapping.size)


def _file_of(mapping: _Mapping) -> int | None:
    """The file of a mapping, newly opened, by its path or by one that is open; None if there is no such file."""
    for path in (Path(mapping.path), *_FILES.iterdir()):
        with suppress(OSError):
            status = path.stat()
            if status.st_ino == mapping.inode and stat.S_ISREG(status.st_mode):
                return os.open(path, os.O_RDONLY)
    return None
