"""Docstrings of similar functions: what an argument means is written once, and ``help`` shows it for all of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])


def documented_like(other: Callable[..., Any]) -> Callable[[_Function], _Function]:
    """Complete a function's docstring by what another's says of the same arguments, results and errors.

    Args:
        other: describes the arguments, and has the sections, that the function's own docstring leaves out.
    """

    def complete(function: _Function) -> _Function:
        shared, own = _sections(other), _sections(function)
        described = _entries(shared["Args"]) | _entries(own.get("Args", ""))
        own["Args"] = "\n".join(described[name] for name in inspect.signature(function).parameters)
        whole = {**shared, **own}
        function.__doc__ = whole.pop("") + "".join(f"\n\n{title}:\n{text}" for title, text in whole.items())
        return function

    return complete


def _sections(function: Callable[..., Any]) -> dict[str, str]:
    """The sections of a docstring by title; what stands before them by the empty title."""
    head, *others = re.split(r"\n\n(Args|Returns|Raises):\n", inspect.getdoc(function) or "")
    return {"": head, **dict(zip(others[::2], others[1::2], strict=True))}


def _entries(arguments: str) -> dict[str, str]:
    """The descriptions of arguments by their names."""
    return {entry.split(":")[0].strip(): entry for entry in re.split(r"\n(?=    \S)", arguments)}
