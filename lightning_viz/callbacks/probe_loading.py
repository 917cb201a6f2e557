"""Where a run's probe comes from: its loaders, its devices, its batches as they pass."""

from __future__ import annotations

import copy
import multiprocessing
import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from lightning_viz.callbacks.batch_parts import is_dense, reading_of, split_batch
from lightning_viz.callbacks.probe import Probe, Samples, find_class_names, infer_pixel_space
from lightning_viz.callbacks.run import LightningModule, Trainer
from lightning_viz.errors import NoProbeYetError, warn_safely
from lightning_viz.hooks.calls import Call
from lightning_viz.hooks.model_state import preserve_state, same_randomness
from lightning_viz.hooks.pytree import all_tensors, map_tensors

_FETCHED = 64  # samples in a batch
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

    def forget(self) -> None:
        """Fetch the samples anew when they are asked for: how the model is called is known better now."""
        self._samples.clear()

    def keep(self, batch: Any, probes: Sequence[Probe]) -> None:
        """Keep a validation batch if the data cannot be asked for samples by number.

        Args:
            batch: that passes.
            probes: that are or will be asked for.
        """
        missing = [probe for probe in probes if not probe.given and probe.key() not in self._samples]
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
    if probe.given:
        given = None if probe.labels is None else torch.as_tensor(probe.labels).cpu()
        dense = given is not None and is_dense(given)
        inputs = map_tensors(probe.inputs, lambda x: x.detach().cpu().clone())
        if (reading := reading_of(pl_module)) is not None and len(all_tensors(inputs)) == len(reading.sources):
            inputs = inputs if isinstance(inputs, Mapping) else reading.inputs(all_tensors(inputs))
        inputs = _through(probe, inputs)
        labels = None if given is None or dense else given.long()
        return _describe(Samples(inputs, labels, probe.samples, truths=given if dense else None), None, ())
    loader, notes = first_loader(trainer, probe)
    dataset = getattr(loader, "dataset", None)
    reading = probe.reading(reading_of(pl_module))
    if reading is not None and not reading.complete:
        made = Samples(_through(probe, reading.made), reading.made_labels, probe.samples)
        return _describe(replace(made, head=min(probe.samples, len(made))), dataset, notes)
    if dataset is not None and is_indexable(dataset):
        return _indexed(trainer, pl_module, probe, count, loader, indices, notes)
    ours = isinstance(loader, (list, tuple))  # a plain list of batches, which can be gone through unnoticed
    batches = list(loader) if ours else list(passed)
    if not batches:
        raise NoProbeYetError("the data can only be watched as it passes, and no batch has passed yet")
    samples = _prepare(trainer, pl_module, batches, probe, moved=not ours)
    return _describe(_select(samples, _order(samples, count, probe.seed)), dataset, notes)


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
    listed = None if known else find_labels(loader.dataset)
    if indices is not None and known:
        picks = list(indices)
    elif indices is not None:  # more than were asked for before
        more = pick_balanced(listed or [None] * len(loader.dataset), count, probe.seed)
        picks = list(dict.fromkeys([*indices, *more]))[:count]
    elif listed is not None:
        picks = pick_balanced(listed, count, probe.seed)
    else:
        picks = np.random.default_rng(probe.seed).permutation(len(loader.dataset))[: max(_SCANNED, count)].tolist()
    samples = _prepare(trainer, pl_module, fetch_batches(loader, probe.seed, picks), probe)
    if indices is None and listed is None:
        order = _order(samples, count, probe.seed)
        samples = _select(samples, order)
        picks = [picks[place] for place in order]
    if len(loader.dataset) < count:
        notes = (*notes, f"the data set holds {len(loader.dataset)} samples, {count} were asked for")
    return _describe(replace(samples, indices=tuple(picks)), loader.dataset, notes)


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


def _prepare(
    trainer: Trainer, pl_module: LightningModule, batches: list[Any], probe: Probe, *, moved: bool = False
) -> Samples:
    """Samples as the model would be given them in validation, on the CPU, in one; empties the list."""
    parts, labels, truths = [], [], []
    reading = probe.reading(reading_of(pl_module))
    with preserve_state(pl_module), _validating(trainer), torch.no_grad():
        while batches:  # each is let go as it is taken: a thousand images are large
            batch = batches.pop(0)
            if not moved:
                batch = trainer.precision_plugin.convert_input(batch)
                batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            inputs, known, truth = split_batch(batch, pl_module, reading)
            parts.append(map_tensors(inputs, lambda x: x.detach().cpu().clone()))
            labels.append(known)
            truths.append(truth)
    tensors = [_joined_inputs(same) for same in zip(*map(all_tensors, parts), strict=True)]
    whole = iter(tensors)
    inputs = _through(probe, map_tensors(parts[0], lambda _: next(whole)))
    return Samples(inputs, _join(labels), probe.samples, truths=_join(truths))


def _through(probe: Probe, inputs: Any) -> Any:
    """Inputs that go through the probe's own function, where it has one."""
    return inputs if probe.forward is None else Call(tuple(all_tensors(inputs)), forward=probe.forward)


def _joined_inputs(parts: Sequence[Tensor]) -> Tensor:
    """An input of all batches in one; images of batches that were padded to unlike sizes are padded to one."""
    sizes = {part.shape[1:] for part in parts}
    if len(sizes) > 1 and all(part.dim() == 4 for part in parts):
        height, width = (max(part.shape[axis] for part in parts) for axis in (2, 3))
        parts = [F.pad(part, (0, width - part.shape[3], 0, height - part.shape[2])) for part in parts]
    return torch.cat(list(parts))


def _join(parts: list[Tensor | None]) -> Tensor | None:
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
    return pick_balanced(labels, count, seed)


def _select(samples: Samples, order: Sequence[int]) -> Samples:
    chosen = torch.as_tensor(order)
    labels, truths = (None if one is None else one[chosen] for one in (samples.labels, samples.truths))
    return replace(samples, inputs=map_tensors(samples.inputs, lambda x: x[chosen]), labels=labels, truths=truths)


def _describe(samples: Samples, dataset: Any, notes: tuple[str, ...]) -> Samples:
    pixel_space, guessed = infer_pixel_space(dataset, samples.inputs)
    truths = None if samples.truths is None else samples.truths[: samples.head].clone()  # lets go of the others
    if samples.labels is None and truths is None:
        notes = (*notes, "no labels found in the batches")
    names = find_class_names(dataset)
    return replace(
        samples, class_names=names, pixel_space=pixel_space, pixel_space_guessed=guessed, truths=truths, notes=notes
    )


def pick_balanced(labels: Sequence[int | None], count: int, seed: int) -> list[int]:
    """Positions of samples, picked at random, the classes in turn as far as each of them goes.

    Args:
        labels: of all samples; None where one is not known.
        count: how many to pick; more begin with the same.
        seed: of the choice.

    >>> labels = [0, 0, 0, 1, 1, 2]
    >>> sorted(labels[index] for index in pick_balanced(labels, 3, seed=0))
    [0, 1, 2]
    """
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    rounds: defaultdict[int | None, int] = defaultdict(int)
    ranked = []
    for place, index in enumerate(order):
        label = labels[index]
        ranked.append((rounds[label], -1 if label is None else label, place, index))
        rounds[label] += 1
    return [index for *_, index in sorted(ranked)[:count]]


def find_labels(dataset: Any) -> list[int | None] | None:
    """The labels that a data set lists (``targets``, ``labels``, or its second tensor); None where it does not."""
    if isinstance(dataset, Subset):
        inner = find_labels(dataset.dataset)
        return None if inner is None else [inner[index] for index in dataset.indices]
    listed = next(
        (found for name in ("targets", "labels") if (found := getattr(dataset, name, None)) is not None), None
    )
    tensors = getattr(dataset, "tensors", None)
    if listed is None and isinstance(tensors, (tuple, list)) and len(tensors) > 1:
        listed = tensors[1]
    if listed is None:
        return None
    try:
        values = torch.as_tensor(listed)
    except (TypeError, ValueError, RuntimeError):
        return None
    return (
        values.tolist()
        if values.dim() == 1 and not values.is_floating_point() and len(values) == len(dataset)
        else None
    )


def fetch_batches(loader: DataLoader[Any], seed: int, picks: Sequence[int]) -> list[Any]:
    """Batches of samples of a loader's data set, fetched so that neither data set nor generators notice.

    In one forked worker, under a fixed seed; where processes cannot be forked, from a deep copy.

    Args:
        loader: whose data set and ``collate_fn`` to use.
        seed: of whatever is random in the data set.
        picks: indices of the samples.
    """
    dataset = loader.dataset
    forks = "fork" in multiprocessing.get_all_start_methods()
    subset: Dataset[Any] = Subset(dataset if forks else copy.deepcopy(dataset), list(picks))
    with same_randomness(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside threads
        torch.manual_seed(seed)
        fetched = DataLoader(
            subset,
            batch_size=_FETCHED,
            collate_fn=loader.collate_fn,
            num_workers=1 if forks else 0,
            multiprocessing_context="fork" if forks else None,
            worker_init_fn=_seeded if forks else None,
            timeout=300 if forks else 0,
        )
        return [map_tensors(batch, torch.clone) for batch in fetched]  # out of the worker's shared memory


def _seeded(worker: int) -> None:
    """Every library's generator from torch's seed, in the worker."""
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


def is_indexable(dataset: Any) -> bool:
    """Whether samples can be asked for by number."""
    return not isinstance(dataset, IterableDataset) and hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
