"""What a command says where it fails: one clear sentence, and the exit status."""

from __future__ import annotations

import errno
import re
import traceback
from argparse import ArgumentError
from pathlib import Path

REFUSED, FAILED, INTERRUPTED = 2, 1, 130

_OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError")


def said_of(error: BaseException, *, resumes: bool = True) -> tuple[str, int] | None:
    """The sentence for an error, and the exit status; None of an error that nobody foresaw.

    Args:
        error: as it was caught, with its traceback.
        resumes: whether the command goes on from where it was interrupted.
    """
    if isinstance(error, KeyboardInterrupt):
        kept = "what is finished is kept, and the same command goes on from there"
        return f"interrupted: {kept if resumes else 'the same command begins anew'}", INTERRUPTED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: what is finished is kept; make room and run the same again", FAILED
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", FAILED
    if type(error).__name__ in _OUT_OF_MEMORY:
        return f"memory does not suffice ({_first_line(error)}): try fewer --samples, or --accelerator cpu", FAILED
    if isinstance(error, ArgumentError):
        return f"{_of_parser(error)}; see --help", REFUSED
    if type(error).__name__ == "MisconfigurationException" or _is_of_trainer(error):
        return f"Lightning cannot run it so: {_first_line(error)}", REFUSED
    return (_of_ours(error), REFUSED) if _is_ours(error) else None


def is_unread(error: BaseException) -> bool:
    """Whether what a command prints is not read any more, as by ``| head``.

    Args:
        error: as it was caught.
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    return isinstance(error, BrokenPipeError) and Path(last.filename).parent == Path(__file__).parent


def unforeseen(error: BaseException) -> str:
    """What is said where nobody foresaw an error: all that is needed to find it.

    Args:
        error: as it was caught.
    """
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{''.join(traceback.format_exception(error))}lightning-viz: {type(error).__name__} in {place.filename}, line "
        f"{place.lineno}: if that is not your model's or your data's own code, it is a bug of ours; please report the "
        "lines above to the project's issues"
    )


def _is_ours(error: BaseException) -> bool:
    """Whether the error is one that our code raises on purpose, with words for the user."""
    if type(error).__module__.partition(".")[0] == "lightning_viz":
        return True
    last = traceback.extract_tb(error.__traceback__)[-1]
    within = Path(__file__).parents[2] in Path(last.filename).parents
    return within and (last.line or "").lstrip().startswith("raise ")


def _is_of_trainer(error: BaseException) -> bool:
    """Whether Lightning refuses the devices, the strategy or the precision."""
    places = traceback.extract_tb(error.__traceback__)
    return isinstance(error, (TypeError, ValueError)) and any(
        at.filename.endswith("accelerator_connector.py") for at in places
    )


def _of_parser(error: BaseException) -> str:
    """What jsonargparse says, in one line, as the options are typed."""
    words = re.sub(r'Parser key "([^"]+)"', r"--\1", " ".join(str(error).split()))
    return re.sub(r"Not of type \w+: |<class '(\w+)'>", r"\1", words)


def _of_ours(error: BaseException) -> str:
    """Its words; those alone, where a worker process wrapped them into its traceback."""
    words = str(error)
    kind = f"{type(error).__qualname__}: "
    return words.rpartition(kind)[2].strip() if "Original Traceback" in words else words


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
