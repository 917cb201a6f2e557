"""A small network trained on scikit-learn's digits, enlarged to 28 x 28: every dream about it has a known truth."""

from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz.pixels import PixelSpace


class Digits(NamedTuple):
    """The network, its normalized images [1797, 1, 28, 28], their labels, and how they map to pixels."""

    model: nn.Sequential
    images: Tensor
    labels: Tensor
    pixel_space: PixelSpace


def digits_net() -> nn.Sequential:
    """Three convolutions, two fully connected layers."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 5, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(16, 32, 3, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(32, 64, 3, padding=1),
            relu3=nn.ReLU(),
            flat=nn.Flatten(),
            fc1=nn.Linear(64 * 49, 64),
            relu4=nn.ReLU(),
            fc2=nn.Linear(64, 10),
        )
    )


def trained_digits(epochs: int = 5) -> Digits:
    """Train it, always alike: some seconds."""
    flat, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(flat, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    pixels = F.interpolate(pixels, (28, 28), mode="bilinear", align_corners=False)
    pixel_space = PixelSpace((pixels.mean().item(),), (pixels.std().item(),))
    images, labels = pixel_space.to_inputs(pixels), torch.tensor(labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = digits_net()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(epochs):
            for batch in torch.randperm(len(images)).split(64):
                loss = F.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return Digits(model.eval(), images, labels, pixel_space)


@pytest.fixture(scope="session")
def digits() -> Digits:
    found = trained_digits()
    with torch.no_grad():
        accuracy = (found.model(found.images).argmax(1) == found.labels).float().mean()
    assert accuracy > 0.97
    return found
