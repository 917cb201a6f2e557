"""Pages in files: their parts as they were, from which any picture of them can be made."""

from __future__ import annotations

import importlib
from dataclasses import fields, is_dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from lightning_viz.archive import pack, unpack
from lightning_viz.errors import MalformedFileError
from lightning_viz.render.page import Page
from lightning_viz.render.parts import Part

__all__ = ["page_bytes", "read_page"]

_OURS = "lightning_viz.render."


def page_bytes(page: Page) -> bytes:
    """A page as a file: NumPy arrays and JSON, compressed.

    Args:
        page: of which each part is kept with its values, not its pixels.
    """
    file = BytesIO()
    pack({part.name: getattr(page, part.name) for part in fields(page)}).write(file, compressed=True)
    return file.getvalue()


def read_page(path: Path | str) -> Page:
    """The page of a file that ``keep_parts=True`` left beside a run; `lay_out` makes the same picture of it.

    Nothing in the file runs code.

    Args:
        path: of the file, ``lightning_viz_parts/<tag>/<step>.npz`` in the run's folder.

    Raises:
        MalformedFileError: it is no such file.
        OSError: it cannot be read.
    """
    values = unpack(Path(path), _part_class, compressed=True)
    whole = values.keys() == {part.name for part in fields(Page)} and isinstance(values["body"], Part)
    if not whole or not all(isinstance(values[name], str) for name in ("tag", "title", "reading")):
        raise MalformedFileError(f"{path} holds no page")
    return Page(**values)


def _part_class(name: str, kind: type) -> Any:
    """A class of parts, by module and name."""
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute, None) if module.startswith(_OURS) else None
    if kind is not type or not isinstance(found, type) or not is_dataclass(found) or found.__module__ != module:
        raise MalformedFileError(f"{name} is no part of a page")
    return found
