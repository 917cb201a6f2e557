"""A page of occlusion says what each of its maps tells, in which unit, and what its colors mean."""

import numpy as np
import pytest

from lightning_viz.render.attribution_maps import MOST_SAMPLES
from lightning_viz.render.colors import class_colors
from lightning_viz.render.layout import draw
from lightning_viz.render.occlusion import occlusion_maps
from lightning_viz.render.parts import ClassKey, ColorBar, MapTile, PaintedTile, Tile
from lightning_viz.render.tiles import Verdict

from .pixels import fits, texts

RANDOM = np.random.default_rng(0)
GRAY = 96


def page(count=3, **options):
    images = np.full((count, 12, 12, 3), GRAY, dtype=np.uint8)
    settings = {
        "drop": RANDOM.normal(size=(count, 6, 6)),
        "predicted": np.zeros((count, 6, 6), dtype=int),
        "uncovered": np.zeros(count, dtype=int),
        "activity": RANDOM.uniform(1, 3, size=(count, 6, 6)),
        "feature": "its strongest channel of conv2",
        "class_names": ("ape", "bee", "cat"),
        "classes": 3,
        "target": "each sample's true class",
        "patch": (4, 4),
        "positions": (6, 6),
        "step": 1230,
        "verdicts": [Verdict("ape", "bee", 0.5, "ape")] * count,
    }
    return occlusion_maps("occlusion", images, **{**settings, **options})


def test_every_column_has_a_head_and_a_key_with_numbers():
    drop, activity = np.zeros((3, 6, 6)), np.linspace(1, 3.5, 36).reshape(1, 6, 6).repeat(3, axis=0)
    drop[0, 0, :2], drop[1, 0, 0], drop[2, 0, 0] = 4.5, -0.5, 0.25
    drawn = page(drop=drop, activity=activity)
    words = [text for text, _ in texts(drawn)]
    assert words[:4] == [
        "input",
        "drop of target where covered",
        "other class, its share of places",
        "activity where covered",
    ]
    change, amount = drawn.parts(ColorBar)
    assert (change.low, change.middle, change.high, change.label) == (
        "rises ≥ 4.5", "0", "drops ≥ 4.5", "logits of the target")  # fmt: skip
    assert (amount.low, amount.high, amount.label) == ("1", "3.5", "activity of its strongest channel of conv2")
    (key,) = drawn.parts(ClassKey)
    assert key.names == ["ape", "bee", "cat"]
    assert [word for word in words if word in ("up to 4.5", "up to 0.25", "none")] == [
        "up to 4.5",
        "none",
        "up to 0.25",
    ]
    assert words.count("1 to 3.5") == 3
    for said in ("red: what lies there spoke for it", "blue: it spoke against it", "darker where it needs"):
        assert said in drawn.description


def test_maps_of_a_column_have_one_scale():
    values = RANDOM.uniform(1, 2, size=(1, 6, 6)) * np.array([1, 10, 100])[:, None, None]
    drawn = page(drop=values, activity=values)
    drops = [tile for tile in drawn.parts(MapTile) if tile.display == "signed"]
    assert len({tile.value for tile in drops}) == 1 and drops[0].value == pytest.approx(np.percentile(values[2], 99))
    activities = [tile for tile in drawn.parts(MapTile) if tile.display == "magma"]
    assert {tile.limits for tile in activities} == {(values.min(), values.max())}
    brightness = [np.asarray(draw(tile)).mean() for tile in activities]
    assert brightness[0] < 20 < 60 < brightness[2]


def test_a_sample_is_itself_where_the_prediction_stays_and_in_the_other_classs_color_where_not():
    predicted = np.zeros((2, 6, 6), dtype=int)
    predicted[0, 0, :3], predicted[0, 5, 5] = 2, 1
    drawn = page(2, predicted=predicted, uncovered=np.array([0, 0]))
    first, second = drawn.parts(PaintedTile)
    seen = np.asarray(draw(first))
    side = seen.shape[0]
    assert (seen[side // 2, side // 2] == GRAY).all()
    mixed = 0.2 * GRAY + 0.8 * class_colors(3)[2]
    assert np.abs(seen[2, 2].astype(float) - mixed).max() <= 1
    assert (np.asarray(draw(second)) == GRAY).all()
    words = [text for text, _ in texts(drawn)]
    assert "cat: 8 %" in words and "nowhere" in words


def test_without_a_known_prediction_every_place_has_its_color():
    (first,) = page(1, uncovered=None).parts(PaintedTile)
    assert (np.asarray(draw(first)) != GRAY).any(-1).all()


@pytest.mark.parametrize("name", ["7", "an extraordinarily long class name"])
def test_the_default_number_of_samples_is_80_wide_on_the_card(name):
    drawn = page(verdicts=[Verdict(name, name, 0.99, name)] * 3)
    assert fits(drawn, 920)
    least = 160 if name == "7" else 144
    assert all(min(tile.size) >= least for tile in drawn.parts(Tile))


@pytest.mark.parametrize("count", [1, MOST_SAMPLES])
def test_a_page_is_a_card_whatever_it_shows(count):
    assert fits(page(count), 920)
    bare = page(count, predicted=None, uncovered=None, activity=None, verdicts=[])
    assert fits(bare, 920) and not list(bare.parts(ClassKey)) and len(list(bare.parts(ColorBar))) == 1


def test_what_cannot_be_shown_is_hatched_and_counted():
    drop, activity = RANDOM.normal(size=(3, 6, 6)), RANDOM.normal(size=(3, 6, 6))
    drop[0], drop[1, 0, 0], activity[2] = 0, np.nan, 5
    drawn = page(drop=drop, activity=activity)
    assert "all zero in 1 of 3 maps" in drawn.description and "NaN in 1 of 3 maps" in drawn.description
    assert [tile.flaw for tile in drawn.parts(MapTile)].count("constant") == 1
    assert fits(page(drop=np.full((3, 6, 6), np.nan), activity=np.full((3, 6, 6), np.nan)), 920)


@pytest.mark.parametrize("unit", ["logits", "probability"])
def test_long_numbers_and_names_do_not_make_the_page_smaller(unit):
    drop = np.full((3, 6, 6), -1.23456e-5)
    drawn = page(drop=drop, activity=drop * RANDOM.uniform(size=drop.shape), unit=unit,
                 feature="its strongest channel of encoder.layers.encoder_layer_11.mlp")  # fmt: skip
    assert draw(drawn.body).width <= 676
