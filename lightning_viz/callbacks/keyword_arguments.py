"""Classes whose annotated attributes are their keyword arguments, and which are no dataclasses to others.

Hydra makes a config of every dataclass that it is handed, and OmegaConf refuses fields such as ``Sequence[int]``:
a Trainer instantiated with views would end before it begins.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar

from typing_extensions import dataclass_transform

_FIELDS = "__dataclass_fields__"


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
class KeywordArguments:
    """Gives each class that descends from it the ``__init__`` of a dataclass, by keywords alone."""

    _arguments: ClassVar[dict[str, Field[Any]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        bases = [base for base in cls.__mro__[1:] if vars(base).get("_arguments")]
        for base in bases:
            setattr(base, _FIELDS, base._arguments)  # type: ignore[attr-defined]
        try:
            dataclass(kw_only=True, eq=False)(cls)
        finally:
            for base in bases:
                delattr(base, _FIELDS)
        cls._arguments = {own.name: own for own in fields(cls)}  # type: ignore[arg-type]
        delattr(cls, _FIELDS)
        defaults: Any = vars(cls)["__init__"].__kwdefaults__ if "__init__" in vars(cls) else {}
        for name, value in arguments_of(cls).items():  # defaults stand in the signature, where jsonargparse reads them
            if name in (defaults or {}) and cls._arguments[name].default_factory is not MISSING:
                defaults[name] = value
        if "__init__" in vars(cls):
            with suppress(Exception):  # a name that is imported for type checkers alone
                hints = typing.get_type_hints(cls)
                annotations = vars(cls)["__init__"].__annotations__
                annotations.update({name: hints[name] for name in annotations if name in hints})

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """An instance of a class that was decorated as a dataclass once more is no dataclass either."""
        for base in cls.__mro__:
            if issubclass(base, KeywordArguments) and _FIELDS in vars(base):
                delattr(base, _FIELDS)
        return super().__new__(cls)


def arguments_of(kind: type[KeywordArguments]) -> dict[str, Any]:
    """The arguments of a class by name, with their defaults; `dataclasses.MISSING` where there is none.

    Args:
        kind: the class.
    """
    return {
        name: own.default if own.default_factory is MISSING else own.default_factory()
        for name, own in kind._arguments.items()
        if own.init
    }


def plain_containers(value: Any) -> Any:
    """A value in which lists and mappings of other kinds (OmegaConf's) are Python's own.

    Args:
        value: of an argument.
    """
    if isinstance(value, Mapping) and not isinstance(value, dict):
        return {key: plain_containers(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, list, tuple, range)):
        return [plain_containers(part) for part in value]
    return value
