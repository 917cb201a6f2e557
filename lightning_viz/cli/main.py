"""The commands of ``lightning-viz``, and the exit status of each. Knows no torch: ``--help`` answers at once."""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
import traceback
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_viz import __version__
from lightning_viz.cli.progress import OutputClosedError, is_first_process, print_line
from lightning_viz.errors import LightningVizError, MalformedFileError
from lightning_viz.hints import unknown_name
from lightning_viz.plain_text import plain_text

REFUSED, FAILED, INTERRUPTED = 2, 1, 130

COMMANDS: dict[str, str] = {
    "analyze": "every view and technique that suits a model, in one report",
    "attribute": "what in the input matters",
    "embed": "samples in the plane, by a layer's outputs",
    "dream": "images that maximize a unit or a class, and other images by optimization",
    "attack": "adversarial samples",
    "robustness": "accuracy under attack, corruptions and conflicting cues",
    "filters": "weights as images",
    "digest": "what a run's health and mistakes are, as JSON",
    "draw": "pictures that a run observed and had no time to draw",
    "board": "TensorBoard with the right options for these runs",
}
"""By name, a one-line summary."""

_OWN_PARSER = ("analyze", "digest", "draw", "board")  # the others are methods of the catalogue
_EXTRA = ("jsonargparse", "docstring_parser", "rich")  # packages of the extra "cli"
_TRACEBACK = "LIGHTNING_VIZ_TRACEBACK"


def sentence_of(error: BaseException, *, resumes: bool = True) -> tuple[str, int] | None:
    """The sentence for an error, and the exit status, by its type; None for an error that is a bug.

    A command that `resumes` continues from where it was interrupted.
    """
    if isinstance(error, KeyboardInterrupt):
        kept = "what is finished is kept, and the same command goes on from there"
        return f"interrupted: {kept if resumes else 'the same command begins anew'}", INTERRUPTED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: what is finished is kept; make room and run the same command again", FAILED
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", FAILED
    if isinstance(error, _out_of_memory()):
        cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return f"out of memory ({cause}): try fewer --samples, or --accelerator cpu", FAILED
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRA:
        return f"{error.name} is missing: pip install 'lightning-viz[cli]'", FAILED
    if isinstance(error, ArgumentError):
        return f"{_parser_words(error)}; see --help", REFUSED
    if isinstance(error, LightningVizError):
        return _last_line(error), FAILED if isinstance(error, MalformedFileError) else REFUSED
    return None


def bug_report(error: BaseException) -> str:
    """What is printed for an error that is a bug: all that is needed to find it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{''.join(traceback.format_exception(error))}lightning-viz: {type(error).__name__} in {place.filename}, line "
        f"{place.lineno}: unless that is your model's or your data's own code, it is a bug in lightning_viz; please "
        "report the lines above to the project's issues"
    )


def _out_of_memory() -> tuple[type[BaseException], ...]:
    """Errors of memory; torch's if torch is loaded."""
    torch = sys.modules.get("torch")
    return (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)


def _parser_words(error: BaseException) -> str:
    """Jsonargparse's message in one line, with options as they are typed."""
    words = re.sub(r'Parser key "([^"]+)"', r"--\1", " ".join(str(error).split()))
    words = re.sub(r"Does not validate against any of the Union subtypes.*?Errors: |typing\.", "", words)
    return re.sub(r"Not of type \w+: |<class '(\w+)'>", r"\1", words)


def _last_line(error: BaseException) -> str:
    """The message, which in an error from a worker process of a DataLoader comes after that process's traceback."""
    kind = type(error)
    return str(error).strip().splitlines()[-1].removeprefix(f"{kind.__module__}.{kind.__qualname__}: ")


def run_command_line(arguments: Sequence[str]) -> int:
    """Run a command, given its name and what follows it, or print the list of commands.

    Returns:
        Exit status: 0; 2 if the request cannot be carried out; 1 if it fails; 130 at Ctrl-C.
    """
    name = arguments[0] if arguments else "--help"
    try:
        if name in ("-h", "--help"):
            print_line(_overview())
            return 0 if arguments else REFUSED
        if name == "--version":
            print_line(f"lightning-viz {__version__}")
            return 0
        if name not in COMMANDS:
            return _fail(unknown_name("command", [name], COMMANDS), REFUSED)
        with _working_folder(), in_sentences():
            return _run(name, arguments[1:])
    except OutputClosedError as error:
        assert error.__cause__ is not None
        raise error.__cause__ from None
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get(_TRACEBACK):
            raise
        sentence = sentence_of(error, resumes=name == "analyze")
        if sentence is None:
            print(bug_report(error), file=sys.stderr)
            return FAILED
        return _fail(*sentence)


def _run(name: str, arguments: Sequence[str]) -> int:
    if name in _OWN_PARSER:
        from lightning_viz.cli import analyze
        from lightning_viz.cli.source_options import parse

        parser = getattr(analyze, f"{name}_parser")()
        getattr(analyze, f"run_{name}")(parse(parser, arguments))
        return 0
    from lightning_viz.cli.commands import run_command

    return 0 if run_command(name, arguments) else REFUSED


def _overview() -> str:
    rows = "\n".join(f"  {name:<12}{summary}" for name, summary in COMMANDS.items())
    return (
        "usage: lightning-viz COMMAND ...\n\n"
        "Understand what a trained network has learned, from its checkpoints.\n\n"
        f"commands:\n{rows}\n\n"
        "options:\n  --help      also of each command: lightning-viz analyze --help\n  --version\n\n"
        "example:\n  lightning-viz analyze lightning_logs/version_0 --model net.Net\n\n"
        f"{_TRACEBACK}=1 shows where an error comes from."
    )


def _fail(sentence: str, status: int) -> int:
    if is_first_process():
        print(f"lightning-viz: {plain_text(sentence)}", file=sys.stderr)
    return status


@contextmanager
def _working_folder() -> Iterator[None]:
    """Classes of the working folder can be named, as in ``python -m``."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


@contextmanager
def in_sentences() -> Iterator[None]:
    """Print a warning as a sentence for the user, not as a line of code, and each only once."""
    printed: set[str] = set()

    def show(message: Warning | str, *about: Any, **more: Any) -> None:
        if str(message) in printed:
            return
        printed.add(str(message))
        lines = str(message).removeprefix("lightning_viz: ").splitlines()
        print(f"lightning-viz: {chr(10).join(map(plain_text, lines))}", file=sys.stderr)

    def end(thread: threading.ExceptHookArgs) -> None:
        if not isinstance(thread.exc_value, OSError):  # TensorBoard's writer: it is raised again where it is waited for
            threading.__excepthook__(thread)

    with warnings.catch_warnings():
        warnings.showwarning, threading.excepthook = show, end
        try:
            yield
        finally:
            threading.excepthook = threading.__excepthook__
