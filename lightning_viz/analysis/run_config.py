"""The configuration of an analysis: the model, its checkpoints, its data, and the key of its results."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Subset, TensorDataset

import lightning_viz
from lightning_viz.analysis.config import ClassSpec, import_object
from lightning_viz.analysis.data import Data
from lightning_viz.analysis.files import digest_of, listing
from lightning_viz.analysis.models import Model, find_checkpoints, in_order
from lightning_viz.callbacks.probe import Probe
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.pixels import PixelSpace

__all__ = ["RunConfig"]


@dataclass(frozen=True)
class RunConfig:
    """What is to be analyzed, and how.

    Attributes:
        model: an instance, a class, or a class path with init args.
        data: as the model was trained with: a LightningDataModule, a DataLoader or a data set; or one of them named.
        checkpoints: files and folders; those of one run make a series. None: the model as it is.
        name, probe, pixel_space, views, techniques, samples, seed, trusted, trainer, conflicts: arguments of `analyze`.
        as_logged: draw with the views of the run, as they were; if False with the same views for all models.
    """

    model: Model
    data: Data
    checkpoints: Sequence[Path | str] = ()
    name: str = ""
    probe: Probe | None = None
    pixel_space: PixelSpace | None = None
    views: Sequence[str] | None = None
    techniques: Sequence[str] | None = None
    samples: int = 256
    seed: int = 0
    trusted: bool = False
    trainer: Mapping[str, Any] = field(default_factory=dict)
    conflicts: Path | None = None
    as_logged: bool = True

    def series(self) -> dict[int, Path | None]:
        """The checkpoints by step; ``{0: None}`` if there is none.

        Raises:
            AnalysisError: a place without a checkpoint, or one that cannot be read.
        """
        if not self.checkpoints:
            return {0: None}
        return dict(in_order(find_checkpoints(self.checkpoints), trusted=self.trusted))

    def title(self) -> str:
        """The model's name in reports."""
        if self.name:
            return self.name
        if isinstance(self.model, ClassSpec):
            return self.model.class_path.rpartition(".")[2]
        return (self.model if isinstance(self.model, type) else type(self.model)).__name__

    def key(self, checkpoint: str | None, what: str) -> str:
        """The key of a result, a digest of all that it depends on, as far as that can be known.

        The code of model and data counts as the files that hold their classes. Data count as far as they are tensors in
        memory; what a data module or a data set reads does not.

        Args:
            checkpoint: digest of its content; None if there is none.
            what: the kind of result.
        """
        probe = self.probe and [self.probe, _of_tensors([self.probe.inputs, self.probe.labels])]
        conflicts = None if self.conflicts is None else listing(self.conflicts)
        options = probe, self.pixel_space, self.views, self.samples, self.seed, conflicts, self.as_logged
        parts = {
            "version": lightning_viz.__version__,
            "what": what,
            "checkpoint": checkpoint,
            "model": _identity(self.model, weights=checkpoint is None),
            "data": _identity(self.data, weights=False),
            "options": _plain((*options, sorted(self.trainer.items()))),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode()).hexdigest()


def _identity(thing: Any, *, weights: bool) -> list[Any]:
    """What identifies a model or data: its class with its code, its arguments or its content."""
    if isinstance(thing, ClassSpec):
        imported = import_object(thing, "model or data")
        return [thing.class_path, dict(thing.init_args), _code(getattr(imported, "__module__", None) or "")]
    kind = thing if isinstance(thing, type) else type(thing)
    about: list[Any] = [kind.__module__, kind.__qualname__, _code(kind.__module__)]
    if hasattr(thing, "identity"):  # images of a folder
        about.append(thing.identity())
    if isinstance(thing, (DataLoader, Subset)):
        about += [_identity(thing.dataset, weights=False), _plain(list(getattr(thing, "indices", ())))]
    if isinstance(thing, nn.Module):
        about += [_plain(thing), _digest(thing.state_dict()) if weights else ""]
    elif isinstance(thing, (TensorDataset, list, tuple)):
        about.append(_of_tensors(thing.tensors if isinstance(thing, TensorDataset) else thing))
    elif hasattr(thing, "hparams") and thing is not kind:  # what a data module kept with ``save_hyperparameters()``
        about.append(_plain(dict(thing.hparams)))
    return about


def _plain(thing: Any) -> str:
    """Its ``repr`` without addresses in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def _of_tensors(structure: Any) -> str:
    return _digest({str(place): tensor for place, tensor in enumerate(all_tensors(structure))})


def _digest(weights: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, weight in weights.items():
        digest.update(f"{name} {getattr(weight, 'dtype', '')}".encode())
        if isinstance(weight, Tensor) and not is_lazy(weight):
            digest.update(str(list(weight.shape)).encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:  # a module's extra state, or a weight that is yet to come
            digest.update(_plain(None if isinstance(weight, Tensor) else weight).encode())
    return digest.hexdigest()


def _code(module: str) -> str:
    """Digest of the file that holds a module's code; empty of one that has none, or is not loaded yet."""
    spec: Any = sys.modules.get(module)
    if spec is None:
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(module)
    path = getattr(spec, "__file__", None) or getattr(spec, "origin", None)
    return digest_of(Path(path)) if path and Path(path).is_file() else ""
