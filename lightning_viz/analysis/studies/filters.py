"""Filters: layers' weights as images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.results import Output
from lightning_viz.callbacks.probe import displayed_input
from lightning_viz.errors import UnsuitableModelError
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.map_shapes import flattened_maps
from lightning_viz.parameters import filter_images, first_layer, is_transposed
from lightning_viz.render.page import Page
from lightning_viz.render.weights import filter_table
from lightning_viz.render.weights import filters as filter_page


def layer_filters(
    study: ModelUnderStudy, *, layers: str | Sequence[str] | None = None, per_filter: bool = False, as_rgb: bool = True
) -> Output:
    """Filters: the weights of convolutions, and of fully connected layers in the shape of their input, as images.

    Args:
        study: the model and its samples.
        layers: one or more, by name or pattern; the first convolution, else fully connected layer, if omitted.
        per_filter: scale the colors of each filter by itself rather than of the layer as a whole.
        as_rgb: show kernels over three channels as color images rather than channel by channel.

    Raises:
        UnsuitableModelError: the model or the layer has no filters.
    """
    chosen = first_layer(study.model) if layers is None else layers
    if chosen is None:
        raise UnsuitableModelError(f"{study.name} has no convolution or fully connected layer: name others with layers")
    shape = tuple(displayed_input(study.samples.inputs).shape[1:]) if len(study.samples) else None
    filters: dict[str, Tensor] = {}
    layers_chosen = select_layers(study.model, chosen)
    maps = flattened_maps(study.model, study.samples.inputs, layers_chosen) if len(study.samples) else {}
    for name, module in layers_chosen.items():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() < 2:
            raise UnsuitableModelError(f"layer {name!r} has no filters: name a convolution or fully connected layer")
        weight = weight.detach().float().cpu()
        weight = weight.transpose(0, 1) if is_transposed(module) else weight
        filters[name] = filter_images(weight, shape=maps.get(name, shape))

    def pictures() -> Iterator[Page]:
        for name, images in filters.items():
            about: dict[str, Any] = {"layer": name, "step": study.step}
            yield filter_page(f"filters/{name}", images.numpy(), **about, per_filter=per_filter, as_rgb=as_rgb)
            if images.shape[1] > 3:
                yield filter_table(f"filters/{name}/table", images.numpy(), **about)

    rows = [
        {
            "layer": name,
            "filter": number,
            "norm": weights.norm(),
            "least": weights.amin(),
            "most": weights.amax(),
            "mean": weights.mean(),
        }
        for name, images in filters.items()
        for number, weights in enumerate(torch.unbind(images))
    ]
    shapes = {name: list(images.shape) for name, images in filters.items()}
    found = ", ".join(
        f"{name}: {len(images)} filters of {' x '.join(map(str, images.shape[1:]))}" for name, images in filters.items()
    )
    return Output("filters", pictures(), {"shapes": shapes}, {"filters": rows}, {"weights": filters}, found)
