"""Style transfer minimizes Gatys's two losses, knows both at every step, and stays within the pixels."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz.dream import VGG19_CONTENT, VGG19_STYLE, style_transfer
from lightning_viz.errors import LayerNotFoundError
from lightning_viz.hooks import select_layers
from lightning_viz.pixels import PixelSpace

SPACE = PixelSpace((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LAYERS = {"content_layers": ["2"], "style_layers": ["0", "2"]}


def network() -> nn.Sequential:
    """Random, in the manner of a small VGG, with a head that takes 32 x 32 alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 24, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(24 * 256, 5),
        ).eval()


def image(seed: int, height: int, width: int) -> Tensor:
    """Pixels ``[1, 3, H, W]`` of one of two kinds: soft shapes of a color, or fine stripes of another."""
    noise = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    if seed:
        stripes = torch.sin(torch.arange(width) * 1.5).expand(height, width)
        return (torch.tensor([0.8, 0.4, 0.2]).view(1, 3, 1, 1) + 0.2 * stripes + 0.02 * noise).clamp(0.02, 0.98)
    return (0.5 + 4 * F.avg_pool2d(noise, 9, stride=1, padding=4)).clamp(0.02, 0.98)


CONTENT, STYLE = SPACE.to_inputs(image(0, 32, 36)), SPACE.to_inputs(image(1, 28, 40))


def transfer(**options):
    arguments = {"steps": 40, "pixel_space": SPACE, "progress": False} | LAYERS | options
    return style_transfer(network(), CONTENT, STYLE, **arguments)


def gatys(images: Tensor) -> tuple[float, float]:
    """The two losses as the paper writes them, the Gram matrices of another size per place, in float64."""
    model = network().double()
    shown, painted, made = (
        {name: model[: int(name) + 1](one.double()).detach().numpy()[0] for name in ("0", "2")}
        for one in (CONTENT, STYLE, images)
    )
    content = 0.5 * ((made["2"] - shown["2"]) ** 2).sum()
    style = 0.0
    for name in ("0", "2"):
        rows, wanted = (each[name].reshape(len(each[name]), -1) for each in (made, painted))
        gram = np.einsum("ik,jk->ij", rows, rows) / rows.shape[1]
        gram_of_style = np.einsum("ik,jk->ij", wanted, wanted) / wanted.shape[1]
        style += 0.5 * ((gram - gram_of_style) ** 2).sum() / (4 * rows.shape[0] ** 2)
    return content, style


def test_both_losses_are_those_of_the_paper():
    model = network().double()
    found = style_transfer(
        model, CONTENT.double(), STYLE.double(), steps=5, pixel_space=SPACE, start="noise", progress=False, **LAYERS
    )
    content, style = gatys(found.inputs)
    assert found.inputs.dtype == torch.float64
    np.testing.assert_allclose(found.content_loss[-1], content, rtol=1e-10)
    np.testing.assert_allclose(found.style_loss[-1], style, rtol=1e-10)


def test_for_images_of_one_size_the_style_loss_is_the_paper_s_own():
    model, square = network().double(), STYLE[..., :28, :28].double()
    other = CONTENT[..., :28, :28].double()
    found = style_transfer(model, other, square, steps=0, pixel_space=SPACE, progress=False, **LAYERS)
    expected = 0.0
    for depth in (1, 3):
        ours, theirs = (model[:depth](one).detach().numpy()[0] for one in (other, square))
        channels, places = len(ours), ours[0].size
        difference = np.einsum("ihw,jhw->ij", ours, ours) - np.einsum("ihw,jhw->ij", theirs, theirs)
        expected += 0.5 * (difference**2).sum() / (4 * channels**2 * places**2)
    np.testing.assert_allclose(found.style_loss[-1], expected, rtol=1e-10)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_from_noise_both_losses_fall(optimizer):
    found = transfer(start="noise", optimizer=optimizer)
    assert found.content_loss[-1] < 0.7 * found.content_loss[0]
    assert found.style_loss[-1] < 0.3 * found.style_loss[0]


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_from_the_content_the_style_falls_and_more_of_the_content_stays_than_with_the_style_alone(optimizer):
    found = transfer(optimizer=optimizer)
    assert found.content_loss[0] < 1e-3 * found.content_loss[-1]
    assert found.loss[-1] < 0.3 * found.loss[0]
    assert found.style_loss[-1] < 0.3 * found.style_loss[0]
    style_alone = transfer(optimizer=optimizer, content_weight=0.0, style_weight=found.style_weight)
    assert found.content_loss[-1] < 0.9 * style_alone.content_loss[-1]


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_losses_are_known_before_each_step_at_no_further_pass(optimizer):
    passes = []

    def forward(model: nn.Module, inputs: Tensor) -> Tensor:
        passes.append(inputs)
        return model(inputs)

    found = transfer(steps=4, optimizer=optimizer, forward=forward, frames=0)
    least = 4 + 3  # content, style, and what was found
    assert least == len(passes) if optimizer == "adam" else least <= len(passes) <= least + 12
    assert len(found.content_loss) == len(found.style_loss) == 5
    for steps in range(5):
        shorter = transfer(steps=steps, optimizer=optimizer)
        torch.testing.assert_close(shorter.content_loss[-1], found.content_loss[steps], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(shorter.style_loss[-1], found.style_loss[steps], atol=1e-6, rtol=1e-6)


def test_with_a_line_search_the_loss_never_rises():
    for start in ("content", "noise"):
        assert (transfer(start=start).loss.diff() <= 0).all()


def test_the_content_s_weight_keeps_content_and_the_style_s_weight_brings_style():
    light = transfer(style_weight=1.0, optimizer="adam")
    heavy = transfer(style_weight=1e4, optimizer="adam")
    assert light.content_loss[-1] < heavy.content_loss[-1]
    assert light.style_loss[-1] > heavy.style_loss[-1]


def test_the_default_balance_does_not_depend_on_the_scale_of_the_activations():
    model = network()
    louder = network()
    for conv in (louder[0], louder[2]):
        conv.weight.data *= 3 if conv is louder[0] else 1
        conv.bias.data *= 3
    first, second = (
        style_transfer(one, CONTENT, STYLE, steps=10, pixel_space=SPACE, optimizer="adam", progress=False, **LAYERS)
        for one in (model, louder)
    )
    torch.testing.assert_close(first.images, second.images, atol=0.02, rtol=0)


def test_the_image_and_its_frames_are_pixels_from_the_first_to_the_last():
    found = transfer(steps=12, frames=5)
    assert found.frame_steps[0] == 0
    assert found.frame_steps[-1] == 12
    assert len(found.frames) == len(found.frame_steps) == 5
    first, content = found.frames[0].float() / 255, SPACE.to_pixels(CONTENT)
    torch.testing.assert_close(first, content, atol=0.5 / 255 + 1e-3, rtol=0)
    torch.testing.assert_close(found.frames[-1], (found.pixels * 255).round().byte())
    torch.testing.assert_close(SPACE.to_pixels(found.inputs), found.pixels)
    assert found.images.shape == CONTENT.shape


def test_same_seed_same_noise_same_image():
    first, second, other = (transfer(start="noise", steps=3, seed=seed).images for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_layer_that_is_called_twice_is_named_by_its_call_also_in_inference_mode():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.relu(self.conv(x)) - 0.1)

    model = Twice().eval()
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = style_transfer(
            model, images[0], images[1], content_layers=["relu:1"], style_layers=["relu:0"], steps=20,
            progress=False,
        )  # fmt: skip
    assert found.style_loss[-1] < 0.5 * found.style_loss[0]


def test_the_paper_s_layers_are_the_convolutions_of_torchvision_s_vgg19():
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        model = torchvision.models.vgg19()
    names, block, place = {}, 1, 0
    for index, module in enumerate(model.features):
        if isinstance(module, nn.Conv2d):
            place += 1
            names[f"conv{block}_{place}"] = f"features.{index}"
        elif isinstance(module, nn.MaxPool2d):
            block, place = block + 1, 0
    assert VGG19_CONTENT == (names["conv4_2"],)
    assert VGG19_STYLE == tuple(names[f"conv{number}_1"] for number in range(1, 6))
    assert len(select_layers(model, VGG19_STYLE)) == 5


def test_misuse_is_an_error_that_names_the_remedy():
    with pytest.raises(LayerNotFoundError):
        style_transfer(network(), CONTENT, STYLE, pixel_space=SPACE, progress=False)
    with pytest.raises(ValueError, match="'content' or 'noise'"):
        transfer(start="gray")
    with pytest.raises(ValueError, match="'lbfgs', 'adam'"):
        transfer(optimizer="sgd")
    with pytest.raises(ValueError, match="the names of one layer or more"):
        transfer(style_layers=[])
    with pytest.raises(ValueError, match="the content is 2 images: give one"):
        style_transfer(network(), CONTENT.repeat(2, 1, 1, 1), STYLE, pixel_space=SPACE, **LAYERS)
    with pytest.raises(ValueError, match="the style has pixels from"):
        style_transfer(network(), SPACE.to_pixels(CONTENT), STYLE, **LAYERS)
    silent = network()
    nn.init.zeros_(silent[0].weight), nn.init.constant_(silent[0].bias, 0.0)
    with pytest.raises(ValueError, match="put out nothing but 0"):
        style_transfer(silent, CONTENT, STYLE, pixel_space=SPACE, content_layers=["0"], style_layers=["0"])


def test_a_network_that_writes_to_its_input_does_not_change_the_content():
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x):
            return self.net(x.sub_(1.0))

    arguments = {
        "content_layers": ["net.2"],
        "style_layers": ["net.0"],
        "pixel_space": SPACE,
        "steps": 0,
        "progress": False,
    }
    found = style_transfer(Writing().eval(), CONTENT, STYLE, **arguments)
    torch.testing.assert_close(found.pixels, SPACE.to_pixels(CONTENT))


def test_the_style_alone_is_a_texture():
    found = transfer(content_weight=0.0, optimizer="adam")
    assert found.style_weight > 0 and found.style_loss[-1] < 0.5 * found.style_loss[0]
