"""``lightning-viz filters``: layers' weights as images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor, nn

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.output import CommandResult
from lightning_viz.callbacks.probe import shown
from lightning_viz.cli.function_options import Behind, Method, Written, method_parser, run_alone
from lightning_viz.errors import AnalysisError
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.parameters import filter_images, first_layer, is_transposed
from lightning_viz.render.filters import filter_table
from lightning_viz.render.filters import filters as filter_page
from lightning_viz.render.page import Page


def layer_filters(
    model: nn.Module,
    layers: Layers | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    per_filter: bool = False,
    as_rgb: bool = True,
    step: int = 0,
) -> tuple[dict[str, Tensor], Iterator[Page]]:
    """Weights as images: the filters of convolutions, and of fully connected layers in the shape of their input.

    Args:
        model: whose weights are shown.
        layers: one or more, by name or pattern; the first convolution, else fully connected layer, if omitted.
        shape: of the model's input.
        per_filter: scale each filter by itself rather than the layer as a whole.
        as_rgb: kernels over three channels as color images; else each channel by itself.
        step: completed updates, for the captions.

    Returns:
        By layer the filters ``[K, C, h, w]``, and their pictures: of a layer whose filters have many channels also
        a table of kernels.

    Raises:
        AnalysisError: there are no such filters.
    """
    name = first_layer(model) if layers is None else layers
    if name is None:
        raise AnalysisError("the model has no convolution and no fully connected layer: name layers with --layers")
    found: dict[str, Tensor] = {}
    for one, module in select_layers(model, name).items():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() < 2:
            raise AnalysisError(f"layer {one!r} has no filters: name a convolution or fully connected layer")
        weight = weight.detach().float().cpu()
        found[one] = filter_images(weight.transpose(0, 1) if is_transposed(module) else weight, shape=shape)

    def pictures() -> Iterator[Page]:
        for one, images in found.items():
            drawn: dict[str, Any] = {"layer": one, "step": step}
            yield filter_page(f"filters/{one}", images.numpy(), **drawn, per_filter=per_filter, as_rgb=as_rgb)
            if images.shape[1] > 3:
                yield filter_table(f"filters/{one}/table", images.numpy(), **drawn)

    return found, pictures()


def shown_filters(subject: ModelUnderStudy, arguments: Mapping[str, Any]) -> CommandResult:
    """Layers' weights as images, and their numbers.

    Args:
        subject: with the model.
        arguments: of `layer_filters`, by keyword.
    """
    shape = tuple(shown(subject.samples.inputs).shape[1:])
    found, pictures = layer_filters(subject.model, shape=shape, step=subject.step, **arguments)
    rows = [
        {
            "layer": layer,
            "filter": number,
            "norm": one.norm(),
            "least": one.amin(),
            "most": one.amax(),
            "mean": one.mean(),
        }
        for layer, weights in found.items()
        for number, one in enumerate(torch.unbind(weights))
    ]
    shapes = {layer: list(weights.shape) for layer, weights in found.items()}
    return CommandResult(pictures, {"shapes": shapes}, {"filters": rows}, {"weights": found})


METHOD = Method(
    (
        Behind(
            layer_filters,
            frozenset({"shape", "step"}),
            {
                "layers": Written(
                    str,
                    several=True,
                    meant=lambda value, subject: value and (value[0] if len(value) == 1 else list(value)),
                )
            },
        ),
    ),
    shown_filters,
    "Weights as images: the filters of the first convolution, or of other layers",
    example="--layers conv1",
)


def parser() -> ArgumentParser:
    """Its arguments."""
    return method_parser("filters", "", METHOD)


def run(options: Namespace) -> None:
    """Show the filters.

    Args:
        options: parsed.
    """
    run_alone("filters", METHOD, options)
