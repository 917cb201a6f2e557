"""The least epsilon of an attack is the distance of the boundary where that is known, and is found for each sample."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from lightning_viz.adversarial import L2, AttackResult, fgsm, margin, minimum_epsilon, pgd
from lightning_viz.errors import AttackWarning
from tests.adversarial.watching import distances, grays, linear, watched
from tests.dream.conftest import Digits

PGD = partial(pgd, norm=L2, random_start=False, progress=False)


def test_on_a_plane_it_is_the_distance_in_l2() -> None:
    model, images = linear(lead=1.0), grays(8)
    found, truth = (
        minimum_epsilon(model, images, attack=PGD, high=4.0, binary_search_steps=12),
        distances(model, images),
    )
    assert bool(found.fooled.all())
    torch.testing.assert_close(found.epsilon, truth, rtol=0, atol=4 / 2**12 + 1e-4)
    assert bool((L2.length(found.perturbations) >= truth * 0.9999).all())


def test_on_a_plane_it_is_the_distance_in_l_inf() -> None:
    model, images = linear(lead=1.0), grays(8)
    found, truth = minimum_epsilon(model, images, attack=fgsm, high=0.25), distances(model, images, 1)
    torch.testing.assert_close(found.epsilon, truth, rtol=0, atol=0.25 / 2**10 + 1e-5)


def test_the_attack_succeeds_at_the_epsilon_found_and_not_below(digits: Digits) -> None:
    attack = partial(PGD, loss=margin, pixel_space=digits.pixel_space)
    inputs, labels = digits.images[:10], digits.labels[:10]
    found = minimum_epsilon(digits.model, inputs, labels, attack=attack, high=6.0, binary_search_steps=8)
    assert bool(found.fooled.all())
    assert bool((L2.length(found.perturbations) <= found.epsilon * 1.0001).all())
    below = (found.epsilon - 1.0001 * 6 / 2**8).clamp_min(0)
    again = attack(digits.model, inputs, labels, epsilon=torch.stack([found.epsilon, below]))
    assert bool(again.fooled[0].all())
    assert again.fooled[1].sum() <= 1  # a run is no monotone function of its radius
    assert found.epsilon.unique().numel() > 5
    with torch.no_grad():
        assert torch.equal(digits.model(found.inputs).argmax(1), found.record.classes[-1])


def test_samples_that_need_nothing_and_those_that_withstand_take_part_no_longer(digits: Digits) -> None:
    labels, rows = digits.labels[:4].clone(), []
    labels[1] = (labels[1] + 1) % 10

    def attack(model: nn.Module, inputs: Tensor, labels: Tensor, *, epsilon: Tensor) -> AttackResult:
        rows.append(epsilon.shape)
        return PGD(model, inputs, labels, epsilon=epsilon, pixel_space=digits.pixel_space)

    high = torch.tensor([6.0, 6.0, 0.01, 6.0])
    with pytest.warns(AttackWarning, match=r"does not fool the model on samples \[2\]"):
        found = minimum_epsilon(
            digits.model, digits.images[:4], labels, attack=attack, high=high, binary_search_steps=3
        )
    assert rows == [(1, 4), (1, 2), (1, 2), (1, 2)]
    assert found.epsilon[1] == 0
    assert found.epsilon[2] == torch.inf
    assert found.fooled.tolist() == [True, True, False, True]
    assert not bool(found.perturbations[1:3].any())


def test_it_counts_all_runs_and_leaves_the_model_as_found(digits: Digits) -> None:
    with watched(digits.model) as seen:
        found = minimum_epsilon(
            digits.model,
            digits.images[:4],
            attack=partial(PGD, pixel_space=digits.pixel_space),
            high=6.0,
            binary_search_steps=4,
        )
    assert sum(seen.sizes) == found.queries.sum()
    assert len(found.record.l2) == 1 + 5  # the sample, the run at `high`, four halvings
    assert bool((found.record.l2[2:] <= found.record.l2[1:-1] + 0.05).all())
    assert 0 <= found.pixels.min() <= found.pixels.max() <= 1


def test_a_target_is_reached(digits: Digits) -> None:
    others = digits.labels[:20] != 3
    attack = partial(PGD, target=3, pixel_space=digits.pixel_space)
    inputs, labels = digits.images[:20][others][:4], digits.labels[:20][others][:4]
    found = minimum_epsilon(digits.model, inputs, labels, attack=attack, high=10.0, binary_search_steps=4)
    assert found.record.classes[-1].tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"binary_search_steps": 0}, ValueError, "binary_search_steps=0"),
        ({"high": 0.0}, ValueError, "positive"),
        ({"high": float("nan")}, ValueError, "positive"),
        ({"high": torch.ones(3)}, ValueError, r"high is \[3\] for 2 samples"),
        ({"high": 100.0}, ValueError, "whole range"),
        ({"attack": lambda model, inputs, labels, epsilon: inputs}, TypeError, "returns Tensor"),
        (
            {"attack": lambda model, inputs, labels, epsilon: PGD(model, inputs, epsilon=[0.1, 0.2])},
            ValueError,
            "one each",
        ),
    ],
)
def test_what_makes_no_sense_is_said(options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        minimum_epsilon(linear(), grays(2), **{"attack": PGD, **options})
