"""Dreams of what people train, wherever they are asked for: the model is left as found, trouble is told at once."""

import copy
import re
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import VisionTransformer, resnet18

from lightning_viz.dream import cppn, edge_energy, fool, fourier, jitter, layer, maximize, pad, pixels, rotate, scale
from lightning_viz.errors import DreamWarning, LayerNotFoundError, LayerNotReachedError
from lightning_viz.hooks import FunctionTarget, channel, logit, unit
from lightning_viz.pixels import PixelSpace
from tests.attribution.forms import FORMS, build
from tests.hooks import test_model_state as guarded

dream = partial(maximize, progress=False)
SIZES = [(1, 28, 28), (3, 17, 23), (6, 64, 64)]


class Functional(nn.Module):
    """Convolutions, ReLUs and poolings without a module of their own; it writes to its input."""

    def __init__(self, channels):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu_(self.conv1(x.sub_(0.1)))
        x = F.max_pool2d(x, 2)
        return self.head(F.relu(self.conv2(x)).mean((2, 3)))


def built(kind, *arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(*arguments).eval()


def rises(found):
    return bool((found.values > found.curve[:, 0]).all())


# --- What people train.


@pytest.mark.parametrize("kind", [pixels, fourier, cppn])
@pytest.mark.parametrize("pixel_space", [PixelSpace(), PixelSpace((0.4,), (0.2,))], ids=["pixels", "normalized"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_images_of_every_size_climb_in_a_functional_net_that_writes_to_its_input(size, pixel_space, kind):
    model = built(Functional, size[0])
    asked = [channel("conv1", 1), channel("conv2", 2), logit(3)]
    found = dream(model, asked, image=kind(size), pixel_space=pixel_space, steps=12, lr=0.02)
    assert rises(found)
    assert found.inputs.shape == (3, *size)
    outputs = model(found.inputs.clone())
    torch.testing.assert_close(found.values[2], outputs[2, 3].detach(), rtol=1e-4, atol=1e-5)
    expected = pixel_space.to_inputs(pixel_space.centered().into(found.images, PixelSpace()))
    torch.testing.assert_close(found.inputs, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_write_a_relu_dreams_what_autograd_climbs(form):
    size = (3, 10, 12)
    plain, model = build(form, torch.zeros(1, *size))
    found = dream(model, [channel("conv2", 1), logit(2)], image=size, pixel_space=PixelSpace((0.4,), (0.2,)), steps=4)
    x = (torch.randn(size, generator=torch.Generator().manual_seed(0)) * 0.01)[None].requires_grad_()
    ascent = torch.optim.Adam([x], 0.1)
    for number in range(4):
        value = plain(x.clone())[:, 2].sum()
        torch.testing.assert_close(found.curve[1, number], value.detach(), rtol=1e-4, atol=1e-4)
        x.grad = torch.autograd.grad(-value, x)[0]
        ascent.step()
    torch.testing.assert_close(found.images[1:], x.detach(), rtol=1e-3, atol=1e-3)
    assert rises(found)


@pytest.mark.parametrize("whole", [True, False])
def test_double_precision(whole):
    model = built(Functional, 3).double()
    found = dream(model, logit(1) if whole else channel("conv2", 1), image=(3, 17, 23), steps=5)
    assert found.images.dtype == found.values.dtype == torch.float64
    single = dream(model.float(), logit(1) if whole else channel("conv2", 1), image=(3, 17, 23), steps=5)
    torch.testing.assert_close(found.images.float(), single.images, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [pixels, fourier, cppn])
def test_a_model_in_half_precision_dreams_in_single(kind):
    model = built(nn.Conv2d, 3, 4, 3)
    single = dream(model, logit(2), image=kind((3, 9, 11)), steps=20)
    found = dream(model.bfloat16(), logit(2), image=kind((3, 9, 11)), steps=20, small_gradients=5)
    assert found.images.dtype == found.values.dtype == torch.float32
    assert found.inputs.dtype == torch.bfloat16
    assert found.values.item() == pytest.approx(single.values.item(), rel=0.1)


def test_under_autocast():
    model, options = built(Functional, 3), {"image": (3, 17, 23), "steps": 10}
    single = dream(model, logit(1), **options)
    with torch.autocast("cpu", torch.bfloat16):
        found = dream(model, logit(1), **options)
    assert found.images.dtype == found.values.dtype == torch.float32
    assert found.values.item() == pytest.approx(single.values.item(), rel=0.1)
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_checkpointed_blocks():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3))
            self.checkpointed = True

        def forward(self, x):
            return checkpoint(self.block, x, use_reentrant=False) if self.checkpointed else self.block(x)

    model, asked = built(Checkpointed), [channel("block.0", 1), channel("block.2", 1), channel("block.1", 1)]
    found = [dream(model, asked[:1], image=(3, 9, 9), steps=5), dream(model, asked, image=(3, 9, 9), steps=5)]
    model.checkpointed = False
    for one in found:
        plain = dream(model, asked[: len(one.names)], image=(3, 9, 9), steps=5)
        torch.testing.assert_close(one.images, plain.images, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("how", ["whole", "method"])
def test_compiled_modules_dream_eagerly_and_stay_compiled(how):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model, x = built(Functional, 3), torch.randn(1, 3, 9, 11)
    expected = dream(model, [channel("conv2", 1), logit(1)], image=(3, 9, 11), steps=3)
    called = torch.compile(model, backend=backend) if how == "whole" else model
    if how == "method":
        model.compile(backend=backend)
    called(x.clone())
    compiled = len(graphs)
    assert compiled > 0
    found = dream(called, [channel("conv2", 1), logit(1)], image=(3, 9, 11), steps=3)
    assert torch.equal(found.images, expected.images)
    called(x.clone())
    assert len(graphs) == compiled
    torch._dynamo.reset()


def test_a_lightning_module_whose_forward_logs():
    from lightning.pytorch import LightningModule

    class Logging(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = built(Functional, 3)

        def forward(self, x):
            out = self.net(x)
            self.log("mean", out.mean())
            self.log_dict({"max": out.max()})
            return out

    model = Logging().eval()
    assert rises(dream(model, [logit(1), channel("net.conv1", 0)], image=(3, 9, 9), steps=3))
    assert "log" not in vars(model)


def test_residual_nets_and_transformers():
    assert rises(dream(built(resnet18), [channel("layer1.0.conv1", 3), unit("layer2", 5)], image=(3, 32, 40), steps=4))
    vit = built(partial(VisionTransformer, 32, 8, 2, 2, 16, 32))
    assert rises(dream(vit, [channel("encoder.layers.encoder_layer_1", 3)], image=(3, 32, 32), steps=4))


# --- Wherever it is asked for, and what it leaves.


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", [pixels, fourier, cppn])
def test_inside_no_grad_and_inference_mode(mode, kind):
    model, options = built(Functional, 3), {"image": kind((3, 9, 11)), "steps": 4, "bounded": True}
    expected = dream(model, [channel("conv2", 1), logit(1)], **options)
    with mode():
        found = dream(model, [channel("conv2", 1), logit(1)], **options)
        start = found.images[0].clone()
        again = dream(model, logit(1), image=pixels((3, 9, 11), start=start), bounded=True, steps=3)
    assert torch.equal(found.images, expected.images)
    assert not found.images.is_inference()
    assert rises(again)


@pytest.mark.parametrize("raises", [False, True])
def test_the_model_is_left_bit_for_bit_as_found(raises):
    def broken(seen):
        raise KeyError("broken")

    torch.manual_seed(0)
    net = guarded.Net()
    before = guarded.state(net)
    asked = [logit(1), FunctionTarget("odd", broken if raises else lambda seen: seen["inner"].sum(1), ("inner",))]
    options = {"image": (1, 2, 2), "steps": 3, "forward": lambda model, images: model(images.flatten(1))}
    for objectives in (asked, asked[1:]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DreamWarning)
            if raises:
                with pytest.raises(KeyError, match="broken"):
                    dream(net, objectives, **options)
            else:
                dream(net, objectives, **options)
        assert guarded.state(net) == before


def test_nothing_stays_when_the_climb_is_interrupted():
    model, count = built(Functional, 3), []

    def interrupted(seen):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return seen["conv1"].flatten(1).sum(1)

    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        dream(model, FunctionTarget("mine", interrupted, ("conv1",)), image=(3, 9, 9), steps=9)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_no_gradient_is_computed_for_a_weight_and_no_hook_is_there_twice():
    seen = []

    class Watched(Functional):
        def forward(self, x):
            seen.append(
                (any(p.requires_grad for p in self.parameters()), len(self.conv1._forward_hooks), self.training)
            )
            return super().forward(x)

    dream(built(Watched, 3), [channel("conv1", 1), logit(1)], image=(3, 9, 9), steps=4)
    assert seen == [(False, 2, False)] * 5  # one records, one tells where the places of its output come from


def test_a_pass_ends_at_the_deepest_layer_that_an_objective_reads():
    ran, model = [], built(Functional, 3)
    for name in ("conv1", "conv2", "head"):
        getattr(model, name).register_forward_pre_hook(lambda m, i, name=name: ran.append(name))

    def runs(asked):
        ran.clear()
        dream(model, asked, image=(3, 9, 9), steps=9)
        return [ran.count(name) for name in ("conv1", "conv2", "head")]

    assert runs(channel("conv1", 1)) == [10, 1, 1]
    assert runs([channel("conv1", 1), channel("conv2", 1)]) == [10, 10, 1]
    assert runs([channel("conv1", 1), logit(1)]) == [10, 10, 10]


# --- Trouble.


def test_a_dead_unit_is_told_by_name_and_the_others_are_not():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        model[0].weight.fill_(0.1)
        model[0].bias.copy_(torch.tensor([1.0, -100.0, 1.0, -100.0]))
    asked = [channel("1", number) for number in range(4)]
    with pytest.warns(DreamWarning) as said:
        found = dream(model, asked, image=(1, 8, 8), steps=3, copies=2)
    assert len(said) == 1
    assert str(said[0].message).startswith("the gradient of 1 channel 1, 1 channel 3 is zero where the dream starts")
    assert said[0].filename == __file__
    assert not found.values[[2, 3, 6, 7]].any()
    assert rises(dream(model, channel("0", 1), image=(1, 8, 8), steps=3))  # the layer before the ReLU, as it says


def test_a_model_without_gradients_is_told_too():
    class Closed(Functional):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    for asked in (
        logit(1),
        channel("conv2", 1),
        FunctionTarget("constant", lambda seen: seen["conv1"].new_ones(1), ("conv1",)),
    ):
        with pytest.warns(DreamWarning, match=f"the gradient of {asked.name} is zero"):
            dream(built(Closed, 3), asked, image=(3, 9, 9), steps=2)


def test_train_mode_is_told_and_the_dream_is_that_of_eval_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 3)).eval()
    expected = dream(model, channel("3", 1), image=(3, 9, 9), steps=5)
    model.train()
    with pytest.warns(DreamWarning, match="in train mode: it is run in eval mode") as said:
        found = dream(model, channel("3", 1), image=(3, 9, 9), steps=5)
    assert said[0].filename == __file__
    assert torch.equal(found.images, expected.images)
    assert all(module.training for module in model.modules())
    assert model[1].num_batches_tracked == 0


@pytest.mark.parametrize(
    ("size", "what"),
    [
        ((1, 3, 3), "Output size is too small"),
        ((1, 40, 40), "cannot be multiplied"),
        ((3, 28, 28), "to have 1 channels"),
    ],
    ids=str,
)
def test_an_image_that_the_network_cannot_take_is_told_with_its_size(digits, size, what):
    message = f"the model cannot take images of {' x '.join(map(str, size))}: .*{what}"
    with pytest.raises(ValueError, match=message):
        dream(digits.model, logit(1), image=size, steps=2)


def test_layers_before_the_head_take_images_of_other_sizes(digits):
    assert rises(dream(digits.model, [channel("conv2", 1), channel("conv3", 2)], image=(1, 40, 33), steps=5))


def test_a_model_that_checks_its_input_itself_is_quoted():
    vit = built(partial(VisionTransformer, 32, 8, 1, 2, 16, 32))
    with pytest.raises(
        ValueError, match="cannot take images of 3 x 30 x 32: Wrong image height! Expected 32 but got 30"
    ):
        dream(vit, logit(0), image=(3, 30, 32))


def test_layers_that_do_not_exist_or_are_not_called(digits):
    with pytest.raises(LayerNotFoundError, match=re.escape("no layer matches 'convv2'; did you mean 'conv2'")):
        dream(digits.model, channel("convv2", 1), image=(1, 28, 28))
    model = built(Functional, 3)
    model.unused = nn.Conv2d(3, 3, 3).eval()
    with pytest.raises(LayerNotReachedError, match="layer 'unused' is not called in the forward pass"):
        dream(model, layer("unused"), image=(3, 9, 9))


def test_what_fails_later_is_not_blamed_on_the_image():
    calls = []

    class Failing(Functional):
        def forward(self, x):
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("the third")
            return super().forward(x)

    with pytest.raises(RuntimeError, match=r"^the third"):
        dream(built(Failing, 3), logit(1), image=(3, 9, 9), steps=9)


def test_a_model_that_is_shown_its_dream_again_may_write_to_it():
    model = built(Functional, 3)
    found = dream(model, logit(1), image=(3, 9, 11), pixel_space=PixelSpace((0.4,), (0.2,)), steps=3)
    images = found.images.clone()
    torch.testing.assert_close(model(found.inputs)[:, 1], found.values)
    assert torch.equal(found.images, images)


@pytest.mark.parametrize("kind", [pixels, fourier, cppn])
def test_the_default_device_makes_no_difference(kind):
    model = built(Functional, 3)
    options = {"image": kind((3, 9, 11)), "transforms": [pad(2), jitter(2), scale(0.9, 1.1), rotate(-5, 5)], "steps": 3}
    expected = dream(model, logit(1), priors={edge_energy: 0.1}, small_gradients=5, **options)
    torch.set_default_device("meta")  # of which no number comes back
    try:
        found = dream(model, logit(1), priors={edge_energy: 0.1}, small_gradients=5, **options)
    finally:
        torch.set_default_device(None)
    assert torch.equal(found.images, expected.images)


class Full(nn.Module):
    """Finds no memory."""

    def forward(self, x):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:98] DefaultCPUAllocator: can't allocate memory: you tried")


def test_memory_that_does_not_suffice_is_not_blamed_on_the_image():
    with pytest.raises(RuntimeError, match=r"^\[enforce fail .* can't allocate memory"):
        dream(Full().eval(), logit(1), image=(3, 9, 11), steps=1)
    with pytest.raises(RuntimeError, match=r"^\[enforce fail .* can't allocate memory"):
        fool(Full().eval(), (3, 9, 11), generations=1, progress=False)


def test_a_dream_that_ended_in_nan_is_told_by_name():
    root = FunctionTarget("root", lambda seen: -seen["0"].square().sum((1, 2, 3)).neg().sqrt(), ("0",))
    with pytest.warns(DreamWarning, match=r"dream of root ended in NaN") as told:
        dream(built(lambda: nn.Sequential(nn.Conv2d(3, 4, 3))), [channel("0", 1), root], image=(3, 9, 11), steps=2)
    assert told[0].filename == __file__
