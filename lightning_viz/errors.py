"""Errors and warnings of the package, with one base for each."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from lightning_viz.plain_text import plain_text

__all__ = [
    "AnalysisError",
    "AttackWarning",
    "AttributionWarning",
    "CorruptionWarning",
    "CueConflictWarning",
    "DreamWarning",
    "InterceptionError",
    "InvalidArgumentError",
    "InvalidTypeError",
    "LayerNotFoundError",
    "LayerNotReachedError",
    "LightningVizError",
    "LightningVizWarning",
    "MalformedFileError",
    "NoClassesError",
    "NoGradientError",
    "NoLabelsError",
    "NoProbeYetError",
    "ObservationError",
    "OutputError",
    "ProcessError",
    "TargetError",
    "UnsuitableModelError",
    "ViewError",
    "ViewWarning",
]

Choice = TypeVar("Choice")

_PACKAGE = __name__.partition(".")[0] + "."
_SILENT: ContextVar[bool] = ContextVar("SILENT", default=False)
_log = logging.getLogger("lightning_viz")
_log.setLevel(logging.INFO)
_log.addHandler(logging.NullHandler())


class LightningVizError(Exception):
    """Base of all errors that this package raises on purpose; the message names the thing, the value and the remedy."""


class InvalidArgumentError(LightningVizError, ValueError):
    """An argument has a value that cannot be used."""


class InvalidTypeError(LightningVizError, TypeError):
    """An argument, or what the model returned, is of a type that cannot be used."""


class TargetError(InvalidArgumentError):
    """The model's output has no such target, or none that goes without saying."""


class NoClassesError(TargetError):
    """The model's output is not of classes, as far as is known, of which one would go without saying."""


class OutputError(InvalidTypeError):
    """The model returns nothing, or several tensors, that could be its scores."""


class LayerNotFoundError(InvalidArgumentError):
    """No layer of the model matches a name."""


class LayerNotReachedError(LightningVizError, RuntimeError):
    """A layer exists, but the forward pass did not call it."""


class ObservationError(LightningVizError, RuntimeError):
    """The model cannot be observed the way it is built or compiled."""


class ProcessError(LightningVizError, RuntimeError):
    """Something failed on another process of the run than this, or not on all of them."""


class NoGradientError(LightningVizError, RuntimeError):
    """The target does not depend, differentiably, on the tensor that the gradient was asked for."""

    def __init__(
        self, message: str = "the target does not depend on the input: does the model detach it, or use no_grad inside?"
    ) -> None:
        super().__init__(message)


class InterceptionError(LightningVizError, RuntimeError):
    """A backward rule met nothing that it is for, or not all of it, or a part of the model has no such rule."""


class NoProbeYetError(LightningVizError, RuntimeError):
    """The data can only be taken as it passes, and nothing has passed yet."""


class ViewError(InvalidArgumentError):
    """A view does not suit the model or the run; raised before training starts."""


class NoLabelsError(ViewError):
    """The data hold no class for each sample, or none that the model has."""


class AnalysisError(InvalidArgumentError):
    """An analysis cannot be carried out as it was asked for."""


class MalformedFileError(AnalysisError):
    """A file does not hold what is read from it: it is cut short, of another kind, too large, or of wrong types."""


class UnsuitableModelError(AnalysisError):
    """A technique does not suit the model or its samples; an analysis leaves it out."""


class LightningVizWarning(UserWarning):
    """Base of all warnings of this package."""


class AttributionWarning(LightningVizWarning):
    """A map is right, but not what its name promises."""


class AttackWarning(LightningVizWarning):
    """An attack is not what it seems."""


class CorruptionWarning(LightningVizWarning):
    """A corruption error is not what was asked for."""


class CueConflictWarning(LightningVizWarning):
    """A measure of shape and texture is not what was asked for."""


class DreamWarning(LightningVizWarning):
    """A dream is not what was asked for."""


class ViewWarning(LightningVizWarning):
    """Something that a view could not do; training is not touched by it."""


def warn_user(message: str, category: type[Warning]) -> None:
    """Warn at the line of the user's code that called this package, however deep the warning arises."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and _is_internal(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def by_name(choices: Mapping[str, Choice], value: Choice | str, argument: str) -> Choice:
    """The value of an argument that is given itself, or by its name among the choices.

    Raises:
        InvalidArgumentError: a name that is none of the choices.
    """
    if not isinstance(value, str):
        return value
    if value not in choices:
        raise InvalidArgumentError(f"{argument}={value!r} is unknown; pass one of {', '.join(map(repr, choices))}")
    return choices[value]


def format_indices(numbers: Sequence[int], most: int = 8) -> str:
    """A list of numbers for a message, of which the first ones are printed, `most` of them at most.

    >>> format_indices([0, 3]), format_indices(range(20), 3)
    ('[0, 3]', '[0, 1, 2, ...] (20 of them)')
    """
    printed = ", ".join(map(str, numbers[:most]))
    return f"[{printed}]" if len(numbers) <= most else f"[{printed}, ...] ({len(numbers)} of them)"


def warn_safely(message: str) -> None:
    """Warn during training: where warnings are turned into errors, log instead, because a view never ends a run."""
    if _SILENT.get():
        return
    try:
        warnings.warn(f"lightning_viz: {message}", ViewWarning, stacklevel=2)
    except ViewWarning:
        _log.warning("%s", message)


def inform(message: str) -> None:
    """Print one line of information, to the log and, as Lightning does, to the terminal."""
    if _SILENT.get():
        return
    _log.info("%s", message)
    print(f"lightning_viz: {plain_text(message)}", file=sys.stderr)


@contextmanager
def said_elsewhere(silent: bool) -> Iterator[None]:
    """Say nothing inside, because another process says it.

    Args:
        silent: whether this is so.
    """
    token = _SILENT.set(silent or _SILENT.get())
    try:
        yield
    finally:
        _SILENT.reset(token)


def _is_internal(module: str) -> bool:
    """Whether a frame is not the user's: this package's own, or of a context manager that it opens."""
    return module.startswith(_PACKAGE) or module == "contextlib"
