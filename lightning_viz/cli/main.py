"""The command line's table of commands, and how one of them is run. Knows no torch: ``--help`` is to answer at once."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import re
import sys
import textwrap
import threading
import traceback
import warnings
from argparse import SUPPRESS, Action, ArgumentError
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from lightning_viz import __version__
from lightning_viz.cli.progress import ProgressBar, first_process, shown

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
    within = Path(__file__).parents[1] in Path(last.filename).parents
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


COMMANDS: dict[str, tuple[str, str]] = {
    "analyze": ("analyze", "every view and technique that suits a model, into one report"),
    "attribute": ("attribute", "what in the input mattered"),
    "embed": ("embed", "samples in the plane, by what a layer makes of them"),
    "dream": ("dream", "images that a unit, a class or a style asks for"),
    "attack": ("attack", "images moved just so far that the model errs"),
    "robustness": ("robustness", "how the model fares on what is moved or corrupted"),
    "filters": ("filters", "the first layer's weights as images"),
    "board": ("board", "TensorBoard with the right options for these runs"),
}
"""Name to module and one-line summary."""

_TRACEBACK = "LIGHTNING_VIZ_TRACEBACK"


def main(arguments: Sequence[str]) -> int:
    """Run a command, or say what there is.

    Args:
        arguments: the command's name, and what stands after it.

    Returns:
        Exit status: 0; 2 where something is asked for that cannot be; 1 where it fails; 130 at Ctrl-C.
    """
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else REFUSED
    if name == "--version":
        print(f"lightning-viz {__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        return _fail(f"there is no command {name!r}: {hint}", REFUSED)
    try:
        with _here(), in_sentences():
            _run(name, arguments[1:])
    except (Exception, KeyboardInterrupt) as error:
        if is_unread(error):
            raise
        if os.environ.get(_TRACEBACK):
            raise
        said = said_of(error, resumes=name == "analyze")
        if said is None:
            print(unforeseen(error), file=sys.stderr)
            return FAILED
        return _fail(*said)
    return 0


def command_parser(name: str, description: str, example: str) -> ArgumentParser:
    """The parser of a command, without its arguments.

    Args:
        name: as it is typed: ``"analyze"``, ``"attack pgd"``.
        description: two sentences.
        example: a line.
    """
    return ArgumentParser(
        prog=f"lightning-viz {name}",
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=_Formatter,
        exit_on_error=False,
    )


def working(title: str) -> AbstractContextManager[ProgressBar]:
    """Shows how far long work is, on stderr: bars on a terminal, else one line per part.

    Args:
        title: of the work.

    Returns:
        A context, which gives what is to be told of each part that begins.
    """
    return shown(title)


class _Formatter(DefaultHelpFormatter):
    """Help without what a person does not need: the usage of every option, types, defaults that are nothing."""

    def _format_usage(self, usage: str | None, actions: Iterable[Action], groups: Any, prefix: str | None) -> str:
        positional = [action for action in actions if not action.option_strings]
        return super()._format_usage(usage, positional, [], prefix).replace(self._prog, f"{self._prog} [options]", 1)

    def _get_help_string(self, action: Action) -> str:
        words = action.help or ""
        told = action.default not in (None, False, "", SUPPRESS, [], "%(default)s") and action.option_strings
        must = action.required and action.option_strings
        return words + (" (default: %(default)s)" if told else " (required)" if must else "")

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = [line if line.startswith(" ") else textwrap.fill(line, width) for line in text.splitlines()]
        return "\n".join(indent + line for line in lines)


def _run(name: str, arguments: Sequence[str]) -> None:
    from lightning_viz.cli.source_options import folded

    module: Any = importlib.import_module(f"lightning_viz.cli.{COMMANDS[name][0]}")
    module.run(module.parser().parse_args(folded(arguments)))


def _overview() -> str:
    rows = "\n".join(f"  {name:<12}{summary}" for name, (_, summary) in COMMANDS.items())
    return (
        "usage: lightning-viz COMMAND ...\n\n"
        "Understand what a trained network learned, from its checkpoints.\n\n"
        f"commands:\n{rows}\n\n"
        "options:\n  --help      also of each command: lightning-viz analyze --help\n  --version\n\n"
        "example:\n  lightning-viz analyze lightning_logs/version_0 --model net.Net\n\n"
        f"{_TRACEBACK}=1 shows where an error comes from."
    )


def _fail(sentence: str, status: int) -> int:
    if first_process():
        print(f"lightning-viz: {sentence}", file=sys.stderr)
    return status


@contextmanager
def _here() -> Iterator[None]:
    """The classes of the folder in which one stands can be named, as in ``python -m``."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


@contextmanager
def in_sentences() -> Iterator[None]:
    """A warning is a sentence for the user, not a line of code; each, and each error, is told once."""
    told: set[str] = set()

    def show(message: Warning | str, *about: Any, **more: Any) -> None:
        if str(message) in told:
            return
        told.add(str(message))
        print(f"lightning-viz: {str(message).removeprefix('lightning_viz: ')}", file=sys.stderr)

    def end(thread: threading.ExceptHookArgs) -> None:
        if not isinstance(thread.exc_value, OSError):  # TensorBoard's writer: it is raised again where it is waited for
            threading.__excepthook__(thread)

    with warnings.catch_warnings():
        warnings.showwarning, threading.excepthook = show, end
        try:
            yield
        finally:
            threading.excepthook = threading.__excepthook__
