import numpy as np

from lightning_viz.render.colors import class_colors
from lightning_viz.render.parts import At, Cell, Label, Sheet, Tile
from lightning_viz.render.sample_images import assign, grid, sprite, thumbnails

from .pixels import raster

RNG = np.random.default_rng(0)
LABELS = np.arange(120) % 3
POINTS = RNG.normal(size=(120, 2)) * 0.3 + np.array([[0, 0], [3, 0], [0, 3]])[LABELS]
IMAGES = RNG.integers(0, 256, (120, 8, 6, 3)).astype(np.uint8)
EXTENT = (-2.0, 5.0, -2.0, 5.0)


def shown(points, **options):
    count = len(points)
    given = {"labels": LABELS[:count], "extent": EXTENT, "layer": "fc1", "dimension": 9, "step": 0, **options}
    return thumbnails("t", points, IMAGES[:count], **given)


def test_the_grid_gives_each_sample_the_cell_nearest_to_it():
    cells = np.stack(np.meshgrid(np.arange(5), np.arange(5), indexing="ij"), axis=-1).reshape(-1, 2)
    order = RNG.permutation(25)
    shaken = cells[order] * [2.0, 7.0] + RNG.uniform(-0.2, 0.2, size=(25, 2))
    assert (assign(shaken, 5) == cells[order]).all()


def test_no_two_samples_share_a_cell():
    assert len(np.unique(assign(np.zeros((30, 2)), 6), axis=0)) == 30


def test_thumbnails_do_not_pile_up():
    page = shown(POINTS)
    corners = np.array([(part.left, part.top) for part in page.parts(At) if isinstance(part.part, Sheet)])
    assert 3 < len(corners) < 120
    gaps = np.abs(corners[:, None] - corners[None]).max(axis=2) + 99 * np.eye(len(corners))
    assert np.quantile(gaps.min(axis=1), 0.1) > 25  # of 30 px: hardly any covers another
    apart = np.stack(np.meshgrid(np.arange(5), np.arange(4)), axis=-1).reshape(-1, 2).astype(float)
    assert "20 of 20 samples" in shown(apart).description


def test_mistakes_and_outliers_are_shown_whatever_the_crowd_and_mistakes_lie_on_top():
    points = np.vstack([np.zeros((117, 2)), [[9, 0], [0, 0], [0, 0]]])
    mistaken = np.arange(120) >= 118
    page = shown(points, mistaken=mistaken)
    samples = [tile.sample for tile in page.parts(Tile)]
    assert samples[-2:] == [118, 119] and 117 in samples and len(samples) == 4  # and one more of the crowd
    assert "1 outliers at the rim" in page.description and "mistake, drawn first: 2 of all samples" in page.description
    last = [type(part) for part in page.body.parts[-6:]]
    assert last == [At, Cell, Label, At, Cell, Label]
    assert [label.text for label in page.parts(Label)] == ["✗", "✗"]


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
    monkeypatch.setattr("lightning_viz.render.sample_images._SPRITE_SIDE", 64)
    data, side = sprite(RNG.integers(0, 256, (150, 20, 10, 3)).astype(np.uint8))
    assert side == 64 // 13 and max(raster(data).shape) <= 64


def test_a_sprite_is_tinted_by_class():
    gray = np.full((4, 8, 8, 3), 128, dtype=np.uint8)
    sheet = raster(sprite(gray, np.array([0, 1, 0, -1]))[0])
    first, second, third, unknown = sheet[4, 4], sheet[4, 12], sheet[12, 4], sheet[12, 12]
    assert (first == third).all() and (first != second).any() and len(set(unknown.tolist())) == 1
    assert first.argmax() == class_colors(2)[0].argmax() and second.argmax() == class_colors(2)[1].argmax()
