"""Every method that captum has, on torchvision's networks, wherever captum is right.

Its guided backpropagation and deconvolution are right only where every ReLU is a module with an input of its own:
GoogLeNet's ReLUs are functions, DenseNet's normalized inputs are shared (`benchmarks/correctness.py` shows by how much
it is wrong there). ConvNeXt and the vision transformer have no ReLU at all.
"""

import captum.attr
import pytest
import torch
import torchvision
from torch import nn

import lightning_viz.attribution
from lightning_viz.attribution import (
    deconvolution,
    grad_cam,
    grad_cam_plus_plus,
    gradient,
    guided_backprop,
    guided_grad_cam,
    integrated_gradients,
    occlusion,
    smooth_grad,
)
from lightning_viz.errors import InterceptionError
from lightning_viz.hooks.observe import observe

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations"),
    pytest.mark.filterwarnings("ignore:.*have no such rule and stay plain"),  # MobileNet's hard swish, as in captum
]

LAYERS = {
    "resnet18": ["layer4.1.conv2", "layer2.0.conv1"],
    "vgg11": ["features.18", "features.8"],
    "alexnet": ["features.10", "features.3"],
    "densenet121": ["features.denseblock4.denselayer16.conv2", "features.denseblock2.denselayer6.conv1"],
    "googlenet": ["inception5b.branch2.1.conv", "inception4a.branch2.0.conv"],
    "mobilenet_v3_small": ["features.12.0", "features.6.block.0.0"],
    "convnext_tiny": ["features.7.2.block.0", "features.5.2.block.0"],
    "vit_b_16": ["conv_proj"],  # captum takes tokens for channels
}
"""The last convolution and one in the middle."""

SMOOTH = {"convnext_tiny", "vit_b_16"}  # no ReLU or pooling that rounding could turn: single precision suffices
RULED = {"resnet18", "vgg11", "alexnet", "mobilenet_v3_small"}  # where captum's rules reach every ReLU
LABELS = torch.tensor([4, 1])


@pytest.fixture(scope="module", params=list(LAYERS))
def case(request):
    """A network, its name and two images."""
    name = request.param
    torch.manual_seed(0)
    options = {"googlenet": {"aux_logits": False, "init_weights": False}, "vit_b_16": {"image_size": 32}}
    options["vgg11"] = {"init_weights": False}
    model = torchvision.models.get_model(name, weights=None, num_classes=6, **options.get(name, {}))
    if name in ("vgg11", "alexnet"):  # smaller heads: torchvision's vgg11 has 120 million weights there
        width = model.classifier[0 if name == "vgg11" else 1].in_features
        model.classifier = nn.Sequential(nn.Linear(width, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 6))
    x = torch.randn(2, 3, 32 if name in ("vgg11", "vit_b_16") else 64, 64 if name != "vit_b_16" else 32)
    return name, *alive(model, x, torch.float32 if name in SMOOTH else torch.float64)


def alive(model, x, dtype):
    """With weights under which values neither fade nor grow from layer to layer."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        elif type(module).__name__ == "CNBlock":
            nn.init.ones_(module.layer_scale)
    model, x = model.to(dtype), x.to(dtype)
    with torch.no_grad():
        for module in model.modules():
            module.training = isinstance(module, nn.BatchNorm2d)
        model(torch.cat([x, x.flip(3) + 0.5]))
    return model.eval().requires_grad_(False), x


def assert_same(mine, reference):
    reference = reference.detach()
    assert mine.shape == reference.shape and reference.abs().max() > 1e-6
    error = float((mine - reference).abs().max() / reference.abs().max())
    print(f"relative error {error:.1e}")  # shown by -rP
    assert error <= 1e-5


def leaf(x):
    return x.clone().requires_grad_()


def test_gradient(case):
    _, model, x = case
    reference = captum.attr.Saliency(model).attribute(leaf(x), LABELS, abs=False)
    assert_same(gradient(model, x, LABELS), reference)
    assert reference.min() < 0  # signed


def test_smooth_grad(case):
    """The same noise put into both."""
    _, model, x = case
    generator = torch.Generator().manual_seed(3)
    spread = 0.2 * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
    total = torch.zeros_like(x)
    for _ in range(3):
        copy = x + spread * torch.randn(x.shape[1:], generator=generator).to(x)
        total += captum.attr.Saliency(model).attribute(copy.requires_grad_(), LABELS, abs=False)
    mine = smooth_grad(model, x, LABELS, noise_samples=3, fraction=0.2, seed=3)
    assert_same(mine, total / 3)


OF = {"gradient": "Saliency", "input_times_gradient": "InputXGradient", "guided_backprop": "GuidedBackprop"}


@pytest.mark.parametrize("statistic", ["mean", "squared", "variance"])
@pytest.mark.parametrize("of", OF)
def test_statistics_over_noise(of, statistic, monkeypatch):
    """`NoiseTunnel`, with our noise where it draws its own; of one sample, as it draws other noise for each."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 6))
    model, x = alive(model, torch.randn(1, 3, 12, 12), torch.float64)
    generator = torch.Generator().manual_seed(3)
    noise = torch.stack([torch.randn(x.shape[1:], generator=generator) for _ in range(7)]).to(x)
    monkeypatch.setattr(torch, "normal", lambda mean, std, **_: noise * std)
    kind = {"mean": "smoothgrad", "squared": "smoothgrad_sq", "variance": "vargrad"}[statistic]
    options = {"abs": False} if of == "gradient" else {}
    reference = captum.attr.NoiseTunnel(getattr(captum.attr, OF[of])(model)).attribute(
        leaf(x), nt_type=kind, nt_samples=7, stdevs=0.2 * float(x.max() - x.min()), target=4, **options
    )
    given = {"noise_samples": 7, "fraction": 0.2, "seed": 3, "statistic": statistic}
    assert_same(smooth_grad(model, x, 4, of=of, **given), reference)
    again = smooth_grad(model, x, 4, of=getattr(lightning_viz.attribution, of), batch_size=3, **given)
    assert_same(again, reference)


def test_integrated_gradients(case):
    _, model, x = case
    method = captum.attr.IntegratedGradients(model)
    reference = method.attribute(x, 0.3, LABELS, n_steps=5, method="gausslegendre", internal_batch_size=4)
    assert_same(integrated_gradients(model, x, LABELS, baseline=0.3, steps=5), reference)


def test_grad_cam(case):
    name, model, x = case
    mine = grad_cam(model, x, LABELS, layers=LAYERS[name])
    assert list(mine) == LAYERS[name]
    for layer, heat in mine.items():
        method = captum.attr.LayerGradCam(model, model.get_submodule(layer))
        assert_same(heat, method.attribute(x, LABELS, relu_attributions=True))


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [(guided_backprop, "GuidedBackprop"), (deconvolution, "Deconvolution")],
    ids=["guided", "deconv"],
)
def test_rules_at_relus(case, mine, theirs):
    name, model, x = case
    if name in SMOOTH:
        with pytest.raises(InterceptionError, match=r"met no ReLU \(its activations are \d+ GELU\)"):
            mine(model, x, LABELS)
        return
    reference = getattr(captum.attr, theirs)(model).attribute(leaf(x), LABELS)
    if name in RULED:
        assert_same(mine(model, x, LABELS), reference)
    else:
        found = mine(model, x, LABELS)
        assert (found - reference).abs().max() > 0.1 * found.abs().max()  # if captum comes to agree, let it be tested


def test_guided_grad_cam(case):
    name, model, x = case
    if name not in RULED:
        pytest.skip("captum's guided backpropagation is wrong here, or there is no ReLU")
    mine = guided_grad_cam(model, x, LABELS, layers=LAYERS[name])
    for layer, found in mine.items():
        method = captum.attr.GuidedGradCam(model, model.get_submodule(layer))
        assert_same(found, method.attribute(leaf(x), LABELS, interpolate_mode="bilinear"))


def test_occlusion(case):
    """Also where the stride does not end at the border, and patches overlap."""
    _, model, x = case
    patch, stride = (x.shape[2] // 3, x.shape[3] // 3), (x.shape[2] // 3, x.shape[3] // 4)
    mine = occlusion(model, x, LABELS, patch=patch, stride=stride, baseline=0.3)
    reference = captum.attr.Occlusion(model).attribute(
        x, (3, *patch), (3, *stride), baselines=0.3, target=LABELS, perturbations_per_eval=8
    )
    assert_same(mine.heat.expand_as(reference), reference)


def test_grad_cam_plus_plus_is_the_papers_formula():
    """Equations 10 and 13 to 15 for Y = exp(S), by loops; its gradients are the logit's times Y, to any order."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    model, x = alive(torchvision.models.resnet18(num_classes=6), x, torch.float64)
    mine = grad_cam_plus_plus(model, x, LABELS, layers="layer4")["layer4"]
    seen = observe(model, x, LABELS, layers="layer4", gradients=True)
    for n in range(2):
        y = seen.scores[n].exp().item()
        maps, slopes = seen.activations["layer4"][n], seen.gradients["layer4"][n]
        total = torch.zeros(maps.shape[1:], dtype=torch.float64)
        for k in range(len(maps)):
            weight, whole = 0.0, sum(maps[k].flatten().tolist())
            for g in slopes[k].flatten().tolist():
                first, second, third = y * g, y * g**2, y * g**3
                below = 2 * second + whole * third
                alpha = second / below if below != 0 else 0.0
                weight += alpha * max(first, 0.0)
            total += weight * maps[k]
        assert_same(mine[n, 0], total.relu() / y)
