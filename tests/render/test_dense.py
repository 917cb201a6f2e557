"""Dense predictions drawn: what differs is red, what does not count is not, a fixed scale stays."""

import numpy as np
import pytest

from lightning_viz.render.dense import UNCOUNTED, class_predictions, found_on_canvas, image_predictions

from .pixels import body

RED = np.array((190, 20, 30))


def reds(picture):
    """How many pixels of the body are nearly the red of mistakes."""
    return int((np.abs(body(picture).astype(int) - RED).sum(2) < 60).sum())


def segmentation(truth, prediction, **options):
    images = np.full((len(truth), 8, 8, 3), 90, np.uint8)
    given = {"step": 3, "names": ["back", "disc", "square"], "overlaps": [1.0, 0.5, float("nan")], "accuracy": 0.9996}
    return class_predictions("predictions", images, truth, prediction, **{**given, "samples": 16, **options})


def test_only_pixels_that_differ_and_count_are_red():
    truth = np.zeros((1, 8, 8), int)
    wrong, uncounted = truth.copy(), truth.copy()
    wrong[0, :4], uncounted[0, :4] = 1, UNCOUNTED
    assert reds(segmentation(truth, truth)) == 0
    assert reds(segmentation(truth, wrong)) > 1000
    assert reds(segmentation(uncounted, wrong)) == 0


def test_the_caption_says_the_figures_and_never_all_for_nearly_all():
    truth = np.zeros((6, 8, 8), int)
    said = segmentation(truth, truth).description
    for words in ("mean IoU 0.750", "99.9 % of the pixels right", "over 16 samples, the first 4 shown", "step 3"):
        assert words in said


def test_the_background_can_be_colored_too():
    truth = np.zeros((1, 8, 8), int)
    plain, colored = segmentation(truth, truth), segmentation(truth, truth, background=None)
    assert (body(plain) != body(colored)).any()


def test_images_differ_on_a_scale_that_is_given_whatever_they_are():
    images = np.zeros((1, 8, 8, 3), np.uint8)
    drawn = [
        image_predictions(
            "p", images, images, images, np.full((1, 8, 8), value), step=0, noise_ratios=[20.0], limit=0.25
        )
        for value in (0.0, 0.1, 0.25, 0.5)
    ]
    sums = [int(body(one).astype(int).sum()) for one in drawn]
    assert sums[0] < sums[1] < sums[2] == sums[3]
    assert "mean PSNR 20.0 dB" in drawn[0].description and "0 to 0.25" in drawn[0].description


def test_a_broken_difference_is_said():
    images = np.zeros((1, 8, 8, 3), np.uint8)
    broken = np.full((1, 8, 8), np.nan)
    said = image_predictions("p", images, images, images, broken, step=0, noise_ratios=[float("nan")], limit=0.25)
    assert "NaN in 1 of 1 differences" in said.description


def test_the_frame_is_where_the_window_is():
    images = np.zeros((1, 40, 40, 3), np.uint8)
    scores = np.zeros((1, 4, 4))
    scores[0, 3, 0] = 0.9
    window = (12, 40, 0, 28)
    picture = found_on_canvas("f", images, scores, [window], size=(28, 28), stride=(4, 4), names=["7"])
    left = body(picture).astype(int)[30:, :335]  # the first tile
    rows = np.flatnonzero((np.abs(left - RED).sum(2) < 10).sum(1) > 150)
    assert rows[0] == pytest.approx(12 / 40 * 335, abs=8)
