"""Animations at the end of a run: the pages that a view has drawn, step by step, also before the run was resumed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.snapshot import ViewLike
from lightning_viz.render.animation import animate, thin
from lightning_viz.render.page import Picture

_MOST = 120  # pages of an animation, before they are thinned to half
_MOST_BYTES = 16 * 2**20  # of all of a view's, as a checkpoint holds them


def keep_frame(view: ViewLike, picture: Picture, step: int) -> None:
    """Keep a page for the view's animation; of many, every other one.

    Args:
        view: that drew it; its `frames` are part of its state in a checkpoint.
        picture: the page.
        step: completed updates.
    """
    if not picture.image.startswith(b"\x89PNG"):
        return
    frames = view.frames.setdefault(picture.tag, [])
    frames.append((step, np.frombuffer(picture.image, np.uint8).copy()))
    size = sum(image.nbytes for pages in view.frames.values() for _, image in pages)
    for tag, pages in view.frames.items():
        if len(pages) > _MOST or size > _MOST_BYTES:
            kept = thin([step for step, _ in pages], most=max(2, len(pages) // 2))
            view.frames[tag] = [pages[index] for index in kept]


def animations(view: ViewLike) -> Iterator[tuple[int, DrawTask]]:
    """What draws the view's animations, each with its last step.

    Args:
        view: of the run.
    """
    for tag, pages in view.frames.items():
        if len(pages) > 1:
            frames = [(step, image.tobytes()) for step, image in pages]
            arguments = {"tag": f"{tag}/animation", "frames": frames, "description": f"{tag}, step by step."}
            yield pages[-1][0], DrawTask(animate, arguments)
