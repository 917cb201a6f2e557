"""Weather lies over the image as snow, frost, fog and light do."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from lightning_viz.robustness import corrupt, fractals
from lightning_viz.robustness.fractals import cloud

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


def lit_by(start, end, thickness, *, margin=0):
    """Pixels ``[60, 60]`` that a line lights, drawn on a canvas with a margin."""
    canvas, shift = np.zeros((62 + 2 * margin, 62 + 2 * margin), np.uint8), margin * (1 + 1j)
    fractals._draw_lines(canvas, np.array([start + shift]), np.array([end - start]), 200, thickness)
    return canvas[1 + margin : 61 + margin, 1 + margin : 61 + margin] == 200


@pytest.mark.parametrize("thickness", [1, 2, 5])
def test_lines_are_without_gaps_as_thick_as_said_and_cut_at_the_edges(thickness):
    middles = (np.arange(60) + 0.5) + 1j * (np.arange(60) + 0.5)[:, None]
    for start, end in ((10 + 8j, 27.3 + 51.6j), (50 + 20j, 9.1 + 30j), (12.2 + 45j, 12.9 + 11j), (9 + 9j, 50 + 50j)):
        lit = lit_by(start, end, thickness)
        direction = (end - start) / abs(end - start)
        along, beside = ((middles - start) / direction).real, ((middles - start) / direction).imag
        assert not lit[np.abs(beside) > thickness / 2 + 0.8].any()
        flat = abs(direction.real) > abs(direction.imag)
        crossed = lit.sum(0 if flat else 1)[15:40]  # of inner columns, or rows
        assert set(crossed) <= {thickness, thickness + 1} and crossed.mean() < thickness + 0.3
        assert not lit[(along < -thickness) | (along > abs(end - start) + thickness)].any()
    beyond = (-10 - 3j, 70 + 48j)
    assert (lit_by(*beyond, thickness) == lit_by(*beyond, thickness, margin=20)).all()


def test_frost_is_smoothed_as_by_a_gaussian_filter():
    image = np.random.default_rng(0).random((40, 56)).astype(np.float32)
    smooth = fractals._gaussian(40, 2.5) @ image @ fractals._gaussian(56, 2.5).T
    assert smooth == pytest.approx(gaussian_filter(image, 2.5), abs=1e-5)


def test_clouds_are_sums_of_noise_on_ever_finer_grids():
    rng, total = np.random.default_rng(3), np.zeros((48, 48))
    for octave in range(1, 6):
        grid = rng.uniform(-1, 1, (2**octave + 1, 2**octave + 1)).astype(np.float32)
        finer = Image.fromarray(grid).resize((48, 48), Image.Resampling.BICUBIC)
        total += 1.6 ** (-2 * octave) * np.asarray(finer)
    expected = total[:30] - total[:30].min()
    assert cloud(30, 48, 1.6, np.random.default_rng(3)) == pytest.approx(expected / expected.max(), abs=1e-5)


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
