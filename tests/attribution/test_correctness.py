"""Our cells of `benchmarks/correctness.py`: every form of ReLU and every wrapper, right or a clear error."""

import pytest
import torch
import torch.nn.functional as F

from lightning_viz.attribution import deconvolution, grad_cam, guided_backprop
from lightning_viz.errors import InterceptionError, LayerNotReachedError
from tests.attribution.forms import FORMS, WRAPPERS, build
from tests.truth import convolution_evidence, input_gradient

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:FutureWarning")

ROWS = [*FORMS, *WRAPPERS]
CLASS = 1
UNREACHABLE = {"jit-traced"}
NO_CALLED_LAYERS = {"jit-traced", "`torch.export`ed"}


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def error(found, truth):
    return float((found - truth).abs().max() / truth.abs().max())


@pytest.mark.parametrize(
    ("method", "rule"), [(guided_backprop, "guided"), (deconvolution, "deconvolution")], ids=["guided", "deconvolution"]
)
@pytest.mark.parametrize("row", ROWS)
def test_rules_at_relus_are_right_or_refused(row, method, rule, x):
    plain, model = build(row, x)
    if row in UNREACHABLE:
        with pytest.raises(InterceptionError, match="3 ReluBackward0, the model is traced or scripted"):
            method(model, x, CLASS)
        return
    truth = input_gradient(plain, x, CLASS, rule)
    assert error(method(model, x, CLASS), truth) <= 1e-12
    assert error(input_gradient(plain, x, CLASS), truth) > 0.1  # so the plain gradient would not pass


@pytest.mark.parametrize("row", ROWS)
def test_grad_cam_is_right_at_every_convolution_or_refused(row, x):
    plain, model = build(row, x)
    prefix = "module." if "DataParallel" in row else ""
    names = [f"{prefix}conv{place}" for place in (1, 2, 3)]
    if row in NO_CALLED_LAYERS:
        with pytest.raises(LayerNotReachedError, match="conv1"):
            grad_cam(model, x, CLASS, layers=names)
        return
    maps = grad_cam(model, x, CLASS, layers=names)
    for name, evidence in convolution_evidence(plain, x, CLASS).items():
        assert error(maps[prefix + name], evidence.relu()) <= 1e-12


def test_the_truth_about_grad_cam_needs_no_gradient_towards_a_layer(x):
    """A channel's weight is the slope of its bias, over the places; values are followed by hand."""
    model, _ = build("`nn.ReLU(inplace=True)`", x[:1])
    a1 = model.conv1(x[:1])
    a2 = model.conv2(F.max_pool2d(a1.clamp(min=0), 2))
    a3 = model.conv3(a2.clamp(min=0))
    score = model.head(a3.clamp(min=0).mean((2, 3)))[:, CLASS].sum()
    evidence = convolution_evidence(model, x[:1], CLASS)
    for name, activation in {"conv1": a1, "conv2": a2, "conv3": a3}.items():
        (slope,) = torch.autograd.grad(score, model.get_submodule(name).bias, retain_graph=True)
        weights = slope / activation[0, 0].numel()
        by_hand = (weights[:, None, None] * activation).sum(1, keepdim=True).detach()
        assert error(evidence[name], by_hand) <= 1e-12
