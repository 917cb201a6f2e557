"""Layer-wise relevance propagation: what zennit says, what must be conserved, and what is refused."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_viz.attribution import gradient, lrp
from lightning_viz.errors import InterceptionError
from lightning_viz.hooks import channel, classes, logit
from tests.attribution.nets import KINDS, inputs, network

LABELS = torch.tensor([3, 1])


class LeNet(nn.Module):
    """The digits' network, of 28 x 28."""

    def __init__(self, bias: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2, bias=bias)
        self.conv2, self.pool = nn.Conv2d(6, 16, 5, bias=bias), nn.MaxPool2d(2)
        self.hidden, self.head = nn.Linear(400, 32, bias=bias), nn.Linear(32, 10, bias=bias)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.pool(self.relu1(self.conv1(x)))
        x = self.pool(self.relu2(self.conv2(x))).flatten(1)
        return self.head(self.relu3(self.hidden(x)))


def randomized(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3), module.running_var.uniform_(0.5, 2)
            module.running_var += module.eps
            module.eps = 0.0  # which zennit leaves in the normalization that it has folded, by 5e-6 of every value
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    if name == "lenet":
        return randomized(LeNet()), torch.randn(2, 1, 28, 28)
    options = {} if name == "resnet18" else {"init_weights": False}
    model = torchvision.models.get_model(name, weights=None, num_classes=6, **options)
    if name.startswith("vgg"):  # a smaller head
        model.avgpool = nn.AdaptiveAvgPool2d(1)
        model.classifier = nn.Sequential(nn.Linear(512, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 6))
    return randomized(model), torch.randn(2, 3, 48, 64)


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn", "resnet18", "lenet"])
def test_it_is_zennits_epsilon_plus_flat(name):
    attribution = pytest.importorskip("zennit.attribution")
    from zennit.composites import EpsilonPlusFlat
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    model, x = built(name)
    mine = lrp(model, x, LABELS)
    canonizers = {"vgg11_bn": [VGGCanonizer()], "resnet18": [ResNetCanonizer()]}.get(name, [])
    composite = EpsilonPlusFlat(canonizers=canonizers)

    def start(output):
        return output * F.one_hot(LABELS, output.shape[1])

    with attribution.Gradient(model, composite, attr_output=start) as attributor:
        _, theirs = attributor(x.clone().requires_grad_(), None)
    error = float((mine - theirs).abs().max() / theirs.abs().max())
    print(f"{name}: {error:.1e} of the maximum")  # shown by -rP
    assert error <= 1e-4


@pytest.mark.parametrize("name", ["lenet", "residual"])
@pytest.mark.parametrize("epsilon", [1e-6, 1e-2])
def test_without_biases_the_relevance_sums_to_the_target(name, epsilon):
    if name == "lenet":
        model, x = randomized(LeNet(bias=False)), torch.randn(3, 1, 28, 28)
    else:
        model, x = randomized(Residual()), torch.randn(3, 3, 12, 12)
    logits = model(x).detach()
    for target in (1, classes(0, 2), logit(1) - logit(2)):
        wanted = logits[:, 1] if target == 1 else logits[:, [0, 2]].T
        wanted = logits[:, 1] - logits[:, 2] if isinstance(target, type(logit(1) - logit(2))) else wanted
        total = lrp(model, x, target, epsilon=epsilon).flatten(-3).sum(-1)
        assert (total - wanted).abs().max() <= (0.01 if epsilon < 1e-3 else 0.2) * logits.abs().max()


class Residual(nn.Module):
    """Additions in place and not, functions in place of modules, average pooling, and a mean; no biases."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(n, 6, 3, padding=1, bias=False) for n in (3, 6, 6))
        self.head = nn.Linear(6, 4, bias=False)

    def forward(self, x):
        x = F.relu(self.conv1((x - 0.5) / 0.25))
        y = F.avg_pool2d(self.conv2(x).relu_() + x, 2)
        z = self.conv3(y).clamp(min=0)
        z += y
        return self.head(F.relu(z).mean((2, 3)) * 2)


def test_it_is_the_rules_by_loops():
    """A convolution at the input, one with z+ on values of both signs, a linear layer, all with biases."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 4, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    ).double()  # fmt: skip
    x = torch.randn(1, 2, 6, 6).double()
    values = [x]
    for layer in model:
        values.append(layer(values[-1]).detach())
    sign = lambda z: z + 1e-6 * (1 if z >= 0 else -1)  # noqa: E731
    head, conv, first = model[5], model[2], model[0]
    hidden = values[5][0]
    above = hidden * head.weight[1].detach() / sign(values[6][0, 1]) * values[6][0, 1]
    above, inner = above.view(4, 2, 2), torch.zeros(3, 4, 4).double()
    for k in range(4):
        for i in range(2):
            for j in range(2):
                patch = values[2][0, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                products = (patch * conv.weight[k].detach()).clamp(min=0)
                z = float(products.sum() + conv.bias[k].detach().clamp(min=0))
                inner[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] += products / sign(z) * above[k, i, j]
    expected = torch.zeros(2, 6, 6).double()
    for i in range(4):
        for j in range(4):
            expected[:, i : i + 3, j : j + 3] += inner[:, i, j].sum() / (first.weight[0].numel() + 1e-6)
    assert torch.allclose(lrp(model, x, 1)[0], expected, atol=1e-12)


def test_batch_normalization_is_folded_also_behind_a_layer_that_the_target_reads():
    model, x = network("convolutional").eval(), inputs("convolutional")
    folded = network("convolutional").eval()
    scale = folded.norm.weight.detach() / (folded.norm.running_var + folded.norm.eps).sqrt()
    with torch.no_grad():
        folded.conv1.weight *= scale.view(-1, 1, 1, 1)
        folded.conv1.bias.copy_(scale * (folded.conv1.bias - folded.norm.running_mean) + folded.norm.bias)
    folded.norm = nn.Identity()
    assert torch.allclose(lrp(model, x, 1), lrp(folded, x, 1), atol=1e-10)
    both = logit(1) + 0 * channel("conv1", 2)
    assert torch.allclose(lrp(model, x, both), lrp(model, x, 1), atol=1e-10)


REFUSED = {
    "tokens": "layer normalization",
    "channels-last": "layer normalization",
    "two inputs": "products of activations",
    "shared inputs": "products of activations",
}


@pytest.mark.parametrize("kind", sorted(set(KINDS) & set(REFUSED)))
def test_what_has_no_rule_is_refused_by_name(kind):
    with pytest.raises(InterceptionError, match=f"no rule for .*{REFUSED[kind]}"):
        lrp(network(kind), inputs(kind), 1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_what_escapes_the_rules_is_refused():
    x = torch.randn(2, 1, 28, 28)
    behind = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(2028, 3)).eval()
    with pytest.raises(InterceptionError, match="batch normalization that does not follow a convolution"):
        lrp(behind, x, 1)
    squashed = nn.Sequential(nn.Flatten(), nn.Linear(784, 3), nn.Softmax(1))
    with pytest.raises(InterceptionError, match="no rule for Softmax"):
        lrp(squashed, x, 1)
    traced = LeNet()
    traced.conv2 = torch.jit.trace(nn.Sequential(traced.conv2, nn.ReLU()), torch.rand(2, 6, 14, 14))
    with pytest.raises(InterceptionError, match="traced or scripted module 'conv2'"):
        lrp(traced, x, 1)
    with pytest.raises(ValueError, match="epsilon is 0"):
        lrp(LeNet(), x, 1, epsilon=0)


def test_it_takes_three_convolutions_where_the_gradient_takes_two():
    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            counts[func.name()] += func.name().startswith("aten::convolution")
            return func(*args, **(kwargs or {}))

    model, x = built("resnet18")
    for method, forwards in ((gradient, 20), (lrp, 40)):
        counts = Counter()
        with Count():
            method(model, x, LABELS)
        assert +counts == {"aten::convolution": forwards, "aten::convolution_backward": 20}
