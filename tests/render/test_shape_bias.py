"""What a network follows stands in words beside its color, is counted over all, and is marked where it is."""

import numpy as np
import pytest

from lightning_viz.render.colors import class_colors
from lightning_viz.render.parts import Label, Tile
from lightning_viz.render.shape_bias import Conflict, cue_sheet, shape_bias_plot

from .pixels import body, decoded, fits, texts

RNG = np.random.default_rng(0)
ANSWERS = {
    "shape": [("cat", 0.999), ("dog", 0.001), ("car", 0.0)],
    "texture": [("dog", 0.6), ("cat", 0.3), ("car", 0.1)],
    "neither": [("car", 0.5), ("dog", 0.3), ("cat", 0.2)],
}


def conflict(follows: str, height: int = 20, width: int = 20) -> Conflict:
    images = (RNG.integers(0, 256, (*size, 3)).astype(np.uint8) for size in ((height, width), (16, 16), (9, 30)))
    return Conflict(*images, "cat", "dog", ANSWERS[follows])


def where(sheet, color) -> np.ndarray:
    return np.argwhere((sheet == np.asarray(color)).all(-1))


def test_what_is_followed_is_the_decision_s_class():
    assert [conflict(one).follows for one in ANSWERS] == ["shape", "texture", "neither"]


def test_decisions_are_counted_over_all_images_also_those_not_shown():
    picture = cue_sheet("t", [conflict("shape")] * 9 + [conflict("texture")] * 3 + [conflict("neither")] * 8)
    assert "decisions: 9 shape, 3 texture, 8 neither" in picture.description
    assert "shape bias 0.75" in picture.description and "the first 12 of 20" in picture.description


def test_without_a_decision_for_either_there_is_no_bias():
    assert "no shape bias" in cue_sheet("t", [conflict("neither")] * 2).description


def test_the_frame_is_around_the_cue_that_is_followed_alone():
    for follows, framed in (("shape", [True, False]), ("texture", [False, True]), ("neither", [False, False])):
        page = cue_sheet("t", [conflict(follows)])
        image, shape, texture = page.parts(Tile)
        assert [image.outline] + [tile.outline is not None for tile in (shape, texture)] == [None, *framed]
        for color in filter(None, (shape.outline, texture.outline)):
            assert len(where(body(page), color)) > 4 * min(shape.size)


def test_the_verdict_is_told_by_words_and_a_cross_not_by_color_alone():
    bands = [next(cue_sheet("t", [conflict(follows)]).parts(Label)).text for follows in ANSWERS]
    assert bands == ["→ shape", "→ texture", "✗ neither"]


def test_the_three_most_probable_classes_are_written_and_less_than_all_is_never_100():
    page = cue_sheet("t", [conflict("shape")])
    assert [lines for lines, _ in texts(page)] == ["cat 99 % dog 0 % car 0 %"]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9, 12, 30])
@pytest.mark.parametrize(("height", "width"), [(20, 20), (20, 30)])
def test_the_sheet_fits_the_page_whatever_it_holds(count, height, width):
    picture = cue_sheet("t", [conflict("shape", height, width)] * count, title="T")
    assert fits(picture)


def test_few_conflicts_come_out_large_and_none_is_blurred():
    one, many = conflict("neither"), [conflict("neither") for _ in range(12)]
    for shown, least in (([one], 200), (many, 100)):
        sheet = decoded(cue_sheet("t", shown)).astype(int)
        codes = sheet @ [65536, 256, 1]
        for each in shown:
            pixels = each.image.reshape(-1, 3).astype(int) @ [65536, 256, 1]
            assert np.isin(pixels, codes).all()
            assert np.isin(codes, pixels).sum() >= least**2


def test_a_mark_stands_for_each_network_in_each_class_and_among_all():
    values = np.array([[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]])
    sheet = decoded(shape_bias_plot("t", values, [0.5, 0.25], names=["cat", "dog", "car"], models=["a", "b"]))
    for model, expected in enumerate(([0, 0.5, 1, 0.5], [1, 0.5, 0, 0.25])):
        found = where(sheet, class_colors(2)[model])
        groups = np.split(found, np.flatnonzero(np.diff(found[:, 0]) > 5) + 1)[:4]
        across = np.array([group[:, 1].mean() for group in groups])
        low, high = across[np.argmin(expected)], across[np.argmax(expected)]
        least, most = min(expected), max(expected)
        np.testing.assert_allclose((across - low) / (high - low) * (most - least) + least, expected, atol=0.01)


def test_a_class_without_a_decision_has_no_mark_and_that_is_said():
    values = np.array([[0.0, np.nan, 1.0]])
    picture = shape_bias_plot("t", values, [0.5], names=["cat", "dog", "car"], models=["a"])
    assert "for 1 of 3 classes" in picture.description
    whole = shape_bias_plot("t", np.array([[0.0, 0.5, 1.0]]), [0.5], names=["cat", "dog", "car"], models=["a"])
    assert "no decision" not in whole.description
    color = class_colors(1)[0]
    assert len(where(decoded(picture), color)) < 0.9 * len(where(decoded(whole), color))


def test_a_network_without_any_decision_is_drawn_too():
    picture = shape_bias_plot("t", np.full((1, 2), np.nan), [np.nan], names=["cat", "dog"], models=["a"])
    assert "for 2 of 2 classes" in picture.description


def test_what_does_not_fit_together_is_named():
    with pytest.raises(ValueError, match="give one or more"):
        cue_sheet("t", [])
    with pytest.raises(ValueError, match=r"class_bias is \[1, 2\]"):
        shape_bias_plot("t", np.zeros((1, 2)), [0.5], names=["cat"], models=["a"])
    floating = Conflict(np.zeros((4, 4, 3)), *[np.zeros((4, 4, 3), np.uint8)] * 2, "cat", "dog", ANSWERS["shape"])
    with pytest.raises(ValueError, match="images are uint8"):
        cue_sheet("t", [floating])
