"""The pages of one layer's embedding, and its vectors for TensorBoard's projector. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.callbacks.draw_task import Projection
from lightning_viz.embedding import Embedding, extent, kmeans
from lightning_viz.plain_text import plain_text
from lightning_viz.render.colors import name_of
from lightning_viz.render.embedding import embedding_panels, scatter
from lightning_viz.render.layer_panels import unit_radius
from lightning_viz.render.layout import INNER_WIDTH
from lightning_viz.render.page import Page, Picture, compose
from lightning_viz.render.parts import PlotExtent, Tile
from lightning_viz.render.point_cloud import turning_points
from lightning_viz.render.sample_images import grid, sprite, thumbnails
from lightning_viz.render.text import number, percent

PAGES = ("scatter", "thumbnails", "grid", "comparison", "turning")
"""What can be drawn of a layer alone: points, images at their places or on a grid, PCA and k-means beside t-SNE, and
points in three dimensions that turn."""
ENGINES = {"opentsne": "openTSNE", "sklearn": "scikit-learn"}
"""Of t-SNE, by the names that options have."""

_BEFORE = "at the step before"
_CLUSTERS = 10  # of k-means, where the classes are not known


@dataclass(frozen=True)
class FixedView:
    """What is seen of the plane, the same over a run as long as the points lie within.

    Attributes:
        extent: (x0, x1, y0, y1).
        fixed: step since which it is the same.
        wider: whether it is wider than at the step before.
    """

    extent: PlotExtent
    fixed: int
    wider: bool

    @classmethod
    def of(cls, points: NDArray[Any], step: int, memory: Mapping[str, Any] | None) -> FixedView:
        """The view of the step before, widened if it has become too narrow.

        Args:
            points: as they are shown ``[N, 2]``.
            step: completed updates.
            memory: of the step before, in which the view's own fields stand; None or without them at the first.
        """
        before = (memory or {}).get("extent")
        limits = extent(points, before)
        if memory is not None and limits == before:
            return cls(limits, memory["fixed"], False)
        return cls(limits, step, before is not None)


@dataclass(frozen=True)
class EmbeddedLayer:
    """A layer's embedding at a step, and what its pages say of it.

    Attributes:
        layer: name.
        dimension: of the layer.
        step: completed updates.
        embedding: its points, and how they were found.
        points: the same, as they are shown ``[N, 2]``.
        view: what is seen of them.
        plane: the samples in the plane of the first two principal components ``[N, 2]``, for a comparison; or None.
        plane_view: what is seen of it; or None.
        space: the samples in three dimensions ``[N, 3]``, for an animation; or None.
        start: name of the layer whose points the first embedding began with; empty: none.
        numbers: k-NN accuracy and trustworthiness; None where they have no meaning.
        labels: class indices ``[N]``, or None.
        class_names: by class index; None for the indices.
        projected: dimensions of the random projection that was embedded; None: of the layer.
        perplexity: of t-SNE, as asked for.
        earlier_engine: of the step before, or None.
        mistaken: samples whose class the model does not predict ``[N]``, or None.
    """

    layer: str
    dimension: int
    step: int
    embedding: Embedding
    points: NDArray[Any]
    view: FixedView
    plane: NDArray[Any] | None
    plane_view: FixedView | None
    space: NDArray[Any] | None
    start: str
    numbers: dict[str, float | None]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None
    projected: int | None
    perplexity: float
    earlier_engine: str | None
    mistaken: NDArray[np.bool_] | None

    @property
    def caption(self) -> dict[str, Any]:
        """What every page takes."""
        return {"layer": self.layer, "step": self.step, "labels": self.labels, "dimension": self.dimension}

    @property
    def reduction(self) -> tuple[str, ...]:
        """What was embedded in place of the layer's own vectors, for the caption."""
        return () if self.projected is None else (f"random projection to {self.projected:,}",)

    @property
    def details(self) -> tuple[str, ...]:
        """How it was found, for the caption."""
        if self.embedding.engine is None:
            return (*self.reduction, views_text(self.view))
        engine = ENGINES[self.embedding.engine]
        begun = f"at the points of {self.start}" if self.start else "cold"
        return (*self.reduction, views_text(self.view), f"by {engine}, begun {begun}")

    @property
    def wider(self) -> tuple[str, ...]:
        """That its view has changed, for the caption."""
        return (f"wider view than {_BEFORE}",) if self.view.wider else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual about it, for the caption."""
        notes, embedding, count = list(self.wider), self.embedding, len(self.points)
        if self.earlier_engine is not None and embedding.engine not in (None, self.earlier_engine):
            notes.append(f"earlier steps were embedded by {ENGINES[self.earlier_engine]}")
        if embedding.method == "constant":
            notes.append("all samples are the same in this layer")
        elif embedding.method == "PCA":
            notes.append(f"only {count} samples: PCA instead of t-SNE")
        elif embedding.perplexity is not None and embedding.perplexity < self.perplexity:
            notes.append(
                f"only {count} samples: perplexity {number(embedding.perplexity)} instead of {number(self.perplexity)}"
            )
        return tuple(notes)


def layer_page(
    kind: str, tag: str, shown: EmbeddedLayer, scores: NDArray[Any], images: NDArray[np.uint8] | None, seed: int
) -> Page | Picture | None:
    """A page of a layer; None of samples that are no images, where it would show them.

    Args:
        kind: of `PAGES`.
        tag: of the layer.
        shown: its embedding.
        scores: its vectors, reduced by PCA.
        images: of the samples ``[N, H, W, 3]``, or None.
        seed: of everything random.
    """
    if kind == "scatter":
        method: Any = "PCA" if shown.embedding.method == "PCA" else "t-SNE"
        options: dict[str, Any] = {"extent": shown.view.extent, "method": method, "class_names": shown.class_names}
        about = {**shown.caption, **shown.numbers, "details": shown.details, "notes": shown.notes}
        return scatter(tag, shown.points, **options, **about)
    if kind == "comparison":
        return _comparison(f"{tag}/comparison", shown, scores, seed)
    if kind == "turning":
        assert shown.space is not None
        method = "PCA" if shown.embedding.method == "PCA" else "t-SNE"
        about = {**shown.caption, "class_names": shown.class_names, "details": shown.reduction}
        return turning_points(f"{tag}/turning", shown.space, method=method, **about)
    if images is None:
        return None
    if kind == "grid":
        return grid(f"{tag}/grid", shown.points, images, **shown.caption)
    about = {**shown.caption, "extent": shown.view.extent, "mistaken": shown.mistaken, "notes": shown.wider}
    about["details"] = [views_text(shown.view)]
    return thumbnails(f"{tag}/thumbnails", shown.points, images, **about)


def _comparison(tag: str, shown: EmbeddedLayer, scores: NDArray[Any], seed: int) -> Page:
    """t-SNE, PCA and k-means side by side."""
    assert shown.plane is not None and shown.plane_view is not None
    labels, points, plane = shown.labels, shown.points, unit_radius(shown.plane)
    clusters = kmeans(
        scores, clusters=_CLUSTERS if labels is None else len(np.unique(labels)), labels=labels, seed=seed
    )
    kept = float(shown.plane.var(0).sum() / max(scores.var(0).sum(), np.finfo(np.float32).tiny))
    grouped = "k-means"
    if labels is not None:
        known = labels >= 0
        groups = [labels[known & (clusters == cluster)] for cluster in np.unique(clusters[known])]
        majority = sum(np.bincount(group).max() for group in groups)
        grouped += f" ({percent(majority / max(1, known.sum()))} % pure)"
    tsne, principal = shown.view, shown.plane_view
    panels = [
        ("t-SNE", points, tsne.extent),
        (f"PCA ({percent(kept)} % of variance)", plane, principal.extent),
        (grouped, points, tsne.extent),
    ]
    wider = [name for name, view in (("t-SNE", tsne), ("PCA", principal)) if view.wider]
    names: dict[str, Any] = {"class_names": shown.class_names, "clusters": {grouped: clusters}}
    return embedding_panels(
        tag,
        panels,
        **shown.caption,
        **names,
        details=(*shown.reduction, views_text(tsne, principal)),
        notes=[f"wider view of {' and '.join(wider)} than {_BEFORE}"] if wider else [],
    )


def views_text(*views: FixedView) -> str:
    """Since when nothing has moved but the points, for the caption.

    Args:
        views: of a page.
    """
    return f"view{'s' * (len(views) > 1)} fixed since step {max(view.fixed for view in views):,}"


def no_page(tag: str, layer: str, step: int, flaw: str) -> Page:
    """A page that says why there is nothing to see.

    Args:
        tag: of the layer.
        layer: name.
        step: completed updates.
        flaw: in words.
    """
    nothing = Tile((INNER_WIDTH, 400), flaw=flaw, layer=layer)
    return compose(
        tag, f"t-SNE of {layer}", nothing, sentence="There is nothing to embed.", warnings=(flaw,), step=step
    )


def projection(
    tag: str,
    vectors: NDArray[Any],
    labels: NDArray[np.int64] | None,
    class_names: tuple[str, ...] | None,
    images: NDArray[np.uint8] | None,
    predictions: Mapping[str, NDArray[Any]] | None = None,
) -> Projection:
    """The vectors as TensorBoard's projector takes them: tab-separated text, a sprite of thumbnails, tinted by class.

    Args:
        tag: of the layer.
        vectors: ``[N, D]``.
        labels: class indices ``[N]``, or None.
        class_names: by class index; None for the indices.
        images: of the samples ``[N, H, W, 3]``, or None.
        predictions: ``classes`` that the model predicts and its ``confidence`` ``[N]``; None where that is not known.
    """
    rows = "\n".join("\t".join(f"{value:.6g}" for value in row) for row in vectors.tolist())
    image, side = (None, 0)
    if images is not None:
        image, side = _sprite(images.tobytes(), images.shape, None if labels is None else tuple(labels.tolist()))
    return Projection(tag, rows.encode(), _metadata(labels, class_names, predictions), image, side)


def _metadata(
    labels: NDArray[np.int64] | None,
    class_names: tuple[str, ...] | None,
    predictions: Mapping[str, NDArray[Any]] | None,
) -> bytes | None:
    """A row for each sample: its true class, or under a head line also what is predicted of it."""
    columns: dict[str, list[str]] = {}
    if labels is not None:
        columns["true"] = [plain_text(name_of(label, class_names)) for label in labels.tolist()]
    if predictions is not None:
        classes = predictions["classes"]
        columns["predicted"] = [plain_text(name_of(label, class_names)) for label in classes.tolist()]
        if labels is not None:
            right = ["right" if same else "wrong" for same in (labels == classes).tolist()]
            columns["result"] = ["" if label < 0 else word for label, word in zip(labels.tolist(), right, strict=True)]
        columns["confidence"] = [f"{value:.3f}" for value in predictions["confidence"].tolist()]
    if not columns:
        return None
    lines = ["\t".join(row) for row in zip(*columns.values(), strict=True)]
    head = ["\t".join(columns)] if len(columns) > 1 else []  # of one column the projector takes no head
    return "\n".join([*head, *lines]).encode()


@lru_cache(maxsize=1)
def _sprite(pixels: bytes, shape: tuple[int, ...], labels: tuple[int, ...] | None) -> tuple[bytes, int]:
    """The sprite of samples, which are the same at every step."""
    return sprite(np.frombuffer(pixels, np.uint8).reshape(shape), None if labels is None else np.array(labels))
