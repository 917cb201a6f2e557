"""Sums over a population of samples: what views read of their layers' outputs, batch by batch, on all processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_viz.callbacks.batch_parts import reading_of, split_batch
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
from lightning_viz.callbacks.probe import Probe, Samples
from lightning_viz.callbacks.probe_loading import first_loader
from lightning_viz.callbacks.run import Trainer, error_text, held_out_loaders
from lightning_viz.errors import InvalidArgumentError, InvalidTypeError, LayerNotReachedError
from lightning_viz.hooks.calls import call_model
from lightning_viz.hooks.geometry import Geometry, Layout, watch_geometry
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.observation import is_call
from lightning_viz.hooks.pytree import all_tensors, first_tensor, map_tensors, on_device


@dataclass(frozen=True)
class Batch:
    """A batch of the samples that pass.

    Attributes:
        inputs: as the model takes them, where it is.
        labels: classes ``[n]``; None where they are not known.
        numbers: of the samples, each its own ``[n]``; the rest of the batch are doubles and do not count.
    """

    inputs: Any
    labels: Tensor | None
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(all_tensors(self.inputs)[0])

    def sample(self, row: int) -> tuple[Any, int | None]:
        """The inputs of one sample, a batch of one on the CPU, and its class."""
        with torch.inference_mode(False):  # else what is kept could not be computed with later
            inputs = map_tensors(self.inputs, lambda x: x[row : row + 1].detach().cpu().clone())
        return inputs, None if self.labels is None else int(self.labels[row])


class Reading(NamedTuple):
    """What a view takes of a layer's output in a batch.

    Attributes:
        numbers: one-dimensional, float64 as a rule, small, still on the layer's device.
        add: from these on the CPU, the batch, and what was summed up before (None before the first), to the new sum.
    """

    numbers: Tensor
    add: Callable[[NDArray[np.float64], Batch, Any], Any]


class Reader(Protocol):
    """A view that reads its layers' outputs for a whole population."""

    @property
    def name(self) -> str:
        """Tells it from others."""

    @property
    def by_sample(self) -> bool:
        """Whether it needs outputs with a row for each sample, and their layout; else it takes any as it is."""

    def read(self, call: str, module: nn.Module, output: Tensor, layout: Layout) -> Reading:
        """What to take of a layer's output for a batch ``[n, ...]``; nothing that waits for the device."""


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


class Accumulator:
    """Sums up what views read of their layers' outputs: hooks around each batch, one transfer to the CPU after it.

    What goes wrong in a hook does not reach the forward pass.

    Attributes:
        sums: by view and call.
        faults: the first of each view, which then reads no more.
    """

    def __init__(self) -> None:
        self.sums: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, Exception] = {}
        self._watch = ExitStack()  # of the hooks
        self._readings: list[tuple[str, str, Reading]] = []
        self._batch: Batch | None = None

    def open(self, model: nn.Module, batch: Batch, layers: Iterable[tuple[Reader, Mapping[str, nn.Module]]]) -> None:
        """Register hooks, for a batch that is about to pass.

        Args:
            model: that it passes through; what is compiled in it is left alone.
            batch: on the model's device.
            layers: by view, those that it reads.
        """
        self.close()
        self._batch = batch
        geometry = self._watch.enter_context(watch_geometry(model, batch.inputs, skip=is_compiled))
        for view, modules in layers:
            if view.name not in self.faults:
                for name, module in modules.items():
                    hook = module.register_forward_hook(self._hook(view, name, batch, geometry))
                    self._watch.callback(hook.remove)

    def reread(self, inputs: Any, labels: Tensor | None) -> None:
        """Tell the parts of the batch that has passed better than before.

        Args:
            inputs: as the model takes them.
            labels: classes ``[n]``.
        """
        if self._batch is not None:
            self._batch = replace(self._batch, inputs=inputs, labels=labels)

    def close(self) -> None:
        """Remove the hooks, and add up what they read."""
        self._watch.close()
        batch, self._batch = self._batch, None
        readings = [reading for reading in self._readings if reading[0] not in self.faults]
        self._readings = []
        if batch is None or not readings:
            return
        together = torch.cat([reading.numbers for *_, reading in readings]).cpu().double().numpy()
        ends = np.cumsum([len(reading.numbers) for *_, reading in readings])
        for (view, call, reading), numbers in zip(readings, np.split(together, ends[:-1]), strict=True):
            try:
                sums = self.sums.setdefault(view, {})
                sums[call] = reading.add(numbers, batch, sums.get(call))
            except Exception as error:
                self._fail(view, error)

    def _hook(
        self, view: Reader, layer: str, batch: Batch, geometry: Geometry
    ) -> Callable[[nn.Module, Any, Any], None]:
        calls, size, valid = 0, len(batch), len(batch.numbers)

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            nonlocal calls
            call, calls = f"{layer}:{calls}", calls + 1
            if view.name in self.faults:
                return
            try:
                tensor = first_tensor(output)
                if not view.by_sample:
                    if tensor is not None and tensor.dim() and tensor.numel() and valid:
                        counted = tensor[:valid] if len(tensor) == size else tensor
                        self._readings.append((view.name, call, view.read(call, module, counted.detach(), Layout())))
                    return
                if tensor is None:
                    raise InvalidTypeError(f"layer {layer!r} puts out no tensor of floating-point numbers")
                if tensor.dim() == 0 or len(tensor) != size:
                    shape = list(tensor.shape)
                    raise InvalidArgumentError(f"layer {layer!r} puts out {shape} for a batch of {size} samples")
                layout = geometry.layout(module, inputs, tensor, layer)
                if valid:
                    counted = tensor[:valid].detach()
                    counted = counted[:, None] if counted.dim() == 1 else counted  # one unit
                    self._readings.append((view.name, call, view.read(call, module, counted, layout)))
            except Exception as error:
                self._fail(view.name, error)

        return hook

    def _fail(self, view: str, error: Exception) -> None:
        error.__traceback__ = None  # holds the tensors of the batch
        self.faults[view] = error


@dataclass
class PopulationPass:
    """A validation pass on one process, watched for views.

    At its end all processes take part in the same exchange, whatever was watched and whatever went wrong on each of
    them: one that failed has nothing to give, and says so.

    Attributes:
        trainer: in validation.
        model: its module.
        step: completed updates.
        layers: by view, those that it reads.
        numbering: of the samples.
        notes: what should be said of them.
        faults: of views, in words; they read no more of this pass.
        seconds: what watching took.
    """

    trainer: Trainer
    model: nn.Module
    step: int = 0
    layers: dict[str, tuple[Reader, Mapping[str, nn.Module]]] = field(default_factory=dict)
    numbering: Numbering = field(default_factory=Numbering)
    notes: tuple[str, ...] = ()
    faults: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    _accumulator: Accumulator = field(default_factory=Accumulator)
    _unread: Any = None  # a batch that passes before its step was seen to tell its parts apart
    _samples: int = 0
    _batches: int = 0
    _doubles: int = 0

    @property
    def _source(self) -> str:
        return "test" if self.trainer.state.fn == "test" else "validation"

    def start(self, step: int, layers: Mapping[str, tuple[Reader, Mapping[str, nn.Module]]]) -> None:
        """Watch, from the first batch on.

        Args:
            step: completed updates.
            layers: by view, those that it reads.
        """
        loader, _ = first_loader(self.trainer, Probe())
        loaders = held_out_loaders(self.trainer)
        several = isinstance(loaders, (Mapping, list, tuple)) and len(loaders) > 1
        self.step, self.numbering = step, numbering(self.trainer, loader)
        self.notes = (f"the first of the {self._source} loaders",) if several else ()
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
            known = reading_of(self.model)  # of what the step makes by itself, the batch is shown
            try:
                inputs, labels, *_ = split_batch(batch, self.model, known if known and known.complete else None)
            except InvalidTypeError:
                if known is not None or not all_tensors(batch):
                    raise
                inputs, labels = batch, None
            self._unread = batch if known is None else None
            size = len(all_tensors(inputs)[0])
            numbers = self.numbering.among(self._samples, size, self._batches)
            self._batches += 1
            self._samples, self._doubles = self._samples + size, self._doubles + size - len(numbers)
            reading = [layers for view, layers in self.layers.items() if view not in self.faults]
            self._accumulator.open(self.model, Batch(inputs, labels, numbers), reading)

    def close(self) -> None:
        """The batch has passed: remove the hooks, and add up what they read."""
        with self._guarded():
            known, batch = reading_of(self.model), self._unread
            if batch is not None and known is not None and known.complete:
                inputs, labels, *_ = known.split(batch)
                self._accumulator.reread(inputs, labels)
            self._unread = None
            self._accumulator.close()
            for view, error in self._accumulator.faults.items():
                self.faults.setdefault(view, error_text(error))

    def gather(self) -> tuple[list[Share | None], Sums]:
        """All processes' shares, and on the first process the merged sums by view and call."""
        started = time.monotonic()
        sums = {view: calls for view, calls in self._accumulator.sums.items() if view not in self.faults}
        # All processes come by here; what can fail on one of them alone must not keep it from either exchange.
        share = _attempted(share_of, sums, self.faults, self._samples - self._doubles)
        shares = from_every_process(self.trainer, share)
        whole = merged(shares)  # the same on all of them, so is its failing
        kept = to_the_first_process(self.trainer, _attempted(kept_of, sums, whole))
        self.seconds += time.monotonic() - started
        return shares, with_kept(whole, kept) if self.trainer.is_global_zero else {}

    def results(self) -> tuple[dict[str, Population], dict[str, list[str]]]:
        """On the first process what each view has summed up over all processes, and in words what went wrong."""
        shares, whole = self.gather()
        alone = () if connected(self.trainer) or self.trainer.world_size == 1 else ("the first process's share alone",)
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
                populations[view] = Population(tuple(layers), sums, self.step, samples, notes, self._source)
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
        reason: why the validation pass cannot be watched.

    Raises:
        Exception: what the view itself raises.
    """
    count, accumulator, done = min(view.samples, len(samples)), Accumulator(), 0
    with evaluation_mode(model), torch.no_grad():
        layers = select_layers(model, view.layers)
        for part in samples.batches(0, count):
            inputs, size = on_device(model, part), len(all_tensors(part)[0])
            labels = None if samples.labels is None else samples.labels[done : done + size]
            accumulator.open(model, Batch(inputs, labels, np.arange(done, done + size)), [(view, layers)])
            try:
                call_model(model, map_tensors(inputs, torch.clone))
            finally:
                accumulator.close()
            if view.name in accumulator.faults:
                raise accumulator.faults[view.name]
            done += size
    sums = named_calls(accumulator.sums.get(view.name, {}))
    notes = (f"{reason}: the view runs {count:,} samples by itself",)
    return Population(tuple(layers), sums, step, count, notes, source="")


def unwatchable(model: nn.Module, layers: Layers) -> str:
    """Why layers cannot be watched in the validation pass, in words; empty where they can.

    A hook on what `torch.compile` has compiled is ignored, or compiles it anew.

    Args:
        model: of the run.
        layers: to be watched.

    Raises:
        LayerNotFoundError: no layer matches.
    """
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
