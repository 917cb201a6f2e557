"""A training of a second with a fault planted in one stage of its views' work, or the same training without views."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import planted
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyExperiment, Logger
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import ActivationStatistics, FirstLayerFilters, GradCAM, Probe, Saliency
from lightning_viz.callbacks import draw_worker, drawing, drawing_queue, picture_log, probe_loading, sample_fetch, view
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.picture_log import PictureLog
from lightning_viz.callbacks.session import session
from lightning_viz.callbacks.shared_pass import SharedPass

EPOCHS, BATCHES = 3, 4
PLACES = ("first", "middle", "last")
FINISH_SECONDS, FETCH_SECONDS = 20.0, 4.0
Moment = tuple[str, int]
"""A hook, and which time it is called: ``("batch", 6)``; ``("end", 0)`` is the end of training."""


class Net(pl.LightningModule):
    """A small classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(1, 3, 3), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(F.relu(self.conv(x)).mean((2, 3)))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = F.cross_entropy(self(F.dropout(batch[0], 0.1)), batch[1])  # draws from torch's generator
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-2)


class Images(Logger):
    """A logger that takes images, as files."""

    name, version = "images", "0"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder / "images"
        self.folder.mkdir(exist_ok=True)

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    @property
    def experiment(self) -> Any:
        return DummyExperiment()

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Numbers are not kept."""

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        """Neither are these."""

    def log_image(self, key: str, images: list[Any], step: int, caption: list[str]) -> None:
        buffer = io.BytesIO()
        images[0].save(buffer, "png")
        path = self.folder / f"{key.replace('/', '_')}_{step}.png"
        path.write_bytes(buffer.getvalue())


class Event(NamedTuple):
    """What happens to the run itself, with views or without: a signal or its end at a moment."""

    moment: Moment
    how: str


@dataclass(frozen=True)
class Row:
    """A run.

    Attributes:
        stage: that the fault strikes.
        fault: its kind.
        place: where in the run.
        how: the fault itself, see `planted.strike`.
        victim: the process that it strikes: ``run``, ``artist`` (which draws) or ``worker`` (which fetches).
        kind: of the view that is struck, the first part of its tags.
        lasting: whether it strikes again each time, from then on.
        logger: ``board``, ``folder`` or ``images``.
        accumulate: batches for an update.
        workers: that load training data.
        cold: whether drawing processes are started as ever; else they are forked from the run, see `ForkedDrawing`.
        views: whether there are any.
    """

    stage: str
    fault: str
    place: str
    how: str = "RuntimeError"
    victim: str = "run"
    kind: str = "saliency"
    lasting: bool = False
    logger: str = "board"
    accumulate: int = 1
    workers: int = 0
    cold: bool = False
    views: bool = True

    @property
    def moment(self) -> Moment:
        """At which hook the stage is reached."""
        place = PLACES.index(self.place)
        match self.stage:
            case "fetch":
                return "batch", 0
            case "write" | "collect":  # what was drawn of the look before
                return (("batch", 1), ("batch", 7), ("end", 0))[place]
            case "reduce":
                return "validation", place
            case "checkpoint":
                return "save", place
            case "drain":
                return "end", 0
            case "resume":
                return "load", 0
        return (("batch", 0), ("batch", 6), ("end", 0))[place]

    @property
    def event(self) -> Event | None:
        """What it comes to for the run itself; None if it goes on as if nothing had happened."""
        ends = self.victim == "run" and self.how in (*planted.SIGNALS, "kill", "hang until Ctrl-C")
        return Event(self.moment, "SIGINT" if self.how == "hang until Ctrl-C" else self.how) if ends else None

    @property
    def resumes(self) -> int:
        """After how many epochs the run is resumed; 0 if it is not."""
        return PLACES.index(self.place) + 1 if self.stage == "resume" else 0

    @property
    def reference(self) -> tuple[Any, ...]:
        """What tells the run without views."""
        return self.event, self.resumes, self.logger, self.accumulate, self.workers


class Clock(pl.Callback):
    """Comes before the views: knows where the run stands, keeps a trail of its weights; an event happens here.

    Args:
        folder: of the run.
        event: that happens, if any.
        waits: whether the views' drawings are waited for before each batch.
    """

    def __init__(self, folder: Path, event: Event | None, *, waits: bool) -> None:
        self.folder, self.event, self.waits = folder, event, waits
        self.now: Moment = ("start", 0)
        self.trainer: Any = None
        self._saves = count()

    def reaches(self, hook: str, number: int) -> None:
        """Be at a moment."""
        self.now = hook, number
        if self.event is not None and self.event.moment == self.now:
            planted.strike(self.event.how)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.trainer = trainer

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.waits and (running := session(trainer)):
            running.pictures.process.drain(30.0)
        self.reaches("batch", trainer.fit_loop.epoch_loop.total_batch_idx)

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        with (self.folder / "trail").open("a") as file:
            file.write(f"{trainer.global_step} {digest(trainer.lightning_module.state_dict())}\n")

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *more: Any) -> None:
        self.reaches("validation", trainer.current_epoch if batch_idx == 0 else -1)

    def on_save_checkpoint(self, *arguments: Any) -> None:
        self.reaches("save", next(self._saves))

    def on_load_checkpoint(self, *arguments: Any) -> None:
        self.reaches("load", 0)

    def on_train_end(self, *arguments: Any) -> None:
        self.reaches("end", 0)


def digest(state: Any) -> str:
    """A few letters that tell tensors from others."""
    whole = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        whole.update(name.encode() + tensor.cpu().numpy().tobytes())
    return whole.hexdigest()[:16]


def views_of(row: Row) -> list[Any]:
    """Cheap views: of a probe of two samples, and one of three; more where the row needs them."""
    waits = row.stage == "draw" and row.how in ("hang", "stop")
    between = (6, 9) if row.lasting else (6,) if row.place == "middle" else ()  # batches between first and last look
    options = {
        "steps": [batch // row.accumulate for batch in between],
        "finish_seconds": 2.0 if waits else FINISH_SECONDS,
        "free_megabytes": 1.0,
    }
    views = [
        FirstLayerFilters(probe=Probe(samples=2), **options),
        Saliency(probe=Probe(samples=2), **options),
        GradCAM(probe=Probe(samples=3), **options),
    ]
    if row.cold or row.stage == "fetch":
        views.append(Saliency(method="input_times_gradient", probe=Probe(samples=4), **options))
    if row.cold or row.stage == "reduce":
        views.append(ActivationStatistics(layers="conv", probe=Probe(samples=2), **options))
    return views


def run(row: Row, folder: Path) -> None:
    """Train, and where the row says so resume.

    Args:
        row: what to run.
        folder: for everything that the run writes.
    """
    torch.set_num_threads(1)
    if not row.cold:
        subprocess.Popen = ForkedDrawing
    if row.stage != "drain":
        drawing._cores = lambda: 1  # no second process at the end, which takes longer to start than there is to draw
    clock = Clock(
        folder,
        None if row.views else row.event,
        waits=row.stage in ("write", "collect") or (row.stage, row.place) == ("draw", "last"),
    )
    if not row.resumes:
        with plant(row, clock) if row.views else contextlib.nullcontext():
            fit(row, folder, clock, EPOCHS)
        return
    fit(replace(row, stage="none"), folder, Clock(folder, None, waits=False), row.resumes)
    with plant(row, clock) if row.views else contextlib.nullcontext():
        fit(row, folder, clock, row.resumes + 1, str(folder / "checkpoints" / f"epoch={row.resumes - 1}.ckpt"))


def fit(row: Row, folder: Path, clock: Clock, epochs: int, checkpoint: str | None = None) -> None:
    """One call of ``Trainer.fit``."""
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.rand(16, 1, 8, 8, generator=generator), torch.arange(16) % 2)
    train = DataLoader(data, 4, shuffle=True, num_workers=row.workers, generator=torch.Generator().manual_seed(2))
    loggers: dict[str, Callable[[], Any]] = {
        "board": lambda: TensorBoardLogger(folder, name="run", version=""),
        "images": lambda: Images(folder),
        "folder": lambda: False,
    }
    saves = ModelCheckpoint(folder / "checkpoints", "{epoch}", save_top_k=-1, monitor=None)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", accumulate_grad_batches=row.accumulate, logger=loggers[row.logger](),
        callbacks=[clock, *(views_of(row) if row.views else ()), saves, OnExceptionCheckpoint(folder, "interrupted")],
        default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
        num_sanity_val_steps=0,
    )  # fmt: skip
    options = {} if checkpoint is None else {"weights_only": False}
    trainer.fit(Net(), train, DataLoader(data, 8), ckpt_path=checkpoint, **options)


class ForkedDrawing(subprocess.Popen):
    """A drawing process that is forked from the run, which has imported all that it draws with; others as ever."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        if draw_worker.__name__ not in args:
            super()._execute_child(args, *rest)
            return
        requests, _, _, replies, _, errors = pipes = rest[9:15]
        self.pid = os.fork()
        self._child_created = True
        if self.pid:
            self._close_pipe_fds(*pipes)
            return
        for number, end in enumerate((requests, replies, errors)):
            os.dup2(end, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
        try:
            draw_worker._main(*args[3:])
        finally:
            os._exit(1)


# Planting.


@dataclass
class Fault:
    """The fault of a row, where it is planted.

    Attributes:
        row: that it belongs to.
        clock: of the run.
    """

    row: Row
    clock: Clock
    struck: bool = False

    def strikes(self, *, here: bool = True) -> bool:
        """Whether it strikes now, here; then it has struck, and only NaN comes back from it."""
        again = self.struck and self.row.lasting
        if not here or not (again or (not self.struck and self.clock.now == self.row.moment)):
            return False
        self.struck = True
        planted.note(self.clock.folder)
        if self.row.victim == "artist":
            process = session(self.clock.trainer).pictures.process.process
            planted.os.kill(process.pid, planted.signal.SIGKILL)
            process.wait()
        else:
            planted.strike(self.row.how)
        return self.row.how == "NaN"

    def before(self, owner: Any, name: str, here: Callable[..., bool] = lambda *_, **__: True) -> None:
        """Strike whenever a function is called, if it is called so; NaN spoils what it is given."""
        original = getattr(owner, name)

        def struck(*arguments: Any, **options: Any) -> Any:
            if self.strikes(here=here(*arguments, **options)):
                first, *rest = arguments if isinstance(owner, type) else (None, *arguments)
                kept = [first] if isinstance(owner, type) else []
                arguments, options = (*kept, *planted.spoiled(rest)), planted.spoiled(options)
            return original(*arguments, **options)

        setattr(owner, name, struck)

    def after(self, owner: Any, name: str, here: Callable[..., bool] = lambda *_, **__: True) -> None:
        """Likewise; NaN spoils what it returns."""
        original = getattr(owner, name)

        def struck(*arguments: Any, **options: Any) -> Any:
            spoils = self.strikes(here=here(*arguments, **options))
            result = original(*arguments, **options)
            return planted.spoiled(result) if spoils else result

        setattr(owner, name, struck)


@contextlib.contextmanager
def plant(row: Row, clock: Clock) -> Iterator[None]:
    """Plant a row's fault; the process ends with the run, so that nothing is put back."""
    probe_loading.FETCH_SECONDS = FETCH_SECONDS if row.fault == "hang" else FINISH_SECONDS
    fault = Fault(row, clock)
    _PLANTS[row.stage](fault)
    yield


def _fetch(fault: Fault) -> None:
    row, read = fault.row, sample_fetch._read
    serve = sample_fetch._serve

    def counted(*arguments: Any) -> None:
        number = arguments[3]  # of samples, which tells the probes
        strikes = number >= 2 + PLACES.index(row.place) if row.lasting else number == 2 + PLACES.index(row.place)

        def struck(*given: Any) -> Iterator[Any]:
            for part in read(*given):
                if strikes:
                    planted.note(fault.clock.folder)
                    if row.victim == "run":
                        planted.os.kill(planted.os.getppid(), planted.SIGNALS[row.how])
                        time.sleep(3600)
                    planted.strike(row.how)
                yield part._replace(batch=planted.spoiled(part.batch)) if strikes and row.how == "NaN" else part

        sample_fetch._read = struck
        serve(*arguments)

    sample_fetch._serve = counted


def _pass(fault: Fault) -> None:
    samples = {"saliency": 2, "grad_cam": 3}[fault.row.kind]
    fault.after(SharedPass, "_observe", lambda self, needs, target, given, step, copies: given.head == samples)


def _reduce(fault: Fault) -> None:
    fault.before(ActivationStatistics, "read")


def _of_kind(fault: Fault, task: DrawTask) -> bool:
    return str(task.arguments.get("tag", "")).startswith(fault.row.kind)


def _pickle(fault: Fault) -> None:
    def dumps(value: Any, protocol: int) -> bytes:
        if isinstance(value, DrawTask) and fault.strikes(here=_of_kind(fault, value)):
            value = replace(value, arguments=planted.spoiled(value.arguments))
        return pickle.dumps(value, protocol)

    drawing_queue.pickle = SimpleNamespace(dumps=dumps, HIGHEST_PROTOCOL=pickle.HIGHEST_PROTOCOL)


def _draw(fault: Fault) -> None:
    submit, row, folder = PictureLog.submit, fault.row, str(fault.clock.folder)

    def struck(self: PictureLog, view: Any, step: int, task: DrawTask) -> None:
        here = _of_kind(fault, task) and (fault.clock.now == row.moment or (fault.struck and row.lasting))
        if here:
            fault.struck = True
            given = {"inner": task.function, "folder": folder, "how": row.how, "lasting": row.lasting}
            task = replace(task, function=planted.draw, arguments={**task.arguments, **given})
        submit(self, view, step, task)

    PictureLog.submit = struck


def _write(fault: Fault) -> None:
    def here(writers: Any, drawn: Any, *_: Any) -> bool:
        return any(picture.tag.startswith(fault.row.kind) for picture in drawn.pictures)

    if fault.row.fault in ("disk full", "read-only") and fault.row.logger != "images":
        _write_of_file(fault, here)
    else:
        fault.before(picture_log, "write_result", here)


def _write_of_file(fault: Fault, here: Callable[..., bool]) -> None:
    """The file takes half of what it is given."""
    write_result, append, write_bytes = picture_log.write_result, LocalFileSystem.append, Path.write_bytes
    armed = []

    def struck(*arguments: Any) -> Any:
        at_once = not fault.row.lasting and armed
        if not at_once and here(*arguments) and (armed or fault.clock.now == fault.row.moment):
            armed.append(True)
        return write_result(*arguments)

    def fails(size: int) -> bool:
        if not armed or size < 500 or (fault.struck and not fault.row.lasting):
            return False
        fault.struck = True
        planted.note(fault.clock.folder)
        return True

    def broken_append(self: Any, filename: Any, content: bytes, binary_mode: bool = False) -> None:
        half = fails(len(content))
        append(self, filename, content[: len(content) // 2] if half else content, binary_mode)
        if half:
            planted.strike(fault.row.how)

    def broken_write(self: Path, content: bytes) -> int:
        half = fails(len(content))
        written = write_bytes(self, content[: len(content) // 2] if half else content)
        if half:
            planted.strike(fault.row.how)
        return written

    picture_log.write_result, LocalFileSystem.append, Path.write_bytes = struck, broken_append, broken_write


def _collect(fault: Fault) -> None:
    results = DrawingProcess.results

    def struck(self: DrawingProcess, *more: Any) -> Iterator[Any]:
        spoils = fault.strikes()
        for result in results(self, *more):
            yield planted.spoiled(result) if spoils else result

    DrawingProcess.results = struck


def _drain(fault: Fault) -> None:
    """The three times that the end of a run turns to the drawing process: it waits, hurries, and animates."""
    owner, name = {
        "first": (DrawingProcess, "drain"), "middle": (DrawingProcess, "hurry"), "last": (PictureLog, "_animate")
    }[fault.row.place]  # fmt: skip
    fault.before(owner, name)


def _checkpoint(fault: Fault) -> None:
    fault.after(view, "to_plain") if fault.row.kind == "saliency" else fault.after(view, "recipe_of")


def _resume(fault: Fault) -> None:
    fault.after(view, "from_plain")


_PLANTS: dict[str, Callable[[Fault], None]] = {
    "fetch": _fetch, "pass": _pass, "reduce": _reduce, "pickle": _pickle, "draw": _draw, "write": _write,
    "collect": _collect, "drain": _drain, "checkpoint": _checkpoint, "resume": _resume,
}  # fmt: skip
STAGES = tuple(_PLANTS)
