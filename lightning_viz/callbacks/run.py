"""Runs of Lightning's Trainer that views belong to, and everything private of Lightning's that we touch.

``pytorch_lightning`` and ``lightning.pytorch`` hold unrelated classes of the same names; a callback that descends from
both runs in both.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from torch import nn
from torch.distributed.constants import default_pg_timeout
from torch.nn.parameter import is_lazy

from lightning_viz.callbacks.run_protocol import Named, Update, ValidationPlace
from lightning_viz.callbacks.writers import Writer, find_writers, local_path
from lightning_viz.errors import ViewError, inform, warn_safely

Trainer = Any
LightningModule = Any

_said: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""Lines that are said once for each owner of runs, a Trainer say, however often it fits."""

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


class ReportingRun:
    """Faults and refusals of views as lines of the log.

    Attributes:
        most_faults: in a row, after which a view is switched off.
        goes_on: what continues after a fault, in words.
    """

    most_faults: float = 3
    goes_on: str = "training continues"

    @property
    def owner(self) -> Any:
        """Whose run it is, for all of whose runs a line is said once."""
        raise NotImplementedError

    def report_refusal(self, views: Sequence[Named], error: Exception) -> None:
        """One line for all of them: a warning if a person has named one."""
        say = inform if all(getattr(view, "optional", False) for view in views) else warn_safely
        say_once(self.owner, f"skipped {' and '.join(dict.fromkeys(view.label for view in views))}: {error}", say)

    def report_fault(self, views: Sequence[Named], step: int, error: Exception | str, *, switched_off: bool) -> None:
        """One warning."""
        which = "the view is" if len(views) == 1 else "the views are"
        end = f"{which} switched off after {self.most_faults} faults in a row" if switched_off else self.goes_on
        warn_safely(f"{view_list(views)} failed at step {step}: {error_text(error)} ({end})")

    def begins(self, view: Named) -> None:
        """Nothing: a log tells of views by their pictures."""

    def looked(self, view: Named) -> None:
        """Nothing either."""


class LightningRun:
    """A run of Lightning's Trainer, as far as the Trainer tells.

    Attributes:
        trainer: Lightning's.
        model: whose layers are watched.
    """

    trainer: Trainer
    model: Any

    @property
    def owner(self) -> Any:
        """The Trainer."""
        return self.trainer

    @property
    def trains(self) -> bool:
        """Whether weights are updated in it."""
        return bool(self.trainer.state.fn == "fit")

    @property
    def rehearses(self) -> bool:
        """Whether Lightning's sanity check runs."""
        return bool(self.trainer.sanity_checking)

    @property
    def held_out(self) -> Literal["validation", "test"]:
        """What the data are that it holds out: of ``Trainer.test``, test data."""
        return "test" if self.trainer.state.fn == "test" else "validation"

    @property
    def held_out_step(self) -> str:
        """The module's ``validation_step`` or ``test_step``."""
        return f"{self.held_out}_step"

    @property
    def held_out_loaders(self) -> Any:
        """The loaders of validation data, of test data in ``Trainer.test``; None where there are none."""
        loops = {"validate": self.trainer.validate_loop, "test": self.trainer.test_loop}
        combined = getattr(loops.get(self.trainer.state.fn), "_combined_loader", None)  # others remember an earlier fit
        return self.trainer.val_dataloaders if combined is None else combined.iterables

    @property
    def training_loaders(self) -> Any:
        """The loaders of training data."""
        return self.trainer.train_dataloader

    def prepared(self, batch: Any) -> Any:
        """A batch of a loader as the model is given it in validation.

        Args:
            batch: as a loader gives it.
        """
        stage = self.trainer.state.stage
        self.trainer.validating = self.trainer.validating or not self.trainer.testing  # batch hooks that augment ask
        try:
            batch = self.trainer.precision_plugin.convert_input(batch)
            return self.trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        finally:
            self.trainer.state.stage = stage

    def forward_context(self) -> AbstractContextManager[Any]:
        """In which forward passes run in the run's precision, as its training steps do."""
        return self.trainer.precision_plugin.forward_context()  # type: ignore[no-any-return]

    @property
    def is_global_zero(self) -> bool:
        """Whether this process is the first."""
        return bool(self.trainer.is_global_zero)

    @property
    def global_rank(self) -> int:
        """The number of this process."""
        return int(self.trainer.global_rank)

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return int(self.trainer.world_size)

    @property
    def collective_timeout(self) -> float:
        """Seconds after which a process that waits for others in a collective gives up."""
        timeout = getattr(self.trainer.strategy, "_timeout", None) or default_pg_timeout
        return float(timeout.total_seconds())

    @property
    def unobservable(self) -> str:
        """Why no process of a run can observe its model, in words; empty where they can."""
        return unobservable(self.trainer, self.model)

    @contextmanager
    def muted(self) -> Iterator[None]:
        """What a model hands to its loggers by itself, past ``log``, is dropped: the user's curves stay as they are."""
        loggers = self.trainer.loggers
        self.trainer.loggers = [quiet_logger() for _ in loggers]
        try:
            yield
        finally:
            self.trainer.loggers = loggers


@dataclass(eq=False)
class TrainerRun(LightningRun, ReportingRun):
    """A training, as Lightning's Trainer runs it.

    Attributes:
        trainer: in ``fit``.
        model: the LightningModule.
        finish_seconds: the most that the end of the training waits for drawing.
        beside_training: drawing leaves the cores to it.
    """

    trainer: Trainer
    model: LightningModule
    finish_seconds: float = 60.0
    beside_training: bool = True

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

    def next_update(self) -> Update:
        """What is known of the update that the batch belongs to which comes now."""
        trainer, batch_idx = self.trainer, self.trainer.fit_loop.epoch_loop.batch_idx
        step, ends_epoch = self.step + 1, batch_idx + 1 == trainer.num_training_batches
        ends_run = step == trainer.max_steps or (ends_epoch and self.epoch + 1 == trainer.max_epochs)
        return Update(step, self.epoch, ends_epoch, ends_run, self._validates_after(batch_idx))

    def _validates_after(self, batch_idx: int) -> bool:
        """Whether a validation pass is to be expected after a batch, by its number within the epoch."""
        if not self.trainer.enable_validation:
            return False
        every, per_epoch = self.trainer.val_check_batch, self.trainer.check_val_every_n_epoch is not None
        passed = batch_idx if per_epoch else self.batch
        between = every is not None and math.isfinite(every) and every > 0 and (passed + 1) % every == 0
        return bool(between or batch_idx + 1 == self.trainer.num_training_batches)

    def learning_rates(self) -> dict[int, tuple[int, float]]:
        """By the id of each parameter in training the number of its optimizer, and its rate; none of an evaluation."""
        return rates_of(self.trainer.optimizers) if self.trains else {}


def rates_of(optimizers: Iterable[Any]) -> dict[int, tuple[int, float]]:
    """By the id of each parameter in training the number of its optimizer, and its learning rate.

    Args:
        optimizers: of a run.
    """
    rates: dict[int, tuple[int, float]] = {}
    for number, optimizer in enumerate(optimizers):
        for group in optimizer.param_groups:
            rates.update({id(parameter): (number, float(group.get("lr", 1.0))) for parameter in group["params"]})
    return rates


def say_once(owner: Any, line: str, say: Callable[[str], None] = inform) -> None:
    """Say what holds for all runs of a Trainer, and do not repeat it when it fits or evaluates again.

    Args:
        owner: of the run.
        line: in words.
        say: prints it.
    """
    said = _said.setdefault(owner, set())
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
    whole = getattr(trainer.strategy, "zero_stage_3", True) is False  # of ZeRO-1 and -2, which shard other things
    if "FSDP" in strategy or ("DeepSpeed" in strategy and not whole):
        return (
            f"{strategy} shards the parameters in a way that views cannot follow, so nothing is logged: shard them by "
            "FSDP2, with strategy=ModelParallelStrategy()"
        )
    if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
        return "layers of the model have no weights yet (lazy modules), so nothing is logged: run it once in setup()"
    return ""


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
