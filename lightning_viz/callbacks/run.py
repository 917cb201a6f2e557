"""Runs that views belong to: what a session asks of one, and everything private of Lightning's that we touch.

``pytorch_lightning`` and ``lightning.pytorch`` hold unrelated classes of the same names; a callback that descends from
both runs in both.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from torch import nn
from torch.distributed.constants import default_pg_timeout
from torch.nn.parameter import is_lazy

from lightning_viz.callbacks.writers import Writer, find_writers, local_path
from lightning_viz.errors import ViewError, inform, warn_safely

Trainer = Any
LightningModule = Any

_said: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""Lines that are said once for each Trainer, however often it fits."""

_SHARDED = ("FSDP", "DeepSpeed", "ModelParallel")

_installed = [
    importlib.import_module(name)
    for name, package in (("pytorch_lightning", "pytorch_lightning"), ("lightning.pytorch", "lightning"))
    if importlib.util.find_spec(package) is not None
]

if TYPE_CHECKING:

    class Callback:
        """What Lightning calls during a run."""

else:
    Callback = type(
        "Callback",
        tuple(package.Callback for package in _installed),
        {"__doc__": "What Lightning calls during a run.", "__module__": __name__},
    )


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
    """What a `Session` asks of a training, or of the validation pass of a checkpoint.

    Attributes:
        trainer: Lightning's, which tells devices, precision, data and processes.
        model: whose layers are watched.
        most_faults: in a row, after which a view is switched off.
        finish_seconds: the most that the end of the run waits for drawing.
        beside_training: whether drawing leaves the cores to a training.
    """

    trainer: Trainer
    model: Any
    most_faults: float
    finish_seconds: float
    beside_training: bool

    @property
    def ending(self) -> str:
        """Of all tags; empty as a rule."""

    @property
    def step(self) -> int:
        """Completed updates of the weights: the x of the user's own curves."""

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 0."""

    @property
    def validates(self) -> bool:
        """Whether there are validation passes."""

    @property
    def interrupted(self) -> bool:
        """Whether the process is to end soon, so that nothing may wait."""

    def validation_place(self) -> ValidationPlace:
        """Where the validation pass stands that runs now."""

    def open_writers(self) -> Sequence[Writer]:
        """Where pictures go."""

    def report_fault(self, views: Sequence[Named], step: int, error: Exception | str, *, switched_off: bool) -> None:
        """Tell that views failed of one cause, without ending the run."""

    def report_refusal(self, views: Sequence[Named], error: Exception) -> None:
        """Tell why views can draw nothing of the model, and are skipped from now on."""


@dataclass
class TrainerRun:
    """A training, as Lightning's Trainer runs it.

    Attributes:
        trainer: in ``fit``.
        model: the LightningModule.
        most_faults: in a row, after which a view is switched off.
        finish_seconds: the most that the end of the training waits for drawing.
        beside_training: drawing leaves the cores to it.
        goes_on: what continues after a fault, in words.
    """

    trainer: Trainer
    model: LightningModule
    most_faults: float = 3
    finish_seconds: float = 60.0
    beside_training: bool = True
    goes_on: str = "training continues"

    @property
    def ending(self) -> str:
        """None: tags are the views' own."""
        return ""

    @property
    def step(self) -> int:
        """Completed updates, right before a batch and at the end of an epoch; ``global_step`` counts each optimizer."""
        return int(self.trainer.fit_loop.epoch_loop._batches_that_stepped)

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 0."""
        return int(self.trainer.current_epoch)

    @property
    def batch(self) -> int:
        """Batches so far, of all epochs; goes on after a resume."""
        return int(self.trainer.fit_loop.epoch_loop.total_batch_idx)

    @property
    def interrupted(self) -> bool:
        """Whether the process was asked to terminate; Lightning raises that only at the next batch."""
        return bool(self.trainer.received_sigterm)

    @property
    def validates(self) -> bool:
        """Whether there are validation passes."""
        return bool(self.trainer.enable_validation)

    def validation_place(self) -> ValidationPlace:
        """Where the validation pass stands that runs now; Lightning has not counted the last update yet."""
        loop = self.trainer.fit_loop.epoch_loop
        step = int(loop._batches_that_stepped) + (not loop._should_accumulate())
        if not loop._num_ready_batches_reached():
            return ValidationPlace(step, None, bool(loop._is_training_done))
        return ValidationPlace(step, self.epoch, self.epoch + 1 == self.trainer.max_epochs)

    def open_writers(self) -> Sequence[Writer]:
        """The user's loggers that take images, or a folder; none in a ``fast_dev_run``, as with Lightning's own."""
        if self.trainer.fast_dev_run:
            return []
        root = local_path(self.trainer.default_root_dir) or Path.cwd()  # nothing else here writes to gs:// and the like
        writers, line = find_writers(self.trainer.loggers, root / "lightning_viz_logs")
        if line:
            warn_safely(line)
        return writers

    def report_refusal(self, views: Sequence[Named], error: Exception) -> None:
        """One line for all of them: a warning if a person has named one."""
        say = inform if all(getattr(view, "optional", False) for view in views) else warn_safely
        say_once(self.trainer, f"skipped {' and '.join(dict.fromkeys(view.label for view in views))}: {error}", say)

    def report_fault(self, views: Sequence[Named], step: int, error: Exception | str, *, switched_off: bool) -> None:
        """One warning."""
        which = "the view is" if len(views) == 1 else "the views are"
        end = f"{which} switched off after {self.most_faults} faults in a row" if switched_off else self.goes_on
        warn_safely(f"{view_list(views)} failed at step {step}: {error_text(error)} ({end})")


def validates_after(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a validation pass is to be expected after a batch of training.

    Args:
        trainer: before the batch.
        batch_idx: number of the batch within the epoch.
    """
    if not trainer.enable_validation:
        return False
    every, per_epoch = trainer.val_check_batch, trainer.check_val_every_n_epoch is not None
    passed = batch_idx if per_epoch else int(trainer.fit_loop.epoch_loop.total_batch_idx)
    between = every is not None and math.isfinite(every) and every > 0 and (passed + 1) % every == 0
    return bool(between or batch_idx + 1 == trainer.num_training_batches)


def learning_rates(trainer: Trainer) -> dict[int, tuple[int, float]]:
    """By the id of each parameter in training the number of its optimizer, and its learning rate.

    Args:
        trainer: of the run; of one that does not train, or whose optimizers are others, there are none.
    """
    if trainer.state.fn != "fit":
        return {}
    rates: dict[int, tuple[int, float]] = {}
    for number, optimizer in enumerate(trainer.optimizers):
        for group in optimizer.param_groups:
            rates.update({id(parameter): (number, float(group.get("lr", 1.0))) for parameter in group["params"]})
    return rates


def say_once(trainer: Trainer, line: str, say: Callable[[str], None] = inform) -> None:
    """Say what holds for all runs of a Trainer, and do not repeat it when it fits or evaluates again.

    Args:
        trainer: of the run.
        line: in words.
        say: prints it.
    """
    said = _said.setdefault(trainer, set())
    if line not in said:
        said.add(line)
        say(line)


def view_list(views: Sequence[Named]) -> str:
    """Views in words: ``GradCAM, Saliency and 3 more``.

    Args:
        views: one or more.
    """
    labels = list(dict.fromkeys(view.label for view in views))
    if len(labels) > 4:
        return f"{', '.join(labels[:3])} and {len(labels) - 3} more"
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def error_text(error: Exception | str) -> str:
    """An error in words.

    Args:
        error: raised, or in words already.
    """
    return error if isinstance(error, str) else f"{type(error).__name__}: {error}"


def unobservable(trainer: Trainer, model: LightningModule) -> str:
    """Why no process of a run can observe its model, in words; empty where they can.

    Args:
        trainer: of the run.
        model: its module.
    """
    strategy = type(trainer.strategy).__name__
    if any(sharded in strategy for sharded in _SHARDED):
        return f"{strategy} shards the parameters over processes, which views do not support yet: nothing is logged"
    if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
        return "layers of the model have no weights yet (lazy modules), so nothing is logged: run it once in setup()"
    return ""


def collective_timeout(trainer: Trainer) -> float:
    """Seconds after which a process that waits for others in a collective gives up.

    Args:
        trainer: of several processes.
    """
    timeout = getattr(trainer.strategy, "_timeout", None) or default_pg_timeout
    return float(timeout.total_seconds())


def averaging_text(trainer: Trainer, first_view: Callback) -> str:
    """Which weights views draw where a callback averages them, in words; empty where none does.

    Args:
        trainer: of the run.
        first_view: whose hooks let all views look.
    """
    for place, callback in enumerate(trainer.callbacks):
        names = {base.__name__ for base in type(callback).__mro__}
        if not names & {"WeightAveraging", "StochasticWeightAveraging"}:
            continue
        watched = "; those that watch validation passes see the averaged ones" if "WeightAveraging" in names else ""
        last = place < trainer.callbacks.index(first_view)  # its hook at the end of training comes first
        ends = "; a look after the last epoch's end draws the averaged ones" if last else ""
        return f"{type(callback).__name__} averages weights: views draw the current ones{watched}{ends}"
    return ""


def check_forward(model: nn.Module) -> None:
    """See that a model can be run.

    Args:
        model: the run's.

    Raises:
        ViewError: it has no ``forward``.
    """
    if any(type(model).forward is package.LightningModule.forward for package in _installed):
        raise ViewError(
            f"{type(model).__name__} has no forward(): define it, so that a view can run the model on inputs"
        )


UPDATES = ("loops", "fit_loop", "epoch_loop.state_dict", "_batches_that_stepped")
"""Where a checkpoint keeps how many batches the weights were updated with: names of mappings, and of the number."""


def completed_updates(checkpoint: Mapping[str, Any]) -> int:
    """Completed updates of a checkpoint's weights: the x of the run's own curves.

    Args:
        checkpoint: as Lightning saved it.
    """
    steps = int(checkpoint.get("global_step", 0))
    *places, number = UPDATES
    for place in places:
        checkpoint = checkpoint.get(place, {})
    stepped = int(checkpoint.get(number, steps))
    # With one optimizer Lightning's count of its steps is right wherever a checkpoint is saved, the other lags by
    # one within a batch; with several optimizers the first counts each of them.
    return steps if steps - stepped in (0, 1) else stepped


def give_training_data(trainer: Trainer, loader: Any) -> None:
    """Let a Trainer that validates have a ``train_dataloader``.

    Args:
        trainer: in validation.
        loader: of the training data.
    """
    trainer.fit_loop._combined_loader = package_of().utilities.combined_loader.CombinedLoader(loader)


def held_out_loaders(trainer: Trainer) -> Any:
    """The loaders of validation data, of test data in ``Trainer.test``; None where there are none.

    Args:
        trainer: of the run, which remembers the loaders of an earlier fit.
    """
    loops = {"validate": trainer.validate_loop, "test": trainer.test_loop}
    combined = getattr(loops.get(trainer.state.fn), "_combined_loader", None)
    return trainer.val_dataloaders if combined is None else combined.iterables


def held_out_step(trainer: Trainer) -> str:
    """The name of the module's step on held-out data: ``validation_step``, or ``test_step`` in ``Trainer.test``."""
    return "test_step" if trainer.state.fn == "test" else "validation_step"


def package_of(module: Any = None) -> Any:
    """The package of a LightningModule or LightningDataModule: ``pytorch_lightning`` or ``lightning.pytorch``.

    Args:
        module: of a class of one of them; anything else may go with either.
    """
    ours = (one for one in _installed if isinstance(module, (one.LightningModule, one.LightningDataModule)))
    return next(ours, _installed[0])


def data_modules() -> tuple[type, ...]:
    """The classes LightningDataModule, of each package that is installed."""
    return tuple(package.LightningDataModule for package in _installed)


def quiet_logger() -> Any:
    """A logger that takes whatever a module hands to it, and keeps nothing."""
    return _installed[0].loggers.logger.DummyLogger()


@contextmanager
def muted(trainer: Trainer) -> Iterator[None]:
    """What a model hands to its loggers by itself, past ``log``, is dropped: the user's curves stay as they are."""
    loggers = trainer.loggers
    trainer.loggers = [quiet_logger() for _ in loggers]
    try:
        yield
    finally:
        trainer.loggers = loggers
