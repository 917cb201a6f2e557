"""Carlini and Wagner's attack finds nothing longer than foolbox's does, and on planes nearly what geometry says."""

import pytest
import torch
from torch import Tensor, nn

from lightning_viz.adversarial import L2, carlini_wagner, deepfool, margin
from lightning_viz.errors import AttackWarning
from lightning_viz.pixels import PixelSpace
from tests.adversarial.oracles import foolbox
from tests.adversarial.watching import distances, grays, linear, watched
from tests.dream.conftest import Digits


def foolboxs(
    model: nn.Module, pixels: Tensor, wanted: object, pixel_space: PixelSpace | None, **options: float
) -> Tensor:
    """The lengths of foolbox's perturbations; infinite for an image that was not found, which foolbox leaves black."""
    preprocessing = pixel_space and {"mean": pixel_space.mean, "std": pixel_space.std, "axis": -3}
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), preprocessing=preprocessing, device="cpu")
    found, _, success = foolbox.attacks.L2CarliniWagnerAttack(**options)(wrapped, pixels, wanted, epsilons=None)
    return torch.where(success & found.flatten(1).any(1), L2.length(found - pixels), torch.inf)


@pytest.mark.parametrize("targeted", [False, True], ids=["away", "to a target"])
def test_it_finds_nothing_longer_than_foolbox_on_digits(targeted: bool, digits: Digits) -> None:
    inputs, labels = digits.images[:8], digits.labels[:8]
    target = (labels + 1) % 10
    wanted = (
        foolbox.criteria.TargetedMisclassification(target) if targeted else foolbox.criteria.Misclassification(labels)
    )
    pixels = digits.pixel_space.to_pixels(inputs)
    theirs = foolboxs(
        digits.model,
        pixels,
        wanted,
        digits.pixel_space,
        binary_search_steps=4,
        steps=50,
        stepsize=0.03,
        initial_const=1.0,
    )
    ours = carlini_wagner(
        digits.model,
        inputs,
        labels,
        target=target if targeted else None,
        binary_search_steps=4,
        steps=50,
        lr=0.03,
        initial_const=1.0,
        pixel_space=digits.pixel_space,
    )
    assert bool((ours.fooled | theirs.isinf()).all())
    both = ours.fooled & theirs.isfinite()
    assert both.sum() >= 6
    assert ours.record.l2[-1][both].mean() <= theirs[both].mean()


def test_it_finds_nothing_longer_than_foolbox_on_a_linear_classifier() -> None:
    model, images = linear(5, lead=0.5), grays(8)
    seen = model(images).argmax(1)
    theirs = foolboxs(
        model,
        images,
        foolbox.criteria.Misclassification(seen),
        None,
        binary_search_steps=6,
        steps=60,
        initial_const=0.1,
    )
    ours = carlini_wagner(model, images, binary_search_steps=6, steps=60, initial_const=0.1)
    assert bool(ours.fooled.all())
    assert ours.record.l2[-1].mean() <= theirs.mean()


def test_on_planes_it_comes_to_their_distance_and_below_deep_fool() -> None:
    model, images = linear(lead=0.5), grays(6)
    found, truth = (
        carlini_wagner(model, images, binary_search_steps=7, steps=150, initial_const=0.1).record.l2[-1],
        distances(model, images),
    )
    assert bool((found >= truth * 0.9999).all())
    assert found.mean() < 1.02 * truth.mean()
    assert found.mean() <= deepfool(model, images).record.l2[-1].mean() * 1.001


def test_the_wrong_class_leads_by_the_confidence(digits: Digits) -> None:
    inputs, labels = digits.images[:4], digits.labels[:4]
    found = carlini_wagner(
        digits.model,
        inputs,
        labels,
        confidence=3.0,
        binary_search_steps=3,
        steps=30,
        lr=0.1,
        initial_const=1.0,
        pixel_space=digits.pixel_space,
    )
    least = carlini_wagner(
        digits.model,
        inputs,
        labels,
        binary_search_steps=3,
        steps=30,
        lr=0.1,
        initial_const=1.0,
        pixel_space=digits.pixel_space,
    )
    with torch.no_grad():
        leads = [margin(digits.model(one.inputs), labels) for one in (found, least)]
    assert bool(found.fooled.all())
    assert bool((leads[0] > 2.999).all())
    assert bool((leads[1] < 1).all())
    assert bool((found.record.l2[-1] > least.record.l2[-1]).all())


@pytest.mark.parametrize("seed", range(3))
def test_pixels_stay_within_their_bounds(seed: int, digits: Digits) -> None:
    pixels = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(seed)).round()  # black and white
    inputs = digits.pixel_space.to_inputs(pixels)
    found = carlini_wagner(
        digits.model, inputs, binary_search_steps=2, steps=10, lr=5.0, initial_const=1e3, pixel_space=digits.pixel_space
    )
    assert bool(found.fooled.any())
    assert 0 <= found.pixels.min() <= found.pixels.max() <= 1


def test_leaving_early_changes_nothing_but_the_cost(digits: Digits) -> None:
    model, inputs, pixel_space = digits.model, digits.images[:4], digits.pixel_space
    early, late = (
        carlini_wagner(model, inputs, binary_search_steps=6, steps=60, abort_early=leave, pixel_space=pixel_space)
        for leave in (True, False)
    )
    torch.testing.assert_close(early.record.l2, late.record.l2, rtol=1e-4, atol=1e-4)
    assert early.queries.sum() < 0.9 * late.queries.sum()


def test_company_changes_nothing(digits: Digits) -> None:
    together = carlini_wagner(
        digits.model,
        digits.images[:3],
        binary_search_steps=3,
        steps=20,
        lr=0.1,
        initial_const=1.0,
        pixel_space=digits.pixel_space,
    )
    split = carlini_wagner(
        digits.model,
        digits.images[:3],
        binary_search_steps=3,
        steps=20,
        lr=0.1,
        initial_const=1.0,
        pixel_space=digits.pixel_space,
        batch_size=2,
    )
    alone = [
        carlini_wagner(
            digits.model,
            digits.images[one : one + 1],
            binary_search_steps=3,
            steps=20,
            lr=0.1,
            initial_const=1.0,
            pixel_space=digits.pixel_space,
        )
        for one in range(3)
    ]
    torch.testing.assert_close(torch.cat([one.pixels for one in alone]), together.pixels, rtol=0, atol=1e-3)
    torch.testing.assert_close(split.pixels, together.pixels, rtol=0, atol=1e-3)


def test_it_counts_what_it_asks_and_leaves_the_model_as_found(digits: Digits) -> None:
    labels = digits.labels[:5].clone()
    labels[0] = (labels[0] + 1) % 10
    with watched(digits.model) as seen:
        found = carlini_wagner(
            digits.model,
            digits.images[:5],
            labels,
            binary_search_steps=3,
            steps=20,
            lr=0.1,
            initial_const=1.0,
            pixel_space=digits.pixel_space,
        )
    assert found.queries[0] == 1  # wrong from the start: nothing to do
    assert not bool(found.perturbations[0].any())
    assert sum(seen.sizes) == found.queries.sum()
    assert max(seen.sizes[1:]) == 4


def test_the_record_holds_the_nearest_image_after_each_search(digits: Digits) -> None:
    found = carlini_wagner(
        digits.model,
        digits.images[:4],
        binary_search_steps=4,
        steps=30,
        lr=0.1,
        initial_const=0.1,
        pixel_space=digits.pixel_space,
    )
    assert len(found.record.l2) == 1 + 4 + 1  # the sample, the searches, the way back
    known = torch.where(found.record.l2 > 0, found.record.l2, torch.inf)
    assert bool((known[1:] <= known[:-1]).all())
    with torch.no_grad():
        classes = digits.model(found.inputs).argmax(1)
    assert torch.equal(classes, found.record.classes[-1])
    assert bool((classes != found.labels).all())


def test_the_image_found_is_at_the_boundary(digits: Digits) -> None:
    found = carlini_wagner(
        digits.model,
        digits.images[:4],
        binary_search_steps=3,
        steps=30,
        lr=0.1,
        initial_const=1.0,
        pixel_space=digits.pixel_space,
    )
    with torch.no_grad():
        before = digits.model(digits.pixel_space.to_inputs(found.original + 0.997 * found.perturbations)).argmax(1)
    assert bool(found.fooled.all())
    assert torch.equal(before, found.labels)


def test_what_was_not_found_is_said_and_stays(digits: Digits) -> None:
    with pytest.warns(AttackWarning, match=r"samples \[0, 1\]: no image fooled"):
        found = carlini_wagner(
            digits.model, digits.images[:2], binary_search_steps=1, steps=3, pixel_space=digits.pixel_space
        )
    assert torch.equal(found.pixels, found.original)
    assert not bool(found.fooled.any())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"binary_search_steps": 0}, "binary_search_steps=0"),
        ({"steps": 0}, "steps=0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"initial_const": 0.0}, "initial_const=0.0"),
        ({"confidence": -1.0}, "confidence=-1.0"),
        ({"target": 2}, "out of range"),
    ],
)
def test_what_makes_no_sense_is_said(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        carlini_wagner(linear(), grays(1), **options)
