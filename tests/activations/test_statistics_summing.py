"""Sums that are the same to the bit, however the numbers are put in order and in groups."""

import math

import numpy as np
import pytest

from lightning_viz.activations.statistics import ExactSum


def numbers(count=2000, spread=12.0):
    """Of float32's precision, over many orders of magnitude, of both signs."""
    rng = np.random.default_rng(0)
    return (rng.standard_normal(count) * 10 ** rng.uniform(-spread, spread, count)).astype(np.float32).astype(float)


@pytest.mark.parametrize("seed", range(3))
def test_order_and_groups_make_no_difference(seed):
    rng, values = np.random.default_rng(seed), numbers()
    groups = np.split(rng.permutation(values), np.sort(rng.integers(0, len(values), 9)))
    whole = ExactSum.of(groups[0])
    for group in groups[1:]:
        whole = whole + ExactSum.of(group)
    assert float(whole) == float(ExactSum.of(values))
    assert len({float(np.sum(rng.permutation(values))) for _ in range(9)}) > 1  # else there is nothing to show


def test_single_precision_numbers_are_added_without_any_error():
    assert float(ExactSum.of(numbers())) == math.fsum(numbers())


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e60])
def test_others_are_rounded_each_by_itself(scale):
    values = np.random.default_rng(0).uniform(1, 2, 500) ** 2 * scale
    assert float(ExactSum.of(values)) == pytest.approx(math.fsum(values), rel=2**-28)


def test_nothing_adds_up_to_nothing():
    assert float(ExactSum.of([])) == float(ExactSum.of([0.0, -0.0, 5e-320, -5e-320])) == 0
    assert float(ExactSum.of([]) + ExactSum.of([-0.1])) == pytest.approx(-0.1, rel=2**-28)


def test_a_bin_holds_many_millions():
    one = ExactSum.of([np.nextafter(256, 0)])
    for _ in range(27):
        one = one + one
    assert float(one) == pytest.approx(256.0 * 2**27)
