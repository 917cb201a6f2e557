"""Models and data as LightningCLI's users name them: a class path and init args.

jsonargparse, which imports and calls what a value names, sees what the user typed and nothing else: the values of a
file go through `config_values`, those of a checkpoint to the constructor as they are.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_viz.analysis.config_values import Origin, permitted_class, resolve_arguments
from lightning_viz.errors import AnalysisError

__all__ = ["ClassSpec"]


@dataclass(frozen=True)
class ClassSpec:
    """A class by its path.

    Attributes:
        class_path: ``"package.module.Class"``, or of a function that returns what is wanted.
        init_args: by name.
        origin: which of it a file says; None: the user says all of it, or trusts the file.
    """

    class_path: str
    init_args: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = field(default=None, compare=False)


def instantiate(named: ClassSpec, base: Any, what: str, more: Mapping[str, Any] | None = None) -> Any:
    """An instance of what is named.

    Args:
        named: class path and init args.
        base: of which it must be.
        what: it is for, in words.
        more: a checkpoint's plain values for those that are not given, as far as the class takes them.

    Raises:
        AnalysisError: there is no such class, it does not take the arguments, or a file names code that it may not run.
    """
    found = import_object(named, what)
    if not callable(found) or (isinstance(found, type) and not issubclass(found, base)):
        raise AnalysisError(f"--{what} {named.class_path} is of another kind: give the class path of a {base.__name__}")
    takes, arguments = inspect.signature(found).parameters, {**accepted_arguments(found, more or {}), **named.init_args}
    unknown = [name for name in named.init_args if name not in accepted_arguments(found, named.init_args)]
    if unknown:
        raise AnalysisError(f"--{what} {named.class_path} takes no {unknown[0]!r}: it takes {list(takes)}")
    missing = [one.name for one in takes.values() if _required(one) and one.name not in arguments]
    if missing:
        raise AnalysisError(
            f"--{what} {named.class_path} cannot be made without {missing}: give them as --{what}.NAME VALUE"
        )
    try:
        instance = _instance(found, arguments, named, what)
    except AnalysisError:
        raise
    except Exception as error:
        raise AnalysisError(
            f"--{what} {named.class_path} cannot be made: {type(error).__name__}: {' '.join(str(error).split())}; give "
            f"its arguments as --{what}.NAME VALUE"
        ) from error
    if not isinstance(instance, base):
        raise AnalysisError(f"--{what} {named.class_path} gives a {type(instance).__name__}, not a {base.__name__}")
    return instance


def accepted_arguments(found: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those arguments that a class or function takes.

    Args:
        found: to be called.
        arguments: by name.
    """
    takes = inspect.signature(found).parameters
    every = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes.values())
    return {name: value for name, value in arguments.items() if every or name in takes}


def _instance(found: Any, arguments: Mapping[str, Any], named: ClassSpec, what: str) -> Any:
    """What a class or function makes of arguments: those typed are parsed, a file's resolved, a checkpoint's plain."""
    origin = named.origin
    read = frozenset() if origin is None else origin.arguments
    typed = {name: value for name, value in named.init_args.items() if name not in read}
    given = {name: value for name, value in arguments.items() if name not in typed}
    if origin is not None:
        of_file = {name: value for name, value in given.items() if name in read}
        given |= resolve_arguments(found, of_file, what, origin)
    return found(**given, **_parsed(found, typed, what, given))


def _parsed(found: Any, typed: Mapping[str, Any], what: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the user typed, its types checked and nested classes made by jsonargparse."""
    if not typed:
        return {}
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    add: Any = parser.add_class_arguments if isinstance(found, type) else parser.add_function_arguments
    options: dict[str, Any] = {"instantiate": False} if isinstance(found, type) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # jsonargparse's of its own next version
        add(found, what, fail_untyped=False, skip=set(given), **options)
        config = parser.instantiate_classes(parser.parse_object({what: dict(typed)}))
    return {name: config[what][name] for name in typed}


def _required(parameter: inspect.Parameter) -> bool:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in variable


def import_object(named: ClassSpec, what: str) -> Any:
    """The class or function that is named; its module is imported.

    Args:
        named: its class path, and who says it.
        what: it is for, in words.

    Raises:
        AnalysisError: there is none, or a file names one that it may not.
    """
    path = named.class_path
    if named.origin is not None and named.origin.names_class:
        return permitted_class(path, f"{what}.class_path", named.origin)
    module, _, name = path.rpartition(".")
    if not module:
        raise AnalysisError(f"--{what} {path!r} is no class path: give package.module.Class")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise AnalysisError(
            f"--{what} {path}: there is no module {error.name!r} here; run from the folder in which `import {module}` "
            "works, or install it"
        ) from error
    except AttributeError as error:
        raise AnalysisError(f"--{what} {path}: the module {module} has no {name!r}") from error
