"""Starts the session of a run, if the run's model can be observed and a view suits it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lightning_viz.callbacks.environment import VARIABLE, silenced
from lightning_viz.callbacks.heartbeat import heartbeat_of
from lightning_viz.callbacks.run import say_once
from lightning_viz.callbacks.run_protocol import Run
from lightning_viz.callbacks.session import Session
from lightning_viz.callbacks.snapshot import PopulationViewLike, ViewLike
from lightning_viz.callbacks.suitability import suitable
from lightning_viz.errors import warn_safely


def start_session(run: Run, views: Sequence[ViewLike]) -> Session | None:
    """Check all views of a run against its model, and start a session for those that suit it.

    Views look on the first process alone; the validation pass is watched on all. None where no process can observe the
    model, because it holds only a shard of it, or a model without weights yet, which the first process warns of; nor
    where the environment silences views.

    Args:
        run: about to begin.
        views: all that it has; the first leads the session, whose events it alone passes on.

    Raises:
        ViewError: see `suitable`.
    """
    first = run.is_global_zero
    if silenced():
        if first:
            say_once(run.owner, f"views see nothing, as {VARIABLE}=0 asks")
        return None
    if reason := run.unobservable:
        if first:
            warn_safely(reason)
        return None
    suited = suitable(views, run.model, say=partial(say_once, run.owner)) if first else []
    watching = [view for view in views if isinstance(view, PopulationViewLike)]
    heartbeat = heartbeat_of(run, views)
    if not suited and not watching and (first or not heartbeat.waits):
        heartbeat.close()
        return None
    started = Session(run, suited, watching, heartbeat)
    started.begin(views[0])
    return started
