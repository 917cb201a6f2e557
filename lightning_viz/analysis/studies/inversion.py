"""Inversion: images reconstructed from the activations of layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from lightning_viz.analysis.model_under_study import ModelUnderStudy, to_display
from lightning_viz.analysis.results import Output
from lightning_viz.analysis.studies.dreams import animation, percentage
from lightning_viz.costs import PASSES, Cost, Facts, costing
from lightning_viz.dream.inversion import Inversion, invert
from lightning_viz.dream.regularization import alpha_norm, total_variation
from lightning_viz.errors import AnalysisError, LayerNotReachedError
from lightning_viz.hooks.layers import named_layers, select_layers
from lightning_viz.render.dreams import dream_table
from lightning_viz.render.page import Page, Picture

_LAYERS = 5  # that an analysis inverts
_COSTS = (1e-3, 3e-3)  # of the originals' own R_alpha and R_V in an analysis
_MOST = 8  # samples on a page


def invert_layers(
    study: ModelUnderStudy,
    options: Mapping[str, Any] | None = None,
    *,
    layer: Sequence[str] | None = None,
    penalties: tuple[float, float] | None = None,
    count: int = _LAYERS,
) -> Output:
    """Inversion: images reconstructed from a layer's activations alone, for each layer a row.

    Args:
        study: the model and its samples.
        options: of `lightning_viz.dream.invert`, by keyword.
        layer: one or more; if omitted some from the first to the last, of which those that fail are left out.
        penalties: weights of R_alpha and R_V; found for each layer if omitted.
        count: of the layers that are chosen (5).

    Raises:
        AnalysisError: no layer can be inverted.
        LayerNotFoundError: there is no such layer.
    """
    images, inversions, left_out = study.require_images(), dict[str, Inversion](), dict[str, str]()
    for name in _spread_layers(study.model, count) if layer is None else layer:
        try:
            inversions[name] = invert(
                study.model, images, name, weights=penalties, **study.settings(invert), **(options or {})
            )
        except (ValueError, TypeError, LayerNotReachedError) as error:
            if layer is not None:
                raise
            left_out[name] = str(error)
    if not inversions:
        raise AnalysisError(f"no layer can be inverted: {'; '.join(left_out.values()) or 'the model has none'}")
    errors = {name: inversion.pixel_errors.mean(1).cpu() for name, inversion in inversions.items()}

    def pictures() -> Iterator[Page | Picture]:
        shown = images[:_MOST]
        rows = [to_display(inversion.pixels[: len(shown), 0]) for inversion in inversions.values()]
        words = [[percentage(error, "{:.0%}") for error in each[: len(shown)].tolist()] for each in errors.values()]
        yield dream_table(
            "inversion",
            np.stack([study.rgb(shown), *rows]),
            title="What each layer still represents of an image",
            rows=["the image", *inversions],
            words=[[""] * len(shown), *words],
            details=["images with the layer's activations of the first row", "under each: distance to it, of its norm"],
            reading="Each row is one layer: images optimized from noise until the layer's output is that of the first "
            "row. What is lost in them the layer no longer represents.",
            notes=[f"cannot be inverted: {', '.join(left_out)}"] if left_out else [],
        )
        for name, inversion in inversions.items():
            dream, seeds = inversion.dream, inversion.pixel_errors.shape[1]
            names = [f"sample {place // seeds}" for place in range(len(dream.names))]
            yield from animation(dream, f"Inversion of {name}", names, name)

    numbers = {
        name: {"error": errors[name].mean(), "errors": errors[name], "feature_error": inversion.feature_errors.mean()}
        for name, inversion in inversions.items()
    }
    columns = {f"pixel_error/{name}": each for name, each in errors.items()}
    columns |= {f"feature_error/{name}": each.feature_errors.mean(1) for name, each in inversions.items()}
    layers = [
        {
            "layer": name,
            "diversity": inversion.diversity.mean(),
            "weight_alpha": inversion.weights[0],
            "weight_total_variation": inversion.weights[1],
            "sigma": inversion.sigma,
        }
        for name, inversion in inversions.items()
    ]
    tables = {"samples": study.sample_rows(columns), "layers": layers}
    arrays = {"images": {name: inversion.pixels for name, inversion in inversions.items()}}
    distances = [f"{name} {percentage(float(error.mean()), '{:.0%}')}" for name, error in errors.items()]
    found = f"distance of the inversions to the images, of their norm: {', '.join(distances)}"
    return Output("inversions", pictures(), numbers, tables, arrays, found)


def _inversions_cost(facts: Facts, *, samples: int, layers: int, steps: int) -> Cost:
    return Cost(PASSES * min(samples, facts.samples) * layers * steps, pages=1)


@costing(_inversions_cost)
def inversions(
    study: ModelUnderStudy, *, samples: int = 6, layers: int = _LAYERS, steps: int = 200
) -> Iterator[Output]:
    """Inversions of layers of a classifier, whose penalties weigh alike so that they compare, for an analysis."""
    study.first(_MOST).predictions()
    few = study.first(samples)
    images = few.require_images()
    originals = few.pixel_space.into(images.float(), few.pixel_space.centered())
    sigma = originals.flatten(1).norm(dim=1).mean().item()
    if not sigma:
        raise AnalysisError("the samples are uniformly gray: there is nothing to reconstruct")
    least = torch.finfo(originals.dtype).tiny  # of images without edges
    costs = (alpha_norm(originals / sigma).mean(), total_variation(originals / sigma).mean())
    alpha, variation = (share / max(cost.item(), least) for share, cost in zip(_COSTS, costs, strict=True))
    options = {"seeds": 1, "sigma": sigma, "steps": steps, "frames": 0}
    yield invert_layers(few, options, penalties=(alpha, variation), count=layers)


def _spread_layers(model: nn.Module, most: int = _LAYERS) -> Sequence[str]:
    """Layers from the first to the last: convolutions and fully connected ones, or blocks if these are few."""
    every: list[Any] = [nn.Conv2d, nn.Linear]
    kinds = [kind for kind in every if any(isinstance(module, kind) for module in model.modules())]
    order = list(named_layers(model))
    layers = sorted(select_layers(model, kinds), key=order.index) if kinds else []
    layers = layers or list(select_layers(model, "blocks"))
    places = np.linspace(0, len(layers) - 1, min(most, len(layers))).round().astype(int)
    return [layers[place] for place in places]
