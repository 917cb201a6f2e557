"""Which channels are shown."""

import pytest
import torch

from lightning_viz.activations import choose_channels, count_sketch


def test_channels_in_order_at_random_by_strength_or_by_number():
    maps = torch.zeros(2, 12, 3, 3)
    maps[:, 7], maps[0, 2], maps[:, 10] = -5.0, 4.0, 1.0  # mean absolute values: 5, 2, 1
    assert choose_channels(maps, "first", 4) == [0, 1, 2, 3]
    assert choose_channels(maps, "strongest", 4) == [7, 2, 10, 0]
    assert choose_channels(maps, [11, 3, 3, 0], 3) == [11, 3, 3]
    chosen = choose_channels(maps, "random", 5, seed=3)
    assert chosen == choose_channels(torch.rand_like(maps), "random", 5, seed=3)  # whatever the maps hold
    assert chosen == sorted(set(chosen)) and len(chosen) == 5
    assert len({tuple(choose_channels(maps, "random", 5, seed=seed)) for seed in range(8)}) > 4
    assert choose_channels(maps, "random", 50) == list(range(12)) == choose_channels(maps, "first", 50)


def test_broken_channels_are_not_the_strongest():
    maps = torch.ones(1, 3, 2, 2)
    maps[:, 1] = float("nan")
    assert choose_channels(maps, "strongest", 2) == [0, 2]


def test_a_channel_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match=r"channels \[4, -1\] do not exist: the layer has 4, numbered from 0"):
        choose_channels(torch.zeros(1, 4, 2, 2), [0, 4, -1], 3)


def test_choosing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    choose_channels(torch.zeros(1, 9, 2, 2), "random", 3)
    count_sketch(5000, 100)
    assert torch.equal(torch.get_rng_state(), before)
