"""What LightningCLI saved beside a run: its ``config.yaml``, and what the command line says over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from lightning_viz.analysis.class_spec import ClassSpec, import_object
from lightning_viz.analysis.config_values import Origin, check_size, packages_of
from lightning_viz.callbacks.run import data_modules
from lightning_viz.errors import AnalysisError


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


@dataclass(frozen=True)
class Configuration:
    """A run's configuration.

    Attributes:
        path: of the file; None where there is none.
        content: of it.
    """

    path: Path | None = None
    content: Mapping[str, Any] = field(default_factory=dict)

    def named(
        self,
        what: str,
        given: Mapping[str, Any] | None,
        *,
        packages: frozenset[str] = frozenset(),
        trusted: bool = False,
    ) -> ClassSpec | None:
        """The class that is meant, and its arguments.

        Args:
            what: ``"model"`` or ``"data"``.
            given: ``class_path`` and ``init_args`` that go before those of the file, as far as they are there.
            packages: top packages of the classes that the user named, from which the file may name classes, too.
            trusted: whether the file may name anything, to be imported and called.

        Returns:
            None where neither says anything.

        Raises:
            AnalysisError: arguments without a class, or a file that names what LightningCLI does not, or may not.
        """
        section = self._section(what)
        given = dict(given or {})
        if not section and not given:
            return None
        kept: Mapping[str, Any] = section if "class_path" in section or not section else {"init_args": section}
        path, other = given.get("class_path"), kept.get("class_path")
        if path is None and other is None:
            raise AnalysisError(self._without_class(what))
        if other is not None and path is not None and _class_name(path) != _class_name(other):
            kept = {}  # the arguments of another class
        said = merge_class_specs({**kept, **({"class_path": path} if path else {})}, given)
        if said["class_path"].startswith("__main__."):
            raise AnalysisError(
                f"{self.path} says {said['class_path']}, a class of the script that was run: give --{what} "
                f"SCRIPT.{_class_name(said['class_path'])}, where SCRIPT.py is that script"
            )
        arguments, typed = said.get("init_args") or {}, given.get("init_args") or {}
        read = (name for name in kept.get("init_args") or {} if arguments[name] is not typed.get(name, _NOTHING))
        origin = None
        if self.path is not None and not trusted:
            origin = Origin(self.path, path is None, frozenset(read), packages | packages_of(given))
        found = ClassSpec(said["class_path"], arguments, origin)
        if path is None:
            self._only_a_class(found, what)
        return found

    @property
    def seed(self) -> int | None:
        """That of ``seed_everything``."""
        found = self.content.get("seed_everything")
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def trainer(self, option: str) -> Any:
        """An option of the Trainer that the run had, a string or a number; None where it is not said.

        Args:
            option: its name.
        """
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

    def _without_class(self, what: str) -> str:
        if self.path is None or not self.content.get(what):
            return f"--{what}.NAME is given, but not of which class: give --{what} package.module.Class, too"
        return (
            f"{self.path} does not name the class of its {what} (a LightningCLI of one fixed class): give --{what} "
            "package.module.Class; its arguments are taken from there"
        )


def read_configuration(path: Path) -> Configuration:
    """Read a configuration as LightningCLI saves it.

    Args:
        path: of the file.

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
        return sorted(place.rglob(_FILE)) or [path for path in [place.absolute().parent / _FILE] if path.is_file()]
    above = place.absolute().parent
    return [path for path in (above / _FILE, above.parent / _FILE) if path.is_file()][:1]


def _class_name(path: str) -> str:
    return path.rpartition(".")[2]
