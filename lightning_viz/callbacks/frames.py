"""Animations at the end of a run: the pages that a view has drawn, step by step, also before the run was resumed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.render.animation import animate, thin
from lightning_viz.render.page import Picture

AnimationFrames = dict[str, list[tuple[int, NDArray[np.uint8]]]]
"""By tag, the steps and encoded pages."""
_MOST = 120  # pages of an animation, before they are thinned to half
_MOST_BYTES = 16 * 2**20  # of all of a view's, as a checkpoint holds them


def keep_frame(frames: AnimationFrames, picture: Picture, step: int) -> None:
    """Keep a page for the view's animation; of many, every other one.

    Args:
        frames: of the view that drew it, part of its state in a checkpoint.
        picture: the page.
        step: completed updates.
    """
    if not picture.image.startswith(b"\x89PNG"):
        return
    frames.setdefault(picture.tag, []).append((step, np.frombuffer(picture.image, np.uint8).copy()))
    size = sum(image.nbytes for pages in frames.values() for _, image in pages)
    for tag, pages in frames.items():
        if len(pages) > _MOST or size > _MOST_BYTES:
            kept = thin([step for step, _ in pages], most=max(2, len(pages) // 2))
            frames[tag] = [pages[index] for index in kept]


def animations(frames: AnimationFrames) -> Iterator[tuple[int, DrawTask]]:
    """What draws a view's animations, each with its last step.

    Args:
        frames: of the view.
    """
    for tag, pages in frames.items():
        if len(pages) > 1:
            images = [(step, image.tobytes()) for step, image in pages]
            arguments = {"tag": f"{tag}/animation", "frames": images, "description": f"{tag}, step by step."}
            yield pages[-1][0], DrawTask(animate, arguments)
