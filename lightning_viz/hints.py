"""What was probably meant by a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def hint(name: str, known: Iterable[str]) -> str:
    """The nearest of the names that exist, or all of them.

    Args:
        name: as it was typed.
        known: names that exist.

    >>> hint("anlyze", ["analyze", "draw"]), hint("x", ["analyze", "draw"])
    ('did you mean analyze?', 'choose one of analyze, draw')
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"


def unknown_name(what: str, names: Iterable[str], known: Iterable[str]) -> str:
    """That the first of names that do not exist does not, with what was probably meant; empty if all exist.

    Args:
        what: they are names of.
        names: as they were typed.
        known: names that exist.

    >>> unknown_name("command", ["draw", "anlyze"], ["analyze", "draw"]), unknown_name("command", [], ["draw"])
    ("there is no command 'anlyze': did you mean analyze?", '')
    """
    known = list(known)
    name = next((name for name in names if name not in known), None)
    return "" if name is None else f"there is no {what} {name!r}: {hint(name, known)}"
