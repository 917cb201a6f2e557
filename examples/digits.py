"""A LeNet learns scikit-learn's handwritten digits, watched by every view that suits it."""

import argparse

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_viz import default_views


class LeNet(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_accuracy", (self(x).argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)


class Digits(pl.LightningDataModule):
    def setup(self, stage):
        digits = load_digits()
        images = F.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, size=(32, 32))
        data = TensorDataset(images, torch.tensor(digits.target))
        alike = torch.Generator().manual_seed(0)  # so that the analysis later has the same samples
        self.train, self.val = random_split(data, [len(data) - 600, 600], alike)

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=32, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=200)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs", help="folder for TensorBoard's files")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    pl.seed_everything(0)

    trainer = pl.Trainer(
        max_epochs=options.epochs,
        logger=TensorBoardLogger(options.out, name="digits"),
        callbacks=[
            *default_views(),  # the one line
            ModelCheckpoint(every_n_epochs=2, save_top_k=-1),  # for `lightning-viz analyze`
        ],
    )
    trainer.fit(LeNet(), datamodule=Digits())


if __name__ == "__main__":
    main()
