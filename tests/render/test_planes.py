"""Series as curves, volumes as slices, and maps that lie over them."""

import numpy as np

from lightning_viz.render.planes import as_images, as_planes, choose_slices, curve_images


def test_curves_rise_from_left_to_right_in_a_panel_for_each_channel():
    rising = np.linspace(0, 1, 40)
    pictures = curve_images(np.stack([rising, rising[::-1]])[None])
    dark = pictures[0].max(axis=-1) < 60
    upper, lower = dark[: len(dark) // 2], dark[len(dark) // 2 :]
    rows = [[np.flatnonzero(half[:, column]).mean() for column in (40, 440)] for half in (upper, lower)]
    assert rows[0][0] > rows[0][1]  # rises: smaller rows are higher
    assert rows[1][0] < rows[1][1]


def test_a_long_series_keeps_its_single_peak():
    series = np.zeros((1, 1, 20_000))
    series[0, 0, 10_001] = 1
    dark = curve_images(series)[0].max(axis=-1) < 60
    assert abs(np.flatnonzero(dark[:40].any(axis=0)).mean() / dark.shape[1] - 0.5) < 0.02


def test_maps_of_series_have_one_row_or_one_for_each_channel():
    series = np.random.default_rng(0).normal(size=(2, 3, 10)).astype(np.float32)
    assert as_planes(series, np.ones((2, 1, 5)))[1].shape == (2, 1, 1, 5)
    assert as_planes(series, np.ones((2, 3, 10)))[1].shape == (2, 1, 3, 10)
    assert as_planes(series, np.ones((4, 2, 1, 5)), lead=3)[1].shape == (4, 2, 1, 1, 5)


def test_of_a_volume_the_strongest_slice_is_shown_at_its_place():
    volumes = np.full((2, 20, 96, 96, 3), 90, dtype=np.uint8)
    maps = np.zeros((2, 1, 20, 96, 96))
    maps[0, 0, 7, 10, 20] = maps[1, 0, 13, 10, 20] = -5
    pictures, planes, facts = as_planes(volumes, maps)
    assert planes.shape == (2, 1, *pictures.shape[1:3])
    assert (np.abs(planes).max(axis=(1, 2, 3)) == 5).all()
    assert "9 of 20 slices" in facts[0]
    red = [
        (picture == (190, 20, 30)).all(axis=-1).sum()
        for picture in as_planes(volumes, maps * [[[[[1]]]], [[[[0]]]]])[0]
    ]
    assert red[0] > 1000 and red[1] == 0  # a map that is zero has no strongest slice
    _, alone, _ = as_planes(volumes, maps, most=1)
    assert alone[0, 0, 10, 20] == alone[1, 0, 10, 20] == -5


def test_coarse_maps_are_laid_over_the_slices_that_they_belong_to():
    volumes, maps = np.zeros((1, 8, 96, 96, 3), dtype=np.uint8), np.zeros((1, 1, 2, 2, 2))
    maps[0, 0, 1] = 1  # the last four slices
    _, planes, _ = as_planes(volumes, maps)
    assert planes[0, 0, 40, 40] == 0  # the first slice
    assert planes[0, 0].max() == 1


def test_slices_are_spread_evenly_with_the_strongest_among_them():
    assert choose_slices(6) == [0, 1, 2, 3, 4, 5]
    assert 17 in choose_slices(64, strongest=17)
    assert len(choose_slices(64, strongest=17)) == 9
    assert choose_slices(64, strongest=17, most=1) == [17]


def test_color_images_stay_as_they_are():
    images, maps = np.zeros((2, 4, 5, 3), dtype=np.uint8), np.ones((2, 1, 2, 2))
    assert as_planes(images, maps) == (images, maps, ())
    assert as_images(images) is images
