"""Sequences take the steps that they say; flips and distances are those of loops over the frames."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import nn

from lightning_viz.pixels import PixelSpace
from lightning_viz.robustness import (
    PERTURBATIONS,
    PerturbationStability,
    corrupt,
    perturbation_sequence,
    perturbation_stability,
)
from lightning_viz.robustness.perturbation_sequences import NOISE
from lightning_viz.robustness.stability import top5_distance

KINDS = list(PERTURBATIONS)
SPACE = PixelSpace((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def china():
    """A photograph, 64 x 64."""
    pixels = torch.tensor(np.asarray(load_sample_images().images[0])).permute(2, 0, 1)[None].double() / 255
    return torch.nn.functional.interpolate(pixels[..., 100:527], (64, 64), mode="area")


def net(classes, seed=0, channels=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, classes)
        ).eval()


def test_there_are_the_papers_ten_kinds():
    assert len(KINDS) == 10 and KINDS[:2] == list(NOISE) and KINDS[-4:] == ["translate", "rotate", "tilt", "scale"]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_have_the_images_form_whatever_its_size_and_come_out_again_in_any_batch(kind):
    for shape, dtype in (((1, 8, 8), torch.float32), ((3, 33, 20), torch.float64), ((5, 17, 48), torch.float16)):
        images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        frames = perturbation_sequence(images, kind, seed=5)
        assert frames.shape == (2, 41 if kind == "translate" else 31, *shape) and frames.dtype == dtype
        assert frames.isfinite().all() and 0 <= frames.min() and frames.max() <= 1
        assert (frames[:, 1:] != frames[:, :-1]).flatten(2).any(2).float().mean() > 0.9
        assert torch.equal(frames[1:], perturbation_sequence(images[1:], kind, seed=5, first=1))
    pixels = torch.rand(1, 3, 12, 12, dtype=torch.float64)
    found = perturbation_sequence(SPACE.to_inputs(pixels), kind, pixel_space=SPACE)
    expected = perturbation_sequence(pixels, kind)
    assert ((SPACE.to_pixels(found[0]) - expected[0]).abs() > 1e-9).double().mean() < 0.01


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NOISE])
def test_neighboring_frames_are_nearer_than_the_ends(kind, china):
    frames = perturbation_sequence(china, kind)[0].flatten(1)
    steps = (frames[1:] - frames[:-1]).norm(dim=1)
    assert steps.max() < 0.7 * (frames[-1] - frames[0]).norm()


def test_frames_are_the_image_where_nothing_is_done_to_it(china):
    still = {
        "gaussian_noise": 0,
        "shot_noise": 0,
        "zoom_blur": 0,
        "brightness": 15,
        "translate": 20,
        "rotate": 15,
        "tilt": 15,
        "scale": 24,
    }
    for kind, number in still.items():
        assert (perturbation_sequence(china, kind)[0, number] - china[0]).abs().max() < 1e-12, kind


def test_geometry_moves_a_point_where_it_should_be():
    image = torch.zeros(1, 1, 225, 225, dtype=torch.float64)
    image[0, 0, 112, 182] = 1  # 70 pixels to the right of the middle
    peak = lambda frame: divmod(int(frame.argmax()), 225)  # noqa: E731
    length = 225 / 224
    moved = perturbation_sequence(image, "translate")[0, 40, 0]
    assert peak(moved) == (112, round(182 + 20 * length))
    turned = perturbation_sequence(image, "rotate")[0, 30, 0]
    row, column = peak(turned)
    assert np.hypot(row - 112, column - 112) == pytest.approx(70, abs=1)
    assert abs(row - 112) == pytest.approx(70 * np.sin(np.deg2rad(15)), abs=1)
    half = perturbation_sequence(image, "scale")[0, 4, 0]  # 50 %
    assert peak(half) == (112, 147)
    assert perturbation_sequence(torch.ones_like(image), "scale")[0, 4, 0, 0, 0] == 0  # on black
    # A plane turned about both axes by a: its point at (70, 0) is at (cos a, sin² a, sin a) · 70, seen from far away.
    angle, far = np.deg2rad(15), np.hypot(225, 225)
    row, column = peak(perturbation_sequence(image, "tilt")[0, 30, 0])
    depth = np.cos(angle) * np.sin(angle) * 70
    expected = (
        np.array([np.sin(angle) ** 2 * 70, np.cos(angle) * 70])
        * far
        / (far + np.array([1, -1])[:, None] * depth)[:, None]
    )
    found = np.array([abs(row - 112), column - 112])
    assert min(np.abs(found - option).max() for option in expected.reshape(-1, 2)) < 1.5


def loop_distance(before, after):
    """The paper's d of two rankings, by its sum over ranks."""
    order, ranks = np.argsort(-before, kind="stable"), np.argsort(np.argsort(-after, kind="stable"))
    total = 0
    for i in range(1, 6):
        sigma = ranks[order[i - 1]] + 1
        total += sum(1 <= j - 1 <= 5 for j in range(min(i, sigma) + 1, max(i, sigma) + 1))
    return total


def test_the_distance_of_rankings_is_the_papers_sum():
    scores = torch.randn(2, 200, 12, generator=torch.Generator().manual_seed(0)).double()
    expected = [loop_distance(*pair) for pair in zip(*scores.numpy(), strict=True)]
    assert top5_distance(*scores).tolist() == expected
    assert top5_distance(scores[0], scores[0]).abs().max() == 0
    reverse = torch.arange(12.0)[None]
    assert top5_distance(reverse, -reverse).item() == 15 == loop_distance(reverse[0].numpy(), -reverse[0].numpy())


@pytest.mark.parametrize("classes", [3, 8])
def test_flips_and_distances_are_those_of_loops(classes):
    images, model = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)), net(classes)
    found = perturbation_stability(model, images, batch_size=7, **QUIET)
    assert found.kinds == tuple(KINDS)
    for row, kind in enumerate(KINDS):
        for column in range(3):
            frames = perturbation_sequence(images[column : column + 1], kind, first=column)[0]
            with torch.no_grad():
                scores = model(frames).double().numpy()
            pairs = [(scores[0], one) for one in scores[1:]] if kind in NOISE else list(pairwise(scores))
            flips = sum(a.argmax() != b.argmax() for a, b in pairs) / len(pairs)
            assert found.flips[row, column] == flips  # exactly
            if classes == 8:
                mean = np.mean([loop_distance(*pair) for pair in pairs])
                assert found.distances[row, column] == pytest.approx(mean, abs=1e-12)
    assert (found.distances is None) is (classes == 3)
    assert 0 < found.flip_probability.sum() and found.flip_probability.tolist() == found.flips.mean(1).tolist()


class Guessing(nn.Module):
    def forward(self, images):
        return torch.randn(len(images), 4) + images.mean((1, 2, 3))[:, None]


class Lost(nn.Module):
    """NaN for bright images."""

    def forward(self, images):
        bright = images.mean((1, 2, 3))
        scores = torch.stack([bright, 1 - bright], 1)
        return scores.masked_fill((bright > 0.7)[:, None], torch.nan)


def test_a_model_that_draws_gives_the_same_again_and_what_it_cannot_say_counts_as_changed():
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    first, again = (perturbation_stability(Guessing().eval(), images, kinds=["rotate"], **QUIET) for _ in range(2))
    assert torch.equal(first.flips, again.flips) and first.flips.mean() > 0.5
    assert torch.equal(state, torch.get_rng_state())
    lost = perturbation_stability(Lost().eval(), torch.full((1, 1, 8, 8), 0.61), kinds=["brightness"], **QUIET)
    assert lost.flips.item() == pytest.approx(12 / 30)  # eleven frames above 0.7 are last, and one step crosses 0.5


def test_rates_are_relative_to_another_model_on_the_same():
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    options = {"kinds": ["gaussian_noise", "rotate", "scale"], **QUIET}
    own, other = (perturbation_stability(net(8, seed), images, **options) for seed in (0, 1))
    ratio = own.flips.mean(1) / other.flips.mean(1)
    expected = torch.where(other.flips.mean(1) > 0, ratio, torch.nan)
    assert torch.equal(own.flip_rate(other).nan_to_num(-1), expected.nan_to_num(-1))
    assert own.top5_rate(own).tolist() == pytest.approx([1, 1, 1])
    never = PerturbationStability(own.kinds, torch.zeros_like(own.flips), None)
    assert own.flip_rate(never).isnan().all()
    with pytest.raises(ValueError, match="fewer than 6 classes"):
        own.top5_rate(never)
    with pytest.raises(ValueError, match="measure both on the same"):
        own.flip_rate(own.first(1))


def test_what_cannot_be_done_is_said():
    images = torch.rand(1, 3, 12, 12)
    for wrong, words in (
        ({"kinds": ["rotat"]}, "did you mean rotate"),
        ({"kinds": []}, "one kind or more"),
        ({"seed": -1}, "0 or more"),
        ({"batch_size": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            perturbation_stability(net(3), images, **wrong)
    with pytest.raises(ValueError, match="two classes or more"):
        perturbation_stability(net(3), images, forward=lambda model, frames: model(frames)[:1], **QUIET)
    with pytest.raises(ValueError, match="cannot take images of 3 x 12 x 12"):
        perturbation_stability(nn.Sequential(nn.Flatten(), nn.Linear(7, 3)).eval(), images, **QUIET)
    with pytest.raises(ValueError, match="give pixel_space="):
        perturbation_stability(net(3), 3 * images, **QUIET)


def test_the_further_corruptions_are_on_request_only_and_as_the_formulas_say():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gray = images[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(corrupt(gray, "saturate", 5), gray)  # gray has no hue
    strong = corrupt(images, "saturate", 4)
    assert torch.allclose(strong.amax(1), images.amax(1))  # its value stays
    saturation = lambda x: 1 - x.amin(1) / x.amax(1)  # noqa: E731
    assert torch.allclose(saturation(strong), (5 * saturation(images) + 0.1).clamp(max=1))
    assert torch.equal(corrupt(torch.zeros_like(images), "speckle_noise", 5), torch.zeros_like(images))
    flat = torch.full_like(images, 0.5)
    assert torch.allclose(corrupt(flat, "gaussian_blur", 5), flat)
    assert corrupt(flat, "speckle_noise", 1).std().item() == pytest.approx(0.15 * 0.5, rel=0.05)
    large = torch.full((1, 3, 224, 224), 0.2, dtype=torch.float64)
    covered = [
        (corrupt(large, "spatter", severity) - large).abs().amax(1).gt(0.01).double().mean() for severity in (1, 2, 3)
    ]
    assert [float(share) for share in covered] == pytest.approx([0.03, 0.14, 0.24], abs=0.06)
