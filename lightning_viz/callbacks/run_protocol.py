"""What a session asks of the run that it belongs to: a training, a validation pass, a loop of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from lightning_viz.callbacks.writers import Writer


class ValidationPlace(NamedTuple):
    """Where a validation pass stands in a run.

    Attributes:
        step: completed updates.
        epoch: that ends with the pass, counted from 0; None within an epoch.
        last: whether the run ends with the pass.
    """

    step: int
    epoch: int | None
    last: bool


class Update(NamedTuple):
    """What is known of an update that is about to come.

    Attributes:
        step: updates that are completed with it.
        epoch: that runs, counted from 0.
        ends_epoch: whether it is the epoch's last.
        ends_run: whether the run is known to end with it.
        validated: whether a validation pass is to be expected right after it.
    """

    step: int
    epoch: int
    ends_epoch: bool = False
    ends_run: bool = False
    validated: bool = False


class Named(Protocol):
    """A view, as far as a run names it."""

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """Tells it from others."""

    @property
    def label(self) -> str:
        """The same, short enough for a line."""


class Run(Protocol):
    """What a `Session` asks of a run.

    Attributes:
        model: whose layers are watched.
        most_faults: in a row, after which a view is switched off.
        finish_seconds: the most that the end of the run waits for drawing.
        beside_training: whether drawing leaves the cores to a training.
    """

    model: Any
    most_faults: float
    finish_seconds: float
    beside_training: bool

    @property
    def owner(self) -> Any:
        """Whose run it is, a Trainer say, for all of whose runs a line is said once; any object that can be a key."""

    # Where it stands.

    @property
    def step(self) -> int:
        """Completed updates of the weights: the x of the user's own curves."""

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 0."""

    @property
    def trains(self) -> bool:
        """Whether weights are updated in it."""

    @property
    def validates(self) -> bool:
        """Whether there are validation passes."""

    @property
    def rehearses(self) -> bool:
        """Whether the validation pass that runs now is none, but a check of a few batches before training."""

    @property
    def interrupted(self) -> bool:
        """Whether the process is to end soon, so that nothing may wait."""

    def validation_place(self) -> ValidationPlace:
        """Where the validation pass stands that runs now."""

    def next_update(self) -> Update:
        """What is known of the update that the batch belongs to which comes now."""

    def learning_rates(self) -> Mapping[int, tuple[int, float]] | None:
        """By the id of each parameter in training the number of its optimizer, and its learning rate.

        None if the run's updates are not there to be seen, as of a checkpoint.
        """

    # Its data.

    @property
    def held_out(self) -> Literal["validation", "test"]:
        """What the data are that it holds out."""

    @property
    def held_out_step(self) -> str:
        """The name of the model's own step on these; empty if it has none."""

    @property
    def held_out_loaders(self) -> Any:
        """Their loaders: one, several, or batches; None where there are none."""

    @property
    def training_loaders(self) -> Any:
        """The same of the training data."""

    def prepared(self, batch: Any) -> Any:
        """A batch of a loader as the model is given it in validation: on its device, in the run's precision.

        Args:
            batch: as a loader gives it.
        """

    def forward_context(self) -> AbstractContextManager[Any]:
        """In which forward passes run in the run's precision."""

    # Its processes.

    @property
    def is_global_zero(self) -> bool:
        """Whether this process is the first."""

    @property
    def global_rank(self) -> int:
        """The number of this process."""

    @property
    def world_size(self) -> int:
        """How many processes there are."""

    @property
    def collective_timeout(self) -> float:
        """Seconds after which a process that waits for others in a collective gives up."""

    # What is said and written.

    @property
    def ending(self) -> str:
        """Of all tags; empty as a rule."""

    @property
    def unobservable(self) -> str:
        """Why no process can observe the model, in words; empty where they can."""

    def open_writers(self) -> Sequence[Writer]:
        """Where pictures go."""

    def muted(self) -> AbstractContextManager[None]:
        """In which what the model hands to the user's loggers is dropped."""

    def report_fault(self, views: Sequence[Named], step: int, error: Exception | str, *, switched_off: bool) -> None:
        """Tell that views failed of one cause, without ending the run."""

    def report_refusal(self, views: Sequence[Named], error: Exception) -> None:
        """Tell why views can draw nothing of the model, and are skipped from now on."""

    def begins(self, view: Named) -> None:
        """The view's own passes begin."""

    def looked(self, view: Named) -> None:
        """The view has looked, and what it draws is on its way."""
