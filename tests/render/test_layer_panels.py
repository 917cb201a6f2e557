import numpy as np
import pytest

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.layer_panels import LayerPanel, layer_panels
from lightning_viz.render.layout import draw
from lightning_viz.render.parts import ClassKey, LayerPlot, ScatterPlot, Text, Tile

from .pixels import fits, texts

RNG = np.random.default_rng(0)
LABELS = np.arange(90) % 3
EXTENT = (-2.0, 2.0, -2.0, 2.0)


def panel(layer="fc1", **options):
    given = {"points": RNG.normal(size=(90, 2)), "extent": EXTENT, "knn_accuracy": 0.974, **options}
    return LayerPanel(layer, 18432, **given)


def drawn(panels, **options):
    return layer_panels("t", panels, **{"labels": LABELS, "step": 1230, **options})


@pytest.mark.parametrize("count", range(1, 13))
@pytest.mark.parametrize("names", [None, ("airplane", "automobile", "bird of prey")])
def test_up_to_a_dozen_layers_fit_on_a_page_and_their_words_into_their_columns(count, names):
    page = drawn([panel(f"model.encoder.layer{place}.1.conv2") for place in range(count)], class_names=names)
    assert fits(page)
    sides = {(plot.width, plot.height) for plot in page.parts(ScatterPlot)}
    assert len(sides) == 1 and min(sides) >= (120, 120)
    for text in page.parts(Text):
        (line,) = text.lines
        ink = np.asarray(draw(text).convert("L"))
        assert ink[:, -1].min() == 255, line  # nothing is cut


def test_a_panel_says_its_layers_dimension_and_accuracy():
    words = [line for line, _ in texts(drawn([panel("conv1"), panel("fc", knn_accuracy=None)]))]
    assert words[:4] == ["conv1", "18,432-d · k-NN 97 %", "fc", "18,432-d"]


def test_a_name_too_wide_keeps_its_end():
    words = [line for line, _ in texts(drawn([panel(f"backbone.body.stage{n}.block.conv3") for n in range(12)]))]
    assert all(line.endswith("conv3") for line in words[0:24:2]) and words[0].startswith("1: …")


def test_layers_without_a_panel_are_named():
    text = drawn([panel(str(n)) for n in range(12)], left_out=["layer2.1", "layer3.4"]).description
    assert "12 of 14 layers" in text and "Without a panel: layer2.1, layer3.4" in text
    with pytest.raises(InvalidArgumentError, match="13 panels"):
        drawn([panel()] * 13)


def test_where_there_is_nothing_to_see_that_is_said():
    page = drawn([panel("conv1"), LayerPanel("fc", 3, flaw="NaN or infinity in 3 of 90 samples")])
    (tile,) = page.parts(Tile)
    assert tile.flaw == "NaN or infinity in 3 of 90 samples"
    assert tile.size == next((plot.width, plot.height) for plot in page.parts(ScatterPlot))


def test_curves_are_of_a_few_earlier_steps_and_this_one():
    history = [(step, [0.5, step / 1000]) for step in range(20)]
    (plot,) = drawn([panel(), panel("fc2", knn_accuracy=0.8)], history=history).parts(LayerPlot)
    assert plot.curves.shape == (9, 2) and plot.chance == pytest.approx(1 / 3)
    np.testing.assert_allclose(plot.curves[[0, -2, -1]], [[0.5, 0], [0.5, 0.019], [0.974, 0.8]])


def test_short_names_of_classes_stand_in_the_panels_and_long_ones_in_a_key():
    short = drawn([panel()], class_names=("a", "b", "c"))
    assert [name for name, *_ in next(short.parts(ScatterPlot)).names] == ["a", "b", "c"]
    long = drawn([panel()], class_names=("airplane", "bird", "cat"))
    assert not next(long.parts(ScatterPlot)).names and next(long.parts(ClassKey)).names[0] == "airplane"


def test_without_classes_there_are_points_alone():
    page = drawn([panel(knn_accuracy=None)], labels=None)
    assert not list(page.parts(LayerPlot)) and next(page.parts(ScatterPlot)).classes is None
    assert "class" not in page.description
