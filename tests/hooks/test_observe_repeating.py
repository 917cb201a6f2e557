"""Many passes of one model: each runs no more of it than what is asked for needs, and nothing of it stays."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_viz.errors import LayerNotFoundError, LayerNotReachedError
from lightning_viz.hooks.observe import passes


class Chain(nn.Module):
    """Five linear layers, which count how often they run, one ReLU between them."""

    def __init__(self, blocks=False):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))
        self.relu, self.blocks = nn.ReLU(inplace=True), blocks
        self.ran = []
        for number, one in enumerate(self.layers):
            one.register_forward_pre_hook(lambda module, inputs, number=number: self.ran.append(number))

    def forward(self, x):
        if self.blocks:
            x = checkpoint(self.part, x, 0, 2, use_reentrant=False)
            return checkpoint(self.part, x, 2, 5, use_reentrant=False)
        return self.part(x, 0, 5)

    def part(self, x, start, end):
        for one in self.layers[start:end]:
            x = self.relu(one(x))
        return x


class Cautious(Chain):
    """A forward that goes on whatever happens in a part of it."""

    def forward(self, x):
        try:
            return super().forward(x)
        except Exception:
            self.ran.append("swallowed")
            return x


class Headed(nn.Module):
    """A head that takes one size of image only."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.relu = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3), nn.ReLU()
        self.head, self.after = nn.Linear(3 * 16, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.after(self.head(self.relu(self.conv2(self.relu(self.conv1(x)))).flatten(1)))


def built(kind, *arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(*arguments)


INPUTS = torch.linspace(-1, 1, 12).view(3, 4)


def counted(model, run, inputs=INPUTS):
    model.ran.clear()
    return run(inputs), list(model.ran)


@pytest.mark.parametrize("kind", [Chain, Cautious])
@pytest.mark.parametrize(
    ("layers", "last"), [("layers.0", 0), ("layers.2", 2), (["layers.3", "layers.1"], 3), ("layers.4", 4)], ids=str
)
def test_the_first_pass_goes_to_the_end_and_every_later_one_to_the_last_layer(kind, layers, last):
    model = built(kind)
    with passes(model, layers, whole=False) as run:
        first, ran = counted(model, run)
        assert ran == [0, 1, 2, 3, 4]
        for _ in range(3):
            again, ran = counted(model, run)
            assert ran == list(range(last + 1))
            assert again.outputs is None
            assert all(torch.equal(again.calls[name], one) for name, one in first.calls.items())


@pytest.mark.parametrize("layers", [(), "layers.1"])
def test_a_whole_pass_goes_to_the_end_each_time(layers):
    model = built(Chain)
    expected = model(INPUTS)
    with passes(model, layers) as run:
        for _ in range(3):
            seen, ran = counted(model, run)
            assert ran == [0, 1, 2, 3, 4]
            assert torch.equal(seen.outputs, expected)


def test_without_layers_and_outputs_asked_for_it_is_the_outputs():
    with passes(built(Chain), whole=False) as run:
        assert [run(INPUTS).outputs is not None for _ in range(2)] == [True, True]


def test_a_layer_called_several_times_ends_the_pass_with_its_last_call():
    model = built(Chain)
    with passes(model, "relu", whole=False) as run:
        for _ in range(2):
            seen, ran = counted(model, run)
            assert ran == [0, 1, 2, 3, 4]
            assert list(seen.calls) == [f"relu:{number}" for number in range(5)]
    for earlier, (before, after) in zip(model.layers[1:], pairwise(seen.calls.values()), strict=True):
        torch.testing.assert_close(after, earlier(before).relu())


@pytest.mark.parametrize("inplace", [True, False])
def test_gradients_reach_the_inputs_and_no_weight(inplace):
    model = built(Chain)
    model.relu.inplace = inplace
    inputs = INPUTS.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model.layers[1](model.layers[0](inputs).relu()).sum(), inputs)
    with passes(model, "layers.1", whole=False) as run:
        for _ in range(2):
            seen = run(inputs)
            (found,) = torch.autograd.grad(seen.calls["layers.1"].sum(), inputs)
            torch.testing.assert_close(found, expected)
            assert not any(weight.requires_grad for weight in model.parameters())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("layer", ["layers.0", "layers.1", "layers.3", "layers.4"])
def test_checkpointed_blocks_stop_midway_with_the_same_gradients(layer):
    plain, blocks = built(Chain), built(Chain, True)
    found = []
    for model in (plain, blocks):
        with passes(model, layer, whole=False) as run:
            for _ in range(3):
                inputs = INPUTS.clone().requires_grad_()
                seen = run(inputs)
                assert list(seen.calls) == [layer]
                found.append(torch.autograd.grad(seen.calls[layer].square().sum(), inputs)[0])
    for one in found[1:]:
        torch.testing.assert_close(one, found[0])


def test_layers_before_a_head_that_cannot_take_the_image_serve():
    model, small, large = built(Headed), torch.ones(1, 1, 8, 8), torch.ones(1, 1, 11, 9)
    with passes(model, "conv2", whole=False) as run:
        assert [list(run(large).calls["conv2"].shape) for _ in range(3)] == [[1, 3, 7, 5]] * 3
    with passes(model, ["conv2", "relu"], whole=False) as run:
        assert [set(run(large).calls) for _ in range(2)] == [{"conv2", "relu:0", "relu:1"}] * 2
    with passes(model, ["head", "after"], whole=False) as run:
        assert list(run(small).calls["head"].shape) == [1, 2]


@pytest.mark.parametrize(
    ("layers", "whole"), [("after", False), ("head", False), (["conv2", "after"], False), ("conv2", True), ((), True)]
)
def test_a_head_that_cannot_take_the_image_is_an_error_where_it_is_asked_for(layers, whole):
    model = built(Headed)
    with passes(model, layers, whole=whole) as run, pytest.raises(RuntimeError, match="cannot be multiplied"):
        run(torch.ones(1, 1, 11, 9))
    assert not model.conv2._forward_hooks


def test_after_the_first_pass_an_error_on_the_way_is_an_error():
    model = built(Headed)
    with passes(model, "conv2", whole=False) as run:
        run(torch.ones(1, 1, 8, 8))
        with pytest.raises(RuntimeError, match="expected input"):
            run(torch.ones(1, 2, 8, 8))
    with passes(model, "relu", whole=False) as run:
        run(torch.ones(1, 1, 8, 8))
        with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
            run(torch.ones(1, 1, 4, 4))  # between the two calls of the ReLU


def test_layers_that_are_not_called_or_do_not_exist_are_named():
    model = nn.Sequential(built(Chain), nn.Linear(4, 4))
    model[0].unused = nn.Linear(4, 4)
    for whole in (True, False):
        with (
            passes(model, ["0.unused", "1"], whole=whole) as run,
            pytest.raises(LayerNotReachedError, match=r"0\.unused"),
        ):
            run(INPUTS)
    with pytest.raises(LayerNotFoundError, match=r"'0\.unsed'; did you mean '0\.unused'"), passes(model, "0.unsed"):
        pass


def test_a_forward_of_ones_own():
    with passes(built(Chain), "layers.4", forward=lambda model, inputs: {"x": model(inputs["x"]) + 1}) as run:
        assert run({"x": INPUTS}).outputs["x"].min() >= 1


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_model_is_as_it_was_also_when_a_pass_fails(mode, fails):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[3].bias.grad = torch.ones(3)
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    random, grad = torch.get_rng_state(), model[3].bias.grad
    try:
        with mode(), passes(model, ["0", "2"], whole=False) as run:
            for _ in range(3):
                found = run(INPUTS.clone().requires_grad_())
                assert torch.equal(found.calls["2"], model[1](found.calls["0"]))  # no dropout
                torch.autograd.grad(found.calls["2"].sum(), found.calls["0"])
                torch.rand(3)
            if fails:
                run(torch.ones(3, 5))
    except RuntimeError:
        assert fails
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert model[3].bias.grad is grad
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]


def test_what_the_model_writes_to_its_input_does_not_reach_the_callers():
    class Writing(nn.Module):
        def forward(self, x):
            return x.sub_(1.0)

    given = torch.rand(2, 4)
    before = given.clone()
    with passes(Writing()) as run:
        outputs = run((given,)).outputs
    assert torch.equal(given, before) and torch.equal(outputs, before - 1)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_a_pass_has_the_models_precision_and_its_chance_a_seed(kind):
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).to(kind)
    chance = torch.get_rng_state()

    def drawn(seed):
        with passes(model, forward=lambda model, inputs: torch.rand(3), seed=seed) as run:
            return run(torch.zeros(1, 4)).outputs, run.like

    assert torch.equal(drawn(5)[0], drawn(5)[0]) and not torch.equal(drawn(5)[0], drawn(6)[0])
    assert drawn(5)[1].dtype == kind and drawn(5)[1].numel() == 0
    assert torch.equal(torch.get_rng_state(), chance)
