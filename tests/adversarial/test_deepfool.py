"""DeepFool finds what foolbox's does, and on planes what geometry says; it costs a forward and a backward a rival."""

import pytest
import torch
from torch import nn

from lightning_viz.adversarial import L2, LINF, Norm, deepfool
from lightning_viz.errors import AttackWarning
from tests.adversarial.conftest import Given
from tests.adversarial.oracles import foolbox
from tests.adversarial.watching import distances, grays, linear, watched
from tests.dream.conftest import Digits

ORACLES = {L2: foolbox.attacks.L2DeepFoolAttack(), LINF: foolbox.attacks.LinfDeepFoolAttack()}


@pytest.mark.parametrize("norm", ORACLES, ids=lambda norm: norm.name)
def test_its_perturbations_are_as_long_as_those_of_foolbox(norm: Norm, given: Given) -> None:
    pixel_space = given.pixel_space and {"mean": given.pixel_space.mean, "std": given.pixel_space.std, "axis": -3}
    model = foolbox.PyTorchModel(given.model, bounds=(0, 1), preprocessing=pixel_space, device="cpu")
    with torch.no_grad():
        seen = given.model(given.inputs).argmax(1)
    theirs, _, _ = ORACLES[norm](model, given.pixels, seen, epsilons=None)
    ours = deepfool(given.model, given.inputs, norm=norm, pixel_space=given.pixel_space)
    assert bool(ours.fooled.all())
    torch.testing.assert_close(norm.length(ours.perturbations), norm.length(theirs - given.pixels), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("norm", "dual"), [(L2, 2), (LINF, 1)], ids=["L2", "L-inf"])
def test_a_plane_is_reached_in_one_step_of_its_distance(norm: Norm, dual: float) -> None:
    model, images = linear(5), grays(8)
    found = deepfool(model, images, norm=norm, overshoot=0.0)
    assert found.first_success_step.tolist() == [1] * 8
    torch.testing.assert_close(
        norm.length(found.perturbations), distances(model, images, dual) + 1e-4, rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("norm", [L2, LINF], ids=lambda norm: norm.name)
@pytest.mark.parametrize("seed", range(3))
def test_pixels_stay_within_their_bounds(norm: Norm, seed: int, given: Given) -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed)).round()  # black and white
    inputs = images if given.pixel_space is None else given.pixel_space.to_inputs(images)
    found = deepfool(given.model, inputs, norm=norm, overshoot=20.0, pixel_space=given.pixel_space, steps=3)
    assert 0 <= found.pixels.min() <= found.pixels.max() <= 1
    assert bool((found.perturbations != 0).any())


def test_it_asks_a_forward_and_a_backward_for_each_rival_of_those_who_are_left(digits: Digits) -> None:
    with watched(digits.model) as seen:
        found = deepfool(digits.model, digits.images[:12], candidates=4, pixel_space=digits.pixel_space)
    assert bool(found.fooled.all())
    assert found.queries.tolist() == (found.first_success_step + 1).tolist()
    assert found.backwards.tolist() == (3 * found.first_success_step).tolist()
    assert sum(seen.sizes) == found.queries.sum()
    assert seen.sizes == sorted(seen.sizes, reverse=True)
    assert seen.sizes[-1] < 12
    assert seen.backwards == found.backwards.sum()


def test_batches_change_nothing(digits: Digits) -> None:
    whole = deepfool(digits.model, digits.images[:10], pixel_space=digits.pixel_space)
    parts = deepfool(digits.model, digits.images[:10], pixel_space=digits.pixel_space, batch_size=3)
    torch.testing.assert_close(parts.pixels, whole.pixels, rtol=0, atol=1e-5)
    assert torch.equal(parts.queries, whole.queries)


def test_samples_that_the_model_has_wrong_are_left_alone(digits: Digits) -> None:
    labels = digits.labels[:6].clone()
    labels[::2] = (labels[::2] + 1) % 10
    found = deepfool(digits.model, digits.images[:6], labels, pixel_space=digits.pixel_space)
    assert found.first_success_step[::2].tolist() == [0, 0, 0]
    assert not bool(found.perturbations[::2].any())
    assert bool(found.fooled.all())
    assert found.backwards[::2].tolist() == [0, 0, 0]


def test_fewer_rivals_find_no_nearer_plane() -> None:
    model, images = linear(6), grays(12)
    with torch.no_grad():
        model[1].weight *= torch.arange(1.0, 7)[:, None]  # steep classes are near, also where others score higher
    lengths = [deepfool(model, images, candidates=many).record.l2[-1] for many in (2, 6, 10)]
    assert bool((lengths[0] >= lengths[1] - 1e-6).all())
    assert bool((lengths[0] > lengths[1] + 1e-3).any())
    assert torch.equal(lengths[1], lengths[2])  # there are no more than six


def test_the_steps_asked_for_are_the_most(digits: Digits) -> None:
    found = deepfool(digits.model, digits.images[:12], pixel_space=digits.pixel_space, steps=1)
    assert len(found.record.classes) == 2
    assert not bool(found.fooled.all())


def test_a_flat_model_is_said() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    nn.init.zeros_(model[1].weight)
    with pytest.warns(AttackWarning, match=r"deepfool left unchanged samples \[0, 1\]"):
        found = deepfool(model, grays(2), steps=2)
    assert torch.equal(found.pixels, found.original)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"steps": 0}, "1 step"), ({"candidates": 1}, "2 candidates"), ({"overshoot": -1.0}, "overshoot=-1.0")],
)
def test_what_makes_no_sense_is_said(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        deepfool(linear(), grays(1), **options)
