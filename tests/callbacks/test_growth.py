"""What a run holds does not grow with its looks (see `benchmarks/growth.py` for memory, and for long runs)."""

import gc
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from lightning_viz import GradCAM
from lightning_viz.callbacks.notices import LeftOut
from lightning_viz.callbacks.schedule import OverheadBudget
from lightning_viz.callbacks.session import session

from .conftest import ConvNet, Watch, fit, images, loader


class Meter(pl.Callback):
    """Waits until a look is drawn and written, and counts what is held after some of them."""

    def __init__(self, at):
        self.at, self.counts = at, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        running = session(trainer)
        running.pictures.process.drain(30)
        running.collect()
        if batch_idx in self.at:
            trainer.logger.experiment.flush()
            gc.collect()
            self.counts.append(held(pl_module) + Counter(tasks=running.pictures.process.undrawn))


def held(model):
    """Hooks on modules, threads, open files, tensors, and objects of ours by kind."""
    hooks = [
        (name, key)
        for module in model.modules()
        for name, value in vars(module).items()
        if name.endswith("hooks") and isinstance(value, dict)
        for key in value
    ]
    kinds = [type(thing) for thing in gc.get_objects()]
    counts = Counter(
        kind.__name__ for kind in kinds if str(kind.__module__).startswith("lightning_viz") or kind is torch.Tensor
    )
    counts.update(hooks=len(hooks), threads=threading.active_count())
    if sys.platform == "linux":
        counts["files"] = len(list(Path("/proc/self/fd").iterdir()))
    return counts


def test_a_run_holds_after_many_looks_what_it_held_after_some(tmp_path):
    every = {"every_n_train_steps": 1, "max_overhead": float("inf")}
    meter = Meter({10, 30})
    train = loader(*(part.repeat(6, *[1] * (part.ndim - 1)) for part in images()))
    fit(tmp_path, ConvNet(), [GradCAM(probe=4, **every), Watch(**every), meter], train)
    some, many = meter.counts
    grown = many - some
    assert {name: count for name, count in grown.items() if count >= 10} == {}  # of 20 looks; threads hold the last one
    assert not {"hooks", "threads", "files", "tasks"} & set(grown)
    assert many["tasks"] == many["hooks"] == 0 and some["DrawingQueue"] > 0


@pytest.mark.parametrize("draws", [True, False])
def test_the_book_of_looks_does_not_grow_also_where_nothing_is_drawn(draws):
    book, left, sizes = OverheadBudget(), LeftOut(), []
    for step in range(20_000):
        book.charge("a", step, 0.0)
        left.add(Watch(), step, "as drawing is behind")
        if draws:
            book.wrote("a", step, 0.0)
        if step in (10_000, 19_999):
            sizes.append(sum(map(contents, (book, left))))
    assert sizes[0] == sizes[1]


def contents(thing):
    """How many things a thing holds, in containers in containers."""
    if isinstance(thing, dict):
        return len(thing) + sum(map(contents, thing.values()))
    if hasattr(thing, "__dict__"):
        return contents(vars(thing))
    return len(thing) + sum(map(contents, thing)) if hasattr(thing, "__len__") and not isinstance(thing, str) else 0
