"""Views without a Trainer: ``with watch(model, data=loader, views=default_views(), logdir="runs/first") as w``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from lightning_viz.callbacks.applicable_views import default_views
from lightning_viz.callbacks.loop_run import Log, LoopRun, loader_of, sharding_of, tell_of_epochs, unwrapped
from lightning_viz.callbacks.notices import harmless
from lightning_viz.callbacks.probe import Probe, Samples
from lightning_viz.callbacks.serialization import CHECKPOINT
from lightning_viz.callbacks.session import Session
from lightning_viz.callbacks.sessions import start_session
from lightning_viz.callbacks.suitability import refuse_twins
from lightning_viz.callbacks.view import View
from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.hooks.pytree import map_tensors
from lightning_viz.rich_display import html_table

__all__ = ["LoopWatch", "watch"]

_watched: WeakSet[nn.Module] = WeakSet()


def watch(
    model: nn.Module,
    *,
    data: Any = None,
    views: Sequence[View] | None = None,
    logdir: str | Path | None = None,
    logger: Any = None,
    optimizer: Any = None,
) -> LoopWatch:
    """Watch a training loop of your own, in plain PyTorch or with Fabric, as Lightning's Trainer is watched.

    Views look before the first update, at their occasions, and at the end; the loop says what it has done:

    .. code-block:: python

        with watch(model, data=held_out, views=default_views(), logdir="runs/first", optimizer=optimizer) as w:
            for epoch in range(3):
                for x, y in w.epoch(loader):
                    optimizer.zero_grad()
                    F.cross_entropy(model(x), y).backward()
                    optimizer.step()
                    w.step()

    Without ``w.epoch`` the loop's batches are not seen: how the model is called is then told by its ``forward`` and the
    data, and `LoopWatch.end_epoch` ends an epoch. An exception leaves at once, and what is not drawn is kept beside the
    run. Of several processes all must watch; the first looks. A model that is sharded over processes is refused.

    Args:
        model: that is trained, also as Fabric, ``DistributedDataParallel`` or ``torch.compile`` wrap it.
        data: whose samples are watched: a loader, a data set, a batch, or a `Probe` that holds them. If omitted, they
            are the first that pass through `LoopWatch.epoch`. Views that watch validation passes run samples of it.
        views: that look; `default_views` if omitted.
        logdir: folder of TensorBoard's events; a new one below ``lightning_viz_logs`` if omitted.
        logger: takes the pictures instead: your ``SummaryWriter``, or a logger of Fabric's; several in a list.
        optimizer: or several, which tell views the learning rates.

    Raises:
        InvalidTypeError: what is to be watched is no module, or a view is none.
        ViewError: a view that you named does not suit the model, or is there twice; as the loop is entered.
    """
    if not isinstance(model, nn.Module):
        raise InvalidTypeError(f"the model is a {type(model).__name__}: give the torch.nn.Module that is trained")
    chosen = list(default_views() if views is None else [views] if isinstance(views, View) else views)
    for view in chosen:
        if not isinstance(view, View):
            raise InvalidTypeError(f"views holds a {type(view).__name__}: give views, default_views() say")
    if isinstance(data, (Probe, Samples)):
        _watch_samples(chosen, data)
        data = None
    (network, compiled), loaders = unwrapped(model), loader_of(data)
    run = LoopRun(
        network,
        loaders,
        Log(None if logdir is None else Path(logdir), _several(logger)),
        [getattr(one, "optimizer", one) for one in _several(optimizer)],  # Fabric's wrapper
        max((view.finish_seconds for view in chosen), default=0.0),
        _precision_of(model),
        training_loaders=loaders,
        sharded=sharding_of(model),
    )
    return LoopWatch(run, chosen, reads=not compiled)


class LoopWatch:
    """A loop that is watched, see `watch`; it says here what it has done.

    Args:
        run: of the loop.
        views: that look.
        reads: whether the first step may be watched, to see how it calls the model.
    """

    def __init__(self, run: LoopRun, views: Sequence[View], *, reads: bool = True) -> None:
        self.run, self.views = run, list(views)
        self._session: Session | None = None
        self._reads, self._sees_batches, self._goes_on, self._ended = reads, False, False, 0

    def _repr_html_(self) -> str:
        folder = self.run.log.folder
        rows = {
            "model": type(self.run.model).__name__,
            "updates": self.run.step,
            "epochs": self.run.epoch,
            "pictures in": "loggers of yours" if self.run.log.loggers else str(folder or "lightning_viz_logs"),
            "views": ", ".join(view.label for view in self.views),
        }
        return html_table("Watched loop", rows)

    def __enter__(self) -> LoopWatch:
        self.begin()
        return self

    def begin(self, batch: Any = None) -> None:
        """Watch from now on, and look, if there are samples.

        Args:
            batch: that is about to be trained on, if it is known.

        Raises:
            InvalidArgumentError: the loop is watched already.
            ViewError: a view that a person named does not suit the model, or is there twice.
        """
        if self._session is not None:
            raise InvalidArgumentError("the loop is watched already: enter each watch() once at a time")
        refuse_twins(self.views)
        if not self._goes_on:
            for view in self.views:
                view.forget()
        self._session = start_session(self.run, self.views) if self.views else None
        if self._session is None:
            return
        _watched.add(self.run.model)
        if self.run.is_global_zero and any(view.optional for view in self.views):
            with harmless("the list of views could not be written"):
                self._session.introduce()
        if not self._reads:
            self._session.expect_no_step()
        self._keep(batch)
        if self.run.training_loaders is not None or all(view.probe.given for view in self.views):
            self._session.on_update_start(batch)

    def _keep(self, batch: Any) -> None:
        """Without data, the first batch that passes is watched, as it is before the step."""
        if self.run.training_loaders is None and batch is not None:
            self.run.training_loaders = [map_tensors(batch, torch.clone)]

    def step(self) -> None:
        """The weights have been updated: once for each update, whatever optimizers made it."""
        self.run.step += 1
        if self._session is not None and not self._sees_batches:
            self._session.expect_no_step()
            self._session.on_update_start()

    def end_epoch(self) -> None:
        """An epoch has ended; `epoch` says so itself."""
        self._ended += 1
        if self._session is not None:
            self._session.on_epoch_end()
        self.run.epoch += 1

    def epoch(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Go through a loader, and end the epoch behind its last batch; one that is left by ``break`` does not end.

        Args:
            batches: of training.
        """
        count = len(batches) if isinstance(batches, Sized) else None
        try:
            for number, batch in enumerate(batches, 1):
                self.run.ends_epoch = number == count
                self.begin_batch(batch, reads=batch)
                yield batch
                self.end_batch()
        finally:
            self._sees_batches, self.run.ends_epoch = False, False
            self.end_batch()
        self.end_epoch()

    def begin_batch(self, batch: Any = None, *, reads: Any = None) -> None:
        """A batch is about to be trained on; what goes through `epoch` says so itself.

        Args:
            batch: if it is known.
            reads: that is given to the step, which is watched until `end_batch`; None: it is not.
        """
        self._sees_batches = True
        if self._session is not None:
            self._keep(batch)
            self._session.on_update_start(batch)
            if self._reads and reads is not None:
                self._session.read_step(reads)

    def end_batch(self) -> None:
        """It has been trained on."""
        if self._session is not None:
            self._session.on_batch_end()

    def look_last(self) -> None:
        """Look for the last time: the weights change no more by updates, but may be replaced by others."""
        if self._session is not None:
            self._session.last_look()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close() if error is None else self.interrupt()

    def close(self) -> None:
        """Look for the last time, and wait for what is still being drawn."""
        session, self._session = self._session, None
        _watched.discard(self.run.model)
        if session is not None:
            session.finish()
            if not self._ended and self.run.is_global_zero and self.run.step:
                tell_of_epochs(self.views)
            with harmless("the log could not be closed"):
                self.run.log.close()

    def interrupt(self) -> None:
        """Leave at once: what is not drawn is kept beside the run."""
        session, self._session = self._session, None
        _watched.discard(self.run.model)
        if session is not None:
            session.interrupt()
            with harmless("the log could not be closed"):
                self.run.log.close()

    def state_dict(self) -> dict[str, Any]:
        """What makes the pictures of a loop that is resumed the same, in plain values: for your checkpoint."""
        if self._session is not None:
            self._session.collect()
        states = {view.name: view.kept() for view in self.views if view.last_step is not None}
        return {"step": self.run.step, "epoch": self.run.epoch, CHECKPOINT: states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state, before the loop is entered.

        Args:
            state: as `state_dict` gave it.

        Raises:
            InvalidArgumentError: the loop has been entered.
        """
        if self._session is not None:
            raise InvalidArgumentError("the loop has begun: load the state before `with`")
        self.run.step, self.run.epoch, self._goes_on = int(state["step"]), int(state["epoch"]), True
        for view in self.views:
            view.restore(state)


def is_watched(model: nn.Module) -> bool:
    """Whether a loop that trains a model is watched.

    Args:
        model: unwrapped.
    """
    return model in _watched


def _several(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _watch_samples(views: Iterable[View], data: Probe | Samples) -> None:
    """Let views without a probe of their own watch these samples."""
    if isinstance(data, Probe):
        given = data
    else:
        given = Probe(inputs=data.inputs, labels=data.labels if data.truths is None else data.truths, samples=data.head)
    for view in views:
        if view.probe == Probe():
            view.probe = given
        if isinstance(data, Samples) and view.pixel_space is None:
            view.pixel_space = data.pixel_space


def _precision_of(model: nn.Module) -> Callable[[], AbstractContextManager[Any]]:
    """The context in which Fabric runs a model's forward; of any other model none."""
    strategy = vars(model).get("_strategy") if type(model).__name__ == "_FabricModule" else None
    return nullcontext if strategy is None else strategy.precision.forward_context
