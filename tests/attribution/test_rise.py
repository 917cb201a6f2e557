"""RISE: the formula over the same masks, what it is on average, and what its masks are."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_viz.attribution import rise
from lightning_viz.attribution.random_masks import _Masks
from lightning_viz.hooks import FunctionTarget, classes
from tests.attribution.nets import inputs, network


def seen(net, x, masks, label):
    """The class's probability through each mask, by loops."""
    with torch.no_grad():
        return torch.stack([net(x * mask).softmax(1)[0, label] for mask in masks])


@pytest.mark.parametrize("batch_size", [None, 4, 1000])
def test_it_is_the_formula_over_the_same_masks(batch_size):
    net, x = network("convolutional").eval(), inputs("convolutional")
    masks = _Masks(25, 3, 0.3, (12, 12), 5).of(torch.arange(25)).double()
    options = {"masks": 25, "cells": 3, "keep": 0.3, "seed": 5, "batch_size": batch_size}
    found = rise(net, x, [1, 0, 2], **options)
    for n, label in enumerate([1, 0, 2]):
        shares = seen(net, x[n : n + 1], masks, label)
        expected = sum(share * mask for share, mask in zip(shares, masks, strict=True)) / (25 * 0.3)
        assert torch.allclose(found[n], expected, atol=1e-6)
    both = rise(net, x, classes(1, 3), **options)
    assert torch.allclose(both[0, 0], found[0], atol=1e-6) and both.shape == (2, 3, 1, 12, 12)
    assert not torch.allclose(rise(net, x, [1, 0, 2], **options | {"seed": 6}), found, atol=1e-3)


def test_on_average_it_is_what_a_linear_model_makes_of_pairs_of_places():
    """E[S_j] = sum_i w_i x_i E[M_i M_j] / p, over all shifts, with cells that are on independently of each other."""
    torch.manual_seed(0)
    cells, keep, side = 2, 0.5, 6
    weights, x = torch.rand(side, side), torch.rand(1, 1, side, side)
    target = FunctionTarget("sum", lambda activations: (activations.outputs * weights).sum((1, 2, 3)), outputs=True)
    found = rise(nn.Identity(), x, target, masks=20_000, cells=cells, keep=keep)[0, 0]
    cell = side // cells
    one = torch.eye(cells * cells).view(-1, 1, cells, cells)
    large = F.interpolate(one, (cell * (cells + 1),) * 2, mode="bilinear")[:, 0]
    pairs = torch.zeros(side * side, side * side)
    for top, left in itertools.product(range(cell), range(cell)):
        places = large[:, top : top + side, left : left + side].flatten(1)
        total = places.sum(0)
        both = keep**2 * total[:, None] * total + keep * (1 - keep) * places.T @ places
        pairs += both / cell**2
    expected = (pairs @ (weights * x[0, 0]).flatten() / keep).view(side, side)
    assert (found - expected).abs().max() <= 0.03 * expected.max()
    assert (expected.max() - expected.min()) > 0.1 * expected.max()


def test_masks_are_cells_enlarged_and_shifted():
    masks = _Masks(200, 7, 0.5, (28, 21), 0).of(torch.arange(200))
    assert masks.shape == (200, 1, 28, 21) and masks.min() >= 0 and masks.max() <= 1
    assert abs(float(masks.mean()) - 0.5) < 0.02
    again = _Masks(200, 7, 0.5, (28, 21), 0)
    parts = [again.of(torch.arange(start, min(start + 33, 200))) for start in range(0, 200, 33)]
    assert torch.equal(torch.cat(parts), masks)
    assert torch.equal(again.of(torch.tensor([3, 3, 4])), masks[[3, 3, 4]])


@pytest.mark.parametrize("options", [{"masks": 0}, {"cells": 0}, {"keep": 0.0}, {"keep": 1.5}])
def test_what_draws_no_masks_is_an_error(options):
    with pytest.raises(ValueError, match="give 1 or more"):
        rise(nn.Identity(), torch.rand(1, 3, 4, 4), 1, **options)
