import numpy as np
import pytest

from lightning_viz.render.layout import fit
from lightning_viz.render.text import text_width
from lightning_viz.render.tiles import (
    Flaw,
    Verdict,
    count_flaws,
    describe_channels,
    enlarge,
    find_flaw,
    stretch,
    to_rgb,
)


def test_channels_become_what_they_mean():
    pixels = np.random.default_rng(0).uniform(size=(2, 6, 4, 5))
    assert (to_rgb(pixels[:, :3]) == np.rint(pixels[:, :3].transpose(0, 2, 3, 1) * 255)).all()
    for channels in (1, 2, 6):
        gray = to_rgb(pixels[:, :channels])
        expected = np.rint(pixels[:, :channels].mean(axis=1) * 255)
        assert all((gray[..., each] == expected).all() for each in range(3))
    assert describe_channels(6) == "mean of 6 channels" and not describe_channels(1) and not describe_channels(3)


def test_small_images_are_not_blurred():
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    larger = np.asarray(enlarge(image, (20, 16)))
    assert (larger == image.repeat(4, axis=0).repeat(4, axis=1)).all()


def test_maps_are_bilinear_as_in_torch():
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=(30, 37), mode="bilinear", align_corners=False
    )[0, 0]
    np.testing.assert_allclose(stretch(values, (37, 30)), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones((2, 2)), None),
        (np.zeros((2, 2)), "all zero"),
        (np.array([[np.nan, 1]]), "NaN"),
        (np.array([[np.inf, 1]]), "infinite"),
        (np.ones((1, 1)), "1 × 1 map"),
        (np.ones((0, 0)), "not reached"),
    ],
)
def test_nothing_to_see_is_said(values, words):
    flaw = find_flaw(values)
    assert (flaw.value if flaw else None) == words
    assert bool(count_flaws([None, flaw], "maps")) == bool(words)


def test_a_flaw_may_be_written_in_other_words():
    flaws = [Flaw.ZERO, None, Flaw.NAN, Flaw.ZERO]
    notes = count_flaws(flaws, "maps", {Flaw.ZERO: "nothing positive"})
    assert notes == ("nothing positive in 2 of 4 maps", "NaN in 1 of 4 maps")


def test_verdicts_say_what_was_taken_for_what():
    wrong = Verdict("cat", "dog", 0.874)
    assert wrong.mistaken and wrong.lines(400) == ["✗ cat → dog  87 %"]
    assert not Verdict("cat", "cat", 1.0).mistaken and not Verdict("cat").mistaken and not Verdict(None, "dog").mistaken
    assert Verdict("cat", "cat", 0.9996).lines(400) == ["✓ cat  99 %"]
    assert Verdict(None, "dog", 0.5).lines(400) == ["dog  50 %"]
    assert Verdict("cat").lines(400) == ["cat"] and Verdict().lines(400) == []


def test_long_verdicts_fit_and_keep_the_confidence():
    lines = Verdict("Egyptian cat of the Nile", "soft-coated wheaten terrier", 0.5).lines(150)
    assert len(lines) == 2 and all(text_width(line) <= 150 for line in lines)
    assert lines[0].startswith("✗ Egy") and lines[0].endswith("→") and lines[1].endswith("50 %")


@pytest.mark.parametrize("aspect", [0.5, 1, 2, 40])
@pytest.mark.parametrize(("columns", "rows"), [(8, 8), (1, 1), (2, 6)])
def test_tiles_fit_the_page(columns, rows, aspect):
    width, height = fit(columns, rows, aspect, under=24)
    assert columns * (width + 6) - 6 <= 676 and rows * (height + 30) <= 800


def test_verdicts_take_the_lines_that_the_longest_would_take():
    right, wrong = Verdict("corner", "corner", 0.97, "corner"), Verdict("cross", "corner", 1.0, "corner")
    assert right.lines(400) == ["✓ corner  97 %"] and wrong.lines(400) == ["✗ cross → corner  100 %"]
    assert right.lines(150) == ["✓ corner", "97 %"] and wrong.lines(150) == ["✗ cross →", "corner  100 %"]
    for width in range(60, 300, 10):
        names = ["a", "cross", "corner"]
        assert len({len(Verdict(t, p, c, "corner").lines(width)) for t in names for p in names for c in (0, 1)}) == 1
