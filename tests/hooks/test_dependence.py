"""Which of several images a layer's call depends on."""

import torch
from torch import nn

from lightning_viz.hooks.dependence import images_of_calls


class Towers(nn.Module):
    """One tower for both images, and a layer for both together."""

    def __init__(self):
        super().__init__()
        self.tower, self.joint = nn.Conv2d(1, 2, 3), nn.Conv2d(4, 2, 1)

    def forward(self, first, second):
        second = self.tower(second * 2)  # the second image is the first to be looked at
        return self.joint(torch.cat([self.tower(first), second], 1)).mean((2, 3))


def test_a_call_depends_on_the_image_that_reaches_it():
    model, images = Towers(), torch.rand(2, 3, 1, 8, 8)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    seen = images_of_calls(model, tuple(images), ["tower", "joint"])
    assert seen == {"tower:0": 1, "tower:1": 0}  # not of the joint layer, which depends on both
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert images_of_calls(nn.Sequential(nn.Conv2d(1, 2, 3)), images[0], ["0"]) == {}
