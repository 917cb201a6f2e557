"""Views of a model that is sharded over the GPUs of a machine, beside the same runs without: ``gpu_sharded.py [N]``.

For DDP and for `ModelParallelStrategy` (data parallel by FSDP2, tensor parallel, and both from four processes on) it
trains a net with no view and with all default views, and prints whether weights are the same to the bit, how many of
the pictures are those of the DDP run, what looks cost, and the most memory that one took beyond what was allocated
before, against a process's shard and the largest layer. Then runs in which one process fails, dies or is late: how
they end, and when. Without GPUs it runs on N processes of the CPU (2 if omitted), as a dry run.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from looks import measured_looks
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import View, default_views
from lightning_viz.callbacks import agreement

GPU = torch.cuda.is_available()
WIDTH, BLOCKS, SIDE = (4096, 8, 32) if GPU else (128, 3, 16)
FAULTS = ("one raises", "one dies", "one is late")
LIMIT = 900.0


class Block(nn.Module):
    """A residual perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add to the input."""
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Net(pl.LightningModule):
    """Convolutions, and blocks that hold nearly all of the weights."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.folder = folder
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()
        )
        self.enter, self.blocks = nn.Linear(32, WIDTH), nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.leave = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of classes."""
        return self.leave(self.blocks(self.enter(self.convolutions(x).mean((2, 3)))))

    def configure_model(self) -> None:
        """Shard, as the strategy's mesh says."""
        if not isinstance(self.trainer.strategy, ModelParallelStrategy):
            return
        data, tensor = self.device_mesh["data_parallel"], self.device_mesh["tensor_parallel"]
        if tensor.size() > 1:
            for block in self.blocks:
                parallelize_module(block, tensor, {"up": ColwiseParallel(), "down": RowwiseParallel()})
        if data.size() > 1:
            for part in (self.convolutions, self.enter, *self.blocks, self.leave):
                fully_shard(part, mesh=data)
            fully_shard(self, mesh=data)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Cross-entropy."""
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """A pass."""
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain descent, whose state is none."""
        return torch.optim.SGD(self.parameters(), lr=1e-3)

    def on_train_end(self) -> None:
        """Keep what the weights are."""
        sums = {}
        for name, weight in self.named_parameters():
            whole = getattr(weight, "full_tensor", lambda weight=weight: weight)().detach()
            sums[name] = int(whole.contiguous().view(torch.int32).long().mul(31).cumsum(0).sum()), float(whole.norm())
        if self.global_rank == 0:
            (self.folder / "weights.json").write_text(json.dumps(sums))


class Planted(View):
    """One process raises, dies or is late at its second look."""

    kind = "planted"
    what = ""

    def compute(self, model, snapshot):  # type: ignore[no-untyped-def]
        """Plant the fault."""
        if torch.distributed.get_rank() == 1 and snapshot.step:
            if self.what == "one dies":
                os._exit(7)
            if self.what == "one is late":
                time.sleep(15.0)
            raise RuntimeError("planted")
        return {}

    def draw(self, snapshot):  # type: ignore[no-untyped-def]
        """Nothing."""
        return ()


def child(folder: Path, kind: str, what: str, count: int) -> None:
    """One process of a run."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    options = {"timeout": timedelta(seconds=120), "process_group_backend": "nccl" if GPU else "gloo"}
    data = {"data": count, "tensor": 1, "both": count // 2}.get(kind, count)
    strategy = DDPStrategy(**options) if kind == "ddp" else ModelParallelStrategy(data, count // data, **options)
    views = default_views(max_overhead=1e9, finish_seconds=300.0) if what == "views" else []
    if what in FAULTS:
        Planted.what = what
        views = [Planted(every_n_train_steps=2), *views]
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.rand(256, 3, SIDE, SIDE, generator=generator), torch.arange(256) % 10
    loader = DataLoader(TensorDataset(images, labels), batch_size=16)
    trainer = pl.Trainer(
        accelerator="gpu" if GPU else "cpu",
        devices=count,
        strategy=strategy,
        max_steps=8,
        val_check_interval=4,
        limit_val_batches=2,
        logger=TensorBoardLogger(folder, name="run", version=""),
        callbacks=views,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=True,
    )
    net = Net(folder)
    limit = patch.object(agreement, "AGREE_SECONDS", 5.0 if what == "one is late" else agreement.AGREE_SECONDS)
    with measured_looks() as looks, limit:
        trainer.fit(net, loader, loader)
    found = {"peak": max(looks.peaks, default=0), "look": sum(looks.seconds), "looks": len(looks.seconds)}
    weights = list(net.parameters())
    found["shard"] = sum(getattr(w, "_local_tensor", w).nbytes for w in weights)
    found["layer"] = max(w.numel() * w.element_size() for w in weights)
    (folder / f"process {trainer.global_rank}.json").write_text(json.dumps(found))


def run(root: Path, kind: str, what: str, count: int) -> tuple[Path, float, list[int]]:
    """A run's folder, its seconds, and how its processes ended."""
    folder = root / f"{kind} {what}".strip()
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started, children = time.monotonic(), []
    for rank in range(count):
        told = {"LOCAL_RANK": rank, "NODE_RANK": 0, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
        environment = {**os.environ, **{name: str(value) for name, value in told.items()}}
        command = [sys.executable, __file__, "--child", str(folder), kind, what, str(count)]
        with (folder / f"process {rank}.txt").open("w") as file:
            children.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file))
    ends = []
    for process in children:
        try:
            ends.append(process.wait(max(1.0, LIMIT - (time.monotonic() - started))))
        except subprocess.TimeoutExpired:
            process.kill()
            ends.append(-1)
    return folder, time.monotonic() - started, ends


def pictures(folder: Path) -> dict[tuple[str, int], tuple[bytes, ...]]:
    """What was drawn, by tag and step."""
    events = EventAccumulator(str(folder / "run"), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    return {(tag, one.step): tuple(one.tensor_proto.string_val) for tag in tags for one in events.Tensors(tag)}


def weights_of(folder: Path) -> str:
    """What a run's weights are; empty of one that did not end."""
    path = folder / "weights.json"
    return path.read_text() if path.exists() else ""


def main(count: int) -> None:
    """Run all, and print the table."""
    kinds = ["ddp", "data", "tensor", *(["both"] if count >= 4 and count % 2 == 0 else [])]
    device = torch.cuda.get_device_name() if GPU else "CPU (gloo, a dry run)"
    print(f"{count} processes, {device}; a net of {BLOCKS} blocks of width {WIDTH}\n")
    print("| run | weights as without views | pictures as of DDP | s without | s with | s a look | peak of a look, MB"
          " | shard, MB | largest layer, MB |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        root, drawn = Path(name), dict[tuple[str, int], tuple[bytes, ...]]()
        plain = {}
        for kind in kinds:
            plain[kind], without, _ = run(root, kind, "", count)
            folder, seconds, ends = run(root, kind, "views", count)
            if any(ends):
                print(f"| {kind} | ended with {ends}: {(folder / 'process 0.txt').read_text()[-500:]} |")
                continue
            found = [json.loads((folder / f"process {rank}.json").read_text()) for rank in range(count)]
            mine = pictures(folder)
            drawn = drawn or mine
            same = sum(mine.get(key) == content for key, content in drawn.items())
            equal = weights_of(folder) == weights_of(plain[kind]) != ""
            peak = f"{max(one['peak'] for one in found) / 1e6:.1f}"
            look = found[0]["look"] / max(1, found[0]["looks"])
            cells = [kind, "same" if equal else "DIFFER", f"{same} of {len(drawn)}", f"{without:.0f}", f"{seconds:.0f}",
                     f"{look:.2f}", peak, *(f"{found[0][part] / 1e6:.1f}" for part in ("shard", "layer"))]  # fmt: skip
            print(f"| {' | '.join(cells)} |", flush=True)
        print("\n| fault (data parallel) | how the processes ended | s | weights as without views |\n|---|---|---|---|")
        for what in FAULTS:
            folder, seconds, ends = run(root, "data", what, count)
            equal = weights_of(folder) == weights_of(plain["data"]) != ""
            end = "no end" if not weights_of(folder) else "same" if equal else "DIFFER"
            print(f"| {what} | {ends} | {seconds:.0f} | {end} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else torch.cuda.device_count() if GPU else 2)
