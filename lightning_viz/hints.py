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
