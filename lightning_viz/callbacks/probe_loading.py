"""Where a run's probe comes from: its loaders, its devices, its batches as they pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_viz.callbacks.probe import (
    Probe,
    Samples,
    balanced,
    class_names,
    dense_truth,
    indexed_batches,
    infer_pixel_space,
    is_dense,
    is_indexable,
    known_labels,
    split_batch,
)
from lightning_viz.callbacks.run import LightningModule, Trainer
from lightning_viz.errors import NoProbeYetError, warn_safely
from lightning_viz.hooks.model_state import preserve_state
from lightning_viz.hooks.pytree import all_tensors, map_tensors

_SCANNED = 512  # samples looked at to balance the classes of a data set that does not list its labels


class ProbeLoader:
    """Fetches the samples of a run's probes, each once.

    Args:
        trainer: of the run.
        model: its module.
        count: how many samples of a probe are needed, the head among them.
    """

    def __init__(self, trainer: Trainer, model: LightningModule, count: Callable[[Probe], int]) -> None:
        self._trainer, self._model, self._count = trainer, model, count
        self._samples: dict[Any, Samples] = {}
        self._passed: list[Any] = []

    def keep(self, batch: Any, probes: Sequence[Probe]) -> None:
        """Keep a validation batch if the data cannot be asked for samples by number.

        Args:
            batch: that passes.
            probes: that are or will be asked for.
        """
        missing = [probe for probe in probes if probe.inputs is None and probe.key() not in self._samples]
        if missing and not any(indexable_source(self._trainer, probe) for probe in missing):
            kept = sum(len(all_tensors(passed)[0]) for passed in self._passed)
            if kept < max(map(self._count, missing)):
                self._passed.append(batch)

    def get(self, probe: Probe, indices: Sequence[int] | None, batch: Any, *, pixel_space_given: bool) -> Samples:
        """The samples of a probe.

        Args:
            probe: which samples.
            indices: those picked before, in a run that is resumed.
            batch: taken as a last resort, of data that cannot be asked for by number.
            pixel_space_given: whether nobody goes by the pixel space of the samples, which may be a guess.

        Raises:
            NoProbeYetError: such data, and nothing came by.
        """
        if probe.key() in self._samples:
            return self._samples[probe.key()]
        load = partial(load_samples, self._trainer, self._model, probe, self._count(probe), indices=indices)
        try:
            samples = load(passed=self._passed)
        except NoProbeYetError:
            if batch is None:
                raise
            samples = load(passed=[batch])
            if probe.source == "val" and self._trainer.val_dataloaders is not None:
                note = "no validation batch has passed before the first look: the samples are training data"
                samples = replace(samples, notes=(*samples.notes, note))
        self._passed = []
        self._samples[probe.key()] = samples
        for note in (*samples.notes, *(() if pixel_space_given else samples.pixel_space_notes)):
            warn_safely(note)
        return samples


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
        given = None if probe.labels is None else torch.as_tensor(probe.labels).cpu()
        dense = given is not None and is_dense(given)
        inputs = map_tensors(probe.inputs, lambda x: x.detach().cpu().clone())
        labels = None if given is None or dense else given.long()
        return _described(Samples(inputs, labels, probe.samples, truths=given if dense else None), None, ())
    loader, notes = first_loader(trainer, probe)
    dataset = getattr(loader, "dataset", None)
    if dataset is not None and is_indexable(dataset):
        return _indexed(trainer, pl_module, probe, count, loader, indices, notes)
    ours = isinstance(loader, (list, tuple))  # a plain list of batches, which can be gone through unnoticed
    batches = list(loader) if ours else list(passed)
    if not batches:
        raise NoProbeYetError("the data can only be watched as it passes, and no batch has passed yet")
    samples = _prepared(trainer, pl_module, batches, probe, moved=not ours)
    return _described(_taken(samples, _order(samples, count, probe.seed)), dataset, notes)


def _indexed(
    trainer: Trainer,
    pl_module: LightningModule,
    probe: Probe,
    count: int,
    loader: Any,
    indices: Sequence[int] | None,
    notes: tuple[str, ...],
) -> Samples:
    known = indices is not None and (len(indices) >= min(count, len(loader.dataset)))
    listed = None if known else known_labels(loader.dataset)
    if indices is not None and known:
        picks = list(indices)
    elif indices is not None:  # more than were asked for before
        more = balanced(listed or [None] * len(loader.dataset), count, probe.seed)
        picks = list(dict.fromkeys([*indices, *more]))[:count]
    elif listed is not None:
        picks = balanced(listed, count, probe.seed)
    else:
        picks = np.random.default_rng(probe.seed).permutation(len(loader.dataset))[: max(_SCANNED, count)].tolist()
    samples = _prepared(trainer, pl_module, indexed_batches(loader, probe.seed, picks), probe)
    if indices is None and listed is None:
        order = _order(samples, count, probe.seed)
        samples = _taken(samples, order)
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
    trainer: Trainer, pl_module: LightningModule, batches: list[Any], probe: Probe, *, moved: bool = False
) -> Samples:
    """Samples as the model would be given them in validation, on the CPU, in one; empties the list."""
    parts, labels, truths = [], [], []
    with preserve_state(pl_module), _validating(trainer), torch.no_grad():
        while batches:  # each is let go as it is taken: a thousand images are large
            batch = batches.pop(0)
            if not moved:
                batch = trainer.precision_plugin.convert_input(batch)
                batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            inputs, known = split_batch(batch, pl_module)
            parts.append(map_tensors(inputs, lambda x: x.detach().cpu().clone()))
            labels.append(known)
            truths.append(dense_truth(batch, pl_module))
    tensors = [torch.cat(same) for same in zip(*map(all_tensors, parts), strict=True)]
    whole = iter(tensors)
    inputs = map_tensors(parts[0], lambda _: next(whole))
    return Samples(inputs, _joined(labels), probe.samples, truths=_joined(truths))


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    """The labels or truths of all batches on the CPU; None where a batch has none, or they differ in size."""
    known = [one.detach().cpu() for one in parts if one is not None]
    alike = len(known) == len(parts) and len({(one.dtype, one.shape[1:]) for one in known}) == 1
    return torch.cat(known).clone() if alike else None


@contextmanager
def _validating(trainer: Trainer) -> Iterator[None]:
    """Batch hooks that tell training from validation (to augment, say) see validation."""
    stage = trainer.state.stage
    trainer.validating = True
    try:
        yield
    finally:
        trainer.state.stage = stage


def _order(samples: Samples, count: int, seed: int) -> list[int]:
    labels = [None] * len(samples) if samples.labels is None else samples.labels.tolist()
    return balanced(labels, count, seed)


def _taken(samples: Samples, order: Sequence[int]) -> Samples:
    chosen = torch.as_tensor(order)
    labels, truths = (None if one is None else one[chosen] for one in (samples.labels, samples.truths))
    return replace(samples, inputs=map_tensors(samples.inputs, lambda x: x[chosen]), labels=labels, truths=truths)


def _described(samples: Samples, dataset: Any, notes: tuple[str, ...]) -> Samples:
    pixel_space, guessed = infer_pixel_space(dataset, samples.inputs)
    truths = None if samples.truths is None else samples.truths[: samples.head].clone()  # lets go of the others
    if samples.labels is None and truths is None:
        notes = (*notes, "no labels found in the batches")
    names = class_names(dataset)
    return replace(
        samples, class_names=names, pixel_space=pixel_space, pixel_space_guessed=guessed, truths=truths, notes=notes
    )
