"""The search over presets: it finds the best by its criterion, which is the formula that it says it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lightning_viz.dream import YOSINSKI, PriorSearch, maximize, search_priors
from lightning_viz.dream.prior_search import natural, radial_spectrum, random_preset
from lightning_viz.hooks import channel, logit
from lightning_viz.pixels import PixelSpace

OBJECTIVES = [logit(0), logit(8)]


@pytest.fixture(scope="module")
def search(digits) -> PriorSearch:
    return search_priors(
        digits.model,
        OBJECTIVES,
        image=(1, 28, 28),
        references=digits.images,
        trials=12,
        pixel_space=digits.pixel_space,
        steps=50,
        progress=False,
    )


def test_the_best_is_nearer_to_real_samples_than_a_dream_without_steps(digits, search):
    criterion = natural(digits.model, OBJECTIVES, digits.images, pixel_space=digits.pixel_space)
    free = maximize(
        digits.model, OBJECTIVES, image=(1, 28, 28), pixel_space=digits.pixel_space, steps=50, progress=False
    )
    assert (criterion(search.dream) > criterion(free) + 1).all()
    with torch.no_grad():
        level = digits.model(digits.images)[:, [0, 8]].quantile(0.9, dim=0)
    assert (search.dream.values > level).all()


def test_presets_are_ranked_and_the_dream_is_the_firsts(digits, search):
    means = search.scores.mean(1)
    assert len(search.presets) == 12 and search.scores.shape == (12, 2)
    assert (means.diff() <= 0).all() and means[0] > means[-1]
    for place in (0, -1):
        again = maximize(
            digits.model,
            OBJECTIVES,
            image=(1, 28, 28),
            pixel_space=digits.pixel_space,
            update_steps=search.presets[place],
            steps=50,
            progress=False,
        )
        criterion = natural(digits.model, OBJECTIVES, digits.images, pixel_space=digits.pixel_space)
        assert torch.equal(criterion(again), search.scores[place])
        assert torch.equal(again.images, search.dream.images) == (place == 0)


def small_net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 7, 5)).eval()


@pytest.mark.parametrize("pixel_space", [PixelSpace(), PixelSpace((0.3,), (0.2,))])
def test_another_criterion_decides_and_chance_is_the_seeds(pixel_space):
    def run(seed):
        options = {"trials": 6, "steps": 8, "pixel_space": pixel_space, "copies": 2, "seed": seed, "progress": False}
        return search_priors(
            small_net(),
            channel("0", 1),
            image=(3, 8, 9),
            criterion=lambda dream: -dream.images.flatten(1).norm(dim=1),
            **options,
        )

    first = run(0)
    assert (-first.dream.images.flatten(1).norm(dim=1)).tolist() == first.scores[0].tolist()
    assert first.scores.shape == (6, 2) and first.scores.mean(1).argmax() == 0
    assert run(0).presets == first.presets and torch.equal(run(0).dream.images, first.dream.images)
    assert run(1).presets != first.presets


def test_the_model_is_left_as_found():
    model = small_net()
    references = torch.rand(5, 3, 8, 9)
    chance = torch.get_rng_state()
    search_priors(model, logit(1), image=(3, 8, 9), references=references, trials=2, steps=2, progress=False)
    assert all(one.requires_grad and one.grad is None for one in model.parameters())
    assert not any(one._forward_hooks for one in model.modules())
    assert torch.equal(torch.get_rng_state(), chance)


def test_the_criterion_is_its_formula():
    model, pixel_space = small_net(), PixelSpace((0.4,), (0.3,))
    asked, references = [logit(1), channel("0", 2)], torch.randn(300, 3, 8, 9)
    criterion = natural(model, asked, references, pixel_space=pixel_space)
    dream = maximize(model, asked, image=(3, 8, 9), pixel_space=pixel_space, steps=1, copies=2, progress=False)
    dream = replace(dream, images=torch.randn(4, 3, 8, 9), values=torch.tensor([-0.5, 100.0, -3.0, 2.0]))
    with torch.no_grad():
        values = np.stack([model(references)[:, 1].numpy(), model[0](references)[:, 2].sum((1, 2)).numpy()])
    usual = radial_spectrum(references).mean(0).numpy()
    unlike = np.sqrt(((radial_spectrum(dream.images).numpy() - usual) ** 2).mean(1))
    level, spread = np.quantile(values, 0.9, axis=1).repeat(2), values.std(1, ddof=1).repeat(2)
    lacking = np.maximum(0, (level - dream.values.numpy()) / spread)
    assert lacking[0] > 0 and lacking[1] == 0
    np.testing.assert_allclose(criterion(dream).numpy(), -unlike - lacking, rtol=1e-4)


@pytest.mark.parametrize("size", [(12, 12), (9, 14), (15, 8)])
def test_a_spectrum_has_the_power_of_each_ring_whatever_the_contrast(size):
    images = torch.randn(2, 3, *size, dtype=torch.float64) + 5
    power = np.abs(np.fft.fft2(images.numpy())) ** 2
    count = min(size) // 2
    rings = np.zeros((2, count))
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = (min(place, side - place) / side for place, side in zip((row, column), size, strict=True))
            ring = int(np.rint(np.float32(np.hypot(y, x) * min(size))))
            if 1 <= ring <= count:
                rings[:, ring - 1] += power[:, :, row, column].sum(1)
    wanted = np.log(rings / rings.sum(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(radial_spectrum(images).numpy(), wanted, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(radial_spectrum(3 * images + 1), radial_spectrum(images), rtol=1e-3, atol=1e-4)


def test_a_wave_is_all_in_its_ring():
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(16) / 16).expand(1, 1, 16, 16)
    shares = radial_spectrum(wave).exp()[0]
    assert shares[2] == pytest.approx(1, abs=1e-5) and shares.sum() == pytest.approx(1, abs=1e-4)


def test_presets_are_drawn_from_ranges_that_hold_the_papers():
    rng = np.random.default_rng(0)
    drawn = [random_preset(rng, 100) for _ in range(2000)]
    for name in ("decay", "blur_width", "norm_percentile", "contribution_percentile"):
        strengths = np.array([getattr(one, name) for one in drawn])
        assert (strengths > 0).mean() == pytest.approx(0.5, abs=0.05)
        papers = [getattr(one, name) for one in YOSINSKI.values() if getattr(one, name)]
        assert strengths[strengths > 0].min() <= min(papers) * 1.05 and strengths.max() >= max(papers) / 1.05
    assert {one.blur_every for one in drawn} == set(range(1, 9))
    assert {one.iterations for one in drawn} == {100}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "Give real samples as references, or a criterion"),
        ({"references": torch.rand(1, 3, 8, 9)}, "1 references: give two or more"),
        ({"references": torch.rand(3, 3, 8, 9), "trials": 0}, "trials=0"),
        ({"criterion": lambda dream: dream.values.mean()}, r"criterion gave \[\] for 1 images"),
    ],
)
def test_what_makes_no_sense_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        search_priors(small_net(), logit(1), image=(3, 8, 9), steps=1, progress=False, **options)


class Writing(nn.Module):
    """Writes to what it is given, before anything else."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, x):
        return self.net(x.sub_(1.0))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_references_stay_as_they_are_and_may_be_in_half_precision(kind):
    references = torch.rand(5, 3, 8, 9).to(kind)
    before = references.clone()
    found = search_priors(
        Writing().eval().to(kind), logit(1), image=(3, 8, 9), references=references, trials=2, steps=2, progress=False
    )
    assert found.scores.isfinite().all()
    assert torch.equal(references, before)
