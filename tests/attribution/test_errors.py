"""What cannot be right is an error, and what is right but empty is said."""

import warnings

import pytest
import torch
from torch import nn

from lightning_viz.attribution import (
    deconvolution,
    gradient,
    guided_backprop,
    guided_grad_cam,
    input_times_gradient,
    integrated_gradients,
    occlusion,
    score_cam,
    smooth_grad,
)
from lightning_viz.errors import AttributionWarning, InterceptionError
from lightning_viz.hooks import classes
from tests.attribution.nets import inputs, network
from tests.truth import input_gradient

GRADIENTS = [gradient, input_times_gradient, smooth_grad, integrated_gradients, guided_backprop, deconvolution]
RULED = [guided_backprop, deconvolution, guided_grad_cam]


def convolutional(*activations):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), *activations[:1], nn.Conv2d(6, 6, 3), *activations[1:]]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 64, 4)).double()


@pytest.mark.parametrize("method", RULED)
def test_a_network_without_relus_is_no_case_for_their_rules(method):
    with pytest.raises(InterceptionError, match=r"met no ReLU: the map would be the plain gradient, use `gradient`"):
        method(convolutional(nn.Identity(), nn.MaxPool2d(1)), inputs("convolutional"), 1)
    with pytest.raises(InterceptionError, match=r"met no ReLU \(its activations are 2 GELU\)"):
        method(network("tokens"), inputs("tokens"), 1)


@pytest.mark.parametrize("method", RULED)
def test_activations_without_such_a_rule_stay_plain_and_are_named(method):
    model, x = convolutional(nn.ReLU(), nn.GELU()), inputs("convolutional")
    with pytest.warns(AttributionWarning, match="rule changed 1 ReLUs; 1 GELU have no such rule and stay plain"):
        found = method(model, x, 1)
    if method is not guided_grad_cam:
        rule = "guided" if method is guided_backprop else "deconvolution"
        assert torch.allclose(found, input_gradient(model, x, 1, rule), atol=1e-12)
        assert not torch.allclose(found, input_gradient(model, x, 1), atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
@pytest.mark.parametrize("method", RULED)
def test_a_scripted_part_is_named(method):
    model, x = convolutional(nn.ReLU(), nn.ReLU()), inputs("convolutional")
    plain = input_gradient(model, x, 1)
    model[2] = torch.jit.trace(nn.Sequential(model[2], nn.ReLU()), torch.randn(1, 6, 10, 10).double())
    options = {"layers": "0"} if method is guided_grad_cam else {}
    with pytest.raises(InterceptionError, match=r"did not reach .*traced or scripted module '2'"):
        method(model, x, 1, **options)
    assert torch.allclose(gradient(model, x, 1), plain, atol=1e-12)  # needs no rule


class Gated(nn.Module):
    """Samples whose first value is negative reach no class; class 3 depends on nothing."""

    def forward(self, x):
        x = x * (x[:, :1, :1, :1] > 0)
        return x.sum((2, 3)).relu() @ torch.tensor([[1.0, 2, 0, 0], [0, 1, 1, 0], [1, 0, 2, 0]], dtype=x.dtype)


@pytest.mark.parametrize("method", GRADIENTS)
def test_a_gradient_of_zero_is_said_and_whose(method):
    x = torch.rand(3, 3, 4, 4)
    options = {"fraction": 0.0} if method is smooth_grad else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method(Gated(), x, 0, **options)
    x[1] *= -1
    with pytest.warns(AttributionWarning, match=r"exactly zero for samples \[1\]: the target does not change"):
        found = method(Gated(), x, 0, **options)
    assert not found[1].any() and found[[0, 2]].any()
    with pytest.warns(AttributionWarning, match="exactly zero for every sample"):
        method(Gated(), x, 3, **options)
    with pytest.warns(AttributionWarning, match=r"exactly zero for samples \[1\]"):
        method(Gated(), x, classes(0, 1), **options)


@pytest.mark.parametrize("method", GRADIENTS)
def test_a_warning_points_to_the_line_that_asked(method):
    with pytest.warns(AttributionWarning) as seen:
        method(Gated(), torch.rand(2, 3, 4, 4), 3)
    assert [each.filename for each in seen] == [__file__]


@pytest.mark.parametrize("method", [guided_grad_cam, score_cam, occlusion])
def test_methods_of_images_need_one(method):
    with pytest.raises(ValueError, match=rf"{method.__name__} needs an image \[N, C, H, W\].* among the inputs"):
        method(nn.Linear(4, 2), torch.randn(3, 4), 1)
