"""Bars are as long as their shares, on one axis for all networks."""

import numpy as np
import pytest

from lightning_viz.render.parts import Cell, Label
from lightning_viz.render.stability import stability_bars

KINDS = ["gaussian_noise", "tilt"]


def bars(page):
    return {(cell.row, cell.column): cell for cell in page.parts(Cell) if cell.value is not None}


def test_bars_of_all_networks_share_an_axis_that_holds_the_longest():
    rates = {"plain": [1, 1], "hard": [0.5, np.nan]}
    page = stability_bars(
        "t", {"plain": [0.04, 0.16], "hard": [0.02, 0.0]}, kinds=KINDS, rates=rates, reference="plain"
    )
    found = bars(page)
    assert found[1, 0].width == pytest.approx(4 * found[0, 0].width, abs=2)
    assert found[0, 1].width == pytest.approx(found[0, 0].width / 2, abs=2)
    assert found[2, 0].value == pytest.approx(0.1) and (1, 1) not in found  # the mean, and no bar of nothing
    words = [label.text for label in page.parts(Label)]
    assert "FR 1.00 / 0.50" in words and "FR 1.00 / –" in words and "20 %" in words and "gaussian noise" in words
    assert "axis from 0 to 20 % of the steps" in page.details and "FR: flips over those of plain" in page.details


def test_one_network_has_its_numbers_beside_it():
    words = [label.text for label in stability_bars("t", {"net": [0.041, 0.0]}, kinds=KINDS).parts(Label)]
    assert "4.1 %" in words and words.count("0 %") == 2 and "5 %" in words
    with pytest.raises(ValueError, match="one for each kind"):
        stability_bars("t", {"net": [0.1]}, kinds=KINDS)
    with pytest.raises(ValueError, match="at least one"):
        stability_bars("t", {}, kinds=KINDS)
