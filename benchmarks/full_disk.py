"""Runs on a disk that is full, or becomes so: with views they end as without, weights and scalar curves equal.

    sudo python benchmarks/full_disk.py    (root, to mount file systems of some hundred kB)

Each row is one run without views and one with four that draw quickly, in which the same happens to the log's disk at
the same batch. A picture's race for the last bytes is lost on purpose: the views are told that there is room.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import ActivationMaps, FirstLayerFilters, GradCAM, Saliency

VIEWS = (FirstLayerFilters, ActivationMaps, GradCAM, Saliency)
AT = 25  # batches of 40, after which something happens


class Net(pl.LightningModule):
    """A small classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1152, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log_dict({"loss": loss} | {f"number_{number}": float(batch_idx) for number in range(5)})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-3)


class Happening(pl.Callback):
    """Something happens to the disk, once; the events are flushed, so that it shows in the same batch in any run."""

    def __init__(self, happens: Callable[[Path], None], folder: Path) -> None:
        self.happens, self.folder = happens, folder

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == AT:
            self.happens(self.folder)
        time.sleep(0.15)  # for pictures to be drawn meanwhile
        trainer.logger.experiment.flush()


def nothing(folder: Path) -> None:
    """The disk is as it is."""


def fill(folder: Path, left: int = 0) -> None:
    """Somebody else takes all but some bytes."""
    statistics = os.statvfs(folder)
    size = statistics.f_bavail * statistics.f_frsize - left
    with (folder / "theirs").open("wb") as file:
        file.write(bytes(max(size, 0)))


def fill_but_pages(folder: Path) -> None:
    """Somebody else takes all but what a part of a picture needs."""
    fill(folder, left=12288)


def read_only(folder: Path) -> None:
    """The file system takes no more writes."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def delete(folder: Path) -> None:
    """The log folder goes."""
    shutil.rmtree(folder / "run")


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The user's numbers that TensorBoard reads."""
    found = defaultdict(list)
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag == "loss" or value.tag.startswith("number_"):
                    found[value.tag].append((event.step, value.tensor.float_val[0]))
    return found


def run(size: str, happens: Callable[[Path], None], views: list[Any]) -> tuple[str, list[torch.Tensor], Any, int]:
    """How a run on a disk of a size ended, its weights, its curves, and the bytes of the log folder."""
    folder = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    data = torch.rand(320, 1, 28, 28, generator=torch.Generator().manual_seed(1)), torch.arange(320) % 10
    module = Net()
    trainer = pl.Trainer(
        max_epochs=4, accelerator="cpu", callbacks=[*views, Happening(happens, folder)], log_every_n_steps=1,
        logger=TensorBoardLogger(folder, name="run", version=""), default_root_dir=tempfile.gettempdir(),
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    try:
        trainer.fit(module, DataLoader(TensorDataset(*data), 32))
        end = "finished"
    except BaseException as error:
        end = f"{type(error).__name__} {getattr(error, 'errno', '')} at {trainer.global_step}"
    try:
        taken = sum(path.stat().st_size for path in (folder / "run").rglob("*") if path.is_file())
        return end, [weight.detach().clone() for weight in module.parameters()], curves(folder), taken
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


ROWS: list[tuple[str, str, Callable[[Path], None], dict[str, Any], bool]] = [
    ("200 kB", "200k", nothing, {}, False),
    ("300 kB", "300k", nothing, {}, False),
    ("200 kB, full from batch 25", "200k", fill, {}, False),
    ("32 MB, reserve 1 MB, full from batch 25", "32m", fill, {"free_megabytes": 1}, False),
    ("300 kB, no reserve: we fill it", "300k", nothing, {"free_megabytes": 0}, False),
    ("32 MB, 12 kB left from batch 25, lost race", "32m", fill_but_pages, {"free_megabytes": 1}, True),
    ("32 MB, read-only from batch 25", "32m", read_only, {"free_megabytes": 1}, False),
    ("32 MB, folder deleted at batch 25", "32m", delete, {"free_megabytes": 1}, False),
    ("32 MB, log of 0.3 MB at most", "32m", nothing, {"free_megabytes": 1, "log_megabytes": 0.3}, False),
]


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    print(f"{'disk':<44}{'without':<20}{'with':<20}{'weights':<9}{'curves':<9}{'points':<8}bytes with")
    for words, size, happens, options, race in ROWS:
        end, weights, plain, _ = run(size, happens, [])
        room = mock.patch("lightning_viz.callbacks.log_limits.free_space", return_value=float("inf"))
        with room if race else mock.patch.dict({}):
            ended, seen, watched, taken = run(size, happens, [view(every_n_train_steps=4, **options) for view in VIEWS])
        equal = all(map(torch.equal, weights, seen))
        print(
            f"{words:<44}{end:<20}{ended:<20}{'equal' if equal else 'OTHER':<9}"
            f"{'equal' if plain == watched else 'OTHER':<9}{len(plain['loss']):<8}{taken:,}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
