"""A module and its data, as a user's own file would hold them: named by class path."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.callbacks.conftest import images


class Net(pl.LightningModule):
    def __init__(self, width: int = 4, classes: int = 3, rate: float = 0.05):
        super().__init__()
        self.save_hyperparameters()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(F.relu(self.conv1(x)).mean((2, 3)))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.rate)


class Squares(pl.LightningDataModule):
    def __init__(self, count: int = 12, batch: int = 4):
        super().__init__()
        self.count, self.batch = count, batch

    def train_dataloader(self):
        return DataLoader(TensorDataset(*images(self.count)), batch_size=self.batch)

    def val_dataloader(self):
        return self.train_dataloader()


class Around(nn.Module):
    """Takes another module."""

    def __init__(self, inner: nn.Module, depth: int = 1):
        super().__init__()
        self.inner, self.depth = inner, depth


class Breaks(Net):
    def __init__(self):
        super().__init__()
        raise ZeroDivisionError("made to break")
