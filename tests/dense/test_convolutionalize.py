"""A classifier made convolutional says the same at its own size, and on a larger image what a sliding window says."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lightning_viz.dense import ClassMaps, FullyConvolutional, class_maps, convolutionalize
from lightning_viz.hooks.receptive_field import Rectangle
from tests.dense_nets import canvases


class Functional(nn.Module):
    """Flattens by a method, normalizes vectors, ends in probabilities."""

    def __init__(self, flatten=lambda x: x.view(x.size(0), -1)):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.hidden, self.norm, self.output = nn.Linear(4 * 9, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.flatten = flatten

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        x = F.dropout(F.relu(self.norm(self.hidden(self.flatten(x)))), training=self.training)
        return F.softmax(self.output(x), dim=-1)


class Averaging(nn.Module):
    """Averages all places by the means given."""

    def __init__(self, average):
        super().__init__()
        self.conv, self.output, self.average = nn.Conv2d(1, 4, 3, stride=2), nn.Linear(4, 3), average

    def forward(self, x):
        return self.output(self.average(F.relu(self.conv(x))))


AVERAGES = {
    "mean": lambda x: x.mean((2, 3)),
    "torch.mean": lambda x: torch.mean(x, dim=[-2, -1]),
    "mean, squeezed": lambda x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1),
    "adaptive, flattened": lambda x: torch.flatten(F.adaptive_avg_pool2d(x, 1), 1),
    "amax": lambda x: x.amax((2, 3)),
}
FLATTENINGS = {
    "view": lambda x: x.view(x.size(0), -1),
    "reshape": lambda x: x.reshape(x.shape[0], 4 * 9),
    "flatten": lambda x: x.flatten(1),
    "torch.flatten": lambda x: torch.flatten(x, 1),
}


def slid(model, canvas, size, stride):
    """What a classifier says of every window of a canvas."""
    windows = canvas.unfold(2, size, stride).unfold(3, size, stride)
    count, channels, rows, columns = windows.shape[:4]
    with torch.no_grad():
        scores = model(windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels, size, size))
    return scores.view(count, rows, columns, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "name", ["alexnet", "vgg11", "resnet18", "squeezenet1_0", "mobilenet_v3_small", "convnext_tiny"]
)
def test_torchvisions_classifiers_are_equal_at_their_own_size(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(torchvision.models, name)(weights=None).eval()
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    network = convolutionalize(model, images)
    with torch.no_grad():
        expected, found = model(images), network(images)
    assert found.shape == (1, 1000, 1, 1)
    assert torch.allclose(found[..., 0, 0], expected, rtol=0, atol=1e-5 * max(1, float(expected.abs().max())))
    assert network.stride == ((16, 16) if name == "squeezenet1_0" else (32, 32))
    if name in ("alexnet", "vgg11", "resnet18"):
        assert not any(isinstance(module, nn.Linear) for module in network.modules())


@pytest.mark.parametrize("flatten", FLATTENINGS.values(), ids=FLATTENINGS)
def test_without_padding_every_cell_is_what_the_classifier_says_of_its_window(flatten):
    torch.manual_seed(0)
    model, canvas = Functional(flatten).eval(), torch.randn(2, 1, 19, 23)
    model.norm.running_mean.normal_()
    maps = class_maps(model, canvas, size=8)
    assert maps.stride == (2, 2)
    torch.testing.assert_close(maps.scores, slid(model, canvas, 8, 2))


@pytest.mark.parametrize("average", AVERAGES.values(), ids=AVERAGES)
def test_an_average_of_all_places_becomes_one_over_the_window(average):
    torch.manual_seed(0)
    model, canvas = Averaging(average).eval(), torch.randn(2, 1, 17, 21)
    torch.testing.assert_close(class_maps(model, canvas, 9).scores, slid(model, canvas, 9, 2))


def test_an_adaptive_pooling_to_several_places_keeps_its_windows():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveMaxPool2d(3), nn.Flatten(), nn.Linear(18, 4)).eval()
    canvas = torch.randn(1, 1, 20, 20)
    maps = class_maps(model, canvas, (8, 8))  # maps of 6 x 6 in windows of 2
    assert maps.stride == (2, 2)
    torch.testing.assert_close(maps.scores, slid(model, canvas, 8, 2))


def test_the_model_stays_as_it_is_and_shares_no_weight():
    model = Functional().train()
    before = copy.deepcopy(model.state_dict())
    network = convolutionalize(model, torch.zeros(1, 1, 8, 8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert model.training and model.norm.training and not network.training
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert isinstance(model.hidden, nn.Linear) and type(model.norm) is nn.BatchNorm1d


def test_a_window_is_where_the_sliding_window_would_be():
    maps = ClassMaps(torch.zeros(1, 2, 3, 3), (4, 2), (28, 20), (37, 24))
    assert maps.window(0, 0) == Rectangle(0, 28, 0, 20)
    assert maps.window(2, 1) == Rectangle(8, 36, 2, 22)
    scores = torch.zeros(1, 2, 3, 3)
    scores[0, 1, 2, 1] = 5
    found = ClassMaps(scores, (4, 2), (28, 20), (37, 24)).strongest()[0]
    assert (found.label, found.score, found.window) == (1, 5.0, maps.window(2, 1))


def test_a_digit_is_found_where_it_is_in_one_pass_as_by_a_sliding_window(finder):
    sheet, corners, labels = canvases(30, 112)
    network = convolutionalize(finder, sheet[:1, :, :28, :28])
    maps = class_maps(network, sheet)
    passes = []
    finder.register_forward_hook(lambda *_: passes.append(1))
    slides = ClassMaps(slid(finder, sheet, 28, 4), maps.stride, maps.size, maps.canvas)
    assert len(passes) == 1 and maps.scores.shape == slides.scores.shape == (30, 11, 22, 22)
    hits = []
    for each in (maps, slides):
        digits = each.log_probabilities()
        windows = [digits.strongest(int(label))[index].window for index, label in enumerate(labels)]
        away = (torch.tensor([[one.top, one.left] for one in windows]) - corners).abs().amax(1)
        hits.append(float((away <= 4).float().mean()))
    assert hits[0] >= 0.9 and hits[0] >= hits[1] - 0.05, hits


class Branching(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.output = nn.LayerNorm(16), nn.Linear(16, 2)

    def forward(self, x):
        return self.output(self.norm(x.flatten(1)))


@pytest.mark.parametrize(
    ("model", "size", "words"),
    [
        (Branching(), 4, "cannot be traced"),
        (Normalized(), 4, "no known form for maps"),
        (nn.Conv2d(1, 2, 3), 4, "a classifier returns"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(9, 2)), 4, "windows of different sizes"),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), None, "size is missing"),
    ],
)
def test_what_has_no_convolutional_form_is_said(model, size, words):
    with pytest.raises(ValueError, match=words):
        class_maps(model, torch.rand(1, 1, 9, 9), size)


def test_an_image_smaller_than_the_classifiers_own_is_refused():
    network = convolutionalize(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), torch.zeros(1, 1, 4, 4))
    assert isinstance(network, FullyConvolutional)
    with pytest.raises(ValueError, match="at least 4 x 4"):
        network(torch.zeros(1, 1, 3, 9))
