import numpy as np
import pytest

from lightning_viz.render.embedding import assign, embedding_panels, grid, scatter, sprite, thumbnails

from .pixels import body, fits, raster

RNG = np.random.default_rng(0)
LABELS = np.arange(120) % 3
POINTS = RNG.normal(size=(120, 2)) * 0.3 + np.array([[0, 0], [3, 0], [0, 3]])[LABELS]
IMAGES = RNG.integers(0, 256, (120, 8, 6, 3)).astype(np.uint8)
EXTENT = (-2.0, 5.0, -2.0, 5.0)


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
    assert "NaN in 1 of 120 points" in text and "1 of 120 points out of view" in text


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
    panels = [("t-SNE", POINTS), ("PCA", POINTS[:, ::-1])]
    assert fits(embedding_panels("t", panels, layer="fc1", step=0, labels=labels, class_names=names, dimension=9))


def test_the_grid_gives_each_sample_the_cell_nearest_to_it():
    cells = np.stack(np.meshgrid(np.arange(5), np.arange(5), indexing="ij"), axis=-1).reshape(-1, 2)
    order = RNG.permutation(25)
    shaken = cells[order] * [2.0, 7.0] + RNG.uniform(-0.2, 0.2, size=(25, 2))
    assert (assign(shaken, 5) == cells[order]).all()


def test_no_two_samples_share_a_cell():
    assert len(np.unique(assign(np.zeros((30, 2)), 6), axis=0)) == 30


def test_thumbnails_do_not_pile_up():
    text = thumbnails("t", POINTS, IMAGES, layer="fc1", step=0, labels=LABELS, extent=EXTENT, dimension=9).description
    shown = int(text.split(" of 120 samples")[0].split()[-1])
    assert 3 < shown < 120
    apart = np.stack(np.meshgrid(np.arange(5), np.arange(4)), axis=-1).reshape(-1, 2).astype(float)
    picture = thumbnails("t", apart, IMAGES[:20], layer="fc1", step=0, extent=EXTENT, dimension=9)
    assert "20 of 20 samples" in picture.description


def test_grid_survives_nan_and_shows_at_most_400():
    points = RNG.normal(size=(500, 2))
    points[3] = np.nan
    images = RNG.integers(0, 256, (500, 4, 4, 3)).astype(np.uint8)
    picture = grid("t", points, images, layer="fc1", step=0, dimension=9)
    assert "400 of 500 samples" in picture.description and "NaN" in picture.description


def test_sprite_holds_every_image_at_its_place():
    data, side = sprite(IMAGES[:10])
    sheet = raster(data)
    assert side == 8 and sheet.shape == (32, 32, 3)
    assert (sheet[8:16, 8 + 1 : 8 + 7] == IMAGES[5]).all()


def test_sprite_of_many_images_stays_within_the_projectors_limit(monkeypatch):
    monkeypatch.setattr("lightning_viz.render.embedding._SPRITE_SIDE", 64)
    data, side = sprite(RNG.integers(0, 256, (150, 20, 10, 3)).astype(np.uint8))
    assert side == 64 // 13 and max(raster(data).shape) <= 64
