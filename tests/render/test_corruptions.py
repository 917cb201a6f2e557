"""Corruptions on a page: every image stands where its row and column say, every number is the one given."""

import numpy as np
import pytest

from lightning_viz.render.colors import apply
from lightning_viz.render.robustness import corruption_sheet, corruption_table

from .pixels import decoded, fits

RNG = np.random.default_rng(0)
KINDS = [f"kind_{index}" for index in range(15)]
CLEAN = np.full((8, 8, 3), (250, 10, 10), dtype=np.uint8)
CORRUPTED = np.broadcast_to(RNG.integers(0, 200, (15, 5, 1, 1, 3)), (15, 5, 8, 8, 3)).astype(np.uint8)
ERRORS = np.linspace(0.02, 0.98, 75).reshape(15, 5)  # no two of one color


def middle_of(sheet, color):
    """Row and column of the middle of what has one color."""
    places = np.argwhere((sheet == color).all(-1))
    assert len(places)
    return places.mean(0)


def table(errors=ERRORS, ratios=None, **options):
    given = {
        "kinds": KINDS,
        "severities": (1, 2, 3, 4, 5),
        "clean": 0.1,
        "name": "net",
        "reference": "plain",
        **options,
    }
    return corruption_table("t", errors, ratios=ratios or {"plain": np.ones(15), "net": np.full(15, 0.5)}, **given)


def test_rows_are_kinds_and_columns_severities_beside_the_clean_image():
    picture = corruption_sheet("t", CLEAN, CORRUPTED, kinds=KINDS, severities=(1, 2, 3, 4, 5))
    sheet = decoded(picture)
    assert fits(picture)
    middles = np.array([[middle_of(sheet, image[0, 0]) for image in row] for row in CORRUPTED])
    assert np.ptp(middles[..., 0], axis=1).max() == 0 and (np.diff(middles[:, 0, 0]) > 0).all()
    assert np.ptp(middles[..., 1], axis=0).max() == 0 and (np.diff(middles[0, :, 1]) > 0).all()
    assert middle_of(sheet, CLEAN[0, 0])[1] < middles[..., 1].min()


def test_more_than_the_page_holds_is_said():
    many = np.zeros((20, 9, 8, 8, 3), dtype=np.uint8)
    picture = corruption_sheet("t", CLEAN, many, kinds=[f"k{one}" for one in range(20)], severities=range(9))
    assert "the first 16 of 20 kinds" in picture.description and "the first 7 of 9 severities" in picture.description


def test_each_cell_of_the_table_has_the_color_of_its_error():
    picture = table()
    sheet = decoded(picture)
    assert fits(picture)
    colors = apply("magma", ERRORS, 0, 1)
    middles = np.array([[middle_of(sheet[:-95], color) for color in row] for row in colors])
    assert (np.diff(middles[:, 0, 0]) > 30).all() and (np.diff(middles[0, :, 1]) > 30).all()


def test_the_caption_gives_the_means_over_what_is_defined():
    ratios = {"plain": np.ones(15), "net": np.r_[np.nan, np.full(14, 0.5)], "other": np.full(15, np.nan)}
    text = table(ratios=ratios, clean=0.004).description
    assert "mCE of plain 1.00" in text and "mCE of net 0.50" in text and "mCE of other –" in text
    assert "clean error 0.4 %" in text and "CE undefined for kind 0, kind 1" in text
    assert "undefined" not in table().description
    five = {f"net{one}": np.ones(15) for one in range(5)}
    assert (
        "columns of the first 3 of 5" in table(ratios=five).description
        and "mCE of net4 1.00" in table(ratios=five).description
    )


def test_shares_are_not_rounded_to_none_or_all_and_none_is_a_dash():
    texts = [table(clean=share).description for share in (0.0, 0.002, 0.996, 1.0, np.nan)]
    for text, percent in zip(texts, ("0", "0.2", "99", "100", "–"), strict=True):
        assert f"clean error {percent} %" in text


def test_what_does_not_fit_together_is_said():
    with pytest.raises(ValueError, match=r"\[15, 5, 8, 8, 3\]"):
        corruption_sheet("t", CLEAN, CORRUPTED[:3], kinds=KINDS, severities=(1, 2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"use tiles\.to_rgb"):
        corruption_sheet("t", CLEAN, CORRUPTED / 255, kinds=KINDS, severities=(1, 2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"give \[15, 5\]; kinds by severities"):
        table(errors=ERRORS[:, :3])
    with pytest.raises(ValueError, match=r"\[15\]"):
        table(ratios={"net": np.ones(3)})
