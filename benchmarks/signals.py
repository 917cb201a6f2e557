"""Signals to a run, with and without views: what becomes of its checkpoint, its pictures and its processes.

    python benchmarks/signals.py
    python benchmarks/signals.py --only SIGTERM

A run whose views look at every step, so that drawings are always waiting, gets a signal after 40 steps. Reported are
the seconds to Lightning's exception checkpoint and to the end, the processes left 6 s later, and the pictures that were
kept and drawn later.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MARK = "LIGHTNING_VIZ_SIGNALS"
LEFT_SECONDS = 6.0  # after the end, when processes are counted
LONGEST = 120.0
ACTIONS: dict[str, tuple[list[tuple[float, int]], bool]] = {
    "SIGTERM": ([(0, signal.SIGTERM)], False),
    "SIGTERM, SIGKILL after 30 s": ([(0, signal.SIGTERM), (30, signal.SIGKILL)], False),
    "Ctrl-C": ([(0, signal.SIGINT)], True),
    "Ctrl-C twice": ([(0, signal.SIGINT), (0.5, signal.SIGINT)], True),
    "SIGHUP": ([(0, signal.SIGHUP)], True),
    "SIGKILL": ([(0, signal.SIGKILL)], False),
}
"""By name, seconds to wait and signal to send, and whether it goes to the whole group, as from a terminal."""

SCRIPT = """
import signal, sys, time
import pytorch_lightning as pl, torch
from pytorch_lightning.callbacks import OnExceptionCheckpoint
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from lightning_viz import default_views

signal.signal(signal.SIGINT, signal.default_int_handler)  # both are ignored in what a shell starts in the background
signal.signal(signal.SIGHUP, signal.SIG_DFL)
torch.set_num_threads(1)
folder, with_views, workers = sys.argv[1], sys.argv[2] == "with", int(sys.argv[3])

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1), nn.Linear(6, 4)
    def forward(self, x):
        return self.fc(F.relu(self.c2(F.relu(self.c1(x)))).mean((2, 3)))
    def training_step(self, batch, index):
        time.sleep(0.02)
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss
    def validation_step(self, batch, index):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

class Ready(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 40:
            print("READY", flush=True)

data = TensorDataset(torch.randn(64, 1, 8, 8), torch.randint(0, 4, (64,)))
views = list(default_views(every_n_train_steps=1, max_overhead=1e9)) if with_views else []
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=10**6, callbacks=[*views, Ready(), OnExceptionCheckpoint(folder, "exception")],
    logger=pl.loggers.TensorBoardLogger(folder, name="", version=""), default_root_dir=folder,
    enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
)
loader = DataLoader(data, 8, shuffle=True, num_workers=workers, persistent_workers=bool(workers))
trainer.fit(Net(), loader, DataLoader(data, 32))
"""


@dataclass
class Row:
    """What became of a run.

    Attributes:
        checkpoint: seconds to the exception checkpoint; None if there is none.
        end: seconds to the end of the process.
        left: processes alive `LEFT_SECONDS` after it.
        kept: drawings in the file beside the run.
        drawn: of these, drawn later.
        status: of the process.
    """

    checkpoint: float | None
    end: float
    left: int
    kept: int
    drawn: int
    status: int | None


def marked(mark: str) -> list[int]:
    """Processes that carry a mark in their environment, those that have ended and were not waited for left out."""
    pids = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (
                f"{MARK}={mark}\0".encode() in (place / "environ").read_bytes()
                and "\nState:\tZ" not in (place / "status").read_text()
            ):
                pids.append(int(place.name))
        except OSError:
            continue
    return pids


def run(name: str, workers: int, views: str) -> Row:
    """Start a run, signal it, and see what becomes of it."""
    actions, group = ACTIONS[name]
    folder = Path(tempfile.mkdtemp(prefix="signals_"))
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), views, str(workers)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            env={**os.environ, MARK: folder.name, "OMP_NUM_THREADS": "1"},
        )
    assert process.stdout is not None
    while b"READY" not in (line := process.stdout.readline()):
        assert line or process.poll() is None, (folder / "stderr").read_text()[-1000:]
    started, checkpoint, waiting = time.monotonic(), None, list(actions)
    due = started
    while process.poll() is None and time.monotonic() - started < LONGEST:
        if waiting and time.monotonic() >= due + waiting[0][0]:
            due = time.monotonic()
            (os.killpg if group else os.kill)(process.pid, waiting.pop(0)[1])
        if checkpoint is None and (folder / "exception.ckpt").exists():
            checkpoint = time.monotonic() - started
        time.sleep(0.01)
    end = time.monotonic() - started
    if checkpoint is None and (folder / "exception.ckpt").exists():
        checkpoint = end
    process.kill()
    process.communicate()
    time.sleep(LEFT_SECONDS)
    left = marked(folder.name)
    kept, drawn = late(folder)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return Row(checkpoint, end, len(left), kept, drawn, process.returncode)


def late(folder: Path) -> tuple[int, int]:
    """Drawings that were kept, and how many of them are drawn now."""
    from lightning_viz.analysis.late_drawing import draw_undrawn
    from lightning_viz.callbacks.undrawn import PATTERN, read_undrawn

    paths = list(folder.rglob(PATTERN))
    kept = sum(len(read_undrawn(path).tasks) for path in paths)
    failed = draw_undrawn(folder, report=lambda line: None) if paths else 0
    return kept, kept - failed


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(ACTIONS))
    chosen = parser.parse_args().only
    print("| signal | workers | views | checkpoint after s | end after s | status | left | kept | drawn later |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in [chosen] if chosen else ACTIONS:
        for workers in (0, 2):
            for views in ("without", "with"):
                row = run(name, workers, views)
                checkpoint = "none" if row.checkpoint is None else f"{row.checkpoint:.2f}"
                print(
                    f"| {name} | {workers} | {views} | {checkpoint} | {row.end:.2f} | {row.status} | {row.left} | "
                    f"{row.kept} | {row.drawn} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
