"""The checks on models whose truth is known on paper."""

import math
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from lightning_viz.attribution import grad_cam, gradient
from lightning_viz.attribution.evaluation import as_heat, deletion, insertion, model_randomization, pointing_game
from lightning_viz.errors import LayerNotFoundError
from lightning_viz.hooks import classes, randomized_weights, top


def images(count=2, size=8, channels=3, seed=1):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def given(heat):
    """An attribution that is there already."""
    return lambda *_: heat


class Net(nn.Module):
    """Parts in an order that is not that of the calls, and a parameter that is in none of them."""

    def __init__(self, classes=4):
        super().__init__()
        self.head = nn.Linear(8, classes)
        self.unused = nn.Linear(2, 2)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.offset = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return self.head((self.second(self.first(x)).relu() + self.offset[:, None, None]).mean((2, 3)))


def net(seed=0):
    torch.manual_seed(seed)
    return Net()


def state(model):
    every = [*model.parameters(), *model.buffers()]
    return [(x.data_ptr(), x.detach().numpy().tobytes(), x.requires_grad) for x in every], model.training


# --- One map per sample.


@dataclass
class Occluded:
    heat: torch.Tensor


def test_heat_is_what_is_shown_of_each_method():
    x = images()
    assert torch.equal(as_heat(x, (8, 8)), x.abs().sum(1))
    assert torch.equal(as_heat(x, (8, 8), signed=True), x.sum(1))
    assert torch.equal(as_heat({"conv": x}, (8, 8)), x.abs().sum(1))
    assert torch.equal(as_heat(x[:, 0], (8, 8)), x[:, 0].abs())
    assert torch.equal(as_heat(Occluded(x[:, :1]), (8, 8)), x[:, 0].relu())
    assert torch.equal(as_heat(Occluded(x[:, :1]), (8, 8), signed=True), x[:, 0])


def test_a_coarse_map_is_enlarged_so_that_its_cells_stay_where_they_are():
    coarse = torch.zeros(1, 1, 2, 2)
    coarse[0, 0, 0, 1] = 4.0
    heat = as_heat({"conv": coarse}, (4, 4))[0]
    assert torch.allclose(heat[0], torch.tensor([0.0, 1.0, 3.0, 4.0]))  # align_corners=True: 0, 4/3, 8/3, 4
    assert heat[0, 3] == heat.max() and torch.allclose(heat[:, 3], torch.tensor([4.0, 3.0, 1.0, 0.0]))


@pytest.mark.parametrize(
    ("attribution", "error", "message"),
    [
        (
            {"a": torch.zeros(1, 1, 2, 2), "b": torch.zeros(1, 1, 2, 2)},
            ValueError,
            r"layers \['a', 'b'\]: choose one",
        ),
        (torch.zeros(2, 1, 3, 4, 4), ValueError, "several targets"),
        (torch.zeros(2, 5), TypeError, r"Tensor \[2, 5\]: give maps"),
        ((torch.zeros(1, 3, 4, 4), None), TypeError, "the attribution is a tuple"),
        (None, TypeError, "the attribution is a NoneType"),
    ],
)
def test_what_is_no_map_is_an_error(attribution, error, message):
    with pytest.raises(error, match=message):
        as_heat(attribution, (4, 4))


# --- Randomization.


def test_a_method_that_ignores_the_model_scores_one_and_leaves_all_as_found():
    model, x = net(), images(3)
    before = state(model)
    found = model_randomization(lambda model, inputs, target: inputs, model, x)
    assert torch.allclose(found.correlations, torch.ones(5, 3, dtype=torch.float64))
    assert found.score == pytest.approx(1) and found.undefined == 0
    assert state(model) == before


def test_the_correlation_is_spearmans_of_what_is_shown_at_every_stage():
    model, x = net(), images(3)
    found = model_randomization(gradient, model, x, 2, seed=5)
    assert found.layers == ("head", "second", "first", "unused", "everything")  # as called, last first
    own = as_heat(gradient(model, x, 2), (8, 8), signed=True)
    for row, layers in enumerate(["head", ["head", "second"], ["head", "second", "first"]]):
        with randomized_weights(model, layers, seed=5):
            other = as_heat(gradient(model, x, 2), (8, 8), signed=True)
        for n in range(3):
            assert found.correlations[row, n] == pytest.approx(
                spearmanr(own[n].flatten(), other[n].flatten()).statistic
            )
    assert found.score == pytest.approx(float(found.correlations[-1].mean()))


def test_ties_share_their_rank():
    one, other = torch.tensor([[0.0, 0.0, 0.0, 1.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 1.0, 3.0, 0.0, 2.0]])
    maps = iter([one.view(1, 1, 2, 3), other.view(1, 1, 2, 3)])
    found = model_randomization(lambda *_: next(maps), net(), torch.zeros(1, 3, 2, 3), layers=())
    assert found.score == pytest.approx(spearmanr(one[0], other[0]).statistic)


def test_signs_are_compared_unless_they_shall_not_be():
    x = images()
    maps = iter([x, -x, x, -x])
    attribute = lambda *_: next(maps)  # noqa: E731
    assert model_randomization(attribute, net(), x, layers=()).score == pytest.approx(-1)
    assert model_randomization(attribute, net(), x, layers=(), signed=False).score == pytest.approx(1)


def test_the_end_alone_costs_two_attributions_or_one():
    model, x, calls = net(), images(), []

    def counted(model, inputs, target):
        calls.append(target)
        return gradient(model, inputs, target)

    whole, end = model_randomization(gradient, model, x), model_randomization(counted, model, x, layers=())
    assert end.layers == ("everything",) and len(calls) == 2
    assert torch.equal(end.correlations[0], whole.correlations[-1])
    again = model_randomization(counted, model, x, layers=(), original=gradient(model, x))
    assert len(calls) == 3 and torch.equal(again.correlations, end.correlations)


def test_the_class_stays_the_one_that_the_model_itself_predicts():
    model, x, seen = net(), images(6), []

    def attribute(model, inputs, target):
        seen.append((target.tolist(), model(inputs).argmax(1).tolist()))
        return gradient(model, inputs, target)

    predicted = model.eval()(x).argmax(1).tolist()
    model_randomization(attribute, model, x)
    assert len(seen) == 6 and all(target == predicted for target, _ in seen)
    assert any(now != predicted for _, now in seen)  # it would have been another


def test_a_constant_map_has_no_correlation_and_does_not_count():
    x = images(3)
    flat = x.clone()
    flat[1] = 7.0
    maps = iter([x, flat])
    found = model_randomization(lambda *_: next(maps), net(), x, layers=())
    assert found.correlations[0].isnan().tolist() == [False, True, False]
    assert found.undefined == 1 and found.score == pytest.approx(1)
    assert math.isnan(model_randomization(given(torch.zeros(3, 1, 8, 8)), net(), x, layers=()).score)


def test_a_net_without_gradient_after_reinitialization_is_said_by_nan_alone():
    """The gradient warns that it is zero everywhere: true of the random model, and no news to a user."""

    class Shut(nn.Linear):
        def reset_parameters(self):
            nn.init.zeros_(self.weight), nn.init.zeros_(self.bias)

    model = nn.Sequential(nn.Flatten(), Shut(192, 2))
    nn.init.normal_(model[1].weight)
    found = model_randomization(gradient, model, images(), 0)
    assert found.undefined == 2


def test_an_attribution_that_fails_leaves_the_model_as_found():
    model = net()
    before = state(model)

    def fails(model, inputs, target):
        with torch.no_grad():
            if any(not torch.equal(p, q) for p, q in zip(model.parameters(), net().parameters(), strict=True)):
                raise KeyError
        return inputs

    with pytest.raises(KeyError):
        model_randomization(fails, model, images())
    assert state(model) == before


# --- Pointing game.


def peak(*places, size=32):
    heat = torch.zeros(len(places), 1, size, size)
    for n, (row, column) in enumerate(places):
        heat[n, 0, row, column] = 1.0
    return given(heat)


def test_the_maximum_must_lie_in_the_box():
    boxes = torch.tensor([[4, 10, 8, 12]]).expand(5, 4)  # columns 4..7, rows 10..11
    places = [(10, 4), (11, 7), (10, 3), (12, 4), (4, 10)]
    found = pointing_game(peak(*places), net(), images(5, 32), boxes=boxes, tolerance=0)
    assert found.hits.tolist() == [True, True, False, False, False]
    assert found.rate == pytest.approx(0.4) and found.places.tolist() == [list(place) for place in places]


def test_the_margin_is_a_distance_from_the_object():
    mask = torch.zeros(4, 32, 32)
    mask[:, 10, 10] = 1
    places = [(10, 13), (13, 14), (13, 13), (10, 16)]  # 3, 5, 4.2 and 6 away
    game = partial(pointing_game, peak(*places), net(), images(4, 32), masks=mask)
    assert game(tolerance=5).hits.tolist() == [True, True, True, False]
    assert game(tolerance=3).hits.tolist() == [True, False, False, False]
    assert not game().hits.any()  # 15 px at 224 are 2.1 px at 32
    large = pointing_game(
        peak((10, 25), (10, 26), size=224), net(), images(2, 224), boxes=torch.tensor([[10, 10, 11, 11]] * 2)
    )
    assert large.hits.tolist() == [True, False]


def test_any_of_several_boxes_counts():
    boxes = [torch.tensor([[0, 0, 4, 4], [20, 20, 24, 24]]), torch.tensor([[0.0, 0.0, 4.0, 4.0]])]
    found = pointing_game(peak((21, 21), (21, 21)), net(), images(2, 32), boxes=boxes, tolerance=0)
    assert found.hits.tolist() == [True, False]


def test_a_constant_map_misses_and_among_equal_maxima_chance_decides():
    mask = torch.ones(1, 32, 32)
    assert not pointing_game(given(torch.ones(1, 1, 32, 32)), net(), images(1, 32), masks=mask).hits.any()
    half = torch.zeros(1, 1, 32, 32)
    half[..., 16:] = 1.0
    mask[..., 16:] = 0
    mask[..., 16:24] = 1  # half of the maxima
    hits = [
        pointing_game(given(half), net(), images(1, 32), masks=mask, tolerance=0, seed=seed).hits.item()
        for seed in range(60)
    ]
    assert 15 < sum(hits) < 45


# --- Misuse.


@pytest.mark.parametrize("check", [model_randomization, insertion, deletion])
@pytest.mark.parametrize("target", [classes(0, 1), top(2)])
def test_several_targets_are_refused(check, target):
    with pytest.raises(ValueError, match="2 targets at once: checks take one per sample"):
        check(gradient, net(), images(), target)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pointing_game(gradient, net(), images(), top(2), masks=torch.ones(2, 8, 8)), ValueError, "several ta"),
        (lambda: pointing_game(gradient, net(), images()), ValueError, "as boxes or as masks, one of them"),
        (
            lambda: pointing_game(gradient, net(), images(), masks=torch.ones(2, 4, 4)),
            ValueError,
            r"objects \[2, 4, 4\] and maps \[2, 8, 8\]",
        ),
        (
            lambda: pointing_game(gradient, net(), images(), boxes=torch.tensor([[0, 0, 2, 2], [9, 9, 12, 12]])),
            ValueError,
            "sample 1 has no object within the image",
        ),
        (lambda: deletion(gradient, net(), images(), steps=0), ValueError, "steps is 0: give 1 or more"),
        (
            lambda: deletion(given(torch.full((2, 1, 8, 8), torch.nan)), net(), images()),
            ValueError,
            r"samples \[0, 1\] are not finite",
        ),
        (lambda: deletion(gradient, net(), (images(),)), TypeError, "inputs are a tuple: give images"),
        (
            lambda: model_randomization(gradient, nn.Linear(3, 2), torch.zeros(2, 3)),
            TypeError,
            r"the inputs are \[\[2, 3\]\]: checks need images",
        ),
        (
            lambda: model_randomization(gradient, net(), images(), layers="haed"),
            LayerNotFoundError,
            "did you mean 'head'",
        ),
        (
            lambda: model_randomization(partial(grad_cam, layers=nn.Conv2d), net(), images()),
            ValueError,
            "maps of layers .*choose one",
        ),
    ],
)
def test_misuse_is_an_error_that_says_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()
