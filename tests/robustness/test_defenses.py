"""What a defense gives back is counted on clean and attacked samples alike; accuracy falls as epsilon grows."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from lightning_viz.adversarial import L2, fgsm, pgd
from lightning_viz.robustness import DEFENSES, bit_depth, defenses, epsilon_curve
from tests.dream.conftest import Digits


@pytest.fixture(scope="module")
def attack(digits: Digits) -> partial:
    return partial(pgd, pixel_space=digits.pixel_space, steps=5, progress=False)


def test_the_shares_are_those_of_the_model_on_the_changed_pixels(digits: Digits, attack: partial) -> None:
    inputs, labels = digits.images[:50], digits.labels[:50]
    found = attack(digits.model, inputs, labels, epsilon=[0.1, 0.2])
    seen = defenses(digits.model, found, batch_size=30)
    assert seen.names == tuple(DEFENSES)
    assert seen.clean.shape == (len(DEFENSES),) and seen.attacked.shape == (len(DEFENSES), 2)
    assert torch.allclose(seen.attacked[0], found.accuracy.double())
    pixels = (digits.pixel_space.to_pixels(inputs) * 7).round() / 7
    expected = (digits.model(digits.pixel_space.to_inputs(pixels)).argmax(1) == labels).double().mean()
    assert seen.clean[seen.names.index("3 bits")] == expected


def test_smoothing_undoes_some_of_an_attack_that_did_not_know_of_it(digits: Digits, attack: partial) -> None:
    found = attack(digits.model, digits.images[:200], digits.labels[:200], epsilon=0.12)
    seen = defenses(digits.model, found)
    share = dict(zip(seen.names, seen.attacked.tolist(), strict=True))
    assert share["median 3 x 3"] > share["none"] + 0.1
    assert share["Gaussian 1 px"] > share["none"] + 0.1


@pytest.mark.parametrize("name", DEFENSES)
def test_a_defense_hurts_an_image_little_and_is_the_same_again(name: str) -> None:
    images = np.random.default_rng(0).uniform(0.3, 0.7, (2, 3, 24, 24))
    images = np.repeat(np.repeat(images[:, :, ::8, ::8], 8, axis=2), 8, axis=3)
    changed = DEFENSES[name](images)
    assert np.array_equal(changed, DEFENSES[name](images))
    assert np.abs(changed - images).mean() < 0.1
    assert (changed == images).all() == (name in ("none",))


def test_fewer_bits_are_fewer_gray_levels() -> None:
    assert len(np.unique(bit_depth(2)(np.linspace(0, 1, 1000)))) == 4


@pytest.mark.parametrize("norm", ["L-inf", "L2"])
def test_the_curve_is_the_share_that_no_smaller_epsilon_turns(norm: str, digits: Digits, attack: partial) -> None:
    inputs, labels = digits.images[:60], (digits.labels[:60] + (torch.arange(60) < 3)) % 10
    epsilons, attack = [0.3, 0, 0.1, 0.2], attack
    if norm == "L2":
        epsilons, attack = [3, 0, 1, 2], partial(attack, norm=L2)
    curve = epsilon_curve(digits.model, inputs, labels, epsilons, attack=attack, progress=False)
    assert curve.epsilons.tolist() == sorted(epsilons)
    assert curve.accuracy[0] == (digits.model(inputs).argmax(1) == labels).double().mean() < 1
    fooled = torch.zeros(60, dtype=torch.bool)
    for epsilon, accuracy in zip(curve.epsilons.tolist()[1:], curve.accuracy.tolist()[1:], strict=True):
        alone = attack(digits.model, inputs, labels, epsilon=epsilon).fooled
        assert abs((fooled | alone).double().mean() + accuracy - 1) < 0.05  # its random starts are others
        fooled |= alone
    assert bool((curve.accuracy.diff() <= 0).all()) and curve.accuracy[-1] < curve.accuracy[0] - 0.3


def test_samples_that_have_turned_are_not_attacked_again(digits: Digits) -> None:
    asked = []

    def attack(model, inputs, labels, *, epsilon):
        found = fgsm(model, inputs, labels, epsilon=epsilon, pixel_space=digits.pixel_space)
        asked.append((len(inputs), int(found.fooled.sum())))
        return found

    epsilon_curve(
        digits.model, digits.images[:60], digits.labels[:60], [0, 0.03, 0.06, 0.1], attack=attack, progress=False
    )
    assert len(asked) == 3
    assert all(after[0] == before[0] - before[1] for before, after in pairwise(asked))


def test_what_makes_no_sense_is_said(digits: Digits, attack: partial) -> None:
    inputs, labels = digits.images[:2], digits.labels[:2]
    for epsilons in ([], [0], [-1, 1]):
        with pytest.raises(ValueError, match="one or more above 0"):
            epsilon_curve(digits.model, inputs, labels, epsilons, attack=attack)
    flat = torch.nn.Linear(4, 3).eval()
    with pytest.raises(ValueError, match=r"defenses smooth and encode images; pass \[N, C, H, W\]"):
        defenses(flat, fgsm(flat, torch.rand(2, 4), epsilon=0.5))
    found = attack(digits.model, inputs, labels, epsilon=0.1)
    with pytest.raises(ValueError, match="the defense 'crop' makes"):
        defenses(digits.model, found, ways={"crop": lambda images: images[:, :, 2:]})
