"""Embeddings: samples in the plane, by a layer's outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.activations.random_projection import vectorizer
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.results import Output
from lightning_viz.catalogue import method as described
from lightning_viz.embedding import FEWEST, Embedding, extent, knn_accuracy, procrustes, trustworthiness
from lightning_viz.errors import UnsuitableModelError
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.observe import observe_batches
from lightning_viz.hooks.pytree import on_device
from lightning_viz.render.embedding import scatter
from lightning_viz.render.layer_panels import SAME, LayerPanel, evenly_chosen, layer_panels, unit_radius
from lightning_viz.render.page import Page
from lightning_viz.render.sample_images import grid, thumbnails
from lightning_viz.render.text import fixed_point


def embed(
    study: ModelUnderStudy,
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    layers: str | Sequence[str] = "blocks",
) -> Output:
    """Embeddings of layers' outputs, side by side if they are several, else one large, with images too.

    Images of the samples stand at their places, on a second page on a grid, each in a cell of its own.

    Of more than 4,096 dimensions a random projection is embedded.

    Args:
        study: the model and its samples.
        method: of the family ``"embedding"`` in `lightning_viz.catalogue`.
        options: of its function in `lightning_viz.embedding`, by keyword.
        layers: one or more, by name or pattern; blocks means every top-level one.

    Raises:
        UnsuitableModelError: the model has no such layers.
        InvalidArgumentError: options that the method refuses.
    """
    vectors = _vectors(study, layers)
    function = described(method).load()
    embeddings = {name: function(array, seed=study.seed, **(options or {})) for name, array in vectors.items()}
    labels = None if study.samples.labels is None else study.samples.labels.numpy()
    measured: dict[str, dict[str, Any]] = {
        name: {
            "knn_accuracy": knn_accuracy(vectors[name], labels, seed=study.seed),
            "trustworthiness": trustworthiness(vectors[name], embedding.points),
        }
        for name, embedding in embeddings.items()
    }

    def pictures() -> Iterator[Page]:
        if len(embeddings) > 1:
            yield _card(vectors, embeddings, measured, labels, study.samples.class_names or None, study.step)
        else:
            for name, embedding in embeddings.items():
                yield from _pages(study, name, embedding, vectors[name].shape[1], measured[name], labels)

    numbers = {
        "layers": {
            name: {key: value for key, value in vars(embedding).items() if key not in ("points", "warm")}
            | measured[name]
            for name, embedding in embeddings.items()
        }
    }
    tables = {
        f"points.{name}": study.sample_rows(dict(zip("xyz", embedding.points.T, strict=False)))
        for name, embedding in embeddings.items()
    }
    scores = [
        f"{name} {fixed_point(each['knn_accuracy'])}"
        for name, each in measured.items()
        if each["knn_accuracy"] is not None
    ]
    unknown = f"{len(study.samples)} samples, whose classes are not known"
    found = f"k-NN accuracy: {', '.join(scores)}" if scores else unknown
    return Output("embeddings", pictures(), numbers, tables, found=found)


def _vectors(study: ModelUnderStudy, layers: str | Sequence[str]) -> dict[str, NDArray[Any]]:
    """By layer its outputs for all samples, ``[N, D]``."""
    count = len(study.samples)
    batches = (on_device(study.model, batch) for batch in study.samples.batches(0, count))
    reduce = {name: vectorizer(seed=study.seed) for name in select_layers(study.model, layers)}
    outputs = observe_batches(study.model, batches, count=count, reduce=reduce)
    if not outputs:
        raise UnsuitableModelError(f"{study.name} has no such layers to embed: name them with layers")
    return {name: of_layer.numpy() for name, of_layer in outputs.items()}


def _pages(
    study: ModelUnderStudy,
    layer: str,
    embedding: Embedding,
    dimension: int,
    measured: Mapping[str, Any],
    labels: NDArray[Any] | None,
) -> Iterator[Page]:
    """One layer's points, and the samples as images at their places and on a grid."""
    plane = np.asarray(embedding.points[:, :2])
    about: dict[str, Any] = {"layer": layer, "step": study.step, "labels": labels, "dimension": dimension}
    about |= {"method": "PCA" if embedding.method == "PCA" else "t-SNE"}
    room = extent(plane)
    names = study.samples.class_names or None
    shown: dict[str, Any] = {"class_names": names, "extent": room, "details": _details(embedding)}
    yield scatter(f"embedding/{layer}", plane, **shown, **measured, **about)
    if study.images is not None:
        images = study.rgb(study.images)
        yield thumbnails(f"embedding/{layer}/thumbnails", plane, images, extent=room, **about)
        yield grid(f"embedding/{layer}/grid", plane, images, **about)


def _card(
    vectors: Mapping[str, NDArray[Any]],
    embeddings: Mapping[str, Embedding],
    measured: Mapping[str, Mapping[str, Any]],
    labels: NDArray[Any] | None,
    names: tuple[str, ...] | None,
    step: int | None,
) -> Page:
    """All layers side by side, each turned and mirrored so that its samples stand where those of the one before do."""
    layers = list(embeddings)
    chosen = [layers[place] for place in evenly_chosen(len(layers))]
    panels: list[LayerPanel] = []
    before: NDArray[Any] | None = None
    for layer in chosen:
        points = unit_radius(np.asarray(embeddings[layer].points[:, :2]))
        before = points if before is None else procrustes(points, before)
        accuracy = measured[layer]["knn_accuracy"]
        flaw = SAME if embeddings[layer].method == "constant" else ""
        panels.append(LayerPanel(layer, vectors[layer].shape[1], before, extent(before), accuracy, flaw))
    some = embeddings[layers[0]]
    return layer_panels(
        "embedding/every_layer",
        panels,
        labels=labels,
        class_names=names,
        method="PCA" if some.method == "PCA" else "t-SNE",
        left_out=[layer for layer in layers if layer not in chosen],
        step=step,
        details=_details(some),
    )


def _details(embedding: Embedding) -> tuple[str, ...]:
    """What was done, for the caption."""
    few = embedding.method == "PCA" and len(embedding.points) < FEWEST
    return (
        embedding.method if embedding.method != "constant" else "",
        f"fewer than {FEWEST} samples" if few else "",
        "" if embedding.points.shape[1] == 2 else "the first two of three dimensions",
    )
