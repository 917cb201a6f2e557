"""Dreams on a page: never blurred, what cannot be shown is said, and what tells them apart is not cut away."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from lightning_viz.render.activations import Crop
from lightning_viz.render.dreams import climb_curves, dream_animation, dream_table, dream_tiles, stretch_contrast
from lightning_viz.render.parts import Sheet

from .pixels import body, decoded, fits, texts

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 14, 14, 3)).astype(np.uint8)
NAMES = [f"conv2 channel {index}" for index in range(12)]


def tiles(count=12, **options):
    return dream_tiles("t", IMAGES[:count], title="Dreams", names=NAMES[:count], **options)


def holds(sheet, image):
    """Whether an image stands in a sheet, each of its pixels a block of one color."""
    packed = [pixels.reshape(-1, 3).astype(int) @ [65536, 256, 1] for pixels in (image, sheet)]
    return bool(np.isin(*packed).all())


def test_every_dream_is_shown_and_none_is_blurred():
    for picture in (tiles(), dream_table("t", IMAGES.reshape(3, 4, 14, 14, 3), title="T", rows=["a", "b", "c"])):
        assert all(holds(decoded(picture), image) for image in IMAGES)
        assert fits(picture)


def test_tiles_are_in_their_order_in_full_rows():
    sheet = body(tiles(4))
    corners = [IMAGES[index][0, 0] for index in range(4)]
    places = [np.argwhere((sheet == corner).all(-1)).min(0) for corner in corners]
    assert places[0][0] == places[1][0] < places[2][0] == places[3][0]
    assert places[0][1] == places[2][1] < places[1][1] == places[3][1]


def test_samples_stand_beside_their_dream_and_where_there_are_none_it_is_said():
    samples = [
        [Crop(IMAGES[index + shift][:9], None, 2.0, top=True) for shift in (4, 5)][: 2 - index] for index in range(3)
    ]
    page = tiles(3, samples=samples, sample_count=16)
    sheets = [[at.part for at in sheet.parts] for sheet in page.parts(Sheet)]
    assert [[tile.flaw for tile in sheet] for sheet in sheets] == [
        [None] * 3,
        [None, None, "0 in 15"],
        [None, "0 in 16"],
    ]
    assert "0 on all of these 16 samples, others may excite it" in page.description
    assert sheets[2][1].size[1] == 2 * sheets[1][1].size[1] + 2  # as high as two
    for index, (dream, *beside) in enumerate(sheets):
        assert (dream.image == IMAGES[index]).all() and {tile.size[0] for tile in beside} == {beside[0].size[0]}
        for tile, crop in zip(beside, samples[index], strict=False):
            assert (tile.image[-9:] == crop.image).all()
    assert dream.size[0] > 1.8 * beside[0].size[0] and fits(page) and fits(tiles(12, samples=[samples[0]] * 12))
    assert "excite the same unit most" in page.description and "excite the same unit" not in tiles(3).description


@pytest.mark.parametrize("low, high", [(0.4, 0.6), (-3.0, 9.0)])
def test_a_stretched_image_takes_up_the_whole_range_and_one_of_one_color_stays(low, high):
    pixels = np.random.default_rng(0).uniform(low, high, (2, 3, 20, 20))
    pixels[1] = 0.25
    stretched = stretch_contrast(pixels)
    assert stretched[0].min() == 0 and stretched[0].max() == 1 and (stretched[1] == 0.25).all()
    middle = (pixels[0] - low) / (high - low)
    assert np.abs(stretched[0] - middle).max() < 0.03


def test_what_cannot_be_shown_is_hatched_and_said():
    images, curves = IMAGES.copy(), RNG.normal(size=(12, 30))
    images[3], curves[5, 10:] = 128, np.nan
    picture = dream_tiles("t", images, title="Dreams", names=NAMES, curves=curves)
    assert "flat in 1 of 12 dreams" in picture.description and "NaN in 1 of 12 dreams" in picture.description
    sheet = decoded(picture)
    assert holds(sheet, images[4]) and not holds(sheet, images[5])
    table = dream_table("t", images.reshape(2, 6, 14, 14, 3), title="T", rows=["a", "b"])
    assert "flat in 1 of 12 dreams" in table.description


def test_a_name_keeps_its_number_where_it_is_cut():
    names = [f"features of the encoder channel {index}" for index in range(40)]
    page = dream_tiles("t", np.tile(IMAGES, (4, 1, 1, 1))[:40], title="Dreams", names=names)
    written = [text for text, _ in texts(page) if "feat" in text]
    assert len(written) == 40
    assert all("…" in text and text.endswith(f" {index}") for index, text in enumerate(written))


def test_more_than_a_page_holds_is_said():
    many = np.tile(IMAGES, (4, 1, 1, 1))
    picture = dream_tiles("t", many, title="Dreams", names=[str(index) for index in range(48)])
    assert "the first 40 of 48" in picture.description


def test_a_curve_is_drawn_on_its_own_scale():
    rising = np.tile(np.linspace(0, 1, 50), (4, 1))
    scaled = rising * np.array([1, 100, 1e-3, 1])[:, None] + np.array([0, 5, 0, 0])[:, None]
    one, other = tiles(4, curves=rising), tiles(4, curves=scaled)
    assert (decoded(one) == decoded(other)).all()
    assert "over 50 updates, each on its own scale" in one.description
    assert (decoded(one) != decoded(tiles(4, curves=-rising))).any()
    odd = (tiles(4, curves=curves) for curves in (np.zeros((4, 0)), np.full((4, 50), 2.0)))
    assert all(body(page).shape == body(one).shape for page in odd)


def test_rows_and_columns_of_a_table_carry_names():
    images = IMAGES.reshape(3, 4, 14, 14, 3)
    rows = ["conv1", "a layer of a long name that must wrap", "conv3"]
    plain = dream_table("t", images, title="T", rows=rows)
    full = dream_table("t", images, title="T", rows=rows, columns=list("abcd"), words=[["1 %"] * 4] * 3)
    assert len(body(full)) > len(body(plain))
    label = body(plain)[:, :150]
    assert (label < 128).any(), "names of rows stand at the left"


def test_the_climb_is_drawn_within_the_axes_and_what_is_lost_is_said():
    curves = np.abs(RNG.normal(size=(3, 40))).cumsum(1)
    curves[1, 20:] = np.inf
    picture = climb_curves("t", curves, names=["a", "b", "c"], title="Climb", label="logit")
    assert "not finite in 1 of 3 curves" in picture.description and "40 updates" in picture.description
    without = climb_curves("t", curves[[0, 2]], names=["a", "c"], title="Climb", label="logit")
    assert fits(picture) and fits(without)
    logarithmic = climb_curves("t", curves, names=["a", "b", "c"], title="Climb", logarithmic=True)
    assert "logarithmic" in logarithmic.description
    curves[2, 3] = 0.0
    logarithmic = climb_curves("t", curves, names=["a", "b", "c"], title="Climb", logarithmic=True)
    assert "not finite, or not positive, in 2 of 3 curves" in logarithmic.description
    assert fits(climb_curves("t", curves[:, :1], names=["a", "b", "c"], title="Climb"))


def test_an_animation_burns_in_the_update():
    frames = RNG.integers(0, 256, (5, 4, 14, 14, 3)).astype(np.uint8)
    picture = dream_animation("t", frames, [0, 1, 3, 12, 40], title="Dreams", names=NAMES[:4])
    assert Image.open(BytesIO(picture.image)).n_frames == 5
    assert "update 40" in picture.description and len(picture.image) <= 2_000_000


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: tiles(4, words=["a"]), "1 words for 4"),
        (lambda: tiles(4, curves=np.zeros((3, 9))), "curves is [3, 9]: give [4, steps]"),
        (lambda: dream_tiles("t", IMAGES / 255, title="T", names=NAMES), "images are uint8"),
        (lambda: dream_table("t", IMAGES, title="T", rows=["a"]), "give [rows, columns, H, W, 3]"),
        (lambda: dream_table("t", IMAGES[None], title="T", rows=["a", "b"]), "2 rows for 1"),
        (lambda: climb_curves("t", np.zeros(3), names=["a"], title="T"), "curves is [3]: give [N, steps]"),
        (lambda: dream_animation("t", IMAGES[None], [0, 1], title="T", names=NAMES), "2 steps for 1"),
    ],
)
def test_what_does_not_fit_together_is_an_error(draw, message):
    with pytest.raises(ValueError) as caught:
        draw()
    assert message in str(caught.value)
