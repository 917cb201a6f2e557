"""DeepDream raises what it climbs in every octave, carries details up, stays a photograph, and leaves neither a border
nor a grid in it."""

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz.dream import deep_dream, layer
from lightning_viz.dream.deep_dream import NormalizedAscent
from lightning_viz.errors import DreamWarning, LayerNotFoundError
from lightning_viz.hooks import channel
from lightning_viz.pixels import PixelSpace

SPACE = PixelSpace((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def network(seed: int = 0) -> nn.Sequential:
    """Random, of stride 4, with a head that takes 32 x 32 alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 12, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(12, 16, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(16 * 64, 5),
        ).eval()


def photographs(count: int, height: int, width: int) -> Tensor:
    """Pixels that look alike everywhere, in the middle of their range."""
    noise = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))
    return (0.5 + 0.3 * F.avg_pool2d(noise, 3, stride=1, padding=1, count_include_pad=False)).clamp(0, 1)


def squared_norm(model: nn.Sequential, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return model[:3](inputs).square().sum((1, 2, 3))


def test_every_octave_raises_the_squared_norm_of_the_layer_for_every_photograph():
    model, images = network(), SPACE.to_inputs(photographs(2, 60, 90))
    dream = deep_dream(model, images, "2", pixel_space=SPACE, progress=False)
    assert [octave.size for octave in dream.octaves] == [(22, 33), (31, 46), (43, 64), (60, 90)]
    assert all((octave.after > 1.1 * octave.before).all() for octave in dream.octaves)
    torch.testing.assert_close(dream.octaves[-1].after, squared_norm(model, dream.inputs))


def test_details_are_carried_up():
    model, images = network(), SPACE.to_inputs(photographs(1, 60, 90))
    dream = deep_dream(model, images, "2", pixel_space=SPACE, steps=20, progress=False)
    assert (dream.octaves[-1].before > 1.05 * squared_norm(model, images)).all()


def test_one_octave_without_jitter_is_steps_of_one_length_along_the_gradient():
    model, image = network(), SPACE.to_inputs(photographs(1, 32, 32))
    dream = deep_dream(model, image, "2", pixel_space=SPACE, octaves=1, steps=2, jitter=0, lr=0.01, progress=False)
    expected = image
    for _ in range(2):
        x = expected.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model[:3](x).square().sum(), x)
        expected = SPACE.to_inputs(SPACE.to_pixels(expected + 0.01 * gradient / gradient.abs().mean()))
    torch.testing.assert_close(dream.inputs, expected, atol=1e-5, rtol=1e-5)


def test_each_photograph_of_a_batch_dreams_as_if_alone():
    model, images = network(), SPACE.to_inputs(photographs(2, 40, 40))
    both = deep_dream(model, images, "2", pixel_space=SPACE, octaves=2, steps=3, progress=False)
    alone = deep_dream(model, images[1], "2", pixel_space=SPACE, octaves=2, steps=3, progress=False)
    torch.testing.assert_close(both.images[1:], alone.images, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_border_dreams_as_much_as_the_middle(seed):
    pixels = photographs(4, 96, 96)
    dream = deep_dream(network(seed), SPACE.to_inputs(pixels), "2", pixel_space=SPACE, progress=False)
    change = (dream.pixels - pixels).abs().mean((0, 1))
    ring = torch.ones_like(change, dtype=torch.bool)
    ring[3:-3, 3:-3] = False
    assert 0.8 < change[ring].mean() / change[24:-24, 24:-24].mean() < 1.25


def test_jitter_leaves_less_of_a_grid_of_the_strides():
    def repeating(jitter: int) -> float:
        """The share of the change that repeats with the network's stride of 4."""
        dream = deep_dream(
            network(), inputs, "2", pixel_space=SPACE, octaves=1, steps=30, jitter=jitter, progress=False
        )
        change = dream.pixels - pixels
        tiles = change.unfold(2, 4, 4).unfold(3, 4, 4).mean((0, 2, 3))
        return (tiles.std((1, 2)).mean() / change.std()).item()

    pixels = photographs(2, 96, 96)
    inputs = SPACE.to_inputs(pixels)
    still, moved = repeating(0), repeating(8)
    assert still > 0.1
    assert moved < 0.5 * still


def test_the_dream_and_its_frames_are_photographs_from_the_first_to_the_last():
    pixels = photographs(1, 40, 50)
    dream = deep_dream(
        network(), SPACE.to_inputs(pixels), "2", pixel_space=SPACE, octaves=3, steps=4, lr=0.5, progress=False
    )
    assert dream.pixels.min() >= 0
    assert dream.pixels.max() <= 1
    torch.testing.assert_close(SPACE.into(dream.inputs, PixelSpace()), dream.pixels, atol=1e-5, rtol=0)
    assert dream.frame_steps == tuple(range(13))
    torch.testing.assert_close(dream.frames[0], (pixels * 255).round().byte())
    torch.testing.assert_close(dream.frames[-1], (dream.pixels * 255).round().byte())


def test_frames_are_kept_evenly():
    dream = deep_dream(network(), photographs(1, 32, 32), "2", octaves=2, steps=10, frames=5, progress=False)
    assert dream.frame_steps == (0, 5, 10, 15, 20)
    assert len(dream.frames) == 5


def test_same_seed_same_dream_and_the_seed_is_that_of_the_jitter():
    model, image = network(), photographs(1, 32, 32)
    first, second, other = (deep_dream(model, image, "2", steps=3, seed=s, progress=False).images for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_several_layers_and_other_objectives_are_climbed_too():
    image = photographs(1, 32, 32)
    for climbed in (layer("0") + 0.1 * layer("2"), channel("2", 3)):
        dream = deep_dream(network(), image, climbed, octaves=2, steps=30, lr=0.1, progress=False)
        assert dream.name == climbed.name
        assert all((octave.after > octave.before).all() for octave in dream.octaves)


@pytest.mark.parametrize("channels", [1, 6])
def test_other_channel_counts_and_inference_mode(channels):
    model = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU())
    with torch.inference_mode():
        dream = deep_dream(model.eval(), torch.rand(channels, 28, 30), "0", octaves=2, steps=3, progress=False)
    assert dream.images.shape == (1, channels, 28, 30)
    assert all((octave.after > octave.before).all() for octave in dream.octaves)


def test_the_model_is_left_as_found():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    deep_dream(model, photographs(1, 32, 32), "2", octaves=2, steps=2, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_a_step_moves_each_image_by_the_rate_on_average():
    images = torch.randn(3, 3, 5, 5)
    start = images.clone()
    images.requires_grad_()
    scale = torch.tensor([1e-6, 1.0, 1e6]).view(3, 1, 1, 1)

    def closure() -> Tensor:
        images.grad = torch.cos(start) * scale
        return images.new_zeros(())

    NormalizedAscent([images], lr=0.1).step(closure)
    np.testing.assert_allclose((images - start).abs().mean((1, 2, 3)).detach(), 0.1, rtol=1e-5)


def test_misuse_is_an_error_that_names_the_remedy():
    model, image = network(), photographs(1, 32, 32)
    with pytest.raises(ValueError, match=r"pixel_space=PixelSpace\(mean, std\)"):
        deep_dream(model, SPACE.to_inputs(image), "2", progress=False)
    with pytest.raises(ValueError, match="1 or more octaves, and a scale above 1"):
        deep_dream(model, image, "2", octaves=0, progress=False)
    with pytest.raises(ValueError, match=r"give \[N, C, H, W\]"):
        deep_dream(model, image[0, 0], "2", progress=False)
    with pytest.raises(LayerNotFoundError):
        deep_dream(model, image, "nowhere", progress=False)


def test_a_photograph_of_bytes_and_a_model_in_half_precision():
    pixel_space = PixelSpace((0.0,), (1 / 255,))
    photograph = (photographs(1, 28, 30) * 255).round().byte()
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).bfloat16().eval()
    dream = deep_dream(model, photograph, "0", pixel_space=pixel_space, octaves=2, steps=3, progress=False)
    torch.testing.assert_close(dream.frames[0], photograph)
    assert (dream.octaves[-1].after > dream.octaves[-1].before).all()


def test_a_warning_points_at_the_line_that_asked_and_comes_once():
    model = network().train()
    with pytest.warns(DreamWarning, match="train mode") as told:
        warnings.simplefilter("default")
        deep_dream(model, photographs(1, 32, 32), "2", octaves=2, steps=1, progress=False)
    assert [one.filename for one in told] == [__file__]
    assert model.training
