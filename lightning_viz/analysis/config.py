"""Models and data as LightningCLI's users name them, a class path and init args, and the ``config.yaml`` of a run.

jsonargparse, which imports and calls what a value names, sees what the user typed and nothing else: the values of a
file go through `config_values`, those of a checkpoint to the constructor as they are.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import nn

from lightning_viz.analysis.config_values import Origin, check_size, packages_of, permitted_class, resolve_arguments
from lightning_viz.analysis.hydra_config import FOLDER, build, is_of_hydra, sections_of, targets_of, unresolved
from lightning_viz.callbacks.run import data_modules
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
    """Those arguments, by name, that a class or function takes."""
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
        if origin.trusted:
            given |= {name: build(value, f"{what}.{name}", origin.file) for name, value in of_file.items()}
        else:
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
    if named.origin is not None and named.origin.names_class and not named.origin.trusted:
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


def merge_class_specs(base: Any, given: Any) -> Any:
    """What was said, and what is said over it: a class keeps those of its arguments that are not given anew.

    Args:
        base: a plain value, a class path, or a mapping.
        given: the same.

    >>> merge_class_specs({"class_path": "a.Net", "init_args": {"depth": 2, "width": 8}}, {"depth": 3})
    {'class_path': 'a.Net', 'init_args': {'depth': 3, 'width': 8}}
    """
    if isinstance(base, str) and isinstance(given, Mapping):
        base = {"class_path": base}
    if not isinstance(base, Mapping) or not isinstance(given, Mapping):
        return given
    if "class_path" in given and "class_path" in base and given["class_path"] != base["class_path"]:
        return given
    if "class_path" in base and not given.keys() & {"class_path", "init_args"}:
        given = {"init_args": given}
    return {**base, **{name: merge_class_specs(base.get(name), value) for name, value in given.items()}}


_FILE = "config.yaml"
_SECTIONS = ("model", "data", "trainer")
_NOTHING = object()


class RecordedClass(NamedTuple):
    """A class that a checkpoint names.

    Attributes:
        file: the checkpoint.
        class_path: of the class.
    """

    file: Path
    class_path: str


@dataclass(frozen=True)
class Configuration:
    """A run's configuration.

    Attributes:
        path: of the file; None where there is none.
        content: of it, as LightningCLI writes it.
        hydra: whether Hydra saved it.
    """

    path: Path | None = None
    content: Mapping[str, Any] = field(default_factory=dict)
    hydra: bool = False

    def named(
        self,
        what: str,
        given: Mapping[str, Any] | None,
        *,
        packages: frozenset[str] = frozenset(),
        trusted: bool = False,
        recorded: RecordedClass | None = None,
    ) -> ClassSpec | None:
        """The class that is meant, and its arguments.

        Args:
            what: ``"model"`` or ``"data"``.
            given: ``class_path`` and ``init_args`` that go before those of the file, as far as they are there.
            packages: top packages of the classes that the user named, from which the file may name classes, too.
            trusted: whether the file may name anything, to be imported and called.
            recorded: the class that the run's checkpoint names, for a file that does not, as of a LightningCLI whose
                classes are given in code; under the same rules.

        Returns:
            None where neither says anything.

        Raises:
            AnalysisError: arguments without a class, or a file that names what LightningCLI does not, or may not.
        """
        section = self._section(what)
        given = dict(given or {})
        if self.lacks_class(what) and recorded is not None and self.path is not None:
            section = {"class_path": recorded.class_path, "init_args": section}
        else:
            recorded = None
        if not section and not given:
            return None
        kept: Mapping[str, Any] = section if "class_path" in section or not section else {"init_args": section}
        path, other = given.get("class_path"), kept.get("class_path")
        if path is None and other is None:
            raise AnalysisError(self._without_class(what))
        if path is None and self.hydra and not trusted:
            raise AnalysisError(self._without_trust(what))
        if other is not None and path is not None and path.rpartition(".")[2] != other.rpartition(".")[2]:
            kept = {}  # the arguments of another class
        said = merge_class_specs({**kept, **({"class_path": path} if path else {})}, given)
        file = self.path if recorded is None else recorded.file
        if said["class_path"].startswith("__main__."):
            name = said["class_path"].rpartition(".")[2]
            raise AnalysisError(
                f"{file} says {said['class_path']}, a class of the script that was run: give --{what} SCRIPT.{name}, "
                "where SCRIPT.py is that script"
            )
        arguments, typed = said.get("init_args") or {}, given.get("init_args") or {}
        read = (name for name in kept.get("init_args") or {} if arguments[name] is not typed.get(name, _NOTHING))
        origin = None
        if self.path is not None and (self.hydra or not trusted):
            named_packages = packages | packages_of(given)
            origin = Origin(self.path, path is None, frozenset(read), named_packages, trusted=trusted)
        found = ClassSpec(said["class_path"], arguments, origin)
        if self.hydra and (reference := unresolved(arguments)):
            name = next(name for name, value in arguments.items() if unresolved(value))
            raise AnalysisError(f"{self.path} gives {what}.{name} as {reference}: give --{what}.{name} VALUE")
        if path is None and not (self.hydra and trusted):
            checked = None if origin is None or file is None else replace(origin, file=file)
            self._only_a_class(replace(found, origin=checked), what)
        return found

    def lacks_class(self, what: str) -> bool:
        """Whether the file gives arguments alone, if any, of model or data."""
        return not self.hydra and "class_path" not in self._section(what)

    @property
    def seed(self) -> int | None:
        """That of ``seed_everything``."""
        found = self.content.get("seed_everything")
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def trainer(self, option: str) -> Any:
        """An option of the Trainer that the run had, a string or a number; None where it is not said."""
        section = self.content.get("trainer")
        found = section.get(option) if isinstance(section, Mapping) else None
        return found if isinstance(found, (str, int, float)) else None

    def _section(self, what: str) -> Mapping[str, Any]:
        """What the file says of the model, or of the data: a class path that is a string, arguments by name."""
        section = self.content.get(what) or {}
        whole = isinstance(section, Mapping)
        path = section.get("class_path", "") if whole else ""
        arguments = (section.get("init_args") or {} if "class_path" in section else section) if whole else {}
        named = isinstance(arguments, Mapping) and all(isinstance(name, str) for name in arguments)
        if not (whole and isinstance(path, str) and named):
            raise AnalysisError(
                f"{self.path} is no configuration of a LightningCLI: its {what} is not a class_path with init_args by "
                "name"
            )
        return section

    def _only_a_class(self, named: ClassSpec, what: str) -> None:
        """The file may come with a checkpoint from elsewhere: it must not make us call ``os.system``, say."""
        found, path = import_object(named, what), named.class_path
        if not (isinstance(found, type) and issubclass(found, nn.Module if what == "model" else data_modules())):
            raise AnalysisError(
                f"{self.path} names {path} as its {what}, which is none of Lightning's and may do anything: if you "
                f"know it, give --{what} {path}"
            )

    def _without_trust(self, what: str) -> str:
        sections = ("model", "data") if what == "model" else ("data",)
        targets = dict.fromkeys(path for section in sections for path in targets_of(self.content.get(section)))
        return (
            f"{self.path} would call {', '.join(targets)}: if you trust the file, add --trust; else give --{what} "
            "package.module.Class"
        )

    def _without_class(self, what: str) -> str:
        if self.path is None or not self.content.get(what):
            return f"--{what}.NAME is given, but not of which class: give --{what} package.module.Class, too"
        return (
            f"{self.path} does not name the class of its {what} (a LightningCLI of one fixed class): give --{what} "
            "package.module.Class; its arguments are taken from there"
        )


def read_configuration(path: Path) -> Configuration:
    """Read a configuration as LightningCLI saves it, or Hydra.

    Raises:
        AnalysisError: it cannot be read, or is something else.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeError, ValueError, RecursionError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise AnalysisError(f"{path} cannot be read as YAML: {said}; give the config.yaml of a run") from error
    if not isinstance(content, Mapping) or not any(isinstance(content.get(one), Mapping) for one in _SECTIONS):
        raise AnalysisError(f"{path} is no configuration of a LightningCLI: it has no {', no '.join(_SECTIONS)}")
    check_size(content, path)
    if is_of_hydra(content):
        sections = sections_of(content, path)
        check_size(sections, path)
        return Configuration(path, sections, hydra=True)
    return Configuration(path, content)


def find_configuration(places: Sequence[Path | str]) -> Configuration:
    """The configuration of the run that checkpoints are of; an empty one where there is none.

    Args:
        places: files and folders: it lies in them, beside them, or in the folder above that of a file.

    Raises:
        AnalysisError: there are several.
    """
    found = dict.fromkeys(path.resolve() for place in places for path in _beside(Path(place)))
    runs: dict[Path, Configuration] = {}
    for path in found:
        try:
            runs[path] = read_configuration(path)
        except AnalysisError:
            continue  # another tool's file of that name
    if len(runs) > 1:
        listed = ", ".join(str(path.parent) for path in list(runs)[:4])
        raise AnalysisError(f"{len(runs)} runs are given ({listed}{', ...' * (len(runs) > 4)}): give one of them")
    return next(iter(runs.values()), Configuration())


def _beside(place: Path) -> list[Path]:
    """Where the configuration may lie: within a run's folder, or above its checkpoints."""
    if place.is_dir():
        inside = sorted(place.rglob(_FILE))
        of_hydra = [path for path in inside if path.parent.name == FOLDER]  # beside which other tools keep copies
        return of_hydra or inside or _in(place.absolute().parent)
    above = place.absolute().parent
    return [*_in(above), *_in(above.parent)][:1]


def _in(folder: Path) -> list[Path]:
    return [path for path in (folder / FOLDER / _FILE, folder / _FILE) if path.is_file()][:1]
