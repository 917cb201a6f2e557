"""A checkpoint seen again: the run's views and every other, in a validation pass by Lightning's own Trainer."""

from __future__ import annotations

import logging
import math
import signal
import threading
import types
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from lightning_viz.analysis.data import Data, bring_training_data, loaded
from lightning_viz.analysis.models import for_trainer, network_of
from lightning_viz.analysis.recipes import recorded_views
from lightning_viz.analysis.results import Fault, Result
from lightning_viz.callbacks.batch_parts import split_batch
from lightning_viz.callbacks.probe import Probe, Samples
from lightning_viz.callbacks.run import (
    Callback,
    LightningModule,
    LightningRun,
    Trainer,
    error_text,
    package_of,
    quiet_logger,
)
from lightning_viz.callbacks.run_protocol import Named, Run, Update, ValidationPlace
from lightning_viz.callbacks.serialization import CHECKPOINT
from lightning_viz.callbacks.session import Session
from lightning_viz.callbacks.snapshot import PopulationViewLike
from lightning_viz.callbacks.suitability import suitable
from lightning_viz.callbacks.view import View
from lightning_viz.callbacks.writers import Writer
from lightning_viz.catalogue import view_kind, views
from lightning_viz.costs import Facts
from lightning_viz.errors import AnalysisError, MalformedFileError, ViewError, inform, warn_safely
from lightning_viz.hooks.calls import Call, call_model
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.pixels import PixelSpace


def views_for(
    checkpoint: Mapping[str, Any],
    earlier: Mapping[str, Any],
    *,
    probe: Probe | None,
    pixel_space: PixelSpace | None,
    kinds: Sequence[str] | None,
    arguments: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    private: bool = False,
) -> list[View]:
    """The views that a run had, in the state that its checkpoint holds, and every other.

    Args:
        checkpoint: as Lightning saved it.
        earlier: state of the views after the checkpoint before, from which those go on that this one does not hold.
        probe: of the others; that of the run's first view, or the default, if omitted.
        pixel_space: of the others.
        kinds: of views, which alone are wanted; None: all.
        arguments: by kind, those of each view that is added to those of the run; the catalogue's where one is missing.
        private: whether inputs are not to be shown, as the run had it.
    """
    recorded = recorded_views(checkpoint)
    probe = probe or (recorded[0].probe if recorded else Probe())
    given: dict[str, Any] = {"probe": probe, "pixel_space": pixel_space, "private": private}
    chosen = [kind for kind in views() if kind in (kinds or views())]
    if private:
        inform("the run's views are private: maps and numbers are drawn, no samples, and no views of samples alone")
    every = (
        views()[kind].load()(**own, **given)
        for kind in chosen
        for own in (arguments or {}).get(kind, views()[kind].offline)
    )
    others = [view for view in every if not any(draws_alike(view, other) for other in recorded)]
    for view in others:
        view.restore({CHECKPOINT: earlier})
    return [view for view in recorded + others if kinds is None or view.kind in kinds]


def draws_alike(view: View, other: View) -> bool:
    """Whether two views draw under the same tags.

    Args:
        view: one.
        other: the other.
    """
    return type(view) is type(other) and getattr(view, "method", None) == getattr(other, "method", None)


_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
_WHEN = ("start", "end", "epoch_start", "epoch_end", "batch_start", "batch_end")
_AROUND = [*(f"on_validation_{when}" for when in _WHEN), "teardown"]


@dataclass(eq=False)
class CheckpointRun(LightningRun):
    """One validation pass of a checkpoint, as a `Run`, at whose end all its views look.

    Its result takes what they draw, and their faults. No view is switched off, all that is drawn is waited for, and
    there is no epoch.
    """

    trainer: Trainer
    model: nn.Module
    step: int
    result: Result
    begin: Callable[[Named], None]
    end: Callable[[Named], None]
    most_faults: float = math.inf
    finish_seconds: float = math.inf
    beside_training: bool = False
    epoch: int = 0
    validates: bool = True
    ending: str = ""
    interrupted: bool = False

    def validation_place(self) -> ValidationPlace:
        """The one pass is the last."""
        return ValidationPlace(self.step, None, last=True)

    def next_update(self) -> Update:
        """None comes; it would be the next."""
        return Update(self.step + 1, self.epoch)

    def learning_rates(self) -> None:
        """Updates are not there to be seen."""

    def open_writers(self) -> Sequence[Writer]:
        """The result."""
        return [self.result]

    def begins(self, view: Named) -> None:
        """It is told."""
        self.begin(view)

    def looked(self, view: Named) -> None:
        """It is told."""
        self.end(view)

    def report_fault(self, views: Sequence[Named], step: int, error: Exception | str, *, switched_off: bool) -> None:
        """A line for each in the result; nothing of views that do not suit the model, since every view is tried."""
        if not isinstance(error, ViewError):
            kinds = dict.fromkeys(view.kind for view in views)
            self.result.faults += [Fault(kind, error_text(error), step) for kind in kinds]

    def report_refusal(self, views: Sequence[Any], error: Exception) -> None:
        """A line in the result for each kind of them; nothing of views that do not suit the model."""
        if isinstance(error, ViewError):
            return
        kinds = dict.fromkeys(view.kind for view in views)
        self.result.faults += [Fault(kind, str(error), self.step) for kind in kinds]


_TYPICAL = Facts(samples=256, head=16, classes=10, channels=64, sides=(64, 64))
"""By which views are ordered, alike on every machine and for every model."""
_WAIT_SECONDS = 0.3


@dataclass(frozen=True)
class Listener:
    """What is told of the views of a pass while they look.

    Attributes:
        begins: takes a kind of views, of which one begins.
        finished: takes a kind and its result, when all is drawn.
    """

    begins: Callable[[str], None] = lambda kind: None
    finished: Callable[[str, Result], None] = lambda kind, result: None


class Replay(Callback):
    """Lets views look once at the model that a Trainer validates, as they would in training.

    On every process it watches the validation pass for views of a population; on the first, all look when it has ended,
    those with few passes of their own first. What is drawn of these is waited for before the others begin.
    A pass that begins once more, as the module's own step failed, begins from the same state, with another result.

    Args:
        views: in the state in which they go on; those that do not suit the model are skipped.
        step: completed updates of the model's weights.
        probe: of which samples are fetched for what else is to be studied.
        samples: so many.
        looking: kinds of the views that look; all if omitted.
        listener: is told of each kind.

    Attributes:
        views: those that suit the model.
        result: of the pass: what the views drew, and their faults.
        samples: of the probe, on the first process, after the pass.
        available: how many validation samples there are, as far as their loaders tell.
    """

    def __init__(
        self,
        views: Sequence[View],
        step: int,
        *,
        probe: Probe,
        samples: int,
        looking: Container[str] | None = None,
        listener: Listener | None = None,
    ) -> None:
        self._passes = {view.name: view.passes(_TYPICAL) for view in views}
        views = sorted(views, key=lambda view: self._passes[view.name])
        self.views, self.result = list(views), Result()
        self.samples: Samples | None = None
        self.available = 0
        self._step, self._probe, self._count = step, probe, samples
        self._given = [(view, {CHECKPOINT: {view.name: view.kept()}}) for view in views]
        self._looks = [view for view in views if looking is None or view.kind in looking]
        self._listener, self._looked = listener or Listener(), set[str]()
        self._finished: set[str] = set()  # kinds
        self._session: Session | None = None
        self._refused: Exception | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Select the views that suit the model."""
        model, first = network_of(pl_module), trainer.is_global_zero
        for view, state in self._given:
            view.restore(state)
            view.optional = True
            view.last_step = None if view in self._looks else self._step  # whenever it looked before, it looks now
            view.frames.clear()
        self.result, self.samples = Result(), None

        # Why a view does not suit the model is of no interest where every view is tried.
        self.views = suitable([view for view, _ in self._given], model, say=lambda _: None)
        if any(view.probe.source == "train" for view in self.views):
            bring_training_data(trainer, pl_module)
        watching = [view for view in self.views if isinstance(view, PopulationViewLike)]
        run = CheckpointRun(trainer, model, self._step, self.result, self._begins, self._ends)
        self.available = _available(run)
        self._session = Session(run, self.views if first else [], watching)
        if first:
            self._session.samples.reserve(self._probe, self._count)
        self._session.on_validation_start()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Register the forward hooks."""
        if self._session is not None:
            self._session.on_validation_batch_start(batch, dataloader_idx)

    def on_validation_batch_end(self, *_: Any) -> None:
        """Remove the hooks."""
        if self._session is not None:
            self._session.on_validation_batch_end()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge what all processes saw; then look."""
        session = self._session
        if session is None:
            return
        try:
            session.on_validation_end()
            if trainer.is_global_zero:
                session.finish()
                self.samples = session.samples.get(self._probe)
        except Exception as error:
            self.result.faults.append(Fault("samples", error_text(error), self._step))
        finally:
            self._session = None
            session.abort()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hook and no process behind; where the model cannot take its data, weights are drawn all the same."""
        session, self._session = self._session, None
        if session is None:
            return
        own = type(pl_module).training_step is not package_of(pl_module).LightningModule.training_step
        if isinstance(exception, AnalysisError) and own and trainer.is_global_zero:
            self._session = session
            session.finish_without_samples()
            self._session = None
        session.abort()

    def results(self) -> tuple[dict[str, Result], Result]:
        """By kind, those that are not finished yet; and what is of no kind of views.

        Raises:
            OSError: or whatever the listener has raised.
        """
        if self._refused is not None:
            raise self._refused
        kinds = dict.fromkeys(view.kind for view in self._looks)
        rest = {kind: self._result_of(kind) for kind in kinds if kind not in self._finished}
        return rest, self.result.part(lambda tag: view_kind(tag) not in kinds)

    def _result_of(self, kind: str) -> Result:
        part = self.result.part(lambda tag: view_kind(tag) == kind)
        part.state = {view.name: view.kept() for view in self.views if view.kind == kind}
        return part

    def _begins(self, view: Named) -> None:
        """What has been drawn so far is waited for before a view that takes long."""
        if self._refused is not None:
            raise self._refused  # the disk is full, say: nothing more is worth while
        self._collect(wait=self._passes.get(view.name, 0.0) > 0)
        self._listener.begins(view.kind)

    def _ends(self, view: Named) -> None:
        self._looked.add(view.name)
        self._collect()

    def _collect(self, *, wait: bool = False) -> None:
        """Take what is drawn, and hand on the kinds of which all is drawn.

        A kind that is animated, or of which a view did not look, is finished at the end.
        """
        session = self._session
        assert session is not None
        while True:
            session.pictures.collect()
            for kind in dict.fromkeys(view.kind for view in self._looks):
                views = [view for view in self.views if view.kind == kind and view in self._looks]
                settled = all(view.name in self._looked and session.settled(view) for view in views)
                if views and settled and kind not in self._finished and not any(view.animation for view in views):
                    self._finished.add(kind)
                    try:
                        self._listener.finished(kind, self._result_of(kind))
                    except Exception as error:  # which is no fault of a view
                        self._refused = self._refused or error
            if not wait or not session.pictures.process.drain(_WAIT_SECONDS):
                return


def _available(run: Run) -> int:
    """How many validation samples there are; 0 if their loaders do not tell."""
    count = 0
    for loader in tree_flatten(run.held_out_loaders)[0]:
        with suppress(TypeError, AttributeError, NotImplementedError):  # iterable data sets
            count += len(loader.dataset)
    return count


def validate(net: nn.Module, data: Data, callbacks: Sequence[Callback], **options: Any) -> dict[str, float]:
    """Run the validation data through a network once.

    The module's own ``validation_step`` is run, so that its own figures are found; where it has none, or cannot do
    outside of training, its forward.

    Args:
        net: LightningModule, or any other.
        data: as it was trained with.
        callbacks: that observe. If the module's own step fails they begin once more.
        **options: of the Trainer: accelerator, devices, strategy, precision.

    Returns:
        What the module itself logs.
    """
    module = for_trainer(net)
    pl = package_of(module)
    steps = type(module).validation_step is not pl.LightningModule.validation_step
    with loaded(data, pl) as given, _interruptible(), _quiet():
        trainer = _trainer(pl, callbacks, options)
        found: Sequence[Mapping[str, float]] = []
        try:
            if steps:
                found = trainer.validate(module, verbose=False, **given)
        except MalformedFileError:
            raise
        except Exception as error:
            name, why = type(net).__name__, error_text(error)
            warn_safely(f"the validation pass of {name} failed ({why}): its forward alone is run")
            trainer, steps = _trainer(pl, callbacks, options), False
        if not steps:
            with _forward_alone(module, pl):
                trainer.validate(module, verbose=False, **given)
    net.to(trainer.strategy.root_device)  # from which Lightning took it away; there it goes on
    return {name: float(value) for part in found for name, value in part.items()}


def _trainer(pl: Any, callbacks: Sequence[Callback], options: Mapping[str, Any]) -> Any:
    try:
        return pl.Trainer(
            logger=quiet_logger(),
            callbacks=list(callbacks),
            inference_mode=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"devices": 1, **options},
        )
    except (pl.utilities.exceptions.MisconfigurationException, TypeError, ValueError) as error:
        raise AnalysisError(f"Lightning refuses these devices, strategy or precision: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """What Lightning says to those who train (devices, tips, too few workers) is not for those who look."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=rf"({'|'.join(_LOGGERS)})(\.|$)")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lightning ends the process at Ctrl-C; here what is finished is still to be written."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextmanager
def _forward_alone(module: Any, pl: Any) -> Iterator[None]:
    """A validation step that runs the network's forward, and nothing of the module's own around it."""

    def validation_step(self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        inputs = split_batch(batch, network_of(self)).inputs
        listed = isinstance(inputs, Call) and inputs.images is not None
        try:
            call_model(network_of(self), (batch[0],) if listed else inputs)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            shapes = ", ".join(str(list(x.shape)) for x in all_tensors(inputs))
            raise AnalysisError(
                f"the model cannot take a batch of {shapes}: {str(error).splitlines()[0]}; give the data that it was "
                "trained with (of a folder's images: --size, --gray)"
            ) from error

    steps = {"validation_step": validation_step, **{name: getattr(pl.LightningModule, name) for name in _AROUND}}
    for name, step in steps.items():
        setattr(module, name, types.MethodType(step, module))
    try:
        yield
    finally:
        for name in steps:
            delattr(module, name)
