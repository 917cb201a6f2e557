"""The lecture's experiment: uphill on the loss until the network errs, and nothing of the kind at random.

On a convnet that knows digits, on a linear classifier of the same, and on a convnet that tells colored shapes apart.
"""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz.adversarial import L2, fgsm, gradient_ascent
from lightning_viz.pixels import PixelSpace
from lightning_viz.robustness import random_directions
from tests.dream.conftest import Digits

pytestmark = pytest.mark.filterwarnings("ignore:gradient_ascent left unchanged")


class Known(NamedTuple):
    """A network, samples that it has right, their classes, how they map to pixels."""

    model: nn.Module
    inputs: Tensor
    labels: Tensor
    pixel_space: PixelSpace


def fitted(model: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()


def colored(count: int) -> tuple[Tensor, Tensor]:
    """A disc, a square or a bar, of any color on any other, ``[N, 3, 24, 24]``; which it is."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 3, (count,), generator=generator)
    down, across = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    y, x = (place - 12 - torch.randint(-3, 4, (count, 1, 1), generator=generator) for place in (down, across))
    shapes = [x**2 + y**2 < 36, (x.abs() < 5) & (y.abs() < 5), (x.abs() < 2) & (y.abs() < 8)]
    inside = torch.stack([shape.expand(count, 24, 24) for shape in shapes])[labels, torch.arange(count)][:, None]
    ink, paper = torch.rand(2, count, 3, 1, 1, generator=generator)
    noise = 0.05 * torch.randn(count, 3, 24, 24, generator=generator)
    return (torch.where(inside, ink, paper) + noise).clamp(0, 1), labels


@pytest.fixture(scope="module", params=["digits", "linear", "colors"])
def known(request: pytest.FixtureRequest, digits: Digits) -> Known:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if request.param == "digits":
            model, inputs, labels, pixel_space = digits
        elif request.param == "linear":
            _, inputs, labels, pixel_space = digits
            model = fitted(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), inputs, labels, 6)
        else:
            inputs, labels = colored(1000)
            pixel_space = PixelSpace()
            model = nn.Sequential(
                nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
                nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1152, 32), nn.ReLU(), nn.Linear(32, 3),
            )  # fmt: skip
            model = fitted(model, inputs, labels, 12)
    right = (model(inputs).argmax(1) == labels).nonzero().flatten()
    assert len(right) > 0.9 * len(labels)
    some = right[:40]
    return Known(model, inputs[some], labels[some], pixel_space)


def test_every_sample_turns_and_hardly_any_at_random(known: Known, record_property) -> None:
    model, inputs, labels, pixel_space = known
    given = gradient_ascent(model, inputs, labels, pixel_space=pixel_space)
    assert len(given.record.classes) <= 16
    assert given.success < 1  # how many is as it is: on confident samples the gradient is next to nothing
    on = gradient_ascent(model, inputs, labels, start=given.inputs, normalize=L2, steps=500, pixel_space=pixel_space)
    assert bool(on.fooled.all())
    around = random_directions(model, inputs, 2 * on.record.l2[-1], pixel_space=pixel_space, progress=False)
    assert around.changed.mean() < 0.02
    relative = on.record.relative[-1]
    for name, value in (
        ("share that the lecture's 15 steps turn", float(given.success)),
        ("normalized steps until all have turned", len(on.record.classes) - 2),
        ("median relative norm", float(relative.median())),
        ("largest share of a sphere that changes class", float(around.changed.max())),
        ("mean share of the spheres that changes class", float(around.changed.mean())),
    ):
        record_property(name, value)
        print(f"{name}: {value:.4g}")


def test_one_step_by_the_sign_turns_many(known: Known) -> None:
    found = fgsm(known.model, known.inputs, known.labels, epsilon=[0.05, 0.15, 0.3], pixel_space=known.pixel_space)
    assert bool((found.success.diff() > -0.05 - 1e-6).all())
    assert found.success[-1] > 0.5
