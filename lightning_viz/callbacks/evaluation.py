"""Views in ``Trainer.validate`` and ``Trainer.test``: one look, when the pass has ended, at the data that passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from lightning_viz.callbacks.environment import silenced
from lightning_viz.callbacks.run import (
    LightningModule,
    Trainer,
    TrainerRun,
    completed_updates,
    view_list,
)
from lightning_viz.callbacks.run_protocol import ValidationPlace
from lightning_viz.callbacks.session import Session, session
from lightning_viz.callbacks.sessions import start_session
from lightning_viz.callbacks.snapshot import ViewLike
from lightning_viz.catalogue import views as catalogue
from lightning_viz.errors import inform

EVALUATIONS = ("validate", "test")
KEPT = ("last_step", "indices", "state", "memories", "frames")
"""What a view goes on from."""


class Restorable(ViewLike, Protocol):
    """A view whose state can be set aside."""

    set_aside: SetAside | None

    def forget(self) -> None:
        """Be as before the first look."""

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the view's state from a checkpoint."""


class SetAside:
    """What a view goes on from in training, while the Trainer evaluates other data or other weights.

    Args:
        view: of the Trainer.
        stage: that begins.

    Attributes:
        step: completed updates of the checkpoint that is evaluated; None where it is the model as it is.
    """

    def __init__(self, view: Restorable, stage: Literal["validate", "test"]) -> None:
        self.step: int | None = None
        self._view, self._stage = view, stage
        self._state = {name: getattr(view, name) for name in KEPT}
        if stage == "test":  # other samples
            view.forget()

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """The weights of a checkpoint are evaluated: as the view saw them then, with its scales and channels.

        Args:
            checkpoint: as Lightning saved it.
        """
        self.step = completed_updates(checkpoint)
        if self._stage == "validate":
            self._view.forget()
            self._view.restore(checkpoint)
            self._view.frames = {}
            if self._state["last_step"] is None:  # another run has drawn it, elsewhere
                self._view.last_step = None

    def put_back(self) -> None:
        """The Trainer is done: training goes on from where it was."""
        if self._stage == "test" or self.step is not None:
            for name, value in self._state.items():
                setattr(self._view, name, value)


@dataclass(eq=False)
class EvaluationRun(TrainerRun):
    """A pass of ``Trainer.validate`` or ``Trainer.test``, at whose end views look once.

    Attributes:
        loaded: completed updates of the checkpoint whose weights are evaluated; those of the Trainer's own training if
            None.
    """

    loaded: int | None = None
    goes_on: str = "the evaluation continues"

    @property
    def step(self) -> int:
        """Completed updates of the weights that are evaluated."""
        return super().step if self.loaded is None else self.loaded

    @property
    def validates(self) -> bool:
        """It is nothing else."""
        return True

    @property
    def ending(self) -> str:
        """Of the tags of test data, which a run's own tags are of other samples than."""
        return "test" if self.held_out == "test" else ""

    def validation_place(self) -> ValidationPlace:
        """The one pass is the last."""
        return ValidationPlace(self.step, None, last=True)


def start_evaluation(trainer: Trainer, model: LightningModule, views: Sequence[Restorable]) -> None:
    """Start a session for a Trainer that evaluates; not inside a fit, nor where nothing is logged, as in `analyze`.

    Args:
        trainer: whose first batch comes.
        model: its module.
        views: all that it has.

    Raises:
        ViewError: see `start_session`.
    """
    if silenced() or trainer.state.fn not in EVALUATIONS or session(trainer) is not None or _logs_nothing(trainer):
        return
    aside, name = views[0].set_aside, f"Trainer.{trainer.state.fn.value}"
    loaded = None if aside is None else aside.step
    run = EvaluationRun(trainer, model, loaded=loaded, finish_seconds=max(view.finish_seconds for view in views))
    suited = [view for view in views if (row := catalogue().get(view.kind)) is None or row.offline]
    unseen = [view for view in suited if view.last_step != run.step]
    lacking = [view for view in unseen if view.probe.source == "train" and not view.probe.given]
    lacking = [] if trainer.train_dataloader is not None else lacking
    training_only = [view for view in views if view not in suited and not view.optional]
    lines = (
        f"{view_list(training_only)}: drawn in training only, nothing in {name}" if training_only else "",
        f"{view_list(lacking)}: of training data, which {name} does not have" if lacking else "",
    )
    for line in filter(None, lines if trainer.is_global_zero else ()):
        inform(line)
    shown = [view for view in unseen if view not in lacking]
    started = start_session(run, shown) if shown else None
    if started is None and any(view.last_step == run.step for view in suited) and trainer.is_global_zero:
        inform(f"views have drawn step {run.step} before: {name} draws nothing anew")


def end_evaluation(running: Session) -> None:
    """The pass has ended: let its views look.

    Args:
        running: the session of a Trainer; one of a fit goes on.
    """
    if isinstance(running.run, EvaluationRun):
        with torch.inference_mode(False):  # in which there are no gradients
            running.finish()


def _logs_nothing(trainer: Trainer) -> bool:
    return any(type(logger).__name__ == "DummyLogger" for logger in trainer.loggers)
