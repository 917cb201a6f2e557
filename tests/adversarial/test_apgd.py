"""APGD is what torchattacks computes from the same start, and finds what PGD of a fixed step size does not."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor

from lightning_viz.adversarial import L2, LINF, apgd, dlr, pgd
from lightning_viz.adversarial.norms import Norm, targeted_dlr
from tests.adversarial.conftest import Given
from tests.adversarial.oracles import torchattacks
from tests.adversarial.watching import grays, linear
from tests.dream.conftest import Digits

NORMS = pytest.mark.parametrize(("norm", "epsilon"), [(LINF, 4 / 255), (L2, 0.5)], ids=["linf", "l2"])


@NORMS
@pytest.mark.parametrize("steps", [5, 20])
def test_it_is_that_of_torchattacks_from_the_same_start(
    given: Given, norm: Norm, epsilon: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one start, in double precision; both return the points of the highest loss."""
    model, pixels = given.model.double(), given.pixels.double()
    inputs = pixels if given.pixel_space is None else given.pixel_space.to_inputs(pixels)
    labels = model(inputs).argmax(1).detach()
    options = {"epsilon": epsilon, "norm": norm, "steps": steps, "stop_on_success": False, "progress": False}
    ours = apgd(model, inputs, labels, pixel_space=given.pixel_space, **options)
    start = norm.inside(pixels, torch.Generator().manual_seed(0))
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: (start + 1) / 2)
    monkeypatch.setattr(torch, "randn", lambda *shape, **options: start)
    view = torch.nn.Sequential(_Normalize(given), model).eval()
    attack = torchattacks.APGD(view, norm="Linf" if norm is LINF else "L2", eps=epsilon, steps=steps, n_restarts=1)
    theirs = attack.attack_single_run(pixels, labels)[0]  # the points of the highest loss
    found = view(theirs).argmax(1) != labels
    assert (ours.fooled == found).float().mean() == 1
    losses = [torch.nn.functional.cross_entropy(view(x), labels, reduction="none") for x in (ours.pixels, theirs)]
    assert torch.allclose(*losses, rtol=0.05) or bool((losses[0] >= losses[1] - 1e-9).all())
    model.float()


class _Normalize(torch.nn.Module):
    def __init__(self, given: Given) -> None:
        super().__init__()
        self.pixel_space = given.pixel_space

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels if self.pixel_space is None else self.pixel_space.to_inputs(pixels)


def by_the_paper(model, x0, y, start, epsilon, steps):
    """Algorithm 1 of the paper for one sample in L-inf, with loops."""

    def look(x):
        x = x.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(x[None]), y[None])
        return loss.item(), torch.autograd.grad(loss, x)[0]

    def project(x):
        return x.clamp(x0 - epsilon, x0 + epsilon).clamp(0, 1)

    points, (interval, j) = {0}, (max(int(0.22 * steps), 1), 0)
    while j + interval <= steps:
        j += interval
        points.add(j)
        interval = max(interval - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    previous = x = project(start)
    (loss, gradient), eta, halved, last = look(x), 2 * epsilon, True, 0
    best = checked = loss
    best_x, best_gradient, rises = x, gradient, 0
    for k in range(steps):
        z, a = project(x + eta * gradient.sign()), 1.0 if k == 0 else 0.75
        new = project(x + a * (z - x) + (1 - a) * (x - previous))
        new_loss, gradient = look(new)
        rises += new_loss > loss
        previous, x, loss = x, new, new_loss
        if loss > best:
            best, best_x, best_gradient = loss, x, gradient
        if k + 1 in points:
            halve = rises <= 0.75 * (k + 1 - last) or (not halved and best <= checked)
            if halve:
                eta, x, gradient = eta / 2, best_x, best_gradient
            halved, checked, rises, last = halve, best, 0, k + 1
    return best_x, best


def test_it_is_the_papers_algorithm() -> None:
    model, x = linear().double(), grays(6).double()
    model = torch.nn.Sequential(model, torch.nn.Tanh(), torch.nn.Linear(model(x).shape[1], 4).double()).eval()
    labels = model(x).argmax(1).detach()
    found = apgd(model, x, labels, epsilon=0.2, steps=30, stop_on_success=False, progress=False)
    noise = LINF.inside(x, torch.Generator().manual_seed(0))
    for n in range(len(x)):
        start = x[n] + 0.2 * noise[n] / noise[n].abs().max()
        expected, _ = by_the_paper(model, x[n], labels[n], start, 0.2, 30)
        assert torch.allclose(found.pixels[n], expected, atol=1e-9)


@NORMS
def test_it_stays_within_epsilon_and_counts_its_passes(digits: Digits, norm: Norm, epsilon: float) -> None:
    inputs, labels = digits.images[:8], digits.labels[:8]
    found = apgd(
        digits.model, inputs, labels, epsilon=[epsilon, 2 * epsilon], norm=norm, steps=9, stop_on_success=False,
        pixel_space=digits.pixel_space, progress=False,
    )  # fmt: skip
    lengths = norm.length(found.perturbations.flatten(0, 1)).view(2, 8)
    assert bool((lengths <= torch.tensor([[epsilon], [2 * epsilon]]) * (1 + 1e-4) + 1e-6).all())
    assert bool((found.queries == 11).all()) and bool((found.backwards == 9).all())  # the sample, the start, 9 steps


def test_it_fools_at_least_as_many_as_pgd(digits: Digits) -> None:
    inputs, labels = digits.images[:60], digits.labels[:60]
    options = {"epsilon": 0.1, "pixel_space": digits.pixel_space, "progress": False}
    strong = apgd(digits.model, inputs, labels, steps=40, **options)
    weak = partial(pgd, step_size=0.1)(digits.model, inputs, labels, steps=40, **options)
    assert strong.success >= weak.success > 0


@pytest.mark.parametrize("classes", [3, 4, 10])
def test_dlr_is_its_formula(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    scores = torch.randn(20, classes, dtype=torch.float64, generator=generator)
    labels, target = torch.arange(20) % classes, (torch.arange(20) + 1) % classes
    torch.testing.assert_close(dlr(scores, labels), dlr(3 * scores + 5, labels))  # neither scale nor offset count
    for row, label, aim, value in zip(
        scores.tolist(), labels.tolist(), target.tolist(), dlr(scores, labels), strict=True
    ):
        first, _, third, *rest = sorted(row, reverse=True)
        rival = max(score for place, score in enumerate(row) if place != label)
        assert float(value) == pytest.approx(-(row[label] - rival) / (first - third))
        if rest:
            both = (torch.tensor([row], dtype=torch.float64), torch.tensor([label]), torch.tensor([aim]))
            expected = -(row[label] - row[aim]) / (first - (third + rest[0]) / 2)
            assert float(targeted_dlr(*both)) == pytest.approx(expected)


def test_dlr_of_too_few_classes_is_said() -> None:
    for classes, options in ((2, {}), (3, {"target": 0})):
        with pytest.raises(ValueError, match=rf"loss='dlr' needs {classes + 1} classes.*the model has {classes}"):
            apgd(linear(classes), grays(2), torch.ones(2).long(), loss="dlr", steps=2, progress=False, **options)


@NORMS
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_with_dlr_it_is_that_of_torchattacks(
    digits: Digits, norm: Norm, epsilon: float, targeted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sample by sample, since APGDT steps in L2 as far for all samples as for the first.

    Theirs takes the loss of the start for 0 when it counts the steps that raised the loss, which is mended here.
    """
    model, pixels = (
        deepcopy(digits.model).double(),
        digits.pixel_space.to_pixels(digits.images[:5]).double().clamp(0, 1),
    )
    view = torch.nn.Sequential(_Normalize(Given(model, pixels, digits.labels, digits.pixel_space)), model).eval()
    labels = view(pixels).argmax(1)
    target = view(pixels).scatter(1, labels[:, None], -torch.inf).argmax(1) if targeted else None
    options = {"epsilon": epsilon, "norm": norm, "steps": 12, "stop_on_success": False, "progress": False}
    ours = apgd(view, pixels, labels, loss="dlr", target=target, **options)
    starts = norm.inside(pixels, torch.Generator().manual_seed(0))
    how = {"norm": "Linf" if norm is LINF else "L2", "eps": epsilon, "steps": 12}
    attack = torchattacks.APGDT(view, **how) if targeted else torchattacks.APGD(view, loss="dlr", **how)
    attack.target_class = 2
    for sample in range(len(pixels)):
        start, label = starts[sample : sample + 1], labels[sample : sample + 1]
        begin = (pixels[sample] + epsilon * start / norm.length(start)).clamp(0, 1)
        scores, aim = view(begin).detach(), None if target is None else target[sample : sample + 1]
        first = (dlr(scores, label) if aim is None else targeted_dlr(scores, label, aim)).numpy()
        monkeypatch.setattr(torch, "rand", lambda *shape, start=start, **options: (start + 1) / 2)
        monkeypatch.setattr(torch, "randn", lambda *shape, start=start, **options: start)
        theirs_count = type(attack).check_oscillation

        def count(losses, step, steps, best, k3, first=first, counted=theirs_count):
            losses[-1] = first if step + 1 == steps else losses[-1]
            return counted(attack, losses, step, steps, best, k3)

        monkeypatch.setattr(attack, "check_oscillation", count)
        theirs = attack.attack_single_run(pixels[sample : sample + 1], label)[0]
        torch.testing.assert_close(ours.pixels[sample : sample + 1], theirs, rtol=0, atol=1e-6)
