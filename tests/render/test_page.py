"""A page is plain data; laid out it is 700 px wide, under a caption that fits."""

import ast
import pickle
from pathlib import Path

import numpy as np
import pytest

import lightning_viz
from lightning_viz.render.layout import INNER_WIDTH
from lightning_viz.render.page import Picture, compose, lay_out
from lightning_viz.render.parts import HStack, Label, Text, Tile, VStack
from lightning_viz.render.text import RED, fixed_point, number, shorten, text_width, wrap, wrap_items
from lightning_viz.render.tiles import Verdict

from .pixels import body, decoded

GREEN = (10, 200, 30)
BODY = Tile((300, 50), np.full((1, 1, 3), GREEN, dtype=np.uint8), sample=4, layer="conv1", value=0.5)


def test_a_page_is_700_wide_and_carries_body_and_description():
    facts, notes = ["64 filters", ""], ["NaN in 3 of 16 maps"]
    page = compose("a/b", "Filters of conv1", BODY, facts, reading="Mid gray is zero.", step=1230, notes=notes)
    picture = lay_out(page)
    pixels = decoded(page)
    assert pixels.shape == (picture.height, 700, 3) and picture.width == 700 and picture.tag == "a/b"
    rows, columns = np.nonzero((pixels == GREEN).all(-1))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1, columns.min()) == (50, 300, 12)
    for words in ("Filters of conv1", "step 1,230 · 64 filters", "Mid gray is zero.", "NaN in 3 of 16 maps"):
        assert words in picture.description


def test_without_its_header_a_page_is_its_body():
    page = compose("a/b", "Filters of conv1", BODY)
    assert body(page).shape == (50, 300, 3) and (body(page) == GREEN).all()


def test_a_body_wider_than_the_page_is_made_smaller():
    wide = Tile((1352, 100), np.full((1, 1, 3), GREEN, dtype=np.uint8))
    assert body(compose("t", "", wide)).shape == (50, 676, 3)


def test_a_page_is_plain_data_that_can_be_read_and_sent():
    page = compose("t", "Maps", VStack([HStack([BODY, BODY], gap=6), Text(["below"], 100)], gap=2), step=3)
    sent = pickle.loads(pickle.dumps(page))
    assert [(tile.sample, tile.layer, tile.value) for tile in sent.parts(Tile)] == [(4, "conv1", 0.5)] * 2
    assert [text.lines for text in sent.parts(Text)] == [["below"]]
    assert (sent.title, sent.step, sent.tag) == ("Maps", 3, "t")
    assert lay_out(sent) == lay_out(page)


def test_an_animation_stays_as_it_is():
    picture = Picture("t", b"GIF89a", 3, 4, "")
    assert lay_out(picture) is picture


def test_what_stands_in_a_sheet_alone_is_refused():
    with pytest.raises(TypeError, match="put it into a Sheet"):
        lay_out(compose("t", "", Label(0, 0, "text")))


def test_a_page_is_the_same_to_the_byte():
    assert lay_out(compose("t", "a → b", BODY, ("×",))) == lay_out(compose("t", "a → b", BODY, ("×",)))


def test_long_captions_do_not_run_out_of_the_page():
    long = "backbone." * 40
    page = compose("t", f"Filters of {long}", BODY, ("word " * 60, long), notes=(long,))
    assert (decoded(page)[:, -8:] == 255).all()
    short, tall = (len(decoded(compose("t", title, BODY))) for title in ("conv1", long))
    assert tall > short + 50 and len(decoded(page)) > short + 150


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


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.874, 2, "0.87"),
        (-0.3, 2, "−0.30"),
        (-0.004, 2, "0.00"),
        (-11.25, 1, "−11.2"),
        (-0.0, 0, "0"),
        (float("nan"), 2, "–"),
        (float("-inf"), 2, "−∞"),
    ],
)
def test_decimals_are_fixed_and_carry_a_true_minus(value, decimals, text):
    assert fixed_point(value, decimals) == fixed_point(np.float32(value), decimals) == text


NO_PICTURE = {  # where a number is formatted for a reader other than a picture's
    "analysis/report/tables.py": 2,  # coordinates of an SVG
    "callbacks/layer_pages.py": 2,  # the projector's tab-separated text
    "callbacks/log_limits.py": 2,  # lines on the console
    "callbacks/picture_log.py": 1,
    "render/text.py": 6,  # the functions themselves
}


def test_what_draws_formats_its_numbers_by_the_functions_for_it():
    """So that a minus is a true one: a format specification of a float, as in ``f"{score:.2f}"``, prints a hyphen."""
    package, counts = Path(lightning_viz.__file__).parent, {}
    for path in sorted(package.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        drawn = "render" in path.parts or any(
            isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning_viz.render")
            for node in nodes
        )
        specs = [ast.unparse(node.format_spec) for node in nodes if getattr(node, "format_spec", None) is not None]
        floats = [spec for spec in specs if spec.rstrip("'\"")[-1:] in tuple("feg%FEGn")]
        if drawn and floats:
            counts[path.relative_to(package).as_posix()] = len(floats)
    assert counts == NO_PICTURE


CAPTIONS = [  # step, and what stands in the caption: numbers differ, nothing else
    (7, (0.0, 3, "−1.2e-5")),
    (1230, (0.42, 16, "0.0421")),
    (123_456, (99.9, 128, "−3,210")),
]


def test_lines_of_the_caption_break_at_the_same_words_whatever_the_numbers_are():
    def broken(step, numbers):
        share, count, value = numbers
        facts = [f"{share} % beyond", f"{count} of 128 channels", f"mean {value}, deviation {value}", "5 × 5 px", "1st"]
        lines = wrap_items([f"step {step:,}", *facts, f"one scale, {value} to {value} (since step {step:,})"], 400)
        return ["".join(letter for letter in line if letter.isalpha() and letter != "e") for line in lines]

    assert len({tuple(broken(*caption)) for caption in CAPTIONS}) == 1
    assert all(text_width(line) <= 400 for step, numbers in CAPTIONS for line in broken(step, numbers))


NOTES = [[], ["display scale 8 times wider than at step 38"], ["NaN in 3 of 16 maps", "all zero in 2 of 16 maps"]]


def test_a_warning_does_not_move_the_picture_below_it():
    tops = [
        np.nonzero((decoded(compose("t", "", BODY, step=38, notes=notes)) == GREEN).all(-1))[0].min() for notes in NOTES
    ]
    assert len(set(tops)) == 1


def test_warnings_that_do_not_fit_above_the_picture_stand_below_it():
    few, many = (compose("t", "", BODY, step=38, notes=["NaN in 3 of 16 maps"] * count) for count in (1, 9))
    assert lay_out(many).height > lay_out(few).height
    pixels, red = decoded(many), np.array(RED)
    rows = np.nonzero((np.abs(pixels - red.astype(int)).sum(-1) < 40).any(1))[0]
    body_rows = np.nonzero((pixels == GREEN).all(-1))[0]
    assert (rows < body_rows.min()).any() and (rows > body_rows.max()).any()


def test_what_tensorboard_shows_for_ever_says_nothing_that_changes():
    pictures = [
        lay_out(
            compose(
                "t", "Maps of conv1", BODY, [f"{step} maps"], "Mid gray is zero.", step=step, notes=notes, details=["a"]
            )
        )
        for step, notes in zip((0, 38, 76), NOTES, strict=True)
    ]
    assert {picture.explanation for picture in pictures} == {"**Maps of conv1**\n\nMid gray is zero."}


def test_the_key_to_verdicts_is_part_of_how_to_read():
    page = compose("t", "", BODY, verdicts=[Verdict("cat", "dog", 0.9)], sentence="Left the input.")
    assert page.explanation.startswith("****\n\nLeft the input. Under a sample: ✓ its class, or ✗ true → predicted")
    assert not any(page.details) and "Under a sample" not in compose("t", "", BODY).explanation


@pytest.mark.parametrize("text", ["−0.217 to −0.21234", "12,345 of 67,890", "3.14e-5 logits"])
def test_numbers_are_never_cut(text):
    for width in range(20, text_width(text)):
        shown = [word for word in shorten(text, width).removesuffix("…").split() if any(map(str.isdecimal, word))]
        assert all(word in text.split() for word in shown)
