"""Files of a folder, and what tells them from others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_CHUNK = 2**22  # bytes


def files_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Regular files that lie in a folder, however deep, and links to folders, which are not followed; each in order.

    Pipes, devices and folders are none, whatever they are called; a link to a file counts as the file.

    Args:
        folder: to be searched. What may not be listed is left out.
    """
    files: list[Path] = []
    links: list[Path] = []
    waiting = [folder]
    while waiting:
        try:
            paths = list(waiting.pop().iterdir())
        except PermissionError:
            continue
        for path in paths:
            if path.is_dir():
                (links if path.is_symlink() else waiting).append(path)
            elif path.is_file():
                files.append(path)
    return sorted(files), sorted(links)


def listing(folder: Path, paths: Iterable[Path] | None = None) -> list[list[Any]]:
    """Names, sizes and times of files, which tell whether they are the same as before.

    Args:
        folder: to which names are relative.
        paths: of the files; all that lie in the folder, however deep, if omitted.
    """
    stats = ((path, path.stat()) for path in (files_in(folder)[0] if paths is None else paths))
    return [[str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns] for path, stat in stats]


def digest_of(path: Path) -> str:
    """Digest of a file: equal for files of equal content alone."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
