import numpy as np
import pytest

from lightning_viz.render.colors import apply, class_colors, colors_of, table


def test_signed_colors_are_neutral_at_zero_and_saturate():
    zero, low, high, beyond = apply("diverging", np.array([0.0, -2, 2, 9]), -2, 2)
    assert np.ptp(zero.astype(int)) < 8
    assert low[2] > low[0] and high[0] > high[2]
    assert (beyond == high).all()


@pytest.mark.parametrize("name", ["diverging", "magma", "viridis", "heat"])
def test_a_color_means_one_number(name):
    assert len(np.unique(table(name), axis=0)) > 180


def test_classes_keep_their_color_and_differ():
    for count in (2, 8, 10, 20):
        assert len(np.unique(class_colors(count), axis=0)) == count
    assert (class_colors(3) == class_colors(8)[:3]).all()
    assert (class_colors(45)[40] == class_colors(45)[0]).all()
    # A subset of samples is colored as in the whole, if the number of classes is told.
    assert (colors_of(np.array([1, 2]), 2, classes=10) == class_colors(10)[1:3]).all()


def test_unlabeled_samples_are_gray():
    colors = colors_of(np.array([-1, 0]), 2)
    assert np.ptp(colors[0]) == 0 and np.ptp(colors[1]) > 0
