"""Small perceptrons learn two sets in the plane; the lines of their hidden units are watched to iteration 10,000."""

import argparse
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import Hyperplanes, Probe
from lightning_viz.callbacks.writers import FolderWriter
from lightning_viz.parameters import importance
from lightning_viz.render.colors import class_colors
from lightning_viz.render.decision_regions import DecisionRegions
from lightning_viz.render.hyperplanes import clip_lines
from lightning_viz.render.layout import draw
from lightning_viz.render.page import Page, compose, lay_out
from lightning_viz.render.parts import ClassKey, HStack, PlanePlot, Text, Tile, VStack
from lightning_viz.render.text import percent

ITERATIONS = {
    "disc": (1, 4, 7, 10, 16, 34, 77, 100, 703, 1407, 2789, 9999),
    "spirals": (1, 4, 16, 34, 77, 136, 272, 556, 1111, 2222, 4444, 9999),
}
SIDE, GRID = 218, 109  # pixels of a panel, and points along its side at which classes are found


class Perceptron(pl.LightningModule):
    def __init__(self, units=20):
        super().__init__()
        self.hidden = nn.Linear(2, units)
        self.output = nn.Linear(units, 2)

    def forward(self, x):
        return self.output(F.relu(self.hidden(x)))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def disc_in_a_ring(count, rng):
    inner = rng.random(count) < 0.5
    radius = np.where(inner, np.sqrt(rng.random(count)) * 0.8, 1.2 + rng.random(count) * 0.6)
    angle = rng.random(count) * 2 * np.pi
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), inner.astype(int)


def two_spirals(count, rng):
    label = rng.integers(0, 2, count)
    turn = 0.25 + rng.random(count) * 1.25
    angle = 2 * np.pi * turn + np.pi * label
    points = np.stack([turn * np.cos(angle), turn * np.sin(angle)], 1)
    return points + rng.normal(scale=0.04, size=points.shape), label


SETS = {"disc": disc_in_a_ring, "spirals": two_spirals}


def plane_samples(name):
    points, labels = SETS[name](5000, np.random.default_rng(0))
    return torch.tensor(points, dtype=torch.float32), torch.tensor(labels)


class Plane(pl.LightningDataModule):
    def __init__(self, name="disc"):
        super().__init__()
        self.name = name

    def setup(self, stage):
        self.data = TensorDataset(*plane_samples(self.name))

    def train_dataloader(self):
        return DataLoader(self.data, batch_size=50, shuffle=True)


def iterations(name):
    """Train a perceptron on a set, without a Trainer, and stop at some numbers of updates to look at it."""
    torch.manual_seed(0)
    model, (points, labels) = Perceptron(), plane_samples(name)
    optimizer, updates = model.configure_optimizers(), 0
    while True:
        for rows in torch.randperm(len(points)).split(50):
            loss = F.cross_entropy(model(points[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            if updates in ITERATIONS[name]:
                yield updates, model
            if updates == ITERATIONS[name][-1]:
                return


def panel(model, points, labels, reach):
    """Lines, samples and decision regions in a small square, drawn twice as large and made smaller."""
    extent = (-reach, reach, -reach, reach)
    axis = torch.linspace(-reach, reach, GRID)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    with torch.no_grad():
        shares = model(torch.stack([x.flatten(), y.flatten()], 1)).log_softmax(1)
        right = (model(points).argmax(1) == labels).float().mean()
    weights, biases = (part.detach().numpy() for part in (model.hidden.weight, model.hidden.bias))
    ends = clip_lines(weights, biases, extent)
    seen = np.isfinite(ends).all(axis=(1, 2))
    plot = PlanePlot(
        width=2 * SIDE,
        height=2 * SIDE,
        samples=points[:400].numpy(),
        labels=labels[:400].numpy(),
        class_count=2,
        regions=DecisionRegions(np.arange(2), shares.T.reshape(2, GRID, GRID).numpy(), 2),
        lines=ends[seen],
        strengths=0.15 + 0.85 * importance(model.output.weight.detach()).numpy()[seen],
        extent=extent,
        frame=(0, 0, 2 * SIDE, 2 * SIDE),
    )
    return Tile((SIDE, SIDE), np.asarray(draw(plot).convert("RGB")), average=True), float(right)


def panels(name) -> Page:
    """A perceptron at twelve iterations."""
    points, labels = plane_samples(name)
    parts, reach = [], 1.1 * float(points.abs().max())
    for iteration, model in iterations(name):
        tile, right = panel(model, points, labels, reach)
        print(f"{name}, iteration {iteration}: {right:.1%} right", flush=True)
        words = f"iteration {iteration:,}: {percent(right, 1)} %"
        parts.append(VStack([Text([words], SIDE), tile], gap=2))
    rows = [HStack(parts[start : start + 3], gap=11) for start in range(0, len(parts), 3)]
    return compose(
        f"hyperplanes/{name}",
        f"Twenty hidden units of a perceptron on the plane: {SETS[name].__name__.replace('_', ' ')}",
        VStack([*rows, ClassKey(["class 0", "class 1"], class_colors(2))], gap=8),
        (
            "line: where a unit switches, on the side of its triangles it is on",
            "fainter: weighs less in the output",
            "above each panel: share of the samples that are right",
        ),
        "The ground's color is the class that the network predicts there, the paler, the less probable; dots are "
        "samples in their true classes' colors.",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs", help="folder for TensorBoard's files")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--panels", action="store_true", help="draw twelve iterations side by side instead, as PNG")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a net this small is faster on one

    if options.panels:
        for name in SETS:
            FolderWriter(Path(options.out)).picture(lay_out(panels(name)), ITERATIONS[name][-1])
        return

    for name in SETS:
        pl.seed_everything(0)
        trainer = pl.Trainer(
            max_steps=options.steps,
            logger=TensorBoardLogger(options.out, name=f"plane_{name}"),
            callbacks=[
                Hyperplanes(probe=Probe(source="train")),  # the one line: logarithmic steps by default
                ModelCheckpoint(every_n_train_steps=2500, save_top_k=-1),  # for `lightning-viz analyze`
            ],
        )
        trainer.fit(Perceptron(), datamodule=Plane(name))


if __name__ == "__main__":
    main()
