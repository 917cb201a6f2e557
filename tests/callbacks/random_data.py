"""Data that training draws from at random; every sample comes with its number, so that the order shows."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

CLASSES = 3


class Images(Dataset):
    """24 images, their classes and numbers; as a person with much memory would write it."""

    def __init__(self, augment: Callable[[Any], Any] | None = None, count: int = 24, *, listed: bool = True) -> None:
        generator = torch.Generator().manual_seed(count)
        self.images = torch.randn(count, 3, 8, 8, generator=generator)
        self.classes_ = torch.arange(count) % CLASSES
        self.augment = augment
        if listed:
            self.targets = self.classes_.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        image = self.images[index]
        return (self.augment(image) if self.augment else image), int(self.classes_[index]), index


def augmented(image: torch.Tensor) -> torch.Tensor:
    """By the global generators of all three libraries."""
    image = image.flip(-1) if random.random() < 0.5 else image
    image = image + np.float32(np.random.normal(0, 0.1))
    return image + 0.1 * torch.randn_like(image)


class OwnGenerators(Images):
    """A data set that owns its generators: asking it for a sample changes all that come after."""

    def __init__(self) -> None:
        super().__init__(listed=False)
        self.rng, self.dice = np.random.default_rng(3), random.Random(3)
        self.generator = torch.Generator().manual_seed(3)
        self.asked = 0

    def __getitem__(self, index: int) -> Any:
        image, label, number = super().__getitem__(index)
        self.asked += 1
        noise = torch.randn(image.shape, generator=self.generator) * self.dice.random()
        return image + noise + np.float32(self.rng.normal()), label, number


class Stream(IterableDataset):
    """Samples that can only be taken as they pass; its generator lives on from epoch to epoch."""

    def __init__(self, count: int = 24) -> None:
        self.count, self.generator = count, torch.Generator().manual_seed(count)

    def __iter__(self) -> Any:
        for index in range(self.count):
            yield torch.randn(3, 8, 8, generator=self.generator), index % CLASSES, index


def shuffled(data: Dataset, **options: Any) -> DataLoader:
    return DataLoader(data, batch_size=6, shuffle=True, **options)


def validation(**options: Any) -> DataLoader:
    return DataLoader(Images(count=30), batch_size=10, **options)


def mixed(samples: Any) -> dict[str, torch.Tensor]:
    """Collate with noise."""
    images, labels, _ = default_collate(samples)
    return {"image": images + np.float32(np.random.rand()) * torch.randn_like(images), "label": labels}


class Order:
    """Batches of numbers, from the global generator."""

    def __iter__(self) -> Any:
        return iter(torch.randperm(24).view(4, 6).tolist())

    def __len__(self) -> int:
        return 4


class Points(Dataset):
    """Points of the plane, with noise on each."""

    def __init__(self) -> None:
        self.points = torch.randn(24, 2, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> Any:
        point = self.points[index]
        return point + 0.1 * torch.randn(2), int(point[0] * point[1] > 0), index
