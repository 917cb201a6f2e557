"""Occlusion against loops that cover one patch at a time."""

import pytest
import torch
from torch import nn

from lightning_viz.attribution import blurred, mean_color, occlusion
from lightning_viz.hooks import channel, classes, maximum, unit
from tests.attribution.nets import inputs, network, plain


def by_loops(score, x, patch, stride, baseline):
    """Drop by position, and its mean over the patches that cover each pixel, of one image."""
    height, width = x.shape[2:]
    rows = [0]
    while rows[-1] + patch[0] < height:
        rows.append(rows[-1] + stride[0])
    columns = [0]
    while columns[-1] + patch[1] < width:
        columns.append(columns[-1] + stride[1])
    drops, total, times = torch.zeros(len(rows), len(columns)).double(), torch.zeros(height, width).double(), 0
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            seen, under = x.clone(), torch.zeros(height, width)
            under[top : top + patch[0], left : left + patch[1]] = 1
            seen[..., under.bool()] = baseline.expand_as(x)[..., under.bool()]
            drops[i, j] = score(x) - score(seen)
            total, times = total + drops[i, j] * under, times + under
    return drops, total / times


@pytest.mark.parametrize(
    ("patch", "stride"),
    [((3, 3), (3, 3)), ((4, 5), (2, 3)), ((5, 5), (5, 4)), ((1, 1), (1, 1)), ((12, 12), (1, 1)), ((20, 7), (3, 7))],
    ids=str,
)
def test_every_position_is_covered_and_drops_are_averaged_over_pixels(patch, stride):
    net, x = network("convolutional").eval(), inputs("convolutional")
    found = occlusion(net, x, [1, 0, 2], patch=patch, stride=stride, baseline=0.5)
    for n, label in enumerate([1, 0, 2]):
        with torch.no_grad():
            drops, heat = by_loops(lambda x: net(x)[0, label], x[n : n + 1], patch, stride, torch.tensor(0.5).double())
        assert torch.allclose(found.drop[n], drops, atol=1e-12)
        assert torch.allclose(found.heat[n, 0], heat, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_drops_of_half_precision_are_averaged_exactly(dtype):
    class Whole(nn.Module):
        def forward(self, x):
            return 100 * (x.amin((2, 3)) > 0).to(x)

    found = occlusion(Whole(), torch.ones(1, 1, 64, 64, dtype=dtype), patch=32, stride=1, progress=False)
    assert found.heat.dtype is dtype
    assert found.heat.unique().tolist() == [100.0]  # in the middle it is covered a thousand times


def test_a_number_is_height_and_width_and_the_defaults_go_with_the_image():
    net, x = network("convolutional"), inputs("convolutional")
    for short, whole in [
        ({"patch": 4}, {"patch": (4, 4), "stride": (1, 1)}),
        ({"patch": 8}, {"patch": (8, 8), "stride": (2, 2)}),
        ({}, {"patch": 2, "stride": 1}),  # a seventh of 12, and a quarter of that
    ]:
        assert torch.allclose(occlusion(net, x, 1, **short).heat, occlusion(net, x, 1, **whole).heat, atol=1e-12)


COLOR = torch.tensor([1.0, -1, 0.5], dtype=torch.float64).view(3, 1, 1)


@pytest.mark.parametrize("baseline", [mean_color, blurred, COLOR], ids=["mean color", "blurred", "a color"])
def test_what_stands_in_the_patch(baseline):
    net, x = network("convolutional").eval(), inputs("convolutional")
    found = occlusion(net, x, 1, patch=5, stride=3, baseline=baseline)
    stands = baseline(x) if callable(baseline) else baseline
    for n in range(3):
        one = stands[n : n + 1] if stands.dim() == 4 else stands
        with torch.no_grad():
            drops, _ = by_loops(lambda x: net(x)[0, 1], x[n : n + 1], (5, 5), (3, 3), one)
        assert torch.allclose(found.drop[n], drops, atol=1e-12)


FEATURES = {
    "channel": (channel("3", 2), lambda net, x: net[:4](x)[:, 2].sum((1, 2))),
    "its maximum": (maximum("3", 2), lambda net, x: net[:4](x)[:, 2].amax((1, 2))),
    "unit": (unit("7", 3), lambda net, x: net(x)[:, 3]),
    "class": (3, lambda net, x: net(x)[:, 3]),
    "one for each sample": ([3, 0, 1], lambda net, x: net(x)[range(3), [3, 0, 1]]),
}


@pytest.mark.parametrize("name", list(FEATURES))
def test_a_features_activity_and_the_most_probable_class_come_from_the_same_passes(name):
    torch.manual_seed(0)
    net, x, calls = plain().double().eval(), inputs("convolutional"), []
    feature, by_hand = FEATURES[name]
    net.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    found = occlusion(net, x, 1, patch=4, stride=4, feature=feature, batch_size=7)
    assert sum(calls) == 3 + 3 * 9
    for i in range(3):
        for j in range(3):
            seen = x.clone()
            seen[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = 0
            with torch.no_grad():
                assert torch.allclose(found.activity[:, i, j], by_hand(net, seen), atol=1e-12)
                assert torch.equal(found.predicted[:, i, j], net(seen).argmax(1))
    assert occlusion(net, x, 1, patch=4, stride=4).activity is None


def test_a_feature_may_be_one_call_of_a_layer():
    net, x = network("convolutional").eval(), inputs("convolutional")
    found = occlusion(net, x, 1, patch=6, stride=6, feature=channel("relu:1", 4)).activity
    kept = []
    net.relu.register_forward_hook(lambda module, args, output: kept.append(output[:, 4].sum((1, 2)).clone()))
    seen = x.clone()
    seen[:, :, :6, 6:] = 0
    net(seen)
    assert torch.allclose(found[:, 0, 1], kept[1], atol=1e-12)


def test_several_classes_have_a_map_each_from_the_same_passes():
    net, x, calls = network("convolutional"), inputs("convolutional"), []
    net.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    found = occlusion(net, x, classes(2, 0), patch=6, stride=5, feature=1)
    assert sum(calls) == 3 + 3 * 9 and found.heat.shape == (2, 3, 1, 12, 12) and found.drop.shape == (2, 3, 3, 3)
    assert torch.allclose(found.heat[1], occlusion(net, x, 0, patch=6, stride=5).heat, atol=1e-12)


def test_no_graph_is_built():
    """Else it would take the memory of training."""
    net, traced = network("convolutional"), []
    net.conv3.register_forward_hook(lambda module, args, output: traced.append(output.requires_grad))
    occlusion(net, inputs("convolutional"), 1, patch=6, stride=6)
    assert traced and not any(traced)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "patch is 0: give 1 pixel or more"),
        ({"patch": 3, "stride": (1, 0)}, r"stride is \(1, 0\): give 1 pixel or more"),
        ({"patch": 3, "stride": (3, 4)}, r"stride \(3, 4\) is larger than the patch \(3, 3\)"),
        ({"baseline": torch.zeros(2)}, r"the baseline is \[2\], the images \[3, 3, 12, 12\]: give a number"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"feature": [1, 0]}, "2 targets for 3 samples"),
    ],
)
def test_what_cannot_be_meant_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        occlusion(network("convolutional"), inputs("convolutional"), 1, **options)


def test_the_mass_lies_on_what_the_model_looks_at():
    """A model that reads one corner: nothing else drops, and more of the corner covered is more of a drop."""
    net = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * 9, 2, bias=False)).double()
    with torch.no_grad():
        net[2].weight.zero_()[:, [2, 11, 20]] = 1  # the top right
    x = torch.rand(2, 3, 12, 12).double() + 0.5
    heat = occlusion(net, x, 0, patch=4, stride=2).heat
    assert (heat[:, 0, :4, 8:] > 0).all() and heat[:, 0, 6:].eq(0).all() and heat[:, 0, :, :6].eq(0).all()
