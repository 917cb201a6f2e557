"""A layer's samples in three dimensions, as an animation that turns once around."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_viz.render.animation import FRAME_MILLISECONDS, animate
from lightning_viz.render.colors import key_entries
from lightning_viz.render.embedding import panel
from lightning_viz.render.layout import INNER_WIDTH
from lightning_viz.render.page import Picture, check_shape, compose, lay_out
from lightning_viz.render.parts import ClassKey, VStack

__all__ = ["turning_points"]

_FRAMES = 40
_TILT = np.radians(20)  # by which the axis leans towards the viewer


def turning_points(
    tag: str,
    points: NDArray[np.float32],
    *,
    layer: str,
    labels: NDArray[np.int64] | None,
    class_names: tuple[str, ...] | None = None,
    method: str,
    dimension: int,
    step: int | None = None,
    details: Sequence[str] = (),
) -> Picture:
    """Animation of points in three dimensions, nearer ones in front, turning once around their middle.

    Args:
        tag: of the picture.
        points: ``[N, 3]``.
        layer: name, for the caption.
        labels: class indices ``[N]``, or None.
        class_names: by class index; the indices if omitted.
        method: that made the points.
        dimension: of the layer.
        step: completed updates.
        details: further facts for the caption.
    """
    check_shape("points", points, "N", 3)
    usable = np.isfinite(points).all(axis=1)
    centered = points[usable] - points[usable].mean(axis=0)
    shown = None if labels is None else np.asarray(labels)[usable]
    reach = 1.05 * float(np.linalg.norm(centered, axis=1).max(initial=1e-9))
    entries, colors = key_entries(labels, class_names)
    frames = []
    for frame in range(_FRAMES):
        turned = centered @ _rotation(2 * np.pi * frame / _FRAMES).T
        order = np.argsort(turned[:, 2], kind="stable")  # far ones first
        extent = (-reach, reach, -reach, reach)
        side = (INNER_WIDTH, INNER_WIDTH)
        plot = panel(turned[order, :2], None if shown is None else shown[order], class_names, side, extent)
        body = VStack([plot, *([ClassKey(entries, colors)] if entries else [])], gap=8)
        facts = (f"{len(points):,} samples", f"{dimension:,} dimensions", *details)
        page = compose(tag, f"{method} of {layer} in three dimensions", body, facts, step=step)
        frames.append((frame, lay_out(page).image))
    words = "The same samples from all sides: what is near from every side is alike to the layer."
    return animate(tag, frames, description=words, hold=FRAME_MILLISECONDS)


def _rotation(angle: float) -> NDArray[np.float64]:
    """About the upright axis, then towards the viewer ``[3, 3]``."""
    cosine, sine = np.cos(angle), np.sin(angle)
    about = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    tilt = np.array([[1, 0, 0], [0, np.cos(_TILT), -np.sin(_TILT)], [0, np.sin(_TILT), np.cos(_TILT)]])
    return np.asarray(tilt @ about)
