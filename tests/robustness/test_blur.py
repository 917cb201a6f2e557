"""Blurs spread a point over the shapes that they are named for, in lengths that follow the image's size."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from lightning_viz.robustness import corrupt
from lightning_viz.robustness.corruption_kinds import convolve_offsets, magnify, streak

POINT = np.zeros((1, 65, 65))
POINT[0, 32, 32] = 1
ROWS, COLUMNS = np.indices((65, 65)) - 32


def image(side, channels=3):
    """Smooth enough to be the same picture at two sizes."""
    along = torch.linspace(0, 2 * torch.pi, side)
    waves = torch.stack([torch.sin(one * along)[:, None] * torch.cos(one * along) for one in range(1, channels + 1)])
    return (0.5 + 0.4 * waves)[None]


def test_a_point_out_of_focus_is_an_even_disc():
    spot = torch.zeros(1, 1, 224, 224)
    spot[..., 112, 112] = 1
    for severity, radius in zip(range(1, 6), (3, 4, 6, 8, 10), strict=True):
        disc = corrupt(spot, "defocus_blur", severity)[0, 0].double()
        far = torch.hypot(*(torch.meshgrid(*[torch.arange(224.0) - 112] * 2, indexing="ij")))
        assert disc.sum().item() == pytest.approx(1, abs=1e-5) and disc[far > radius + 1.5].abs().max() < 1e-6
        inside = disc[far < radius - 1.5]
        assert inside.numpy() == pytest.approx(1 / (np.pi * radius**2), rel=0.05)


def test_a_spread_point_is_where_the_offsets_say_between_pixels_linearly():
    rng = np.random.default_rng(0)
    offsets, weights = rng.uniform(-7, 7, (30, 2)), rng.random(30)
    picture = rng.random((2, 65, 65))
    places = np.indices((65, 65))[:, None] - offsets.T[:, :, None, None]  # [2, P, H, W]
    expected = np.stack(
        [
            np.tensordot(weights / weights.sum(), map_coordinates(one, places, order=1, mode="nearest"), axes=1)
            for one in picture
        ]
    )
    assert convolve_offsets(picture, offsets, weights)[:, 8:-8, 8:-8] == pytest.approx(
        expected[:, 8:-8, 8:-8], abs=1e-9
    )


def test_a_streak_fades_along_its_angle_and_ends():
    for angle in (0, 30, -45, 90):
        streaked = streak(POINT, 10, 5, angle)[0]
        along = ROWS * np.sin(np.radians(angle)) + COLUMNS * np.cos(np.radians(angle))
        across = ROWS * np.cos(np.radians(angle)) - COLUMNS * np.sin(np.radians(angle))
        assert streaked.sum() == pytest.approx(1) and abs((streaked * across).sum()) < 1e-6
        assert streaked[np.abs(across) > 1.5].max() < 1e-9 and streaked[(along < -1.5) | (along > 21.5)].max() < 1e-9
        assert (streaked * along).sum() == pytest.approx(5 * np.sqrt(2 / np.pi), rel=0.02)  # of half a Gaussian


def test_magnifying_keeps_the_middle_and_stretches_the_rest():
    picture = np.stack([ROWS, COLUMNS]).astype(float)
    assert magnify(picture, 1.25) == pytest.approx(picture / 1.25)
    assert magnify(picture, 1) == pytest.approx(picture)


def test_glass_moves_pixels_by_no_more_than_its_reach_and_keeps_the_mean():
    steps = torch.zeros(1, 1, 224, 224)
    steps[..., 112:] = 1
    for severity, reach in zip(range(1, 6), (2, 2, 6, 6, 8), strict=True):  # shuffles times displacement
        hurt = corrupt(steps, "glass_blur", severity)
        far = reach + 4 * 2 * 1.5 + 1
        columns = (torch.arange(224) - 111.5).abs() > far
        assert torch.allclose(hurt[..., columns], steps[..., columns], atol=1e-3)
        assert hurt.mean().item() == pytest.approx(0.5, abs=0.005)
        edge = hurt[0, 0, :, 112 - 3 : 112 + 3]
        assert edge.std(0).max() > 0.05  # rows differ: a shuffle, no blur


@pytest.mark.parametrize("kind", ["defocus_blur", "zoom_blur"])
def test_a_small_image_is_hurt_as_a_large_one(kind):
    large, small = image(224), image(56)
    costs = [(corrupt(one, kind, 5) - one).square().mean().sqrt().item() for one in (large, small)]
    assert costs[1] == pytest.approx(costs[0], rel=0.15)
