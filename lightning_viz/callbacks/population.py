"""Sums over a population of samples: what views read of their layers' outputs, batch by batch, on all processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lightning_viz.callbacks.agreement import Agreement
from lightning_viz.callbacks.batch_parts import BatchParts, reading_of, split_batch
from lightning_viz.callbacks.distributed import (
    Numbering,
    Share,
    Sums,
    connected,
    from_every_process,
    kept_of,
    merged,
    numbering,
    share_of,
    to_the_first_process,
    with_kept,
)
from lightning_viz.callbacks.entrances import is_compiled
from lightning_viz.callbacks.layer_readings import OUTPUT, Accumulator, Batch, Reader
from lightning_viz.callbacks.model_knowledge import output_knowledge
from lightning_viz.callbacks.probe import Probe, Samples
from lightning_viz.callbacks.probe_loading import first_loader
from lightning_viz.callbacks.run import error_text
from lightning_viz.callbacks.run_protocol import Run
from lightning_viz.errors import InvalidTypeError, LayerNotReachedError
from lightning_viz.hooks.calls import call_model
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.model_state import evaluation_mode, preserve_state
from lightning_viz.hooks.observation import is_call
from lightning_viz.hooks.pytree import all_tensors, map_tensors, on_device


@dataclass(frozen=True)
class Population:
    """What a view has summed up over a population.

    Attributes:
        layers: that it read.
        sums: by call, what it summed up.
        step: completed updates.
        samples: how many.
        notes: what should be said of them.
        source: the data of the pass that was watched; empty where samples were run for the view alone.
    """

    layers: tuple[str, ...]
    sums: Mapping[str, Any]
    step: int
    samples: int
    notes: tuple[str, ...] = ()
    source: str = "validation"

    def by_call(self) -> dict[str, Any]:
        """The sums by call, in the order of the layers.

        Raises:
            LayerNotReachedError: a layer was not called.
        """
        ordered = {}
        for name in self.layers:
            calls = {call: sums for call, sums in self.sums.items() if is_call(call, name)}
            if not calls:
                raise LayerNotReachedError(f"layer {name!r} is not called in the forward pass: leave it out")
            ordered.update(calls)
        return ordered

    def describe(self) -> str:
        """Whose samples these are, for a caption."""
        return f"{self.samples:,} {self.source} samples" if self.source else f"{self.samples:,} samples"


@dataclass
class PopulationPass:
    """A validation pass on one process, watched for views.

    At its end all processes take part in the same exchange, whatever was watched and whatever went wrong on each of
    them: one that failed has nothing to give, and says so.

    Attributes:
        run: in validation.
        agreement: of the processes.
        step: completed updates.
        layers: by view, those that it reads.
        numbering: of the samples.
        notes: what should be said of them.
        faults: of views, in words; they read no more of this pass.
        seconds: what watching took.
    """

    run: Run
    agreement: Agreement = field(default_factory=Agreement)
    step: int = 0
    layers: dict[str, tuple[Reader, Mapping[str, nn.Module]]] = field(default_factory=dict)
    numbering: Numbering = field(default_factory=Numbering)
    notes: tuple[str, ...] = ()
    faults: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    _accumulator: Accumulator = field(default_factory=Accumulator)
    _unread: Any = None  # a batch that passes before its step was seen to tell its parts apart
    _numbers: NDArray[np.int64] = field(default_factory=lambda: np.arange(0))  # of this batch's samples
    _samples: int = 0
    _batches: int = 0
    _doubles: int = 0

    def start(self, step: int, layers: Mapping[str, tuple[Reader, Mapping[str, nn.Module]]]) -> None:
        """Watch, from the first batch on.

        Args:
            step: completed updates.
            layers: by view, those that it reads.
        """
        loader, _ = first_loader(self.run, Probe())
        loaders = self.run.held_out_loaders
        several = isinstance(loaders, (Mapping, list, tuple)) and len(loaders) > 1
        self.step, self.numbering = step, numbering(self.run, loader)
        self.notes = (f"the first of the {self.run.held_out} loaders",) if several else ()
        self.layers = dict(layers)

    def open(self, batch: Any, loader: int) -> None:
        """A batch is about to pass: register the hooks.

        Args:
            batch: on the model's device.
            loader: number of the loader; the first is watched.
        """
        self.close()
        if loader != 0 or all(view in self.faults for view in self.layers):
            return
        with self._guarded():
            known = reading_of(self.run.model)  # of what the step makes by itself, the batch is shown
            try:
                parts = split_batch(batch, self.run.model, known if known and known.complete else None)
            except InvalidTypeError:
                if known is not None or not all_tensors(batch):
                    raise
                parts = BatchParts(batch, None, None)
            self._unread = batch if known is None else None
            size = len(all_tensors(parts.inputs)[0])
            self._numbers = numbers = self.numbering.among(self._samples, size, self._batches)
            self._batches += 1
            self._samples, self._doubles = self._samples + size, self._doubles + size - len(numbers)
            reading = [self._entered(*layers) for view, layers in self.layers.items() if view not in self.faults]
            self._accumulator.open(self.run.model, self._told(parts, numbers), reading)

    def close(self) -> None:
        """The batch has passed: remove the hooks, and add up what they read."""
        with self._guarded():
            known, batch = reading_of(self.run.model), self._unread
            if batch is not None and known is not None and known.complete:
                self._reread(known.split(batch))
            self._unread = None
            self._accumulator.close()
            for view, error in self._accumulator.faults.items():
                self.faults.setdefault(view, error_text(error))

    def _told(self, parts: BatchParts, numbers: NDArray[np.int64]) -> Batch:
        """A batch, with what is known of the model and tells what its output means."""
        known = reading_of(self.run.model)
        compared = "" if known is None else known.compared
        samples = Samples(parts.inputs, parts.labels, 1, truths=parts.truth, compared=compared)
        return Batch(parts.inputs, parts.labels, numbers, output_knowledge(self.run.model, samples))

    def _entered(self, view: Reader, layers: Mapping[str, nn.Module]) -> tuple[Reader, Mapping[str, nn.Module]]:
        """A view's layers; in place of the model the module that its step calls last."""
        return view, {**layers, OUTPUT: _entrance(self.run.model)} if OUTPUT in layers else layers

    def _reread(self, parts: BatchParts) -> None:
        """The step has shown, with its first batch, how it calls the model: what it returns is read as that says."""
        batch = self._told(parts, self._numbers)
        if self._accumulator.reread(batch):
            with (
                self.agreement.look(),
                preserve_state(self.run.model),
                self.run.muted(),
                evaluation_mode(self.run.model),
                torch.no_grad(),
                self.run.forward_context(),
            ):
                output = call_model(self.run.model, map_tensors(batch.inputs, torch.clone))
            self._accumulator.returned(output)

    def gather(self) -> tuple[list[Share | None], Sums]:
        """All processes' shares, and on the first process the merged sums by view and call."""
        started = time.monotonic()
        sums = {view: calls for view, calls in self._accumulator.sums.items() if view not in self.faults}
        # All processes come by here; what can fail on one of them alone must not keep it from either exchange.
        share = _attempted(share_of, sums, self.faults, self._samples - self._doubles)
        shares = from_every_process(self.run, share)
        whole = merged(shares)  # the same on all of them, so is its failing
        kept = to_the_first_process(self.run, _attempted(kept_of, sums, whole))
        self.seconds += time.monotonic() - started
        return shares, with_kept(whole, kept) if self.run.is_global_zero else {}

    def results(self) -> tuple[dict[str, Population], dict[str, list[str]]]:
        """On the first process what each view has summed up over all processes, and in words what went wrong."""
        shares, whole = self.gather()
        alone = () if connected(self.run) or self.run.world_size == 1 else ("the first process's share alone",)
        populations, faults = {}, {}
        for view, (_, layers) in self.layers.items():
            failed = {
                rank: "nothing came of it" if share is None else share.faults[view]
                for rank, share in enumerate(shares)
                if share is None or view in share.faults
            }
            where = [f" on process {rank}" if len(shares) > 1 else "" for rank in failed]
            faults[view] = [
                f"the validation pass could not be watched{place}: {words}"
                for place, words in zip(where, failed.values(), strict=True)
            ]
            lost = tuple(f"process {rank} could not watch its share" for rank in failed if len(shares) > 1)
            if whole.get(view) and len(failed) < len(shares):
                samples = sum(share.samples for rank, share in enumerate(shares) if share and rank not in failed)
                sums, notes = named_calls(whole[view]), (*self.notes, *alone, *lost)
                populations[view] = Population(tuple(layers), sums, self.step, samples, notes, self.run.held_out)
        return populations, faults

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """What goes wrong ends the pass for all views that watch it, and does not reach the run; time is counted."""
        started = time.monotonic()
        try:
            yield
        except Exception as error:
            error.__traceback__ = None  # holds the tensors of the batch
            self.faults.update({view: error_text(error) for view in self.layers if view not in self.faults})
        finally:
            self.seconds += time.monotonic() - started


class PopulationReader(Reader, Protocol):
    """A reader that says what it reads, and of how many samples if it must run them by itself."""

    layers: Layers
    samples: int


def run_population(model: nn.Module, view: PopulationReader, samples: Samples, step: int, *, reason: str) -> Population:
    """What a view reads of samples that are run forward for it alone.

    Args:
        model: left as found.
        view: that reads.
        samples: of its probe's data set, the first of which are run.
        step: completed updates.
        reason: why the validation pass cannot be watched; empty if none is to be expected.

    Raises:
        Exception: what the view itself raises.
    """
    count, accumulator, done = min(view.samples, len(samples)), Accumulator(), 0
    with evaluation_mode(model), torch.no_grad():
        layers, knowledge = watched_layers(model, view.layers), output_knowledge(model, samples)
        for part in samples.batches(0, count):
            inputs, size = on_device(model, part), len(all_tensors(part)[0])
            labels = None if samples.labels is None else samples.labels[done : done + size]
            batch = Batch(inputs, labels, np.arange(done, done + size), knowledge)
            accumulator.open(model, batch, [(view, layers)])
            try:
                output = call_model(model, map_tensors(inputs, torch.clone))
                if accumulator.reread(batch):
                    accumulator.returned(output)
            finally:
                accumulator.close()
            if view.name in accumulator.faults:
                raise accumulator.faults[view.name]
            done += size
    sums = named_calls(accumulator.sums.get(view.name, {}))
    notes = (f"{reason}: the view runs {count:,} samples by itself",) if reason else ()
    return Population(tuple(layers), sums, step, count, notes, source="")


def watched_layers(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """Layers by name; where none are given the model itself, as `OUTPUT`.

    Args:
        model: of the run.
        layers: of a view.

    Raises:
        LayerNotFoundError: no layer matches.
    """
    return select_layers(model, layers) or {OUTPUT: model}


def _entrance(model: nn.Module) -> nn.Module:
    """The module that a model's step calls last, as far as it was seen."""
    known = reading_of(model)
    return model if known is None else model.get_submodule(known.steps[-1].module)


def unwatchable(model: nn.Module, layers: Layers) -> str:
    """Why layers cannot be watched in the validation pass, in words; empty where they can.

    A hook on what `torch.compile` has compiled is ignored, or compiles it anew.

    Args:
        model: of the run.
        layers: to be watched; none for what the model itself returns.

    Raises:
        LayerNotFoundError: no layer matches.
    """
    if not layers:
        return "the model is compiled and cannot be watched in validation" if is_compiled(_entrance(model)) else ""
    paths = dict(model.named_modules(remove_duplicate=False))
    compiled = [path for path, module in paths.items() if is_compiled(module)]
    for name, layer in select_layers(model, layers).items():
        for path in (path for path, module in paths.items() if module is layer):
            if any(path == outer or not outer or path.startswith(f"{outer}.") for outer in compiled):
                return f"layer {name!r} is compiled and cannot be watched in validation"
    return ""


def named_calls(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Sums by call; those of a layer that was called once go by its name.

    Args:
        sums: by layer and number of the call, ``"relu:1"``.

    >>> named_calls({"relu:0": "a", "relu:1": "b", "conv:0": "c"})
    {'relu:0': 'a', 'relu:1': 'b', 'conv': 'c'}
    """
    layers = [call.rpartition(":")[0] for call in sums]
    return {
        layer if layers.count(layer) == 1 else call: calls
        for (call, calls), layer in zip(sums.items(), layers, strict=True)
    }


def _attempted(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except Exception:
        return None
