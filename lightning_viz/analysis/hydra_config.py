"""The ``.hydra/config.yaml`` that Hydra saves beside a run: what its ``_target_``s name, and how they are made.

Nothing is imported or called before `build`, which is for files that the user trusts.
"""

from __future__ import annotations

import functools
import os
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from lightning_viz.errors import AnalysisError

FOLDER = ".hydra"
"""In which Hydra keeps the configuration, within the folder of a run."""
POSITIONAL, PARTIAL = "_args_", "_partial_"
_TARGET, _FLAT = "_target_", "_recursive_"
_KEYS = frozenset({"class_path", "init_args", POSITIONAL, PARTIAL})
_REFERENCE = re.compile(r"\$\{([^${}]+)\}")
_MOST_REFERENCES = 10_000
_MOST_LETTERS = 10_000
_MOST_LEVELS = 50
_UNKNOWN = object()


def is_of_hydra(content: Mapping[str, Any]) -> bool:
    """Whether a configuration names classes as Hydra does."""
    return any(isinstance(section, Mapping) and _TARGET in section for section in content.values())


def sections_of(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The model, the data and the Trainer of a configuration, as LightningCLI writes them: a class path and init args.

    Args:
        content: as Hydra saved it.
        path: of the file; ``hydra.yaml`` beside it tells what ``${hydra:...}`` means.
    """
    data = content.get("data", content.get("datamodule"))
    sections = {"model": content.get("model"), "data": data, "trainer": content.get("trainer")}
    references = _References(content, path)
    resolved = {name: references.resolve(section) for name, section in sections.items()}
    named = {name: _as_class_path(resolved[name]) for name in ("model", "data")}
    return {**named, "trainer": resolved["trainer"], "seed_everything": content.get("seed")}


def targets_of(value: Any) -> Iterator[str]:
    """The paths of all classes and functions that a value of `sections_of` names, as they would be called."""
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        for part in value.values():
            yield from targets_of(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from targets_of(part)


def unresolved(value: Any) -> str:
    """The first reference in a value that could not be resolved; empty where there is none."""
    if isinstance(value, Mapping):
        return next(filter(None, map(unresolved, value.values())), "")
    if isinstance(value, (list, tuple)):
        return next(filter(None, map(unresolved, value)), "")
    found = _REFERENCE.search(value) if isinstance(value, str) else None
    return found[0] if found else ""


def build(value: Any, place: str, file: Path) -> Any:
    """A value in which every class that is named is instantiated, as ``hydra.utils.instantiate`` does.

    Args:
        value: of `sections_of`, from a file that the user trusts: what it names is imported and called.
        place: where the file has it, ``"model.optimizer"``.
        file: the configuration.

    Raises:
        AnalysisError: something cannot be imported or called.
    """
    if isinstance(value, (list, tuple)):
        return [build(part, f"{place}.{index}", file) for index, part in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    path = value.get("class_path")
    if not (isinstance(path, str) and value.keys() <= _KEYS):
        return {key: build(part, f"{place}.{key}", file) for key, part in value.items()}
    positional = build(value.get(POSITIONAL, []), f"{place}.{POSITIONAL}", file)
    arguments = build(value.get("init_args", {}), place, file)
    try:
        target = pkgutil.resolve_name(path)
        return functools.partial(target, *positional, **arguments) if value.get(PARTIAL) else target(
            *positional, **arguments
        )  # fmt: skip
    except Exception as error:
        words = " ".join(str(error).split())
        raise AnalysisError(f"{path} ({place} in {file}) cannot be made: {type(error).__name__}: {words}") from error


def _as_class_path(value: Any) -> Any:
    """Every mapping with a ``_target_`` as one with a class path and init args."""
    if isinstance(value, (list, tuple)):
        return [_as_class_path(part) for part in value]
    if not isinstance(value, Mapping):
        return value
    if not isinstance(value.get(_TARGET), str):
        return {key: _as_class_path(part) for key, part in value.items()}
    convert = _as_class_path if value.get(_FLAT, True) else lambda part: part
    arguments = {key: convert(part) for key, part in value.items() if not re.fullmatch("_[a-z]+_", str(key))}
    kept = {key: convert(value[key]) for key in (POSITIONAL, PARTIAL) if value.get(key)}
    return {"class_path": value[_TARGET], "init_args": arguments, **kept}


class _References:
    """Resolves ``${data.folder}``, ``${oc.env:NAME}`` and ``${hydra:runtime.cwd}``; others stay as they are written."""

    def __init__(self, content: Mapping[str, Any], path: Path) -> None:
        self._content, self._left, self._level = content, _MOST_REFERENCES, 0
        self._hydra: Any = {}
        with suppress(OSError, UnicodeError, ValueError, RecursionError, yaml.YAMLError, AttributeError):
            self._hydra = yaml.safe_load((path.parent / "hydra.yaml").read_text()).get("hydra")

    def resolve(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: self.resolve(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.resolve(part) for part in value]
        if not (isinstance(value, str) and "${" in value) or self._level > _MOST_LEVELS:
            return value
        self._level += 1
        try:
            return self._text(value)
        finally:
            self._level -= 1

    def _text(self, text: str) -> Any:
        whole = _REFERENCE.fullmatch(text)
        if whole:
            value = self._value(whole[1])
            return text if value is _UNKNOWN else self.resolve(value)

        def replaced(reference: re.Match[str]) -> str:
            value = self._value(reference[1])
            return reference[0] if value is _UNKNOWN else str(self.resolve(value))

        found = _REFERENCE.sub(replaced, text)
        return found if found == text or len(found) > _MOST_LETTERS else self.resolve(found)

    def _value(self, name: str) -> Any:
        self._left -= 1
        if self._left < 0:
            return _UNKNOWN
        resolver, colon, rest = name.strip().partition(":")
        if not colon:
            return _walk(self._content, name)
        if resolver == "hydra":
            return _walk(self._hydra, rest)
        if resolver != "oc.env":
            return _UNKNOWN
        variable, comma, default = rest.partition(",")
        if variable.strip() in os.environ:
            return os.environ[variable.strip()]
        if variable.strip() == "PROJECT_ROOT":  # which rootutils sets when the script of the run starts
            return _walk(self._hydra, "runtime.cwd")
        return yaml.safe_load(default) if comma else _UNKNOWN


def _walk(value: Any, path: str) -> Any:
    """What a dotted path leads to."""
    for part in re.split(r"[.\[\]]+", path.strip().rstrip("]")):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, Sequence) and not isinstance(value, str) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return _UNKNOWN
    return value
