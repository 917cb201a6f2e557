"""What excites a channel, as a page: every tile where it belongs, and in words what cannot be seen."""

import numpy as np
import pytest

from lightning_viz.render import layout
from lightning_viz.render.activations import Crop, excitations, signed_image
from lightning_viz.render.layout import BODY_HEIGHT
from lightning_viz.render.parts import Tile
from lightning_viz.render.text import RED

from .pixels import decoded, fits, texts

GROUND = (160, 186, 216)


def crop(value, *, shade=0, height=6, width=6, evidence="ramp", **options):
    image = np.full((height, width, 3), shade, dtype=np.uint8)
    ramp = np.linspace(-1, 1, height * width).reshape(1, height, width)
    return Crop(image, {"ramp": ramp, "none": None, "zero": 0 * ramp}[evidence], value, **options)


def draw(crops, **options):
    given = {
        "layer": "conv2",
        "step": 1230,
        "channels": list(range(10, 10 + len(crops))),
        "population": "600 validation samples",
        "field": "6 × 6 of 32 × 32 pixels",
    }
    picture = excitations("top_samples/conv2", crops, **{**given, **options})
    return picture, decoded(picture)


def test_strongest_come_first_from_left_to_right_and_from_top_to_bottom():
    shades = [20 * place for place in range(9)]
    _, page = draw([[crop(9.0 - place, shade=shade) for place, shade in enumerate(shades)]] * 8)
    ground = (page == GROUND).all(2)
    top = ground.any(1).argmax()
    columns = np.flatnonzero(ground[top])
    seams = [place for place in columns if ground[top : top + 100, place].all()]
    rows = [top + place for place in np.flatnonzero(ground[top : top + 170, seams[0] + 20])]
    tiles = []
    for row in sorted({row // 10 for row in rows})[:3]:
        start = next(one for one in rows if one // 10 == row)
        tiles += [int(page[start + 20, seam + 20, 0]) for seam in seams[0:6:2]]
    assert tiles == shades


def test_a_new_sample_is_framed():
    rows = [[crop(9.0), crop(8.0, new=True), crop(7.0, new=True)], [crop(5.0)]]
    picture, page = draw(rows)
    framed = [tile.outline is not None for tile in picture.parts(Tile) if tile.value]
    assert framed == [False, True, True, False]
    assert (page == (230, 159, 0)).all(2).sum() > 2 * 4 * 5 * 40
    assert "orange frame: new since the look before" in picture.description
    assert [text for text, _ in texts(picture)] == ["ch 10 · 9 to 7", "ch 11 · 5"]


def test_what_a_channel_sees_of_whole_samples_is_framed_thinly_where_tiles_are_small():
    red = {}
    for count in (8, 1):
        picture, _ = draw([[crop(9.0, height=12, width=12, window=(3, 9, 3, 9))]] * count)
        tile = next(tile for tile in picture.parts(Tile) if tile.window is not None)
        assert "framed: what it sees" in picture.description and "cut to" not in picture.description
        side = tile.size[0]
        drawn = layout.draw(tile)
        red[side] = int((np.asarray(drawn)[side // 2, : side // 2] == RED).all(1).sum())
    assert sorted(red)[0] < 80 < sorted(red)[1]
    assert [red[side] for side in sorted(red)] == [1, 3]


def test_a_crop_that_the_edge_cut_lies_where_its_center_would_be():
    whole = crop(2.0, shade=255, height=8, width=8, evidence="none")
    cut = crop(1.0, shade=0, height=5, width=8, evidence="none", top=True)
    _, page = draw([[whole, cut]] * 3)
    dark = (page == 0).all(2)
    gray = (page == 232).all(2)
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    above = gray[rows[0] - 5 : rows[0], columns[0] : columns[0] + 20]
    assert above.all()
    assert not gray[rows[0] + 3, columns[0] : columns[0] + 20].any()


def test_what_cannot_be_seen_is_said():
    picture, page = draw([[], [crop(1.0, evidence="none")], [crop(1.0, evidence="zero"), crop(0.5)]])
    assert "⚠ 1 of 3 channels at most 0 in these 600 validation samples" in picture.description
    hatched = (page == 205).all(2) | (page == 240).all(2)
    assert hatched.sum() > 30_000


def test_the_caption_counts_and_names():
    named = [crop(9.5, name="cat"), crop(8.25, name="dog"), crop(8.0, name="cat")]
    picture, _ = draw([named] * 10, notes=["pixel range guessed"], method="gradient, as no ReLU can be intercepted")
    for words in (
        "step 1,230",
        "8 of 10 channels",
        "the 3 strongest of 600 validation samples",
        "cut to what it sees, 6 × 6 of 32 × 32 pixels",
        "what in each crop drives that one activation (gradient, as no ReLU can be intercepted)",
        "the commonest class among them and the largest and 3rd value",
        "⚠ pixel range guessed",
    ):
        assert words in picture.description, words


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 20])
@pytest.mark.parametrize(("height", "width"), [(5, 5), (120, 20), (20, 120), (1, 2)])
def test_it_fits_the_page(channels, height, width):
    picture, _ = draw([[crop(1.0, height=height, width=width)] * 9] * channels)
    assert fits(picture, BODY_HEIGHT + 160)


def test_a_signed_map_is_gray_where_it_is_zero_and_lighter_where_it_raises():
    shown = signed_image(np.array([[[-2.0, 0.0, 0.5, 1.0]]]))
    assert shown[0, :, 0].tolist() == [0, 128, 191, 255]
    assert signed_image(np.zeros((3, 2, 2))).tolist() == np.full((2, 2, 3), 128).tolist()


def test_rows_and_channels_must_match():
    with pytest.raises(ValueError, match="2 rows of crops for 3: give one each"):
        draw([[], []], channels=[1, 2, 3])
