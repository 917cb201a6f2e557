import itertools

import numpy as np
import pytest
from PIL import Image

from lightning_viz.render.decision_regions import DecisionRegions, class_shades
from lightning_viz.render.hyperplanes import clip_lines, hyperplanes, zero_sets
from lightning_viz.render.parts import PlanePlot
from lightning_viz.render.side_marks import side_marks, zero_contours

from .pixels import body, fits, texts

EXTENT = (-1.5, 2.5, -1.0, 1.5)


def test_drawn_ends_lie_on_the_line_and_on_the_edge_of_the_view():
    generator = np.random.default_rng(0)
    weights, biases = generator.normal(size=(200, 2)), generator.normal(size=200)
    ends = clip_lines(weights, biases, EXTENT)
    seen = np.isfinite(ends).all(axis=(1, 2))
    assert 20 < seen.sum() < 200
    values = np.einsum("ked,kd->ke", ends[seen], weights[seen]) + biases[seen, None]
    np.testing.assert_allclose(values, 0, atol=1e-9)
    x, y = ends[seen, :, 0], ends[seen, :, 1]
    edge = np.isclose(x, -1.5) | np.isclose(x, 2.5) | np.isclose(y, -1) | np.isclose(y, 1.5)
    assert edge.all() and (np.abs(ends[seen, 0] - ends[seen, 1]).sum(axis=1) > 0).all()


def test_a_line_is_out_of_view_exactly_if_one_sign_fills_the_view():
    generator = np.random.default_rng(1)
    weights, biases = generator.normal(size=(300, 2)), generator.normal(size=300) * 2
    corners = np.array([[x, y] for x in EXTENT[:2] for y in EXTENT[2:]])
    signs = corners @ weights.T + biases > 0
    crosses = signs.any(axis=0) & ~signs.all(axis=0)
    assert (np.isfinite(clip_lines(weights, biases, EXTENT)).all(axis=(1, 2)) == crosses).all()


def test_lines_parallel_to_an_axis_and_units_without_weights():
    weights = np.array([[2.0, 0], [0, 1], [0, 1], [0, 0], [np.nan, 1]])
    ends = clip_lines(weights, np.array([-1.0, 0.5, 9, 1, 0]), EXTENT)
    assert sorted(map(tuple, ends[0])) == [(0.5, -1.0), (0.5, 1.5)]
    assert sorted(map(tuple, ends[1])) == [(-1.5, -0.5), (2.5, -0.5)]
    assert np.isnan(ends[2:]).all()


def drawn(weights, **options):
    settings = {
        "layer": "net.0",
        "step": 1230,
        "biases": np.zeros(len(weights)),
        "importance": np.ones(len(weights)),
        "samples": np.random.default_rng(0).normal(size=(50, 2)),
        "labels": None,
        "extent": EXTENT,
        "regions": None,
        "counts": {},
    }
    return hyperplanes("t", weights=weights, **{**settings, **options})


def test_caption_counts_units():
    text = drawn(np.eye(2), counts={"dead": 1, "duplicate": 0, "out of view": 3}, accuracy=0.984).description
    assert (
        "2 units, 1 dead, 3 out of view" in text and "0 duplicate" not in text and "98 % of these samples right" in text
    )
    assert "99 % of these samples right" in drawn(np.eye(2), accuracy=0.998).description  # not all of them


def test_the_network_without_units_in_view_or_with_nan_is_still_drawn():
    assert "NaN in the weights" in drawn(np.full((2, 2), np.nan)).description
    assert fits(drawn(np.zeros((1, 2))))


def test_less_important_units_are_fainter():
    weights = np.array([[1.0, 1.0]])
    faint, strong = drawn(weights, importance=np.array([0.0])), drawn(weights)
    assert (body(faint) != body(strong)).any()
    assert [next(page.parts(PlanePlot)).strengths for page in (faint, strong)] == [[0.12], [1]]


def regions(*scores):
    """Of scores of classes on a grid ``[M, M]``, those of which are predicted somewhere."""
    logarithms = np.stack(scores) - np.log(np.exp(np.stack(scores)).sum(0))
    classes = np.unique(logarithms.argmax(0))
    return DecisionRegions(classes, logarithms[classes], len(scores))


def frame(page):
    """The pixels within the axes."""
    (plot,) = page.parts(PlanePlot)
    left, bottom, width, height = plot.frame
    return body(page)[plot.height - bottom - height : plot.height - bottom, left : left + width].astype(int)


def test_regions_stand_upright():
    sure = np.zeros((20, 20))
    sure[10:, :10] = 40  # the upper left: large y, small x
    ground = frame(drawn(np.zeros((1, 2)), samples=np.zeros((0, 2)), regions=regions(20 - sure, sure - 20)))
    height, width = ground.shape[:2]
    at = {
        (y, x): tuple(ground[round(y * height), round(x * width)]) for y, x in itertools.product((0.2, 0.8), repeat=2)
    }
    shades = class_shades(np.arange(2), 2)
    assert at.pop((0.2, 0.2)) == tuple(shades[1, -1]) and set(at.values()) == {tuple(shades[0, -1])}


def test_the_ground_is_paler_where_the_class_is_less_probable():
    x = np.linspace(-6, 6, 30) + np.zeros((30, 1))
    row = regions(-x / 2, x / 2).colors((200, 200), 2)[100]
    probability = 1 / (1 + np.exp(-np.abs(np.linspace(-6, 6, 401)[1::2])))
    wanted = class_shades(np.array([0, 1]), 2)[[0] * 100 + [1] * 100, np.rint((2 * probability - 1) * 32).astype(int)]
    assert np.abs(row.astype(int) - wanted).max() <= 16  # two of 32 levels, where the grid is coarse
    strength = 255 - row.min(1).astype(int)
    assert (np.diff(strength[:100]) <= 0).all() and (np.diff(strength[100:]) >= 0).all()
    assert strength[[99, 100]].max() < 25 < 80 < strength[[0, -1]].min()
    assert (np.sign(row[:, 0].astype(int) - row[:, 2])[[0, -1]] == [-1, 1]).all()  # blue, orange


def test_edges_of_regions_are_smooth_though_the_grid_is_coarse():
    y, x = np.mgrid[-1:1:12j, -1:1:12j]
    score = 50 * (x + 0.37 * y - 0.1)
    for pair in ((-score, score), (-score, score, -100 + 0 * score)):
        ground = regions(*pair).colors((300, 300), len(pair)).astype(int)
        edge = np.where(ground[..., 0] > ground[..., 2], 0, 1).sum(1)  # pixels of class 0 in each row
        heights = np.linspace(1, -1, 601)[1::2]
        np.testing.assert_allclose(edge, ((0.1 - 0.37 * heights) + 1) * 150, atol=1.01)


def test_where_nothing_is_predicted_the_ground_is_white():
    ground = DecisionRegions(np.array([0]), np.full((1, 5, 5), np.nan), 2).colors((10, 10), 2)
    assert (ground == 255).all()


def test_a_key_says_what_the_grounds_strength_means():
    flat = np.zeros((5, 5))
    page = drawn(np.eye(2), regions=regions(flat, flat, flat, flat + 1))
    words = [text for text, _ in texts(page)]
    assert "25 %" in words and "100 %" in words and any("probability" in text for text in words)
    without = [text for text, _ in texts(drawn(np.eye(2)))]
    assert "100 %" not in without
    assert all(any("▲" in text for text in each) for each in (words, without))


def test_marks_stand_where_the_unit_is_on():
    generator = np.random.default_rng(3)
    weights, biases = generator.normal(size=(50, 2)), generator.normal(size=50) / 3
    scale = np.array([100.0, 100.0])
    for weight, bias, ends in zip(weights, biases, clip_lines(weights, biases, EXTENT), strict=True):
        triangles = side_marks(ends, scale)
        assert len(triangles) == 2 or np.hypot(*(ends[1] - ends[0]) * scale) < 90
        values = triangles @ weight + bias
        np.testing.assert_allclose(values[:, :2], 0, atol=1e-9)  # their base lies on the line
        assert (values[:, 2] > 0).all()


def test_marks_of_bent_lines_stand_where_the_unit_is_on():
    y, x = np.mgrid[-1:1.5:60j, -1.5:2.5:60j]
    page = zero_sets(
        "t", layer="l", step=1, values=np.stack([np.abs(x) - y, 0.8 - np.hypot(x, y)]), samples=np.zeros((0, 2)),
        labels=None, extent=EXTENT, regions=None,
    )  # fmt: skip
    (plot,) = page.parts(PlanePlot)
    functions = (lambda p: abs(p[0]) - p[1], lambda p: 0.8 - np.hypot(*p))
    scale = np.array(plot.frame[2:]) / (4, 2.5)
    for values, function in zip(plot.contours, functions, strict=True):
        triangles = [mark for curve in zero_contours(values, EXTENT) for mark in side_marks(curve, scale)]
        assert triangles and all(function(corners[2]) > 0.01 for corners in triangles)


def test_marks_are_seen_on_the_card():
    dark = []
    for weights, biases in ((np.array([[1.0, 0.0]]), np.array([-0.5])), (np.array([[-1.0, 0.0]]), np.array([0.5]))):
        picture = frame(drawn(weights, biases=biases, samples=np.zeros((0, 2))))[4:-4, 4:-4]
        card = np.asarray(Image.fromarray(picture.astype(np.uint8)).reduce(2)).min(2) < 128
        middle = round(card.shape[1] / 2)
        dark.append((card[:, : middle - 2].sum(), card[:, middle + 2 :].sum()))
    (left, right), (other_left, other_right) = dark
    assert left == other_right == 0 and min(right, other_left) > 12


def test_many_classes_say_that_colors_repeat():
    flat = np.zeros((5, 5))
    assert "30 classes: no names, colors repeat" in drawn(np.eye(2), regions=regions(*[flat] * 30)).description
    assert "colors repeat" not in drawn(np.eye(2), regions=regions(*[flat] * 20)).description


@pytest.mark.parametrize("classes", [2, 20, 30])
def test_the_page_of_a_square_view_is_a_card(classes):
    flat = np.zeros((5, 5))
    page = drawn(
        np.random.default_rng(0).normal(size=(64, 2)), extent=(-1, 1, -1, 1), regions=regions(*[flat] * classes),
        counts={"dead": 12, "duplicate": 13, "out of view": 14}, accuracy=0.5, step=10_000,
    )  # fmt: skip
    assert fits(page, 900)


def test_units_of_one_sign_are_counted_rather_than_drawn():
    y, x = np.mgrid[-1:1.5:30j, -1.5:2.5:30j]
    values = np.stack([np.abs(x) - y, x * 0 + 1, x - 100, x * np.nan])
    picture = zero_sets(
        "t",
        layer="net.2",
        step=1,
        values=values,
        samples=np.zeros((1, 2)),
        labels=np.array([0]),
        extent=EXTENT,
        regions=None,
    )
    assert "2 of one sign" in picture.description
    assert "NaN in 1 of 4 units" in picture.description
