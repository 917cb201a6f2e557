"""A layer's statistics are those of all its activations, whatever the batches."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_viz.activations import LayerStatistics, batch_statistics, histogram_edges, saturation_bounds
from lightning_viz.hooks.geometry import Layout


def measured(output, *, size=None, bounds=None, layout=None):
    parts = [
        LayerStatistics.from_batch(
            batch_statistics(part, bounds=bounds, layout=layout).numpy(), len(part), bounded=bounds is not None
        )
        for part in output.split(size or len(output))
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merge(part)
    return whole


def rectified(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).relu()


@pytest.mark.parametrize("shape", [(40, 6, 5, 7), (40, 30), (40, 17, 12), (40, 6, 40, 40)])
def test_they_agree_with_all_activations_at_once(shape):
    output = 3 * rectified(*shape) + 0.01
    found, every = measured(output, size=7), output.double()
    assert found.mean == pytest.approx(float(every.mean()), rel=1e-6)
    assert found.deviation == pytest.approx(float(every.std(correction=0)), rel=1e-6)
    assert (found.samples, found.values) == (40, output.numel())


@pytest.mark.parametrize("size", [1, 3, 16, 39])
@pytest.mark.parametrize("shape", [(40, 6, 5, 7), (40, 30), (40, 6, 40, 40)])
def test_batches_make_no_difference(shape, size):
    output = rectified(*shape)
    one, other = measured(output, size=size), measured(output)
    for name in ("mean", "deviation", "dead", "zero"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("bins", "lowest", "highest"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_unit_is_dead_only_if_it_is_zero_on_every_sample_and_at_every_place():
    maps = rectified(20, 8, 5, 5)
    maps[:, 1], maps[:, 5] = 0, 0
    maps[:, 6] = 0
    maps[13, 6, 4, 0] = 0.1  # alive once
    maps[:, 7] = -1
    assert measured(maps, size=4).dead == 2 / 8
    assert measured(maps, size=4).never_positive == 3 / 8
    units = rectified(20, 10)
    units[:, :4] = 0
    assert measured(units, size=6).dead == 0.4


def test_channels_may_come_last():
    maps = rectified(4, 8, 5, 5)
    maps[:, 2] = 0
    assert measured(maps.permute(0, 2, 3, 1), layout=Layout((5, 5), 3)).dead == 1 / 8


@pytest.mark.parametrize(
    ("module", "values", "expected"),
    [
        (nn.Tanh(), [-9.0, -1.0, 0.0, 2.0, 9.0], 2 / 5),  # tanh(2) is 0.964
        (nn.Sigmoid(), [-9.0, -4.0, 0.0, 4.0, 9.0], 2 / 5),  # sigmoid(4) is 0.982
        (nn.ReLU6(), [-9.0, 0.0, 3.0, 6.0, 9.0], 2 / 5),
        (nn.Hardtanh(), [-9.0, -1.0, 0.0, 0.9, 9.0], 3 / 5),
        (nn.Hardsigmoid(), [-9.0, -2.9, 0.0, 2.9, 9.0], 2 / 5),
        (nn.Sequential(nn.Identity(), nn.Sigmoid()), [-9.0, 0.0, 0.0, 0.0, 9.0], 2 / 5),
        (nn.ReLU(), [-9.0, 9.0, 9.0, 9.0, 9.0], None),
        (nn.Sequential(), [0.0], None),
    ],
)
def test_saturated_is_what_lies_at_a_bound(module, values, expected):
    bounds = saturation_bounds(module)
    output = module(torch.tensor(values).repeat(3, 1))
    assert measured(output, bounds=bounds, size=2).saturated_fraction == expected


def test_the_histogram_counts_every_value_where_it_lies():
    values = torch.tensor([[-1e9, -3.01, -1e-9, 0.0, -0.0, 1e-9, 3.0, 1e9]])
    found = measured(values)
    for value, count in [(-3.01, 1), (0.0, 4), (3.0, 1)]:
        assert found.bins[np.searchsorted(histogram_edges(), value, side="right")] == count, value
    assert found.bins[0] == found.bins[-1] == 1 and found.bins.sum() == 8
    assert found.zero == 4 / 8
    widths = np.diff(histogram_edges())[histogram_edges()[:-1] > 0] / histogram_edges()[:-1][histogram_edges()[:-1] > 0]
    assert widths.max() < 0.07


def test_the_histogram_is_numpys():
    values = torch.randn(1, 400, generator=torch.Generator().manual_seed(0)) * torch.logspace(-8, 8, 400)
    inside, _ = np.histogram(values.double().numpy(), histogram_edges())  # no value is an edge
    found = measured(values).bins
    np.testing.assert_array_equal(found[1:-1], inside)
    assert found[0] == (values < histogram_edges()[0]).sum() and found[-1] == (values >= histogram_edges()[-1]).sum()


def test_of_a_large_layer_the_histogram_is_of_a_fair_choice_of_its_values():
    output = torch.randn(60, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    found = measured(output, size=16)
    assert found.bins.sum() == 60 * 512
    share = np.cumsum(found.bins) / found.bins.sum()
    exact = (output.flatten()[:, None] < torch.tensor([-1.0, 0.0, 0.5, 2.0])).double().mean(0)
    at = np.searchsorted(histogram_edges(), [-1.0, 0.0, 0.5, 2.0])
    np.testing.assert_allclose(share[at], exact, atol=0.012)


def test_broken_samples_are_left_out_and_counted():
    output = rectified(10, 4, 3, 3)
    output[2, 1, 0, 0], output[7, 0, 0, 0] = torch.nan, torch.inf
    rest = output[[0, 1, 3, 4, 5, 6, 8, 9]]
    found, expected = measured(output, size=3), measured(rest)
    assert (found.mean, found.deviation) == (expected.mean, expected.deviation)
    np.testing.assert_array_equal(found.bins, expected.bins)
    assert (found.samples, found.broken) == (8, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_full(dtype):
    output = (rectified(50, 3, 40, 40) + 100).to(dtype)
    with torch.inference_mode():
        found = measured(output, size=9)
    assert found.mean == pytest.approx(float(output.double().mean()), rel=1e-6)
