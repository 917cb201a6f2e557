"""Every prior is the formula that it says, computed here once more by SciPy, with loops over images and channels."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d

from lightning_viz.dream import alpha_norm, edge_energy, l2, total_variation
from lightning_viz.pixels import gaussian_blur

SHAPES = [(1, 1, 28, 28), (2, 3, 17, 23), (3, 3, 64, 64), (2, 6, 33, 6), (1, 1, 6, 6), (2, 1, 7, 50), (1, 3, 12, 11)]


def images(shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def per_image(formula, given):
    """A formula for one plane, summed over the channels of each image."""
    return torch.tensor([sum(formula(plane) for plane in one) for one in given.numpy()], dtype=torch.float64)


def gaussian_5x5():
    row, column = np.mgrid[-2:3, -2:3]
    bell = np.exp(-(row**2 + column**2) / 2)
    return bell / bell.sum()


def halved(plane):
    """2 x 2 means, one row and column of zeros around, counted."""
    height, width = (side // 2 + 1 for side in plane.shape)
    padded = np.zeros((2 * height + 1, 2 * width + 1))
    padded[1 : plane.shape[0] + 1, 1 : plane.shape[1] + 1] = plane
    return np.array(
        [[padded[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].sum() / 4 for x in range(width)] for y in range(height)]
    )


def edges(plane):
    energy = 0.0
    while min(plane.shape) > 5:
        energy += np.sum((plane - convolve2d(plane, gaussian_5x5(), mode="same")) ** 2)
        plane = halved(plane)
    return energy


def variation(beta):
    def of_plane(plane):
        total, (height, width) = 0.0, plane.shape
        for y in range(height):
            for x in range(width):
                across = plane[y, x + 1] - plane[y, x] if x + 1 < width else 0.0
                down = plane[y + 1, x] - plane[y, x] if y + 1 < height else 0.0
                total += (across**2 + down**2) ** (beta / 2)
        return total

    return of_plane


def power(exponent):
    return lambda plane: sum(abs(value) ** exponent for value in plane.ravel().tolist())


FORMULAS = {
    "edge energy": (edge_energy, edges),
    "l2": (l2, power(2)),
    "alpha 6": (alpha_norm, power(6)),
    "alpha 3": (lambda x: alpha_norm(x, 3), power(3)),
    "variation": (total_variation, variation(2)),
    "variation, beta 1": (lambda x: total_variation(x, 1), variation(1)),
    "variation, beta 1.5": (lambda x: total_variation(x, 1.5), variation(1.5)),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_a_prior_is_its_formula_for_each_image(name, shape):
    prior, formula = FORMULAS[name]
    given = images(shape)
    torch.testing.assert_close(prior(given), per_image(formula, given), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_priors_gradient_is_its_slope(name):
    prior, _ = FORMULAS[name]
    assert torch.autograd.gradcheck(prior, images((2, 2, 6, 7)).requires_grad_())


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_flat_image_has_a_finite_gradient(name, value):
    prior, _ = FORMULAS[name]
    flat = torch.full((2, 3, 9, 8), value, requires_grad=True)
    (gradient,) = torch.autograd.grad(prior(flat).sum(), flat)
    assert gradient.isfinite().all()
    if "variation" in name or value == 0:
        assert not gradient.any()
        assert not prior(flat).any()


def test_a_flat_part_beside_an_edge_has_a_finite_gradient_too():
    given = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    given[..., 3:] = 1.0
    given.requires_grad_()
    (gradient,) = torch.autograd.grad(total_variation(given, 1).sum(), given)
    assert gradient.isfinite().all()
    assert gradient[..., 2].eq(-1).all()  # the way down of |across|
    assert gradient[..., 3].eq(1).all()


@pytest.mark.parametrize("side", [(5, 64), (64, 5), (1, 1)])
def test_edge_energy_says_which_image_is_too_small(side):
    with pytest.raises(ValueError, match=f"more than 5 pixels a side: these are {side[0]} x {side[1]}"):
        edge_energy(torch.zeros(1, 1, *side))


def test_edge_energy_sees_fine_patterns_more_than_coarse_ones_of_the_same_norm():
    def waves(length):
        return torch.sin(2 * torch.pi * torch.arange(32.0) / length).expand(1, 1, 32, 32)

    energies = [(edge_energy(waves(length)) / l2(waves(length))).item() for length in (4, 8, 16, 32)]
    assert energies == sorted(energies, reverse=True)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_a_blur_keeps_constants_up_to_the_borders(sigma):
    constants = torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64).view(1, 3, 1, 1).expand(2, 3, 9, 14)
    torch.testing.assert_close(gaussian_blur(constants, sigma), constants, rtol=1e-12, atol=1e-12)


def test_a_blur_is_scipys_where_the_borders_count():
    sigma, given = 1.5, images((2, 3, 21, 16))
    ones = gaussian_filter(np.ones((21, 16)), sigma, mode="constant")
    expected = np.stack([[gaussian_filter(p, sigma, mode="constant") / ones for p in one] for one in given.numpy()])
    torch.testing.assert_close(gaussian_blur(given, sigma), torch.from_numpy(expected), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("border", "mode"), [("replicate", "nearest"), ("zero", "constant")])
@pytest.mark.parametrize("radius", [2, 5])
def test_a_blur_is_scipys_at_every_border_and_radius(border, mode, radius):
    given = images((2, 3, 12, 16))
    expected = np.stack([[gaussian_filter(p, 1.5, mode=mode, radius=radius) for p in one] for one in given.numpy()])
    found = gaussian_blur(given, 1.5, radius=radius, border=border)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-10, atol=1e-12)
