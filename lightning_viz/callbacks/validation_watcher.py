"""Watching the validation pass that runs anyway, on every process, for views of a population."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from lightning_viz.callbacks.accumulator import Batch, Population, Readings, Tally, named_calls
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
from lightning_viz.callbacks.lightning import LightningModule, Trainer
from lightning_viz.callbacks.probe import Probe, split_batch
from lightning_viz.callbacks.probe_loading import first_loader
from lightning_viz.errors import LayerNotFoundError, warn_safely
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.pytree import all_tensors

if TYPE_CHECKING:
    from lightning_viz.callbacks.observer import Observer
    from lightning_viz.callbacks.population import PopulationView


@dataclass
class _Pass:
    """A validation pass on this process.

    Attributes:
        step: completed updates.
        views: that watch it.
        numbering: of its samples.
        notes: what should be said of them.
        tally: what they summed up.
        faults: of views, in words; they watch no more of this pass.
        count: samples that passed.
        doubles: of those.
        readings: of the batch that is passing now.
        batch: that batch.
        seconds: what watching took.
    """

    step: int = 0
    views: list[PopulationView] = field(default_factory=list)
    numbering: Numbering = field(default_factory=Numbering)
    notes: tuple[str, ...] = ()
    tally: Tally = field(default_factory=Tally)
    faults: dict[str, str] = field(default_factory=dict)
    count: int = 0
    doubles: int = 0
    readings: Readings | None = None
    batch: Batch | None = None
    seconds: float = 0.0


class Watcher:
    """Sees a run's validation passes for views, on one of its processes.

    At the end of each pass all processes take part in the same exchange, whatever was watched and whatever went wrong
    on each of them: one that failed has nothing to give, and says so.

    Args:
        trainer: of the run.
        model: the LightningModule.
        views: of a population, all that the run has, whether they suit it or not.
        observer: of the first process.
    """

    def __init__(
        self, trainer: Trainer, model: LightningModule, views: Sequence[PopulationView], observer: Observer | None
    ) -> None:
        self.trainer, self.model, self.views, self.observer = trainer, model, list(views), observer
        self._layers: dict[str, dict[str, nn.Module]] = {}
        for view in self.views:
            with self._harmless(), suppress(LayerNotFoundError):  # which is said where views are checked
                view.unwatchable = unwatchable(model, view) if self._validates else "no validation to watch"
                if not view.unwatchable:
                    self._layers[view.name] = select_layers(model, view.layers)
        self._watched = {view.name: view.last_step for view in self.views if view.last_step is not None}
        self._waiting: set[str] = set()  # views whose schedule had an occasion since they last watched
        self._handles: list[Any] = []
        self._pass: _Pass | None = None

    # Occasions.

    @property
    def _validates(self) -> bool:
        """Whether there is a pass to watch."""
        return bool(self.trainer.enable_validation)

    @property
    def _step(self) -> int:
        """Completed updates."""
        return _completed(self.trainer)

    def on_step(self) -> None:
        """Between two updates: remember what schedules ask for."""
        self._wait(lambda view, step: view.schedule.at_step(step))

    def on_epoch_end(self) -> None:
        """After an epoch's last update: likewise."""
        self._wait(lambda view, step: view.schedule.at_epoch_end(self.trainer.current_epoch))

    def _wait(self, asks: Callable[[PopulationView, int], bool]) -> None:
        with self._harmless():
            step = int(self.trainer.fit_loop.epoch_loop._batches_that_stepped)
            asking = {view.name for view in self.views if asks(view, step)}
            self._waiting |= {name for name in asking if self._watched.get(name) != step}

    def _due(self, view: PopulationView, step: int) -> bool:
        if view.name not in self._layers or (self.observer is not None and view not in self.observer.views):
            return False
        return (
            view.name not in self._watched
            or view.name in self._waiting
            or view.schedule.at_step(step)
            or self._at_an_end(view)
        )

    def _at_an_end(self, view: PopulationView) -> bool:
        """Whether an epoch at whose end the view looks ends with this pass, or all of training does."""
        trainer, loop = self.trainer, self.trainer.fit_loop.epoch_loop
        if not loop._num_ready_batches_reached():
            return bool(loop._is_training_done)
        return trainer.current_epoch + 1 == trainer.max_epochs or view.schedule.at_epoch_end(trainer.current_epoch)

    # A pass.

    def begin(self) -> None:
        """A validation pass starts; the few batches of Lightning's sanity check are none."""
        self._pass = None
        if self.trainer.sanity_checking:
            return
        one = self._pass = _Pass()
        with self._harmless(), self._timed(one):
            loader, _ = first_loader(self.trainer, Probe())
            one.step, one.numbering, one.notes = self._step, numbering(self.trainer, loader), self._notes()
            one.views = [view for view in self.views if self._due(view, one.step)]
            for view in one.views:
                self._watched[view.name] = one.step
                self._waiting.discard(view.name)

    def open(self, batch: Any, loader: int) -> None:
        """A batch is about to pass: hang on to the layers.

        Args:
            batch: on the model's device.
            loader: number of the loader; the first is watched.
        """
        one = self._pass
        self.shut()
        if one is None or loader != 0 or all(view.name in one.faults for view in one.views):
            return
        with self._harmless(one), self._timed(one):
            inputs, labels = split_batch(batch, self.model)
            size = len(all_tensors(inputs)[0])
            numbers = one.numbering.among(one.count, size)
            one.count, one.doubles = one.count + size, one.doubles + size - len(numbers)
            one.batch, one.readings = Batch(inputs, labels, numbers), Readings(size, len(numbers))
            for view in one.views:
                if view.name not in one.faults:
                    self._handles += one.readings.hooks(view, self._layers[view.name])

    def shut(self) -> None:
        """The batch has passed: let go of the layers, and add up what was read."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        one = self._pass
        if one is None or one.readings is None or one.batch is None:
            return
        readings, batch, one.readings, one.batch = one.readings, one.batch, None, None
        with self._harmless(one), self._timed(one):
            one.tally.add(readings, batch)
            one.faults.update({name: _words(error) for name, error in readings.faults.items()})

    def end(self) -> None:
        """The pass has ended: bring together what all processes saw, and hand it to the views on the first."""
        one, self._pass = self._pass, None
        if one is None:
            return
        with self._harmless(), self._timed(one):
            # All processes come by here; what can fail on one of them alone must not keep it from either exchange.
            sums = {view: each for view, each in one.tally.sums.items() if view not in one.faults}
            shares = from_every_process(self.trainer, _attempted(share_of, sums, one.faults, one.count - one.doubles))
            whole = merged(shares)  # the same on all of them, so is its failing
            kept = to_the_first_process(self.trainer, _attempted(kept_of, sums, whole))
            if self.trainer.is_global_zero:
                self._hand_out(one, shares, with_kept(whole, kept))

    def finish(self) -> None:
        """Training ends: say whose layers were never seen."""
        never = [view.kind for view in self.views if view.name in self._layers and view.name not in self._watched]
        if never and self.trainer.is_global_zero:
            warn_safely(f"no validation pass ran, so {', '.join(never)} had nothing to watch")

    def _hand_out(self, one: _Pass, shares: list[Share | None], whole: Sums) -> None:
        alone = () if connected(self.trainer) or self.trainer.world_size == 1 else ("the first process's share alone",)
        for view in one.views:
            faults = {
                rank: "nothing came of it" if share is None else share.faults.get(view.name, "")
                for rank, share in enumerate(shares)
                if share is None or view.name in share.faults
            }
            lost = tuple(f"process {rank} could not watch its share" for rank in faults if len(shares) > 1)
            for rank, words in faults.items():
                where = f" on process {rank}" if len(shares) > 1 else ""
                self._fault(view, one.step, f"the validation pass could not be watched{where}: {words}")
            if whole.get(view.name) and len(faults) < len(shares):
                samples = sum(share.samples for rank, share in enumerate(shares) if share and rank not in faults)
                sums = named_calls(whole[view.name])
                view.found = Population(sums, one.step, samples, (*one.notes, *alone, *lost))
            view.held += one.seconds / len(one.views)

    def _notes(self) -> tuple[str, ...]:
        loaders = self.trainer.val_dataloaders
        several = isinstance(loaders, (Mapping, list, tuple)) and len(loaders) > 1
        return ("the first of the validation loaders",) if several else ()

    # Faults.

    def _fault(self, view: PopulationView, step: int, words: str) -> None:
        if self.observer is not None:
            self.observer._fault(view, step, words)

    @contextmanager
    def _harmless(self, one: _Pass | None = None) -> Iterator[None]:
        """Nothing that goes wrong here reaches the run; within a pass it ends it for all views that watch it."""
        try:
            yield
        except Exception as error:
            if one is None:
                warn_safely(f"watching validation failed: {_words(error)}")
            else:
                one.faults.update({view.name: _words(error) for view in one.views if view.name not in one.faults})

    @contextmanager
    def _timed(self, one: _Pass) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            one.seconds += time.monotonic() - started


def unwatchable(model: nn.Module, view: PopulationView) -> str:
    """Why a view's layers cannot be watched in the validation pass, in words; empty where they can.

    A hook on what `torch.compile` has compiled is ignored, or compiles it anew.

    Args:
        model: of the run.
        view: that would watch.
    """
    paths = dict(model.named_modules(remove_duplicate=False))
    compiled = [path for path, module in paths.items() if _is_compiled(module)]
    for name, layer in select_layers(model, view.layers).items():
        for path in (path for path, module in paths.items() if module is layer):
            if any(path == outer or not outer or path.startswith(f"{outer}.") for outer in compiled):
                return f"layer {name!r} is compiled and cannot be watched in validation"
    return ""


def _completed(trainer: Trainer) -> int:
    """Completed updates when validation runs, when the last one is not yet counted."""
    loop = trainer.fit_loop.epoch_loop
    return int(loop._batches_that_stepped) + (not loop._should_accumulate())


def _is_compiled(module: nn.Module) -> bool:
    return (
        "_orig_mod" in module._modules
        or getattr(module, "_compiled_call_impl", None) is not None
        or getattr(module, "_compiler_ctx", None) is not None  # Lightning's, of a module compiled as a whole
        or hasattr(module.forward, "_torchdynamo_orig_callable")
    )


def _attempted(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except Exception:
        return None


def _words(error: Exception) -> str:
    error.__traceback__ = None  # holds the tensors of the batch
    return f"{type(error).__name__}: {error}"
