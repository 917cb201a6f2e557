"""Class activation maps against their papers' formulas, written with loops or NumPy."""

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_viz.attribution import (
    ablation_cam,
    eigen_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    score_cam,
    xgrad_cam,
)
from lightning_viz.attribution.cam import FORMULAS
from lightning_viz.errors import AttributionWarning
from lightning_viz.hooks.continuation import Continuation
from lightning_viz.hooks.observe import observe
from tests.attribution.nets import KINDS, Convolutional, inputs, network

SPATIAL = ["convolutional", "channels-last", "tokens"]


def recorded(kind, target):
    """A network's maps and the gradient towards them, ``[N, K, H, W]`` each."""
    net, x, layer = network(kind), inputs(kind), KINDS[kind].layer
    seen = observe(net, x, target, layers=layer, gradients=True)
    maps, slopes = seen.activations[layer], seen.gradients[layer]
    if kind == "channels-last":
        maps, slopes = (part.permute(0, 3, 1, 2) for part in (maps, slopes))
    if kind == "tokens":  # a class token, then three rows of three
        maps, slopes = (part[:, 1:].unflatten(1, (3, 3)).permute(0, 3, 1, 2) for part in (maps, slopes))
    return net, x, layer, maps, slopes


@pytest.mark.parametrize("kind", SPATIAL)
def test_hires_cam_is_the_sum_of_gradient_times_activation(kind):
    net, x, layer, maps, slopes = recorded(kind, 1)
    expected = np.einsum("nkij,nkij->nij", maps.numpy(), slopes.numpy()).clip(0)
    assert np.allclose(hires_cam(net, x, 1, layers=layer)[layer][:, 0], expected, atol=1e-12)


@pytest.mark.parametrize("kind", SPATIAL)
def test_xgrad_cam_averages_gradients_by_activation(kind):
    net, x, layer, maps, slopes = recorded(kind, 1)
    expected = np.zeros((len(maps), *maps.shape[2:]))
    for n, k in np.ndindex(*maps.shape[:2]):
        activation, gradient = maps[n, k].numpy(), slopes[n, k].numpy()
        expected[n] += (activation / activation.sum() * gradient).sum() * activation
    assert np.allclose(xgrad_cam(net, x, 1, layers=layer)[layer][:, 0], expected.clip(0), atol=1e-10)


def test_xgrad_cam_leaves_out_maps_that_cancel_out_and_says_so():
    activations = torch.tensor([[[[1.0, -1.0]], [[2.0, 1.0]]]])  # [1, 2, 1, 2]; the first sums to zero
    gradients = torch.tensor([[[[5.0, 3.0]], [[1.0, 4.0]]]])
    with pytest.warns(AttributionWarning, match="sum to zero"):
        found = FORMULAS["xgrad_cam"](activations, gradients)
    assert torch.equal(found, torch.tensor([[[[4.0, 2.0]]]]))  # weighted by (2 * 1 + 1 * 4) / 3
    dead = torch.cat([activations[:, 1:], torch.zeros(1, 1, 1, 2)], 1)
    assert torch.equal(FORMULAS["xgrad_cam"](dead, gradients[:, [1, 0]]), found)  # a dead map is no such case


@pytest.mark.parametrize("kind", SPATIAL)
def test_layer_cam_counts_positive_gradients_only(kind):
    net, x, layer, maps, slopes = recorded(kind, 1)
    expected = np.einsum("nkij,nkij->nij", maps.numpy(), slopes.numpy().clip(0)).clip(0)
    assert np.allclose(layer_cam(net, x, 1, layers=layer)[layer][:, 0], expected, atol=1e-12)
    assert not torch.allclose(layer_cam(net, x, 1, layers=layer)[layer], hires_cam(net, x, 1, layers=layer)[layer])


@pytest.mark.parametrize("kind", SPATIAL)
def test_eigen_cam_is_the_projection_on_the_first_principal_direction(kind):
    """Of the covariance about zero, by its eigenvectors."""
    net, x, layer, maps, _ = recorded(kind, 1)
    found = eigen_cam(net, x, layers=layer)[layer]
    for n in range(3):
        places = maps[n].flatten(1).numpy().T  # [HW, K]
        projection = places @ np.linalg.eigh(places.T @ places)[1][:, -1]
        expected = (projection * np.sign(projection.sum())).clip(0).reshape(maps.shape[2:])
        assert np.allclose(found[n, 0], expected, atol=1e-8)


@pytest.mark.parametrize("kind", [*SPATIAL, "two inputs"])
def test_score_cam_weighs_maps_by_what_the_target_keeps_through_them(kind):
    """With the paper's increase over a black image, which our softmax does without."""
    net, x, layer, maps, _ = recorded(kind, [1, 0, 2])
    found = score_cam(net, x, [1, 0, 2], layers=layer, batch_size=4)[layer]
    images, *others = x if isinstance(x, tuple) else (x,)
    net.eval()
    for n, label in enumerate([1, 0, 2]):
        increases = []
        beside = [other[n : n + 1] for other in others]
        for each in maps[n]:
            mask = (each - each.min()) / (each.max() - each.min())
            mask = F.interpolate(mask[None, None], (12, 12), mode="bilinear")
            with torch.no_grad():
                through = net(images[n : n + 1] * mask, *beside)[0, label]
                increases.append(through - net(images[n : n + 1] * 0, *beside)[0, label])
        alpha = torch.stack(increases).softmax(0)
        expected = sum(weight * each for weight, each in zip(alpha, maps[n], strict=True)).relu()
        assert torch.allclose(found[n, 0], expected, atol=1e-10)


def set_to_zero(kind, output, k):
    output = output.clone()
    (output[:, k] if kind in ("convolutional", "two inputs") else output[..., k]).zero_()
    return output


@pytest.mark.parametrize("kind", [*SPATIAL, "two inputs"])
@pytest.mark.parametrize("shortened", [True, False])
def test_ablation_cam_weighs_maps_by_what_the_target_loses_without_them(kind, shortened, monkeypatch):
    """With the channel set to zero in a pass of the whole model, by its own forward hook."""
    net, x, layer, maps, _ = recorded(kind, [1, 0, 2])
    if not shortened:
        monkeypatch.setattr(Continuation, "_of_samples", lambda self, output: False)
    found = ablation_cam(net, x, [1, 0, 2], layers=layer, batch_size=4)[layer]
    net.eval()
    y = (net(*x) if isinstance(x, tuple) else net(x)).detach()
    expected = torch.zeros_like(maps[:, :1])
    for k in range(maps.shape[1]):
        handle = net.get_submodule(layer).register_forward_hook(lambda m, a, o, k=k: set_to_zero(kind, o, k))
        without = (net(*x) if isinstance(x, tuple) else net(x)).detach()
        handle.remove()
        for n, label in enumerate([1, 0, 2]):
            weight = float((y[n, label] - without[n, label]) / y[n, label].abs())
            expected[n, 0] += weight * maps[n, k]
    assert torch.allclose(found, expected.relu(), atol=1e-10) and expected.relu().any()


class Remembers(nn.Module):
    """A layer before the convolution has a hook of its user's, which runs on what it returned as well."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 4)
        self.stem.register_forward_hook(lambda module, args, output: output * 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head((self.conv(x).relu() + x).mean((2, 3)))


@pytest.mark.parametrize("build", [Convolutional, Remembers])
def test_only_what_follows_the_layer_is_run_again_where_that_gives_the_same(build, monkeypatch):
    torch.manual_seed(0)
    net, x, counts = build().eval(), torch.randn(2, 3, 12, 12), Counter()
    for name, module in net.named_children():

        def counted(*args, own=module.forward, name=name):
            counts[name] += 1
            return own(*args)

        module.forward = counted
    continues = build is Convolutional
    layer, first = ("conv2", "conv1") if continues else ("conv", "stem")
    passes = net.get_submodule(layer).out_channels + 1  # of both samples
    found = ablation_cam(net, x, 1, layers=layer, batch_size=2)[layer]
    assert counts["head"] == 2 + (passes if continues else 2 * passes)
    assert counts[first] == (2 if continues else 2 + passes)
    monkeypatch.setattr(Continuation, "_of_samples", lambda self, output: False)
    assert torch.allclose(ablation_cam(net, x, 1, layers=layer, batch_size=2)[layer], found, atol=1e-6)


@pytest.mark.parametrize("method", [score_cam, ablation_cam])
@pytest.mark.parametrize(("conv", "shape"), [(nn.Conv1d, (2, 3, 9)), (nn.Conv3d, (2, 3, 5, 6, 7))])
def test_a_series_and_a_volume_have_maps_of_each_sample(method, conv, shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    layer = conv(3, 4, 3)
    maps = layer(x).detach()
    net = nn.Sequential(layer, nn.ReLU(), nn.Flatten(1), nn.Linear(maps[0].numel(), 4)).eval()
    both = method(net, x, [1, 2], layers="0")["0"]
    assert both.shape == (2, 1, *maps.shape[2:])
    for n in range(2):
        alone = method(net, x[n : n + 1], [n + 1], layers="0")["0"]
        assert torch.allclose(alone[0], both[n], atol=1e-5)


def test_a_constant_map_lets_nothing_through():
    net, x = network("convolutional"), inputs("convolutional")
    with torch.no_grad():
        net.conv2.weight[3] = 0
    assert score_cam(net, x, 1, layers="conv2")["conv2"].isfinite().all()


def test_grad_cam_plus_plus_of_faint_gradients_does_not_fade():
    """Their cubes fall out of float32's range, and in half precision those of any gradient do."""
    torch.manual_seed(0)
    maps, slopes = torch.rand(2, 4, 5, 5), torch.randn(2, 4, 5, 5) * 1e-16
    weights = (0.5 * slopes.relu()).sum((2, 3), keepdim=True)  # alpha is 1 / (2 + the maps' sum times g)
    assert torch.allclose(
        FORMULAS["grad_cam_plus_plus"](maps, slopes) * 1e16, (weights * maps).sum(1, keepdim=True) * 1e16
    )


def test_grad_cam_plus_plus_where_the_formula_has_no_value_is_finite():
    maps, slopes = torch.ones(1, 1, 2, 2), torch.tensor([[[[-0.5, 1.0], [0.0, 2.0]]]])
    expected = 1 * 1 / (2 + 4 * 1) + 2 * 1 / (2 + 4 * 2)  # at -0.5, 2 + 4 g is zero
    assert torch.allclose(FORMULAS["grad_cam_plus_plus"](maps, slopes), torch.full((1, 1, 2, 2), expected))


def test_two_objects_weigh_alike_whatever_their_size():
    """What Grad-CAM++ is for: Grad-CAM's mean gives a map of a small object less, its sum of alphas as much."""
    net, x = network("convolutional"), inputs("convolutional")
    maps, slopes = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    maps[0, 0, 1, 1], maps[0, 1, 3:7, 3:7] = 1, 1
    slopes[0, 0, 1, 1], slopes[0, 1, 3:7, 3:7] = 1, 1
    heat = FORMULAS["grad_cam_plus_plus"](maps, slopes)[0, 0]
    assert heat[4, 4] / heat[1, 1] < 3  # 16 for Grad-CAM
    assert grad_cam_plus_plus(net, x, 1, layers="conv2")["conv2"].any()
