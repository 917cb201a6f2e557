"""The options of a function on the command line: from its signature and docstring; objects written as plain values."""

from __future__ import annotations

import collections.abc
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Union, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser, Namespace

from lightning_viz.analysis.checkpoints import digest_of
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.output import CommandResult, is_kept, keep
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.cli.main import command_parser, working
from lightning_viz.cli.samples import first_samples
from lightning_viz.cli.source_options import add_source, model_under_study_of, run_config_of
from lightning_viz.errors import AnalysisError

GIVEN = frozenset({"model", "inputs", "pixel_space", "seed", "progress", "forward"})
"""Arguments that a command gives itself."""


@dataclass(frozen=True)
class Written:
    """How an argument is written where the command line cannot hold what the function takes.

    Attributes:
        kind: type of the plain value, or of each of several.
        help: what to write; the function's own words if empty.
        plain: from the function's default to how it is written; that default itself if omitted.
        name: of the option; the argument's if empty.
        several: whether several stand one after the other.
        meant: from the plain value and the subject to what the function takes; the value itself if omitted.
    """

    kind: Any
    help: str = ""
    plain: Callable[[Any], Any] | None = None
    name: str = ""
    several: bool = False
    meant: Callable[[Any, ModelUnderStudy], Any] | None = None


@dataclass(frozen=True)
class Behind:
    """A function behind a command.

    Attributes:
        function: with keyword options, and a docstring that says what they are.
        given: arguments that the command gives itself, beside `GIVEN`.
        written: of arguments that are written in another way, or called otherwise, how.
    """

    function: Callable[..., Any]
    given: frozenset[str] = frozenset()
    written: Mapping[str, Written] = field(default_factory=dict)

    def add_to(self, parser: ArgumentParser) -> None:
        """Put the function's options on a parser.

        Args:
            parser: of the command.
        """
        words = _words(self.function)
        group = parser.add_argument_group(f"options of {self.function.__name__}")
        for name, parameter in self._left().items():
            written = self.written.get(name) or _plainly(self._hint(parameter))
            default = parameter.default
            if written.plain is not None:
                default = written.plain(default)
            required = default is inspect.Parameter.empty
            more: dict[str, Any] = {"nargs": "+"} if written.several else {}
            if (metavar := _metavar(written.kind)) is not None:
                more["metavar"] = metavar
            if isinstance(default, tuple):
                default = list(default)
            group.add_argument(
                f"--{written.name or name}",
                type=written.kind,
                help=written.help or words.get(name, ""),
                **({"required": True} if required else {"default": default}),
                **more,
            )

    def arguments(self, options: Namespace, subject: ModelUnderStudy) -> dict[str, Any]:
        """What the function is to be called with, by keyword: the options, and of what a command gives seed and space.

        Args:
            options: as they were parsed.
            subject: what is studied.

        Raises:
            AnalysisError: an option means nothing; the message names it.
        """
        takes, own = (
            inspect.signature(self.function).parameters,
            {"pixel_space": subject.pixel_space, "seed": subject.seed},
        )
        found = {name: value for name, value in own.items() if name in takes}
        for name in self._left():
            written = self.written.get(name)
            option = (written.name if written else "") or name
            value = options[option]
            try:
                found[name] = value if written is None or written.meant is None else written.meant(value, subject)
            except ValueError as error:
                raise AnalysisError(f"--{option} {_typed(value)}: {error}") from error
        return found

    def _hint(self, parameter: inspect.Parameter) -> Any:
        """The type of an argument, resolved by itself: others may name what only their own module knows."""
        alone = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
        return get_type_hints(alone, self.function.__globals__)[parameter.name]

    def _left(self) -> dict[str, inspect.Parameter]:
        """The arguments that are options, in order."""
        every = inspect.signature(self.function).parameters
        return {name: one for name, one in every.items() if name not in GIVEN | self.given}


def _typed(value: Any) -> str:
    """An option's value as it was typed."""
    return " ".join(
        f"'{one}'" if " " in str(one) else str(one) for one in (value if isinstance(value, list) else [value])
    )


def _metavar(kind: Any) -> str | None:
    """What stands for a value in the help; None for those that can be listed."""
    kinds = {one for one in (get_args(kind) if _is_union(kind) else [kind]) if one is not type(None)}
    return {
        frozenset({int}): "N",
        frozenset({float}): "X",
        frozenset({str}): "NAME",
        frozenset({int, str}): "CLASS",
    }.get(frozenset(kinds))


def _plainly(hint: Any) -> Written:
    """A type that a command line can hold; a sequence is several values one after the other."""
    inner = [one for one in get_args(hint) if one is not type(None)] if _is_union(hint) else [hint]
    for one in inner:
        if get_origin(one) in (list, tuple, collections.abc.Sequence):
            first = next(arg for arg in get_args(one) if arg is not Ellipsis)
            return Written(first, several=True)
    return Written(hint)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) is Union or type(hint).__name__ == "UnionType"


def _words(function: Callable[..., Any]) -> dict[str, str]:
    """What a docstring says of each argument, in one line without markup."""
    parsed = docstring_parser.parse(inspect.getdoc(function) or "", style=docstring_parser.DocstringStyle.GOOGLE)
    found = {one.arg_name: re.sub(r"\s+", " ", one.description or "") for one in parsed.params}
    return {name: words.replace("`", "").replace("%", "%%").rstrip(".") for name, words in found.items()}


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
    study: Callable[..., CommandResult]
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
    folder, asked, case = Path(options.out), _asked(options), run_config_of(options)
    key = _key(whole, case, asked)
    if not options.overwrite and is_kept(folder, key):
        print(f"{folder} holds this already: --overwrite does it again")
        return
    subject = first_samples(model_under_study_of(options, case), options.samples)
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


def _key(whole: str, case: RunConfig, asked: Mapping[str, object]) -> str:
    """Of all that the result depends on."""
    path = list(case.series().values())[-1]
    if path is not None and not path.is_file():
        raise AnalysisError(f"there is no checkpoint {path}")
    what = whole + json.dumps(asked, sort_keys=True, default=str)
    return case.key(None if path is None else digest_of(path), what)
