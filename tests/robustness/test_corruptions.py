"""Corruptions hold for images of every size and number of channels, come out the same again, and grow."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

from lightning_viz.pixels import PixelSpace
from lightning_viz.robustness import CORRUPTION_FAMILIES, CORRUPTIONS, FURTHER_CORRUPTIONS, all_corruptions, corrupt
from tests.dream.conftest import digits  # noqa: F401

KINDS = [*CORRUPTIONS, *FURTHER_CORRUPTIONS]
SPACE = PixelSpace((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
TOLERANCE = 0.04  # of accuracy, on 300 images: one standard error of a difference of two shares near one half


@pytest.fixture(scope="module")
def china():
    """A photograph, 96 x 96."""
    pixels = torch.tensor(np.asarray(load_sample_images().images[0])).permute(2, 0, 1)[None].float() / 255
    return torch.nn.functional.interpolate(pixels[..., 100:527], (96, 96), mode="area")


def test_the_kinds_are_the_papers_in_its_order():
    assert [len(kinds) for kinds in CORRUPTION_FAMILIES.values()] == [3, 4, 4, 4]
    assert KINDS[0] == "gaussian_noise" and KINDS[7:10] == ["snow", "frost", "fog"] and KINDS[14] == "jpeg_compression"
    assert [one.kind for one in all_corruptions(torch.rand(1, 1, 8, 8), severities=[1])] == KINDS[:15]


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_size_and_channels_come_back_alike_in_kind_and_within_the_bounds(kind):
    for shape, dtype in (
        ((1, 8, 8), torch.float32),
        ((3, 33, 20), torch.float64),
        ((5, 17, 48), torch.float16),
        ((2, 1, 9), torch.bfloat16),
        ((3, 96, 96), torch.float32),
    ):
        images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        for severity in (1, 5):
            hurt = corrupt(images, kind, severity)
            assert hurt.shape == images.shape and hurt.dtype == dtype
            assert 0 <= hurt.min() and hurt.max() <= 1 and hurt.isfinite().all()
            assert (hurt != images).any() or shape[1] == 1 or (kind == "saturate" and shape[0] == 1)


@pytest.mark.parametrize("kind", KINDS)
def test_flat_images_stay_in_bounds(kind):
    for value in (0.0, 1.0):
        hurt = corrupt(torch.full((1, 3, 16, 16), value), kind, 5)
        assert hurt.isfinite().all() and 0 <= hurt.min() and hurt.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_comes_out_alike_in_any_batch_and_again(kind):
    images = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    random = torch.get_rng_state(), np.random.get_state()[1].copy()
    whole = corrupt(images, kind, 3, seed=5)
    given = images.clone()
    assert torch.equal(whole, corrupt(images, kind, 3, seed=5)) and torch.equal(images, given)
    assert torch.equal(whole, corrupt(images.to(memory_format=torch.channels_last), kind, 3, seed=5))
    assert torch.equal(whole[2:3], corrupt(images[2:3], kind, 3, seed=5, first=2))
    assert torch.equal(random[0], torch.get_rng_state()) and (random[1] == np.random.get_state()[1]).all()
    same = corrupt(images[:1].expand(2, -1, -1, -1), kind, 3)
    drawn = kind not in (
        *("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"),
        *("gaussian_blur", "saturate"),
    )
    assert torch.equal(same[0], same[1]) is not drawn
    assert torch.equal(whole, corrupt(images, kind, 3, seed=6)) is not drawn


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_model_takes_is_corrupted_in_pixels(kind):
    pixels = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = corrupt(pixels, kind, 2)
    found = SPACE.to_pixels(corrupt(SPACE.to_inputs(pixels), kind, 2, pixel_space=SPACE))
    wide = corrupt(510 * pixels - 255, kind, 2, pixel_space=PixelSpace(bounds=(-255.0, 255.0)))
    # A photon more or less, a step of 255 more or less: what the last bit decides.
    for one in (found, (wide + 255) / 510):
        assert ((one - expected).abs() > 1e-9).double().mean() < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_moves_farther_with_every_severity(kind, china):
    far = [(one.inputs - china).square().mean().sqrt().item() for one in all_corruptions(china, kinds=[kind])]
    # Where the paper's severities trade one thing for another (fewer shuffles, but farther), it may stand still.
    assert all(after > 0.94 * before for before, after in pairwise(far))
    assert far[4] > 1.1 * far[0] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_each_ladder_of_severities_lowers_accuracy(kind, digits):  # noqa: F811
    chosen = torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(1))[:300]
    images, labels = digits.images[chosen], digits.labels[chosen]
    with torch.no_grad():
        right = [
            (digits.model(shown).argmax(1) == labels).double().mean().item()
            for shown in [
                images,
                *(one.inputs for one in all_corruptions(images, kinds=[kind], pixel_space=digits.pixel_space)),
            ]
        ]
    assert all(after <= before + TOLERANCE for before, after in pairwise(right))
    spared = (  # they lose what enlarged digits do not have
        *("defocus_blur", "glass_blur", "pixelate", "jpeg_compression"),
        *("gaussian_blur", "saturate"),
    )
    assert right[5] <= right[0] + 0.005 if kind in spared else right[5] < right[0] - 0.02


def test_what_cannot_be_done_is_said_before_work_is_done():
    images = torch.rand(2, 1, 8, 8)
    for wrong, words in (
        ({"kinds": ["gausian_noise"]}, "did you mean gaussian_noise"),
        ({"kinds": ["jpeg_compresion"]}, "did you mean jpeg_compression"),
        ({"kinds": ["qqqq"]}, "choose one of gaussian_noise, "),
        ({"kinds": []}, "pass one or more"),
        ({"severities": [0]}, "some of 1 to 5"),
        ({"severities": [2.5]}, "some of 1 to 5"),
        ({"severities": []}, "some of 1 to 5"),
        ({"seed": -1}, "0 or more"),
    ):
        with pytest.raises(ValueError, match=words):
            all_corruptions(images, **wrong)
    for wrong, words in (
        (3 * images, "give pixel_space="),
        (images[:0], "one or more"),
        (images[0], r"\[N, C, H, W\]"),
        ((255 * images).byte(), "floating point"),
        (images / 0 * 0, "should lie in"),
    ):
        with pytest.raises(ValueError, match=words):
            corrupt(wrong, "snow", 1)
    with pytest.raises(ValueError, match="3 channels"):
        corrupt(images, "snow", 1, pixel_space=SPACE)
