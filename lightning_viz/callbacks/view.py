"""The base of all views: when to look, at what, and how faults and state are kept."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn
from torch.nn.parameter import is_lazy

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.lightning import Callback, LightningModule, Trainer
from lightning_viz.callbacks.observer import Observer
from lightning_viz.callbacks.probe import Probe, Samples
from lightning_viz.callbacks.schedule import Schedule, Steps
from lightning_viz.callbacks.serialization import CHECKPOINT, RECIPE, from_plain, recipe_of, to_plain
from lightning_viz.callbacks.snapshot import Requirements, Snapshot
from lightning_viz.errors import InvalidArgumentError, LayerNotFoundError, ViewError, inform, warn_safely
from lightning_viz.hooks.model_state import preserve_state
from lightning_viz.pixels import PixelSpace

__all__ = ["View"]

_KEPT = ("last_step", "indices", "state", "memories")
_SHARDED = ("FSDP", "DeepSpeed", "ModelParallel")


@dataclass(kw_only=True, eq=False)
class View(Callback):
    """Looks at a model while it trains, without leaving a trace, and draws what it saw.

    A view says what it needs in `requirements`, may run passes of its own in `look`, and makes tasks of a `Snapshot` in
    `draw`. The
    first view among a trainer's callbacks leads: it runs one shared pass for all that are due.

    Args:
        every_n_epochs: look at the end of every n-th epoch; 1 if no other occasion is given.
        every_n_train_steps: look whenever the number of completed updates is a multiple.
        steps: look at these numbers of completed updates; ``"log"``: four a decade. In any case a view looks before
            the first update and at the end.
        probe: the samples to watch.
        pixel_space: how the model's inputs map to pixels; found in the data's ``Normalize`` transform if omitted.
        max_overhead: share of the training time for which training may be held, after 60 s in all.
        animation: at the end of fit, one animation over all logged steps.
    """

    every_n_epochs: int | None = None
    every_n_train_steps: int | None = None
    steps: Steps = None
    probe: Probe = field(default_factory=Probe)
    pixel_space: PixelSpace | None = None
    max_overhead: float = 0.05
    animation: bool = False

    kind: ClassVar[str] = "view"
    """First part of the view's tags."""

    def __post_init__(self) -> None:
        self.schedule = Schedule(self.every_n_epochs, self.every_n_train_steps, self.steps)
        if not self.max_overhead >= 0:
            raise InvalidArgumentError(
                f"max_overhead is {self.max_overhead!r}: give a share of the training time, 0 or more"
            )
        self.optional = False  # made by default_views(): steps aside where it does not suit
        self._trainer: weakref.ref[Any] | None = None
        self._forget()

    def _forget(self) -> None:
        """As before the first look."""
        self.last_step: int | None = None
        self.indices: tuple[int, ...] | None = None
        self.state: dict[str, Any] = {}
        self.memories: dict[str, Any] = {}
        self.held = 0.0
        """Seconds for which the view has held training since its last look."""
        self.observer: Observer | None = None

    # What a view is made of.

    def check(self, model: nn.Module) -> None:
        """Raise a `ViewError` that says what to do, if the view does not suit the model."""

    def requirements(self, model: nn.Module) -> Requirements:
        """What the shared pass must give."""
        return Requirements()

    def due(self, step: int, occasion: bool) -> bool:
        """Whether to look now.

        Args:
            step: completed updates.
            occasion: whether the schedule asks for it.
        """
        return self.last_step is None or (self.last_step != step and occasion)

    def passes(self, samples: Samples) -> float:
        """How many forward + backward passes of the probe's head the view runs by itself, beyond the shared one."""
        return 0.0

    def look(self, model: nn.Module, look: Snapshot) -> Mapping[str, Any]:
        """Passes of the view's own, right after the shared one; what they give is `Look.extra`."""
        return {}

    def draw(self, look: Snapshot) -> Iterable[DrawTask]:
        """The sketches of a look. What must stay the same from step to step is set in `state` at the first."""
        raise NotImplementedError

    # A view's place in a run.

    @property
    def name(self) -> str:
        """The view as it was written, which tells it from others: class and arguments."""
        return repr(self)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget another trainer's run, and check what can be known before the model is complete."""
        if stage != "fit":
            return
        if self._trainer is None or self._trainer() is not trainer:
            self._forget()
            self._trainer = weakref.ref(trainer)
        twins = [view for view in views_of(trainer) if view.name == self.name]
        if len(twins) > 1:
            raise ViewError(
                f"two equal views: {self.name} is among the callbacks twice; remove one or change an argument"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check all views against the model, and be ready to look."""
        if self._leads(trainer):
            self.observer = start(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep samples of data that can only be watched as it passes."""
        if self.observer is not None:
            self.observer.passing(batch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Look, if it is time: the weights are those after a whole number of updates."""
        if self.observer is not None:
            self.observer.on_step(batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, if it is time."""
        if self.observer is not None:
            self.observer.on_epoch_end()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for the last time, and wait for what is still being drawn."""
        if self.observer is not None:
            self.observer.finish()
            self.observer = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """See that what was observed is drawn and written; after Ctrl-C too."""
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no process behind."""
        self._close()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what makes the pictures of a resumed run the same."""
        leader = leader_of(trainer)
        if leader is not None and leader.observer is not None:
            leader.observer.collect()
        if self.last_step is not None:
            checkpoint.setdefault(CHECKPOINT, {})[self.name] = {**self.kept(), RECIPE: recipe_of(self)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on as the run that was interrupted."""
        self.restore(checkpoint)

    def kept(self) -> dict[str, Any]:
        """What `restore` goes on from, in plain values."""
        return {name: to_plain(getattr(self, name)) for name in _KEPT}

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the view's state from a checkpoint: scales, channels, the probe's indices, the last embedding."""
        kept = checkpoint.get(CHECKPOINT, {}).get(self.name)
        if kept is not None:
            for name in _KEPT:
                setattr(self, name, from_plain(kept[name]))

    def _leads(self, trainer: Trainer) -> bool:
        return leader_of(trainer) is self

    def _close(self) -> None:
        if self.observer is not None:
            self.observer.close()
            self.observer = None

    def __getstate__(self) -> dict[str, Any]:
        """What lives only in this process stays here; Lightning attaches the module's ``log`` to a callback."""
        kept = {name: value for name, value in self.__dict__.items() if name not in ("log", "log_dict")}
        return {**kept, "observer": None, "_trainer": None}


def views_of(trainer: Trainer) -> list[View]:
    """The views among a trainer's callbacks."""
    return [callback for callback in trainer.callbacks if isinstance(callback, View)]


def leader_of(trainer: Trainer) -> View | None:
    """The first of them, which looks for all."""
    return next(iter(views_of(trainer)), None)


def suitable(views: Iterable[View], model: LightningModule, *, say: Callable[[str], None] = inform) -> list[View]:
    """Those that suit a model.

    Args:
        views: to check against it.
        model: the run's.
        say: takes a line for each that steps aside.

    Raises:
        ViewError: a view that a person named does not suit; one made by `default_views` steps aside.
    """
    found = []
    for view in views:
        try:
            with preserve_state(model):  # a weight that is computed (spectral norm) moves on when it is asked for
                _check(view, model)
            found.append(view)
        except (ViewError, LayerNotFoundError) as error:
            if not view.optional:
                raise
            say(f"{view.kind} steps aside: {error}")
        except Exception as error:  # no misuse, but a fault of the view's own
            warn_safely(f"{view.kind} ({view.name}) is left out of this run: {type(error).__name__}: {error}")
    return found


def start(trainer: Trainer, pl_module: LightningModule) -> Observer | None:
    """Check all views of a run against its model, and start an observer for those that suit it.

    None where this process has nothing to look at: it is not the first of several, or it holds only a shard of the
    model, or a model without weights yet, which is said.

    Args:
        trainer: of the run.
        pl_module: its module.

    Raises:
        ViewError: see `suitable`.
    """
    if not trainer.is_global_zero:
        return None
    if reason := not_observed(trainer, pl_module):
        warn_safely(reason)
        return None
    found = suitable(views_of(trainer), pl_module)
    return Observer(trainer, pl_module, found) if found else None


def not_observed(trainer: Trainer, pl_module: LightningModule) -> str:
    """Why no process of a run can look at its model, in words; empty where they can.

    Args:
        trainer: of the run.
        pl_module: its module.
    """
    strategy = type(trainer.strategy).__name__
    if any(sharded in strategy for sharded in _SHARDED):
        return f"{strategy} shards the parameters over processes, which views do not support yet: nothing is logged"
    if any(map(is_lazy, (*pl_module.parameters(), *pl_module.buffers()))):
        return "layers of the model have no weights yet (lazy modules), so nothing is logged: run it once in setup()"
    return ""


def check_forward(model: LightningModule) -> None:
    """See that a model can be run.

    Args:
        model: the run's.

    Raises:
        ViewError: it has no ``forward``.
    """
    if type(model).forward.__qualname__ == "LightningModule.forward":
        raise ViewError(
            f"{type(model).__name__} has no forward(): define it, so that a view can run the model on inputs"
        )


def _check(view: View, model: LightningModule) -> None:
    check_forward(model)
    view.check(model)
    view.requirements(model)
