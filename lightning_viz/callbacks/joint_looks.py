"""What the first process decides of a look, and all need for it: which views look, their state, and the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from lightning_viz.callbacks.agreement import Agreement, PartedError
from lightning_viz.callbacks.probe import Probe, Samples
from lightning_viz.callbacks.snapshot import ViewLike
from lightning_viz.errors import said_elsewhere, warn_safely
from lightning_viz.hooks.calls import Call
from lightning_viz.hooks.shards import settle

_STATE = ("last_step", "indices", "state")
"""Of a view, what its passes may depend on."""


@dataclass(frozen=True)
class _Plan:
    """Names of the views that still look, and of those that look now with their state."""

    views: tuple[str, ...]
    chosen: dict[str, dict[str, Any]]


class JointLooks:
    """Brings what the first process has decided, or fetched, to all that look with it.

    Args:
        agreement: of the processes.
        views: of the run, the same on all of them.
    """

    def __init__(self, agreement: Agreement, views: Sequence[ViewLike]) -> None:
        self._agreement, self._views = agreement, {view.name: view for view in views}
        self._samples: dict[Any, Samples] = {}  # by the probe's place among the run's: those that all have
        self._probes: list[Any] = []
        for view in views:
            if (key := view.probe.key()) not in self._probes:
                self._probes.append(key)

    @contextmanager
    def turn(self, model: nn.Module) -> Iterator[bool]:
        """An event at which all that look come inside; whether they still do. The first alone says what is said.

        Args:
            model: of the run.
        """
        if self._agreement.together:  # whatever fails, all processes have gathered the same when training goes on
            settle(model)
        with said_elsewhere(not self._agreement.first):
            try:
                yield not self._agreement.ended
            except PartedError as error:
                warn_safely(f"nothing more is drawn: {error}")

    def chosen(self, views: list[ViewLike], choose: Callable[[], list[ViewLike]]) -> list[ViewLike]:
        """The views that look now; where all processes look, in the state in which the first has them.

        Args:
            views: those that still look; becomes what it is on the first.
            choose: called on the first process alone.
        """
        if not self._agreement.together:
            return choose()
        with self._agreement.look():
            plan = self._agreement.decided(lambda: _plan(views, choose()))
        if not self._agreement.first:
            views[:] = [self._views[name] for name in plan.views]
            for name, state in plan.chosen.items():
                for part, value in state.items():
                    setattr(self._views[name], part, value)
        return [self._views[name] for name in plan.chosen]

    def samples(self, probe: Probe, fetch: Callable[[], Samples]) -> Samples:
        """The samples of a probe; where all processes look, those of the first, which are sent once.

        Args:
            probe: of a view.
            fetch: called on the first process alone.
        """
        if not self._agreement.together:
            return fetch()
        place = self._probes.index(probe.key())

        def fetched() -> Samples | None:
            found = fetch()
            if found is self._samples.get(place):
                return None
            self._samples[place] = found
            return _without_function(found)

        sent = self._agreement.decided(fetched)
        if sent is not None and not self._agreement.first:
            self._samples[place] = _with_function(sent, probe)
        return self._samples[place]


def _plan(views: Sequence[ViewLike], chosen: Sequence[ViewLike]) -> _Plan:
    states = {view.name: {part: getattr(view, part) for part in _STATE} for view in chosen}
    return _Plan(tuple(view.name for view in views), states)


def _without_function(samples: Samples) -> Samples:
    """A function of the user's stays on its process: each has its own."""
    inputs = samples.inputs
    return replace(samples, inputs=replace(inputs, forward=None)) if isinstance(inputs, Call) else samples


def _with_function(samples: Samples, probe: Probe) -> Samples:
    inputs = samples.inputs
    return replace(samples, inputs=replace(inputs, forward=probe.forward)) if isinstance(inputs, Call) else samples
