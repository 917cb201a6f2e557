"""What could have been logged live, drawn from a checkpoint: the same views, hung on one validation pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_viz.analysis.data import bring_training_data
from lightning_viz.analysis.models import network_of
from lightning_viz.analysis.results import Result
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.lightning import Callback, LightningModule, Trainer
from lightning_viz.callbacks.observer import Observer
from lightning_viz.callbacks.population import PopulationView
from lightning_viz.callbacks.probe import Probe, Samples
from lightning_viz.callbacks.serialization import CHECKPOINT
from lightning_viz.callbacks.snapshot import Requirements, Snapshot
from lightning_viz.callbacks.validation_watcher import Watcher
from lightning_viz.callbacks.view import View, suitable
from lightning_viz.callbacks.writers import Writer
from lightning_viz.errors import ViewError


class Replay(Callback):
    """Lets views look once at the model that a Trainer validates, as they would in training.

    On every process it watches the validation pass for views of a population; on the first, all look when it has ended.

    Args:
        views: in the state in which they go on; those that do not suit the model step aside.
        step: completed updates of the model's weights.
        finding: takes what the views draw, and their faults.
        probe: of which samples are fetched for what else is to be studied.
        samples: so many.
    """

    def __init__(self, views: Sequence[View], step: int, finding: Result, *, probe: Probe, samples: int) -> None:
        self.views, self.step, self.finding = list(views), step, finding
        lists: list[list[Any]] = [finding.pictures, finding.scalars, finding.faults, finding.projections]
        self._had = [(found, len(found)) for found in lists]
        self._given = [(view, {CHECKPOINT: {view.name: view.kept()}}) for view in views]
        self._taken = _Taken(probe=probe, population=samples)
        self._watcher: _OfflineWatcher | None = None
        self._observer: _OfflineObserver | None = None

    @property
    def samples(self) -> Samples | None:
        """Those of the probe, on the first process, after the pass."""
        return self._taken.samples

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See which views suit the model."""
        model = network_of(pl_module)
        self._begin_anew()
        self.views = suitable(self.views, model, say=_nobody_asked)
        if any(view.probe.source == "train" for view in self.views):
            bring_training_data(trainer, pl_module)
        if trainer.is_global_zero:
            self._observer = _OfflineObserver(trainer, model, [*self.views, self._taken], self.step, self.finding)
        populations = [view for view in self.views if isinstance(view, PopulationView)]
        self._watcher = _OfflineWatcher(trainer, model, populations, self._observer, self.step)
        self._watcher.begin()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Hang on to the layers."""
        if self._observer is not None:
            self._observer.passing(batch)
        if self._watcher is not None:
            self._watcher.open(batch, dataloader_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Let go of them."""
        if self._watcher is not None:
            self._watcher.shut()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring together what all processes saw; then look."""
        if self._watcher is not None:
            self._watcher.end()
        if self._observer is not None:
            self._observer.look()
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hook and no process behind."""
        self._close()

    def _begin_anew(self) -> None:
        """An earlier pass may have ended well but for the module's own hook, which then failed."""
        for view, began in self._given:
            view.optional = True
            view.restore(began)
        self.views = [view for view, _ in self._given]
        for found, had in self._had:
            del found[had:]

    def _close(self) -> None:
        if self._watcher is not None:
            self._watcher.shut()
        if self._observer is not None:
            self._observer.artist.close()
        self._watcher = self._observer = None


class _OfflineObserver(Observer):
    """Looks once, for all views, and waits until everything is drawn."""

    def __init__(self, trainer: Trainer, model: nn.Module, views: Sequence[View], step: int, finding: Result) -> None:
        self._finding, self._step = finding, step
        super().__init__(trainer, model, views)

    @property
    def step(self) -> int:
        return self._step

    def look(self) -> None:
        """All views look, whatever their schedules say."""
        ready = [one for one in self.views if not isinstance(one, PopulationView) or one.unwatchable or one.found]
        with self._harmless():
            self.visit(ready, self.step, last=True)
            self.artist.drain(math.inf)
            self.collect()

    def _find_writers(self) -> list[Writer]:
        return [self._finding]

    def _fault(self, view: View, step: int, error: Exception | str) -> None:
        if isinstance(error, ViewError):
            return  # it does not suit the model, and every view is tried
        what = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        self._finding.faults.append(f"{view.kind} at step {step}: {what}")


class _OfflineWatcher(Watcher):
    """Watches the one pass of ``Trainer.validate`` for all its views."""

    _validates = True

    def __init__(
        self,
        trainer: Trainer,
        model: nn.Module,
        views: Sequence[PopulationView],
        observer: Observer | None,
        step: int,
    ) -> None:
        self._at = step
        super().__init__(trainer, model, views, observer)

    @property
    def _step(self) -> int:
        return self._at

    def _due(self, view: PopulationView, step: int) -> bool:
        return view.name in self._layers


@dataclass(kw_only=True, eq=False)
class _Taken(View):
    """Draws nothing: the samples that what is not a view studies."""

    population: int

    kind = "samples"

    def _forget(self) -> None:
        super()._forget()
        self.samples: Samples | None = None

    def requirements(self, model: nn.Module) -> Requirements:
        return Requirements(head=False, population=self.population)

    def draw(self, look: Snapshot) -> Iterable[DrawTask]:
        self.samples = look.samples
        return ()


def _nobody_asked(words: str) -> None:
    """Why a view does not suit the model is of no interest where every view is tried."""
