"""Detections beside the truth, and frames on maps."""

import numpy as np
import pytest

from lightning_viz.render.attribution_maps import attribution_maps
from lightning_viz.render.detections import (
    MISTAKEN,
    FramedTile,
    ObjectFrame,
    Objects,
    detection_predictions,
    framed_page,
    matches,
)
from lightning_viz.render.layout import draw
from lightning_viz.render.page import lay_out
from lightning_viz.render.parts import MapTile, Tile

IMAGES = np.full((2, 40, 60, 3), 90, dtype=np.uint8)


def objects(*rows, scores=None):
    boxes, labels = [row[:4] for row in rows], [row[4] for row in rows]
    return Objects(
        np.array(boxes, dtype=float).reshape(-1, 4), np.array(labels, dtype=int), np.array(scores or [1.0] * len(rows))
    )


def page(truth, prediction, **options):
    names = {1: "car", 2: "dog"}
    return detection_predictions(
        "predictions", IMAGES, truth, prediction, names=names, threshold=0.5, match_overlap=0.5, **options
    )


def test_matched_missed_and_false_differ_in_line_and_word():
    truth = [objects((2, 2, 22, 22, 1), (30, 5, 50, 25, 2)), objects()]
    found = objects((3, 3, 23, 23, 1), (30, 20, 50, 39, 2), (0, 0, 9, 9, 1), scores=[0.9, 0.8, 0.4])
    drawn = page(truth, [found, objects()])
    left, right, *empty = drawn.parts(FramedTile)
    assert [(frame.words, frame.dashed) for frame in left.frames] == [("car", False), ("missed: dog", True)]
    assert [(frame.words, frame.dashed) for frame in right.frames] == [("car 0.90", False), ("false: dog 0.80", True)]
    assert all(not tile.frames for tile in empty)
    assert {"1 found", "1 missed", "1 false"} <= set(drawn.details)
    assert lay_out(drawn).width > 0


@pytest.mark.parametrize(
    ("label", "box", "found"),
    [(1, (0, 0, 10, 10), True), (2, (0, 0, 10, 10), False), (1, (0, 0, 10, 21), False), (1, (0, 0, 10, 20), True)],
)
def test_a_match_is_of_the_same_class_and_overlaps_by_half(label, box, found):
    truth = objects((0, 0, 10, 10, 1))
    assert matches(objects((*box, label)), truth, [0], 0.5) == ({0: 0} if found else {})


def test_each_object_is_found_once_by_the_most_confident():
    truth = objects((0, 0, 10, 10, 1))
    assert matches(objects((0, 0, 10, 9, 1), (0, 0, 10, 10, 1)), truth, [0, 1], 0.5) == {0: 0}


def test_without_truth_nothing_is_called_false():
    drawn = page(None, [objects((2, 2, 22, 22, 1), scores=[0.7]), objects()])
    assert [frame.words for tile in drawn.parts(FramedTile) for frame in tile.frames] == ["car 0.70"]
    assert not any("missed" in detail for detail in drawn.details)


def test_broken_line_leaves_gaps_and_mask_tints_its_pixels_alone():
    mask = np.zeros((40, 60), dtype=bool)
    mask[20:30, 20:40] = True
    frame = ObjectFrame((10, 10, 50, 35), color=MISTAKEN, dashed=True, mask=mask)
    image = np.asarray(draw(FramedTile(Tile((600, 400), IMAGES[0]), [frame], (40, 60)))).astype(int)
    top = image[100, 110:490]  # along the upper edge
    colored = (top == MISTAKEN).all(1)
    assert 0.3 < colored.mean() < 0.7
    assert (image[250, 300] != 90).any() and (image[150, 300] == 90).all() and (image[380, 300] == 90).all()


def test_frames_lie_on_the_image_and_on_its_map_and_count_in_pixels_of_the_image():
    maps = np.ones((2, 1, 4, 6))
    maps[:, :, 1] = 2.0
    drawn = framed_page(
        attribution_maps,
        [[ObjectFrame((10, 10, 50, 35))], []],
        tag="grad_cam/conv",
        images=IMAGES,
        maps=maps,
        method="Grad-CAM",
        target="box[0]",
        display="heat",
        layer="conv",
    )
    framed = list(drawn.parts(FramedTile))
    assert len(framed) == 2 and [type(part.tile) for part in framed] == [Tile, MapTile]
    assert len(list(drawn.parts(MapTile))) == 2, "maps are still found on the page"
    assert lay_out(drawn).width > 0
