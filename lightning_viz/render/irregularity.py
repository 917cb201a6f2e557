"""How irregular a gradient is, as curves of one pixel's partial derivatives along a short walk."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.render.layout import GUTTER, INNER_WIDTH
from lightning_viz.render.page import Page, PageInfo, check_rgb, check_shape, compose
from lightning_viz.render.parts import CurveTile, HStack, Part, Text, Tile, VStack
from lightning_viz.render.text import GRAY, first_of, number

__all__ = ["irregularity_page"]

_MOST, _SIDE, _HIGH = 6, 132, 40  # samples; pixels of a sample's tile and of a curve's height
_COLORS = ("red", "green", "blue")


def irregularity_page(
    tag: str,
    images: NDArray[np.uint8],
    curves: NDArray[Any],
    *,
    pixels: Sequence[Sequence[int]],
    target: str,
    fraction: float,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of partial derivatives along a walk: beside each sample one curve for each color, all from -1 to 1.

    Args:
        tag: of the page.
        images: the inputs ``[N, H, W, 3]``; the first 6 are shown.
        curves: ``[N, steps, C]``, in -1..1.
        pixels: row and column of each sample's pixel.
        target: what is explained.
        fraction: the walk's standard deviation, relative to a sample's range.
        info: see `PageInfo`.
    """
    check_rgb(images)
    check_shape("curves", curves, len(images), "steps", "C")
    channels = curves.shape[2]
    names = _COLORS if channels == 3 else ["gray"] if channels == 1 else [f"channel {k}" for k in range(channels)]
    across, label = INNER_WIDTH - _SIDE - 80 - 2 * GUTTER, 80
    rows: list[Part] = []
    for index, image in enumerate(images[:_MOST]):
        lines: list[Part] = [
            HStack(
                [Text([name], label), CurveTile(curve.astype(np.float64), across, _HIGH, limits=(-1, 1))], gap=GUTTER
            )
            for name, curve in zip(names[:3], curves[index].T, strict=False)
        ]
        where = Text([f"pixel {pixels[index][0]}, {pixels[index][1]}"], _SIDE, color=GRAY)
        tile = Tile((_SIDE, round(_SIDE * image.shape[0] / image.shape[1])), image, sample=index)
        rows.append(HStack([VStack([tile, where], gap=2), VStack(lines, gap=4)], gap=GUTTER))
    facts = (
        first_of(len(rows), len(images), "samples"),
        f"{curves.shape[1]} places",
        f"noise {number(fraction)} of each image's range at the end",
        "each curve from −1 to 1",
    )
    reading = (
        f"From left to right: the partial derivatives of {target} with respect to one pixel, along a walk from the "
        "image to one that people cannot tell from it, each divided by the largest entry of the gradient there. Curves "
        "that jump show how little one gradient says; averages over noise (SmoothGrad) say more."
    )
    return compose(tag, f"The gradient along a short walk, for {target}", VStack(rows, gap=10), facts, reading, **info)
