"""Where a run's probe comes from: its loaders, its devices, its batches as they pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_viz.callbacks.lightning import LightningModule, Trainer
from lightning_viz.callbacks.probe import (
    Probe,
    Samples,
    balanced,
    class_names,
    indexed_batches,
    is_indexable,
    known_labels,
    pixel_space,
    split_batch,
)
from lightning_viz.hooks.guard import unchanged
from lightning_viz.hooks.structure import all_tensors, map_tensors

_SCANNED = 512  # samples looked at to balance the classes of a data set that does not list its labels


class NoProbeYetError(RuntimeError):
    """The data can only be taken as it passes, and nothing has passed."""


def load_samples(
    trainer: Trainer,
    pl_module: LightningModule,
    probe: Probe,
    count: int,
    *,
    indices: Sequence[int] | None = None,
    passed: Sequence[Any] = (),
) -> Samples:
    """The samples of a probe, fetched so that training does not notice.

    Args:
        trainer: in training.
        pl_module: its module.
        probe: which samples.
        count: how many, the head among them.
        indices: those picked before, in a run that is resumed.
        passed: batches that came by, for data that cannot be asked for by number.

    Raises:
        NoProbeYetError: such data, and nothing came by.
        TypeError: a batch without a tensor that could be an input.
    """
    if probe.inputs is not None:
        labels = None if probe.labels is None else torch.as_tensor(probe.labels).long().cpu()
        inputs = map_tensors(probe.inputs, lambda x: x.detach().cpu().clone())
        return _described(Samples(inputs, labels, probe.samples), None, ())
    loader, notes = first_loader(trainer, probe)
    dataset = getattr(loader, "dataset", None)
    if dataset is not None and is_indexable(dataset):
        return _indexed(trainer, pl_module, probe, count, loader, indices, notes)
    ours = isinstance(loader, (list, tuple))  # a plain list of batches, which can be gone through unnoticed
    batches = list(loader) if ours else list(passed)
    if not batches:
        raise NoProbeYetError("the data can only be watched as it passes, and no batch has passed yet")
    inputs, labels = _prepared(trainer, pl_module, batches, moved=not ours)
    order = balanced([None] * len(all_tensors(inputs)[0]) if labels is None else labels.tolist(), count, probe.seed)
    return _described(_taken(inputs, labels, order, probe.samples), dataset, notes)


def _indexed(
    trainer: Trainer,
    pl_module: LightningModule,
    probe: Probe,
    count: int,
    loader: Any,
    indices: Sequence[int] | None,
    notes: tuple[str, ...],
) -> Samples:
    listed = None if indices is not None else known_labels(loader.dataset)
    if indices is not None:
        picks = list(indices)
    elif listed is not None:
        picks = balanced(listed, count, probe.seed)
    else:
        picks = np.random.default_rng(probe.seed).permutation(len(loader.dataset))[: max(_SCANNED, count)].tolist()
    inputs, labels = _prepared(trainer, pl_module, indexed_batches(loader, probe.seed, picks))
    samples = Samples(inputs, labels, probe.samples)
    if indices is None and listed is None:
        order = balanced([None] * len(picks) if labels is None else labels.tolist(), count, probe.seed)
        samples = _taken(inputs, labels, order, probe.samples)
        picks = [picks[place] for place in order]
    if len(loader.dataset) < count:
        notes = (*notes, f"the data set holds {len(loader.dataset)} samples, {count} were asked for")
    return _described(replace(samples, indices=tuple(picks)), loader.dataset, notes)


def indexable_source(trainer: Trainer, probe: Probe) -> bool:
    """Whether a probe's samples can be asked for at any time.

    Args:
        trainer: whose loaders to look at.
        probe: which of them.
    """
    loader, _ = first_loader(trainer, probe)
    dataset = getattr(loader, "dataset", None)
    return isinstance(loader, (list, tuple)) or (dataset is not None and is_indexable(dataset))


def first_loader(trainer: Trainer, probe: Probe) -> tuple[Any, tuple[str, ...]]:
    """The first loader of the source, and what is to be said if it is not the source asked for.

    Args:
        trainer: of the run.
        probe: which source.
    """
    notes: tuple[str, ...] = ()
    loaders = trainer.val_dataloaders if probe.source == "val" else None
    if loaders is None or (isinstance(loaders, (Mapping, list, tuple)) and not loaders):  # a stream has no length
        if probe.source == "val":
            notes = ("no validation data: the samples are training data",)
        loaders = trainer.train_dataloader
    while True:
        if isinstance(loaders, Mapping):
            loaders = next(iter(loaders.values()))
        elif isinstance(loaders, (list, tuple)) and loaders and hasattr(loaders[0], "dataset"):
            loaders = loaders[0]
        else:
            return loaders, notes


def _prepared(
    trainer: Trainer, pl_module: LightningModule, batches: list[Any], *, moved: bool = False
) -> tuple[Any, Tensor | None]:
    """Inputs and labels as the model would be given them in validation, on the CPU, in one; empties the list."""
    parts = []
    with unchanged(pl_module), _validating(trainer), torch.no_grad():
        while batches:  # each is let go as it is taken: a thousand images are large
            batch = batches.pop(0)
            if not moved:
                batch = trainer.precision_plugin.convert_input(batch)
                batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            inputs, labels = split_batch(batch, pl_module)
            parts.append((map_tensors(inputs, lambda x: x.detach().cpu().clone()), labels))
    tensors = [torch.cat(same) for same in zip(*(all_tensors(inputs) for inputs, _ in parts), strict=True)]
    whole = iter(tensors)
    inputs = map_tensors(parts[0][0], lambda _: next(whole))
    if any(labels is None for _, labels in parts):
        return inputs, None
    return inputs, torch.cat([labels.cpu() for _, labels in parts if labels is not None])


@contextmanager
def _validating(trainer: Trainer) -> Iterator[None]:
    """Batch hooks that tell training from validation (to augment, say) see validation."""
    stage = trainer.state.stage
    trainer.validating = True
    try:
        yield
    finally:
        trainer.state.stage = stage


def _taken(inputs: Any, labels: Tensor | None, order: Sequence[int], head: int) -> Samples:
    chosen = torch.as_tensor(order)
    return Samples(map_tensors(inputs, lambda x: x[chosen]), None if labels is None else labels[chosen], head)


def _described(samples: Samples, dataset: Any, notes: tuple[str, ...]) -> Samples:
    pixels, said = pixel_space(dataset, samples.inputs)
    if samples.labels is None:
        notes = (*notes, "no labels found in the batches")
    return replace(samples, class_names=class_names(dataset), pixels=pixels, notes=(*notes, *said))
