"""What is written of names is one line that shows what it is."""

import pytest

from lightning_viz.plain_text import plain_text

HARMFUL = (
    "a\nb",
    "a\r",
    "\x00",
    "\t",
    "\x1b]0;x\x07",
    "\x85",
    "\u2028",
    "\u202e",
    "\u2066",
    "\u200f",
    "\ufeff",
    "\udcff",
    "\U000e0041",
)


@pytest.mark.parametrize("text", HARMFUL)
def test_what_controls_its_surroundings_is_escaped(text):
    written = plain_text(text)
    assert written.isprintable() and written.encode().decode("unicode_escape") == text


@pytest.mark.parametrize(
    "text", ["cat", "Füße, 50 %", "חתול", "قط", "👩\u200d🔬", "क्\u200dष", "a\u00a0b", "<b>${x}</b>", ""]
)
def test_what_people_write_stays(text):
    assert plain_text(text) == text
