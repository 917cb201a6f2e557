"""Agreement with the truth equals torchmetrics'; what does not count does not."""

import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index
from torchmetrics.functional.image import peak_signal_noise_ratio

from lightning_viz.dense import intersection_over_union, peak_signal_to_noise, pixel_accuracy


def masks(classes=4):
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, classes, (5, 6, 7), generator=generator)
    wrong = torch.rand(truth.shape, generator=generator) < 0.3
    return torch.where(wrong, torch.randint(0, classes, truth.shape, generator=generator), truth), truth


def test_intersection_over_union_is_torchmetrics():
    predicted, truth = masks()
    expected = multiclass_jaccard_index(predicted, truth, 4, average=None)
    torch.testing.assert_close(intersection_over_union(predicted, truth, 4), expected)


@pytest.mark.parametrize("ignored", [255, -100])
def test_pixels_that_do_not_count_change_nothing(ignored):
    predicted, truth = masks()
    wrong = predicted != truth
    without = truth.masked_fill(wrong, ignored)
    assert pixel_accuracy(predicted, without) == 1
    assert intersection_over_union(predicted, without, 4).tolist() == [1, 1, 1, 1]
    assert pixel_accuracy(predicted, truth) == pytest.approx(1 - float(wrong.float().mean()))


def test_a_class_that_does_not_occur_has_no_overlap_and_one_too_many_is_said():
    predicted, truth = masks()
    assert intersection_over_union(predicted, truth, 5)[4].isnan()
    with pytest.raises(ValueError, match="hold class 3 where there are 3"):
        intersection_over_union(predicted, truth, 3)


def test_peak_signal_to_noise_is_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    images, truth = torch.rand(3, 2, 5, 6, generator=generator), torch.rand(3, 2, 5, 6, generator=generator)
    expected = peak_signal_noise_ratio(images, truth, data_range=1.0, reduction=None, dim=(1, 2, 3))
    torch.testing.assert_close(peak_signal_to_noise(images, truth), expected)
    assert peak_signal_to_noise(truth, truth).isinf().all()
