"""Plots of robustness: lines and bars stand where their numbers say, axes start at zero, what is lost is said."""

from itertools import pairwise

import numpy as np
import pytest

from lightning_viz.render.colors import class_colors
from lightning_viz.render.plots import space_out
from lightning_viz.render.robustness import defense_bars, epsilon_curves, sphere_plot

from .pixels import body, decoded, fits

EPSILONS = np.array([0, 0.02, 0.05, 0.1])
FALLING = np.array([0.95, 0.7, 0.3, 0.0])
BLUE, ORANGE = class_colors(2)


def places(picture, color):
    """Rows and columns of what has one color."""
    return np.argwhere((body(picture) == color).all(-1))


def heights(picture, color):
    """Of each column of pixels that holds the color, its middle, from left to right; names at the ends left out."""
    found = places(picture, color)
    found = found[found[:, 1] < 388]
    return np.array([found[found[:, 1] == column][:, 0].mean() for column in np.unique(found[:, 1])])


def curves(*accuracies, **options):
    return epsilon_curves("t", {f"net {n}": (EPSILONS, a) for n, a in enumerate(accuracies)}, norm="L∞", **options)


def test_a_falling_curve_falls_and_a_higher_one_lies_higher():
    picture = curves(FALLING, FALLING * 0.5 + 0.45)
    low, high = (heights(picture, color) for color in (BLUE, ORANGE))
    assert low[-1] - low[0] > 250, "pixels, downwards"
    assert (np.diff(low[::20]) > -2).all()
    assert high[-1] < low[-1] - 100


def test_order_and_unit_of_epsilons_do_not_change_the_curve():
    turned = epsilon_curves("t", {"net 0": (EPSILONS[::-1], FALLING[::-1])}, norm="L∞")
    assert (decoded(turned) == decoded(curves(FALLING))).all()
    pixels, levels = (curves(FALLING, trained=0.2, gray_levels=gray) for gray in (False, True))
    assert np.array_equal(heights(pixels, BLUE), heights(levels, BLUE))
    assert (decoded(pixels) != decoded(levels)).any(), "the numbers under the axis"


def test_the_axis_reaches_from_none_to_all():
    flat = [heights(curves(np.full(4, share)), BLUE)[100:200].mean() for share in (0, 0.5, 1)]
    assert flat[0] > flat[1] > flat[2] and abs(flat[0] + flat[2] - 2 * flat[1]) < 2
    assert flat[0] - flat[2] > 300


def test_a_curve_with_gaps_is_drawn_and_said():
    broken = FALLING.copy()
    broken[2] = np.nan
    picture = curves(FALLING, broken, np.full(4, np.nan))
    assert "NaN in 2 of 3 curves" in picture.description
    assert len(places(picture, ORANGE))


def test_the_trained_epsilon_is_marked_even_beyond_the_curves():
    plain, marked, beyond = (curves(FALLING, trained=trained) for trained in (None, 0.05, 0.4))
    assert (decoded(plain) != decoded(marked)).any()
    assert np.ptp(heights(beyond, BLUE)) > 250 and len(heights(beyond, BLUE)) < len(heights(marked, BLUE))


@pytest.mark.parametrize("ends", [[0, 0, 0, 0], [100, 100, 100], [0, 1, 50, 51, 99, 100], [50], list(range(12))])
def test_names_keep_their_order_and_distance_at_the_ends_of_lines(ends):
    moved = space_out(ends, apart=7, highest=100)
    assert min(moved) >= 0 and max(moved) <= 100
    assert all(high - low >= 7 - 1e-9 for low, high in pairwise(moved))


def test_more_curves_than_fit_are_said():
    picture = curves(*[FALLING] * 14)
    assert "the first 12 of 14 curves" in picture.description and fits(picture)


def bars(clean, attacked, names=None):
    return defense_bars("t", names or [f"way {n}" for n in range(len(clean))], clean, attacked, attack="FGSM")


def test_bars_are_as_long_as_their_shares():
    picture = bars([1.0, 0.5], [0.25, 0.0])
    for color, shares in ((BLUE, [1, 0.5]), (ORANGE, [0.25])):
        found = places(picture, color)
        found = found[(found[:, 0] > 32) & (found[:, 1] > 48)]  # below the key
        rows = [np.ptp(found[found[:, 0] == row][:, 1]) for row in np.unique(found[:, 0])]
        lengths = sorted(set(rows), reverse=True)
        assert len(lengths) == len(shares)
        full = lengths[0] / shares[0]
        assert np.allclose(np.array(lengths) / full, shares, atol=0.01)


def test_an_accuracy_that_is_not_known_has_no_bar():
    picture = bars([0.9, np.nan], [np.nan, np.nan])
    found = places(picture, ORANGE)
    assert (found[:, 0] < 32).all(), "only the key has the attacked samples' color"


def test_more_defenses_than_fit_are_said():
    picture = bars(np.full(20, 0.9), np.full(20, 0.1))
    assert "the first 13 of 20 defenses" in picture.description and fits(picture)


def test_the_sphere_says_how_seldom_random_directions_change_the_class():
    shares = np.array([0, 0, 0.01, 0.05])
    picture = sphere_plot("t", shares, samples=1000, radii=[1, 2, 3, 4])
    text = picture.description
    assert "twice as far as the attack, but at random: 1.5 % change the class" in text
    assert "1,000 random directions around each of 4 samples" in text
    assert "around 3 of them fewer than 2 %" in text and "lengths 1 to 4" in text
    assert "1.5 times" in sphere_plot("t", shares, samples=10, times=1.5).description


def test_a_sample_that_was_not_moved_does_not_count_on_the_sphere():
    picture = sphere_plot("t", [0, 0.5, np.nan, 0.5], samples=10, radii=[0, 1, 1, 1])
    assert "2 of 4 samples left out" in picture.description and ": 50 % change" in picture.description
    nothing = sphere_plot("t", [np.nan], samples=10)
    assert "– % change" in nothing.description and fits(nothing)


def test_a_share_is_not_rounded_to_none_or_all():
    texts = [sphere_plot("t", [share], samples=10**6).description for share in (0, 2e-4, 1e-5, 0.9999, 1)]
    assert [text.split("random: ")[1].split(" %")[0] for text in texts] == ["0", "0.02", "<0.01", "99.9", "100"]


def test_the_spheres_axis_starts_at_zero_and_holds_every_dot():
    def blue(picture):
        sheet = body(picture).astype(int)
        return np.argwhere(sheet[..., 2] - sheet[..., 0] > 60)

    assert np.ptp(blue(sphere_plot("t", np.zeros(200), samples=10))[:, 0]) < 12, "all dots lie on the axis"
    for high in (0.04, 0.5, 1.0):
        picture = sphere_plot("t", [0, high], samples=10)
        rows, columns = blue(picture).T
        assert np.ptp(rows) > 300 and np.ptp(columns) > 150
        assert fits(picture)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: epsilon_curves("t", {}, norm="L2"), "at least one"),
        (lambda: epsilon_curves("t", {"net": (EPSILONS, FALLING[None])}, norm="L2"), "the curve 'net' is"),
        (
            lambda: epsilon_curves("t", {"net": (EPSILONS, FALLING[:2])}, norm="L2"),
            "accuracies of the curve 'net' is [2]: give [4]",
        ),
        (lambda: epsilon_curves("t", {"net": (-EPSILONS, FALLING)}, norm="L2"), "numbers of 0 or more"),
        (lambda: bars([0.5], [0.5, 0.1]), "attacked is [2]: give [1]"),
        (lambda: bars(np.ones(2), np.ones((2, 3))), "of several epsilons give one"),
        (lambda: sphere_plot("t", np.zeros((2, 3)), samples=10), "changed is [2, 3]"),
        (lambda: sphere_plot("t", [0, 0], samples=10, radii=[1]), "radii is [1]: give [2]"),
    ],
)
def test_what_does_not_fit_together_is_an_error(draw, message):
    with pytest.raises(ValueError) as caught:
        draw()
    assert message in str(caught.value)
