"""The activation function after each layer is seen however it is called, and judged if it alone takes its input."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from lightning_viz.hooks.activation_functions import activation_functions
from lightning_viz.hooks.layers import select_layers

DIES, SATURATES, NOT_JUDGED = (True, True), (False, True), (False, False)  # dies, is judged

CALLS = {
    "module": (lambda x: nn.ReLU()(x), "relu", DIES),
    "in place": (lambda x: nn.ReLU(inplace=True)(x), "relu", DIES),
    "function": (F.relu, "relu", DIES),
    "function in place": (F.relu_, "relu", DIES),
    "method": (lambda x: x.relu(), "relu", DIES),
    "clamp": (lambda x: x.clamp(min=0), "relu", DIES),
    "relu6": (nn.ReLU6(), "relu6", DIES),
    "after dropout": (lambda x: F.relu(F.dropout(x, training=False)), "relu", DIES),
    "after a maximum": (lambda x: F.relu(F.max_pool2d(x, 2)), "relu", DIES),
    "after a change of shape": (lambda x: F.relu(x.flatten(1)), "relu", DIES),
    "tanh": (torch.tanh, "tanh", SATURATES),
    "sigmoid": (nn.Sigmoid(), "sigmoid", SATURATES),
    "GELU": (F.gelu, "gelu", NOT_JUDGED),
    "leaky": (nn.LeakyReLU(), "leaky_relu", NOT_JUDGED),
    "none": (lambda x: x + 1, "", NOT_JUDGED),
    "a mean before": (lambda x: F.relu(x.mean((2, 3))), "", NOT_JUDGED),
    "SiLU by hand": (lambda x: x * torch.sigmoid(x), "sigmoid", NOT_JUDGED),
    "a skip around it": (lambda x: F.relu(x) + x, "relu", (True, False)),
    "a gate": (lambda x: torch.sigmoid(x) * 2, "sigmoid", NOT_JUDGED),
    "two of them": (lambda x: (F.relu(x), torch.tanh(x))[0], "relu", (True, False)),
    "a sum in place before": (lambda x: F.relu(x.add_(1)), "", NOT_JUDGED),
}


class One(nn.Module):
    def __init__(self, after, *, last=False):
        super().__init__()
        self.conv, self.after, self.last = nn.Conv2d(1, 2, 3, padding=1), [after], last

    def forward(self, x):
        x = self.after[0](self.conv(x))
        return x if self.last else x.flatten(1).mean(1, keepdim=True)


@pytest.mark.parametrize("call", CALLS)
def test_it_is_seen_and_judged(call):
    after, name, expected = CALLS[call]
    model = One(after)
    (found,) = activation_functions(model, torch.rand(2, 1, 4, 4), {"conv": model.conv}).values()
    assert (found.name, found.dies, found.judged) == (name, *expected)
    assert not model.conv._forward_hooks


def test_a_bounded_function_at_the_output_is_not_judged_and_a_relu_is():
    for after, judged in ((torch.sigmoid, False), (torch.relu, True)):
        model = One(after, last=True)
        assert activation_functions(model, torch.rand(2, 1, 4, 4), {"conv": model.conv})["conv"].judged == judged


def test_a_normalization_between_is_what_the_function_reads():
    model = torchvision.models.resnet18()
    found = activation_functions(model, torch.rand(2, 3, 32, 32), select_layers(model, "weighted"))
    assert (found["conv1"].name, found["conv1"].reads, found["conv1"].judged) == ("relu", "bn1", True)
    assert not found["layer1.0.conv2"].name  # a sum follows
    assert "bn1" not in found and len(found) == 21


def test_saturation_begins_within_a_hundredth_of_the_range():
    model = One(torch.tanh)
    found = activation_functions(model, torch.rand(2, 1, 4, 4), {"conv": model.conv})["conv"]
    assert math.isclose(math.tanh(found.high), 0.98) and found.low == -found.high
