from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageSequence

from lightning_viz.render.animation import animate, thin
from lightning_viz.render.page import png


def frames(count, width=60, height=40, noise=False):
    generator = np.random.default_rng(0)
    result = []
    for step in range(count):
        pixels = np.full((height, width, 3), 255, dtype=np.uint8)
        if noise:
            pixels[:] = generator.integers(0, 256, pixels.shape)
        pixels[: 4 + step % 30, :10] = (0, 0, 200)
        result.append((step, png(Image.fromarray(pixels))))
    return result


def played(picture):
    gif = Image.open(BytesIO(picture.image))
    return [(np.asarray(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(gif)]


def test_frames_play_in_the_order_of_steps_and_the_last_is_held():
    picture = animate("t", frames(10)[::-1], description="words")
    shown = played(picture)
    assert len(shown) == 10 and picture.description == "words" and picture.image.startswith(b"GIF")
    assert [each[0][:, 0, 0].tolist().count(0) for each in shown] == list(range(4, 14))
    assert shown[-1][1] == 2000 and all(100 <= each[1] <= 130 for each in shown[:-1])


@pytest.mark.parametrize("count", [1, 60, 61, 500])
def test_thinning_keeps_first_and_last_and_no_more_than_sixty(count):
    kept = thin(range(count))
    assert kept[0] == 0 and kept[-1] == count - 1 and len(kept) == min(count, 60)
    assert kept == sorted(set(kept))


def test_thinning_is_even_in_the_logarithm():
    steps = list(range(0, 100_000, 10))
    kept = np.array([steps[index] for index in thin(steps, 20)])
    ratios = kept[10:] / kept[9:-1]
    assert ratios.max() / ratios.min() < 1.3 and ratios.min() > 1.5


def test_pages_of_different_height_share_one_canvas_and_white_stays_white():
    mixed = [*frames(3), (9, frames(1, height=70)[0][1])]
    picture = animate("t", mixed, description="")
    assert (picture.width, picture.height) == (60, 70)
    assert all((pixels[-1, -1] == 255).all() and pixels.shape == (70, 60, 3) for pixels, _ in played(picture))


def test_what_does_not_change_does_not_flicker():
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    pages = []
    for step in range(20):
        photo[:, :10] = step * 12
        pages.append((step, png(Image.fromarray(photo))))
    shown = [pixels for pixels, _ in played(animate("t", pages, description=""))]
    assert all((pixels[:, 10:] == shown[0][:, 10:]).all() for pixels in shown)


def test_large_animations_are_made_to_fit():
    picture = animate("t", frames(30, 500, 400, noise=True), description="")
    assert len(picture.image) <= 2_000_000
    first, last = played(picture)[0][0], played(picture)[-1][0]
    assert (first[0, 0] != last[0, 0]).any() or first.shape == last.shape


def test_what_does_not_change_is_written_once():
    photo = np.random.default_rng(0).integers(0, 256, (400, 500, 3)).astype(np.uint8)
    pages = []
    for step in range(20):
        photo[:20, :20] = photo[-20:, -20:] = step * 12
        pages.append((step, png(Image.fromarray(photo))))
    alone, all_of_them = (len(animate("t", some, description="").image) for some in (pages[:1], pages))
    assert all_of_them < 1.5 * alone


@pytest.mark.parametrize("rare", [True, False], ids=["a bar of colors below gray noise", "a ramp of grays"])
def test_shades_are_kept(rare):
    ramp = np.linspace(0, 255, 240)
    page = np.tile(ramp[None, :, None], (400, 1, 3)).astype(np.uint8)
    if rare:
        page[:] = np.random.default_rng(0).integers(0, 40, page.shape)
        page[-8:] = np.stack([ramp, ramp / 2, 255 - ramp], 1)
    ((shown, _),) = played(animate("t", [(0, png(Image.fromarray(page)))], description=""))
    assert np.abs(shown[-1].astype(int) - page[-1]).max(1).mean() < 5


def test_no_frames_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        animate("t", [], description="")
