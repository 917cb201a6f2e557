"""Inside `randomized_weights` a model is as never trained; outside nothing has happened, to byte and address."""

import copy
import random

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from lightning_viz.errors import LayerNotFoundError
from lightning_viz.hooks import randomized_weights
from lightning_viz.hooks.observe import observe


class Token(nn.Module):
    """A part with a parameter that has no initializer."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 8, 1, 1))

    def forward(self, x):
        return x + self.token


class Everything(LightningModule):
    """Convolution, batch norm, token, recurrence, attention, parametrization, and a tied pair; refuses to be copied."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(8)
        self.token = Token()
        self.lstm = nn.LSTM(8, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.normed = weight_norm(nn.Linear(8, 8))
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.third = nn.Linear(8, 8)
        self.third.weight.data = self.first.weight.data  # another parameter in the same memory
        self.head = nn.Linear(8, 5)
        self.head.bias.requires_grad_(False)
        self.head.weight.grad = torch.ones(5, 8)

    def forward(self, x):
        x = self.token(self.norm(self.conv(x))).flatten(2).permute(2, 0, 1)
        x = self.lstm(x)[0]
        x = self.attention(x, x, x)[0]
        return self.head(self.third(self.second(self.first(self.normed(x.mean(0))))))

    def __deepcopy__(self, memo):
        raise AssertionError("copied")


def trained(seed=0):
    """Values that no initializer makes."""
    torch.manual_seed(seed)
    model = Everything()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
        model.norm.running_mean.normal_(), model.norm.running_var.uniform_(0.5, 2)
    return model


def traces(model):
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    return [
        (name, id(x), x.data_ptr(), x.stride(), x.requires_grad, x.detach().numpy().tobytes(), id(x.grad))
        for name, x in every
    ] + [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()]


def values(model):
    return {name: x.detach().clone() for name, x in model.state_dict().items()}


def changed(before, after):
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("layers", [None, "norm", ["head", "token", "first"]])
def test_all_is_as_before_to_the_byte_and_the_address(layers, raises):
    model = trained()
    before = traces(model)
    with pytest.raises(KeyError) if raises else randomized_weights(model, layers):
        with randomized_weights(model, layers):
            observe(model, torch.randn(2, 3, 6, 6), input_gradient=True)
            model.train()
            model(torch.randn(4, 3, 6, 6)).sum().backward()
            if raises:
                raise KeyError
    assert traces(model) == before


def test_an_initializer_that_fails_leaves_nothing_behind():
    class Stubborn(nn.Linear):
        def reset_parameters(self):
            if hasattr(self, "bias"):
                nn.init.zeros_(self.weight)
            if getattr(self, "ready", False):
                raise KeyError

    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), Stubborn(2, 2), nn.Linear(2, 2))
    model[2].ready = True
    before = traces(model)
    with pytest.raises(KeyError), randomized_weights(model):
        pass
    assert traces(model) == before


def test_everything_is_new_inside_and_what_shares_memory_goes_on_sharing():
    model = trained()
    before = values(model)
    with randomized_weights(model):
        inside = values(model)
        assert model.first.weight is model.second.weight
        assert model.third.weight.data_ptr() == model.first.weight.data_ptr()
        assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    same = {name for name in before if torch.equal(before[name], inside[name])}
    assert same == {"norm.num_batches_tracked"}


def test_weights_are_drawn_as_at_construction():
    model = trained()
    with randomized_weights(model):
        for name, bound in {"conv.weight": 27**-0.5, "head.weight": 8**-0.5, "lstm.weight_hh_l0": 8**-0.5}.items():
            weight = model.get_parameter(name)
            assert 0.8 * bound < weight.abs().max() <= bound, name  # uniform within the bound
        assert torch.equal(model.norm.running_var, torch.ones(8)) and torch.equal(model.norm.weight, torch.ones(8))
        assert model.attention.in_proj_weight.abs().max() < 0.5 and not model.attention.in_proj_bias.any()


def test_what_has_no_initializer_gets_its_own_values_in_another_order():
    model = trained()
    token, magnitude = model.token.token.detach().clone(), model.normed.parametrizations.weight.original0.clone()
    with randomized_weights(model):
        for before, after in [
            (token, model.token.token),
            (magnitude, model.normed.parametrizations.weight.original0),
        ]:
            assert not torch.equal(before, after)
            assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)


def test_only_the_layers_asked_for_and_those_tied_to_them():
    model = trained()
    before = values(model)
    with randomized_weights(model, ["head", "token"]):
        assert changed(before, values(model)) == {"head", "token"}
    with randomized_weights(model, "first"):
        after = values(model)
        assert changed(before, after) == {"first", "second", "third"}
        assert torch.equal(before["second.bias"], after["second.bias"])
        assert torch.equal(before["third.bias"], after["third.bias"])


def test_a_layer_draws_the_same_whichever_others_do_and_another_with_another_seed():
    model = trained()
    drawn = []
    for layers, seed in [("head", 0), (None, 0), (["conv", "head"], 0), ("head", 1)]:
        with randomized_weights(model, layers, seed=seed):
            drawn.append(model.head.weight.detach().clone())
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])
    with randomized_weights(model):  # layers of one shape do not draw the same
        assert not torch.equal(model.first.bias, model.third.bias)


def test_chance_goes_on_inside_as_it_would_have_outside():
    """So that a method's own noise is the same for the random weights."""
    model = trained()
    torch.manual_seed(7), np.random.seed(7), random.seed(7)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(7), np.random.seed(7), random.seed(7)
    with randomized_weights(model):
        assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected


def test_a_pending_backward_goes_on():
    """Its saved tensors are the real ones, and were not written to."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    torch.manual_seed(0)
    x = torch.randn(5, 3)
    twin = copy.deepcopy(model)
    twin(x).square().sum().backward()
    loss = model(x).square().sum()
    with randomized_weights(model):
        model(x)
    loss.backward()
    for mine, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine.grad, expected.grad)


def test_in_inference_mode():
    model = trained()
    before = traces(model)
    with torch.inference_mode(), randomized_weights(model):
        seen = observe(model, torch.randn(2, 3, 6, 6), input_gradient=True)
    assert seen.input_gradient.abs().sum() > 0
    assert traces(model) == before


def test_compiled_modules_are_initialized_once_under_their_own_name():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    compiled = torch.compile(model)
    with randomized_weights(compiled, "2"):
        inside = model[2].weight.detach().clone()
    assert not torch.equal(model[2].weight, inside) and inside.abs().max() <= 0.5


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_scripted_parts_are_shuffled():
    model = nn.Sequential(torch.jit.script(nn.Linear(4, 4)), nn.Linear(4, 2))
    x = torch.randn(3, 4)
    before = traces(model)
    plain = model[0](x)
    with randomized_weights(model):
        assert not torch.equal(model[0](x), plain)
    assert torch.equal(model[0](x), plain)
    assert traces(model) == before


def test_a_lazy_module_stays_unmade():
    model = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2))
    with randomized_weights(model):
        pass
    assert model[1].has_uninitialized_params()


def test_a_layer_that_does_not_exist():
    with pytest.raises(LayerNotFoundError, match="did you mean 'head'"), randomized_weights(trained(), "haed"):
        pass
