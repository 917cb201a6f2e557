"""One channel large, and fully connected weights in the shape of the maps that they read."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_viz import ActivationMaps, FirstLayerFilters, Probe
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks import observe

from .conftest import ConvNet, Net, fit, images, loader

X, Y = images(6, channels=3)
WATCHED = Probe(inputs=X, labels=Y, samples=6)


class Connected(Net):
    def __init__(self):
        super().__init__()
        self.conv, self.hidden, self.out = nn.Conv2d(3, 4, 3), nn.Linear(4 * 3 * 3, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(F.relu(self.hidden(F.max_pool2d(F.relu(self.conv(x)), 2).flatten(1))))


def test_a_channel_is_shown_large(drawn_at_once, tmp_path):
    model = ConvNet(channels=3)
    view = ActivationMaps(layers="conv2", channels=[4, 1], layout="large", probe=WATCHED)
    fit(tmp_path, model, [view], loader(X, Y))
    maps = observe(model.eval(), X, layers=["conv2"]).activations["conv2"].detach().numpy()
    assert set(drawn_at_once.tags()) == {"activations/conv2/4", "activations/conv2/1"}
    for channel in (4, 1):
        steps = drawn_at_once.arguments(f"activations/conv2/{channel}")
        last = steps[max(steps)]
        np.testing.assert_allclose(last["maps"][:, 0], maps[:, channel], atol=1e-6)
        assert len(last["limits"]) == 1
    with pytest.raises(InvalidArgumentError, match="layout is 'wide': give 'table' or 'large'"):
        ActivationMaps(layout="wide")


def test_connected_weights_have_the_shape_of_the_maps_they_read(drawn_at_once, tmp_path):
    model = Connected()
    fit(tmp_path, model, [FirstLayerFilters(layer="hidden", table=["out"], probe=WATCHED)], loader(X, Y))
    steps = drawn_at_once.arguments("filters/hidden")
    last = steps[max(steps)]
    expected = model.hidden.weight.detach().view(5, 4, 3, 3)
    torch.testing.assert_close(torch.as_tensor(last["weights"]), expected)
    assert "4 × 3 × 3" in last["details"][0]
    assert drawn_at_once.arguments("filters/out")[max(steps)]["weights"].shape == (3, 1, 1, 5)
