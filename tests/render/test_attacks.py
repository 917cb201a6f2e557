"""Attacks on a page: one factor for all differences, what was fooled is said in words, changed pixels are circled."""

import numpy as np
import pytest

from lightning_viz.render.attacks import pixel_gallery, sign_sums, twins
from lightning_viz.render.colors import table
from lightning_viz.render.parts import ColorBar, Tile
from lightning_viz.render.text import DARK, RED
from lightning_viz.render.tiles import Verdict, to_rgb

from .pixels import body, decoded, fits, texts

RNG = np.random.default_rng(0)
PIXELS = RNG.random((10, 1, 14, 14)) * 0.8 + 0.1
IMAGES = to_rgb(PIXELS)
RIGHT, FOOLED, WRONG = Verdict("3", "3", 0.99), Verdict("3", "8", 0.97), Verdict("5", "9", 0.91)


def packed(pixels):
    return np.asarray(pixels).reshape(-1, 3).astype(int) @ [65536, 256, 1]


def holds(sheet, image):
    """Whether the pixels of an image stand in a sheet."""
    return bool(np.isin(packed(image), packed(sheet)).all())


def drawn(count=8, channels=1, scale=0.05, before=RIGHT, after=FOOLED, differences=None, **options):
    if differences is None:
        differences = scale * RNG.uniform(-1, 1, (count, channels, 14, 14))
        differences[0, 0, 0, 0] = scale
    moved = to_rgb(PIXELS[:count] + differences[:count].mean(1, keepdims=True))
    before, after = (each if isinstance(each, list) else [each] * count for each in (before, after))
    given = {"before": before, "after": after, "norms": ["1.02 %"] * count, "attack": "PGD"}
    return twins("t", IMAGES[:count], moved, differences, **{**given, **options})


def test_the_factor_is_such_that_the_largest_difference_just_fills_the_range():
    picture = drawn(channels=3, scale=0.04)
    assert [text for text, _ in texts(picture)][:2] == ["image, its twin, the change × 12.5"] * 2
    assert holds(decoded(picture), [[255, 128, 128]]) or (decoded(picture)[..., 0] == 255).any()
    assert fits(picture)


def test_differences_of_all_samples_are_magnified_alike():
    ways = np.array([[0.1, 0, -0.1], [0.025, 0, -0.025]])
    differences = np.broadcast_to(ways[:, :, None, None], (2, 3, 14, 14))
    for factor, options in ((5, {}), (2.5, {"magnify": 2.5})):
        sheet = decoded(drawn(count=2, differences=differences, **options))
        assert holds(sheet, np.rint(255 * (0.5 + factor * ways)))


def test_a_factor_that_cuts_differences_off_is_said():
    (bar,) = drawn(magnify=50).parts(ColorBar)
    assert (bar.low, bar.high) == ("≤ −0.01", "≥ 0.01")


def test_differences_of_gray_images_are_blue_where_pixels_fell_and_red_where_they_rose():
    differences = np.zeros((1, 1, 14, 14))
    differences[0, 0, :7], differences[0, 0, 7:] = -0.2, 0.2
    sheet = body(drawn(count=1, differences=differences))
    fell, rose = table("diverging")[0], table("diverging")[-1]
    rows = [np.flatnonzero((sheet == color).all(-1).sum(1) > 40) for color in (fell, rose)]
    assert len(rows[0]) and len(rows[1]) and rows[0].min() < rows[1].min()


def test_a_twin_like_its_image_is_hatched_and_said_unless_it_was_wrong_already():
    differences = 0.05 * RNG.uniform(-1, 1, (3, 1, 14, 14))
    changed = body(drawn(count=3, differences=differences.copy()))
    differences[1] = 0
    picture = drawn(count=3, differences=differences)
    assert "no change in 1 of 3 samples" in picture.description
    assert holds(body(picture), [[205] * 3, [240] * 3]) and (body(picture)[:100] == changed[:100]).all()
    before = [RIGHT, WRONG, RIGHT]
    spared = drawn(count=3, differences=differences, before=before, after=before)
    assert "no change" not in spared.description and holds(body(spared), [[205] * 3, [240] * 3])
    differences[2, 0, 3, 3] = np.nan
    assert "NaN in 1 of 3 samples" in drawn(count=3, differences=differences).description


def test_a_twin_has_the_verdict_that_a_sample_has_on_every_page():
    before = [RIGHT, RIGHT, WRONG, WRONG, Verdict(None, "2", 0.6), Verdict(None, "2", 0.6)]
    after = [FOOLED, RIGHT, WRONG, Verdict("5", "5", 0.5), Verdict(None, "7", 0.4), Verdict(None, "2", np.float32(0.5))]
    picture = drawn(count=6, before=before, after=after)
    said = [(text, color) for text, color in texts(picture) if "%" in text and "1.02" not in text]
    assert said == [
        ("✓ 3 99 %", DARK), ("✗ 3 → 8 97 %", RED),
        ("✓ 3 99 %", DARK), ("✓ 3 99 %", DARK),
        ("✗ 5 → 9 91 %", RED), ("✗ 5 → 9 91 %", RED),
        ("✗ 5 → 9 91 %", RED), ("✓ 5 50 %", DARK),
        ("2 60 %", DARK), ("✗ 2 → 7 40 %", RED),  # a truth that is not known is what was said before
        ("2 60 %", DARK), ("✓ 2 50 %", DARK),
    ]  # fmt: skip
    assert "fooled on 2 of the 4 samples it had right" in picture.description


@pytest.mark.parametrize(("count", "width"), [(1, 220), (3, 175), (4, 120), (8, 108)])
def test_tiles_of_twins_are_as_large_as_their_number_allows(count, width):
    picture = drawn(count=count)
    assert min(next(picture.parts(Tile)).size) >= width and fits(picture, 900)
    assert sorted(tile.sample for tile in picture.parts(Tile)) == sorted([*range(count)] * 3)


def test_opposite_changes_of_channels_do_not_cancel():
    differences = np.zeros((8, 2, 14, 14))
    differences[:, 0, :7], differences[:, 1, :7] = 0.2, -0.1
    differences[:, 0, 7:], differences[:, 1, 7:] = 0.1, -0.2
    picture = drawn(channels=2, differences=differences, magnify=2.5)
    seen = packed(body(picture))
    rose, fell = packed(table("diverging")[[-1, 0]])
    assert (seen == rose).sum() > 1000 and abs((seen == rose).sum() / (seen == fell).sum() - 1) < 0.1


def test_at_most_eight_columns_and_the_rest_is_counted():
    picture = drawn(count=10, after=RIGHT)
    assert "the first 8 of 10 samples" in picture.description
    assert "0 of the 10 samples it had right" in picture.description
    many = np.broadcast_to(np.arange(12)[:, None, None, None] * np.array([20, 1, 9]), (12, 14, 14, 3)).astype(np.uint8)
    shown = pixel_gallery("t", many, many[None], rows=["1 pixel"], before=[RIGHT] * 12, after=[[RIGHT] * 12])
    assert "the first 8 of 12 samples" in shown.description
    assert [holds(decoded(shown), each[:1, :1]) for each in many[1:]] == [True] * 7 + [False] * 4


@pytest.mark.parametrize("shape", [(1, 14, 14), (1, 90, 14), (8, 60, 14), (3, 14, 60), (8, 300, 300)])
def test_any_number_and_form_of_images_fits_the_page(shape):
    pixels = np.repeat(RNG.random((shape[0], 1, *shape[1:])), 3, axis=1)
    given = {"before": [RIGHT] * shape[0], "after": [FOOLED] * shape[0]}
    picture = twins("t", to_rgb(pixels), to_rgb(pixels), 0.1 * pixels, norms=["1 %"] * shape[0], attack="PGD", **given)
    gallery = pixel_gallery("t", to_rgb(pixels), to_rgb(pixels)[None].repeat(3, 0), rows=["1 pixel", "3 pixels", "5"],
                            before=given["before"], after=[given["after"]] * 3)  # fmt: skip
    assert fits(picture, 930) and fits(gallery, 930)


CHANGED = (40, 180, 90)


def gallery(places, images=None, verdicts=None, **options):
    images = np.full((2, 14, 14, 3), 60, dtype=np.uint8) if images is None else images
    changed = images[None].copy()
    for sample, row, column in places:
        changed[0, sample, row, column] = CHANGED
    given = {"rows": ["1 pixel"], "before": [RIGHT] * 2, "after": verdicts or [[RIGHT] * 2], **options}
    return pixel_gallery("t", images, changed, **given)


def red(sheet):
    """Rows and columns that rings are drawn on; texts of these galleries are dark."""
    return np.argwhere((np.abs(sheet.astype(int) - RED) < 40).all(-1))


def test_a_ring_stands_round_the_pixel_that_changed_and_nowhere_else():
    sheet = body(gallery([(0, 4, 9)]))
    changed = np.argwhere((sheet == CHANGED).all(-1))
    rings = red(sheet)
    assert len(rings) and np.abs(rings.mean(0) - changed.mean(0)).max() < 1
    reach = np.abs(rings - changed.mean(0)).max()
    assert np.ptp(changed, axis=0).max() / 2 < reach < 3 * np.ptp(changed, axis=0).max()
    assert not len(red(body(gallery([]))))


def test_rings_do_not_hide_an_image_that_changed_everywhere():
    everywhere = [(0, row, column) for row in range(14) for column in range(14)]
    picture = gallery(everywhere)
    assert not len(red(body(picture))) and "1 twins without rings" in picture.description


def test_rows_are_named_and_counted():
    page = gallery([(0, 4, 9), (1, 2, 2)], verdicts=[[FOOLED, RIGHT]])
    assert any("1 pixel: network fooled on 1 of the 2 samples it had right" in text for text, _ in texts(page))


VERDICTS = [RIGHT] * 10


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: drawn(norms=["1 %"]), "1 norms for 8"),
        (lambda: drawn(before=RIGHT, after=RIGHT, magnify=0), "magnify=0"),
        (lambda: drawn(magnify=float("nan")), "magnify=nan"),
        (
            lambda: twins(
                "t", IMAGES, IMAGES, PIXELS[:, 0], before=VERDICTS, after=VERDICTS, norms=[""] * 10, attack=""
            ),
            "the shape of differences is [10, 14, 14]: give [10, C, 14, 14]",
        ),
        (
            lambda: twins("t", IMAGES, PIXELS, PIXELS, before=VERDICTS, after=VERDICTS, norms=[""] * 10, attack=""),
            "images are uint8",
        ),
        (
            lambda: pixel_gallery("t", IMAGES, IMAGES, rows=["1 pixel"], before=VERDICTS, after=[VERDICTS]),
            "the shape of twins is [10, 14, 14, 3]: give [1, 10, 14, 14, 3]",
        ),
        (lambda: gallery([], rows=["1 pixel", "3 pixels"]), "twins is [1, 2, 14, 14, 3]: give [2, 2, 14, 14, 3]"),
        (lambda: pixel_gallery("t", IMAGES[:0], IMAGES[None, :0], rows=["1"], before=[], after=[[]]), "none of them 0"),
        (lambda: gallery([], verdicts=[[RIGHT]]), "1 after in the row '1 pixel' for 2"),
    ],
)
def test_what_does_not_fit_together_is_an_error(draw, message):
    with pytest.raises(ValueError) as caught:
        draw()
    assert message in str(caught.value)


def test_a_sum_shows_each_term_above_what_the_network_says_of_it():
    signs = to_rgb(np.broadcast_to(np.sign(RNG.normal(size=(5, 1, 14, 14))) / 2 + 0.5, (5, 3, 14, 14)))
    said = {"before": [RIGHT] * 5, "alone": [Verdict(None, "6", 0.08)] * 5, "after": [FOOLED] * 5}
    page = sign_sums("t", IMAGES[:5], signs, IMAGES[5:10], epsilon="8/255", **said)
    words = [text for text, _ in texts(page)]
    assert fits(page)
    shown = [tile.image for tile in page.parts(Tile)]
    assert len(shown) == 9  # three samples
    for place, image in enumerate((IMAGES[0], signs[0], IMAGES[5])):
        assert (shown[place] == image).all()
    assert words[:9] == ["✓ 3 99 %", "6 8 %", "✗ 3 → 8 97 %"] * 3
    assert "the first 3 of 5 samples" in page.details
    with pytest.raises(ValueError, match="signs"):
        sign_sums("t", IMAGES[:5], signs[:4], IMAGES[5:10], epsilon="8/255", **said)
