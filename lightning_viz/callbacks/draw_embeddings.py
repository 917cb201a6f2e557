"""Embeddings that go on from step to step and from layer to layer, and the card of all layers. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.callbacks.draw_task import DrawResult
from lightning_viz.callbacks.layer_pages import ENGINES, EmbeddedLayer, FixedView, layer_page, no_page, projection
from lightning_viz.embedding import FEWEST, Embedding, knn_accuracy, pca, procrustes, reduce, trustworthiness, tsne
from lightning_viz.render.animation import thin
from lightning_viz.render.layer_panels import SAME, LayerPanel, layer_panels, unit_radius
from lightning_viz.render.text import fixed_point, number

_TRUSTED = 0.9  # trustworthiness below which a start from the layer before is given up
_LESS_TRUSTED = 0.05  # ... or so far below that layer's
_KEPT = 32  # steps of which the accuracies are kept


def draw_layer(
    tag: str,
    vectors: NDArray[np.float32],
    *,
    layer: str,
    dimension: int,
    step: int,
    labels: NDArray[np.int64] | None,
    class_names: tuple[str, ...] | None,
    images: NDArray[np.uint8] | None,
    pages: Sequence[str],
    projector: bool,
    perplexity: float,
    engine: str,
    seed: int,
    predictions: Mapping[str, NDArray[Any]] | None = None,
    memory: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
) -> DrawResult:
    """Embed a layer's samples, starting from and aligned to the step before, and draw the pages that are asked for.

    The first embedding of a layer starts from that of the layer before it, so that panels side by side are aligned,
    too. Vectors that are as they were, of the input say, are not embedded again.

    Args:
        tag: of the pages and numbers.
        vectors: one row per sample ``[N, D]``, projected if the layer is larger.
        layer: name, for the captions.
        dimension: of the layer itself.
        step: completed updates.
        labels: class indices ``[N]``, or None.
        class_names: by class index; None for the indices.
        images: of the samples ``[N, H, W, 3]``, for thumbnails; None where the inputs are no images.
        pages: of this layer alone, of `layer_pages.PAGES`.
        projector: also the vectors for TensorBoard's projector.
        perplexity: of t-SNE.
        engine: of t-SNE.
        seed: of everything random.
        predictions: ``classes`` that the model predicts and its ``confidence`` ``[N]``; None where that is not known.
        memory: of the previous step: its points, their extent, and how they were found.
        before: the memory of the layer before.
    """
    memory = memory or {}
    if flaw := flaw_of(vectors):
        return DrawResult((no_page(tag, layer, step, flaw),) if pages else (), memory=memory or None)
    options = {"perplexity": perplexity, "seed": seed, "engine": engine}
    scores, found = _embedded(vectors, labels, memory, before or {}, options, reduced=projector, pages=pages)
    points = unit_radius(found["points"])
    view = FixedView.of(points, step, memory)
    if "plane" in found:
        found["plane_view"] = asdict(FixedView.of(unit_radius(found["plane"]), step, memory.get("plane_view")))
    shown = EmbeddedLayer(
        layer=layer,
        dimension=dimension,
        step=step,
        embedding=Embedding(found["points"], **found["embedding"]),
        points=points,
        view=view,
        plane=found.get("plane"),
        space=found.get("space"),
        plane_view=FixedView(**found["plane_view"]) if "plane_view" in found else None,
        start=found["start"],
        numbers=found["numbers"],
        labels=labels,
        class_names=class_names,
        projected=vectors.shape[1] if vectors.shape[1] != dimension else None,
        perplexity=perplexity,
        earlier_engine=memory.get("embedding", {}).get("engine"),
        mistaken=None if labels is None or predictions is None else (labels != predictions["classes"]) & (labels >= 0),
    )
    plotted = ("knn_accuracy", "trustworthiness") if pages else ("knn_accuracy",)
    drawn = [layer_page(kind, tag, shown, scores, images, seed) for kind in pages]
    projected = [(tag, scores)] if projector else []
    if projector and shown.space is not None:
        projected.append((f"{tag}/turning", shown.space))
    return DrawResult(
        [page for page in drawn if page is not None],
        {f"{tag}/{name}": value for name, value in found["numbers"].items() if name in plotted and value is not None},
        memory={
            **memory,
            **found,
            **asdict(view),
            "engines": (memory.get("embedding", {}).get("engine"), found["embedding"]["engine"]),
            "layer": layer,
            "step": step,
        },
        projections=[projection(name, values, labels, class_names, images, predictions) for name, values in projected],
    )


def draw_layers(
    tag: str,
    layers: Sequence[tuple[str, int, str]],
    *,
    step: int,
    labels: NDArray[np.int64] | None,
    class_names: tuple[str, ...] | None,
    left_out: Sequence[str],
    perplexity: float,
    memory: Mapping[str, Any] | None = None,
    collected: Sequence[Mapping[str, Any] | None] = (),
) -> DrawResult:
    """Draw all layers' samples side by side, as `draw_layer` has embedded them.

    Args:
        tag: of the card.
        layers: in their order, of each its name, its dimension, and why there is nothing to see of it, if so.
        step: completed updates.
        labels: class indices ``[N]``, or None.
        class_names: by class index; None for the indices.
        left_out: names of layers that have no panel.
        perplexity: of t-SNE, as asked for.
        memory: of the previous step: the accuracies of the steps before.
        collected: of each layer, what `draw_layer` remembers.
    """
    of_step = [kept if kept is not None and kept["step"] == step else None for kept in collected]
    panels = [_panel(*layer, kept) for layer, kept in zip(layers, of_step, strict=True)]
    past = [entry for entry in (memory or {}).get("history", ()) if entry[0] < step]
    found = [kept for kept in of_step if kept is not None]
    page = layer_panels(
        tag,
        panels,
        labels=labels,
        class_names=class_names,
        method="PCA" if _methods(found) == {"PCA"} else "t-SNE",
        left_out=left_out,
        history=past,
        curves=labels is not None and len(labels) >= FEWEST,
        step=step,
        details=_details(found, perplexity),
        notes=(*_flaws(panels), *_notes(found)),
    )
    history = [*past, (step, [panel.knn_accuracy for panel in panels])]
    kept_steps = thin([at for at, _ in history], most=_KEPT)
    return DrawResult((page,), memory={"history": [history[place] for place in kept_steps]})


def flaw_of(vectors: NDArray[Any]) -> str:
    """Why vectors cannot be embedded, in words; nothing if they can.

    Args:
        vectors: ``[N, D]``.
    """
    broken = int((~np.isfinite(vectors).all(1)).sum())
    return f"NaN or infinity in {broken:,} of {len(vectors):,} samples" if broken else ""


def _embedded(
    vectors: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    memory: Mapping[str, Any],
    before: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    reduced: bool,
    pages: Sequence[str],
) -> tuple[NDArray[Any], dict[str, Any]]:
    """The vectors, reduced by PCA where that is asked for or needed, and their embedding: the known one if it holds."""
    digest = hashlib.sha256(np.ascontiguousarray(vectors).tobytes())
    digest.update(repr((*options.values(), None if labels is None else labels.tolist())).encode())
    known = memory.get("digest") == digest.hexdigest()
    scores = (
        reduce(vectors, seed=options["seed"])
        if reduced or not known or {"comparison", "turning"}.intersection(pages)
        else vectors
    )
    if known:
        found = {name: memory[name] for name in ("points", "embedding", "start", "numbers")}
    else:
        found = _embed(scores, labels, memory, before, options)
    if "turning" in pages:
        space = memory.get("space")
        fresh = space is None or not known
        found["space"] = tsne(scores, previous=space, dimensions=3, **options).points if fresh else space
    if "comparison" in pages:
        found["plane"] = pca(scores, previous=memory.get("plane"), seed=options["seed"]).points
    return scores, {**found, "digest": digest.hexdigest()}


def _embed(
    scores: NDArray[Any],
    labels: NDArray[np.int64] | None,
    memory: Mapping[str, Any],
    before: Mapping[str, Any],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """From the step before if there was one; else from the layer before, unless a cold start is more trustworthy."""
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
    return {
        "points": embedding.points,
        "embedding": {key: value for key, value in asdict(embedding).items() if key != "points"},
        "start": name if embedding.engine else "",
        "numbers": {
            "knn_accuracy": knn_accuracy(scores, labels, seed=options["seed"]),
            "trustworthiness": trust,
        },
    }


def _panel(layer: str, dimension: int, flaw: str, kept: Mapping[str, Any] | None) -> LayerPanel:
    if flaw or kept is None:
        return LayerPanel(layer, dimension, flaw=flaw or "not drawn")
    accuracy = kept["numbers"]["knn_accuracy"] if len(kept["points"]) >= FEWEST else None  # of few it says nothing
    if kept["embedding"]["method"] == "constant":
        return LayerPanel(layer, dimension, kept["points"], kept["extent"], accuracy, SAME)
    return LayerPanel(layer, dimension, unit_radius(kept["points"]), kept["extent"], accuracy)


def _methods(found: Sequence[Mapping[str, Any]]) -> set[str]:
    return {kept["embedding"]["method"] for kept in found} - {"constant"}


def _details(found: Sequence[Mapping[str, Any]], perplexity: float) -> tuple[str, ...]:
    """How the points were found, in items of which only numbers change from step to step."""
    embedded = [kept for kept in found if kept["embedding"]["engine"] is not None]
    words: list[str] = []
    if embedded:
        engine, reached = embedded[0]["embedding"]["engine"], embedded[0]["embedding"]["perplexity"]
        cold = [kept["layer"] for kept in embedded[1:] if not kept["start"]]
        words.append(f"t-SNE by {ENGINES[engine]}" + (f", begun cold in {', '.join(cold)}" if cold else ""))
        words.append(f"perplexity {number(reached)}, for few samples" if reached < perplexity else "")
    elif found and _methods(found):
        words.append("PCA, as samples are few for t-SNE")
    trust = [kept["numbers"]["trustworthiness"] for kept in found]
    known = [value for value in trust if value is not None]
    if known:
        words.append(f"trustworthiness {fixed_point(int(100 * min(known)) / 100)} or more")
    if found:
        words.append(f"views fixed since step {max(kept['fixed'] for kept in found):,}")
    return tuple(words)


def _flaws(panels: Sequence[LayerPanel]) -> tuple[str, ...]:
    """Of which layers there is nothing to see, and why."""
    flaws = dict.fromkeys(panel.flaw for panel in panels if panel.flaw)
    return tuple(f"{', '.join(panel.layer for panel in panels if panel.flaw == flaw)}: {flaw}" for flaw in flaws)


def _notes(found: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What has changed since the step before."""
    wider = [kept["layer"] for kept in found if kept["wider"]]
    earlier = {kept["engines"][0] for kept in found if kept["engines"][0] not in (None, kept["engines"][1])}
    notes = [f"wider view of {', '.join(wider)} than at the step before"] if wider else []
    return (*notes, *(f"earlier steps were embedded by {ENGINES[engine]}" for engine in sorted(earlier)))
