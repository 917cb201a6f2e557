"""Packages whose public names are loaded when they are first used, from the stub file beside them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import lazy_loader

_SAME_NAME = re.compile(r"^from \.(\w+) import \1 as \1$", re.MULTILINE)


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The ``__getattr__``, ``__dir__`` and ``__all__`` of a package that imports its modules on first use.

    Type checkers and editors read the same stub, ``__init__.pyi``, so that there is one list of public names.

    Args:
        package: the package's ``__name__``.
        file: its ``__file__``.
    """
    find, names, public = lazy_loader.attach_stub(package, file)
    _Package.hidden[package] = frozenset(_SAME_NAME.findall(Path(file).with_suffix(".pyi").read_text()))
    sys.modules[package].__class__ = _Package
    return find, names, public


class _Package(ModuleType):
    """A package in which a function keeps its name although its module has the same: ``dream.maximize`` is a function.

    Python binds a submodule to its name in the package whenever it is imported, by whomever.
    """

    hidden: dict[str, frozenset[str]] = {}  # noqa: RUF012 (one table for all packages)

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in self.hidden[self.__name__]):
            super().__setattr__(name, value)
