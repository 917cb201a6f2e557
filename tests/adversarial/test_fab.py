"""FAB's projection is the least step in the box; its perturbations are those of torchattacks, or of known length."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import nn

from lightning_viz.adversarial import L2, LINF, fab
from lightning_viz.adversarial.fast_adaptive_boundary import hyperplane_step
from lightning_viz.adversarial.norms import Norm
from lightning_viz.pixels import PixelSpace
from tests.adversarial.oracles import torchattacks
from tests.adversarial.watching import distances, grays, linear, watched
from tests.dream.conftest import Digits

NORMS = pytest.mark.parametrize("norm", [LINF, L2], ids=["linf", "l2"])


def planes(count: int = 40, size: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points in [0, 1], some at the bounds, normals with zeros, and values, most but not all in reach."""
    generator = torch.Generator().manual_seed(seed)
    points = (1.4 * torch.rand(count, size, generator=generator, dtype=torch.float64) - 0.2).clamp(0, 1)
    normals = torch.randn(count, size, generator=generator, dtype=torch.float64)
    normals[torch.rand(count, size, generator=generator) < 0.2] = 0
    return points, normals, 1.2 * torch.randn(count, generator=generator, dtype=torch.float64)


def reach(points: torch.Tensor, normals: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The furthest that the value can be moved toward zero within the bounds."""
    towards = -values.sign()[:, None] * normals
    return (towards.clamp_min(0) * (1 - points) + (-towards).clamp_min(0) * points).sum(1)


@NORMS
def test_a_step_is_the_least_that_scipy_finds(norm: Norm) -> None:
    points, normals, values = planes()
    steps = hyperplane_step(points, values, normals, norm=norm, bounds=(0.0, 1.0))
    feasible = reach(points, normals, values) >= values.abs()
    assert 5 < int((~feasible).sum()) < 30
    for x, w, value, step in zip(points[feasible], normals[feasible], values[feasible], steps[feasible], strict=True):
        size, bounds = len(x), [(-float(low), 1 - float(low)) for low in x]
        if norm is LINF:  # min t, |d_i| <= t, w d = -value
            eye, ones = np.eye(size), -np.ones((size, 1))
            found = linprog(
                [0] * size + [1],
                A_ub=np.block([[eye, ones], [-eye, ones]]),
                b_ub=np.zeros(2 * size),
                A_eq=[[*w.tolist(), 0]],
                b_eq=[-float(value)],
                bounds=[*bounds, (0, None)],
            )
            least = found.fun
        else:
            plane = {"type": "eq", "fun": lambda d, w=w.numpy(), value=float(value): w @ d + value}
            least = np.sqrt(
                minimize(
                    lambda d: d @ d,
                    np.zeros(size),
                    jac=lambda d: 2 * d,
                    bounds=bounds,
                    constraints=[plane],
                    method="SLSQP",
                    options={"ftol": 1e-14},
                ).fun
            )
        assert abs(float(w @ step + value)) < 1e-9
        assert bool(((x + step >= -1e-12) & (x + step <= 1 + 1e-12)).all())
        assert float(norm.length(step[None])) == pytest.approx(least, rel=1e-5, abs=1e-9)


@NORMS
def test_a_plane_out_of_reach_is_approached_as_far_as_the_bounds_allow(norm: Norm) -> None:
    points, normals, values = planes()
    steps = hyperplane_step(points, values, normals, norm=norm, bounds=(0.0, 1.0))
    furthest = reach(points, normals, values)
    infeasible = furthest < values.abs()
    moved = -(normals * steps).sum(1) * values.sign()
    torch.testing.assert_close(moved[infeasible], furthest[infeasible])
    for nothing in (torch.zeros(40), torch.full((40,), torch.nan)):
        assert not hyperplane_step(points, nothing.double(), normals, norm=norm, bounds=(0.0, 1.0)).any()
    assert not hyperplane_step(points, values, 0 * normals, norm=norm, bounds=(0.0, 1.0)).any()


@NORMS
@pytest.mark.parametrize("classes", [2, 4])
def test_on_planes_it_goes_as_far_as_the_nearest(norm: Norm, classes: int) -> None:
    model, images = linear(classes), grays(8)
    found, truth = fab(model, images, norm=norm, steps=20, progress=False), distances(model, images, 1 + (norm is L2))
    assert bool(found.fooled.all())
    lengths = norm.length(found.perturbations)
    assert bool((lengths >= truth * 0.9999).all())
    torch.testing.assert_close(lengths, truth, rtol=0.01, atol=1e-6)


@NORMS
def test_it_is_that_of_torchattacks(digits: Digits, norm: Norm) -> None:
    """Toward the class with the second highest score; theirs computes in single precision."""
    inputs = digits.images[:12]
    view = nn.Sequential(_Inputs(digits.pixel_space), digits.model).eval()
    pixels = digits.pixel_space.to_pixels(inputs).clamp(0, 1)
    labels = view(pixels).argmax(1)
    ours = fab(view, pixels, labels, norm=norm, steps=12, targets=1, progress=False)
    attack = torchattacks.FAB(view, norm="Linf" if norm is LINF else "L2", steps=12, multi_targeted=True)
    attack.target_class = 2
    theirs = attack.attack_single_run_targeted(pixels, labels) - pixels
    assert torch.equal(ours.fooled, theirs.flatten(1).any(1)) and bool(ours.fooled.all())
    torch.testing.assert_close(norm.length(ours.perturbations), norm.length(theirs), rtol=0.02, atol=1e-6)


class _Inputs(nn.Module):
    def __init__(self, pixel_space: PixelSpace) -> None:
        super().__init__()
        self.pixel_space = pixel_space

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.pixel_space.to_inputs(pixels)


def test_more_targets_find_no_longer_perturbations_and_passes_are_counted(digits: Digits) -> None:
    how = {"pixel_space": digits.pixel_space, "steps": 6, "progress": False, "batch_size": 3}
    with watched(digits.model) as seen:
        many = fab(digits.model, digits.images[:4], targets=3, **how)
    one = fab(digits.model, digits.images[:4], targets=1, **how)
    assert sum(seen.sizes) == int(many.queries.sum()) == 4 * (1 + 3 * 6 * 2)
    assert int(many.backwards.sum()) == 4 * 3 * 6
    assert bool((many.record.linf[-1][one.fooled] <= one.record.linf[-1][one.fooled]).all())
    lengths = many.record.linf.masked_fill(many.record.linf == 0, torch.inf)
    assert bool((lengths[1:] <= lengths[:-1]).all())  # the shortest so far


def test_a_target_alone_counts(digits: Digits) -> None:
    inputs = digits.images[:20][digits.labels[:20] != 3][:4]
    found = fab(digits.model, inputs, target=3, pixel_space=digits.pixel_space, steps=15, progress=False)
    assert found.record.classes[-1].tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("options", [{"steps": 0}, {"targets": 0}, {"bias": 2.0}, {"overshoot": -0.1}, {"shrink": 1.0}])
def test_an_option_that_makes_no_sense_is_said(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(options))}={next(iter(options.values()))}"):
        fab(linear(), grays(2), **options)
