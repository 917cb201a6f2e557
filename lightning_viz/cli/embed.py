"""``lightning-viz embed``: samples in the plane, by what a layer makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser, Namespace
from numpy.typing import NDArray
from torch import Tensor

from lightning_viz.activations.random_projection import vectorizer
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.output import CommandResult
from lightning_viz.cli.function_options import Behind, Method, Written, parser_of, run_method
from lightning_viz.cli.samples import sample_rows
from lightning_viz.embedding import Embedding, extent, knn_accuracy, pca, trustworthiness, tsne
from lightning_viz.errors import AnalysisError
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.observe import observe_batches
from lightning_viz.hooks.pytree import on_device
from lightning_viz.render.embedding import scatter, thumbnails
from lightning_viz.render.page import Page


def layer_vectors(
    model: Any, batches: Any, *, count: int, layers: Layers = "blocks", seed: int = 0
) -> dict[str, Tensor]:
    """What layers make of samples, one vector each; of more than 4,096 dimensions a random projection.

    Args:
        model: that is looked at.
        batches: of its inputs.
        count: of samples.
        layers: one or more, by name or pattern; blocks: every top-level one.
        seed: of the projection.
    """
    names = select_layers(model, layers)
    return observe_batches(model, batches, count=count, reduce={name: vectorizer(seed=seed) for name in names})


def embedded(
    method: Callable[..., Embedding], subject: ModelUnderStudy, looking: Mapping[str, Any], arguments: Mapping[str, Any]
) -> CommandResult:
    """Layers' samples in the plane.

    Args:
        method: `tsne` or `pca`.
        subject: with model and samples.
        looking: of `layer_vectors`, by keyword.
        arguments: of the method, by keyword.
    """
    count = len(subject.samples)
    batches = (on_device(subject.model, batch) for batch in subject.samples.batches(0, count))
    vectors = {
        name: each.numpy() for name, each in layer_vectors(subject.model, batches, count=count, **looking).items()
    }
    if not vectors:
        raise AnalysisError(f"{subject.name} has no such layers to embed: name them with --layers")
    found = {name: method(each, **arguments) for name, each in vectors.items()}
    labels = None if subject.labels is None else subject.labels.numpy()
    measured = {name: _measured(vectors[name], one, labels, subject.seed) for name, one in found.items()}
    tables = {f"points.{name}": _rows(subject, one.points) for name, one in found.items()}
    numbers = {"layers": {name: {**_about(one), **measured[name]} for name, one in found.items()}}

    def pictures() -> Iterator[Page]:
        for name, one in found.items():
            yield from _pages(subject, name, vectors[name], one, measured[name], labels)

    return CommandResult(pictures(), numbers, tables)


def _measured(
    vectors: NDArray[Any], found: Embedding, labels: NDArray[Any] | None, seed: int
) -> dict[str, float | None]:
    """How far to believe an embedding."""
    return {
        "knn_accuracy": knn_accuracy(vectors, labels, seed=seed),
        "trustworthiness": trustworthiness(vectors, found.points),
    }


def _about(found: Embedding) -> dict[str, Any]:
    return {name: value for name, value in vars(found).items() if name not in ("points", "warm")}


def _rows(subject: ModelUnderStudy, points: NDArray[Any]) -> list[dict[str, Any]]:
    rows = sample_rows(subject, len(points))
    return [
        {**row, **dict(zip("xyz", map(float, place), strict=False))} for row, place in zip(rows, points, strict=True)
    ]


def _pages(
    subject: ModelUnderStudy,
    layer: str,
    vectors: NDArray[Any],
    found: Embedding,
    measured: Mapping[str, Any],
    labels: NDArray[Any] | None,
) -> Iterator[Page]:
    """Points in class colors, and thumbnails at their places."""
    plane = np.asarray(found.points[:, :2])
    common: dict[str, Any] = {
        "layer": layer,
        "step": subject.step,
        "labels": labels,
        "extent": extent(plane),
        "dimension": vectors.shape[1],
    }
    names = subject.samples.class_names or None
    flat = () if found.points.shape[1] == 2 else ("the first two of three dimensions",)
    method: Any = "PCA" if found.method == "PCA" else "t-SNE"
    yield scatter(f"embedding/{layer}", plane, class_names=names, method=method, details=flat, **measured, **common)
    if subject.images is not None:
        yield thumbnails(f"embedding/{layer}/thumbnails", plane, subject.rgb(subject.images), **common)


_LAYERS = Written(
    str,
    "one or more, by name or pattern; blocks: every top-level one",
    plain=lambda default: [default],
    several=True,
    meant=lambda value, subject: value[0] if len(value) == 1 else list(value),
)
_LOOKING = Behind(layer_vectors, frozenset({"batches", "count"}), {"layers": _LAYERS})

METHODS = {
    name: Method(
        (_LOOKING, Behind(method, frozenset({"vectors", "previous"}))),
        partial(embedded, method),
        summary,
        samples=1000,
        example="--layers fc",
    )
    for name, method, summary in (
        ("tsne", tsne, "Neighbors stay neighbors (van der Maaten and Hinton, 2008)"),
        ("pca", pca, "The first principal components"),
    )
}
"""By name."""


def parser() -> ArgumentParser:
    """Its arguments, by method."""
    return parser_of(
        "embed",
        "Place samples in the plane by what a layer makes of them: pictures, and the points.\n"
        "Each method has the options of the function behind it.",
        METHODS,
    )


def run(options: Namespace) -> None:
    """Embed the samples.

    Args:
        options: parsed.
    """
    run_method("embed", METHODS, options)
