"""Embedding of a layer's vectors in the drawing process: points, numbers and pages. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_viz.callbacks.draw_task import DrawResult, Projection
from lightning_viz.embedding import Embedding, extent, kmeans, knn_accuracy, pca, reduce, trustworthiness, tsne
from lightning_viz.render.embedding import embedding_panels, grid, scatter, sprite, thumbnails
from lightning_viz.render.layout import INNER_WIDTH
from lightning_viz.render.page import Page, compose
from lightning_viz.render.parts import Tile

_CLUSTERS = 10  # of k-means, where the classes are not known


def draw_embedding(
    tag: str,
    vectors: NDArray[np.float32],
    *,
    layer: str,
    dimension: int,
    step: int,
    labels: NDArray[np.int64] | None,
    class_names: tuple[str, ...] | None,
    images: NDArray[np.uint8] | None,
    full: bool,
    projector: bool,
    perplexity: float,
    engine: str,
    seed: int,
    memory: Mapping[str, Any] | None = None,
) -> DrawResult:
    """Embed a layer's samples, starting from and aligned to the step before, and draw them.

    Args:
        tag: of the scatter; the other pictures' and numbers' begin with it.
        vectors: one row per sample ``[N, D]``, projected if the layer is larger.
        layer: name, for the captions.
        dimension: of the layer itself.
        step: completed updates.
        labels: class indices ``[N]``, or None.
        class_names: by class index; None for the indices.
        images: of the samples ``[N, H, W, 3]``, for thumbnails; None where the inputs are no images.
        full: also thumbnails, the grid, and PCA and k-means beside t-SNE.
        projector: also the vectors for TensorBoard's projector.
        perplexity: of t-SNE.
        engine: of t-SNE.
        seed: of everything random.
        memory: of the previous step: its points and the extent of its page.
    """
    memory = memory or {}
    projected = (f"random projection to {vectors.shape[1]:,}",) if vectors.shape[1] != dimension else ()
    if not np.isfinite(vectors).all():
        return DrawResult(
            (_nothing(tag, layer, step, int((~np.isfinite(vectors).all(1)).sum()), len(vectors)),), memory=memory
        )
    scores = reduce(vectors, seed=seed)
    embedding = tsne(scores, previous=memory.get("points"), perplexity=perplexity, seed=seed, engine=engine)  # type: ignore[arg-type]
    points = _unit_radius(embedding.points)
    limits = extent(points, memory.get("extent"))
    numbers: dict[str, Any] = {
        "knn_accuracy": knn_accuracy(scores, labels, seed=seed),
        "trustworthiness": trustworthiness(scores, embedding.points),
    }
    caption: dict[str, Any] = {"layer": layer, "step": step, "labels": labels, "dimension": dimension}
    names: dict[str, Any] = {"class_names": class_names}
    pictures = [
        scatter(
            tag,
            points,
            **caption,
            **names,
            **numbers,
            extent=limits,
            method="PCA" if embedding.method == "PCA" else "t-SNE",
            details=projected,
            notes=_notes(embedding, len(vectors), perplexity),
        )
    ]
    if full:
        pictures.append(_compared(tag, embedding, scores, caption, names, projected, seed))
        if images is not None:
            pictures.append(thumbnails(f"{tag}/thumbnails", points, images, **caption, extent=limits))
            pictures.append(grid(f"{tag}/grid", points, images, **caption))
    return DrawResult(
        pictures,
        {f"{tag}/{name}": value for name, value in numbers.items() if value is not None},
        memory={**memory, "points": embedding.points, "extent": limits},
        projection=_projection(tag, scores, labels, class_names, images) if projector else None,
    )


def _compared(
    tag: str,
    embedding: Embedding,
    scores: NDArray[Any],
    caption: Mapping[str, Any],
    names: Mapping[str, Any],
    projected: tuple[str, ...],
    seed: int,
) -> Page:
    """t-SNE, PCA and k-means side by side."""
    labels = caption["labels"]
    clusters = kmeans(
        scores, clusters=_CLUSTERS if labels is None else len(np.unique(labels)), labels=labels, seed=seed
    )
    plane = pca(scores, seed=seed).points
    kept = float(plane.var(0).sum() / max(scores.var(0).sum(), np.finfo(np.float32).tiny))
    grouped = "k-means"
    if labels is not None:
        majority = sum(np.bincount(labels[clusters == cluster]).max() for cluster in np.unique(clusters))
        grouped += f" ({majority / len(labels):.0%} pure)"
    panels = [("t-SNE", embedding.points), (f"PCA ({kept:.0%} of variance)", plane), (grouped, embedding.points)]
    by_panel = {grouped: clusters}
    return embedding_panels(f"{tag}/compare", panels, **caption, **names, details=projected, clusters=by_panel)


def _unit_radius(points: NDArray[Any]) -> NDArray[Any]:
    """The embedding at a root mean square radius of 1: t-SNE's unit means nothing, yet its clouds grow and shrink."""
    centered = points - points.mean(0)
    radius = float(np.sqrt((centered**2).sum(1).mean()))
    return np.asarray(centered / radius if radius > 0 else centered)


def _notes(embedding: Embedding, count: int, perplexity: float) -> tuple[str, ...]:
    notes = []
    if embedding.method == "constant":
        notes.append("all samples are the same in this layer")
    elif embedding.method == "PCA":
        notes.append(f"only {count} samples: PCA instead of t-SNE")
    elif embedding.perplexity is not None and embedding.perplexity < perplexity:
        notes.append(f"only {count} samples: perplexity {embedding.perplexity:.3g} instead of {perplexity:g}")
    return tuple(notes)


def _nothing(tag: str, layer: str, step: int, broken: int, count: int) -> Page:
    words = f"NaN or infinity in {broken:,} of {count:,} samples"
    nothing = Tile((INNER_WIDTH, 400), flaw=words, layer=layer)
    title = f"t-SNE of {layer}"
    return compose(tag, title, nothing, reading="There is nothing to embed.", warnings=(words,), step=step)


def _projection(
    tag: str,
    vectors: NDArray[Any],
    labels: NDArray[np.int64] | None,
    class_names: tuple[str, ...] | None,
    images: NDArray[np.uint8] | None,
) -> Projection:
    """The vectors as TensorBoard's projector takes them: tab-separated text, a sprite of thumbnails."""
    rows = "\n".join("\t".join(f"{value:.6g}" for value in row) for row in vectors.tolist())
    known = class_names or ()
    metadata = None
    if labels is not None:
        metadata = "\n".join(known[label] if label < len(known) else str(label) for label in labels.tolist()).encode()
    image, side = sprite(images) if images is not None else (None, 0)
    return Projection(tag, rows.encode(), metadata, image, side)


def shrink(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Images as thumbnails; those that are small enough stay as they are.

    Args:
        images: ``[N, H, W, 3]``.
        side: the longest that a side may be, in pixels.
    """
    height, width = images.shape[1:3]
    scale = side / max(height, width)
    if scale >= 1:
        return images
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)) for image in images])
