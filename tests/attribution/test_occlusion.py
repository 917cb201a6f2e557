"""Occlusion against loops that cover one patch at a time."""

import logging
import math

import pytest
import torch
from torch import nn

from lightning_viz.attribution import blurred, mean_color, occluded_passes, occlusion
from lightning_viz.attribution.occluded_passes import OccludedPasses
from lightning_viz.hooks import channel, classes, maximum, unit
from tests.attribution.nets import KINDS, inputs, network, plain


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


# Passes of windows.


@pytest.fixture
def windowed(monkeypatch):
    """However little they spare; whether each occlusion's passes were of windows to the end."""
    seen = []
    monkeypatch.setattr(occluded_passes, "_OVERHEAD", {"cpu": -math.inf})
    monkeypatch.setattr(occluded_passes, "_LEAST", -math.inf)
    monkeypatch.setattr(occluded_passes, "_FEW", 0)
    init = OccludedPasses.__init__

    def noted(self, *args):
        init(self, *args)
        seen.append(self)

    monkeypatch.setattr(OccludedPasses, "__init__", noted)
    return seen


def whole_passes(monkeypatch, *args, **options):
    with monkeypatch.context() as patched:
        patched.setattr(occluded_passes, "is_sharded", lambda model: True)
        return occlusion(*args, **options)


@pytest.mark.parametrize("batch_size", [1, 7, None])
@pytest.mark.parametrize("kind", list(KINDS))
def test_windows_give_what_whole_passes_give(kind, batch_size, windowed, monkeypatch):
    net, given = network(kind), inputs(kind)
    options = {"patch": 3, "stride": 2, "baseline": mean_color, "batch_size": batch_size, "progress": False}
    found = occlusion(net, given, classes(1, 2), **options)
    assert [passes.windowed for passes in windowed] == [True]
    expected = whole_passes(monkeypatch, net, given, classes(1, 2), **options)
    assert torch.allclose(found.drop, expected.drop, atol=1e-12) and found.drop.any()
    assert torch.equal(found.predicted, expected.predicted) if expected.predicted is not None else True


def test_only_windows_of_a_convolution_are_computed_until_they_are_most_of_the_map(windowed):
    """By its multiplications; the first call is the pass before, the second the shared map."""
    net, sizes = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), []

    class Counted(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if any(issubclass(kind, torch.Tensor) and kind.__name__ == "PatchedMaps" for kind in types):
                return NotImplemented
            if func is torch.ops.aten.convolution.default:
                sizes.append(tuple(args[0].shape))
            return func(*args, **(kwargs or {}))

    with Counted():
        occlusion(net, torch.randn(2, 3, 32, 32), 1, patch=4, stride=4, batch_size=48, progress=False)
    windows = [(44, 3, 8, 8), (16, 3, 8, 8)]  # a few before them show what windows spare
    trial = (1, 3, 32, 32), (4, 3, 8, 7)
    assert sizes == [(2, 3, 32, 32), *trial, *windows, (1, 3, 32, 32), (32, 3, 8, 8), (32, 3, 8, 8)]


@pytest.mark.parametrize(("overhead", "tried"), [(1e9, False), (1e5, True)], ids=["by their size", "after a batch"])
def test_small_models_run_whole_passes_and_the_log_says_so(overhead, tried, monkeypatch, caplog):
    monkeypatch.setattr(occluded_passes, "_OVERHEAD", {"cpu": overhead})
    monkeypatch.setattr(occluded_passes, "_FEW", 0)
    net, x, kinds = network("convolutional"), inputs("convolutional"), []
    net.conv1.register_forward_hook(lambda module, args, output: kinds.append(type(args[0]).__name__))
    options = {"patch": 6, "stride": 3, "batch_size": 5, "progress": False}
    with caplog.at_level(logging.INFO, "lightning_viz"):
        found = occlusion(net, x, 1, **options)
    assert kinds == ["Tensor", *["PatchedMaps"] * tried, *["Tensor"] * 6]
    assert caplog.messages == ["Occlusion runs whole passes: windows would spare too little"]
    assert torch.allclose(found.drop, whole_passes(monkeypatch, net, x, 1, **options).drop, atol=1e-12)


@pytest.mark.parametrize(("moved", "sizes"), [(0, [9]), (12, [5, 4])], ids=["61 %", "27 %"])
def test_batches_of_windows_are_larger_than_those_of_whole_copies_by_what_they_spare(
    moved, sizes, monkeypatch, windowed
):
    """Squares of neighbors, so that windows are as large as one of a batch needs; a few first, by which to choose."""
    monkeypatch.setattr("lightning_viz.hooks.batching._VALUES", 5 * 3 * 12 * 12)
    monkeypatch.setattr("lightning_viz.hooks.work._WRITTEN", 0)
    monkeypatch.setattr("lightning_viz.hooks.work._MOVED", moved)
    net, calls = network("convolutional"), []
    net.conv1.register_forward_hook(lambda module, args, output: calls.append((type(args[0]).__name__, len(output))))
    occlusion(net, inputs("convolutional", 1), 1, patch=4, stride=1, progress=False)
    assert calls == [("Tensor", 1), *[("PatchedMaps", size) for size in (4, 5, *sizes * 8)]]
    monkeypatch.setattr(occluded_passes, "_LEAST", 1.0)
    calls.clear()
    occlusion(net, inputs("convolutional", 1), 1, patch=4, stride=1, progress=False)
    assert calls == [("Tensor", 1), ("PatchedMaps", 4), ("Tensor", 5), *[("Tensor", 5), ("Tensor", 4)] * 8]


@pytest.mark.parametrize("shape", [(7,), (5, 8), (3, 4, 5)])
@pytest.mark.parametrize("band", [1, 3, 20])
def test_the_order_of_positions_has_each_once_and_neighbors_beside_each_other(shape, band):
    places = torch.cartesian_prod(*(2 * torch.arange(side) for side in shape)).view(-1, len(shape))
    order = occluded_passes.neighbors_together(places, band)
    assert order.sort().values.equal(torch.arange(len(places)))
    steps = (places[order][1:] - places[order][:-1]).abs() // 2
    assert steps[:, -1].max() <= 1


class Foreign(nn.Module):
    """Takes the values of its maps out of torch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3).double()

    def forward(self, x):
        return torch.from_numpy(self.conv(x).numpy().mean((2, 3)))


class ViewInPlace(Foreign):
    def forward(self, x):
        x = self.conv(x)
        x[:, :2].relu_()
        return x.mean((2, 3))


class Kept(Foreign):
    def forward(self, x):
        return self.conv(x).mean((2, 3))


UNFOLLOWED = {
    "values taken out of torch": (lambda: Foreign(), ""),
    "in place on a view": (lambda: ViewInPlace(), "the model changes maps in place of which it keeps views"),
    "TorchScript": (lambda: torch.jit.script(Kept()), "TorchScript runs parts of the model"),
    "maps too large to keep": (lambda: Kept(), "the model's maps are 864 values, at most 500 are kept"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("name", list(UNFOLLOWED))
def test_models_that_cannot_be_followed_run_whole_passes_and_the_log_says_why(name, windowed, monkeypatch, caplog):
    build, reason = UNFOLLOWED[name]
    if name == "maps too large to keep":
        monkeypatch.setattr("lightning_viz.hooks.patched_copies._MOST", 500)
    torch.manual_seed(0)
    net, x = build(), inputs("convolutional")
    options = {"patch": 4, "stride": 4, "batch_size": 8, "progress": False}
    with caplog.at_level(logging.INFO, "lightning_viz"):
        found = occlusion(net, x, 1, **options)
    assert not windowed[-1].windowed and f"Occlusion runs whole passes: {reason}" in caplog.text
    assert torch.allclose(found.drop, whole_passes(monkeypatch, net, x, 1, **options).drop, atol=1e-12)


def test_a_models_own_error_is_raised_as_it_is():
    class Failing(nn.Module):
        def forward(self, x):
            if len(x) > 3:
                raise RuntimeError("four are too many")
            return x.mean((2, 3))

    with pytest.raises(RuntimeError, match="four are too many"):
        occlusion(Failing(), inputs("convolutional"), 1, patch=4, stride=4, batch_size=8)


@pytest.mark.parametrize("count", [1, 3])
def test_a_forward_of_ones_own_is_followed_for_one_sample(count, windowed, monkeypatch):
    """For several it may take each copy for a certain sample."""
    net, x = network("convolutional"), inputs("convolutional", count)
    options = {"patch": 4, "stride": 3, "forward": lambda model, x: model(2 * x + 1), "progress": False}
    found = occlusion(net, x, 1, **options)
    assert windowed[-1].windowed == (count == 1)
    assert torch.allclose(found.drop, whole_passes(monkeypatch, net, x, 1, **options).drop, atol=1e-12)


def test_series_and_volumes_are_followed(windowed, monkeypatch):
    for layer, pool, shape in [(nn.Conv1d, nn.AvgPool1d, (2, 3, 40)), (nn.Conv3d, nn.AvgPool3d, (2, 3, 12, 12, 12))]:
        torch.manual_seed(0)
        net = nn.Sequential(layer(3, 4, 3), nn.ReLU(), pool(2), layer(4, 5, 3), nn.Flatten(), nn.LazyLinear(4))
        x = torch.randn(shape)
        net(x)
        net.double()
        options = {"patch": 4, "stride": 4, "progress": False, "feature": channel("3", 2)}
        found = occlusion(net, x.double(), 1, **options)
        expected = whole_passes(monkeypatch, net, x.double(), 1, **options)
        assert windowed[-2].windowed
        assert torch.allclose(found.drop, expected.drop, atol=1e-12)
        assert torch.allclose(found.activity, expected.activity, atol=1e-12)
