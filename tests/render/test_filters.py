import numpy as np
import pytest

from lightning_viz.render.colors import table
from lightning_viz.render.parts import At, Tile
from lightning_viz.render.weights import filter_table, filter_to_pixels, filters

from .pixels import body, fits

WEIGHTS = np.random.default_rng(0).normal(size=(40, 3, 5, 7)).astype(np.float32)


def images(page):
    """The drawn kernels, one pixel a weight."""
    return np.stack([tile.image for tile in page.parts(Tile) if tile.layer])


def weights_of(pixels, limit):
    """The weights behind pixels in 0..255, to within limit / 255: the display's scale undone."""
    return (np.asarray(pixels, dtype=np.float64) / 255 - 0.5) * 2 * limit


def test_undoing_the_scale_of_the_drawn_kernels_gives_the_weights_back():
    limit = float(np.abs(WEIGHTS).max())
    page = filters("t", WEIGHTS, layer="conv1", step=3)
    found = weights_of(images(page), limit).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, WEIGHTS, atol=limit / 255 * 1.01)
    assert all((tile.weights == kernel).all() for tile, kernel in zip(page.parts(Tile), WEIGHTS, strict=True))


def test_every_weight_is_a_square_of_one_color():
    page = filters("t", WEIGHTS, layer="conv1", step=3)
    sheet = body(page)
    for place, tile in zip(page.parts(At), page.parts(Tile), strict=True):
        factor = tile.size[0] // 7
        assert tile.size == (7 * factor, 5 * factor)
        drawn = sheet[place.top : place.top + tile.size[1], place.left : place.left + tile.size[0]]
        assert (drawn == tile.image.repeat(factor, axis=0).repeat(factor, axis=1)).all()


def test_each_filter_on_its_own_scale():
    limits = np.abs(WEIGHTS).max(axis=(1, 2, 3))[:, None, None, None]
    page = filters("t", WEIGHTS, layer="conv1", step=3, per_filter=True)
    found = weights_of(images(page).transpose(0, 3, 1, 2), limits)
    np.testing.assert_allclose(found, WEIGHTS, atol=float(limits.max()) / 255 * 1.01)
    assert "own maximum" in page.description


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_diverging_cells_give_the_weights_back(channels):
    weights = np.random.default_rng(1).normal(size=(9, channels, 3, 3))
    page = filters("t", weights, layer="conv1", step=3, limit=4.0, as_rgb=False)
    pixels = images(page).astype(int)
    distance = np.abs(pixels[..., None, :] - table("diverging").astype(int)).sum(axis=-1)
    assert (distance.min(axis=-1) == 0).all()
    found = weights_of(distance.argmin(axis=-1), 4.0).reshape(weights.shape)
    np.testing.assert_allclose(found, weights, atol=4.0 / 255 * 2.01)


def test_zero_is_mid_gray_and_the_limit_saturates():
    assert filter_to_pixels(np.array([0.0, -2, 2, 9]), 2.0).tolist() == [128, 0, 255, 255]
    assert np.abs(filter_to_pixels(np.zeros(3), 0.0) - 127.5).max() < 1


def test_clipped_weights_and_hidden_filters_are_counted():
    weights = np.zeros((512, 3, 3, 3))
    weights[:64] = 0.1
    weights[0, 0, 0, :2] = 5
    text = filters("t", weights, layer="conv1", step=1230, limit=1.0).description
    assert "2 of 1,728 weights beyond the scale" in text and "64 of 512 filters" in text and "step 1,230" in text
    assert "0 of 1,728 weights beyond" in filters("t", weights, layer="conv1", step=0).description


def test_filters_without_anything_to_see_are_named():
    weights = WEIGHTS.copy()
    weights[2], weights[3, 0, 0, 0] = 0, np.nan
    for per_filter in (False, True):
        text = filters("t", weights, layer="conv1", step=0, per_filter=per_filter).description
        assert "all zero in 1 of 40 filters" in text and "NaN in 1 of 40 filters" in text


def test_table_shows_the_first_fifteen_channels_of_the_first_twenty_filters():
    weights = np.random.default_rng(0).normal(size=(192, 64, 5, 5))
    picture = filter_table("t", weights, layer="features.3", step=0)
    assert "the first 15 of 64 channels of the first 20 of 192 filters" in picture.description
    assert fits(picture)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 224, 224), (2, 200, 3, 3), (70, 2, 1, 9), (300, 17, 11, 11)])
def test_any_shape_is_drawn_within_the_page(shape):
    weights = np.random.default_rng(0).normal(size=shape)
    assert fits(filters("t", weights, layer="l", step=0))
    assert fits(filter_table("t", weights, layer="l", step=0))


def test_flat_weights_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="reshape"):
        filters("t", np.zeros((10, 784)), layer="fc", step=0)
