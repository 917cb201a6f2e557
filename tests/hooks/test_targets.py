"""The target: one scalar per sample."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_viz.errors import LayerNotFoundError
from lightning_viz.hooks import (
    Activations,
    as_target,
    channel,
    classes,
    logit,
    maximum,
    observe,
    region,
    top,
    unit,
)
from lightning_viz.hooks.geometry import Layout


def scored(outputs, target):
    """The scalars and the classes of a target of the output."""
    scores = as_target(target).scores(Activations({}, outputs))
    return scores.values, scores.classes


LOGITS = torch.tensor([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0]])


@pytest.mark.parametrize(
    ("target", "scores", "classes"),
    [
        (None, [5, 7], [1, 0]),
        (2, [2, 3], [2, 2]),
        ([0, 2], [1, 3], [0, 2]),
        ((1, 1), [5, 0], [1, 1]),
        (torch.tensor([2, 1]), [2, 0], [2, 1]),
        (torch.tensor([[2], [1]]), [[2, 3], [5, 0]], [[2, 2], [1, 1]]),
        (torch.tensor([[2, 0], [1, 2]]), [[2, 7], [5, 3]], [[2, 0], [1, 2]]),
        (classes(2, 1), [[2, 3], [5, 0]], [[2, 2], [1, 1]]),
        (top(2), [[5, 7], [2, 3]], [[1, 0], [2, 2]]),
        (torch.tensor(1), [5, 0], [1, 1]),
        (torch.tensor([1, 0], dtype=torch.int32), [5, 7], [1, 0]),
        (np.array([1, 0]), [5, 7], [1, 0]),
        (np.int64(2), [2, 3], [2, 2]),
        (logit(2), [2, 3], [2, 2]),
        (logit([0, 2]), [1, 3], [0, 2]),
        ("predicted", [5, 7], [1, 0]),
        ("2", [2, 3], [2, 2]),
        ("top:2", [[5, 7], [2, 3]], [[1, 0], [2, 2]]),
    ],
)
def test_a_class_for_all_or_one_each_or_the_predicted(target, scores, classes):
    found, chosen = scored(LOGITS, target)
    assert found.tolist() == scores
    assert chosen.tolist() == classes


def test_a_function_of_the_output_explains_what_it_returns():
    scores, chosen = scored({"logits": LOGITS}, lambda output: output["logits"][:, 0] - output["logits"][:, 1])
    assert scores.tolist() == [-4, 7]
    assert chosen is None
    summed, _ = scored(LOGITS, lambda output: output[:, :2])  # more than one scalar per sample: their sum
    assert summed.tolist() == [6, 7]


def test_scores_are_summed_over_positions():
    dense = torch.arange(2 * 3 * 2 * 2.0).view(2, 3, 2, 2)
    assert torch.equal(scored((None, dense), classes(0, 1, 2))[0].T, dense.sum((2, 3)))
    assert torch.equal(scored({"aux": -dense, "out": dense}, classes(0, 1, 2))[0].T, dense.sum((2, 3)))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, r"target class 3 is out of range: the model has 3 outputs"),
        ([0, -1], r"target class -1 is out of range: the model has 3 outputs"),
        ([0, 1, 2], "3 targets for 2 samples: give one target class, one per sample"),
        ([0], "1 targets for 2 samples: give one target class, one per sample"),
        (top(4), r"top\(4\): the model has 3 outputs"),
    ],
)
def test_a_target_that_cannot_be_meant_is_an_error(target, message):
    with pytest.raises(ValueError, match=message):
        scored(LOGITS, target)


def test_no_class_at_all_cannot_be_asked_for():
    with pytest.raises(ValueError, match=r"top\(0\): give 1 class or more"):
        top(0)
    with pytest.raises(ValueError, match=r"classes\(\): give 1 class or more"):
        classes()


@pytest.mark.parametrize("outputs", [torch.tensor(1.0), torch.tensor([1, 2]), {"loss": None}, "text", None])
def test_an_output_without_scores_is_an_error_that_says_what_to_give(outputs):
    with pytest.raises(
        TypeError, match=f"the model returned {type(outputs).__name__} without .* as target, or forward="
    ):
        scored(outputs, 0)


# --- Regions of a dense output.

DENSE = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4).sin()
ONE = torch.zeros(4, 4, dtype=torch.bool).index_fill(0, torch.tensor([1]), True)
EACH = torch.stack([ONE, ~ONE])


@pytest.mark.parametrize("mask", [ONE, ONE.float() * 0.5, EACH], ids=["places", "weights", "of each"])
@pytest.mark.parametrize(
    ("index", "picked"),
    [
        (2, lambda sums: sums[:, 2]),
        ([0, 2], lambda sums: sums[[0, 1], [0, 2]]),
        (classes(1, 2), lambda sums: sums[:, 1:].T),
        (None, lambda sums: sums.amax(1)),
    ],
    ids=["one", "each", "several", "strongest"],
)
def test_a_region_sums_a_class_over_its_places(mask, index, picked):
    found, chosen = scored(DENSE, region(mask, index))
    sums = (DENSE * (mask[:, None] if mask.dim() == 3 else mask)).sum((2, 3))
    assert torch.allclose(found, picked(sums))
    rows = chosen if chosen.dim() == 2 else chosen[None]
    assert torch.allclose(sums[torch.arange(2), rows].view_as(found), found)  # the classes named are those summed


@pytest.mark.parametrize(("outputs", "shape"), [(DENSE, (4, 5)), (DENSE, (3, 4, 4)), (LOGITS, (3,))])
def test_a_mask_that_does_not_fit_is_an_error_that_gives_both_shapes(outputs, shape):
    with pytest.raises(ValueError) as seen:
        scored(outputs, region(torch.ones(shape), 0))
    assert f"mask is {list(shape)}, the output {list(outputs.shape)}: give [H, W] of it" in str(seen.value)


# --- Inside a model.


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Linear(3, 4)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        x = self.relu(self.conv(x))
        return self.fc(self.relu(1 - x).mean((2, 3)))

    def stages(self, x):
        conv = self.conv(x)
        first = conv.relu()
        second = (1 - first).relu()
        return {"conv": conv, "relu:0": first, "relu:1": second, "fc": self.fc(second.mean((2, 3)))}


INNER = {
    "unit of a map": (unit("conv", (2, 1, 3)), lambda of: of["conv"][:, 2, 1, 3]),
    "unit of a map, one each": (
        unit("conv", [(2, 1, 3), (0, 0, 4)]),
        lambda of: of["conv"][[0, 1], [2, 0], [1, 0], [3, 4]],
    ),
    "unit in the middle of a map": (unit("conv", 2), lambda of: of["conv"][:, 2, 2, 2]),
    "unit of a vector": (unit("fc", 3), lambda of: of["fc"][:, 3]),
    "unit of a vector, one each": (unit("fc", [3, 0]), lambda of: of["fc"][[0, 1], [3, 0]]),
    "units of a vector": (unit("fc", [[1], [2]]), lambda of: of["fc"][:, 1:3].T),
    "channel": (channel("relu:1", 1), lambda of: of["relu:1"][:, 1].sum((1, 2))),
    "channel of the other call": (channel("relu:0", 1), lambda of: of["relu:0"][:, 1].sum((1, 2))),
    "channels": (channel("conv", [[2], [0]]), lambda of: of["conv"][:, [2, 0]].sum((2, 3)).T),
    "channel, one each": (channel("conv", torch.tensor([2, 0])), lambda of: of["conv"][[0, 1], [2, 0]].sum((1, 2))),
    "channel of a vector": (channel("fc", 1), lambda of: of["fc"][:, 1]),
    "maximum": (maximum("conv", 1), lambda of: of["conv"][:, 1].amax((1, 2))),
    "maxima": (maximum("conv", [[1], [2]]), lambda of: of["conv"][:, [1, 2]].amax((2, 3)).T),
    "maximum of a layer": (maximum("relu:1"), lambda of: of["relu:1"].flatten(1).amax(1)),
}


def inner_case():
    torch.manual_seed(0)
    return Net(), torch.randn(2, 1, 5, 5)


@pytest.mark.parametrize("name", list(INNER))
def test_what_lies_inside_is_read_where_it_is_also_before_a_relu_in_place(name):
    net, x = inner_case()
    target, by_hand = INNER[name]
    leaf = x.clone().requires_grad_()
    expected = by_hand(net.stages(leaf))
    (slope,) = torch.autograd.grad(expected.sum(), leaf)
    seen = observe(net, x, target, input_gradient=True)
    assert seen.targets is None  # no classes
    assert torch.allclose(seen.scores, expected.detach(), atol=1e-6)
    found = seen.input_gradient if expected.dim() == 1 else seen.input_gradient.sum(0)
    assert torch.allclose(found, slope, atol=1e-6)
    copies = observe(net, x[[1, 1, 0]], target.select(torch.tensor([1, 1, 0]))).scores
    assert torch.allclose(copies, expected[..., [1, 1, 0]], atol=1e-6)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (channel("relu", 1), ValueError, r"'relu' is called 2 times: name the call, one of \['relu:0', 'relu:1'\]"),
        (channel("relu:2", 1), ValueError, "'relu' is called 2 times: 'relu:2' is none of"),
        (unit("unused", 1), ValueError, "layer 'unused' is not called in the forward pass"),
        (channel("cnov", 1), LayerNotFoundError, "no layer matches 'cnov'; did you mean 'conv'"),
        (channel("conv", 3), ValueError, r"channel 3 is out of range: the model has 3 channels in layer 'conv'"),
        (channel("conv", [0, 1, 2]), ValueError, "3 targets for 2 samples: give one channel, one per sample"),
        (channel("conv", None), ValueError, "no channel given in layer 'conv'"),
        (
            unit("conv", (1, 2)),
            ValueError,
            r"unit \(1, 2\) in layer 'conv', whose output is \[3, 5, 5\]: give \(channel, row, column\)",
        ),
        (
            unit("conv", (0, 5, 0)),
            ValueError,
            r"unit \[0, 5, 0\] is out of range: in layer 'conv' the output is \[3, 5, 5\]",
        ),
        (unit("conv", (0, -1, 0)), ValueError, r"unit \[0, -1, 0\] is out of range"),
        (unit("fc", 4), ValueError, r"unit 4 is out of range: the model has 4 units in layer 'fc'"),
    ],
)
def test_an_inner_target_that_cannot_be_meant_is_an_error(target, error, message):
    net, x = inner_case()
    with pytest.raises(error, match=message):
        observe(net, x, target, input_gradient=True)


@pytest.mark.parametrize("target", [unit("1", 0), channel("1", 0), maximum("1"), maximum("1", [0, 0])])
def test_a_layer_that_puts_out_one_number_per_sample_has_one_unit(target):
    model, x = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), torch.randn(2, 3)
    assert torch.equal(observe(model, x, target).scores, model(x))


def test_channels_of_tokens_and_of_maps_with_channels_last():
    torch.manual_seed(0)
    maps = torch.randn(2, 5, 4, 4)
    last, tokens = maps.permute(0, 2, 3, 1), torch.cat([torch.full((2, 1, 5), 9.0), maps.flatten(2).transpose(1, 2)], 1)
    layouts = [Layout((4, 4)), Layout((4, 4), 3), Layout((4, 4), 2, 1)]
    for output, layout in zip((maps, last, tokens), layouts, strict=True):
        for target, expected in [
            (channel("it", 3), maps[:, 3].sum((1, 2))),
            (maximum("it", 3), maps[:, 3].amax((1, 2))),
            (unit("it", (3, 1, 2)), maps[:, 3, 1, 2]),
        ]:
            assert torch.allclose(
                target.scores(Activations({"it": output}, layouts={"it": layout})).values, expected, atol=1e-5
            )


# --- Of some samples.


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize(
    "target",
    [
        None, 2, np.int64(1), top(2), classes(0, 1), lambda out: out[:, 0], torch.tensor(2), region(ONE, 1),
        region(ONE), unit("fc", 1), unit("conv", (0, 1, 2)), channel("conv", [[0], [1], [2]]), maximum("conv"),
    ],
    ids=lambda value: str(value).split(" at 0x")[0],
)  # fmt: skip
def test_what_is_meant_for_all_goes_with_any_number_of_samples(target, count):
    as_target(target).check_count(count)


@pytest.mark.parametrize(
    ("target", "given"),
    [
        ([0, 1], 2), (torch.zeros(2, 5), 5), (channel("conv", [0, 1]), 2), (unit("fc", [0, 1]), 2),
        (unit("conv", [(0, 1, 2), (0, 1, 2)]), 2), (region(ONE, [0, 1]), 2), (region(EACH, 1), 2),
    ],
    ids=lambda value: str(value).split(" at 0x")[0],
)  # fmt: skip
def test_what_is_meant_for_each_must_be_as_many(target, given):
    as_target(target).check_count(given)
    with pytest.raises(ValueError, match=f"{given} (targets|masks) for 4 samples: give one"):
        as_target(target).check_count(4)
