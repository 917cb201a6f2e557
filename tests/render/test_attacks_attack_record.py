"""The record as a table: a class keeps its color, a lost label is crossed, and no step is left out."""

import numpy as np
import pytest

from lightning_viz.render.attacks import record_table
from lightning_viz.render.colors import class_colors
from lightning_viz.render.layout import draw
from lightning_viz.render.parts import Cell, ClassKey, CurveTile, Label

from .pixels import decoded, fits

RNG = np.random.default_rng(0)
IMAGES = np.full((20, 8, 8, 3), 17, dtype=np.uint8)
LABELS = np.arange(20) % 10
NAMES = [f"class {one}" for one in range(10)]


def table(classes, labels=None, **options):
    classes = np.asarray(classes)
    labels = LABELS[: classes.shape[1]] if labels is None else labels
    sure = options.pop("confidences", np.full(classes.shape, 0.5))
    given = {"attack": "PGD", "names": NAMES, **options}
    return record_table("t", IMAGES[: classes.shape[1]], classes, sure, np.asarray(labels), **given)


def area(picture, color):
    return int((decoded(picture) == color).all(-1).sum())


def cells(page):
    """What is written into cells, by row and column."""
    return {(cell.row, cell.column): list(cell.lines) for cell in page.parts(Cell)}


def labels(page, anchor):
    """What is written beside the cells: heads are centered, lengths stand left of their middle."""
    return [label.text for label in page.parts(Label) if label.anchor == anchor]


def test_a_class_has_its_color_wherever_it_is_seen():
    colors = class_colors(10)
    picture = table([[3], [3], [8]], labels=[3])
    threes, eights = area(picture, colors[3]), area(picture, colors[8])
    assert threes > 1.5 * eights > 1000, "the label and two steps against one and the end"
    assert area(table([[8]], labels=[8]), colors[8]) > eights
    assert not any(area(picture, colors[other]) for other in (0, 1, 2, 4, 5, 6, 9))


def test_what_is_no_longer_the_label_is_crossed():
    picture = table(
        [[3, 9], [3, 9], [7, 5]], labels=[3, 5], confidences=np.array([[1, 0.6], [0.996, 0.4], [0.8, np.nan]])
    )
    found = cells(picture)
    assert [found[0, column] for column in range(2)] == [["class 3"], ["class 7", "✗ 80"]]
    assert [found[1, column] for column in range(2)] == [["class 5"], ["class 5", "–"]]
    assert cells(table([[3], [3]], labels=[3], confidences=np.array([[1], [0.996]])))[0, 1] == ["class 3", "99"]
    assert "1 of 2 end on another class than their label" in picture.description
    assert "1 began so" in picture.description and "began" not in table([[3], [7]], labels=[3]).description


def test_every_step_is_there_as_a_line_on_the_colors_of_the_classes():
    classes, sure = RNG.integers(0, 10, (40, 3)), RNG.random((40, 3))
    page = table(classes, confidences=sure, step_numbers=range(0, 4000, 100))
    strips = list(page.parts(CurveTile))
    assert np.array_equal([strip.values for strip in strips], sure.T)
    assert np.array_equal([strip.bands for strip in strips], class_colors(10)[classes.T])
    assert {strip.limits for strip in strips} == {(0.0, 1.0)}
    assert "40 recorded steps, none left out" in page.description
    heads = labels(page, "mm")
    assert len(heads) == 6 and heads[:2] == ["label", "3,900"] and heads[2] == "0"
    assert labels(table(np.zeros((3, 3), dtype=int)), "mm") == ["label", "2", "0", "1"]
    (key,) = page.parts(ClassKey)
    assert key.names == [f"class {index}" for index in np.unique(classes)]


def test_a_line_stands_where_its_confidences_are_on_the_colors_of_its_steps():
    bands = np.array([[200, 0, 0], [0, 0, 200]], dtype=np.uint8)
    image = np.asarray(draw(CurveTile(np.array([1.0, 0.0]), 100, 40, (0.0, 1.0), bands)))
    assert (image[20, :20] == (200, 0, 0)).all() and (image[20, 80:] == (0, 0, 200)).all()
    dark = (image < 60).all(-1)
    assert dark[:6, 20:30].any() and dark[-6:, 70:80].any() and not dark[-6:, :40].any()


def test_the_last_length_is_the_one_shown():
    page = table(np.zeros((2, 3), dtype=int), relative=np.array([[0, 0, 0], [0.0102, 0.0027, np.nan]]))
    assert labels(page, "lm") == ["moved", "1.02 %", "0.27 %", "–"]


def test_the_page_holds_twelve_samples_and_says_so():
    picture = table(RNG.integers(0, 10, (30, 20)), relative=np.full((30, 20), 0.123))
    assert "the first 12 of 20 samples" in picture.description
    assert fits(picture)


@pytest.mark.parametrize("count", [2, 8, 10, 20])
def test_text_is_read_on_every_class_color(count):
    def luminance(color):
        shares = np.asarray(color) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    page = table(np.arange(count)[None].repeat(2, 0), labels=np.arange(count), names=[f"{n}" for n in range(count)])
    assert len({cell.color for cell in page.parts(Cell)}) == min(count, 12)
    for cell in page.parts(Cell):
        dark, light = sorted((luminance(cell.color), luminance(cell.ink)))
        assert (light + 0.05) / (dark + 0.05) > 3.9


def test_classes_without_names_are_numbered():
    assert cells(table([[0], [12]], labels=[0], names=None))[0, 1] == ["12", "✗ 50"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: table(np.zeros((2, 3, 4), dtype=int)), "of several epsilons give one"),
        (
            lambda: table(np.zeros((2, 3), dtype=int), confidences=np.zeros((3, 3))),
            "the shape of confidences is [3, 3]: give [2, 3]",
        ),
        (lambda: table(np.zeros((2, 3), dtype=int), labels=[1]), "the shape of labels is [1]: give [3]"),
        (lambda: table(np.zeros((2, 3), dtype=int), relative=np.zeros(3)), "the shape of relative is [3]: give [2, 3]"),
        (lambda: table(np.zeros((2, 3), dtype=int), step_numbers=[3, 3]), "give them ascending"),
        (lambda: table(np.zeros((2, 3), dtype=int), step_numbers=[3]), "the shape of classes is [2, 3]: give [1, 3]"),
        (lambda: table(np.zeros((0, 3), dtype=int)), "give [0, 3], none of them 0"),
    ],
)
def test_what_does_not_fit_together_is_an_error(draw, message):
    with pytest.raises(ValueError) as caught:
        draw()
    assert message in str(caught.value)
