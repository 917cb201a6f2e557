"""Starts the session of a run, if the run's model can be observed and a view suits it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lightning_viz.callbacks.agreement import PartedError, agreement_of
from lightning_viz.callbacks.distributed import connected
from lightning_viz.callbacks.environment import VARIABLE, silenced
from lightning_viz.callbacks.heartbeat import heartbeat_of
from lightning_viz.callbacks.run import say_once
from lightning_viz.callbacks.run_protocol import Run
from lightning_viz.callbacks.session import Session
from lightning_viz.callbacks.snapshot import PopulationViewLike, ViewLike
from lightning_viz.callbacks.suitability import suitable
from lightning_viz.errors import warn_safely
from lightning_viz.hooks.shards import is_sharded


def start_session(run: Run, views: Sequence[ViewLike]) -> Session | None:
    """Check all views of a run against its model, and start a session for those that suit it.

    Views look on the first process alone, or, where its model is sharded over the processes, on all of them together;
    the validation pass is watched on all. None where no process can observe the model, because of how it is sharded, or
    of a model without weights yet, which the first process warns of; nor where the environment silences views.

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
    together = connected(run) and is_sharded(run.model)
    agreement = agreement_of(run, together)
    try:
        with agreement.look():
            names = agreement.decided(lambda: _names(run, views) if first else [])
    except PartedError as error:
        warn_safely(f"nothing is drawn: {error}")
        return None
    suited = [view for view in views if view.name in names]
    watching = [view for view in views if isinstance(view, PopulationViewLike)]
    heartbeat = heartbeat_of(run, views, together=together)
    if not suited and not watching and (first or together or not heartbeat.waits):
        agreement.leave()
        heartbeat.close()
        return None
    started = Session(run, suited, watching, heartbeat, agreement)
    started.begin(views[0])
    return started


def _names(run: Run, views: Sequence[ViewLike]) -> list[str]:
    """Names of the views that suit the run's model."""
    return [view.name for view in suitable(views, run.model, say=partial(say_once, run.owner))]
