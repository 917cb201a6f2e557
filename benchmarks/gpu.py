"""Everything about a GPU, as one table: `make gpu`.

The device rows of the test suite; what default views cost a training, as it is, compiled, in mixed precision with a
gradient scaler, in channels-last layout and in CUDA graphs, whether the weights are those without views to the bit, and
the most memory that a look takes beyond what was allocated; attributions, dreams and attacks beside those of other
tools, over as many bare passes as mathematics needs.

    pip install -e .[dev] && python benchmarks/gpu.py [--device cuda] [--quick] [--out FILE]

Without a GPU it is a dry run: every line runs on the CPU but CUDA graphs, and the numbers say nothing of a GPU.
`--quick` takes small nets and few steps. A row that failed says so, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import platform
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import limits
import overhead
import pytorch_lightning as pl
import torch
from looks import MIB, Looks, measured_looks
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader
from turns import in_turns, now

from lightning_viz import default_views
from lightning_viz.callbacks import schedule as budget
from lightning_viz.errors import said_elsewhere
from lightning_viz.hooks import logit

ROOT = Path(__file__).resolve().parents[1]
HEADER = ("part", "row", "lightning_viz", "beside it", "")
GRAPHS = ("CUDA graphs", "CUDA graphs of callables")
ARMS = ("as it is", "torch.compile", "mixed precision", "channels-last", *GRAPHS)


@dataclass(frozen=True)
class Setting:
    """Where, and how much.

    Args:
        device: "cuda" or "cpu".
        quick: small and short.
        tests: file of the device rows.
    """

    device: str
    quick: bool
    tests: Path

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 5

    @property
    def batch(self) -> int:
        return 4 if self.quick else overhead.BATCH  # a CPU takes long in half precision

    @property
    def models(self) -> tuple[str, ...]:
        return ("lenet",) if self.quick else tuple(limits.MODELS)


Cells = tuple[str, str, str, str, str]


class Net(overhead.Classifier):
    """A classifier that is trained in one of the ways of `ARMS`."""

    def __init__(self, arm: str, setting: Setting) -> None:
        super().__init__(small=setting.quick)
        self.arm, self.batch, on_cpu = arm, setting.batch, setting.device == "cpu"
        if arm == "channels-last":
            self.net.to(memory_format=torch.channels_last)
        if arm in ("torch.compile", GRAPHS[0]):
            options = {"mode": "reduce-overhead"} if arm == GRAPHS[0] else {}
            self.net.compile(**({"backend": "eager"} if on_cpu and setting.quick else options))

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> list[Tensor]:
        """In the layout of the weights."""
        if self.arm == "channels-last":
            batch[0] = batch[0].contiguous(memory_format=torch.channels_last)
        return batch

    def on_fit_start(self) -> None:
        """Capture the graphs, once the weights are on the GPU."""
        if self.arm == GRAPHS[1]:
            sample = torch.rand(self.batch, 3, 32, 32, device=self.device)
            torch.cuda.make_graphed_callables(self.net.train(), (sample,))


class Clock(pl.Callback):
    """First among the callbacks: from a step, when all is compiled and captured, to the last one, looks between."""

    def __init__(self, first: int) -> None:
        self.first, self.started, self.seconds = first, 0.0, 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.first:
            self.started = now()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.seconds = now() - self.started


def train(arm: str, setting: Setting, *, watched: bool) -> tuple[float, str, Looks]:
    """Seconds of a training, a digest of its weights, and its looks."""
    torch.manual_seed(0)
    steps, model = 6 if setting.quick else 600, Net(arm, setting)
    clock = Clock(steps // 3)
    views = default_views(max_overhead=0.05, finish_seconds=0.0) if watched else []
    mixed = [MixedPrecision("16-mixed", setting.device)] if arm == "mixed precision" else None  # has a gradient scaler
    with tempfile.TemporaryDirectory() as folder, said_elsewhere(True), measured_looks() as looks:
        trainer = pl.Trainer(
            max_steps=steps,
            accelerator="gpu" if setting.device == "cuda" else "cpu",
            devices=1,
            plugins=mixed,
            logger=TensorBoardLogger(folder),
            callbacks=[clock, *views],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        full = {"batch_size": setting.batch, "drop_last": True}  # a graph has one size
        trainer.fit(model, DataLoader(overhead.data(), shuffle=True, pin_memory=setting.device == "cuda", **full))
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return clock.seconds, digest.hexdigest(), looks


def trainings(setting: Setting) -> Iterator[Cells]:
    """What views cost each way of training: time over that without views, in pairs that follow each other."""
    for arm in ARMS:
        if arm in GRAPHS and setting.device == "cpu":
            yield "training with default views", arm, "", "", "no graphs on a CPU"
        else:
            yield "training with default views", arm, *_attempt(partial(_training, arm, setting), 3)


def _training(arm: str, setting: Setting) -> tuple[str, str, str]:
    plain, expected, _ = train(arm, setting, watched=False)
    seconds, found, looks = train(arm, setting, watched=True)
    if found != expected:
        raise AssertionError("the weights differ from those without views")
    each = f"{len(looks.seconds)} looks of {1000 * sum(looks.seconds) / len(looks.seconds):.0f} ms"
    memory = f"{max(looks.peaks) / MIB:.0f} MiB at most beyond what was held"
    return f"{seconds / plain:.2f} of the time", f"{plain:.2f} s without", f"weights are the same; {each}, {memory}"


def methods(setting: Setting) -> Iterator[Cells]:
    """Attributions, dreams and attacks, and captum's and torchattacks', over the bare passes."""
    for name in setting.models:
        build, shape = limits.MODELS[name]
        model = build().eval().requires_grad_(False).to(setting.device)
        for row in limits.rows(model, shape):
            took = partial(limits.timed, model, shape, row, setting.rounds)

            def cells(took: Callable[[], dict[str, float]] = took, why: str = row.why) -> tuple[str, str, str]:
                found = took()
                return f"{found['ours']:.2f}", f"{found['peer']:.2f}" if "peer" in found else "", why

            yield f"{name}, of bare passes", row.name, *_attempt(cells, 3)


def others(setting: Setting) -> Iterator[Cells]:
    """A dream beside torch-lucent's and PGD beside foolbox's, over as many bare passes as they have steps."""
    name, side, steps = ("shufflenet_v2_x0_5", 32, 2) if setting.quick else ("resnet18", 128, 60)

    def dream() -> tuple[str, str, str]:
        import dream as dreams

        model = dreams.network(name).to(setting.device)
        return ratios(
            lambda: dreams.plain_steps(model, steps, side),
            lambda: dreams.ours(model, logit(dreams.CLASS), steps, side),
            lambda: dreams.lucents(model, f"fc:{dreams.CLASS}", steps, side),
        )

    def attack() -> tuple[str, str, str]:
        import adversarial

        model = adversarial.network(name).to(setting.device)
        pixels = torch.rand(8, 3, side, side, device=setting.device)
        labels = torch.randint(1000, (8,), device=setting.device)
        given = adversarial.Setting(model, pixels, labels, steps)
        return ratios(*(partial(function, given) for function in (bare, adversarial.ours, adversarial.of_foolbox)))

    def bare(given: Any) -> None:
        import adversarial

        adversarial.passes(given, given.steps)

    def ratios(bare: Callable[[], object], ours: Callable[[], object], theirs: Callable[[], object]) -> Any:
        found = in_turns({"bare": bare, "ours": ours, "theirs": theirs}, "bare", setting.rounds)
        return f"{found['ours']:.2f}", f"{found['theirs']:.2f}", ""

    yield f"{name}, of bare passes", "dream of a class, torch-lucent", *_attempt(dream, 3)
    yield f"{name}, of bare passes", "PGD, foolbox", *_attempt(attack, 3)


def tests(setting: Setting) -> Iterator[Cells]:
    """The device rows of the test suite, which take a GPU where there is one."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", str(setting.tests)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told = re.findall(r"\d+ (?:passed|failed|skipped|errors?)", ended.stdout.splitlines()[-1] if ended.stdout else "")
    found = ", ".join(told) or ("passed" if ended.returncode == 0 else "")
    yield setting.tests.name, "device rows", found, "", "" if ended.returncode == 0 else "failed"


def _attempt(work: Callable[[], tuple[str, ...]], count: int) -> tuple[str, ...]:
    """What some work says in so many cells; of one that fails the last says why."""
    try:
        return work()
    except ModuleNotFoundError as error:
        return (*[""] * (count - 1), f"not installed: {error.name}")
    except Exception as error:  # one row's
        return (*[""] * (count - 1), f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="small nets, few steps")
    parser.add_argument("--out", type=Path, help="file for the table, too")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests" / "test_devices.py", help="their device rows")
    options = parser.parse_args()
    setting = Setting(options.device, options.quick, options.tests)
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    budget.FREE_SECONDS = 0.0
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    gpu = setting.device == "cuda"
    where = torch.cuda.get_device_name() if gpu else f"a dry run on the CPU ({platform.machine()})"
    say(f"torch {torch.__version__}, {where}{', --quick' * setting.quick}\n")
    say(f"| {' | '.join(HEADER)} |")
    say("| --- | --- | ---: | ---: | --- |")
    for rows in (tests, trainings, methods, others):
        for cells in rows(setting):
            say(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")
    return int(any("| failed" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
