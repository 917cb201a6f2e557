"""A command with several methods, each with the options of the function behind it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lightning_viz.analysis.case import Case
from lightning_viz.analysis.checkpoints import AnalysisError, digest_of
from lightning_viz.analysis.commands.keeping import Result, is_kept, keep
from lightning_viz.analysis.commands.options import Behind
from lightning_viz.analysis.commands.samples import first_samples
from lightning_viz.analysis.commands.shell import command_parser, working
from lightning_viz.analysis.commands.sourcing import add_source, case_of, subject_of

_NOT_ASKED = ("out", "overwrite", "trust", "config")  # of what the result does not depend on


@dataclass(frozen=True)
class Method:
    """One of a command's methods.

    Attributes:
        behind: the functions whose options it has.
        study: from the subject, and what each of the functions is to be called with, to what they find.
        summary: what it does, in one line; what the docstring of the first function says if empty.
        samples: of the data, unless told otherwise.
        example: what may be typed after the checkpoint.
    """

    behind: tuple[Behind, ...]
    study: Callable[..., Result]
    summary: str = ""
    samples: int = 16
    example: str = ""

    @property
    def words(self) -> str:
        """What it does, in one line."""
        first = (inspect.getdoc(self.behind[0].function) or "").partition("\n")[0]
        return self.summary or re.sub(r", :math:`[^`]*`", "", first)


def parser_of(command: str, description: str, methods: Mapping[str, Method]) -> ArgumentParser:
    """The parser of a command with methods.

    Args:
        command: its name.
        description: in two sentences.
        methods: by name, the first one for the example.
    """
    first = next(iter(methods))
    example = (
        f"lightning-viz {command} {first} lightning_logs/version_0 --model net.Net {methods[first].example}".rstrip()
    )
    parser = command_parser(command, description, example)
    told = f"lightning-viz {command} METHOD --help tells its options."
    choices = parser.add_subcommands(dest="method", metavar="METHOD", title="methods", description=told)
    for name, method in methods.items():
        inner = method_parser(command, name, method)
        whole = inner.prog  # which becomes one with all of the outer parser's options
        choices.add_subcommand(name, inner, help=method.words.rstrip("."))
        inner.prog = whole
    return parser


def method_parser(command: str, name: str, method: Method) -> ArgumentParser:
    """The parser of one method; of a command that is its only method, if that has no name.

    Args:
        command: its name.
        name: of the method, or nothing.
        method: what it is.
    """
    whole = f"{command} {name}".rstrip()
    example = f"lightning-viz {whole} lightning_logs/version_0 --model net.Net {method.example}".rstrip()
    parser = command_parser(whole, method.words, example)
    for behind in method.behind:
        behind.add_to(parser)
    add_source(parser, out="/".join(["analysis", *whole.split()]), samples=method.samples)
    return parser


def run_method(command: str, methods: Mapping[str, Method], options: Namespace) -> None:
    """Run the method that was chosen, and keep what it finds.

    Args:
        command: its name.
        methods: by name.
        options: parsed.
    """
    run_alone(f"{command} {options.method}", methods[options.method], options[options.method])


def run_alone(whole: str, method: Method, options: Namespace) -> None:
    """Run a method, unless its result is there, and keep what it finds.

    Args:
        whole: its name, the command's before it.
        method: what it is.
        options: parsed, of the method's own parser.

    Raises:
        AnalysisError: the model is not for it, or an option makes no sense.
    """
    folder, asked, case = Path(options.out), _asked(options), case_of(options)
    key = _key(whole, case, asked)
    if not options.overwrite and is_kept(folder, key):
        print(f"{folder} holds this already: --overwrite does it again")
        return
    subject = first_samples(subject_of(options, case), options.samples)
    arguments = [behind.arguments(options, subject) for behind in method.behind]
    with working(whole) as progress:
        progress(subject.name, 0, 1)
        result = method.study(subject, *arguments)
        about = {"command": whole, "key": key, "model": subject.name, "step": subject.step, "options": asked}
        keep(result, folder, step=subject.step, about=about)
    print(f"{folder}: numbers.json, pictures")


def _asked(options: Namespace) -> dict[str, object]:
    """What was asked for, as it was written, for the record."""
    every = options.as_dict()
    return {name: value for name, value in every.items() if value is not None and name not in _NOT_ASKED}


def _key(whole: str, case: Case, asked: Mapping[str, object]) -> str:
    """Of all that the result depends on."""
    path = list(case.series().values())[-1]
    if path is not None and not path.is_file():
        raise AnalysisError(f"there is no checkpoint {path}")
    what = whole + json.dumps(asked, sort_keys=True, default=str)
    return case.key(None if path is None else digest_of(path), what)
