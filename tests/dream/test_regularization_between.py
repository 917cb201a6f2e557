"""Steps between updates: each is its formula, and each does to a dream what it is for, as the penalties do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from lightning_viz.dream import (
    YOSINSKI,
    Preset,
    blur,
    clip_small_contribution,
    clip_small_norm,
    decay,
    l2,
    maximize,
    total_variation,
)
from lightning_viz.hooks import logit

STEPS = 40


def norm(images):
    return images.flatten(1).norm(dim=1)


def fineness(images):
    """Share of the energy above half the Nyquist frequency, in rows or columns."""
    power = torch.fft.fft2(images - images.mean((2, 3), keepdim=True)).abs().square().sum(1)
    frequency = torch.fft.fftfreq(images.shape[-1]).abs()
    return (power * (torch.maximum(frequency[:, None], frequency) > 0.25)).sum((1, 2)) / power.sum((1, 2))


def in_use(images):
    return (images != 0).any(1).flatten(1).double().mean(1)


def dream(digits, **options):
    """Of every class, with so many updates."""
    return maximize(
        digits.model,
        [logit(label) for label in range(10)],
        image=(1, 28, 28),
        pixel_space=digits.pixel_space,
        steps=STEPS,
        frames=0,
        progress=False,
        **options,
    )


@pytest.fixture(scope="module")
def free(digits):
    return dream(digits)


@pytest.mark.parametrize(
    ("options", "what", "share"),
    [
        ({"priors": {l2: 0.03}}, norm, 0.3),
        ({"update_steps": [decay(0.03)]}, norm, 0.6),
        ({"priors": {total_variation: 0.01}}, fineness, 0.1),
        ({"update_steps": [blur(0.5)]}, fineness, 0.12),
        ({"update_steps": [blur(1.0, 4)]}, fineness, 0.12),
        ({"update_steps": [clip_small_norm(50)]}, in_use, 0.51),
        ({"update_steps": [clip_small_contribution(50)]}, in_use, 0.51),
        ({"update_steps": [clip_small_contribution(90)]}, in_use, 0.11),
    ],
    ids=["l2", "decay", "variation", "blur", "seldom", "norm", "contribution", "few"],
)
def test_each_does_what_it_is_for_and_leaves_a_class_more_excited_than_its_samples_do(
    digits, free, options, what, share
):
    found = dream(digits, **options)
    assert (what(found.images) < share * what(free.images)).all()
    with torch.no_grad():
        real = digits.model(digits.images).quantile(0.9, dim=0)
    assert (found.values > real).all()


@pytest.mark.parametrize("name", YOSINSKI)
def test_a_preset_of_the_paper_does_what_its_steps_do_and_is_recognized(digits, free, name):
    found, preset = dream(digits, update_steps=name), YOSINSKI[name]
    assert (norm(found.images) < 0.8 * norm(free.images)).all()
    if preset.blur_width:
        sharp = dream(digits, update_steps=replace(preset, blur_width=0.0))
        assert (fineness(found.images) < 0.7 * fineness(sharp.images)).all()
    kept = 1 - max(preset.norm_percentile, preset.contribution_percentile) / 100
    assert in_use(found.images).max() <= kept + 0.01
    assert digits.model(found.inputs).argmax(1).tolist() == list(range(10))


def test_strong_decay_holds_every_pixel_to_what_one_step_of_adam_can_add(digits):
    """A step of Adam is about its learning rate for any gradient: (1 - theta) / theta of it is where they balance."""
    small, large = (dream(digits, update_steps=[decay(0.3)], lr=lr).images for lr in (0.1, 0.2))
    size = small.square().mean().sqrt()
    assert 0.8 < size / (0.1 * 0.7 / 0.3) < 1.05
    assert (large.square().mean().sqrt() / size).item() == pytest.approx(2, rel=0.05)


def test_decay_takes_its_share_of_every_value():
    images = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(decay(0.25)(images, images, 1), 0.75 * images)


def test_blur_is_scipys_with_nothing_outside_and_comes_as_often_as_asked():
    images = torch.randn(2, 3, 9, 12, dtype=torch.float64)
    step, ones = blur(0.8, 3), np.ones((9, 12))
    weight = gaussian_filter(ones, 0.8, mode="constant", radius=3)
    wanted = [
        [gaussian_filter(one, 0.8, mode="constant", radius=3) / weight for one in each.numpy()] for each in images
    ]
    torch.testing.assert_close(step(images, images, 3), torch.from_numpy(np.array(wanted)), rtol=0, atol=1e-12)
    assert all(torch.equal(step(images, images, number), images) for number in (1, 2, 4))


@pytest.mark.parametrize("percentile", [0, 30, 90])
def test_the_clips_leave_gray_what_is_small_over_all_channels(percentile):
    images, gradient = torch.randn(2, 3, 10, 10), torch.randn(2, 3, 10, 10)
    sizes = {
        clip_small_norm: (images**2).sum(1).sqrt(),
        clip_small_contribution: (images * gradient).sum(1).abs(),
    }
    for clip, size in sizes.items():
        clipped = clip(percentile)(images, gradient, 1)
        kept = (clipped != 0).any(1)
        assert (kept.sum((1, 2)) == 100 - percentile).all()
        for one, left in zip(size, kept, strict=True):
            assert percentile == 0 or one[left].min() > one[~left].max()
        assert torch.equal(clipped, images * kept[:, None])


def test_a_preset_is_its_steps_in_the_papers_order():
    images, gradient = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    step_by_step = images
    for step in (decay(0.1), blur(0.7, 2), clip_small_norm(20), clip_small_contribution(40)):
        step_by_step = step(step_by_step, gradient, 2)
    together = images
    for step in Preset(0.1, 0.7, 2, 20, 40):
        together = step(together, gradient, 2)
    assert torch.equal(together, step_by_step)
    assert list(Preset()) == []


def test_the_presets_are_those_of_the_paper():
    assert [
        (one.decay, one.blur_width, one.norm_percentile, one.contribution_percentile, one.iterations)
        for one in YOSINSKI.values()
    ] == [(0, 0.5, 50, 0, 500), (0.3, 0, 20, 0, 750), (1e-4, 1, 0, 0, 1000), (0, 0.5, 0, 90, 1000)]
    assert all(one.blur_every == 4 for one in YOSINSKI.values() if one.blur_width)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: decay(1.5), "rate is 1.5: give a value from 0 to 1"),
        (lambda: clip_small_norm(-1), "percentile is -1"),
        (lambda: clip_small_contribution(101), "percentile is 101"),
        (lambda: blur(0.0), r"blur\(width=0.0"),
        (lambda: blur(1.0, 0), "every=0"),
    ],
)
def test_a_strength_that_makes_no_sense_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_the_preset_decay_leaves_pixels_their_range(digits):
    """At 0.1, of all other presets, a pixel gets no further from the mean than a third of its range."""
    own, usual = (dream(digits, update_steps="decay", **options) for options in ({}, {"lr": 0.1}))
    assert (digits.model(own.inputs).argmax(1) == torch.arange(10)).all()
    assert (own.values > 2 * usual.values).all()
