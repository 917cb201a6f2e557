"""Attribution methods side by side: each on its own scale, and nothing to see is said."""

import numpy as np
import pytest

from lightning_viz.render.attribution_maps import MethodMaps, method_row, method_sheet
from lightning_viz.render.layout import BODY_HEIGHT, draw
from lightning_viz.render.tiles import to_rgb

from .pixels import decoded, fits

RANDOM = np.random.default_rng(0)
IMAGES = to_rgb(RANDOM.random((8, 1, 12, 12)))


def maps(count=8, channels=1, size=6):
    return RANDOM.standard_normal((count, channels, size, size))


def sheet(methods, **options):
    return method_sheet("attributions/sheet", IMAGES, methods, title="Methods", target="the logit", **options)


def test_each_map_has_its_own_scale():
    own = maps()
    faint = own * np.logspace(-6, 3, 8)[:, None, None, None]
    for display in ("heat", "sum", "signed", "image"):
        one, other = (
            draw(method_row(IMAGES, MethodMaps("gradient", each, display), (40, 40), label=100, gap=4))
            for each in (own, faint)
        )
        assert np.array_equal(one, other)


def test_what_cannot_be_shown_is_hatched_and_counted():
    broken = maps()
    broken[0], broken[1, 0, 0, 0] = 0, np.nan
    found = sheet([MethodMaps("gradient", broken, "signed"), MethodMaps("Grad-CAM", maps(), "heat")])
    assert "all zero in 1 of 12 maps" in found.description and "NaN in 1 of 12 maps" in found.description


def test_a_page_of_seven_methods_is_a_card():
    methods = [
        MethodMaps(f"method {place}", maps(), "sum", ["random net 0.1", "del. 0.2, ins. 0.3"]) for place in range(7)
    ]
    found = sheet(methods, key=["del.: less is better"], step=3, details=["a fact"], notes=["a warning"])
    assert fits(found, BODY_HEIGHT + 200)
    for words in ("step 3", "the first 6 of 8 samples", "a fact", "a warning", "each map on its own scale"):
        assert words in found.description


def test_words_under_a_name_are_drawn():
    with_words, without = (
        sheet([MethodMaps("gradient", np.ones((8, 1, 6, 6)), "sum", words)]) for words in (["0.1"], [])
    )
    assert not np.array_equal(decoded(with_words), decoded(without))


@pytest.mark.parametrize("methods", [[], [MethodMaps("gradient", maps(3), "sum")]])
def test_maps_that_are_not_of_the_samples_are_refused(methods):
    with pytest.raises(ValueError, match="maps \\[8"):
        sheet(methods)
