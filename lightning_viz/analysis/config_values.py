"""Values of a ``config.yaml``: plain values, and instances of the few kinds of classes that a file may name.

A configuration may come with a checkpoint from elsewhere. jsonargparse imports and calls whatever a ``class_path`` or
the string of a ``Callable`` argument names, so it never sees these values: `resolve_arguments` imports a module only
from a fixed list of packages and those that the user named, and instantiates nothing but models, data modules,
optimizers and schedulers.
"""

from __future__ import annotations

import enum
import functools
import importlib
import inspect
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_viz.analysis.hydra_config import PARTIAL, POSITIONAL
from lightning_viz.callbacks.run import data_modules
from lightning_viz.errors import AnalysisError
from lightning_viz.hooks.pytree import is_overgrown

PACKAGES = ("torch.nn", "torch.optim", "torchvision", "lightning", "pytorch_lightning", "lightning_viz")
"""Packages whose modules a file may have imported; importing others of torch may start a compiler or a process."""
_KINDS: tuple[type, ...] = (nn.Module, Optimizer, LRScheduler, ReduceLROnPlateau, *data_modules())
_PERMITTED = (
    "without --trust a file may name only modules, data modules, optimizers and schedulers of torch.nn, torch.optim, "
    "torchvision, Lightning, or the package that --model or --data names"
)
_KEYS = frozenset({"class_path", "init_args", "dict_kwargs", POSITIONAL, PARTIAL})
_PLAIN = (int, float, complex, bool, str, type(None), PurePath)
_LISTS = (list, Sequence, typing.Iterable, typing.Collection)
_MOST_VALUES = 100_000  # YAML's aliases make few lines into more values than any memory holds
_MOST_LEVELS = 50


@dataclass(frozen=True)
class Origin:
    """Which parts of a class path and its arguments a file gives.

    Attributes:
        file: the configuration.
        names_class: whether the class path is the file's.
        arguments: names of the init args that are the file's, wholly or in part.
        packages: top packages of the classes that the user named.
        trusted: whether what it names may be imported and called, as Hydra does.
    """

    file: Path
    names_class: bool
    arguments: frozenset[str]
    packages: frozenset[str] = frozenset()
    trusted: bool = False


def packages_of(*values: Any) -> frozenset[str]:
    """The top packages of the classes that values name, at any depth.

    Args:
        values: as the user typed them: mappings with a ``class_path``.

    >>> sorted(packages_of({"class_path": "net.Net", "init_args": {"inner": {"class_path": "parts.Block"}}}, None))
    ['net', 'parts']
    """
    names: set[str] = set()
    for value in values:
        if isinstance(value, Mapping):
            path = value.get("class_path")
            names |= {path.partition(".")[0]} if isinstance(path, str) else set()
            names |= packages_of(*value.values())
        elif isinstance(value, (list, tuple)):
            names |= packages_of(*value)
    return frozenset(names)


def check_size(value: Any, file: Path) -> None:
    """Refuse a file whose values are nested too deep, contain themselves, or are too many.

    Args:
        value: the content.
        file: it is from.

    Raises:
        AnalysisError: it is so.
    """
    if is_overgrown(value, _parts, levels=_MOST_LEVELS, values=_MOST_VALUES):
        raise AnalysisError(
            f"{file} is nested deeper than {_MOST_LEVELS} levels, or holds more than {_MOST_VALUES:,} values: give "
            "the config.yaml that LightningCLI saved"
        )


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple, set)) else ()


def permitted_class(path: str, place: str, origin: Origin) -> type:
    """The class that a file names, imported if its package is permitted.

    Args:
        path: ``"package.module.Class"``.
        place: where the file says so: ``"model.optimizer.class_path"``.
        origin: the file, and what the user named.

    Raises:
        AnalysisError: the class is of no permitted package or kind, or there is none.
    """
    module, _, name = path.rpartition(".")
    top, *inner = path.split(".")
    typed = top in origin.packages
    private = any(part.startswith("_") for part in inner)  # ``torch.utils.bottleneck.__main__``
    known = any(f"{module}.".startswith(f"{package}.") for package in PACKAGES)
    if not module or not (typed or (known and not private)):
        raise _refusal(path, place, origin)
    try:
        with _without_working_folder(kept=typed):
            named = getattr(importlib.import_module(module), name)
    except Exception as error:
        where = "cannot be imported" if typed else "cannot be imported from outside the working folder"
        raise AnalysisError(
            f"{origin.file} names {path} ({place}), which {where}: {' '.join(str(error).split())}; install it, or, if "
            "you trust the file, add --trust"
        ) from error
    if not (isinstance(named, type) and issubclass(named, _KINDS)):
        raise _refusal(path, place, origin)
    return named


def resolve_arguments(
    function: Callable[..., Any], arguments: Mapping[str, Any], place: str, origin: Origin
) -> dict[str, Any]:
    """The arguments of a call as a file gives them, converted by their annotations; classes instantiated.

    Args:
        function: a class or function, to be called.
        arguments: by name.
        place: where the file has them: ``"model"``.
        origin: the file, and what the user named.

    Raises:
        AnalysisError: the file names code that it may not run, or a value is of a wrong type.
    """
    annotations = _annotations(function)
    return {
        name: _resolve(value, annotations.get(name, Any), f"{place}.{name}", origin)
        for name, value in arguments.items()
    }


def _resolve(value: Any, annotation: Any, place: str, origin: Origin) -> Any:
    members = _members(annotation)
    if isinstance(value, Mapping):
        return _resolve_mapping(value, annotation, place, origin)
    nested = isinstance(value, (list, tuple, set)) and any(isinstance(part, (Mapping, list, tuple)) for part in value)
    inert = [] if nested else [member for member in members if _inert(member)]
    if inert:
        try:
            return _converted(value, inert)
        except Exception as error:
            if len(inert) == len(members):
                raise AnalysisError(
                    f"{origin.file} gives {place} as {value!r}, which is no {_name(annotation)}: give --{place} VALUE"
                ) from error
    if isinstance(value, str):
        return _resolve_string(value, members, place, origin)
    if isinstance(value, (list, tuple, set)):
        return _resolve_items(value, members, place, origin)
    return value


def _resolve_mapping(value: Mapping[Any, Any], annotation: Any, place: str, origin: Origin) -> Any:
    members = _members(annotation)
    path = value.get("class_path")
    if isinstance(path, str) and value.keys() <= _KEYS:
        return _resolve_class(value, path, annotation, place, origin)
    record = next((member for member in members if isinstance(member, type) and is_dataclass(member)), None)
    if record is not None and value.keys() <= {field.name for field in fields(record) if field.init}:
        return record(**resolve_arguments(record, value, place, origin))
    items = next((typing.get_args(m) for m in members if len(typing.get_args(m)) == 2 and _is_mapping(m)), (Any, Any))
    keys = [_converted(key, [items[0]]) if _inert(items[0]) else key for key in value]
    parts = [_resolve(part, items[1], f"{place}.{key}", origin) for key, part in value.items()]
    return dict(zip(keys, parts, strict=True))


def _resolve_class(value: Mapping[Any, Any], path: str, annotation: Any, place: str, origin: Origin) -> Any:
    """An instance of the class that a mapping names; for an argument that takes a constructor, the constructor."""
    named = permitted_class(path, f"{place}.class_path", origin)
    members = _members(annotation)
    if all(_inert(member) or _is_mapping(member) for member in members):
        return dict(value)  # the model asks for the mapping itself
    given: dict[str, Any] = {}
    for key in ("dict_kwargs", "init_args"):
        part = value.get(key) or {}
        if not (isinstance(part, Mapping) and all(isinstance(name, str) for name in part)):
            raise AnalysisError(f"{origin.file} gives {place}.{key} as {part!r}: give a mapping of argument names")
        given.update(part)
    if value.get(POSITIONAL):
        raise _refusal(path, place, origin)
    arguments = resolve_arguments(named, given, place, origin)
    if value.get(PARTIAL):
        return functools.partial(named, **arguments)
    if not arguments and any(_takes_class(member, named) for member in members):
        return named
    if any(_takes_constructor(member, named) for member in members):
        return functools.partial(named, **arguments)
    try:
        return named(**arguments)
    except AnalysisError:
        raise
    except Exception as error:
        raise AnalysisError(
            f"{path} ({place} in {origin.file}) cannot be made: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


def _resolve_string(value: str, members: Sequence[Any], place: str, origin: Origin) -> Any:
    """A string for an argument that takes none: the name of a class, if the argument asks for one."""
    wanted = [base for member in members for base in (_result(member), _class_bound(member)) for base in _members(base)]
    if any(_of_kind(base) for base in wanted):
        named = permitted_class(value, place, origin)
        if any(_takes_class(member, named) or _takes_constructor(member, named) for member in members):
            return named
        raise _refusal(value, place, origin)
    if any(_of_kind(member) for member in members):
        return _resolve_class({"class_path": value}, value, nn.Module, place, origin)
    if any(_is_code(member) for member in members):
        raise _refusal(value, place, origin)
    return value


def _resolve_items(value: Any, members: Sequence[Any], place: str, origin: Origin) -> Any:
    """A list, tuple or set, its items resolved one by one."""
    inner: tuple[Any, ...] = ()
    kind: type = type(value)
    for member in members:
        base = typing.get_origin(member) or member
        if base in (list, tuple, set, frozenset) or base in map(_bare, _LISTS):
            inner, kind = typing.get_args(member), base if base in (tuple, set, frozenset) else list
            break
    each = inner[0] if inner and (kind is not tuple or inner[-1] is Ellipsis) else None
    of_item = [each or (inner[i] if i < len(inner) else Any) for i in range(len(value))]
    return kind(_resolve(part, of_item[i], f"{place}.{i}", origin) for i, part in enumerate(value))


def _refusal(path: str, place: str, origin: Origin) -> AnalysisError:
    top = place.partition(".")[0]
    other = f"--{top} {path}" if place == f"{top}.class_path" else f"another value as --{top}.NAME VALUE"
    return AnalysisError(
        f"{origin.file} would call {path} ({place}): {_PERMITTED}; give {other}, or, if you trust the file, add --trust"
    )


@contextmanager
def _without_working_folder(*, kept: bool) -> Iterator[None]:
    """Imports without the working folder, whose files may have come with the configuration."""
    if kept:
        yield
        return
    before, here = list(sys.path), Path.cwd().resolve()
    sys.path[:] = [entry for entry in before if Path(entry or ".").resolve() != here]
    try:
        yield
    finally:
        sys.path[:] = before


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Of the parameters; of a class those of its bases, too, to which it may hand its ``**kwargs``."""
    if not isinstance(function, type):
        return _hints(function)
    found: dict[str, Any] = {}
    for base in reversed(function.__mro__):
        if "__init__" in vars(base) and base is not object:
            found.update(_hints(vars(base)["__init__"]))
    return found


def _hints(function: Any) -> dict[str, Any]:
    """Annotations one by one: one that cannot be evaluated (imported for type checkers alone) is `Any`."""
    function = inspect.unwrap(function)
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        lone: Any = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints.update(typing.get_type_hints(lone, globalns=getattr(function, "__globals__", {})))
        except Exception:
            hints[name] = Any
    return hints


def _members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union; else the annotation itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(member for part in typing.get_args(annotation) for member in _members(part))
    return (annotation,)


def _inert(annotation: Any) -> bool:
    """Whether jsonargparse converts to the annotation without importing or instantiating what a value names."""
    base, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if base is typing.Literal:
        return True
    if base in (typing.Union, types.UnionType):
        return all(map(_inert, inner))
    if base is not None:
        return bool(inner) and (base in (tuple, set, dict, Mapping) or base in map(_bare, _LISTS)) and all(
            part is Ellipsis or _inert(part) for part in inner
        )  # fmt: skip
    if annotation is None:
        return True
    return isinstance(annotation, type) and (
        annotation in _PLAIN
        or issubclass(annotation, (enum.Enum, PurePath))
        or annotation.__module__ == "jsonargparse.typing"
    )


def _converted(value: Any, members: Sequence[Any]) -> Any:
    """A value as jsonargparse converts it to one of some inert types."""
    if any(type(value) is member for member in members):
        return value
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # jsonargparse's of its own next version
        parser.add_argument("--value", type=typing.Union[tuple(members)])
        return parser.parse_object({"value": value}).value


def _takes_class(member: Any, named: type) -> bool:
    """Whether an argument takes the class itself: ``type[nn.Module]``."""
    return any(isinstance(base, type) and issubclass(named, base) for base in _members(_class_bound(member)))


def _takes_constructor(member: Any, named: type) -> bool:
    """Whether an argument takes what makes an instance: ``Callable[..., Optimizer]``."""
    return any(_of_kind(base) and issubclass(named, base) for base in _members(_result(member)))


def _class_bound(member: Any) -> Any:
    return typing.get_args(member)[0] if typing.get_origin(member) is type else None


def _result(member: Any) -> Any:
    return typing.get_args(member)[-1] if typing.get_origin(member) is Callable and typing.get_args(member) else None


def _of_kind(base: Any) -> bool:
    return isinstance(base, type) and issubclass(base, _KINDS)


def _is_code(member: Any) -> bool:
    base = typing.get_origin(member) or member
    return base in (type, Callable, typing.Callable) or bool(getattr(base, "_is_protocol", False))


def _is_mapping(member: Any) -> bool:
    return (typing.get_origin(member) or member) in (dict, Mapping, typing.Mapping)


def _bare(annotation: Any) -> Any:
    return typing.get_origin(annotation) or annotation


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)
