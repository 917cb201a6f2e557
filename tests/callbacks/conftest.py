"""Tiny networks and runs, and drawing that can be looked into."""

import os
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import View
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.drawing_queue import FinishedDrawing

from .drawings import draw

LIGHTNING_SAYS = [
    "ignore:.*does not have many workers.*",
    "ignore:The number of training batches.*",
    "ignore:.*is supposed to be.*",
    "ignore:You defined a `validation_step` but have no `val_dataloader`.*",
    "ignore:Checkpoint directory.*",
    "ignore:.*Starting from v1.9.0, `tensorboardX` has been removed.*",
    "ignore:.*isinstance\\(treespec, LeafSpec\\).*",
    "ignore:.*`treespec, LeafSpec.*",
]


def pytest_collection_modifyitems(items):
    """What Lightning itself warns of in runs as small as these is no error here."""
    for item in items:
        if "tests/callbacks" in str(item.path):
            for line in LIGHTNING_SAYS:
                item.add_marker(pytest.mark.filterwarnings(line))


@pytest.fixture(autouse=True)
def own_seeds():
    """`seed_everything` leaves its seed in the environment, from which later runs would seed their workers."""
    before = dict(os.environ)
    yield
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        os.environ.pop(name, None)
        if name in before:
            os.environ[name] = before[name]


class Net(pl.LightningModule):
    """A classifier; what its layers are, subclasses say."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class ConvNet(Net):
    def __init__(self, channels=1, classes=3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return self.fc(F.relu(self.conv2(x)).mean((2, 3)))


class Perceptron(Net):
    def __init__(self, inputs=2, units=5, classes=2):
        super().__init__()
        self.hidden = nn.Linear(inputs, units)
        self.deeper = nn.Linear(units, 4)
        self.output = nn.Linear(4, classes)

    def forward(self, x):
        return self.output(F.relu(self.deeper(F.relu(self.hidden(x)))))


class Watch(View):
    """A view that draws a page of one color, the cheapest there is."""

    kind = "watch"

    def draw(self, snapshot):
        yield DrawTask(draw, {"tag": "watch/page", "step": snapshot.step})


def images(count=24, channels=1, height=8, width=8, classes=3):
    """Images in [0, 1] with labels in turn."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, channels, height, width, generator=generator), torch.arange(count) % classes


def plane(count=40):
    """Points of two classes."""
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(1))
    return points, (points[:, 0] * points[:, 1] > 0).long()


def loader(*tensors, batch_size=4, **options):
    return DataLoader(TensorDataset(*tensors), batch_size=batch_size, **options)


def make_trainer(folder, views, **options):
    given = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": TensorBoardLogger(folder, name="run", version=""),
        "default_root_dir": folder,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
        "callbacks": views,
    }
    return pl.Trainer(**{**given, **options})


def fit(folder, model, views, train=None, val="same", *, ckpt_path=None, **options):
    """Train for an epoch of six batches of images, or as said."""
    train = loader(*images()) if train is None else train
    trainer = make_trainer(folder, views, **options)
    trainer.fit(model, train, train if isinstance(val, str) else val, ckpt_path=ckpt_path)
    return trainer


def said(caught):
    """What views warned of."""
    return [str(one.message) for one in caught if str(one.message).startswith("lightning_viz")]


@dataclass
class Drawing:
    """What was drawn in a test's own process."""

    owner: str
    step: int
    sketch: DrawTask
    drawn: Any = None


class Gallery(list[Drawing]):
    """All drawings of a test's runs, in order."""

    def pictures(self, tag):
        """Step to picture."""
        found = {}
        for one in self:
            for picture in one.drawn.pictures if one.drawn else ():
                if picture.tag == tag:
                    found[one.step] = picture
        return found

    def tags(self):
        """Tag to steps."""
        found = defaultdict(list)
        for one in self:
            for picture in one.drawn.pictures if one.drawn else ():
                found[picture.tag].append(one.step)
        return dict(found)

    def arguments(self, tag):
        """Step to what a sketch was drawn from."""
        return {one.step: one.sketch.arguments for one in self if one.sketch.arguments.get("tag") == tag}

    def pages(self, tag):
        """Step to the page that was laid out, of a drawing that depends on no earlier one."""
        sketches = {one.step: one.sketch for one in self if one.sketch.arguments.get("tag") == tag}
        return {step: sketch.function(**sketch.arguments) for step, sketch in sketches.items()}


@pytest.fixture
def drawn_at_once(monkeypatch):
    """Sketches are drawn in this process as they are handed in, and kept."""
    gallery = Gallery()

    class AtOnce(DrawingProcess):
        def __init__(self):
            super().__init__()
            self.memories = {}

        def submit(self, owner, step, sketch):
            drawing = Drawing(owner, step, sketch)
            gallery.append(drawing)
            try:
                drawing.drawn = sketch.draw(self.memories)
                self._results.put((None, FinishedDrawing(owner, step, drawing.drawn, name=sketch.name)))
            except Exception as error:
                self._results.put((None, FinishedDrawing(owner, step, None, f"{type(error).__name__}: {error}")))

    monkeypatch.setattr("lightning_viz.callbacks.picture_log.DrawingProcess", AtOnce)
    return gallery
