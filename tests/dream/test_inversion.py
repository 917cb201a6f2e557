"""What a layer still knows of an image: less and less with depth, though always enough for its class."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz.dream import Inversion, invert
from lightning_viz.dream.regularization import alpha_norm, total_variation
from lightning_viz.errors import DreamWarning, LayerNotFoundError
from lightning_viz.pixels import PixelSpace
from tests.dream.conftest import Digits

LAYERS = ("conv1", "conv2", "conv3", "fc1", "fc2")
WEIGHTS = (10.0, 0.02)  # about what is chosen for most of these layers


class Inverted(NamedTuple):
    """Some digits, their labels, and their inversions from each layer at equal weights."""

    images: Tensor
    labels: Tensor
    by_layer: dict[str, Inversion]


@pytest.fixture(scope="module")
def inverted(digits: Digits) -> Inverted:
    rows = [int((digits.labels == label).nonzero()[3]) for label in (0, 2, 5, 8)]
    images, labels = digits.images[rows], digits.labels[rows]
    by_layer = {
        layer: invert(
            digits.model, images, layer, weights=WEIGHTS, pixel_space=digits.pixel_space, steps=200, progress=False
        )
        for layer in LAYERS
    }
    return Inverted(images, labels, by_layer)


def test_the_error_grows_with_depth(inverted: Inverted):
    errors = [found.pixel_errors.mean().item() for found in inverted.by_layer.values()]
    assert all(deeper > 1.1 * shallower for shallower, deeper in pairwise(errors)), errors
    assert errors[0] < 0.05
    assert errors[-1] > 0.4


def test_the_diversity_among_seeds_grows_with_depth(inverted: Inverted):
    diversity = [found.diversity.mean().item() for found in inverted.by_layer.values()]
    assert all(deeper > 1.1 * shallower for shallower, deeper in pairwise(diversity)), diversity


def test_from_every_layer_each_reconstruction_is_classified_as_its_original(digits: Digits, inverted: Inverted):
    for layer, found in inverted.by_layer.items():
        seeds = found.pixel_errors.shape[1]
        with torch.no_grad():
            classes = digits.model(found.dream.inputs).argmax(1)
            of_pixels = digits.model(digits.pixel_space.to_inputs(found.pixels.flatten(0, 1))).argmax(1)
        assert classes.tolist() == inverted.labels.repeat_interleave(seeds).tolist(), layer
        assert of_pixels.tolist() == classes.tolist(), layer


def test_the_layer_hardly_tells_a_reconstruction_from_its_original(inverted: Inverted):
    for layer, found in inverted.by_layer.items():
        assert found.feature_errors.max() < 0.1, layer


def test_errors_and_diversity_are_those_of_the_images_as_the_model_takes_them(digits: Digits, inverted: Inverted):
    """An oracle of plain loops, on inputs: the net is normalized, its inputs are the centered images."""
    found, part = inverted.by_layer["conv3"], digits.model[:7]
    for place, original in enumerate(inverted.images):
        copies = [found.dream.inputs[3 * place + seed] for seed in range(3)]
        for seed, copy in enumerate(copies):
            with torch.no_grad():
                wanted, answer = part(original[None]), part(copy[None])
            pixel_error = (copy - original).norm() / original.norm()
            torch.testing.assert_close(found.pixel_errors[place, seed], pixel_error)
            feature_error = (answer - wanted).norm() / wanted.norm()
            torch.testing.assert_close(found.feature_errors[place, seed], feature_error, rtol=1e-4, atol=1e-5)
        first, second, third = copies
        distances = [(first - second).norm(), (first - third).norm(), (second - third).norm()]
        torch.testing.assert_close(found.diversity[place], sum(distances) / 3 / original.norm())


def test_the_weights_chosen_reconstruct_better_than_weak_and_strong_ones(digits: Digits):
    images = digits.images[:2]

    def error(weights: tuple[float, float] | None) -> float:
        options = {"weights": weights, "pixel_space": digits.pixel_space, "seeds": 1, "steps": 80}
        return invert(digits.model, images, "conv3", **options, progress=False).pixel_errors.mean().item()

    assert error(None) < 0.8 * min(error((0.0, 0.0)), error((0.0, 10.0)))


def test_the_weights_chosen_are_the_best_of_the_grid_tried_one_by_one(functional: nn.Module):
    images = torch.rand(3, 6, 8, 8, generator=torch.Generator().manual_seed(0)) ** 4
    options = {"seeds": 1, "steps": 25, "progress": False}
    chosen = invert(functional, images, "twice:1", **options)
    norm = chosen.originals.flatten(1).norm(dim=1).mean()
    own = [prior(chosen.originals / norm).mean().item() for prior in (alpha_norm, total_variation)]
    tried = [
        (of_alpha / own[0], of_variation / own[1])
        for of_alpha in (1e-4, 1e-3, 1e-2)
        for of_variation in (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    ]
    errors = [
        invert(functional, images, "twice:1", weights=pair, **options).pixel_errors.mean().item() for pair in tried
    ]
    best = tried[errors.index(min(errors))]
    assert chosen.weights == pytest.approx(best, rel=1e-5)
    assert chosen.pixel_errors.mean() == pytest.approx(min(errors), rel=1e-3)


def test_weights_mean_the_same_whatever_the_scale_of_the_data():
    """Of a linear layer: images three times as large, from starts and by steps three times as large."""
    model = a_linear_layer()
    images = torch.randn(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    options = {"weights": (50.0, 0.05), "seeds": 2, "pixel_space": PixelSpace((0.5,), (0.25,)), "steps": 50}
    small = invert(model, images, "0", **options, lr=0.1, deviation=1.0, progress=False)
    large = invert(model, 3 * images, "0", **options, lr=0.3, deviation=3.0, progress=False)
    torch.testing.assert_close(large.dream.images, 3 * small.dream.images, rtol=1e-3, atol=1e-3)
    assert large.sigma == pytest.approx(3 * small.sigma)


def test_what_a_layer_does_not_see_comes_from_the_penalties_alone():
    """A layer of stride 2 and kernel 1 sees every other pixel: the unseen ones become what lies between them."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1, stride=2, bias=False)).eval()
    nn.init.ones_(model[0].weight)
    ramp = torch.linspace(-1, 1, 13).expand(1, 1, 13, 13)
    found = invert(model, ramp, "0", weights=(0.0, 0.01), pixel_space=PixelSpace((0.5,), (0.25,)), progress=False)
    assert found.pixel_errors.max() < 0.05
    blind = invert(model, ramp, "0", weights=(0.0, 0.0), pixel_space=PixelSpace((0.5,), (0.25,)), progress=False)
    assert blind.pixel_errors.min() > 0.5
    assert blind.feature_errors.max() < 0.01


def test_the_same_seed_gives_the_same_reconstruction_to_the_bit_and_another_one_another(digits: Digits):
    def images(seed: int) -> Tensor:
        return invert(digits.model, digits.images[:1], "fc1", steps=5, seed=seed, progress=False).dream.images

    first = images(0)
    assert torch.equal(images(0), first)
    assert torch.equal(images(1)[:2], first[1:]), "the seeds count on"
    assert not torch.equal(first[0], first[1])


def test_the_model_is_left_as_found(digits: Digits):
    model = digits.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [weight.grad for weight in model.parameters()]
    random = torch.get_rng_state()
    invert(model, digits.images[:2], "conv2", steps=3, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(weight.requires_grad for weight in model.parameters())
    assert all(weight.grad is gradient for weight, gradient in zip(model.parameters(), gradients, strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Functional(nn.Module):
    """Six channels, ReLUs without modules, one layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(6, 12, 3, padding=1)
        self.twice = nn.Conv2d(12, 12, 3, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        answer = F.relu(self.twice(F.relu(self.twice(F.relu(self.first(images))))))
        return {"scores": answer.mean((2, 3))}


@pytest.fixture
def functional() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Functional().eval()


@pytest.mark.parametrize("layer", ["first", "twice:0", "twice:1"])
def test_six_channels_functional_relus_and_calls_of_a_layer_are_inverted(functional: nn.Module, layer: str):
    images = torch.rand(2, 6, 17, 23, generator=torch.Generator().manual_seed(0))
    found = invert(functional, images, layer, weights=(0.0, 1e-3), seeds=2, steps=120, progress=False)
    assert found.dream.inputs.shape == (4, 6, 17, 23)
    assert found.feature_errors.max() < 0.1
    torch.testing.assert_close(found.originals, (images - 0.5) / 0.25)


def test_a_single_seed_has_no_diversity_and_says_so(functional: nn.Module):
    found = invert(functional, torch.rand(1, 6, 8, 8), "first", weights=(0.0, 0.0), seeds=1, steps=1, progress=False)
    assert found.diversity.isnan().all()


def test_inference_mode_makes_no_difference(functional: nn.Module):
    image = torch.rand(1, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = invert(functional, image, "first", steps=5, progress=False)
    with torch.inference_mode():
        inside = invert(functional, image.clone(), "first", steps=5, progress=False)
    assert torch.equal(inside.dream.images, plain.dream.images)
    assert torch.equal(inside.pixel_errors, plain.pixel_errors)


def test_the_head_need_not_take_the_image():
    model = nn.Sequential(*a_linear_layer(), nn.Flatten(), nn.Linear(7, 2)).eval()
    image = torch.rand(2, 1, 11, 13, generator=torch.Generator().manual_seed(0))
    found = invert(model.double(), image, "0", steps=100, weights=(0.0, 0.0), progress=False)
    assert found.feature_errors.max() < 0.05


def test_the_weights_are_those_of_the_originals_in_single_precision():
    model, image = a_linear_layer(), torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    single = invert(model, image, "0", seeds=1, steps=1, progress=False)
    half = invert(model.half(), image.half(), "0", seeds=1, steps=1, progress=False)
    assert half.weights == pytest.approx(single.weights, rel=0.02)


def test_weights_under_which_a_reconstruction_diverges_are_not_chosen():
    class Diverging(nn.Conv2d):
        def forward(self, x):
            outputs = super().forward(x)
            if len(x) == 15:
                outputs = torch.cat([outputs[:5] * torch.nan, outputs[5:]])  # of the first share of R_alpha
            return outputs

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(Diverging(1, 4, 3)).eval()
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.warns(DreamWarning, match="ended in NaN"):
        found = invert(model, image, "0", seeds=1, steps=3, progress=False)
    assert found.pixel_errors.isfinite().all()
    assert found.weights[0] > 5e-4 / alpha_norm(found.originals / found.sigma).mean()


def test_what_cannot_be_inverted_is_said(functional: nn.Module):
    image = torch.rand(1, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(LayerNotFoundError, match="first"):
        invert(functional, image, "frist")
    with pytest.raises(ValueError, match="'twice' is called 2 times"):
        invert(functional, image, "twice")
    with pytest.raises(ValueError, match=r"image is \[8, 8\]"):
        invert(functional, image[0, 0], "first")
    with pytest.raises(ValueError, match="sigma is 0"):
        invert(functional, torch.full_like(image, 0.5), "first")
    silent = nn.Sequential(nn.Conv2d(6, 2, 3), nn.ReLU()).eval()
    nn.init.constant_(silent[0].bias, -100.0)
    with pytest.raises(ValueError, match=r"nothing but 0 for images \[0\]"):
        invert(silent, image, "1")


def a_linear_layer() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, bias=False)).eval()


def test_one_image_needs_no_batch(digits: Digits):
    options = {"pixel_space": digits.pixel_space, "weights": (1.0, 0.01), "steps": 3, "progress": False}
    alone = invert(digits.model, digits.images[5], "conv2", **options)
    torch.testing.assert_close(alone.pixels, invert(digits.model, digits.images[5:6], "conv2", **options).pixels)
