import numpy as np

from lightning_viz.render.colors import class_colors, pale
from lightning_viz.render.hyperplanes import clip_lines, hyperplanes, zero_sets
from lightning_viz.render.parts import PlanePlot

from .pixels import body, fits

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


def test_the_network_without_units_in_view_or_with_nan_is_still_drawn():
    assert "NaN in the weights" in drawn(np.full((2, 2), np.nan)).description
    assert fits(drawn(np.zeros((1, 2))))


def test_less_important_units_are_fainter():
    weights = np.array([[1.0, 1.0]])
    faint, strong = drawn(weights, importance=np.array([0.0])), drawn(weights)
    assert (body(faint) != body(strong)).any()
    assert [next(page.parts(PlanePlot)).strengths for page in (faint, strong)] == [[0.12], [1]]


def test_regions_stand_upright():
    regions = np.zeros((20, 20), dtype=int)
    regions[10:, :10] = 1  # the upper left: large y, small x
    picture = drawn(np.zeros((1, 2)), samples=np.zeros((0, 2)), regions=regions)
    page = body(picture)
    ground, upper_left = (tuple(color) for color in pale(class_colors(2)))
    assert tuple(page[60, 138]) == upper_left
    assert tuple(page[60, 588]) == tuple(page[330, 138]) == tuple(page[330, 588]) == ground


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
