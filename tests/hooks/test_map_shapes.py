"""The maps behind a fully connected layer's input, told from the graph of a pass."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_viz.hooks.map_shapes import flattened_maps

X = torch.rand(3, 2, 8, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.conv, self.drop, self.fc1, self.fc2 = nn.Conv2d(2, 5, 3), nn.Dropout(), nn.Linear(120, 4), nn.Linear(4, 3)
        self.how = how

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(self.how(self, F.relu(self.conv(x))))))


@pytest.mark.parametrize(
    ("how", "shape"),
    [
        (lambda net, x: x.flatten(1), (5, 6, 4)),
        (lambda net, x: net.drop(torch.flatten(x, 1)), (5, 6, 4)),
        (lambda net, x: F.relu(x.view(len(x), -1)), (5, 6, 4)),
        (lambda net, x: x.reshape(-1, 120), (5, 6, 4)),
        (lambda net, x: x.permute(0, 2, 3, 1).flatten(1), None),  # places first
        (lambda net, x: x.repeat(1, 24, 1, 1).mean((2, 3)), None),  # pooled: no places
        (lambda net, x: 2 * x.flatten(1).roll(1, 1), None),  # mixed afterwards
    ],
)
def test_the_flattened_maps_are_those_of_the_pass(how, shape):
    net = Net(how).train()
    found = flattened_maps(net, X, {"fc1": net.fc1, "fc2": net.fc2})
    assert found == ({} if shape is None else {"fc1": shape})
    assert net.training and not net.fc1._forward_pre_hooks and net.fc1.weight.grad is None


def test_frozen_models_are_told_too():
    net = Net(lambda net, x: x.flatten(1)).requires_grad_(False)
    assert flattened_maps(net, X, {"fc1": net.fc1}) == {"fc1": (5, 6, 4)}


def test_one_pass_of_one_sample_tells_and_none_where_nothing_is_flattened():
    seen = []
    net = Net(lambda net, x: x.flatten(1))
    net.conv.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    assert flattened_maps(net, X, {"conv": net.conv, "fc1": net.fc1}) == {"fc1": (5, 6, 4)}
    assert seen == [1]
    assert flattened_maps(net, X, {"conv": net.conv}) == {} and seen == [1]
