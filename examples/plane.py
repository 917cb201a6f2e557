"""Small perceptrons learn two sets in the plane; the lines of their hidden units are watched to iteration 10,000."""

import argparse

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import Hyperplanes, Probe


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


class Plane(pl.LightningDataModule):
    def __init__(self, name="disc"):
        super().__init__()
        self.name = name

    def setup(self, stage):
        points, labels = SETS[self.name](5000, np.random.default_rng(0))
        self.data = TensorDataset(torch.tensor(points, dtype=torch.float32), torch.tensor(labels))

    def train_dataloader(self):
        return DataLoader(self.data, batch_size=50, shuffle=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs", help="folder for TensorBoard's files")
    parser.add_argument("--steps", type=int, default=10_000)
    options = parser.parse_args()
    torch.set_num_threads(1)  # a net this small is faster on one

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
