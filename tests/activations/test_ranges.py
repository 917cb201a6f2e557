"""The ranges of units are those of all samples, however these are divided."""

import math

import numpy as np
import pytest
import torch

from lightning_viz.activations.ranges import UnitRanges, range_sums
from lightning_viz.hooks.activation_functions import SATURATION_BOUNDS


def ranges(output, axis=1):
    return UnitRanges.from_batch(range_sums(output, axis=axis).numpy())


@pytest.mark.parametrize(("shape", "axis"), [((12, 5), -1), ((12, 5, 3, 4), 1), ((12, 7, 5), -1), ((12, 5, 600), 1)])
def test_they_are_those_of_all_samples_together(shape, axis):
    output = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 4 - 3
    first, second, whole = ranges(output[:5], axis), ranges(output[5:], axis), ranges(output, axis)
    merged = second.merge(first)
    for name in ("highest", "squares", "values", "broken", "seen"):
        assert np.all(getattr(merged, name) == getattr(whole, name)), name
    units = output.movedim(axis, -1).reshape(-1, 5)
    assert np.allclose(whole.highest, units.amax(0))
    assert math.isclose(whole.scale, units.square().mean().sqrt(), rel_tol=1e-6)
    assert whole.never_positive == (units <= 0).all(0).float().mean()
    assert np.array_equal(merged.beyond, whole.beyond)


def test_saturation_is_that_of_the_functions_output():
    x = torch.linspace(-60, 60, 2000)[:, None]
    shares = {
        "tanh": (torch.tanh(x).abs() >= 0.98, 0),
        "sigmoid": ((torch.sigmoid(x) - 0.5).abs() >= 0.49, 1),
        "hardsigmoid": (torch.nn.functional.hardsigmoid(x) % 1 == 0, 2),
        "softsign": (torch.nn.functional.softsign(x).abs() >= 0.98, 3),
        "relu6": (torch.nn.functional.relu6(x) == 6, 4),
    }
    for saturated, place in shares.values():
        assert math.isclose(ranges(x).saturated(*SATURATION_BOUNDS[place]), saturated.float().mean(), abs_tol=1e-3)


def test_samples_that_are_not_finite_are_counted_and_left_out_of_the_scale():
    output = torch.tensor([[1.0, math.nan], [math.inf, 1.0], [1e15, -1.0], [1.0, -2.0]])
    found = ranges(output)
    assert (found.broken, found.values) == (2, 4)
    assert math.isclose(found.scale, 0.5e15, rel_tol=1e-6)
    assert found.never_positive == 0
