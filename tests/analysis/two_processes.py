"""An analysis on one process or several, in which a step fails or which goes on where another was interrupted.

As a program, ``python -m tests.analysis.two_processes CHECKPOINTS FOLDER PROCESSES`` runs one scenario after the other,
so that the processes start once; what scenario ``n`` says and writes is in ``FOLDER/n``.
"""

import importlib
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch

from lightning_viz.analysis import results as findings
from lightning_viz.analysis.analyze import analyze
from lightning_viz.callbacks import picture_log
from lightning_viz.callbacks.distributed import first_process
from tests.callbacks.conftest import ConvNet, images, loader
from tests.callbacks.watched_run import write_into

from .conftest import DrawsHere
from .fakes import fakes

analyzing = importlib.import_module("lightning_viz.analysis.parts")

VIEWS = ("filters", "top_samples", "statistics")
SCENARIOS = ("nothing fails", "two were interrupted", "a step fails")
MISSING = ("statistics-00000003", "mean")
"""What was not finished when two were interrupted: one pass with views, one for the samples alone."""


class Fails(ConvNet):
    def validation_step(self, batch, batch_idx):
        if batch_idx == 1:
            raise AttributeError("nothing to log to")
        self(batch[0])


class Works(ConvNet):
    def validation_step(self, batch, batch_idx):
        self(batch[0])


def mean(study):
    yield findings.Output("mean", numbers={"value": study.images.mean()})


def run(checkpoints, out, processes, scenario="nothing fails"):
    """Analyze, and tell what each process puts into the findings and that it has ended."""
    # Both go by one name, which is in the report.
    model = type("Model", (Fails if scenario == "a step fails" else Works,), {})
    put = findings.Results.put

    def watched(self, name, *args):
        print(f"rank {0 if first_process() else 1} puts {name}", flush=True)
        put(self, name, *args)

    options = {"strategy": "ddp"} if processes > 1 else {}
    data = loader(*images(41), batch_size=6)  # no batch of one sample: torch convolves that with other last digits
    with ExitStack() as patches:
        patches.enter_context(patch.object(picture_log, "DrawingProcess", DrawsHere))
        patches.enter_context(patch.object(findings.Results, "put", watched))
        patches.enter_context(patch.object(analyzing, "techniques", lambda: fakes(mean=mean)))
        analyze(
            checkpoints,
            model=model,
            data=data,
            out=out,
            samples=20,
            views=VIEWS,
            minutes=1e6,  # measured, but nothing is shortened
            trainer={"accelerator": "cpu", "devices": processes, **options},
        )
    print(f"rank {0 if first_process() else 1} ends", flush=True)


def interrupted(before, out):
    """Leave what an interrupted analysis would have left; while the first process does it, the others wait."""
    torch.distributed.barrier()
    if first_process():
        shutil.copytree(before, out)
        for part in MISSING:
            shutil.rmtree(out / "findings" / part)
    torch.distributed.barrier()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for place, name in enumerate(SCENARIOS):
        own = Path(sys.argv[2]) / str(place)
        own.mkdir(exist_ok=True)
        write_into(own)
        if name == "two were interrupted":
            interrupted(own.parent / "0" / "out", own / "out")
        run(sys.argv[1], own / "out", int(sys.argv[3]), name)
