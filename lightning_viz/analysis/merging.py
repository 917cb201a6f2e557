"""Classes and their arguments as they are written, in parts: what is said later goes before what was said earlier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merged(base: Any, given: Any) -> Any:
    """What was said, and what is said over it: a class keeps those of its arguments that are not given anew.

    Args:
        base: a plain value, a class path, or a mapping.
        given: the same.

    >>> merged({"class_path": "a.Net", "init_args": {"depth": 2, "width": 8}}, {"depth": 3})
    {'class_path': 'a.Net', 'init_args': {'depth': 3, 'width': 8}}
    """
    if isinstance(base, str) and isinstance(given, Mapping):
        base = {"class_path": base}
    if not isinstance(base, Mapping) or not isinstance(given, Mapping):
        return given
    if "class_path" in given and "class_path" in base and given["class_path"] != base["class_path"]:
        return given
    if "class_path" in base and not given.keys() & {"class_path", "init_args"}:
        given = {"init_args": given}
    return {**base, **{name: merged(base.get(name), value) for name, value in given.items()}}
