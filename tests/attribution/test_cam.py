"""Grad-CAM against captum at every convolution, against its formula by loops, and what it costs."""

from collections import Counter

import captum.attr
import pytest
import torch
import torchvision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_viz.attribution import class_activation_map, grad_cam
from lightning_viz.attribution.cam import FORMULAS
from lightning_viz.errors import LayerNotFoundError, LayerNotReachedError
from lightning_viz.hooks.observe import observe


def images(count=2, size=64, seed=1):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def by_loops(activation, gradient):
    count, channels, height, width = activation.shape
    result = torch.zeros(count, 1, height, width, dtype=activation.dtype)
    for n in range(count):
        for i in range(height):
            for j in range(width):
                total = 0.0
                for k in range(channels):
                    alpha = 0.0
                    for p in range(height):
                        for q in range(width):
                            alpha += gradient[n, k, p, q].item() / (height * width)
                    total += alpha * activation[n, k, i, j].item()
                result[n, 0, i, j] = max(total, 0.0)
    return result


def test_the_map_is_the_formula():
    torch.manual_seed(0)
    activation, gradient = torch.randn(2, 2, 4, 3, 5, dtype=torch.float64)
    mine = class_activation_map(activation, gradient)
    assert torch.allclose(mine, by_loops(activation, gradient), atol=1e-12)
    assert (mine == 0).any() and (mine > 0).any()


@pytest.mark.parametrize("method", sorted(FORMULAS))
def test_a_series_and_a_volume_have_the_map_of_the_image_with_the_same_places(method):
    torch.manual_seed(0)
    activation, gradient = torch.randn(2, 2, 5, 4, 6, dtype=torch.float64)
    expected = class_activation_map(activation, gradient, method)
    for places in ((24,), (2, 2, 6)):
        reshaped = (x.reshape(2, 5, *places) for x in (activation, gradient))
        heat = class_activation_map(*reshaped, method)
        assert heat.shape == (2, 1, *places)
        assert torch.allclose(heat.reshape(expected.shape), expected, atol=1e-12)


# --- Agreement with captum.


def network(name):
    torch.manual_seed(0)
    if name == "vgg19":
        model = torchvision.models.vgg.VGG(
            torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["E"]), num_classes=6, init_weights=False
        )
        model.classifier = nn.Linear(512 * 49, 6)  # torchvision's has 120 million weights
        return model.eval()
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    return getattr(torchvision.models, name)(num_classes=6, **options).eval()


@pytest.mark.parametrize(
    ("name", "size", "convolutions"), [("vgg19", 32, 16), ("resnet18", 64, 20), ("googlenet", 64, 57)]
)
def test_grad_cam_is_captums_at_every_convolution(name, size, convolutions):
    model, x, target = network(name), images(2, size), torch.tensor([3, 1])
    mine = grad_cam(model, x, target, layers=nn.Conv2d)
    assert len(mine) == convolutions
    worst, empty = {}, []
    for layer, heat in mine.items():
        method = captum.attr.LayerGradCam(model, model.get_submodule(layer))
        reference = method.attribute(x, target, relu_attributions=True).detach()
        if reference.max() == 0:
            empty.append(layer)
            assert heat.max() == 0
            continue
        worst[layer] = float((heat - reference).abs().max() / reference.max())
    assert max(worst.values()) < 1e-5, max(worst, key=worst.get)
    assert len(empty) <= convolutions // 10  # what agrees is not merely zero


def test_all_layers_in_one_pass_are_each_by_itself():
    model, x = network("resnet18"), images(1, 48)
    together = grad_cam(model, x, 2, layers=["layer1.0.conv1", "layer3", "layer4"])
    for layer, heat in together.items():
        assert torch.allclose(grad_cam(model, x, 2, layers=layer)[layer], heat, atol=1e-6)


# --- What it costs.


class Backwards(TorchDispatchMode):
    """Which gradients (input, weight, bias) each convolution's backward is asked for."""

    def __init__(self):
        super().__init__()
        self.masks = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution_backward.default:
            self.masks.append(tuple((kwargs or {}).get("output_mask", args[-1])))
        return function(*args, **(kwargs or {}))


def masks(run):
    with Backwards() as counted:
        run()
    return counted.masks


ALL_TWENTY = [(True, False, False)] * 20


def test_grad_cam_of_the_last_layer_runs_no_convolution_backward():
    model, x = torchvision.models.resnet18(num_classes=6), images(1, 32)
    assert masks(lambda: grad_cam(model, x, 2)) == []
    assert masks(lambda: grad_cam(model, x, 2, layers="layer4")) == []
    counted = masks(lambda: model(images(2, 32)).sum().backward())  # the count sees what there is
    assert len(counted) == 20 and all(mask[1] for mask in counted)


def test_the_backward_stops_at_the_shallowest_layer_and_never_computes_a_weights_gradient():
    model, x = torchvision.models.resnet18(num_classes=6), images(1, 32)
    assert all(p.requires_grad for p in model.parameters())
    above_layer3 = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and name.startswith("layer4")]
    assert masks(lambda: grad_cam(model, x, 2, layers="layer3")) == ALL_TWENTY[: len(above_layer3)]
    assert masks(lambda: grad_cam(model, x, 2, layers=["layer4", "layer3"])) == ALL_TWENTY[: len(above_layer3)]
    assert masks(lambda: grad_cam(model, x, 2, layers="conv1")) == ALL_TWENTY[:19]
    assert masks(lambda: observe(model, x, 2, input_gradient=True)) == ALL_TWENTY
    assert masks(lambda: observe(model, x, 2, layers=nn.Conv2d, gradients=True, input_gradient=True)) == ALL_TWENTY
    assert masks(lambda: observe(model, x, 2, layers=nn.Conv2d)) == []


def test_no_graph_is_kept_of_what_lies_below_the_shallowest_layer():
    """Else a look at the last layer would take the memory of a training step."""
    model, x, traced = torchvision.models.resnet18(num_classes=6), images(1, 32), []
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *a, name=name: traced.append(name) if a[2].requires_grad else None)
    grad_cam(model, x, 2, layers="layer4.1")
    assert traced == ["avgpool", "fc"]


def test_one_forward_and_one_backward_for_all_layers(monkeypatch):
    model, x, calls = torchvision.models.resnet18(num_classes=6), images(1, 32), Counter()
    model.register_forward_hook(lambda *_: calls.update(["forward"]))
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.update(["backward"]) or grad(*a, **k))
    grad_cam(model, x, 2, layers=nn.Conv2d)
    assert calls == {"forward": 1, "backward": 1}


# --- Whatever the architecture.


def test_every_call_of_a_reused_layer():
    class Reused(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Linear(3, 2)

        def stages(self, x):
            a = self.conv(x)
            b = self.conv(a.relu())
            return a, b, self.fc(b.relu().mean((2, 3)))

        def forward(self, x):
            return self.fc(self.relu(self.conv(self.relu(self.conv(x)))).mean((2, 3)))

    torch.manual_seed(0)
    model, x = Reused(), images(2, 8)
    mine = grad_cam(model, x, 1, layers="conv")
    *stages, logits = model.stages(x)
    slopes = torch.autograd.grad(logits[:, 1].sum(), stages)
    assert list(mine) == ["conv:0", "conv:1"]
    for heat, activation, slope in zip(mine.values(), stages, slopes, strict=True):
        assert torch.allclose(heat, by_loops(activation, slope), atol=1e-5)


@pytest.mark.parametrize("row", [0, 3])
def test_the_evidence_lies_where_it_was_put_in_vision_transformers(row):
    """A head that reads one patch's token alone: Grad-CAM of the last block lights up that patch and no other."""
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3
    ).eval()
    place = 1 + row * 4 + 2
    target = lambda encoded: encoded[:, place].sum(1)  # noqa: E731
    layer = "encoder.layers.encoder_layer_0"

    def encoded(net, x):
        tokens = torch.cat([net.class_token.expand(len(x), -1, -1), net._process_input(x)], 1)
        return net.encoder.layers(net.encoder.dropout(tokens + net.encoder.pos_embedding)).pow(2)

    seen = observe(model, images(1, 64), target, layers=layer, gradients=True, forward=encoded)
    slope = seen.gradients[layer]
    assert set(slope.abs().sum(2)[0].nonzero().flatten().tolist()) == {place}
    heat = grad_cam(model, images(1, 64), target, layers=layer, forward=encoded)[layer]
    alpha = slope[0, place] / 16
    expected = (seen.activations[layer][0, 1:] @ alpha).relu().view(4, 4)
    assert torch.allclose(heat[0, 0], expected, atol=1e-6)
    assert heat.shape == (1, 1, 4, 4) and heat[0, 0, row, 2] > 0


def test_swin_and_convnext_give_square_maps_that_add_up_to_their_formula():
    torch.manual_seed(0)
    for model, layer in [
        (torchvision.models.swin_t(num_classes=4), "features.7"),
        (torchvision.models.convnext_tiny(num_classes=4), "features.7"),
    ]:
        heat = grad_cam(model, images(1, 64), 1, layers=layer)[layer]
        seen = observe(model, images(1, 64), 1, layers=layer, gradients=True)
        activation, slope = seen.activations[layer], seen.gradients[layer]
        if isinstance(model, torchvision.models.SwinTransformer):
            activation, slope = activation.permute(0, 3, 1, 2), slope.permute(0, 3, 1, 2)
        assert torch.allclose(heat, (slope.mean((2, 3), keepdim=True) * activation).sum(1, keepdim=True).relu())
        assert heat.shape == (1, 1, 2, 2)


# --- Misuse.


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.never, self.aside = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return {"logits": self.fc(self.conv(x).mean((2, 3))), "aside": self.aside(x)}


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ("never", LayerNotReachedError, r"layers \['never'\] are not called in the forward pass"),
        ("aside", ValueError, "the target does not depend on layer 'aside'"),
        ("fc", ValueError, r"the output of layer 'fc' is \[2, 2\], without locations: choose a convolution"),
        ("cnov", LayerNotFoundError, "no layer matches 'cnov'; did you mean 'conv'?"),
    ],
)
def test_a_layer_without_a_map_is_an_error_that_says_why(layers, error, message):
    with pytest.raises(error, match=message):
        grad_cam(Odd(), images(2, 8), 0, layers=layers)


def test_a_model_without_convolutions_is_an_error():
    with pytest.raises(LayerNotFoundError, match="the model has no convolution or attention"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), images(2, 8))
