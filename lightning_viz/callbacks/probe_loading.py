"""Where a run's probe comes from: its loaders, its devices, its batches as they pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Subset

from lightning_viz.callbacks.batch_parts import REMEDY, BatchReading, reading_of, split_batch, told_labels
from lightning_viz.callbacks.probe import Probe, Samples, find_class_names, infer_pixel_space
from lightning_viz.callbacks.run import say_once
from lightning_viz.callbacks.run_protocol import Run
from lightning_viz.callbacks.sample_fetch import Fetched, Fetcher, is_indexable
from lightning_viz.errors import InvalidTypeError, NoProbeYetError, warn_safely
from lightning_viz.hooks.calls import Call
from lightning_viz.hooks.model_state import preserve_state
from lightning_viz.hooks.pytree import all_tensors, map_tensors, sample_count

FETCH_SECONDS = 60.0
"""For which fetching samples may hold a run, all probes together; what passes is taken thereafter."""

_SCANNED = 512  # samples looked at to balance the classes of a data set that does not list its labels


class ProbeLoader:
    """Fetches the samples of a run's probes, each once.

    Args:
        run: whose data and devices they are of.
        count: how many samples of a probe are needed, the head among them.
        named: how many of them a person has asked for in numbers, and is told of if there are fewer.
    """

    def __init__(
        self,
        run: Run,
        count: Callable[[Probe], int],
        named: Callable[[Probe], int] = lambda probe: 0,
    ) -> None:
        self._run, self._count, self._named = run, count, named
        self._samples: dict[Any, Samples] = {}
        self._fetcher = Fetcher(FETCH_SECONDS)
        self._passed: list[Any] = []
        self._missing: set[Any] = set()  # keys of the probes that what passes is kept for

    @property
    def unlabeled(self) -> bool:
        """Whether labels were found missing in samples that were fetched."""
        return any(samples.labels is None and samples.truths is None for samples in self._samples.values())

    def forget(self, *, numbered: bool = False) -> None:
        """Fetch samples anew when they are asked for.

        Args:
            numbered: only those that will be the same.
        """
        kept = [key for key, samples in self._samples.items() if numbered and samples.indices is None]
        self._samples = {key: self._samples[key] for key in kept}

    def keep(self, batch: Any, probes: Sequence[Probe]) -> None:
        """Keep a validation batch, if samples are still missing that may have to be taken as they pass.

        Args:
            batch: that passes.
            probes: that are or will be asked for.
        """
        missing = [probe for probe in probes if not probe.given and probe.key() not in self._samples]
        self._missing = {probe.key() for probe in missing}
        if missing and sum(map(sample_count, self._passed)) < max(map(self._count, missing)):
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
        passed, notes = self._passed, tuple[str, ...]()
        if batch is not None and (not passed or probe.source == "train"):
            passed = [batch]
            if probe.source == "val" and self._run.held_out_loaders is not None:
                notes = ("no validation batch has passed before the first look: the samples are training data",)
        samples = load_samples(
            self._run,
            probe,
            self._count(probe),
            fetcher=self._fetcher,
            indices=indices,
            passed=passed,
            passed_notes=notes,
        )
        if samples.indices is not None and len(samples) < (named := self._named(probe)):
            samples = replace(
                samples,
                notes=(*samples.notes, f"the data set holds {len(samples)} samples, {named} were asked for"),
            )
        self._samples[probe.key()] = samples
        if self._missing <= self._samples.keys():
            self._passed = []
        for note in (*samples.notes, *(() if pixel_space_given else samples.pixel_space_notes)):
            say_once(self._run.owner, note, warn_safely)
        return samples


def load_samples(
    run: Run,
    probe: Probe,
    count: int,
    *,
    fetcher: Fetcher,
    indices: Sequence[int] | None = None,
    passed: Sequence[Any] = (),
    passed_notes: tuple[str, ...] = (),
) -> Samples:
    """The samples of a probe, fetched so that training does not notice.

    Args:
        run: whose data and devices they are of.
        probe: which samples.
        count: how many, the head among them.
        fetcher: of the run.
        indices: those picked before, in a run that is resumed.
        passed: batches that came by, for data that cannot be asked for by number, or not unnoticed.
        passed_notes: what is to be said if they are taken.

    Raises:
        NoProbeYetError: such data, and nothing came by.
        TypeError: a batch without a tensor that could be an input.
    """
    if probe.given:
        given = None if probe.labels is None else torch.as_tensor(probe.labels).cpu()
        labels, truth = (None, None) if given is None else told_labels(given, "")
        if given is not None and given.dim() == 1:
            labels = given.long()
        inputs = map_tensors(probe.inputs, lambda x: x.detach().cpu().clone())
        if (reading := reading_of(run.model)) is not None and len(all_tensors(inputs)) == len(reading.sources):
            inputs = inputs if isinstance(inputs, Mapping) else reading.inputs(all_tensors(inputs))
        inputs = _through(probe, inputs)
        return _describe(Samples(inputs, labels, probe.samples, truths=truth), None, ())
    loader, notes = first_loader(run, probe)
    dataset = getattr(loader, "dataset", None)
    reading = probe.reading(reading_of(run.model))
    if reading is not None and not reading.complete and reading.made is None:
        reading.split(None)  # raises
    if reading is not None and not reading.complete:
        made = Samples(_through(probe, reading.made), reading.made_labels, probe.samples)
        return _describe(replace(made, head=min(probe.samples, len(made))), dataset, notes, reading)
    if is_indexable(loader):
        fetched, picked = _fetch(loader, fetcher, probe, count, indices)
        if not fetched.failure or sum(map(sample_count, fetched.batches)) >= min(count, probe.samples):
            return _fetched_samples(run, probe, count, fetched, loader, notes, picked=picked)
        remedy = "give probe=Probe(inputs=..., labels=...) to choose others"
        notes = (*notes, f"{fetched.failure}; the samples are taken as they pass: {remedy}")
    ours = isinstance(loader, (list, tuple))  # a plain list of batches, which can be gone through unnoticed
    batches = list(loader) if ours else list(passed)
    if not batches:
        raise NoProbeYetError("the data can only be watched as it passes, and no batch has passed yet")
    notes = notes if ours else (*notes, *passed_notes)
    samples = _prepare(run, batches, probe, moved=not ours)
    return _describe(_select(samples, _order(samples, count, probe.seed)), dataset, notes, reading)


def _fetch(
    loader: Any, fetcher: Fetcher, probe: Probe, count: int, indices: Sequence[int] | None
) -> tuple[Fetched, bool]:
    """Samples of a loader's data set, and whether they are those of the probe; else it is chosen among them."""
    size = len(loader.dataset)
    listed = find_labels(loader.dataset)
    if listed is None:
        order, wanted = np.random.default_rng(probe.seed).permutation(size).tolist(), max(_SCANNED, count)
    else:
        order, wanted = pick_balanced(listed, size, probe.seed), count
    if indices is not None:
        order = list(dict.fromkeys([*indices, *order]))
        wanted = len(indices) if len(indices) >= min(count, size) else count
    return fetcher.fetch(loader, order, wanted, probe.seed), indices is not None or listed is not None


def _fetched_samples(
    run: Run,
    probe: Probe,
    count: int,
    fetched: Fetched,
    loader: Any,
    notes: tuple[str, ...],
    *,
    picked: bool,
) -> Samples:
    """The samples of a probe, of those that were fetched."""
    samples = _prepare(run, fetched.batches, probe)
    indices: Sequence[int] | None = fetched.indices
    if len(fetched.indices) != len(samples):  # the data set or the ``collate_fn`` decides what is in a batch
        indices, picked = None, False
    if not picked:
        order = _order(samples, count, probe.seed)
        samples = _select(samples, order)
        indices = None if indices is None else [indices[place] for place in order]
    notes = (*notes, *fetched.notes)
    if len(samples) < count and fetched.failure:
        notes = (*notes, f"{fetched.failure}: {len(samples)} of {count} samples are shown")
    samples = replace(samples, indices=None if indices is None else tuple(indices))
    return _describe(samples, loader.dataset, notes, probe.reading(reading_of(run.model)))


def first_loader(run: Run, probe: Probe) -> tuple[Any, tuple[str, ...]]:
    """The first loader of the source, and what is to be said if it is not the source asked for.

    Args:
        run: whose loaders they are.
        probe: which source.
    """
    notes: tuple[str, ...] = ()
    loaders = run.held_out_loaders if probe.source == "val" else None
    if loaders is None or (isinstance(loaders, (Mapping, list, tuple)) and not loaders):  # a stream has no length
        if probe.source == "val":
            notes = ("no validation data: the samples are training data",)
        loaders = run.training_loaders
    while True:
        if isinstance(loaders, Mapping):
            loaders = next(iter(loaders.values()))
        elif isinstance(loaders, (list, tuple)) and loaders and hasattr(loaders[0], "dataset"):
            loaders = loaders[0]
        else:
            return loaders, notes


def _prepare(run: Run, batches: list[Any], probe: Probe, *, moved: bool = False) -> Samples:
    """Samples as the model would be given them in validation, on the CPU, in one; empties the list."""
    parts, labels, truths, objects = [], [], [], []
    reading = probe.reading(reading_of(run.model))
    with preserve_state(run.model), torch.no_grad():
        while batches:  # each is let go as it is taken: a thousand images are large
            batch = batches.pop(0)
            if not moved:
                batch = run.prepared(batch)
            inputs, known, truth, found = split_batch(batch, run.model, reading)
            check_rows(inputs)
            parts.append(map_tensors(inputs, lambda x: x.detach().cpu().clone()))
            labels.append(known)
            truths.append(truth)
            objects.append(found)
    tensors = [_joined_inputs(same) for same in zip(*map(all_tensors, parts), strict=True)]
    whole = iter(tensors)
    inputs = _through(probe, map_tensors(parts[0], lambda _: next(whole)))
    listed = None if None in objects else tuple(image for some in objects if some is not None for image in some)
    return Samples(inputs, _join(labels), probe.samples, truths=_join(truths), objects=listed)


def check_rows(inputs: Any) -> None:
    """See that inputs have a row for each sample.

    Args:
        inputs: of a batch, as the model takes them.

    Raises:
        InvalidTypeError: their tensors have unlike numbers of rows.
    """
    rows = list(dict.fromkeys(len(x) for x in all_tensors(inputs) if x.dim()))
    if len(rows) > 1:
        raise InvalidTypeError(
            f"the model takes tensors of {' and '.join(map(str, rows))} rows at once, not of one for each "
            f"sample, as graphs and packed sequences are: {REMEDY}"
        )


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


def _order(samples: Samples, count: int, seed: int) -> list[int]:
    labels = [None] * len(samples) if samples.labels is None else samples.labels.tolist()
    return pick_balanced(labels, count, seed)


def _select(samples: Samples, order: Sequence[int]) -> Samples:
    chosen = torch.as_tensor(order)
    labels, truths = (None if one is None else one[chosen] for one in (samples.labels, samples.truths))
    objects = None if samples.objects is None else tuple(samples.objects[index] for index in order)
    inputs = map_tensors(samples.inputs, lambda x: x[chosen])
    return replace(samples, inputs=inputs, labels=labels, truths=truths, objects=objects)


def _describe(samples: Samples, dataset: Any, notes: tuple[str, ...], reading: BatchReading | None = None) -> Samples:
    """With what the data set and the step tell, and what is to be said."""
    compared = "" if reading is None else reading.compared
    pixel_space, guessed = infer_pixel_space(dataset, samples.inputs)
    truths = None if samples.truths is None else samples.truths[: samples.head].clone()  # lets go of the others
    objects = None if samples.objects is None else samples.objects[: samples.head]
    described = replace(samples, truths=truths, objects=objects, compared=compared)
    if described.unlabeled:
        notes = (*notes, "no labels found in the batches")
    names = find_class_names(dataset)
    return replace(described, class_names=names, pixel_space=pixel_space, pixel_space_guessed=guessed, notes=notes)


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
