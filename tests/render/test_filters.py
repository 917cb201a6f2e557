from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from lightning_viz.render.colors import table
from lightning_viz.render.filters import filter_table, filter_to_pixels, filters, pixels_to_filter, tile_boxes

WEIGHTS = np.random.default_rng(0).normal(size=(40, 3, 5, 7)).astype(np.float32)


def cells(picture, boxes, height, width):
    """The drawn cells, one pixel a weight: decoded, cropped, and read at the middle of each enlarged weight."""
    page = np.asarray(Image.open(BytesIO(picture.image)).convert("RGB"))
    left, top = picture.origin
    found = []
    for x0, y0, x1, y1 in boxes:
        tile = page[top + y0 : top + y1, left + x0 : left + x1]
        factor = tile.shape[0] // height
        assert tile.shape == (height * factor, width * factor, 3)
        found.append(tile[factor // 2 :: factor, factor // 2 :: factor])
    return np.stack(found)


def test_undoing_the_scale_of_the_drawn_picture_gives_the_weights_back():
    limit = float(np.abs(WEIGHTS).max())
    picture = filters("t", WEIGHTS, layer="conv1", step=3)
    pixels = cells(picture, tile_boxes(40, 5, 7), 5, 7)
    np.testing.assert_allclose(pixels_to_filter(pixels, limit).transpose(0, 3, 1, 2), WEIGHTS, atol=limit / 255 * 1.01)


def test_each_filter_on_its_own_scale():
    limits = np.abs(WEIGHTS).max(axis=(1, 2, 3))[:, None, None, None]
    picture = filters("t", WEIGHTS, layer="conv1", step=3, per_filter=True)
    pixels = cells(picture, tile_boxes(40, 5, 7), 5, 7).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(pixels_to_filter(pixels, limits), WEIGHTS, atol=float(limits.max()) / 255 * 1.01)
    assert "own maximum" in picture.description


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_diverging_cells_give_the_weights_back(channels):
    weights = np.random.default_rng(1).normal(size=(9, channels, 3, 3))
    picture = filters("t", weights, layer="conv1", step=3, limit=4.0, as_rgb=False)
    pixels = cells(picture, tile_boxes(9, 3, 3, channels=channels), 3, 3).astype(int)
    distance = np.abs(pixels[..., None, :] - table("diverging").astype(int)).sum(axis=-1)
    assert (distance.min(axis=-1) == 0).all()
    decoded = pixels_to_filter(distance.argmin(axis=-1), 4.0).reshape(weights.shape)
    np.testing.assert_allclose(decoded, weights, atol=4.0 / 255 * 2.01)


def test_zero_is_mid_gray_and_the_limit_saturates():
    assert filter_to_pixels(np.array([0.0, -2, 2, 9]), 2.0).tolist() == [128, 0, 255, 255]
    assert np.abs(filter_to_pixels(np.zeros(3), 0.0) - 127.5).max() < 1


def test_clipped_weights_and_hidden_filters_are_counted():
    weights = np.zeros((512, 3, 3, 3))
    weights[:64] = 0.1
    weights[0, 0, 0, :2] = 5
    text = filters("t", weights, layer="conv1", step=1230, limit=1.0).description
    assert "2 of 1,728 weights beyond the scale" in text and "64 of 512 filters" in text and "step 1,230" in text
    assert "beyond" not in filters("t", weights, layer="conv1", step=0).description


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
    assert picture.height <= 920


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 224, 224), (2, 200, 3, 3), (70, 2, 1, 9), (300, 17, 11, 11)])
def test_any_shape_is_drawn_within_the_page(shape):
    weights = np.random.default_rng(0).normal(size=shape)
    assert filters("t", weights, layer="l", step=0).height <= 920
    assert filter_table("t", weights, layer="l", step=0).height <= 920


def test_flat_weights_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="reshape"):
        filters("t", np.zeros((10, 784)), layer="fc", step=0)
