"""Checkpoints: found, read without running anything that is in them, and put in order."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_viz.callbacks.run import completed_updates
from lightning_viz.errors import AnalysisError

__all__ = ["read_checkpoint"]

_SUFFIXES = (".ckpt", ".pt", ".pth")
_CHUNK = 2**22  # bytes


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        path: of the file.
        content: as Lightning saved it; of a file of weights alone ``{"state_dict": ...}``.
    """

    path: Path
    content: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Completed updates of the weights: the x of the run's own curves."""
        return completed_updates(self.content)

    @property
    def state_dict(self) -> Mapping[str, torch.Tensor]:
        """The weights."""
        found: Mapping[str, torch.Tensor] = self.content["state_dict"]
        return found

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """What the module kept with ``save_hyperparameters()``, without Lightning's own marks.

        Of ``save_hyperparameters(config)`` each of its values, and the whole by the name of the argument.
        """
        kept = self.content.get("hyper_parameters")
        own = {name: value for name, value in kept.items() if _is_own(name)} if isinstance(kept, Mapping) else {}
        whole = self.content.get("hparams_name")
        return {whole: own, **own} if isinstance(whole, str) and _is_own(whole) and whole != "kwargs" else own


def read_checkpoint(path: Path | str, *, trusted: bool = False, mapped: bool = False) -> Checkpoint:
    """Load a checkpoint onto the CPU; nothing in it is run.

    Args:
        path: of the file.
        trusted: load it also if it holds more than tensors and plain values, which runs whatever code it names.
        mapped: leave the weights on the disk until they are asked for (to read the step, say).

    Raises:
        AnalysisError: no such file, not a checkpoint, cut short, or more in it than weights.
    """
    path = Path(path)
    if path.is_dir():
        raise AnalysisError(
            f"{path} is a folder: a checkpoint that is saved in shards is not supported, give one file (in Lightning: "
            "a strategy that gathers the weights, or consolidate it with lightning's consolidate_checkpoint)"
        )
    if not path.is_file():
        raise AnalysisError(f"there is no checkpoint {path}: give the file that ModelCheckpoint saved")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # another's file: it is refused in our words
            content = torch.load(
                path, map_location="cpu", weights_only=not trusted, mmap=mapped and zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        raise AnalysisError(_refusal(path, error)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        size = path.stat().st_size
        raise AnalysisError(
            f"{path} ({size:,} bytes) cannot be read as a checkpoint: it is cut short or of another kind; copy it again"
        ) from error
    return Checkpoint(path, _with_weights(path, content))


def digest_of(path: Path) -> str:
    """Of a file's content: equal for equal files alone.

    Args:
        path: of the file.
    """
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def find_checkpoints(places: Iterable[Path | str]) -> list[Path]:
    """The checkpoints at some places: files as they are, of a folder all that lie in it, however deep.

    Args:
        places: files, run folders, folders of checkpoints.

    Raises:
        AnalysisError: there is none.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_dir() and not (place / ".metadata").exists():
            inside = sorted(path for path in place.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
            if not inside:
                kinds = ", ".join(_SUFFIXES)
                raise AnalysisError(f"the folder {place} holds no checkpoint ({kinds}): give a run's folder, or a file")
            found += inside
        else:
            found.append(place)
    return list(dict.fromkeys(found))


def in_order(paths: Iterable[Path], *, trusted: bool = False) -> dict[int, Path]:
    """By step, the checkpoints of a run; of several with the same weights (``last.ckpt`` beside another) the first.

    Args:
        paths: of the files.
        trusted: see `read_checkpoint`.

    Raises:
        AnalysisError: two of one step with different weights: they are not of one run.
    """
    steps: dict[int, Checkpoint] = {}
    for path in sorted(paths, key=lambda path: (path.stem.startswith("last"), str(path))):
        found = read_checkpoint(path, trusted=trusted, mapped=True)
        before = steps.setdefault(found.step, found)
        if before is not found and not _same_weights(before, found):
            raise AnalysisError(
                f"{before.path} and {path} are both of step {found.step:,} and hold different weights: give the "
                "checkpoints of one run, or compare them (--compare)"
            )
    return {step: found.path for step, found in sorted(steps.items())}


def _is_own(name: Any) -> bool:
    """Whether a hyper-parameter is the module's, no mark of Lightning's (``_class_path``, ``_instantiator``)."""
    return isinstance(name, str) and not name.startswith("_")


def _same_weights(one: Checkpoint, other: Checkpoint) -> bool:
    first, second = one.state_dict, other.state_dict
    return first.keys() == second.keys() and all(
        weight.equal(second[name]) for name, weight in first.items() if isinstance(weight, torch.Tensor)
    )


def _with_weights(path: Path, content: Any) -> Mapping[str, Any]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        return content
    if isinstance(content, Mapping) and content and all(isinstance(one, torch.Tensor) for one in content.values()):
        return {"state_dict": content}
    found = f"the entries {list(map(str, content))[:5]}" if isinstance(content, Mapping) else type(content).__name__
    raise AnalysisError(f"{path} holds no weights: a checkpoint has a 'state_dict', this file has {found}")


def _refusal(path: Path, error: Exception) -> str:
    named = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error))
    what = f"it names {named[1]}" if named else "it is a pickle of more than tensors"
    return (
        f"{path} is not loaded: {what}, and loading that would run code. If you trust where the file comes from, "
        "add --trust (trusted=True)"
    )
