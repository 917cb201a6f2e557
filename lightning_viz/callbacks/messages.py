"""What views say: one line at a time, and never an exception, whatever the user's warning filters."""

from __future__ import annotations

import logging
import sys
import warnings

_log = logging.getLogger("lightning_viz")
_log.setLevel(logging.INFO)
_log.addHandler(logging.NullHandler())


class ViewError(ValueError):
    """A view does not suit the model or the run, known before training starts."""


class ViewWarning(UserWarning):
    """Something that a view could not do; training is not touched by it."""


def warn(message: str) -> None:
    """Warn; where warnings are turned into errors, log instead, because a view never ends a run."""
    try:
        warnings.warn(f"lightning_viz: {message}", ViewWarning, stacklevel=2)
    except ViewWarning:
        _log.warning("%s", message)


def inform(message: str) -> None:
    """One line of information, to the log and, as Lightning does, where a person sees it."""
    _log.info("%s", message)
    print(f"lightning_viz: {message}", file=sys.stderr)
