from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from lightning_viz.render.page import INNER_WIDTH, Caption, page
from lightning_viz.render.text import number, shorten, text_width, wrap, wrap_items


def decoded(picture):
    return np.asarray(Image.open(BytesIO(picture.image)).convert("RGB"))


def test_page_is_700_wide_and_carries_body_and_description():
    caption = Caption("Filters of conv1", ("step 1,230", "64 filters"), "Mid gray is zero.", ("NaN in 3 of 16 maps",))
    body = Image.new("RGB", (300, 50), (10, 200, 30))
    picture = page("a/b", caption, body)
    pixels = decoded(picture)
    assert pixels.shape == (picture.height, 700, 3) and picture.width == 700
    left, top = picture.origin
    assert (pixels[top : top + 50, left : left + 300] == (10, 200, 30)).all()
    for words in ("Filters of conv1", "step 1,230 · 64 filters", "Mid gray is zero.", "NaN in 3 of 16 maps"):
        assert words in picture.description


def test_a_page_is_the_same_to_the_byte():
    body = Image.new("RGB", (300, 50), (10, 200, 30))
    assert page("t", Caption("a → b", ("×",)), body) == page("t", Caption("a → b", ("×",)), body)


def test_long_captions_do_not_run_out_of_the_page():
    long = "backbone." * 40
    picture = page("t", Caption(f"Filters of {long}", ("word " * 60, long), notes=(long,)), Image.new("RGB", (10, 10)))
    pixels = decoded(picture)
    assert (pixels[:, -8:] == 255).all()
    assert picture.origin[1] > 150
    short, tall = (page("t", Caption(title), Image.new("RGB", (10, 10))) for title in ("conv1", long))
    assert tall.origin[1] > short.origin[1] + 50


@pytest.mark.parametrize("width", [30, 100, INNER_WIDTH])
def test_wrapped_lines_fit_and_lose_nothing(width):
    text = "Grad-CAM for the label's logit, seen from backbone.layer4.1.conv2"
    lines = wrap(text, width)
    assert all(text_width(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_items_break_between_items():
    assert wrap_items(("step 1,230", "", "each map divided by its maximum"), 330) == [
        "step 1,230",
        "each map divided by its maximum",
    ]
    assert wrap_items(("a", "b"), 330) == ["a · b"]


def test_shortened_text_fits_and_keeps_its_suffix():
    text = shorten("a golden retriever with a very long name", 150, suffix=" 87 %")
    assert text_width(text) <= 150 and text.endswith("… 87 %") and text.startswith("a gol")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1230, "1,230"),
        (-0.04214, "−0.0421"),
        (12.44, "12.4"),
        (1e-7, "1e-7"),
        (2.5e9, "2.5e9"),
        (999.9, "1e3"),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text
