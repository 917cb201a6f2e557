"""The run of a training loop that is not Lightning's: what the loop is seen to do, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch.distributed
from torch import Tensor, nn
from torch.distributed.constants import default_pg_timeout
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, IterableDataset

from lightning_viz.callbacks.run import ReportingRun, rates_of
from lightning_viz.callbacks.run_protocol import Update, ValidationPlace
from lightning_viz.callbacks.writers import TensorBoardWriter, Writer, find_writers, new_folder
from lightning_viz.errors import inform, warn_safely
from lightning_viz.hooks.pytree import on_device

_BATCH = 64
_SHARDED = ("FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")


@dataclass
class Log:
    """Where the pictures of a loop go: a folder, in which TensorBoard finds them, or loggers of the user's own.

    Attributes:
        folder: that is written to; a new one below ``lightning_viz_logs`` if omitted and there are no loggers.
        loggers: a ``SummaryWriter``, or whatever takes images.
    """

    folder: Path | None = None
    loggers: Sequence[Any] = ()
    _opened: Any = None

    def open(self) -> Sequence[Writer]:
        """The writers."""
        boards = [TensorBoardWriter(logger) for logger in self.loggers if hasattr(logger, "_get_file_writer")]
        others = [logger for logger in self.loggers if not hasattr(logger, "_get_file_writer")]
        if others:
            found, line = find_writers(others, self.folder or Path("lightning_viz_logs"))
            if line:
                warn_safely(line)
            return [*boards, *found]
        if boards:
            return boards
        from torch.utils.tensorboard import SummaryWriter  # which takes a while to import

        self._opened = SummaryWriter(str(self.folder or new_folder(Path("lightning_viz_logs"))))
        return [TensorBoardWriter(self._opened)]

    def close(self) -> None:
        """Close what was opened here."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()


@dataclass(eq=False)
class LoopRun(ReportingRun):
    """A loop of the user's own, or another framework's, as a `Run`.

    Attributes:
        model: that is trained, unwrapped.
        held_out_loaders: of the data that are watched; None where samples are taken as they pass.
        training_loaders: of the training data, as far as they are known.
        log: of the pictures.
        optimizers: as far as they are known.
        finish_seconds: the most that the end of the loop waits for drawing.
        precision: in which forward passes run.
        step: completed updates.
        epoch: the current one, counted from 0.
        ends_epoch: whether the update that comes now is known to be its epoch's last.
        ends_run: whether the run is known to end with it.
        sharded: whether the model was given in a wrapper that shards it over processes.
    """

    model: nn.Module
    held_out_loaders: Any
    log: Log
    optimizers: list[Any] = field(default_factory=list)
    finish_seconds: float = 60.0
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    step: int = 0
    epoch: int = 0
    ends_epoch: bool = False
    ends_run: bool = False
    sharded: str = ""
    training_loaders: Any = None
    beside_training: bool = True
    trains: bool = True
    validates: bool = False
    rehearses: bool = False
    interrupted: bool = False
    held_out: Literal["validation", "test"] = "validation"
    held_out_step: str = ""
    ending: str = ""

    @property
    def owner(self) -> Any:
        """Itself."""
        return self

    def validation_place(self) -> ValidationPlace:
        """Validation passes are not watched."""
        return ValidationPlace(self.step, None, last=False)

    def next_update(self) -> Update:
        """What is known of the update that comes now."""
        return Update(self.step + 1, self.epoch, self.ends_epoch, self.ends_run)

    def learning_rates(self) -> dict[int, tuple[int, float]]:
        """Of the optimizers that are known."""
        return rates_of(self.optimizers)

    def prepared(self, batch: Any) -> Any:
        """A batch on the model's device.

        Args:
            batch: as a loader gives it.
        """
        return on_device(self.model, batch)

    def forward_context(self) -> AbstractContextManager[Any]:
        """In which forward passes run in the loop's precision, as far as it is known."""
        return self.precision()

    @property
    def is_global_zero(self) -> bool:
        """Whether this process is the first."""
        return self.global_rank == 0

    @property
    def global_rank(self) -> int:
        """The number of this process."""
        return torch.distributed.get_rank() if _distributed() else 0

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return torch.distributed.get_world_size() if _distributed() else 1

    @property
    def collective_timeout(self) -> float:
        """Seconds after which a process that waits for others in a collective gives up, by default."""
        return float(default_pg_timeout.total_seconds())

    @property
    def unobservable(self) -> str:
        """Why no process can observe the model, in words; empty where they can."""
        if self.sharded:
            return f"{self.sharded} shards the parameters over processes, which views do not support: nothing is logged"
        if any(map(is_lazy, (*self.model.parameters(), *self.model.buffers()))):
            return "layers of the model have no weights yet (lazy modules), so nothing is logged: run it once before"
        return ""

    def open_writers(self) -> Sequence[Writer]:
        """Where pictures go."""
        return self.log.open()

    @contextmanager
    def muted(self) -> Iterator[None]:
        """The loop's own loggers are not known to the model."""
        yield


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def sharding_of(model: nn.Module) -> str:
    """The name of the wrapper by which a model is sharded over processes; empty where it is whole on each.

    Args:
        model: as the loop has it.
    """
    kinds = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    return next((name for name in _SHARDED if name in kinds), "")


def unwrapped(model: nn.Module) -> tuple[nn.Module, bool]:
    """The module in wrappers of Fabric, of data parallelism and of the compiler, and whether it is compiled.

    Args:
        model: as the loop has it.
    """
    compiled = False
    while True:
        kinds = {kind.__name__ for kind in type(model).__mro__}
        if "OptimizedModule" in kinds:
            model, compiled = model._orig_mod, True  # type: ignore[assignment]
        elif kinds & {"_FabricModule", "DistributedDataParallel", "DataParallel"}:
            model = model.module  # type: ignore[assignment]
        else:
            return model, compiled


def loader_of(data: Any, collate: Callable[[list[Any]], Any] | None = None) -> Any:
    """The loader, or the batches, of data that are to be watched.

    Args:
        data: a loader, a data set, or a batch: a tensor, or tensors in a tuple, list, mapping or data class.
        collate: puts a data set's samples together; torch's default if omitted.
    """
    data = getattr(data, "_dataloader", data)  # Fabric's wrapper
    if data is None or isinstance(data, DataLoader):
        return data
    if isinstance(data, (Tensor, tuple, list, Mapping)) or hasattr(data, "__dataclass_fields__"):
        return [data]
    if isinstance(data, IterableDataset) or (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        return DataLoader(data, batch_size=_BATCH, collate_fn=collate)
    return data


def tell_of_epochs(views: Sequence[Any]) -> None:
    """Say that views waited for the ends of epochs, which the loop never told.

    Args:
        views: of the run.
    """
    waiting = [view for view in views if view.schedule.at_epoch_end(view.schedule.every_n_epochs or 1)]
    waiting = [view for view in waiting if view.every_n_train_steps is None and view.steps is None]
    if waiting:
        inform(
            "no epoch was ended, so the views looked at the first and the last step only: call end_epoch(), go through "
            'the loader by epoch(), or give default_views(steps="log") or every_n_train_steps='
        )
