import itertools

import numpy as np
import pytest

from lightning_viz.render.embedding import (
    embedding_panels,
    named_places,
    panel,
    scatter,
)
from lightning_viz.render.layout import draw

from .pixels import body, fits

RNG = np.random.default_rng(0)
LABELS = np.arange(120) % 3
POINTS = RNG.normal(size=(120, 2)) * 0.3 + np.array([[0, 0], [3, 0], [0, 3]])[LABELS]
EXTENT = (-2.0, 5.0, -2.0, 5.0)


def pixels(part):
    return np.asarray(draw(part)).astype(int)


def drawn(points=POINTS, **options):
    settings = {
        "layer": "fc1",
        "step": 1230,
        "labels": LABELS,
        "extent": EXTENT,
        "method": "t-SNE",
        "dimension": 18432,
        "knn_accuracy": 0.974,
        "trustworthiness": 0.99,
        **options,
    }
    return scatter("t", points, **settings)


def test_caption_says_dimension_and_accuracy():
    text = drawn().description
    for words in (
        "t-SNE of fc1",
        "step 1,230",
        "18,432 dimensions",
        "k-NN accuracy in the layer 97 %",
        "trustworthiness 0.99",
    ):
        assert words in text


def test_points_that_cannot_be_seen_are_counted():
    points = POINTS.copy()
    points[0], points[1] = np.nan, 99
    text = drawn(points).description
    assert "NaN in 1 of 120 points" in text and "1 outliers at the rim" in text


def test_points_stand_where_they_are_and_the_view_is_fixed():
    one = drawn(np.array([[-1.9, 4.9]]), labels=np.array([0]), class_names=("",))
    page = body(one)[:-2, :-2]
    rows, columns = np.nonzero((page < 170).any(axis=-1))
    assert rows.mean() < 0.05 * page.shape[0] and columns.mean() < 0.05 * page.shape[1]
    assert body(drawn(POINTS * 0.9)).shape == body(drawn()).shape


def test_clusters_are_measured_against_classes():
    assert "crosses: samples of other classes, 0 %" in drawn(method="k-means", clusters=(LABELS + 1) % 3).description
    most = np.where(np.arange(120) < 30, LABELS, 2)
    assert "other classes, 17 %" in drawn(method="k-means", labels=most, clusters=np.zeros(120, dtype=int)).description
    mixed = np.zeros(120, dtype=int)
    text = drawn(method="k-means", clusters=mixed).description
    assert "1 cluster " in text and "crosses: samples of other classes, 67 %" in text
    assert fits(drawn(method="k-means", labels=None, clusters=mixed))


@pytest.mark.parametrize("classes", [1, 9, 40])
def test_any_number_of_classes(classes):
    labels = np.arange(120) % classes
    names = tuple(f"class number {each}" for each in range(classes))
    assert (body(drawn(labels=labels, class_names=names)) == body(drawn(labels=labels, class_names=names))).all()
    panels = [("t-SNE", POINTS, EXTENT), ("PCA", POINTS[:, ::-1], EXTENT)]
    assert fits(embedding_panels("t", panels, layer="fc1", step=0, labels=labels, class_names=names, dimension=9))


def test_a_point_out_of_view_stands_at_the_rim():
    inside = pixels(panel(np.array([[40, 1.5]]), None, None, (200, 200), EXTENT))[2:-2, 2:-2]
    rows, columns = np.nonzero((inside < 200).any(axis=-1))
    assert columns.min() > 180 and 93 < rows.mean() < 103


def test_a_class_has_its_name_on_a_point_of_its_largest_cluster():
    few = RNG.normal(size=(20, 2)) * 0.1 + [4, 4]
    points = np.vstack([POINTS[LABELS == 0], few])  # the mean of both is on no point
    ((name, x, y),) = named_places(points, np.zeros(60, dtype=int), ("cat",), (300, 300), EXTENT)
    assert name == "cat" and [x, y] in POINTS[LABELS == 0].tolist() and abs(x) + abs(y) < 1


def test_names_of_classes_that_lie_together_do_not_cover_each_other():
    points = np.tile(RNG.normal(size=(40, 2)), (3, 1))
    places = named_places(points, np.repeat(np.arange(3), 40), ("ape", "bee", "cat"), (300, 300), (-3, 3, -3, 3))
    for one, other in itertools.combinations(places, 2):
        assert abs(one[1] - other[1]) * 50 > 18 or abs(one[2] - other[2]) * 50 > 18
