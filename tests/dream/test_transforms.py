"""Transformations against SciPy's and NumPy's, on square and other images; the same for all images of a batch."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from lightning_viz.dream import jitter, pad, rotate, scale, standard
from lightning_viz.dream.transforms import fitted

SIZES = [(20, 20), (17, 31), (24, 9)]


def images(size, batch=2, channels=3):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(batch, channels, *size)))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("degrees", [-7.5, 5, 33, 90, 180])
def test_a_rotation_is_scipys(degrees, size):
    given = images(size)
    expected = ndimage.rotate(given.numpy(), degrees, axes=(2, 3), reshape=False, order=1, mode="grid-constant")
    torch.testing.assert_close(rotate(degrees)(given, generator()), torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


def test_a_quarter_turn_of_a_square_is_numpys_counter_clockwise():
    given = images((12, 12))
    turned = rotate(90)(given, generator())
    torch.testing.assert_close(turned, torch.rot90(given, 1, (2, 3)), rtol=1e-6, atol=1e-9)


def test_a_turned_circle_in_a_wide_image_stays_a_circle():
    y, x = torch.meshgrid(torch.arange(21.0) - 10, torch.arange(61.0) - 30, indexing="ij")
    disc = torch.exp(-(x**2 + y**2) / 18)[None, None]
    torch.testing.assert_close(rotate(30)(disc, generator()), disc, atol=0.03, rtol=0)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("pixels", [0, 1, 4])
def test_jitter_gives_every_crop_of_the_image_and_nothing_else(pixels, size):
    given, (height, width) = images(size), (side - pixels for side in size)
    crops = {
        (top, left): given[..., top : top + height, left : left + width]
        for top in range(pixels + 1)
        for left in range(pixels + 1)
    }
    found, random, cropped = set(), generator(), jitter(pixels)
    for _ in range(400):
        result = cropped(given, random)
        found |= {place for place, crop in crops.items() if torch.equal(crop, result)}
        assert result.shape == crops[0, 0].shape
    assert found == set(crops)


def test_jitter_that_leaves_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"jitter\(9\) leaves nothing of images of \(24, 9\)"):
        jitter(9)(images((24, 9)), generator())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("factor", [0.5, 0.9, 1, 1.1, 2])
def test_a_scaling_is_pillows(factor, size):
    given = images(size).float()
    rows, columns = (round(side * factor) for side in size)

    def resized(plane):
        return np.asarray(Image.fromarray(plane).resize((columns, rows), Image.Resampling.BILINEAR))

    expected = np.array([[resized(plane) for plane in one] for one in given.numpy()])
    scaled = scale(factor)(given, generator())
    torch.testing.assert_close(scaled, torch.from_numpy(expected), rtol=1e-5, atol=1e-5)
    if factor == 1:
        assert torch.equal(scaled, given)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_a_border_is_numpys(mode):
    given = images((9, 12))
    name = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
    expected = np.pad(given.numpy(), [(0, 0), (0, 0), (4, 4), (4, 4)], mode=name)
    assert torch.equal(pad(4, mode)(given, generator()), torch.from_numpy(expected))


@pytest.mark.parametrize("factory", [scale, rotate])
def test_one_of_the_values_is_taken_each_as_often_and_none_is_an_error(factory):
    given = images((10, 10))
    values = (1, 2, 3)
    single = [factory(value)(given, generator()) for value in values]
    random, counts = generator(), [0, 0, 0]
    for _ in range(300):
        result = factory(*values)(given, random)
        for place, one in enumerate(single):
            counts[place] += torch.equal(one, result)
    assert sum(counts) == 300
    assert min(counts) > 70
    with pytest.raises(ValueError, match=f"{factory.__name__}.*one value or more"):
        factory()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (3, 5), (-2, -7), (4, -3), (-1, 1)])
def test_fitted_keeps_the_middle_and_fills_with_gray(rows, columns, size):
    given = images(size)
    wanted = size[0] + rows, size[1] + columns
    expected = np.zeros((2, 3, *wanted))
    for y in range(wanted[0]):
        for x in range(wanted[1]):
            from_y, from_x = y - rows // 2, x - columns // 2
            if 0 <= from_y < size[0] and 0 <= from_x < size[1]:
                expected[..., y, x] = given[..., from_y, from_x]
    assert torch.equal(fitted(given, wanted), torch.from_numpy(expected))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_standard_set_moves_all_images_alike_and_differently_at_each_step(size):
    same = images(size)[:1].expand(3, -1, -1, -1)

    def moved(seed):
        changed, random = same, generator(seed)
        for transform in standard(4):
            changed = transform(changed, random)
        return fitted(changed, same.shape[2:])

    first = moved(0)
    assert torch.equal(first[0], first[2])
    assert torch.equal(first, moved(0))
    assert not torch.equal(first, moved(1))


@pytest.mark.parametrize(
    "transform", [jitter(2), scale(0.8), scale(1.3), rotate(12), pad(2), pad(2, "reflect")], ids=range(6)
)
def test_gradients_flow_as_they_should(transform):
    given = images((6, 7), batch=1, channels=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: transform(x, generator()), given)
