"""A layer's distribution over the run: shares are kept where bins change, the axis widens and does not jump."""

import numpy as np
import pytest

from lightning_viz.callbacks.continuity import draw_distribution
from lightning_viz.callbacks.shared_axes import axis, axis_states, axis_words, shared_axes
from lightning_viz.render.histograms import BINS, rebin

from .pixels import body, fits

EDGES = np.concatenate([-(2.0 ** np.arange(8, -8, -0.25)), [0.0], 2.0 ** np.arange(-7.75, 8.25, 0.25)])


def counted(values):
    inside, _ = np.histogram(values, EDGES)
    return np.concatenate([[(values < EDGES[0]).sum()], inside, [(values >= EDGES[-1]).sum()]]).astype(float)


def draw(values, step, memory=None, **numbers):
    mean, deviation = (float(values.mean()), float(values.std())) if len(values) else (np.nan, np.nan)
    given = {"mean": mean, "std": deviation, "dead": 0.0, "never_positive": 0.0}
    return draw_distribution(
        "statistics/conv1",
        counted(values),
        EDGES,
        layer="conv1",
        step=step,
        population="600 validation samples",
        numbers={**given, "saturated": None, "zero": 0.0, **numbers},
        units=(16, "channels"),
        limits=axis(counted(values), EDGES, None) if len(values) else (-1.0, 1.0),
        memory=memory,
    )


def normal(scale, count=20_000):
    return scale * np.random.default_rng(0).standard_normal(count)


def test_shares_on_the_axis_are_those_of_the_values():
    values = normal(1.0)
    shares = rebin(counted(values), EDGES, (-4.0, 4.0))
    exact = np.histogram(values, np.linspace(-4, 4, BINS + 1))[0] / len(values)
    assert shares.sum() == pytest.approx(exact.sum(), abs=2e-4)
    assert np.abs(np.cumsum(shares) - np.cumsum(exact)).max() < 0.01


def test_the_axis_stays_while_values_fit_and_widens_on_the_side_where_they_do_not():
    first = axis(counted(normal(1.0)), EDGES, None)
    assert first[0] < -3.5 and first[1] > 3.5
    assert axis(counted(normal(0.5)), EDGES, first) == first
    grown = axis(counted(np.concatenate([normal(1.0), [12.0] * 100])), EDGES, first)
    assert grown[0] == first[0] and grown[1] > 12
    assert axis(counted(np.abs(normal(1.0))), EDGES, None)[0] > -0.5


def test_one_outlier_in_a_hundred_thousand_does_not_squeeze_the_picture():
    assert axis(counted(np.concatenate([normal(1.0, 200_000), [200.0] * 2])), EDGES, None)[1] < 10


def on_axes(step, previous=None, **scales):
    counts = {name: counted(normal(scale)) for name, scale in scales.items()}
    return shared_axes(counts, EDGES, step, axis_states(previous) if previous else {})


def test_all_layers_have_one_axis_and_a_layer_that_would_be_a_line_a_finer_one():
    axes = on_axes(0, conv=1.0, fc=3.0, tiny=0.02)
    assert axes["conv"].limits == axes["fc"].limits
    assert np.divide(axes["fc"].limits, axes["tiny"].limits) == pytest.approx([100, 100])
    assert axis_words(axes, "conv") == "the axis of all layers"
    assert axis_words(axes, "tiny") == "axis 100 times finer than other layers'"


def test_an_axis_that_widens_is_told_of_all_layers_and_one_that_stays_is_not():
    first = on_axes(0, conv=1.0, fc=3.0, tiny=0.02)
    same = on_axes(38, first, conv=1.2, fc=2.0, tiny=0.02)
    assert [axis.limits for axis in same.values()] == [axis.limits for axis in first.values()]
    assert not any(axis.warnings for axis in same.values())
    wide = on_axes(76, same, conv=1.0, fc=12.0, tiny=0.02)
    assert wide["conv"].limits == wide["fc"].limits
    assert wide["conv"].warnings == wide["fc"].warnings and "times wider than at step 38" in wide["fc"].warnings[0]
    after = on_axes(114, wide, conv=1.0, fc=12.0, tiny=0.02)
    assert not after["conv"].warnings and "since step 76" in axis_words(after, "conv")
    grown = on_axes(152, after, conv=1.0, fc=12.0, tiny=10.0)
    assert grown["tiny"].limits == grown["conv"].limits and not grown["conv"].warnings
    assert grown["tiny"].warnings == ("display scale 100 times wider than at step 114",)


def test_a_layer_without_finite_activations_keeps_its_axis():
    first = on_axes(0, conv=1.0, tiny=0.02)
    lost = shared_axes({"conv": counted(normal(1.0)), "tiny": 0 * counted(normal(1.0))}, EDGES, 1, axis_states(first))
    assert lost["tiny"].limits == first["tiny"].limits


def test_earlier_steps_stay_and_a_replayed_step_replaces_itself():
    memory = None
    for step in (0, 10, 20, 30):
        drawn = draw(normal(1.0 + step), step, memory)
        memory = drawn.memory
    assert memory["steps"] == [0, 10, 20, 30]
    again = draw(normal(1.0), 20, memory)
    assert again.memory["steps"] == [0, 10, 20]
    assert fits(again.pictures[0])


def test_of_a_long_run_few_steps_are_kept_the_first_and_the_latest_among_them():
    memory = None
    for step in range(60):
        memory = draw(normal(1.0, 500), step, memory).memory
    assert len(memory["steps"]) <= 32
    assert (memory["steps"][0], memory["steps"][-1]) == (0, 59)


def test_numbers_are_plotted_and_told():
    drawn = draw(normal(1.0), 5, dead=0.25, never_positive=0.5, saturated=0.125, zero=0.3)
    assert drawn.scalars.keys() == {f"statistics/conv1/{name}" for name in ("mean", "std", "dead", "saturated")}
    description = drawn.pictures[0].description
    for words in (
        "600 validation samples",
        "4 of 16 channels dead",
        "8 never above 0",
        "30 % of activations zero",
        "12 % saturated",
    ):
        assert words in description
    unbounded = draw(normal(1.0), 5)
    assert "0 of 16 channels dead · 0 never above 0 · 0 % of activations zero" in unbounded.pictures[0].description
    assert "statistics/conv1/saturated" not in unbounded.scalars
    assert "saturated" not in unbounded.pictures[0].description


@pytest.mark.parametrize("values", [np.zeros(100), np.full(100, 3.0), np.full(100, -1e6)])
def test_layers_that_say_little_are_drawn_all_the_same(values):
    assert fits(draw(values, 5).pictures[0])


def test_nothing_finite_is_said():
    drawn = draw(np.zeros(0), 5, dead=np.nan)
    assert not drawn.scalars
    assert len(body(drawn.pictures[0])) == 200
