"""Files of a log: their paths, and writing them whole."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lightning_viz.archive import write_whole
from lightning_viz.plain_text import file_name, plain_text
from lightning_viz.render.page import Picture

PARTS = "lightning_viz_parts"
"""Folder of kept parts, beside a run's log."""


def write_parts(folder: Path | None, tag: str, content: bytes, step: int) -> None:
    """Keep a page's parts beside a log: ``lightning_viz_parts/<tag>/<step>.npz``, whole or not there.

    Args:
        folder: of the log; None where it has none on this machine.
        tag: of the page.
        content: of the file.
        step: completed updates.
    """
    if folder is None:
        return
    path = folder / PARTS / tag_path(tag) / f"{step:08d}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def tag_path(tag: str) -> str:
    """A tag as a path of its own: what a file system may not take is written as in an address, long names shortened.

    Args:
        tag: of a picture.
    """
    return "/".join(file_name(part, quote(plain_text(part), safe=" =,()[]")) for part in tag.split("/") if part)


_LONGEST = 80  # letters of a tag: a client adds its run, step, time and more, and takes 128


def plain_path(tag: str) -> str:
    """A tag in letters that stay as they are in an address, as clients make files' names of it; ``_`` for others.

    Args:
        tag: of a picture.

    >>> plain_path("grad_cam/conv:0"), plain_path("../../a")
    ('grad_cam/conv_0', '_/_/a')
    """
    written = re.sub(r"[^\w. /-]+", "_", tag, flags=re.ASCII)
    path = "/".join(part if part.strip(". ") else "_" for part in written.split("/") if part) or "_"
    if len(path) <= _LONGEST:
        return path
    return f"{path[: _LONGEST - 20].rstrip('/')}-{hashlib.sha256(tag.encode(errors='replace')).hexdigest()[:16]}"


@contextmanager
def whole_addition(path: Path) -> Iterator[None]:
    """What is added to the end of a file within is there whole or, where that fails, not at all.

    Args:
        path: of the file, which may not exist.
    """
    size = path.stat().st_size if path.exists() else None
    try:
        yield
    except OSError:
        with suppress(OSError):
            if size is None:
                path.unlink(missing_ok=True)
            else:
                os.truncate(path, size)
        raise


def local_path(place: Any) -> Path | None:
    """A place as a path; None if it is none on a local file system (``memory://``, ``gs://``).

    Args:
        place: as a logger or Trainer names it.
    """
    if not isinstance(place, (str, os.PathLike)) or "://" in str(place):
        return None
    return Path(place)


@contextmanager
def picture_file(picture: Picture) -> Iterator[Path]:
    """A picture as a file, for a client that copies it.

    Args:
        picture: encoded.
    """
    with tempfile.TemporaryDirectory(prefix="lightning_viz_") as folder:
        path = Path(folder) / f"picture.{picture.kind}"
        path.write_bytes(picture.image)
        yield path
