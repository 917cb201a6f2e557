"""The command line's table of commands, and how one of them is run. Knows no torch: ``--help`` is to answer at once."""

from __future__ import annotations

import importlib
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter

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

Progress = Callable[[str, int, int], None]
"""Told what begins, how many parts are done, and of how many."""


class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Help as jsonargparse writes it, the description's and the example's lines as they are."""


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
        formatter_class=Formatter,
        exit_on_error=False,
    )


@contextmanager
def working(title: str) -> Iterator[Progress]:
    """Shows how far long work is, on stderr: bars on a terminal, else one line per part.

    Args:
        title: of the work.

    Yields:
        To be told what begins.
    """

    def progress(part: str, done: int, count: int) -> None:
        print(f"{title}: {part} ({done + 1} of {count})", file=sys.stderr)

    yield progress


def run(arguments: Sequence[str]) -> None:
    """Run a command.

    Args:
        arguments: its name, and what stands after it.
    """
    from lightning_viz.analysis.commands.sourcing import folded

    name, *rest = arguments
    module: Any = importlib.import_module(f"lightning_viz.analysis.commands.{COMMANDS[name][0]}")
    module.run(module.parser().parse_args(folded(rest)))
