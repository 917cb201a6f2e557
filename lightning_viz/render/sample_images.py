"""A layer's samples as images: at their places in the plane, on a grid, and as a sprite for the projector."""

from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from typing_extensions import Unpack

from lightning_viz.render.colors import colors_of
from lightning_viz.render.embedding import beyond
from lightning_viz.render.layout import INNER_WIDTH
from lightning_viz.render.page import Page, PageInfo, check_rgb, check_shape, compose, png
from lightning_viz.render.parts import At, Cell, Label, Part, PlotExtent, Sheet, Tile
from lightning_viz.render.text import RED, WHITE
from lightning_viz.render.tiles import CROSS

__all__ = ["grid", "sprite", "thumbnails"]

_HEIGHT = INNER_WIDTH
_SPRITE_SIDE = 8192  # the projector's limit, in pixels
_SPRITE_TILE = 96
_TINT = 0.35  # of a class's color in its samples' sprites
_THUMBNAIL = 30  # pixels, frame included
_MARK = 15  # pixels, of a mistake's cross
_FILLED = 0.6  # of the page, at most, by thumbnails
_CROWDED = 2  # samples at nearly the same place, of which more are left out
_PUSHES = 120  # until thumbnails are apart, or nearly
_FRAME = 3
_MOST_CELLS = 20  # a side: 400 samples of 34 px
_FRAMES = ("frame: true class", " A frame's color is the true class.")


def thumbnails(
    tag: str,
    points: NDArray[Any],
    images: NDArray[np.uint8],
    *,
    layer: str,
    labels: NDArray[Any] | None = None,
    mistaken: NDArray[np.bool_] | None = None,
    extent: PlotExtent,
    dimension: int,
    method: Literal["t-SNE", "PCA"] = "t-SNE",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of samples as thumbnails at their places, pushed apart; mistakes on top, in crowds some are left out.

    Args:
        tag: of the page.
        points: ``[N, 2]``; those out of view stand at the rim.
        images: ``[N, H, W, 3]``.
        layer: name, for the caption.
        labels: class indices ``[N]`` for the frames' colors, or None.
        mistaken: samples whose class the model does not predict ``[N]``, or None.
        extent: (x0, x1, y0, y1) of the view, fixed over a run.
        dimension: of the layer.
        method: that made the points.
        info: see `PageInfo`.
    """
    check_rgb(images)
    check_shape("points", points, len(images), 2)
    wrong = np.zeros(len(points), dtype=bool) if mistaken is None else mistaken
    x0, x1, y0, y1 = extent
    size = np.array([INNER_WIDTH, _HEIGHT], dtype=np.float64)
    shares = (np.asarray(points, dtype=np.float64) - (x0, y1)) / (x1 - x0, y0 - y1)
    places = np.clip(shares, 0, 1) * (size - _THUMBNAIL)
    shown = _chosen(places, wrong | _outside(points, extent))
    tiles = _framed(images, labels, _THUMBNAIL, shown)
    corners = _pushed_apart(places[shown], size - _THUMBNAIL)
    parts: list[Part] = []
    for place in np.argsort(wrong[shown], kind="stable").tolist():
        tile, corner = tiles[place], corners[place]
        left = round(corner[0] + (_THUMBNAIL - tile.width) / 2)
        top = round(corner[1] + (_THUMBNAIL - tile.height) / 2)
        parts.append(At(left, top, tile))
        if wrong[shown[place]]:
            parts.append(Cell(left + tile.width - _MARK, top, _MARK, _MARK, WHITE))
            parts.append(Label(left + tile.width - _MARK / 2, top + _MARK / 2, CROSS.strip(), RED, "mm"))
    frame, color = _FRAMES if labels is not None else ("", "")
    facts = (
        f"{len(shown):,} of {len(points):,} samples",
        f"{beyond(points, extent):,} outliers at the rim",
        f"{dimension:,} dimensions",
        frame,
        "" if mistaken is None else f"{CROSS}mistake, drawn first: {int(wrong.sum()):,} of all samples",
    )
    reading = f"Each sample stands near its place in the embedding; of those in a crowd some are left out.{color}"
    if mistaken is not None:
        reading += " A cross marks a sample whose class the model does not predict."
    body = Sheet(INNER_WIDTH, _HEIGHT, parts, (246, 246, 246))
    return compose(tag, f"Samples at their places in {layer}'s {method}", body, facts, reading, **info)


def _outside(points: NDArray[Any], extent: PlotExtent) -> NDArray[np.bool_]:
    x0, x1, y0, y1 = extent
    x, y = points.T
    return np.asarray((x < x0) | (x > x1) | (y < y0) | (y > y1))


def _chosen(places: NDArray[np.float64], first: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Which samples are shown: these first, then others where there is no crowd, as many as the page holds."""
    most = int(_FILLED * INNER_WIDTH * _HEIGHT / _THUMBNAIL**2)
    order = [*np.flatnonzero(first), *np.flatnonzero(~first)]
    kept: list[int] = []
    for index in order:
        if len(kept) == most:
            break
        near = np.abs(places[kept] - places[index]).max(axis=1) < _THUMBNAIL / 2 if kept else np.zeros(0)
        if np.isfinite(places[index]).all() and (first[index] or near.sum() <= _CROWDED):
            kept.append(int(index))
    return np.array(kept, dtype=np.int64)


def _pushed_apart(places: NDArray[np.float64], room: NDArray[np.float64]) -> NDArray[np.float64]:
    """The places moved, each as little as can be, until thumbnails cover each other no more, or hardly."""
    moved = places + np.random.default_rng(0).uniform(-0.5, 0.5, places.shape)  # those of one place part
    for _ in range(_PUSHES):
        apart = moved[:, None] - moved[None]
        overlap = _THUMBNAIL - np.abs(apart)
        touching = np.asarray((overlap > 0).all(axis=2))
        np.fill_diagonal(touching, val=False)
        if not touching.any():
            break
        along = overlap.argmin(axis=2)[..., None] == np.arange(2)  # the shorter way out
        push = np.where(along & touching[..., None], np.sign(apart) * overlap / 2, 0)
        count = np.maximum(1, (push != 0).sum(axis=1))
        moved = np.clip(moved + push.sum(axis=1) / count, 0, room)
    return np.asarray(moved)


def grid(
    tag: str,
    points: NDArray[Any],
    images: NDArray[np.uint8],
    *,
    layer: str,
    labels: NDArray[Any] | None = None,
    dimension: int,
    method: Literal["t-SNE", "PCA"] = "t-SNE",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of samples on a square grid (Karpathy's): the assignment to cells that moves points least.

    Args:
        tag: of the page.
        points: ``[N, 2]``; the first 400 are shown.
        images: ``[N, H, W, 3]``.
        layer: name, for the caption.
        labels: class indices ``[N]`` for the frames' colors, or None.
        dimension: of the layer.
        method: that made the points.
        info: see `PageInfo`.
    """
    check_rgb(images)
    check_shape("points", points, len(images), 2)
    usable = np.flatnonzero(np.isfinite(points).all(axis=1))[: _MOST_CELLS**2]
    side = max(1, int(np.ceil(len(usable) ** 0.5)))
    size = min(INNER_WIDTH // side, 120)
    tiles = _framed(images, labels, size - 2, usable)
    parts = []
    for (column, row), tile in zip(assign(points[usable], side), tiles, strict=True):
        left, top = column * size + (size - tile.width) // 2, (side - 1 - row) * size + (size - tile.height) // 2
        parts.append(At(int(left), int(top), tile))
    count = f"{len(usable):,}" if len(usable) == len(points) else f"{len(usable):,} of {len(points):,}"
    frame, color = _FRAMES if labels is not None else ("", "")
    facts = (f"{count} samples", f"{dimension:,} dimensions", frame, "gaps removed")
    reading = f"The embedding spread over a grid: neighbors in the grid are samples that the layer sees alike.{color}"
    warnings = ("NaN in some points",) if not np.isfinite(points).all() else ()
    body, title = Sheet(side * size, side * size, parts), f"{layer}'s {method}, spread over a grid"
    return compose(tag, title, body, facts, reading, warnings=warnings, **info)


def assign(points: NDArray[Any], side: int) -> NDArray[np.int64]:
    """Each point's own cell (column, row) ``[N, 2]`` of a grid of ``side`` by ``side``, rows from the bottom up.

    Args:
        points: ``[N, 2]``, N at most side².
        side: of the grid, in cells.
    """
    points = np.asarray(points, dtype=np.float64)
    if not len(points):
        return np.zeros((0, 2), dtype=np.int64)
    spread = np.ptp(points, axis=0)
    unit = (points - points.min(axis=0)) / np.where(spread > 0, spread, 1)
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1).reshape(-1, 2)
    cost = cdist(unit, cells / max(1, side - 1), "sqeuclidean")
    return np.asarray(cells[linear_sum_assignment(cost)[1]], dtype=np.int64)


def _framed(
    images: NDArray[np.uint8], labels: NDArray[Any] | None, side: int, chosen: NDArray[np.int64]
) -> list[Sheet]:
    """Some of the images fitted into ``side`` pixels, framed in their class's color where there are labels."""
    edge = _FRAME if labels is not None else 0
    room = max(1, side - 2 * edge)
    height, width = images.shape[1:3]
    size = (max(1, room * width // max(height, width)), max(1, room * height // max(height, width)))
    colors = colors_of(labels, len(images)).tolist()
    tiles = [At(edge, edge, Tile(size, images[index], sample=index)) for index in chosen.tolist()]
    across, down = size[0] + 2 * edge, size[1] + 2 * edge
    return [Sheet(across, down, [tile], tuple(colors[index])) for index, tile in zip(chosen, tiles, strict=True)]


def sprite(images: NDArray[np.uint8], labels: NDArray[Any] | None = None) -> tuple[bytes, int]:
    """Thumbnails on one square PNG, row by row, for TensorBoard's projector.

    Args:
        images: ``[N, H, W, 3]``, at most 96 px a side, less where the sprite would exceed 8192; oblong: white edges.
        labels: class indices ``[N]``, by whose colors the thumbnails are tinted, or None.

    Returns:
        The PNG's bytes and the side of one thumbnail in pixels.
    """
    check_rgb(images)
    columns = max(1, ceil(len(images) ** 0.5))
    side = max(1, min(max(images.shape[1:3]), _SPRITE_TILE, _SPRITE_SIDE // columns))
    sheet = Image.new("RGB", (columns * side, columns * side), "white")
    if labels is not None:
        colors = colors_of(labels, len(images))[:, None, None]
        images = np.rint((1 - _TINT) * images + _TINT * colors).astype(np.uint8)
    for index, image in enumerate(images):
        tile = Image.fromarray(np.ascontiguousarray(image))
        if max(tile.size) > side:
            tile.thumbnail((side, side), Image.Resampling.LANCZOS)
        row, column = divmod(index, columns)
        sheet.paste(tile, (column * side + (side - tile.width) // 2, row * side + (side - tile.height) // 2))
    return png(sheet), side
