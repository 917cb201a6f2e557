"""What a detector finds: boxes and masks on images and maps, and predictions beside the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from typing_extensions import Unpack

from lightning_viz.render.layout import BODY_HEIGHT, GUTTER, draw, fit, heads
from lightning_viz.render.page import Page, PageInfo, check_rgb, compose
from lightning_viz.render.parts import Color, HStack, Part, Tile, VStack
from lightning_viz.render.text import LINE, TEXT_SIZE, WHITE, fixed_point, font, number, shorten, some_of, text_width

__all__ = ["FramedTile", "ObjectFrame", "detection_predictions", "framed_page"]

MATCHING = 0.5
"""Least intersection over union of a detection with the object that it finds, as in PASCAL VOC."""

EXPLAINED: Color = (0, 150, 255)
MATCHED: Color = (0, 140, 100)
MISTAKEN: Color = (200, 60, 0)
_WIDTH = 3  # pixels of a frame
_SMALL = 40  # pixels: a frame of fewer has a thin line, that what it holds is seen
_DASH = 9  # pixels of a dash and of the gap after it
_OPACITY = 0.35  # of a mask's color over the image
_ROWS = 3


@dataclass(frozen=True, eq=False)
class ObjectFrame:
    """An object's frame on an image.

    Args:
        box: left, top, right and bottom, in pixels of the image.
        words: on a plate at its top left.
        color: of the frame and the mask.
        dashed: whether the line is broken.
        mask: where the object is, ``[H, W]`` as the image; None if that is not known.
    """

    box: tuple[float, float, float, float]
    words: str = ""
    color: Color = EXPLAINED
    dashed: bool = False
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class FramedTile(Part):
    """A tile with frames around objects.

    Args:
        tile: below them.
        frames: the first lie on top.
        shape: height and width of the image whose pixels the frames count in.
    """

    tile: Tile
    frames: Sequence[ObjectFrame]
    shape: tuple[int, int]

    def children(self) -> Sequence[Part]:
        """The tile."""
        return (self.tile,)


@draw.register
def _framed_tile(part: FramedTile) -> Image.Image:
    image = draw(part.tile)
    if part.tile.flaw:
        return image
    across, down = image.width / part.shape[1], image.height / part.shape[0]
    for frame in reversed(part.frames):
        if frame.mask is not None:
            _tint(image, frame.mask, frame.color)
    pen = ImageDraw.Draw(image)
    plates = []
    for frame in reversed(part.frames):
        left, top, right, bottom = frame.box
        corners = [
            min(max(round(left * across), 1), image.width - 2),
            min(max(round(top * down), 1), image.height - 2),
            min(max(round(right * across) - 1, 1), image.width - 2),
            min(max(round(bottom * down) - 1, 1), image.height - 2),
        ]
        small = min(corners[2] - corners[0], corners[3] - corners[1]) < _SMALL
        _rectangle(pen, corners, WHITE, dashed=False, width=_WIDTH + (0 if small else 2))
        _rectangle(pen, corners, frame.color, dashed=frame.dashed, width=1 if small else _WIDTH)
        if frame.words:
            plates.append((corners, frame))
    taken: list[tuple[int, int, int, int]] = []
    for corners, frame in reversed(plates):
        _plate(pen, image.size, corners, frame, taken)
    return image


def _tint(image: Image.Image, mask: NDArray[np.bool_], color: Color) -> None:
    """Color the pixels of a mask."""
    opacity = Image.fromarray(mask.astype(np.uint8) * round(255 * _OPACITY)).resize(image.size)
    image.paste(Image.new("RGB", image.size, color), (0, 0), opacity)


def _rectangle(pen: ImageDraw.ImageDraw, corners: Sequence[int], color: Color, *, dashed: bool, width: int) -> None:
    """A frame whose line, centered on the corners, is whole or broken."""
    left, top, right, bottom = corners
    if not dashed:
        low, high = width // 2, width - 1 - width // 2
        outer = (left - low, top - low, max(right + high, left - low), max(bottom + high, top - low))
        pen.rectangle(outer, outline=color, width=width)
        return
    for x0, y0, x1, y1 in ((left, top, right, top), (right, top, right, bottom), (left, bottom, right, bottom),
                           (left, top, left, bottom)):  # fmt: skip
        length = max(abs(x1 - x0), abs(y1 - y0))
        for start in range(0, length, 2 * _DASH):
            ends = [(start / length), min(start + _DASH, length) / length] if length else [0, 0]
            points = [(round(x0 + (x1 - x0) * end), round(y0 + (y1 - y0) * end)) for end in ends]
            pen.line(points, fill=color, width=width)


def _plate(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corners: Sequence[int],
    frame: ObjectFrame,
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Words over a frame, or under it or further down where there is no room or others stand."""
    words = shorten(frame.words, size[0] - 8)
    width, height = text_width(words) + 8, TEXT_SIZE + 4
    left = max(0, min(corners[0] - 1, size[0] - width))
    tops = [corners[1] - height, corners[3] + 2, corners[1] + 2, *range(0, max(1, size[1] - height), height)]
    free = (
        top
        for top in tops
        if 0 <= top <= size[1] - height
        and not any(left < r and l < left + width and top < b and t < top + height for l, t, r, b in taken)  # noqa: E741
    )
    top = next(free, max(0, min(corners[1] - height, size[1] - height)))
    taken.append((left, top, left + width, top + height))
    pen.rectangle((left, top, left + width - 1, top + height - 1), fill=frame.color)
    pen.text((left + 4, top + height / 2), words, fill=WHITE, font=font(), anchor="lm")


def framed_page(page: Callable[..., Page], frames: Sequence[Sequence[ObjectFrame]], **arguments: Any) -> Page:
    """A page of samples with frames on each sample's tiles, on the image and on its maps.

    Args:
        page: the function that makes the page.
        frames: of each sample.
        arguments: of that function, images ``[N, H, W, 3]`` among them, in whose pixels frames count.
    """
    made = page(**arguments)
    return replace(made, body=_framed(made.body, frames, arguments["images"].shape[1:3]))


def _framed(part: Part, frames: Sequence[Sequence[ObjectFrame]], shape: tuple[int, int]) -> Part:
    if isinstance(part, Tile):
        own = frames[part.sample] if part.sample is not None and part.sample < len(frames) else ()
        return FramedTile(part, own, shape) if own else part
    if isinstance(part, VStack):  # and HStack
        return replace(part, parts=[_framed(child, frames, shape) for child in part.parts])
    return part


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects of one image, found or true.

    Args:
        boxes: left, top, right and bottom in pixels of the image ``[D, 4]``.
        labels: classes ``[D]``.
        scores: confidences ``[D]``; 1 of true ones.
        masks: where they are ``[d, H, W]``, of the first ones at least; None if that is not known.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    masks: NDArray[np.bool_] | None = None

    def mask(self, index: int) -> NDArray[np.bool_] | None:
        """The mask of one; None if it is not known."""
        return None if self.masks is None or index >= len(self.masks) else self.masks[index]


def detection_predictions(
    tag: str,
    images: NDArray[np.uint8],
    truth: Sequence[Objects] | None,
    prediction: Sequence[Objects],
    *,
    names: Mapping[int, str],
    threshold: float,
    match_overlap: float,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of a detector: true objects and those that it finds, in which matched and mistaken ones are told apart.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``; the first 3 are shown.
        truth: the true objects of each image; None if they are not known.
        prediction: what was found in each image, the most confident first.
        names: of the classes, by their number.
        threshold: least score of a detection.
        match_overlap: least intersection over union of a detection with the object of its class that it matches.
        info: see `PageInfo`.
    """
    check_rgb(images)
    count = min(_ROWS, len(images))
    columns = ("prediction",) if truth is None else ("truth", "prediction")
    aspect = images.shape[1] / images.shape[2]
    size = fit(len(columns), count, aspect, room=BODY_HEIGHT - 2 * LINE)
    rows: list[Part] = [HStack(heads(columns, size[0]), gap=GUTTER)]
    found = missed = wrong = 0
    for index in range(len(images)):
        objects = prediction[index]
        certain = [place for place, score in enumerate(objects.scores) if score >= threshold]
        pairs = {} if truth is None else matches(objects, truth[index], certain, match_overlap)
        frames = [
            [
                _frame(objects, place, names, "" if truth is None or place in pairs else "false", scored=True)
                for place in certain
            ]
        ]
        if truth is not None:
            hit = set(pairs.values())
            true = [
                _frame(truth[index], place, names, "" if place in hit else "missed")
                for place in range(len(truth[index].labels))
            ]
            frames.insert(0, true)
            found, missed, wrong = found + len(hit), missed + len(true) - len(hit), wrong + len(certain) - len(pairs)
        if index < count:
            tiles = [FramedTile(Tile(size, images[index], sample=index), own, images.shape[1:3]) for own in frames]
            rows.append(HStack(tiles, gap=GUTTER))
    facts = (
        *(() if truth is None else (f"{found} found", f"{missed} missed", f"{wrong} false")),
        f"detections above {number(threshold)}",
        some_of(count, len(images), "images"),
    )
    reading = (
        "Each row is one image: left the true objects, right the detections. A whole green frame is an object that was "
        "found: a detection of its class overlaps it, with an intersection over union of "
        f"{number(match_overlap)} or more. A broken orange one is an object that was missed, or a false detection."
        if truth is not None
        else "Each image with its detections; the truth is not known."
    )
    title = "Detections" if truth is None else "Detections, beside the truth"
    return compose(tag, title, VStack(rows, gap=6), facts, reading, **info)


def _frame(
    objects: Objects, place: int, names: Mapping[int, str], mistake: str, *, scored: bool = False
) -> ObjectFrame:
    label = int(objects.labels[place])
    score = f" {fixed_point(float(objects.scores[place]))}" if scored else ""
    words = f"{f'{mistake}: ' if mistake else ''}{names.get(label, str(label))}{score}"
    color = MISTAKEN if mistake else MATCHED
    left, top, right, bottom = map(float, objects.boxes[place])
    return ObjectFrame((left, top, right, bottom), words, color, bool(mistake), objects.mask(place))


def matches(prediction: Objects, truth: Objects, places: Sequence[int], overlap: float) -> dict[int, int]:
    """Which detection finds which true object: the most confident first, each the one that it overlaps most.

    Args:
        prediction: the most confident first.
        truth: the true objects of the same image.
        places: numbers of the detections that count.
        overlap: least intersection over union.
    """
    pairs: dict[int, int] = {}
    for place in places:
        best = max(
            (
                (_overlap(prediction.boxes[place], box), index)
                for index, box in enumerate(truth.boxes)
                if index not in pairs.values() and truth.labels[index] == prediction.labels[place]
            ),
            default=(-math.inf, -1),
        )
        if best[0] >= overlap:
            pairs[place] = best[1]
    return pairs


def _overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes ``[4]``."""
    shared = np.prod(np.clip(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0, None))
    whole = np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]) - shared
    return float(shared / whole) if whole > 0 else 0.0
