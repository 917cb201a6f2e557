"""A binary classifier with one logit z is explained as the one with the logits -z/2 and z/2."""

import pytest
import torch
from torch import nn

from lightning_viz.attribution import grad_cam, gradient, occlusion


class One(nn.Module):
    """The logit of a small net, as a logit or a probability."""

    def __init__(self, squash: bool, squeeze: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.Tanh(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 1)
        )
        self.squash, self.squeeze = squash, squeeze

    def forward(self, x):
        z = self.net(x)
        return (z.sigmoid() if self.squash else z)[:, 0] if self.squeeze else z.sigmoid() if self.squash else z


class Two(nn.Module):
    """The same with two outputs, whose difference is the target by hand."""

    def __init__(self, one: One) -> None:
        super().__init__()
        self.one = one

    def forward(self, x):
        z = self.one.net(x)
        two = torch.cat([-z / 2, z / 2], 1)
        return two.softmax(1) if self.one.squash else two


@pytest.mark.parametrize("squeeze", [False, True], ids=["[N, 1]", "[N]"])
@pytest.mark.parametrize("label", [0, 1])
def test_one_logit_is_the_difference_of_two(label, squeeze):
    one = One(squash=False, squeeze=squeeze).double().eval()
    two, x = Two(one), torch.rand(3, 1, 12, 12, dtype=torch.float64)

    def difference(outputs):
        return outputs[:, label] - outputs[:, 1 - label]

    torch.testing.assert_close(gradient(one, x, label), gradient(two, x, difference), atol=1e-6, rtol=0)
    for layer in ("net.0", "net.2"):
        maps = grad_cam(one, x, label, layers=layer)[layer]
        expected = grad_cam(two, x, difference, layers=f"one.{layer}")[f"one.{layer}"]
        torch.testing.assert_close(maps, expected, atol=1e-6, rtol=0)
    options = {"patch": 4, "stride": 2, "progress": False}
    torch.testing.assert_close(
        occlusion(one, x, label, **options).drop, occlusion(two, x, difference, **options).drop, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("label", [0, 1])
def test_one_probability_is_that_of_two(label):
    one = One(squash=True, squeeze=False).double().eval()
    two, x = Two(one), torch.rand(3, 1, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(gradient(one, x, label), gradient(two, x, label), atol=1e-6, rtol=0)
