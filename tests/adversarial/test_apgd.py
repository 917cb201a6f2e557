"""APGD is what torchattacks computes from the same start, and finds what PGD of a fixed step size does not."""

from functools import partial

import pytest
import torch
from torch import Tensor

from lightning_viz.adversarial import L2, LINF, apgd, pgd
from lightning_viz.adversarial.norms import Norm
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
