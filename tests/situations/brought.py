"""What users bring: data whose truth is known, and nets that are right by construction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pictures(count: int = 16, channels: int = 3, height: int = 16, width: int = 16, classes: int = 4):
    """Images ``[N, C, H, W]`` in [0, 1], one quarter of which is bright, and its number ``[N]``."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % classes
    images = torch.rand(count, channels, height, width, generator=generator) * 0.3
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = label // 2 * height // 2, label % 2 * width // 2
        image[:, top : top + height // 2, left : left + width // 2] += 0.6
    return images, labels


class Quarters(nn.Module):
    """Logits ``[N, 4]``, the brightness of each quarter of an image: right on `pictures`."""

    def __init__(self, channels: int = 3, sharpness: float = 20.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 3, 1, bias=False)
        nn.init.constant_(self.conv.weight, 1 / channels)
        self.sharpness = sharpness

    def forward(self, images: Tensor) -> Tensor:
        return self.sharpness * F.adaptive_avg_pool2d(F.relu(self.conv(images)), 2).mean(1).flatten(1)


class Module(pl.LightningModule):
    """What most people write: one step for training and validation. The weights stay as they are."""

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net = Quarters() if net is None else net

    def step(self, batch: Any) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def training_step(self, batch, batch_idx):
        return self.step(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.step(batch), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Classifier(Module):
    """With a ``forward`` besides."""

    def forward(self, images):
        return self.net(images)


class Items(torch.utils.data.Dataset):
    """A data set of what a function gives for each number."""

    def __init__(self, item: Callable[[int], Any], count: int) -> None:
        self.item, self.count = item, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.item(index)


def loader(item: Callable[[int], Any], count: int = 16, **options: Any) -> torch.utils.data.DataLoader:
    """Two batches of what a function gives for each number."""
    return torch.utils.data.DataLoader(Items(item, count), **{"batch_size": 8, **options})


def rows(*arrays: Any, **options: Any) -> torch.utils.data.DataLoader:
    """Two batches of the rows of arrays."""
    return loader(lambda index: tuple(array[index] for array in arrays), len(arrays[0]), **options)
