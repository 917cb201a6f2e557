"""Options of a command, made from a function's signature and docstring, and how its ``--help`` shows them."""

from __future__ import annotations

import collections.abc
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import NoneType, SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from jsonargparse import Namespace

SUPPLIED = frozenset({"options", "pixel_space", "seed", "progress", "forward", "previous"})
"""Arguments that a command gives by itself."""

_SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class Option:
    """An option of a command: an argument as it is typed.

    Attributes:
        name: of the argument.
        kinds: types of a value, scalars and literals.
        default: as the function has it; `inspect.Parameter.empty` if the option is required.
        help: one line.
        several: whether several values stand one after the other.
        single: whether one value alone is given as it is rather than as a list.
        length: how many values there are; any number if 0.
    """

    name: str
    kinds: tuple[Any, ...]
    default: Any
    help: str
    several: bool = False
    single: bool = False
    length: int = 0

    def add_to(self, group: Any) -> None:
        """Add the option to a group of a parser's arguments."""
        required = self.default is inspect.Parameter.empty
        kinds = self.kinds if self.default is not None else (*self.kinds, NoneType)
        kind: Any = _real if self.kinds == (float,) else Union[kinds]
        more: dict[str, Any] = {"required": True} if required else {"default": _typed_default(self)}
        if self.several:
            more["nargs"] = self.length if self.length and not self.single else "+"
        if (metavar := _METAVARS.get(frozenset(self.kinds))) is not None:
            more["metavar"] = metavar
        group.add_argument(f"--{self.name}", type=kind, help=self.help.replace("%", "%%"), **more)

    def value(self, options: Namespace) -> Any:
        """The argument that was typed, of all options."""
        typed = options[self.name]
        if not self.several or not isinstance(typed, (list, tuple)):
            return typed
        if self.single and len(typed) == 1:
            return typed[0]
        return tuple(typed) if self.length else list(typed)


_METAVARS = {frozenset({int}): "N", frozenset({float}): "X", frozenset({str}): "NAME", frozenset({int, str}): "CLASS"}


def options_of(function: Callable[..., Any], *, but: Iterable[str] = ()) -> list[Option]:
    """The options of a function: its keyword-only arguments that can be typed, but some, and but `SUPPLIED`."""
    import docstring_parser

    parsed = docstring_parser.parse(inspect.getdoc(function) or "", style=docstring_parser.DocstringStyle.GOOGLE)
    words = {parameter.arg_name: parameter.description or "" for parameter in parsed.params}
    options = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and name not in SUPPLIED and name not in but:
            kinds, several, single, length = _typable(_hint(function, parameter))
            if kinds:
                text = re.sub(r"\s+", " ", words.get(name, "").replace("`", "")).rstrip(".")
                options.append(Option(name, kinds, parameter.default, text, several, single, length))
    return options


def _hint(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The type of an argument, resolved by itself: others may name what only their own module knows."""
    alone = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    return get_type_hints(alone, function.__globals__)[parameter.name]


def _typable(hint: Any) -> tuple[tuple[Any, ...], bool, bool, int]:
    """The part of a type that can be typed: kinds, several, single, length (see `Option`)."""
    parts = _parts(hint)
    scalars = [part for part in parts if part in _SCALARS or get_origin(part) is Literal]
    sequences = [part for part in parts if get_origin(part) in (list, tuple, collections.abc.Sequence)]
    if any(getattr(part, "__name__", "") == "Tensor" for part in parts):
        sequences = []  # a value for each sample
    items = [item for part in sequences for arg in get_args(part) for item in _parts(arg)]
    items = [item for item in items if item in _SCALARS or get_origin(item) is Literal]
    kinds = tuple(dict.fromkeys([*scalars, *items]))
    lengths = [len(get_args(part)) for part in sequences if get_origin(part) is tuple and ... not in get_args(part)]
    return kinds, bool(items), bool(items and scalars), lengths[0] if lengths else 0


def _parts(hint: Any) -> list[Any]:
    """The members of a union, or the type itself; None left out."""
    union = get_origin(hint) in (Union, UnionType)
    return [part for part in (get_args(hint) if union else (hint,)) if part is not NoneType]


def _real(text: str | float) -> float:
    """A number, also as a fraction: ``8/255``; the parser checks numbers a second time."""
    return float(Fraction(text)) if isinstance(text, str) and "/" in text else float(text)


_real.__name__ = "number"  # in argparse's message


def _typed_default(option: Option) -> Any:
    """A default as it is typed."""
    default = option.default
    if option.several and isinstance(default, (str, int, float)):
        return [default]
    return list(default) if isinstance(default, (tuple, Mapping)) else default


def default_words(value: Any) -> str:
    """A default in words: fractions of 255 as such, several values one after the other.

    >>> default_words(8 / 255), default_words([0.0, 1 / 255, 0.1]), default_words(["small norm"]), default_words(False)
    ('8/255', '0 1/255 0.1', "'small norm'", 'false')
    """
    if isinstance(value, (list, tuple)):
        return " ".join(f"'{item}'" if " " in str(item) else default_words(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        levels = round(255 * value)
        exact = levels and abs(255 * value - levels) < 1e-9 and len(f"{value:g}") > 5
        return f"{levels}/255" if exact else f"{value:g}"
    return str(value)
