"""The page of health: layers down, steps across, red where it is told to be, of the same size whatever it shows."""

import numpy as np
import pytest

from lightning_viz.render.health import layer_health
from lightning_viz.render.layout import INNER_WIDTH
from lightning_viz.render.page import lay_out
from lightning_viz.render.parts import Cell, Label, Text
from lightning_viz.render.text import RED, text_width


def page(layers=3, steps=4, *, faults=(), dead=0.1, ratio=1e-3, scale=1.0, **options):
    shape = (steps, layers)
    flags = np.zeros((*shape, 3), dtype=bool)
    for step, layer, place in faults:
        flags[step, layer, place] = True
    names = [f"net.block.{number}.fc" for number in range(layers)]
    arrays = {"dead": np.full(shape, dead), "saturated": np.full(shape, np.nan)}
    arrays |= {"ratio": np.full(shape, ratio), "scale": np.full(shape, scale)}
    return layer_health("health", names, list(range(10, 10 + steps)), **arrays, faults=flags, step=20, **options)


def test_it_does_not_move_under_the_slider():
    few = {lay_out(page(steps=count)).height for count in (1, 2, 8, 20, 32)}
    found = [
        "a: weights do not move since step 10",
        *[f"layer{number} is wrong in a long sentence" for number in range(9)],
    ]
    many = lay_out(page(found=found, certain=True, faults=[(3, 1, 1)]))
    assert few == {many.height} and many.width == 700
    labels = [
        {(label.x, label.y) for label in page(steps=steps, dead=dead, ratio=ratio).parts(Label)}
        for steps, dead, ratio in ((1, 0.0, 1e-3), (5, 1.0, np.nan), (20, np.nan, 1e-9))
    ]
    assert labels[0] == labels[1] == labels[2]


def test_a_fault_is_red_with_a_cross_and_nothing_else_is():
    assert not [part for part in page(dead=1.0, ratio=0.0, scale=1e9).parts(Cell) if part.color == RED]
    shown = page(faults=[(1, 2, 0), (3, 2, 0), (2, 0, 1)], found=["it is so"], certain=True)
    red = [cell for cell in shown.parts(Cell) if cell.color == RED]
    assert [(cell.row, cell.column) for cell in red if cell.value is not None] == [(0, 2), (2, 1), (2, 3)]
    assert [list(cell.lines) for cell in red if cell.lines] == [["10 %"]]  # the latest number, of the last layer alone
    assert [label.text[0] for label in shown.parts(Label) if label.color == RED] == ["✗"]
    (verdict,) = shown.parts(Text)
    assert verdict.lines[0] == "✗ it is so" and verdict.color == RED
    (told,) = page(found=["it may be so"]).parts(Text)
    assert told.lines[0] == "it may be so" and told.color != RED
    (fine,) = page().parts(Text)
    assert fine.lines[0] == "Nothing wrong is seen in any layer."


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"dead": 0.14}, "14 %"),
        ({"dead": np.nan}, "–"),
        ({"ratio": 8.3e-4}, "0.083 %"),
        ({"ratio": 3e-7}, "< 0.001 %"),
        ({"ratio": 0.0}, "0"),
        ({"ratio": np.nan, "notes_of_layers": ["frozen"] * 3}, "frozen"),
        ({"scale": 123456.0}, "120,000"),
        ({"scale": np.nan, "called": [False] * 3}, "not called"),
    ],
)
def test_the_latest_value_stands_beside_its_bars(values, shown):
    assert shown in [label.text for label in page(**values).parts(Label)]


@pytest.mark.parametrize(
    "values",
    [
        {"ratio": 3e-7},
        {"ratio": 0.0099, "scale": 123456.0},
        {"ratio": np.nan, "notes_of_layers": ["no optimizer"] * 3, "scale": 0.000123},
        {"ratio": 0.0, "dead": 1.0, "scale": 1e-30},
        {"scale": np.nan, "called": [False] * 3},
    ],
)
def test_no_number_touches_what_stands_to_its_right(values):
    shown = page(**values)
    grounds = [cell for cell in shown.parts(Cell) if cell.value is None and not cell.lines and cell.height > 20]
    lefts = sorted({cell.left for cell in grounds})
    assert len(lefts) == 3
    for label in shown.parts(Label):
        ends = label.x + text_width(label.text)
        assert ends <= min((left for left in lefts if left > label.x), default=INNER_WIDTH), label.text


def test_of_many_layers_neighbors_share_a_row_that_shows_the_worst():
    shown = page(layers=45, faults=[(3, 44, 1)])
    labels = [label.text for label in shown.parts(Label)]
    assert sum("+" in label for label in labels) == 18 and "0.fc +2" in labels  # without what all names begin with
    assert [label for label in labels if label.startswith("✗")] == ["✗ 43.fc +1"]
    assert lay_out(shown).height <= 900
