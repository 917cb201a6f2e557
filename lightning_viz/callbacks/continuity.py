"""Continuity from step to step: histograms over the run, aligned embeddings. Imports no torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_viz.callbacks.draw_task import DrawResult, Projection
from lightning_viz.embedding import (
    Embedding,
    extent,
    kmeans,
    knn_accuracy,
    pca,
    procrustes,
    reduce,
    trustworthiness,
    tsne,
)
from lightning_viz.plain_text import plain_text
from lightning_viz.render.activations import Distribution, distributions, rebin
from lightning_viz.render.animation import thin
from lightning_viz.render.embedding import embedding_panels, grid, scatter, sprite, thumbnails
from lightning_viz.render.layout import INNER_WIDTH
from lightning_viz.render.page import Page, compose
from lightning_viz.render.parts import Tile
from lightning_viz.render.text import percent

_KEPT = 32  # steps of which the histograms are kept
_TRUSTED = 0.9  # trustworthiness below which a start from the layer before is given up
_LESS_TRUSTED = 0.05  # ... or so far below that layer's
_CLUSTERS = 10  # of k-means, where the classes are not known


def draw_distribution(
    tag: str,
    counts: NDArray[np.float64],
    edges: NDArray[np.float64],
    *,
    layer: str,
    step: int,
    population: str,
    numbers: Mapping[str, float | None],
    units: tuple[int, str],
    limits: tuple[float, float],
    axis: str = "",
    notes: Sequence[str] = (),
    memory: Mapping[str, Any] | None = None,
) -> DrawResult:
    """Draw a histogram in front of those of earlier steps.

    Args:
        tag: of the picture; the numbers' begin with it.
        counts: of activations, between edges, and before and behind them.
        edges: of the bins.
        layer: name, for the caption.
        step: completed updates.
        population: whose activations they are, in words.
        numbers: mean, std, dead, never_positive, saturated (None if it has no meaning) and zero.
        units: number of the layer's units, and their name.
        limits: of the axis of activations.
        axis: what the caption says of it.
        notes: warnings for the caption.
        memory: the earlier steps' histograms and numbers.
    """
    memory = memory or {"steps": [], "counts": [], "means": [], "deviations": []}
    scalars = {
        f"{tag}/{name}": float(value)
        for name, value in numbers.items()
        if name in ("mean", "std", "dead", "saturated") and value is not None and math.isfinite(value)
    }
    if not counts.sum():
        nothing = Tile((INNER_WIDTH, 200), flaw="no finite activations", layer=layer)
        title = f"How the activations of {layer} are distributed"
        page = compose(tag, title, nothing, (population,), step=step, notes=notes)
        return DrawResult((page,), scalars, memory=memory)
    past = [place for place, earlier in enumerate(memory["steps"]) if earlier < step]
    steps = [*(memory["steps"][place] for place in past), step]
    kept = thin(steps, most=_KEPT)
    history = {
        "steps": steps,
        "counts": [*(np.asarray(memory["counts"][place]) for place in past), np.asarray(counts, dtype=np.float32)],
        "means": [*(memory["means"][place] for place in past), float(numbers["mean"] or 0.0)],
        "deviations": [*(memory["deviations"][place] for place in past), float(numbers["std"] or 0.0)],
    }
    history = {name: [values[place] for place in kept] for name, values in history.items()}
    curves = [
        Distribution(at, rebin(earlier, edges, limits), mean, deviation)
        for at, earlier, mean, deviation in zip(*history.values(), strict=True)
    ]
    picture = distributions(
        tag,
        curves,
        layer=layer,
        limits=limits,
        population=population,
        facts=(*_facts(numbers, units), axis),
        notes=notes,
    )
    return DrawResult((picture,), scalars, memory=history)


def _facts(numbers: Mapping[str, float | None], units: tuple[int, str]) -> tuple[str, ...]:
    dead, silent = numbers["dead"] or 0.0, numbers["never_positive"] or 0.0
    saturated = numbers["saturated"]
    return (
        f"{round(dead * units[0])} of {units[0]:,} {units[1]} dead",
        f"{round(silent * units[0])} never above 0",
        f"{percent(numbers['zero'] or 0.0)} % of activations zero",
        f"{percent(saturated)} % saturated" if saturated is not None else "",
    )


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
    before: Mapping[str, Any] | None = None,
) -> DrawResult:
    """Embed a layer's samples, starting from and aligned to the step before, and draw them.

    The first embedding of a layer starts from that of the layer before it, so that panels side by side are aligned,
    too. Vectors that are as they were, of the input say, are not embedded again.

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
        memory: of the previous step: its points, the extent of its page, and how they were found.
        before: the memory of the layer before.
    """
    memory = memory or {}
    projected = (f"random projection to {vectors.shape[1]:,}",) if vectors.shape[1] != dimension else ()
    if not np.isfinite(vectors).all():
        return DrawResult(
            (_nothing(tag, layer, step, int((~np.isfinite(vectors).all(1)).sum()), len(vectors)),),
            memory=memory or None,
        )
    digest = hashlib.sha256(np.ascontiguousarray(vectors).tobytes())
    digest.update(repr((perplexity, engine, seed, None if labels is None else labels.tolist())).encode())
    known = memory.get("digest") == digest.hexdigest()
    scores = reduce(vectors, seed=seed) if full or projector or not known else vectors
    if known:
        found = _Embedded(Embedding(memory["points"], **memory["embedding"]), memory["start"], memory["numbers"])
    else:
        options = {"perplexity": perplexity, "seed": seed, "engine": engine}
        found = _embed(scores, labels, memory, before or {}, options)
    embedding, numbers = found.embedding, found.numbers
    points = _unit_radius(embedding.points)
    limits = extent(points, memory.get("extent"))
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
            details=(*projected, *found.words()),
            notes=_notes(embedding, len(vectors), perplexity, memory.get("embedding", {}).get("engine")),
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
        memory={
            **memory,
            "points": embedding.points,
            "extent": limits,
            "embedding": {key: value for key, value in asdict(embedding).items() if key != "points"},
            "start": found.start,
            "numbers": numbers,
            "layer": layer,
            "digest": digest.hexdigest(),
        },
        projection=_projection(tag, scores, labels, class_names, images) if projector else None,
    )


@dataclass(frozen=True)
class _Embedded:
    """An embedding of a layer, the layer whose points it began with at its first step (empty: none), its measures."""

    embedding: Embedding
    start: str
    numbers: dict[str, Any]

    def words(self) -> tuple[str, ...]:
        """How it was found, for the caption."""
        if self.embedding.engine is None:
            return ()
        engine = {"opentsne": "openTSNE", "sklearn": "scikit-learn"}[self.embedding.engine]
        return (f"by {engine}, begun at the points of {self.start}" if self.start else f"by {engine}, begun cold",)


def _embed(
    scores: NDArray[Any],
    labels: NDArray[np.int64] | None,
    memory: Mapping[str, Any],
    before: Mapping[str, Any],
    options: Mapping[str, Any],
) -> _Embedded:
    """Of the step before if there was one; else of the layer before, unless a cold start is more trustworthy."""
    start = memory.get("points")
    name = memory.get("start", "")
    if start is None and before.get("points") is not None and len(before["points"]) == len(scores):
        start, name = before["points"], str(before["layer"])
    embedding = tsne(scores, previous=start, **options)
    trust = trustworthiness(scores, embedding.points)
    if "points" not in memory and start is not None and embedding.warm and trust is not None:
        least = max(_TRUSTED, (before["numbers"]["trustworthiness"] or 0.0) - _LESS_TRUSTED)
        if trust < least:
            cold = tsne(scores, **options)
            embedding, name = replace(cold, points=procrustes(cold.points, start)), ""
            trust = trustworthiness(scores, embedding.points)
    accuracy = knn_accuracy(scores, labels, seed=options["seed"])
    return _Embedded(embedding, name if embedding.engine else "", {"knn_accuracy": accuracy, "trustworthiness": trust})


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
        known = labels >= 0
        groups = [labels[known & (clusters == cluster)] for cluster in np.unique(clusters[known])]
        majority = sum(np.bincount(group).max() for group in groups)
        grouped += f" ({majority / max(1, known.sum()):.0%} pure)"
    panels = [("t-SNE", embedding.points), (f"PCA ({kept:.0%} of variance)", plane), (grouped, embedding.points)]
    by_panel = {grouped: clusters}
    return embedding_panels(f"{tag}/compare", panels, **caption, **names, details=projected, clusters=by_panel)


def _unit_radius(points: NDArray[Any]) -> NDArray[Any]:
    """The embedding at a root mean square radius of 1: t-SNE's unit means nothing, yet its clouds grow and shrink."""
    centered = points - points.mean(0)
    radius = float(np.sqrt((centered**2).sum(1).mean()))
    return np.asarray(centered / radius if radius > 0 else centered)


def _notes(embedding: Embedding, count: int, perplexity: float, earlier: str | None) -> tuple[str, ...]:
    notes = []
    if earlier is not None and embedding.engine not in (None, earlier):
        notes.append(f"earlier steps were embedded by {earlier}")
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
        names = (known[label] if 0 <= label < len(known) else str(label) for label in labels.tolist())
        metadata = "\n".join(map(plain_text, names)).encode()
    image, side = (None, 0) if images is None else _sprite(images.tobytes(), images.shape)
    return Projection(tag, rows.encode(), metadata, image, side)


@lru_cache(maxsize=1)
def _sprite(pixels: bytes, shape: tuple[int, ...]) -> tuple[bytes, int]:
    """The sprite of samples, which are the same at every step."""
    return sprite(np.frombuffer(pixels, np.uint8).reshape(shape))


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
