"""Warnings that point at the line of the user's that they are about, however deep in this package they arise."""

from __future__ import annotations

import sys
import warnings

_PACKAGE = __name__.partition(".")[0] + "."


def tell(message: str, category: type[Warning]) -> None:
    """Warn whoever called this package.

    Args:
        message: what is to be known.
        category: of the warning.
    """
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and _passed(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _passed(module: str) -> bool:
    """Whether a frame is not the user's: this package's own, or of a context that it opens."""
    return module.startswith(_PACKAGE) or module == "contextlib"
