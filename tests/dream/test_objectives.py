"""Every objective against activations taken by a plain forward hook; the algebra; a batch against single runs."""

import copy
import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from lightning_viz.dream import (
    direction,
    diversity,
    edge_energy,
    fourier,
    gram,
    jitter,
    layer,
    match,
    maximize,
    pad,
    pixels,
)
from lightning_viz.hooks import FunctionTarget, as_target, channel, classes, logit, maximum, region, unit
from tests.dream.conftest import digits  # noqa: F401  # a fixture

SHAPE = (3, 11, 14)


class Net(nn.Module):
    """Two convolutions, one ReLU called after each, a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 6, 3, stride=2)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(6, 4)

    def forward(self, x):
        x = self.relu(self.conv2(self.relu(self.conv1(x))))
        return self.head(x.mean((2, 3)))


class ChannelsLast(nn.Module):
    """Maps [N, H, W, K] inside, as Swin's; H is not K."""

    def __init__(self):
        super().__init__()
        self.conv, self.mix, self.head = nn.Conv2d(3, 4, 2, stride=2), nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.mix(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))


def built(kind, *arguments, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(*arguments, **options).eval()


def transformer(side):
    """Patches of 8 x 8 pixels in two layers."""
    sizes = {"image_size": side, "patch_size": 8, "hidden_dim": 16, "mlp_dim": 32, "num_classes": 5}
    return built(VisionTransformer, num_layers=2, num_heads=2, **sizes)


@pytest.fixture(scope="module")
def net():
    return built(Net)


def starts(count, shape=SHAPE):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def climbed(model, objectives, start, **options):
    """The objectives of given images as `maximize` has them, without a step, and what the model was given."""
    options = {"steps": 0, "progress": False, **options}
    image = pixels(start.shape[1:], start=start)
    dream = maximize(model, objectives, image=image, **options)
    assert (dream.images == start).all()
    return dream.values, dream.inputs


def copied(output):
    return output.clone() if isinstance(output, Tensor) else output


def hooked(model, inputs):
    """Output of every call of every layer, by names like those of the package; and the model's output."""
    calls, handles = {}, []
    for name, module in model.named_modules():
        handles.append(
            module.register_forward_hook(lambda m, i, o, name=name: calls.setdefault(name, []).append(copied(o)))
        )
    with torch.no_grad():
        outputs = model(inputs)
    for handle in handles:
        handle.remove()
    seen = {name: one[0] for name, one in calls.items() if len(one) == 1}
    return seen | {f"{name}:{i}": o for name, one in calls.items() if len(one) > 1 for i, o in enumerate(one)}, outputs


VECTOR = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0, -1.0])


def style(x):
    """Gram matrices of Gatys, one sample at a time, by their sums."""
    rows = x.flatten(2)
    return torch.stack([torch.stack([torch.stack([(a * b).sum() for b in one]) for a in one]) for one in rows])


def gatys(x, other):
    places, channels = x[0, 0].numel(), x.shape[1]
    loss = (style(x) - style(other)).square().sum((1, 2)) / (4 * channels**2 * places**2)
    return -loss


def unlike(x):
    flat = style(x).flatten(1)
    cosines = torch.stack([torch.stack([torch.cosine_similarity(a, b, dim=0) for b in flat]) for a in flat])
    return -torch.stack([torch.cat([row[:i], row[i + 1 :]]).mean() for i, row in enumerate(cosines)])


WANTED = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(2))
DIRECT = {
    "unit at a place": (unit("conv2", (3, 1, 4)), lambda seen, out: seen["conv2"][:, 3, 1, 4]),
    "unit in the middle": (unit("conv2", 3), lambda seen, out: seen["conv2"][:, 3, 2, 2]),
    "unit of a vector": (unit("head", 2), lambda seen, out: seen["head"][:, 2]),
    "unit of a call": (unit("relu:1", 3), lambda seen, out: seen["relu:1"][:, 3, 2, 2]),
    "channel": (channel("conv1", 4), lambda seen, out: seen["conv1"][:, 4].sum((1, 2))),
    "channel of a vector": (channel("head", 1), lambda seen, out: seen["head"][:, 1]),
    "channel of the first call": (channel("relu:0", 4), lambda seen, out: seen["relu:0"][:, 4].sum((1, 2))),
    "channel of the second call": (channel("relu:1", 4), lambda seen, out: seen["relu:1"][:, 4].sum((1, 2))),
    "logit": (logit(3), lambda seen, out: out[:, 3]),
    "layer": (layer("conv2"), lambda seen, out: seen["conv2"].pow(2).sum((1, 2, 3))),
    "layer of a call": (layer("relu:0"), lambda seen, out: seen["relu:0"].pow(2).sum((1, 2, 3))),
    "direction": (
        direction("conv2", VECTOR),
        lambda seen, out: sum(v * seen["conv2"][:, k].sum((1, 2)) for k, v in enumerate(VECTOR)),
    ),
    "direction in a vector": (direction("head", VECTOR[:4]), lambda seen, out: seen["head"] @ VECTOR[:4]),
    "match": (
        match("conv2", WANTED),
        lambda seen, out: -(seen["conv2"] - WANTED).pow(2).sum((1, 2, 3)) / WANTED.pow(2).sum(),
    ),
    "match of one sample": (
        match("head", VECTOR[None, :4]),
        lambda seen, out: -(seen["head"] - VECTOR[:4]).pow(2).sum(1) / VECTOR[:4].pow(2).sum(),
    ),
    "style": (gram("conv2", WANTED), lambda seen, out: gatys(seen["conv2"], WANTED[None])),
    "any target: a maximum": (
        maximum("conv1", 2),
        lambda seen, out: seen["conv1"][:, 2].flatten(1).max(1).values,
    ),
    "any target: a function": (
        as_target(lambda out: out.square().sum(1), name="energy"),
        lambda seen, out: out.square().sum(1),
    ),
}


@pytest.mark.parametrize("name", DIRECT)
def test_an_objective_is_what_a_plain_hook_shows(name, net):
    asked, direct = DIRECT[name]
    for image in starts(3):
        (value,), inputs = climbed(net, asked, image[None])
        torch.testing.assert_close(value, direct(*hooked(net, inputs))[0], rtol=1e-5, atol=1e-5)


def test_what_matches_has_nothing_left_to_climb(net):
    _, inputs = climbed(net, layer("conv2"), starts(1))
    seen, _ = hooked(net, inputs)
    asked = [match("conv2", seen["conv2"]), match("conv2", 0 * seen["conv2"] + 1e9), gram("conv2", seen["conv2"])]
    (same, zero, style_), _ = climbed(net, asked, starts(1).expand(3, -1, -1, -1))
    assert same.abs() < 1e-12
    assert zero == pytest.approx(-1)
    assert style_.abs() < 1e-12


def test_a_style_may_come_from_an_image_of_another_size(net):
    tiled = torch.randn(1, 6, 2, 3, generator=torch.Generator().manual_seed(0)).repeat(1, 1, 2, 2)
    (once, twice), _ = climbed(net, [gram("conv2", tiled[..., :2, :3]), gram("conv2", tiled)], starts(1))
    assert once == pytest.approx(twice.item())


def test_diversity_compares_the_copies_of_each_objective(net):
    start = starts(6)
    values, inputs = climbed(net, [diversity("conv2"), diversity("conv1")], start, copies=3)
    torch.testing.assert_close(values[:3], unlike(hooked(net, inputs[:3])[0]["conv2"]))
    torch.testing.assert_close(values[3:], unlike(hooked(net, inputs[3:])[0]["conv1"]))
    with pytest.raises(ValueError, match=r"diversity\('conv2'\) compares the copies .* copies=2 or more"):
        climbed(net, diversity("conv2"), start[:1])


def test_diversity_makes_the_copies_differ(net):
    options = {"image": SHAPE, "steps": 30, "copies": 3, "progress": False}
    alike = maximize(net, channel("conv2", 1), **options).inputs
    apart = maximize(net, channel("conv2", 1) + 50 * diversity("conv2"), **options).inputs
    assert unlike(hooked(net, apart)[0]["conv2"]).mean() > unlike(hooked(net, alike)[0]["conv2"]).mean() + 0.02


def test_the_weight_of_diversity_is_found_whatever_the_objectives_scale(digits):  # noqa: F811
    shape, net = digits.images.shape[1:], digits.model
    options = {"image": fourier(shape), "bounded": True, "pixel_space": digits.pixel_space, "copies": 2, "steps": 40}
    asked = [channel("conv2", 1), channel("conv3", 3)]
    alike = maximize(net, asked, progress=False, **options)
    found = [
        maximize(net, [c * one for one in asked], diverse="conv2", progress=False, **options) for c in (1e-3, 1, 1e3)
    ]
    assert found[1].names == ("1 * conv2 channel 1",) * 2 + ("1 * conv3 channel 3",) * 2  # values are their own
    for one, scale in zip(found, (1e-3, 1, 1e3), strict=True):
        for objective in (slice(0, 2), slice(2, 4)):
            before, after = (unlike(hooked(net, of.inputs[objective])[0]["conv2"]).mean() for of in (alike, one))
            assert after > before + 0.1
            before, after = ((of.values - of.curve[:, 0])[objective].mean() for of in (alike, one))
            assert 0.5 * before < after / scale


def test_diversity_of_given_starts_is_that_of_its_formula(net):
    start, options = starts(4), {"steps": 1, "optimizer": partial(torch.optim.SGD, lr=1e-3), "progress": False}
    asked = [channel("conv2", 1), channel("conv2", 4)]
    found = maximize(net, asked, image=pixels(SHAPE, start=start), copies=2, diverse="conv1", **options)
    alone = maximize(net, asked, image=pixels(SHAPE, start=start[::2]), **options)
    gains = (alone.values - alone.curve[:, 0]).tolist()
    weighted = [one + gain / 2 * diversity("conv1") for one, gain in zip(asked, gains, strict=True)]
    expected = maximize(net, weighted, image=pixels(SHAPE, start=start), copies=2, **options)
    torch.testing.assert_close(found.images, expected.images)
    with pytest.raises(ValueError, match=r"diverse='conv1' compares the copies .* copies=2 or more"):
        maximize(net, asked, image=SHAPE, diverse="conv1", **options)


@pytest.mark.parametrize(
    "layer", ["encoder_layer_1", "encoder_layer_0.mlp", "encoder_layer_0.mlp.0", "encoder_layer_0.mlp.1"]
)
@pytest.mark.parametrize("word", ["[3]", "[3,1,2]", ""])
def test_a_vision_transformers_units_dream_as_a_convolutions_do(layer, word):
    vit = transformer(24)
    name = f"encoder.layers.{layer}"
    target = f"{name}{word}" if word else f"max({name})"
    found = maximize(vit, target, image=(3, 24, 24), steps=5, progress=False, frames=0)
    output = hooked(vit, found.inputs)[0][name][0]  # [1 + 9, K]
    patches = output[1:].view(3, 3, -1)
    expected = {"[3]": patches[..., 3].sum(), "[3,1,2]": patches[1, 2, 3], "": output.max()}[word]
    torch.testing.assert_close(found.values[0], expected)
    assert found.values[0] > found.curve[0, 0]


def test_a_transformers_channels_are_those_of_its_patches():
    vit = transformer(32)
    with torch.no_grad():
        vit.heads.head.weight.normal_()
    name = "encoder.layers.encoder_layer_0"
    vector = torch.linspace(-1, 1, 16)
    asked = [
        unit(name, (3, 1, 2)),
        unit(name, 3),
        channel(name, 7),
        direction(name, vector),
        layer(name),
        logit(2),
        unit(f"{name}.ln_1", (5, 3, 0)),
    ]
    start = starts(1, (3, 32, 32)).expand(len(asked), -1, -1, -1)
    values, inputs = climbed(vit, asked, start)
    seen, outputs = hooked(vit, inputs[:1])
    tokens, patches = seen[name][0], seen[name][0, 1:]
    expected = [
        patches[1 * 4 + 2, 3],
        patches[2 * 4 + 2, 3],
        patches[:, 7].sum(),
        (patches @ vector).sum(),
        tokens.square().sum(),
        outputs[0, 2],
        seen[f"{name}.ln_1"][0, 1 + 3 * 4, 5],
    ]
    torch.testing.assert_close(values, torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_channels_may_come_last():
    model, vector = built(ChannelsLast), VECTOR
    asked = [unit("mix", 5), unit("mix", (5, 1, 6)), channel("mix", 5), direction("mix", vector)]
    values, inputs = climbed(model, asked, starts(1, (3, 8, 14)).expand(4, -1, -1, -1))
    mixed = hooked(model, inputs[:1])[0]["mix"][0]  # [4, 7, 6]
    expected = [mixed[2, 3, 5], mixed[1, 6, 5], mixed[..., 5].sum(), (mixed @ vector).sum()]
    torch.testing.assert_close(values, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_a_dense_models_class_sums_over_its_places_or_a_region():
    dense = built(nn.Conv2d, 3, 4, 3, padding=1)
    mask = torch.zeros(11, 14)
    mask[2:5, 3:9] = 1
    asked = [logit(2), region(mask, 2)]
    values, inputs = climbed(dense, asked, starts(1).expand(2, -1, -1, -1))
    maps = hooked(dense, inputs[:1])[1][0, 2]
    torch.testing.assert_close(values, torch.stack([maps.sum(), maps[2:5, 3:9].sum()]), rtol=1e-4, atol=1e-4)


A, B, C = channel("conv1", 1), logit(3), unit("conv2", (0, 1, 2))
ALGEBRA = [
    (A + B, lambda a, b, c: a + b, "conv1 channel 1 + logit 3"),
    (A - B, lambda a, b, c: a - b, "conv1 channel 1 - logit 3"),
    (A - 0.1 * B, lambda a, b, c: a - 0.1 * b, "conv1 channel 1 - 0.1 * logit 3"),
    (B * 2, lambda a, b, c: 2 * b, "2 * logit 3"),
    (-A, lambda a, b, c: -a, "-conv1 channel 1"),
    (-(A + B), lambda a, b, c: -a - b, "-(conv1 channel 1 + logit 3)"),
    (A - (B + C), lambda a, b, c: a - b - c, "conv1 channel 1 - (logit 3 + conv2 unit 0 at (1, 2))"),
    (A + (B - C), lambda a, b, c: a + b - c, "conv1 channel 1 + logit 3 - conv2 unit 0 at (1, 2)"),
    (3 * (A - B) + C, lambda a, b, c: 3 * (a - b) + c, "3 * (conv1 channel 1 - logit 3) + conv2 unit 0 at (1, 2)"),
    (A - (-B), lambda a, b, c: a + b, "conv1 channel 1 - -logit 3"),
    (2 * (3 * A), lambda a, b, c: 6 * a, "2 * 3 * conv1 channel 1"),
    (A + 3, lambda a, b, c: a + 3, "conv1 channel 1 + 3"),
    (3 + A, lambda a, b, c: a + 3, "3 + conv1 channel 1"),
    (A - 3, lambda a, b, c: a - 3, "conv1 channel 1 - 3"),
    (3 - (A + B), lambda a, b, c: 3 - a - b, "3 - (conv1 channel 1 + logit 3)"),
    (2 * (A + 3), lambda a, b, c: 2 * a + 6, "2 * (conv1 channel 1 + 3)"),
    (B / 2, lambda a, b, c: b / 2, "0.5 * logit 3"),
    (B / 2 + 1.0, lambda a, b, c: b / 2 + 1, "0.5 * logit 3 + 1"),
    ((A - B) / np.float64(4), lambda a, b, c: (a - b) / 4, "0.25 * (conv1 channel 1 - logit 3)"),
    (torch.tensor(2.0) * A + torch.tensor([1]), lambda a, b, c: 2 * a + 1, "2 * conv1 channel 1 + 1"),
    (np.float64(2) * A, lambda a, b, c: 2 * a, "2 * conv1 channel 1"),
    (np.float32(2) + A, lambda a, b, c: 2 + a, "2 + conv1 channel 1"),
    (sum([A, B, C]), lambda a, b, c: a + b + c, "conv1 channel 1 + logit 3 + conv2 unit 0 at (1, 2)"),
]


@pytest.mark.parametrize(("combined", "formula", "name"), ALGEBRA, ids=[name for _, _, name in ALGEBRA])
def test_objectives_add_subtract_and_scale_and_read_so(combined, formula, name, net):
    start = starts(1)
    (a, b, c, value), _ = climbed(net, [A, B, C, combined], start.expand(4, -1, -1, -1))
    torch.testing.assert_close(value, formula(a, b, c), rtol=1e-5, atol=1e-5)
    assert combined.name == repr(combined) == name


def test_a_combination_reads_what_its_parts_read():
    assert (A + C).layers == ("conv1", "conv2")
    assert (A + A).layers == ("conv1",)
    assert [(A + C).outputs, (A - B).outputs, (2 * B).outputs] == [False, True, True]


def test_a_users_own_objective_is_a_function(net):
    mine = FunctionTarget(
        "contrast", lambda seen: seen["conv1"].flatten(1).std(1) + seen.maps("head")[:, 0, 0, 0], ("conv1", "head")
    )
    (value, double), inputs = climbed(net, [mine, 2 * mine], starts(1).expand(2, -1, -1, -1))
    seen, _ = hooked(net, inputs[:1])
    torch.testing.assert_close(value, seen["conv1"].std() + seen["head"][0, 0])
    assert double == pytest.approx(2 * value.item())
    dream = maximize(net, mine, image=SHAPE, steps=20, progress=False)
    assert dream.names == ("contrast",)
    assert dream.values > dream.curve[:, 0]


@pytest.mark.parametrize(
    "make", [layer, partial(channel, index=0), partial(unit, index=0), lambda n: unit(n, (0, 1, 1))]
)
def test_a_layer_called_twice_wants_its_call_named(make, net):
    def said(name):
        with pytest.raises(ValueError) as error:
            climbed(net, make(name), starts(1))
        return str(error.value)

    assert said("relu") == "layer 'relu' is called 2 times: name the call, one of ['relu:0', 'relu:1']"
    assert said("relu:2") == "layer 'relu' is called 2 times: 'relu:2' is none of ['relu:0', 'relu:1']"
    assert said("conv1:1") == "layer 'conv1' is called once: 'conv1:1' is none of ['conv1']"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (channel("conv1", 5), "channel 5 is out of range: the model has 5 channels in layer 'conv1'"),
        (channel("conv1", -1), "channel -1 is out of range: the model has 5 channels in layer 'conv1'"),
        (logit(4), "target class 4 is out of range: the model has 4 outputs"),
        (unit("conv2", 6), "unit [6, 2, 2] is out of range: in layer 'conv2' the output is [6, 4, 5]"),
        (unit("conv2", (0, 4, 0)), "unit [0, 4, 0] is out of range: in layer 'conv2' the output is [6, 4, 5]"),
        (unit("head", 4), "unit 4 is out of range: the model has 4 units in layer 'head'"),
        (direction("conv1", VECTOR), "the direction is [6]: layer 'conv1' has 5 channels"),
        (match("conv2", WANTED[:, 1:]), "the activation to match in layer 'conv2' is [6, 3, 5]: give [6, 4, 5]"),
        (gram("conv1", WANTED), "the style's activation of layer 'conv1' is [6, 4, 5]: give [5, H, W]"),
    ],
    ids=str,
)
def test_what_does_not_exist_is_an_error_that_says_what_does(asked, message, net):
    with pytest.raises(ValueError, match=re.escape(message)):
        climbed(net, asked, starts(1))


def test_what_is_given_in_inference_mode_serves(net):
    with torch.inference_mode():
        vector, wanted = VECTOR.clone(), WANTED.clone()
    asked = [direction("conv2", vector), match("conv2", wanted), gram("conv2", wanted)]
    dream = maximize(net, asked, image=SHAPE, steps=3, progress=False)
    assert (dream.values > dream.curve[:, 0]).all()


@pytest.mark.parametrize("whole", [False, True], ids=["ends early", "goes to the end"])
@pytest.mark.parametrize("options", ["plain", "all"])
def test_a_batch_of_objectives_is_as_many_runs(options, whole, net):
    asked = [channel("conv1", 2), unit("conv2", 3), channel("relu:0", 1) - 0.5 * unit("conv2", 1)]
    asked += [logit(0), logit(2) - logit(1)] * whole
    chosen = {"steps": 8, "seed": 5, "image": SHAPE, "progress": False}
    if options == "all":
        chosen |= {"priors": {edge_energy: 0.01}, "transforms": [pad(2), jitter(2)], "small_gradients": 20.0}
        chosen |= {"copies": 2, "update_steps": "contribution"}
    together = maximize(net, asked, **chosen)
    alone = [maximize(net, one, **chosen) for one in asked]
    assert together.names == sum((one.names for one in alone), ())
    assert together.seeds == sum((one.seeds for one in alone), ())
    torch.testing.assert_close(together.values, torch.cat([one.values for one in alone]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.images, torch.cat([one.images for one in alone]), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(together.curve, torch.cat([one.curve for one in alone]), rtol=1e-4, atol=1e-5)


def test_outputs_that_are_not_one_for_each_image_are_told():
    for model, asked, what in [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(0)), logit(0), r"the model puts out \[432\] for 1 images"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(0, 1)),
            layer("1"),
            r"layer '1' puts out \[4, 9, 12\] for 1 images",
        ),
    ]:
        with pytest.raises(ValueError, match=what + ": not one for each"):
            climbed(model.eval(), asked, starts(1))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_sums_over_maps_go_beyond_what_half_precision_holds(kind):
    model, start = built(lambda: nn.Sequential(nn.Conv2d(3, 5, 3))), starts(1, (3, 40, 40))
    with torch.no_grad():
        model[0].weight.mul_(20)
    style = 3 * torch.ones(5, 8, 8)
    asked = [layer("0"), gram("0", style), channel("0", 0)]
    expected, _ = climbed(model, asked, start.repeat(3, 1, 1, 1))
    values, _ = climbed(copy.deepcopy(model).to(kind), asked, start.repeat(3, 1, 1, 1))
    assert expected[0] > 65_504
    torch.testing.assert_close(values, expected, rtol=0.05, atol=0.01 * expected[0].sqrt().item())


class Row(nn.Module):
    """A convolution over a row of places, and a linear layer of each place."""

    def __init__(self):
        super().__init__()
        self.conv, self.mix = nn.Conv1d(3, 4, 3), nn.Linear(4, 6)

    def forward(self, x):
        return self.mix(self.conv(x.flatten(2)).transpose(1, 2)).mean(1)


def test_places_in_a_row_are_places():
    model, start, v = built(Row), starts(2, (3, 11, 15)), torch.tensor([1.0, -2.0, 3.0, 0.5, 0.0, 1.0])
    values, inputs = climbed(model, [direction("conv", v[:4]), direction("mix", v)], start)
    seen, _ = hooked(model, inputs)
    conv, mix = seen["conv"], seen["mix"]
    torch.testing.assert_close(values[0], torch.einsum("kp,k->", conv[0], v[:4]))
    torch.testing.assert_close(values[1], torch.einsum("pk,k->", mix[1], v))
    wanted = torch.rand(4, 1, 7, generator=torch.Generator().manual_seed(3))
    values, _ = climbed(model, gram("conv", wanted), start[:1])
    grams = [rows @ rows.T / rows.shape[1] for rows in (conv[0], wanted[:, 0])]
    torch.testing.assert_close(-values[0], (grams[0] - grams[1]).square().sum() / (4 * 16))


def test_copies_that_excite_nothing_are_neither_alike_nor_unlike():
    model = built(lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.Threshold(1e9, 0.0)))
    values, _ = climbed(model, diversity("1"), starts(3), copies=3)
    assert values.tolist() == [0.0, 0.0, 0.0]


def test_an_objective_of_ones_own_that_is_written_wrongly_is_told_how(net):
    mean = FunctionTarget("mean of conv1", lambda seen: seen["conv1"].mean(), ("conv1",))
    with pytest.raises(ValueError, match=r"target function 'mean of conv1' returned a single number"):
        climbed(net, mean, starts(1))
    with pytest.raises(ValueError, match=r"'logit 0, 1' is \[2, 1\] for 1 images"):
        climbed(net, classes(0, 1), starts(1))
    with pytest.raises(ValueError, match=r"'conv1' is read but not announced: .* layers=\('conv1',\)"):
        climbed(net, FunctionTarget("mean", lambda seen: seen["conv1"].mean((1, 2, 3))), starts(1))
    with pytest.raises(ValueError, match="'conv1' is nothing but 0"):
        match("conv1", torch.zeros(5, 9, 12))


def test_a_sum_of_a_list_is_one_objective():
    assert repr(sum(channel("conv", index) for index in range(3))) == "conv channel 0 + conv channel 1 + conv channel 2"
    for wrong in ("conv", None, True, [1], channel("conv", 1) * 0):
        with pytest.raises(TypeError):
            wrong * channel("conv", 0)
    with pytest.raises(TypeError):
        channel("conv", 0) + "conv"


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        (lambda: B * A, TypeError, "logit 3 times a target: targets add, subtract and scale"),
        (lambda: B / A, TypeError, "logit 3 over a target: .* FunctionTarget"),
        (lambda: 1 / B, TypeError, "logit 3 as a divisor"),
        (lambda: B**2, TypeError, "logit 3 to a power"),
        (lambda: B / 0, ValueError, "logit 3 / 0"),
        (lambda: B * float("nan"), ValueError, "nan: give a finite number"),
        (lambda: B + np.inf, ValueError, "inf: give a finite number"),
        (lambda: torch.tensor(torch.inf) - B, ValueError, "inf: give a finite number"),
    ],
)
def test_what_is_no_sum_of_multiples_is_refused_with_the_reason(asked, error, words):
    with pytest.raises(error, match=words):
        asked()
