"""Pixel space: what a picture shows is what the data set held."""

import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from torchvision import transforms
from torchvision.transforms import v2

from lightning_viz.pixels import PixelSpace

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPACE = PixelSpace(MEAN, STD)


class Images:
    def __init__(self, transform=None, **attributes):
        self.transform = transform
        self.__dict__.update(attributes)


class Wrapping:
    def __init__(self, dataset):
        self.dataset = dataset


@pytest.mark.parametrize("normalize", [transforms.Normalize(MEAN, STD), v2.Normalize(MEAN, STD)])
def test_to_pixels_undoes_torchvisions_normalize(normalize):
    pixels = torch.rand(2, 3, 5, 4)
    inputs = normalize(pixels)
    assert torch.allclose(SPACE.to_pixels(inputs), pixels, atol=1e-6)
    assert torch.allclose(SPACE.to_inputs(pixels), inputs, atol=1e-6)


def test_round_trip_in_any_number_of_dimensions_and_precision():
    pixel_space = PixelSpace((0.2, 0.7), (0.5, 3.0))
    for shape in [(4, 2), (4, 2, 6), (4, 2, 6, 5), (4, 2, 3, 6, 5)]:
        pixels = torch.rand(shape, dtype=torch.float64)
        back = pixel_space.to_pixels(pixel_space.to_inputs(pixels))
        assert back.dtype == torch.float64
        assert torch.allclose(back, pixels, atol=1e-12)
    one_for_all = PixelSpace((0.5,), (0.25,)).to_pixels(torch.tensor([[[[-1.0]], [[1.0]], [[0.0]]]]))
    assert one_for_all.flatten().tolist() == [0.25, 0.75, 0.5]


def test_pixels_keep_to_the_bounds():
    outside = torch.tensor([[[[-100.0, 100.0]]]])
    assert PixelSpace().to_pixels(outside).flatten().tolist() == [0, 1]
    assert PixelSpace(bounds=(-0.5, 2.0)).to_pixels(outside).flatten().tolist() == [-0.5, 2.0]


@pytest.mark.parametrize(
    "dataset",
    [
        Images(transforms.Normalize(MEAN, STD)),
        Images(transforms.Compose([transforms.ToTensor(), transforms.Normalize(list(MEAN), list(STD))])),
        Images(v2.Compose([v2.ToImage(), v2.Compose([v2.ToDtype(torch.float32), v2.Normalize(MEAN, STD)])])),
        Images(v2.Compose([v2.RandomApply([v2.Normalize(MEAN, STD)])])),
        Images(nn.Sequential(transforms.Resize(8), transforms.Normalize(MEAN, STD))),
        Images(transforms.Normalize(torch.tensor(MEAN), torch.tensor(STD).view(3, 1, 1))),
        Images(transforms=transforms.Compose([transforms.Normalize(MEAN, STD)])),
        Wrapping(Wrapping(Images(transforms.Normalize(MEAN, STD)))),
        Subset(Images(transforms.Normalize(MEAN, STD)), [0, 1]),
    ],
)
def test_the_normalize_is_found_wherever_it_stands(dataset):
    found = PixelSpace.of_transform(dataset)
    assert torch.allclose(torch.tensor(found.mean), torch.tensor(MEAN))
    assert torch.allclose(torch.tensor(found.std), torch.tensor(STD))


def test_the_normalize_is_found_in_concatenated_data_sets_and_in_torchvisions_own():
    from torchvision.datasets import FakeData

    data = FakeData(size=2, transform=transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)]))
    assert PixelSpace.of_transform(ConcatDataset([TensorDataset(torch.rand(2, 1)), Subset(data, [1])])) == SPACE


def test_none_where_there_is_no_normalize():
    assert PixelSpace.of_transform(None) is None
    assert PixelSpace.of_transform(Images(transforms.Compose([transforms.ToTensor()]))) is None
    loop = Wrapping(None)
    loop.dataset = loop
    assert PixelSpace.of_transform(loop) is None


@pytest.mark.parametrize(
    ("low", "high", "mean", "std"),
    [
        (0, 1, 0, 1),
        (0.2, 0.4, 0, 1),
        (-1, 1, 0.5, 0.5),
        (0, 255, 0, 1 / 255),
        (0, 16, 0, 1 / 255),
        (-3, 5, 3 / 8, 1 / 8),
    ],
)
def test_a_guess_shows_the_inputs_in_full(low, high, mean, std):
    inputs = torch.linspace(low, high, 12).view(1, 3, 2, 2)
    inputs[0, 0, 0, 1] = float("nan")
    pixel_space = PixelSpace.guess(inputs)
    assert (pixel_space.mean, pixel_space.std) == (pytest.approx((mean,)), pytest.approx((std,)))
    shown, order = pixel_space.to_pixels(inputs).flatten(), inputs.flatten()
    known = ~order.isnan()
    assert (shown[known].diff() > 0).all()  # nothing is cut off


def test_a_guess_of_constant_or_broken_inputs_is_a_space():
    for value in (7000.0, -3.0, float("nan"), float("inf")):
        shown = PixelSpace.guess(torch.full((1, 1, 2, 2), value)).to_pixels(torch.full((1, 1, 2, 2), value))
        assert not shown.isfinite().any() or (0 <= shown).all()
    assert PixelSpace.guess(torch.zeros(0, 3, 2, 2)) == PixelSpace()


def test_impossible_spaces_are_errors():
    with pytest.raises(ValueError, match=r"std is \[0.5, 0.0\]: every channel's deviation must be positive"):
        PixelSpace((0.5, 0.5), (0.5, 0.0))
    with pytest.raises(ValueError, match=r"bounds are \(1.0, 0.0\)"):
        PixelSpace(bounds=(1.0, 0.0))
    with pytest.raises(ValueError, match="the pixel space has 3 channels, the images have 1"):
        SPACE.to_pixels(torch.rand(2, 1, 4, 4))
