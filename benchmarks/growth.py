"""Growth: what a long watched run holds on to, and what a look adds to its log.

A tiny net is watched at every step, and validated at every tenth: 1,000 looks of `default_views` and `UpdateRatio`, and
10,000 of `FirstLayerFilters` alone. Each look is drawn and written before the next batch, as far as nothing is left
out. After 10, 25, 50, 75 and 100 % of the looks, and when `Trainer.fit` has returned, it is counted what the training
process and the drawing process hold; what goes on growing between 50 and 100 % is a leak. (Views keep what they plot of
up to 64 steps: runs of fewer looks still fill that.)

    python benchmarks/growth.py [--looks N] [--cheap-looks N] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import struct
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import FirstLayerFilters, UpdateRatio, default_views
from lightning_viz.callbacks.session import session
from lightning_viz.callbacks.view import PopulationView

VALIDATED_EVERY = 10  # steps
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
_DRAWN_WITHIN = 60.0  # seconds


@dataclass
class Mark:
    """What is held after so many looks; of a process that has ended, 0.

    Attributes:
        looks: so far.
        dropped: looks of a view, left out so far.
        training_mib: resident memory of the training process.
        drawing_mib: of the drawing process.
        descriptors: open files of the training process.
        drawing_descriptors: of the drawing process.
        threads: of the training process.
        drawing_threads: of the drawing process.
        hooks: on the model's modules.
        waiting: tasks not drawn and written, and events that TensorBoard has not written.
        objects: known to Python's garbage collector, in the training process.
        log_bytes: of the event files for a look, since the mark before.
        seconds: since the run's start.
    """

    looks: int
    dropped: int
    training_mib: float
    drawing_mib: float
    descriptors: int
    drawing_descriptors: int
    threads: int
    drawing_threads: int
    hooks: int
    waiting: int
    objects: int
    log_bytes: float
    seconds: float


class Net(pl.LightningModule):
    """A small classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)


class Meter(pl.Callback):
    """Last among the callbacks: waits until a look is drawn and written, and counts what is held.

    Args:
        folder: of the run.
        looks: in all.
    """

    def __init__(self, folder: Path, looks: int) -> None:
        self.folder = folder
        self.at = {max(1, round(share * looks)) for share in SHARES}
        self.marks: list[Mark] = []
        self.looks = self.dropped = 0
        self._started = time.monotonic()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        running = session(trainer)
        assert running is not None
        self.looks += 1
        looking = [view for view in running.views if not isinstance(view, PopulationView)]  # others after validation
        self.dropped += sum(view.last_step != running.run.step for view in looking)
        running.pictures.process.drain(_DRAWN_WITHIN)
        running.collect()
        if self.looks in self.at:
            trainer.logger.experiment.flush()
            gc.collect()
            self.mark(pl_module, running)

    def mark(self, model: nn.Module, running: Any = None) -> None:
        """Count what is held now."""
        process = None if running is None else running.pictures.process.process.pid
        queued = 0 if running is None else sum(writer._writer.queued for writer in running.pictures.writers)
        size, last = log_size(self.folder), self.marks[-1] if self.marks else None
        self._size, before = size, getattr(self, "_size", 0)
        looks = self.looks - (last.looks if last else 0)
        self.marks.append(
            Mark(
                looks=self.looks,
                dropped=self.dropped,
                training_mib=resident("self"),
                drawing_mib=0.0 if process is None else resident(process),
                descriptors=descriptors("self"),
                drawing_descriptors=0 if process is None else descriptors(process),
                threads=status("self", "Threads"),
                drawing_threads=0 if process is None else status(process, "Threads"),
                hooks=hooks(model),
                waiting=queued + (0 if running is None else running.pictures.process.undrawn),
                objects=len(gc.get_objects()),
                log_bytes=(size - before) / looks if looks else 0.0,
                seconds=time.monotonic() - self._started,
            )
        )


def status(process: int | str, field: str) -> int:
    """A number of ``/proc/<process>/status``."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def resident(process: int | str) -> float:
    """Resident memory, in MiB."""
    return status(process, "VmRSS") / 1024


def descriptors(process: int | str) -> int:
    """Open files of a process, sockets and pipes among them."""
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def hooks(model: nn.Module) -> int:
    """Hooks of every kind on a model's modules."""
    return sum(
        len(value)
        for module in model.modules()
        for name, value in vars(module).items()
        if name.endswith("hooks") and isinstance(value, dict)
    )


def log_size(folder: Path) -> int:
    """Bytes of a run's event files."""
    return sum(path.stat().st_size for path in folder.rglob("*tfevents*"))


def pictures(folder: Path) -> Counter[str]:
    """How many pictures the event files hold, by their tags' first part."""
    return Counter(
        value.tag.split("/")[0]
        for path in sorted(folder.rglob("*tfevents*"))
        for record in records(path)
        for value in Event.FromString(record).summary.value
        if value.metadata.plugin_data.plugin_name == "images"
    )


def records(path: Path) -> Iterator[bytes]:
    """Records of an event file; check sums are left out, which TensorBoard computes in Python."""
    with path.open("rb") as file:
        while head := file.read(12):
            (size,) = struct.unpack_from("<Q", head)
            yield file.read(size)
            file.seek(4, os.SEEK_CUR)


def watched(views: Sequence[Any], looks: int, folder: Path) -> list[Mark]:
    """Train, and count; the last mark is of what is left after the run.

    Args:
        views: to watch with, at every step.
        looks: how many steps.
        folder: for the log.
    """
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.rand(48, 1, 12, 12, generator=generator), torch.arange(48) % 3
    rows = torch.arange(2 * looks) % 48
    train = DataLoader(TensorDataset(images[rows], labels[rows]), 2)
    meter, net = Meter(folder, looks), Net()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=TensorBoardLogger(folder, name="run", version=""),
        callbacks=[*views, meter], enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, val_check_interval=min(VALIDATED_EVERY, looks),
    )  # fmt: skip
    trainer.fit(net, train, DataLoader(TensorDataset(images, labels), 16))
    trainer.logger.experiment.close()
    gc.collect()
    meter.mark(net)
    return meter.marks


def grown(marks: Sequence[Mark]) -> dict[str, float]:
    """By what is counted, how much more there was after all looks than after half of them."""
    half, whole = asdict(marks[SHARES.index(0.5)]), asdict(marks[len(SHARES) - 1])
    return {name: whole[name] - half[name] for name in whole if name not in ("looks", "seconds")}


def show(marks: Sequence[Mark], left: dict[str, int], drawn: Counter[str]) -> None:
    """Print what was counted, a column for each mark."""
    names = [*(f"{share:.0%}" for share in SHARES), "50 -> 100 %", "ended"]
    print(f"{'':<22}" + "".join(f"{name:>13}" for name in names))
    growth = grown(marks)
    for field in fields(Mark):
        values = [getattr(mark, field.name) for mark in marks]
        cells = [*values[:-1], growth.get(field.name, ""), values[-1]]
        texts = [
            f"{value:+,.1f}" if number == len(SHARES) and value != "" else shown(value)
            for number, value in enumerate(cells)
        ]
        print(f"{field.name:<22}" + "".join(f"{text:>13}" for text in texts))
    print(f"before the run: {left}")
    print(f"pictures in the log: {dict(drawn)}\n", flush=True)


def shown(value: Any) -> str:
    """A number in a table."""
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    """Both runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=int, default=1000, help="of all default views; 0 for none")
    parser.add_argument("--cheap-looks", type=int, default=10_000, help="of the first layer's filters; 0 for none")
    parser.add_argument("--json", type=Path, help="a file for what was counted")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    every = {"every_n_train_steps": 1, "max_overhead": float("inf"), "log_megabytes": float("inf")}
    runs = {
        f"{options.looks:,} looks of default_views and UpdateRatio": (
            lambda: [*default_views(**every), UpdateRatio(**every)], options.looks
        ),
        f"{options.cheap_looks:,} looks of FirstLayerFilters": (
            lambda: [FirstLayerFilters(**every)], options.cheap_looks
        ),
    }  # fmt: skip
    kept = {}
    for name, (views, looks) in runs.items():
        if not looks:
            continue
        with tempfile.TemporaryDirectory() as folder:
            before = {"descriptors": descriptors("self"), "threads": threading.active_count()}
            marks = watched(views(), looks, Path(folder))
            print(name)
            show(marks, before, pictures(Path(folder)))
        kept[name] = [asdict(mark) for mark in marks]
        if options.json:
            options.json.write_text(json.dumps(kept))


if __name__ == "__main__":
    sys.exit(main())
