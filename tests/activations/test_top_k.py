"""The strongest samples are the same however the samples are cut into batches and shared among processes."""

import numpy as np
import pytest
import torch
from torch.utils.data import DistributedSampler

from lightning_viz.activations import NO_SAMPLE, TopK, channel_peaks

CHANNELS, MOST = [4, 0, 2], 5


def maps(count=40, *, levels=None, seed=0):
    """Maps ``[n, 6, 3, 4]``; of few levels, so that much is equally strong."""
    generator = torch.Generator().manual_seed(seed)
    if levels:
        return torch.randint(levels, (count, 6, 3, 4), generator=generator).float()
    return torch.randn(count, 6, 3, 4, generator=generator)


def ranked(samples, numbers, *, start=None, size=7):
    """All samples in batches, each handing over its own number as what is kept of it."""
    found = start or TopK.empty(len(CHANNELS), MOST)
    for part in torch.tensor(numbers).split(size):
        peaks = channel_peaks(samples[part], CHANNELS).numpy()
        found = found.update(peaks, 4, part.numpy(), lambda row: f"sample {int(part[row])}")
    return found


def assert_same(one, other):
    for name in ("values", "samples", "places"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.kept, one.seen, one.broken) == (other.kept, other.seen, other.broken)


def test_they_are_the_highest_maxima_and_where_they_are():
    samples = maps()
    found = ranked(samples, range(40))
    for row, channel in enumerate(CHANNELS):
        peaks = samples[:, channel].flatten(1).max(1)
        values, order = peaks.values.sort(descending=True)
        assert found.samples[row].tolist() == order[:MOST].tolist()
        assert found.values[row].tolist() == values[:MOST].tolist()
        for sample, (y, x), value in zip(found.samples[row], found.places[row], found.values[row], strict=True):
            assert samples[sample, channel, y, x] == value
    assert found.kept == {int(number): f"sample {number}" for number in found.samples.ravel()}
    assert found.seen == 40 and found.broken == 0


@pytest.mark.parametrize("levels", [None, 2, 4])
@pytest.mark.parametrize("size", [1, 3, 40])
def test_batches_make_no_difference_to_the_bit(size, levels):
    samples = maps(levels=levels)
    assert_same(ranked(samples, range(40), size=size), ranked(samples, range(40), size=7))


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("count", [40, 41])
def test_two_processes_samples_with_the_samplers_doubles_give_what_one_process_finds(count, processes, levels):
    samples = maps(count, levels=levels)
    shares = [
        list(DistributedSampler(range(count), processes, rank, shuffle=False)) for rank in range(processes)
    ]  # padded to equal lengths with the first samples
    parts = [ranked(samples, share) for share in shares]
    whole = ranked(samples, range(count))
    for order in (parts, parts[::-1]):
        merged = order[0]
        for part in order[1:]:
            merged = merged.merge(part)
        assert merged.seen == sum(map(len, shares))
        for name in ("values", "samples", "places"):
            np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name), err_msg=name)
        assert merged.kept == whole.kept


def test_a_sample_stands_once_and_of_equals_the_first_come_first():
    samples = torch.zeros(6, 6, 3, 4)
    samples[3] = 1
    found = ranked(samples, [5, 3, 3, 1, 5, 0], size=2)
    assert found.samples.tolist() == [[3, 0, 1, 5, NO_SAMPLE]] * 3
    assert found.places[0].tolist() == [[0, 0]] * 5
    assert found.values[0].tolist() == [1, 0, 0, 0, -np.inf]


def test_samples_at_minus_infinity_come_before_nobody_and_nan_is_left_out():
    samples = torch.full((4, 6, 3, 4), -torch.inf)
    samples[1, :, 2, 3] = torch.nan
    samples[2] = torch.inf
    found = ranked(samples, [0, 1, 2, 3])
    assert found.samples.tolist() == [[2, 0, 3, NO_SAMPLE, NO_SAMPLE]] * 3
    assert found.broken == 3 and found.seen == 4


def test_only_what_enters_is_asked_for():
    samples = torch.arange(60.0).flip(0).view(60, 1, 1, 1).expand(-1, 6, 3, 4)
    asked = []
    found = TopK.empty(3, MOST)
    for part in torch.arange(60).split(10):
        found = found.update(
            channel_peaks(samples[part], CHANNELS).numpy(), 4, part.numpy(), lambda row: asked.append(row)
        )
    assert asked == list(range(MOST))
    assert len(found.kept) == MOST


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision_and_inference_mode(dtype):
    with torch.inference_mode():
        peaks = channel_peaks(maps().to(dtype), CHANNELS)
    assert peaks.dtype == torch.float64
    assert torch.equal(peaks[..., 0].to(dtype), maps().to(dtype)[:, CHANNELS].amax((2, 3)))
