"""Weather lies over the image as snow, frost, fog and light do."""

import colorsys

import numpy as np
import pytest
import torch

from lightning_viz.robustness import corrupt
from lightning_viz.robustness.corruption_kinds import cloud

DARK = torch.full((1, 3, 96, 96), 0.2)


def test_bright_light_raises_the_value_and_keeps_hue_and_saturation():
    colors = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hurt = corrupt(colors, "brightness", 2)
    for before, after in zip(colors[0].flatten(1).T.tolist(), hurt[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2)), abs=1e-12)
    assert torch.allclose(corrupt(DARK[:, :1], "brightness", 3), torch.tensor(0.5))
    assert torch.allclose(corrupt(torch.zeros(1, 3, 4, 4), "brightness", 1), torch.tensor(0.1))


@pytest.mark.parametrize("kind", ["snow", "frost", "brightness"])
def test_weather_brightens_a_dark_scene(kind):
    for severity in range(1, 6):
        assert corrupt(DARK, kind, severity).mean() > DARK.mean()


def test_frost_grows_from_the_borders_and_is_bluish():
    ice = torch.cat([corrupt(torch.zeros(1, 3, 96, 96), "frost", 5, seed=seed) for seed in range(20)])
    inner = torch.zeros(96, 96, dtype=torch.bool)
    inner[32:64, 32:64] = True
    assert ice[..., ~inner].mean() > 1.3 * ice[..., inner].mean()
    red, green, blue = ice.mean((0, 2, 3)).tolist()
    assert red < green < blue
    gray = corrupt(torch.zeros(1, 5, 96, 96), "frost", 5)
    assert torch.equal(gray[:, :1].expand(-1, 5, -1, -1), gray)


@pytest.mark.parametrize("severity", [3, 4, 5])
def test_snow_falls_in_streaks(severity):
    flakes = corrupt(torch.zeros(1, 1, 224, 224), "snow", severity)[0, 0]
    flakes = flakes - flakes.mean()

    def likeness(degrees):
        """Of the flakes to those 8 pixels off, in a direction seen from the vertical."""
        angle = np.radians(degrees)
        moved = torch.roll(flakes, (round(8 * np.cos(angle)), round(8 * np.sin(angle))), (0, 1))
        return (moved * flakes).mean() / flakes.square().mean()

    along = max(likeness(degrees) for degrees in range(-45, 46, 5))
    across = max(likeness(degrees) for degrees in range(75, 106, 5))
    assert along > 0.3 and along > 2 * across


def test_clouds_span_the_whole_range_and_are_rougher_with_less_decay():
    rough = []
    for decay in (2, 1.7, 1.4):
        each = [cloud(64, 96, decay, np.random.default_rng(seed)) for seed in range(5)]
        assert all(one.shape == (64, 96) and one.min() == 0 and one.max() == pytest.approx(1) for one in each)
        rough.append(np.mean([np.abs(np.diff(one)).mean() for one in each]))
    assert rough[0] < rough[1] < rough[2]


def test_fog_leaves_of_the_scene_what_the_formula_says():
    scenes = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scenes[..., 0, 0] = 1  # the brightest of both
    for severity, thickness in zip(range(1, 6), (1.5, 2, 2.5, 2.5, 3), strict=True):
        one, other = (corrupt(scene, "fog", severity) for scene in scenes)
        assert torch.allclose((one - other), (scenes[0] - scenes[1]) / (1 + thickness), atol=1e-12)
