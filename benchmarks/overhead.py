"""What watching costs: a ResNet-18 on 32 x 32 images without views, under the budget, and without a budget.

All arms train the same number of steps from the same seed, with a fresh model, logging to TensorBoard; the arms
alternate in one process, and each round starts with another. "Training" is from the first batch to the last look;
"to the end" includes the wait for what is still being drawn, which is bounded and comes once a run. Under the budget
nothing is free: `FREE_SECONDS` is 0. A view's hold at an event is given in units of one forward + backward of its own
probe batch; a run's first event, which fetches the probe, stands apart.

With --dreams it is the view of dreams alone, of a small network of convolutions: its first look and its last, which are
never dropped, make 60 updates of 20 images, which is more than a short training of the ResNet could pay for.

    python benchmarks/overhead.py [--dreams] [--seconds 60] [--rounds 2] [--json FILE]
"""

import argparse
import json
import logging
import math
import os
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torchvision
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import Dreams, default_views
from lightning_viz.callbacks import picture_log
from lightning_viz.callbacks import schedule as budget
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.session import Session
from lightning_viz.callbacks.view import View

BATCH, HEAD = 32, 16
FINISH_SECONDS = 60.0  # the default of views
ARMS: dict[str, float | None] = {"no views": None, "budget": 0.05, "no budget": math.inf}


def small_network() -> nn.Module:
    sides = [(3, 16), (16, 32), (32, 64)]
    blocks = [nn.Sequential(nn.Conv2d(*side, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for side in sides]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * 16, 10))


class Classifier(pl.LightningModule):
    def __init__(self, small: bool = False) -> None:
        super().__init__()
        self.net = small_network() if small else torchvision.models.resnet18(num_classes=10)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        loss = functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01, momentum=0.9)


@dataclass
class Run:
    """One arm of one round.

    Attributes:
        training: seconds from the first batch to the last look.
        to_end: seconds from the first batch until all is drawn and written.
        written: seconds for which training was held to write what was drawn meanwhile.
        guarded: seconds of looks that no view was charged for.
        holds: view, step, and what it took, in forward + backward passes.
    """

    arm: str
    training: float = 0.0
    to_end: float = 0.0
    held: float = 0.0
    written: float = 0.0
    guarded: float = 0.0
    looks: int = 0
    unit: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    holds: list[tuple[str, int, float, float]] = field(default_factory=list)


class Clock(pl.Callback):
    """First among the callbacks: sees training's start before any view does."""

    started = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.started = time.perf_counter()


class Watch:
    """Times what the session does, from outside."""

    def __init__(self) -> None:
        self.drains: list[float] = []
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.process = (0.0, 0.0)
        self.session: Session | None = None
        self._wrap(Session, "look")
        self._wrap(Session, "collect")
        end, close = Session.close, DrawingProcess.close

        def ending(session: Session) -> None:
            self.drains.append(time.perf_counter())
            self.session = session
            end(session)

        def closing(artist: DrawingProcess) -> None:
            if artist.process is not None:
                self.process = process_cost(artist.process.pid)
            close(artist)

        Session.close, DrawingProcess.close = ending, closing  # type: ignore[method-assign]

    def _wrap(self, owner: type, name: str) -> None:
        function = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.seconds[name] += 0.0 if self.drains else time.perf_counter() - started

        setattr(owner, name, timed)

    def reset(self) -> None:
        self.drains, self.process, self.session = [], (0.0, 0.0), None
        self.seconds.clear()


def process_cost(pid: int) -> tuple[float, float]:
    """CPU seconds and peak resident MiB of a living process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return seconds, int(status["VmHWM"].split()[0]) / 1024


def data() -> TensorDataset:
    """Digits as RGB images of 32 x 32."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images).float().view(-1, 1, 8, 8) / 16
    return TensorDataset(
        functional.interpolate(pixels, size=32, mode="bilinear").repeat(1, 3, 1, 1), torch.tensor(labels)
    )


def one_pass(model: nn.Module, dataset: TensorDataset, repeats: int = 15) -> float:
    """Median seconds of one forward + backward of the head of the probe, in training mode."""
    images, labels = dataset[:HEAD]
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        functional.cross_entropy(model(images), labels).backward()
        seconds.append(time.perf_counter() - started)
        model.zero_grad()
    return statistics.median(seconds)


def run(arm: str, steps: int, dataset: TensorDataset, watch: Watch, *, dreams: bool = False) -> Run:
    watch.reset()
    torch.manual_seed(0)
    model, clock, share = Classifier(small=dreams), Clock(), ARMS[arm]
    views: list[View] = []
    if share is not None:
        options = {"max_overhead": share, "finish_seconds": FINISH_SECONDS}
        views = [Dreams(**options)] if dreams else default_views(**options)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=TensorBoardLogger(folder),
            callbacks=[clock, *views],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, DataLoader(dataset, batch_size=BATCH, shuffle=True))
        ended = time.perf_counter()
    result = Run(
        arm, (watch.drains or [ended])[0] - clock.started, ended - clock.started, unit=one_pass(model, dataset)
    )
    if watch.session is not None:
        describe(result, watch, views)
    return result


def describe(result: Run, watch: Watch, views: list[View]) -> None:
    seen = watch.session
    assert seen is not None
    by_name = {view.name: view for view in views}
    for name, step, seconds in seen.budget.ledger:
        result.holds.append((by_name[name].kind, step, seconds, seconds / result.unit))
    result.held = seen.budget.held
    result.guarded, result.written = watch.seconds["look"] - result.held, watch.seconds["collect"]
    result.looks = len(seen.budget.ledger)
    result.cpu, result.memory = watch.process


def spread(values: list[float], digits: int = 3) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:8.{digits}f}  ({low:.{digits}f} to {high:.{digits}f})"


def table(runs: list[Run]) -> None:
    by_arm: defaultdict[str, list[Run]] = defaultdict(list)
    for one in runs:
        by_arm[one.arm].append(one)
    plain = by_arm["no views"]
    print(f"\nmedian (least to most) of {len(plain)} interleaved rounds\n")
    for arm, mine in by_arm.items():
        print(f"{arm}: training {spread([one.training for one in mine], 1)} s")
        if arm == "no views":
            continue
        ratios = [one.training / base.training for one, base in zip(mine, plain, strict=True)]
        ends = [one.to_end / base.to_end for one, base in zip(mine, plain, strict=True)]
        print(f"  wall clock / no views, training       {spread(ratios)}")
        print(f"  wall clock / no views, to the end     {spread(ends)}")
        print(f"  seconds held by looks                 {spread([one.held for one in mine])}")
        shares = [one.held / (one.training - one.held) for one in mine]
        print(f"  ... as a share of the training        {spread(shares)}")
        print(f"  ... of which no view is charged       {spread([one.guarded for one in mine])}")
        print(f"  seconds held to write what was drawn  {spread([one.written for one in mine])}")
        print(f"  seconds waited for drawing at the end {spread([one.to_end - one.training for one in mine])}")
        print(f"  looks                                 {spread([float(one.looks) for one in mine], 0)}")
        print(f"  drawing process, CPU seconds          {spread([one.cpu for one in mine], 1)}")
        print(f"  drawing process, peak MiB             {spread([one.memory for one in mine], 0)}")
    unit = statistics.median(one.unit for one in runs)
    print(
        f"\nheld per view and event, in forward + backward passes of its probe batch ({HEAD} samples: {unit:.3f} s)\n"
    )
    print(f"  {'view':14} {'first event':>30} {'later events':>30}  later, seconds")
    for kind in dict.fromkeys(hold[0] for one in runs for hold in one.holds):
        first = [excess for one in runs for view, step, _, excess in one.holds if view == kind and step == 0]
        later = [
            (excess, seconds) for one in runs for view, step, seconds, excess in one.holds if view == kind and step
        ]
        print(
            f"  {kind:14} {spread(first, 2):>30} {spread([excess for excess, _ in later], 2):>30}"
            f"  {statistics.median(seconds for _, seconds in later):.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="that training without views takes (60)")
    parser.add_argument("--rounds", type=int, default=2, help="of all three arms (2)")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--dreams", action="store_true", help="the view of dreams alone, on a small network")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    picture_log.inform = lambda message: None
    budget.FREE_SECONDS = 0.0
    dataset, watch = data(), Watch()
    trial = 40
    run("no views", trial // 4, dataset, watch, dreams=options.dreams)  # the first steps are slow
    first = run("no views", trial, dataset, watch, dreams=options.dreams)
    steps = max(trial, round(options.seconds / first.training * trial))
    epoch = math.ceil(len(dataset) / BATCH)
    print(f"{steps} steps of {BATCH} images, {epoch} an epoch, {torch.get_num_threads()} threads", flush=True)
    runs = []
    for number in range(options.rounds):
        for place in range(len(ARMS)):
            arm = list(ARMS)[(number + place) % len(ARMS)]
            runs.append(run(arm, steps, dataset, watch, dreams=options.dreams))
            last = runs[-1]
            print(f"round {number + 1}, {last.arm}: {last.training:.1f} s, to the end {last.to_end:.1f} s", flush=True)
    table(runs)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in runs], indent=1))


if __name__ == "__main__":
    main()
