"""FGSM and PGD are what torchattacks and foolbox compute, bounded in pixels, and cost what the mathematics needs."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz.adversarial import L2, LINF, AttackResult, Norm, deepfool, fgsm, gradient_ascent, margin, pgd, square
from lightning_viz.adversarial.norms import per_sample
from lightning_viz.errors import AttackWarning
from lightning_viz.pixels import PixelSpace
from tests.adversarial.conftest import Given
from tests.adversarial.oracles import foolbox, torchattacks
from tests.adversarial.watching import grays, linear
from tests.dream.conftest import Digits

PGD = partial(pgd, steps=5, random_start=False, stop_on_success=False, progress=False)

CASES = {
    "fgsm": (
        partial(fgsm, epsilon=4 / 255, stop_on_success=False),
        partial(torchattacks.FGSM, eps=4 / 255),
        foolbox.attacks.FGSM(random_start=False),
        4 / 255,
    ),
    "pgd": (
        partial(PGD, epsilon=4 / 255, step_size=1 / 255),
        partial(torchattacks.PGD, eps=4 / 255, alpha=1 / 255, steps=5, random_start=False),
        foolbox.attacks.LinfPGD(abs_stepsize=1 / 255, steps=5, random_start=False),
        4 / 255,
    ),
    "pgd_l2": (
        partial(PGD, epsilon=1.0, step_size=0.3, norm=L2),
        partial(torchattacks.PGDL2, eps=1.0, alpha=0.3, steps=5, random_start=False),
        foolbox.attacks.L2PGD(abs_stepsize=0.3, steps=5, random_start=False),
        1.0,
    ),
}


@dataclass
class Tally:
    forwards: int = 0
    backwards: int = 0

    def back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


class Counted(nn.Module):
    """Counts the images that it is shown, and those that a gradient comes back to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.tally = model, Tally()

    def forward(self, inputs: Tensor) -> Tensor:
        self.tally.forwards += len(inputs)
        if inputs.requires_grad:
            inputs.register_hook(self.tally.back)
        return self.model(inputs)


def in_precision(given: Given, name: str) -> Given:
    """In L2 the order of operations differs, and a ReLU's bend makes much of a last bit: there in double precision."""
    if name != "pgd_l2":
        return given
    return given._replace(model=deepcopy(given.model).double(), inputs=given.inputs.double())


@pytest.mark.parametrize("name", CASES)
def test_it_equals_torchattacks(name: str, given: Given) -> None:
    ours, theirs, _, _ = CASES[name]
    given = in_precision(given, name)
    attack = theirs(given.model)
    if given.pixel_space is not None:
        attack.set_normalization_used(list(given.pixel_space.mean), list(given.pixel_space.std))
    expected = attack(given.inputs.clone(), given.labels)
    if given.pixel_space is not None:
        expected = given.pixel_space.to_pixels(expected)
    found = ours(given.model, given.inputs, given.labels, pixel_space=given.pixel_space)
    exact = given.pixel_space is None and name != "pgd_l2"  # they multiply where we divide
    assert (found.pixels - expected).abs().max() <= (0 if exact else 1e-6)
    assert (found.pixels - given.pixels).abs().max() > 0.01


@pytest.mark.parametrize("name", CASES)
def test_it_equals_foolbox(name: str, given: Given) -> None:
    ours, _, theirs, epsilon = CASES[name]
    given = in_precision(given, name)
    preprocessing = None
    if given.pixel_space is not None:
        preprocessing = {"mean": given.pixel_space.mean, "std": given.pixel_space.std, "axis": -3}
    model = foolbox.PyTorchModel(given.model, bounds=(0, 1), preprocessing=preprocessing, device="cpu")
    expected = theirs(model, given.pixels, given.labels, epsilons=epsilon)[1]
    given.model.zero_grad(set_to_none=True)  # theirs fills it
    found = ours(given.model, given.inputs, given.labels, pixel_space=given.pixel_space)
    exact = given.pixel_space is None and name != "pgd_l2"
    assert (found.pixels - expected).abs().max() <= (0 if exact else 1e-6)


@pytest.mark.parametrize("target", [None, 3])
@pytest.mark.parametrize("norm", [LINF, L2], ids=lambda norm: norm.name)
@pytest.mark.parametrize("seed", range(5))
def test_no_perturbation_leaves_its_ball_or_the_pixels(
    seed: int, norm: Norm, target: int | None, digits: Digits
) -> None:
    generator = torch.Generator().manual_seed(seed)
    some = torch.randperm(len(digits.images), generator=generator)
    some = some[digits.labels[some] != 3][:12]
    epsilon = torch.rand(3, generator=generator) * (0.5 if norm is LINF else 6)
    found = pgd(
        digits.model, digits.images[some], digits.labels[some], epsilon=epsilon, norm=norm, target=target,
        steps=4, step_size=float(epsilon.max()), restarts=2, seed=seed, pixel_space=digits.pixel_space,
        stop_on_success=bool(seed % 2),
        progress=False,
    )  # fmt: skip
    lengths = torch.stack([norm.length(one) for one in found.perturbations])
    assert bool((lengths <= epsilon[:, None] + 1e-5).all())
    assert 0 <= found.pixels.min() <= found.pixels.max() <= 1
    assert bool((lengths.max(1).values > 0.2 * epsilon).all())


@pytest.mark.parametrize("norm", [LINF, L2], ids=lambda norm: norm.name)
def test_a_random_start_is_uniform_in_its_ball(norm: Norm) -> None:
    starts = norm.inside(torch.zeros(4000, 2), torch.Generator().manual_seed(0))
    lengths = norm.length(starts)
    assert lengths.max() <= 1
    assert (lengths < 0.5**0.5).float().mean() == pytest.approx(0.5, abs=0.03)  # half of the area in both norms
    assert starts.mean(0).abs().max() < 0.05


@pytest.mark.filterwarnings("ignore:gradient_ascent left unchanged")
def test_the_recorded_steps_are_those_of_the_formula(digits: Digits) -> None:
    inputs, labels = digits.images[:6].clone(), digits.labels[:6]
    found = gradient_ascent(
        digits.model, inputs, labels, steps=3, lr=0.5, pixel_space=digits.pixel_space, stop_on_success=False
    )
    start = digits.pixel_space.to_pixels(inputs)
    pixels = start
    for step in range(4):
        leaf = pixels.clone().requires_grad_()
        scores = digits.model(digits.pixel_space.to_inputs(leaf))
        losses = F.cross_entropy(scores.double(), labels, reduction="none")
        moved = (pixels - start).flatten(1)
        torch.testing.assert_close(found.record.classes[step], scores.argmax(1))
        torch.testing.assert_close(found.record.confidences[step], scores.softmax(1).amax(1).detach())
        torch.testing.assert_close(found.record.losses[step].double(), losses.detach(), rtol=1e-4, atol=1e-12)
        torch.testing.assert_close(found.record.l2[step], moved.norm(dim=1), rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(found.record.linf[step], moved.abs().amax(1), rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(found.record.relative[step], moved.norm(dim=1) / start.flatten(1).norm(dim=1))
        pixels = pixels + 0.5 * torch.autograd.grad(losses.sum(), leaf)[0].float()
    torch.testing.assert_close(found.record.losses[-1], found.record.losses[3])


def test_where_the_model_is_sure_the_gradient_is_that_of_double_precision(digits: Digits) -> None:
    """In single precision the usual cross entropy loses the label's own part there, and with it the direction."""
    sharp = nn.Sequential(digits.model, nn.Linear(10, 10)).eval()
    with torch.no_grad():
        sharp[1].weight.copy_(2 * torch.eye(10))
        sharp[1].bias.zero_()
    inputs, labels = digits.images[:20], digits.labels[:20]
    step = gradient_ascent(
        sharp, inputs, labels, steps=1, lr=1, normalize=L2, pixel_space=digits.pixel_space, stop_on_success=False
    )
    steps = {}
    for kind in (torch.float32, torch.float64):
        model = deepcopy(sharp).to(kind)
        leaf = digits.pixel_space.to_pixels(inputs.to(kind)).requires_grad_()
        loss = F.cross_entropy(model(digits.pixel_space.to_inputs(leaf)), labels, reduction="sum")
        steps[kind] = L2.normalize(torch.autograd.grad(loss, leaf)[0].double())
    ours = F.cosine_similarity(step.perturbations.flatten(1).double(), steps[torch.float64].flatten(1))
    usual = F.cosine_similarity(steps[torch.float32].flatten(1), steps[torch.float64].flatten(1))
    assert ours.min() > 0.99
    assert usual.min() < 0.9


def test_every_epsilon_of_a_list_is_as_if_it_were_alone(digits: Digits) -> None:
    inputs, labels = digits.images[:20], digits.labels[:20]
    for attack in (fgsm, partial(pgd, steps=4, random_start=False, progress=False)):
        both = attack(digits.model, inputs, labels, epsilon=[0.05, 0.2], pixel_space=digits.pixel_space)
        for place, epsilon in enumerate((0.05, 0.2)):
            alone = attack(digits.model, inputs, labels, epsilon=epsilon, pixel_space=digits.pixel_space)
            torch.testing.assert_close(both.pixels[place], alone.pixels, rtol=0, atol=1e-6)
            assert torch.equal(both.fooled[place], alone.fooled)
            assert torch.equal(both.queries[place], alone.queries)


def test_batches_change_nothing(digits: Digits) -> None:
    inputs, labels = digits.images[:20], digits.labels[:20]
    whole, parts = (
        pgd(
            digits.model,
            inputs,
            labels,
            epsilon=[0.1, 0.2],
            pixel_space=digits.pixel_space,
            batch_size=size,
            progress=False,
        )
        for size in (40, 7)
    )
    torch.testing.assert_close(whole.pixels, parts.pixels, rtol=0, atol=1e-5)
    assert torch.equal(whole.queries, parts.queries)


def test_it_costs_one_pass_a_step_and_less_as_samples_fall(digits: Digits) -> None:
    model, inputs, labels = Counted(digits.model).eval(), digits.images[:40], digits.labels[:40]
    all_steps = pgd(
        model,
        inputs,
        labels,
        epsilon=0.1,
        steps=6,
        random_start=False,
        stop_on_success=False,
        pixel_space=digits.pixel_space,
    )
    assert model.tally == Tally(40 * 7, 40 * 6)  # the last forward says what came of it
    assert (int(all_steps.queries.sum()), int(all_steps.backwards.sum())) == (280, 240)
    model.tally = Tally()
    found = pgd(model, inputs, labels, epsilon=0.1, steps=6, random_start=False, pixel_space=digits.pixel_space)
    assert 40 < model.tally.forwards == int(found.queries.sum()) < 280
    assert 0 < found.fooled.sum() < 40
    model.tally = Tally()
    fgsm(
        model,
        inputs,
        labels,
        epsilon=[0.01 * one for one in range(1, 11)],
        pixel_space=digits.pixel_space,
        stop_on_success=False,
    )
    assert model.tally == Tally(40 * 11, 40)  # ten epsilons, one gradient


def test_samples_that_the_model_has_wrong_are_left_alone(digits: Digits) -> None:
    labels = (digits.model(digits.images[:8]).argmax(1) + torch.tensor([0, 1] * 4)) % 10
    found = pgd(digits.model, digits.images[:8], labels, epsilon=0.2, pixel_space=digits.pixel_space, progress=False)
    assert found.initially_misclassified.tolist() == [False, True] * 4
    assert bool(found.fooled[1::2].all())
    assert found.perturbations[1::2].abs().max() == 0
    assert found.record.classes.shape == found.record.l2.shape == (len(found.record.classes), 8)
    assert found.first_success_step[1::2].tolist() == [0] * 4


def test_a_target_is_reached(digits: Digits) -> None:
    some = digits.labels != 8
    found = pgd(
        digits.model, digits.images[some][:30], digits.labels[some][:30], epsilon=0.4, steps=40, target=8,
        pixel_space=digits.pixel_space, progress=False,
    )  # fmt: skip
    assert found.success > 0.9
    assert bool((digits.model(found.inputs)[found.fooled].argmax(1) == 8).all())


def test_restarts_find_no_fewer(digits: Digits) -> None:
    inputs, labels, epsilon = digits.images[:60], digits.labels[:60], [0.06, 0.1, 0.14, 0.18]
    once, often = (
        pgd(
            digits.model,
            inputs,
            labels,
            epsilon=epsilon,
            steps=1,
            restarts=restarts,
            pixel_space=digits.pixel_space,
            progress=False,
        )
        for restarts in (1, 8)
    )
    assert bool((once.fooled <= often.fooled).all())
    assert often.fooled.sum() > once.fooled.sum()


@pytest.mark.filterwarnings("ignore:gradient_ascent left unchanged")
def test_an_ascent_goes_on_where_another_ended(digits: Digits) -> None:
    attack = partial(
        gradient_ascent, digits.model, digits.images[:10], digits.labels[:10], pixel_space=digits.pixel_space
    )
    first = attack(steps=3, stop_on_success=False)
    rest, whole = attack(steps=4, start=first.inputs, stop_on_success=False), attack(steps=7, stop_on_success=False)
    torch.testing.assert_close(rest.pixels, whole.pixels, rtol=0, atol=1e-5)
    torch.testing.assert_close(rest.record.l2[-1], whole.record.l2[-1], rtol=1e-3, atol=1e-6)


def test_a_linear_classifier_is_fooled(given: Given) -> None:
    linear = nn.Linear(12, 3)
    vectors = torch.rand(9, 12)
    found = gradient_ascent(linear.eval(), vectors, normalize=L2, steps=200)
    assert bool(found.fooled.all())


def test_the_model_is_left_as_found_and_half_precision_moves(digits: Digits) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).train()
    model[1].weight.grad = torch.ones(10, 784)
    before = model[1].weight.detach().clone()
    with pytest.warns(AttackWarning, match="train mode"):
        pgd(model, digits.images[:4], digits.labels[:4], pixel_space=digits.pixel_space, progress=False)
    assert model.training and model[1].weight.requires_grad
    assert torch.equal(model[1].weight, before)
    assert torch.equal(model[1].weight.grad, torch.ones(10, 784))
    half = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).bfloat16().eval()
    moved = pgd(
        half,
        digits.images[:4].bfloat16(),
        epsilon=0.01,
        steps=10,
        pixel_space=digits.pixel_space,
        stop_on_success=False,
    )
    assert moved.pixels.dtype is torch.float32
    assert moved.record.linf[-1].min() > 0.009


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda d: {"labels": d.labels[:4] + 10}, ValueError, "labels .* of samples .* the model has 10 classes"),
        (lambda d: {"labels": d.labels[:3]}, ValueError, r"labels are \[3\] for 4 samples"),
        (lambda d: {"labels": d.labels[:4].float()}, TypeError, "labels are torch.float32"),
        (lambda d: {"inputs": 255 * d.images[:4]}, ValueError, r"pixels from .*PixelSpace\(mean, std\)"),
        (lambda d: {"inputs": d.images[:0]}, ValueError, "at least one sample"),
        (lambda d: {"inputs": d.images[:4] * torch.nan}, ValueError, "NaN"),
        (lambda d: {"inputs": torch.zeros(4, 1, 28, 28, dtype=torch.uint8)}, TypeError, "torch.uint8"),
        (lambda d: {"target": int(d.labels[2])}, ValueError, r"the target is the label of samples \[.*2.*\]"),
        (lambda d: {"target": 10}, ValueError, r"target \[10\]"),
        (lambda d: {"epsilon": 8}, ValueError, "epsilon=8 must lie in 0 to 1.* are 0.0314"),
        (lambda d: {"epsilon": -0.1}, ValueError, "epsilon=-0.1"),
        (lambda d: {"epsilon": []}, ValueError, "epsilon is"),
        (lambda d: {"steps": 0}, ValueError, "steps=0"),
        (lambda d: {"restarts": 2, "random_start": False}, ValueError, "restarts=2"),
        (lambda d: {"step_size": 0.0}, ValueError, "step_size=0"),
        (lambda d: {"batch_size": 0}, ValueError, "batch_size=0"),
        (lambda d: {"model": nn.Sequential(nn.Flatten(1, 2), nn.Linear(28, 1))}, ValueError, "two classes or more"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said(change: Callable[[Digits], dict], error: type, words: str, digits: Digits) -> None:
    good = {
        "model": digits.model,
        "inputs": digits.images[:4],
        "labels": digits.labels[:4],
        "pixel_space": digits.pixel_space,
    }
    options = good | change(digits)
    model = options.pop("model").eval()
    with pytest.raises(error, match=words):
        pgd(model, options.pop("inputs"), options.pop("labels"), progress=False, **options)


def test_an_attack_that_changed_nothing_is_said(digits: Digits) -> None:
    class Step(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([(x.flatten(1).mean(1) > 9).float(), torch.ones(len(x))], 1) + 0 * x.flatten(1)[:, :2]

    with pytest.warns(AttackWarning, match=r"fgsm left unchanged samples \[0, 1, 2\]"):
        found = fgsm(Step().eval(), torch.rand(3, 1, 4, 4))
    assert isinstance(found, AttackResult)
    assert found.success == 0


def test_the_margin_is_the_lead_of_the_best_other_class() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.5], [0.0, 4.0, 1.0]])
    assert margin(scores, torch.tensor([0, 2])).tolist() == [-0.5, 3.0]


def test_the_norms_project_onto_the_nearest_point() -> None:
    long = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    assert torch.allclose(L2.project(long, torch.tensor([1.0, 1.0])), torch.tensor([[0.6, 0.8], [0.3, 0.4]]))
    assert LINF.project(long, torch.tensor([1.0, 0.35])).tolist() == [[1, 1], [pytest.approx(0.3), pytest.approx(0.35)]]
    assert L2.length(L2.normalize(1e-30 * long)).tolist() == pytest.approx([1, 1])  # squares of these underflow
    assert per_sample(torch.ones(2), torch.zeros(2, 3, 4)).shape == (2, 1, 1)
    assert PixelSpace().bounds == (0, 1)


@pytest.mark.parametrize("attack", [pgd, square, deepfool], ids=lambda attack: attack.__name__)
def test_norms_and_losses_are_given_by_name_or_as_objects(attack):
    options = {"progress": False} if attack is deepfool else {"progress": False, "epsilon": 0.1, "loss": margin}
    options |= {"queries": 200} if attack is square else {}
    named = {**options, **({} if attack is deepfool else {"loss": "margin"})}
    for norm, name in ((L2, "l2"), (LINF, "linf")):
        one = attack(linear(), grays(2), norm=norm, **options)
        assert torch.equal(one.pixels, attack(linear(), grays(2), norm=name, **named).pixels)
    with pytest.raises(ValueError, match="norm='l3' is unknown; pass one of 'linf', 'l2'"):
        attack(linear(), grays(2), norm="l3", **options)
