"""The receptive field is the analytic one where there is one, and holds all that a place depends on everywhere."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lightning_viz.errors import LayerNotReachedError
from lightning_viz.hooks import Rectangle, observe, receptive_fields

CONV, POOL = "conv", "pool"


def stack(steps, activation):
    """Convolutions of 2 channels, each followed by an activation, and max-poolings: (kind, kernel, stride, ...)."""
    torch.manual_seed(0)
    layers, channels = [], 1
    for kind, kernel, stride, padding, dilation in steps:
        if kind == CONV:
            layers += [nn.Conv2d(channels, 2, kernel, stride, padding, dilation), activation()]
            channels = 2
        else:
            layers += [nn.MaxPool2d(kernel, stride, padding, dilation)]
    return nn.Sequential(*layers)


def analytic(steps, place, size):
    """From the last layer down, along one axis: the inputs under each tap, as far as they are not padding."""
    sizes = [size]
    for _, kernel, stride, padding, dilation in steps:
        sizes.append((sizes[-1] + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
    needed = {place}
    for (_, kernel, stride, padding, dilation), inputs in zip(reversed(steps), reversed(sizes[:-1]), strict=True):
        taps = {one * stride - padding + dilation * tap for one in needed for tap in range(kernel)}
        needed = taps & set(range(inputs))
    return min(needed), max(needed) + 1


STACKS = {
    "3 x 3 twice": [(CONV, 3, 1, 1, 1), (CONV, 3, 1, 1, 1)],
    "strides": [(CONV, 5, 2, 2, 1), (CONV, 3, 2, 1, 1), (CONV, 3, 1, 0, 1)],
    "dilation": [(CONV, 3, 1, 2, 2), (CONV, 3, 1, 4, 4)],
    "pooling": [(CONV, 5, 1, 0, 1), (POOL, 2, 2, 0, 1), (CONV, 5, 1, 0, 1), (POOL, 2, 2, 0, 1)],
    "overlapping pooling": [(CONV, 7, 2, 3, 1), (POOL, 3, 2, 1, 1), (CONV, 3, 1, 1, 1), (POOL, 3, 2, 1, 1)],
    "dilated pooling": [(CONV, 3, 1, 1, 1), (POOL, 2, 1, 0, 3), (CONV, 3, 1, 1, 1)],
}


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.ReLU6, nn.Hardswish, nn.Tanh])
@pytest.mark.parametrize("name", STACKS)
def test_a_plain_stacks_receptive_field_is_the_analytic_one_at_every_place(name, activation):
    steps, height, width = STACKS[name], 37, 44
    net, image = stack(steps, activation), torch.rand(1, 1, height, width)
    rows, columns = net(image).shape[2:]
    places = [(row, column) for row in range(rows) for column in (0, columns // 2, columns - 1)]
    expected = [Rectangle(*analytic(steps, y, height), *analytic(steps, x, width)) for y, x in places]
    assert receptive_fields(net, image, str(len(net) - 1), places) == expected


def test_dead_channels_and_functional_calls_make_no_difference():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.first(x)), 3, ceil_mode=True).clamp_max(9).relu_()
            return F.adaptive_max_pool2d(self.second(x), 1)

    net, image = Net(), torch.rand(1, 3, 31, 31)
    field = Rectangle(8, 19, 8, 19)  # cells 3 to 5, pixels 9 to 17, and one more on each side
    assert receptive_fields(net, image, "second", [(4, 4)]) == [field]
    with torch.no_grad():
        net.first.bias.fill_(-100)  # the ReLU is off everywhere: the plain gradient is zero
    assert receptive_fields(net, image, "second", [(4, 4)]) == [field]


def hull_of_gradient(model, layer, place, draws):
    """The hull of the plain gradient's support over several random images."""
    touched = torch.zeros(224, 224, dtype=torch.bool)
    for seed in range(draws):
        image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        kept = []
        handle = dict(model.named_modules())[layer].register_forward_hook(lambda *args: kept.append(args[2]))
        model(image)
        handle.remove()
        (gradient,) = torch.autograd.grad(
            (kept[0][0, :, place[0], place[1]] * torch.rand(kept[0].shape[1])).sum(), image
        )
        touched |= (gradient[0] != 0).any(0)
    rows, columns = touched.any(1).nonzero().flatten(), touched.any(0).nonzero().flatten()
    return Rectangle(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


@pytest.mark.parametrize(
    ("layer", "place", "side"),
    [
        ("conv1", (30, 60), 7),
        ("layer1.1", (20, 25), 43),
        ("layer2.1", (14, 12), 99),
        ("layer2.1", (0, 27), None),
        ("layer3.1", (7, 7), 211),
        ("layer4.1", (3, 3), None),
    ],
)
def test_resnets_receptive_field_is_where_the_gradient_is(layer, place, side):
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    (found,) = receptive_fields(model, torch.rand(1, 3, 224, 224), layer, [place])
    assert found == hull_of_gradient(model, layer, place, draws=3)
    if side is not None:
        assert (found.bottom - found.top, found.right - found.left) == (side, side)


def small_vit():
    options = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16, "num_classes": 3}
    return torchvision.models.VisionTransformer(image_size=32, patch_size=8, **options)


@pytest.mark.parametrize(
    ("build", "layer", "place", "expected"),
    [
        (torchvision.models.mobilenet_v3_small, "features.0", (5, 5), (9, 12, 9, 12)),
        (torchvision.models.mobilenet_v3_small, "features.1", (5, 5), (0, 32, 0, 32)),  # squeeze-and-excitation
        (small_vit, "conv_proj", (1, 3), (8, 16, 24, 32)),
        (small_vit, "encoder.layers.encoder_layer_0", (1, 3), (0, 32, 0, 32)),  # attention; tokens back on the map
        (torchvision.models.resnet18, "fc", (0, 0), (0, 32, 0, 32)),
    ],
)
def test_what_sees_everything_has_the_whole_image(build, layer, place, expected):
    torch.manual_seed(0)
    found = receptive_fields(build().eval(), torch.rand(1, 3, 32, 32), layer, [place])
    assert found == [Rectangle(*expected)]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.scale = nn.Linear(4, 2)

    def forward(self, image, context):
        return self.conv(self.conv(image) * self.scale(context)[:, :, None, None])


def test_each_call_of_a_reused_layer_has_its_own_and_other_inputs_go_along():
    inputs = {"context": torch.rand(5, 4), "image": torch.rand(5, 2, 9, 9)}
    model = Twice()
    assert receptive_fields(model, inputs, "conv:0", [(4, 4)]) == [Rectangle(3, 6, 3, 6)]
    assert receptive_fields(model, inputs, "conv:1", [(4, 4), (0, 8)]) == [Rectangle(2, 7, 2, 7), Rectangle(0, 3, 6, 9)]
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


def test_what_cannot_be_answered_is_said():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    net.unused = nn.ReLU()
    net.forward = lambda x: net[1](net[0](x))
    image = torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"places \[\(6, 0\)\] are outside the maps of '0', which are 6 x 6"):
        receptive_fields(net, image, "0", [(0, 0), (6, 0)])
    with pytest.raises(LayerNotReachedError, match="'unused' is not called"):
        receptive_fields(net, image, "unused", [(0, 0)])
    with pytest.raises(ValueError, match="none of the inputs is "):
        receptive_fields(nn.Sequential(nn.Linear(4, 2)), torch.rand(3, 4), "0", [(0, 0)])


def test_where_no_gradient_leads_to_the_image_there_is_no_field():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3))
    net.forward = lambda x: net[1](net[0](x).round().detach())
    assert receptive_fields(net, torch.rand(1, 1, 8, 8), "1", [(0, 0), (2, 2)]) == [None, None]
    assert receptive_fields(net, torch.rand(1, 1, 8, 8), "0", [(0, 0)]) == [Rectangle(0, 3, 0, 3)]


def test_it_works_in_inference_mode_and_finds_the_same_for_many_places_as_for_one():
    torch.manual_seed(0)
    net, image = stack(STACKS["overlapping pooling"], nn.ReLU), torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        maps = observe(net, image, layers="5").activations["5"]
        places = [(y, x) for y in range(maps.shape[2]) for x in range(maps.shape[3])]
        together = receptive_fields(net, image, "5", places)
    assert together == [receptive_fields(net, image, "5", [place])[0] for place in places]
