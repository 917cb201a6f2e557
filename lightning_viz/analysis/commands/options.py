"""The options of a function on the command line: from its signature and docstring; objects written as plain values."""

from __future__ import annotations

import collections.abc
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Union, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser, Namespace

from lightning_viz.analysis.checkpoints import AnalysisError
from lightning_viz.analysis.subject import Subject

GIVEN = frozenset({"model", "inputs", "space", "seed", "progress", "forward"})
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
    meant: Callable[[Any, Subject], Any] | None = None


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

    def arguments(self, options: Namespace, subject: Subject) -> dict[str, Any]:
        """What the function is to be called with, by keyword: the options, and of what a command gives seed and space.

        Args:
            options: as they were parsed.
            subject: what is studied.

        Raises:
            AnalysisError: an option means nothing; the message names it.
        """
        takes, own = inspect.signature(self.function).parameters, {"space": subject.space, "seed": subject.seed}
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
