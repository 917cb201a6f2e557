"""Which views watch the run's validation passes, and what they have seen; the same on all processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import nn

from lightning_viz.callbacks.agreement import Agreement
from lightning_viz.callbacks.notices import harmless
from lightning_viz.callbacks.population import Population, PopulationPass, run_population, unwatchable, watched_layers
from lightning_viz.callbacks.run_protocol import Run, ValidationPlace
from lightning_viz.callbacks.snapshot import PopulationViewLike, Snapshot
from lightning_viz.errors import LayerNotFoundError
from lightning_viz.hooks.shards import is_tensor_parallel

_FAILED = "watching validation failed"


class ValidationWatch:
    """Watches validation passes for views that read all samples of them.

    A view whose layers cannot be watched, or are not called in validation, runs samples by itself.

    Args:
        run: a training, or the validation pass of a checkpoint.
        views: that read whole validation passes, all that the run has, whether they suit the model or not.
        agreement: of the run's processes.
    """

    def __init__(self, run: Run, views: Sequence[PopulationViewLike], agreement: Agreement | None = None) -> None:
        self._agreement = agreement or Agreement()
        self._split = is_tensor_parallel(run.model)
        self._run, self._exchanges = run, bool(views)
        self._views: dict[str, tuple[PopulationViewLike, Mapping[str, nn.Module]]] = {}
        self._reasons: dict[str, str] = {}  # why validation passes tell nothing to a view; empty if they do
        for view in views:
            with harmless("logging failed"), suppress(LayerNotFoundError):  # which is told where views are checked
                self._reasons[view.name] = self._unwatchable(view)
                if not self._reasons[view.name]:
                    self._views[view.name] = view, watched_layers(run.model, view.layers)
        self._watched = {view.name: view.last_step for view in views if view.last_step is not None}
        self._waiting: set[str] = set()  # views whose schedule had an occasion since they last watched
        self._populations: dict[str, Population] = {}  # of the pass that has just ended
        self._pass: PopulationPass | None = None

    def _unwatchable(self, view: PopulationViewLike) -> str:
        """Why a view cannot watch validation passes, in words; empty where it can."""
        if not self._run.validates:
            return "no validation to watch"
        if self._split:
            return "processes share single layers, whose outputs are brought together in looks alone"
        if not view.layers and view.probe.forward is not None:
            return "the step does not call the probe's forward="
        return unwatchable(self._run.model, view.layers)

    def reconsider(self) -> None:
        """How a step calls the model has been seen: which module is called is known now."""
        for name, (view, _) in list(self._views.items()):
            if reason := self._unwatchable(view):
                self._reasons[name] = reason
                del self._views[name]

    # Which views watch.

    def watches(self, name: str) -> bool:
        """Whether the view of a name draws what it sees of validation passes, rather than run samples by itself."""
        return name in self._views and not self._reasons[name]

    def waits(self, name: str) -> bool:
        """Whether a view that watches has not seen a pass yet."""
        return self.watches(name) and name not in self._watched

    def before_training(self, name: str) -> bool:
        """Whether a view that watches also looks before the first update."""
        return self._views[name][0].before_training

    @property
    def never(self) -> list[PopulationViewLike]:
        """Views that watch, and have seen no pass."""
        return [view for name, (view, _) in self._views.items() if name not in self._watched]

    def note(self, asks: Callable[[PopulationViewLike], bool], step: int) -> None:
        """Views whose schedule has an occasion watch the next pass.

        Args:
            asks: whether a view's schedule has one.
            step: completed updates.
        """
        asking = {name for name, (view, _) in self._views.items() if asks(view)}
        self._waiting |= {name for name in asking if self._watched.get(name) != step}

    def _is_to_watch(self, view: PopulationViewLike, place: ValidationPlace) -> bool:
        """At the first pass, after an occasion of the schedule, or where one comes right with the pass."""
        return (
            view.name not in self._watched
            or view.name in self._waiting
            or view.schedule.at_step(place.step)
            or place.last
            or (place.epoch is not None and view.schedule.at_epoch_end(place.epoch))
        )

    # A validation pass.

    @property
    def seconds(self) -> float:
        """What watching the pass took so far."""
        return getattr(self._pass, "seconds", 0.0)

    def start(self, wanted: Callable[[PopulationViewLike], bool]) -> None:
        """A validation pass starts; the few batches of Lightning's sanity check are none.

        Args:
            wanted: whether a view still looks.
        """
        self._pass = None
        if self._run.rehearses or not self._exchanges:
            return
        self._pass = PopulationPass(self._run, self._agreement)
        with harmless(_FAILED):
            started = time.monotonic()
            place = self._run.validation_place()
            chosen = {name: entry for name, entry in self._views.items() if wanted(entry[0])}
            due = {name: entry for name, entry in chosen.items() if self._is_to_watch(entry[0], place)}
            self._pass.start(place.step, due)
            for name in due:
                self._watched[name] = place.step
                self._waiting.discard(name)
            self._pass.seconds += time.monotonic() - started

    def open(self, batch: Any, loader: int) -> None:
        """A validation batch is about to pass.

        Args:
            batch: on the model's device.
            loader: number of its loader.
        """
        if self._pass is not None:
            self._pass.open(batch, loader)

    def close(self) -> None:
        """The batch has passed, or the run ends in its midst: no hook is left."""
        if self._pass is not None:
            self._pass.close()

    def end(self, failed: Callable[[PopulationViewLike, int, str], None], took: Callable[[str, float], None]) -> bool:
        """The pass has ended: bring together what all processes saw, for the views on the first.

        Args:
            failed: takes a view that could not watch, the step, and why, in words.
            took: takes the name of a view, and the seconds that it took.

        Returns:
            Whether a view is found to run samples by itself from now on.
        """
        watched, self._pass = self._pass, None
        if watched is None:
            return False
        watched.close()
        uncalled = []
        with harmless(_FAILED):
            self._populations, faults = watched.results()  # none on other processes than the first
            for name in [name for name in watched.layers if name in self._views]:
                for words in faults[name]:
                    failed(self._views[name][0], watched.step, words)
                if self._run.is_global_zero and name not in self._populations and not faults[name]:
                    uncalled.append(name)
                took(name, watched.seconds / len(watched.layers))
        new = [name for name in uncalled if not self._reasons[name]]
        self._reasons.update(dict.fromkeys(new, "the validation pass does not call its layers"))
        return bool(new)

    # What was seen.

    def has_seen(self, name: str, step: int) -> bool:
        """Whether the pass that has just ended was at a step, and was watched for a view.

        Args:
            name: of the view.
            step: completed updates.
        """
        population = self._populations.get(name)
        return population is not None and population.step == step

    def take(self, view: PopulationViewLike, snapshot: Snapshot) -> Population:
        """What was seen of the pass, or what a pass for this view alone sees now.

        Args:
            view: that draws.
            snapshot: with the samples that are run in the second case.
        """
        population = self._agreement.decided(lambda: self._populations.pop(view.name, None))  # the first has it
        if population is not None:
            return population
        reason = self._reasons.get(view.name) or "the validation pass was not watched"
        if self.watches(view.name) and snapshot.step == 0:
            reason = ""  # before any pass
        return run_population(self._run.model, view, snapshot.samples, snapshot.step, reason=reason)
