"""The trained digits net, and models, normalized and not, that torchattacks and foolbox can attack as well."""

from typing import NamedTuple

import pytest
import torch
import torchvision
from torch import Tensor, nn

from lightning_viz.pixels import PixelSpace
from tests.dream.conftest import digits  # noqa: F401  # a fixture

_IMAGENET = PixelSpace((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Given(NamedTuple):
    """A model in eval mode, samples as it takes them, their labels, and how they map to pixels; None: they are."""

    model: nn.Module
    inputs: Tensor
    labels: Tensor
    pixel_space: PixelSpace | None

    @property
    def pixels(self) -> Tensor:
        return self.inputs if self.pixel_space is None else self.pixel_space.to_pixels(self.inputs)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))


def lenet() -> nn.Module:
    pool = nn.MaxPool2d(2)
    convolutions = [nn.Conv2d(3, 8, 5), nn.ReLU(), pool, nn.Conv2d(8, 16, 5), nn.ReLU(), pool]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(400, 64), nn.ReLU(), nn.Linear(64, 10))


def resnet() -> nn.Module:
    return torchvision.models.resnet18(num_classes=10)


@pytest.fixture(scope="session", params=[None, _IMAGENET], ids=["pixels", "normalized"])
def pixel_space(request: pytest.FixtureRequest) -> PixelSpace | None:
    return request.param


@pytest.fixture(scope="session", params=[linear, lenet, resnet], ids=lambda build: build.__name__)
def given(request: pytest.FixtureRequest, pixel_space: PixelSpace | None) -> Given:
    """Models with random weights, and random pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, pixels, labels = request.param().eval(), torch.rand(4, 3, 32, 32), torch.randint(10, (4,))
    return Given(model, pixels if pixel_space is None else pixel_space.to_inputs(pixels), labels, pixel_space)
