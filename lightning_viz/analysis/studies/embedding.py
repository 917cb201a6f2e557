"""Embeddings: samples in the plane, by a layer's outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_viz.activations.random_projection import vectorizer
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.results import Output
from lightning_viz.catalogue import method as described
from lightning_viz.embedding import extent, knn_accuracy, trustworthiness
from lightning_viz.errors import UnsuitableModelError
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.observe import observe_batches
from lightning_viz.hooks.pytree import on_device
from lightning_viz.render.embedding import scatter, thumbnails
from lightning_viz.render.page import Page


def embed(
    study: ModelUnderStudy,
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    layers: str | Sequence[str] = "blocks",
) -> Output:
    """Embeddings of layers' outputs; of more than 4,096 dimensions a random projection is embedded.

    Args:
        study: the model and its samples.
        method: of the family ``"embedding"`` in `lightning_viz.catalogue`.
        options: of its function in `lightning_viz.embedding`, by keyword.
        layers: one or more, by name or pattern; blocks means every top-level one.

    Raises:
        UnsuitableModelError: the model has no such layers.
        InvalidArgumentError: options that the method refuses.
    """
    count = len(study.samples)
    batches = (on_device(study.model, batch) for batch in study.samples.batches(0, count))
    reduce = {name: vectorizer(seed=study.seed) for name in select_layers(study.model, layers)}
    outputs = observe_batches(study.model, batches, count=count, reduce=reduce)
    vectors = {name: of_layer.numpy() for name, of_layer in outputs.items()}
    if not vectors:
        raise UnsuitableModelError(f"{study.name} has no such layers to embed: name them with layers")
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
        for name, embedding in embeddings.items():
            plane, dimension = np.asarray(embedding.points[:, :2]), vectors[name].shape[1]
            about: dict[str, Any] = {"layer": name, "step": study.step, "labels": labels, "dimension": dimension}
            about["extent"] = extent(plane)
            names = study.samples.class_names or None
            details = () if embedding.points.shape[1] == 2 else ("the first two of three dimensions",)
            title: Any = "PCA" if embedding.method == "PCA" else "t-SNE"
            yield scatter(
                f"embedding/{name}", plane, class_names=names, method=title, details=details, **measured[name], **about
            )
            if study.images is not None:
                yield thumbnails(f"embedding/{name}/thumbnails", plane, study.rgb(study.images), **about)

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
        f"{name} {each['knn_accuracy']:.2f}" for name, each in measured.items() if each["knn_accuracy"] is not None
    ]
    found = f"k-NN accuracy: {', '.join(scores)}" if scores else f"{count} samples, whose classes are not known"
    return Output("embeddings", pictures(), numbers, tables, found=found)
