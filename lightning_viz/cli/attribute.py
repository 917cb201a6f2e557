"""``lightning-viz attribute``: what in the input mattered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from torch import Tensor

from lightning_viz import attribution
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.output import CommandResult
from lightning_viz.attribution.occlusion import OcclusionMaps, grid_of
from lightning_viz.catalogue import method, methods
from lightning_viz.cli.function_options import Behind, Method, parser_of, run_method
from lightning_viz.cli.parsing import COVERING, WRITTEN, Explained, explained
from lightning_viz.cli.samples import images_of, rows_of
from lightning_viz.render.attribution_sheets import MOST_SAMPLES, occlusion_maps
from lightning_viz.render.heatmaps import class_columns, heat_overlays, saliency_maps
from lightning_viz.render.page import Page

_INPUT = "input"


def attributed(name: str, subject: ModelUnderStudy, arguments: Mapping[str, Any]) -> CommandResult:
    """Maps of what mattered in each sample.

    Args:
        name: of the method, as it is called in `lightning_viz.attribution`.
        subject: with model and samples.
        arguments: of the method, by keyword.
    """
    function: Callable[..., Any] = getattr(attribution, name)
    images = images_of(subject)
    found = function(subject.model, images, **arguments)
    maps = {layer: each.detach().float().cpu() for layer, each in _by_layer(found).items()}
    some = explained(subject, arguments["target"])
    columns = dict(some.columns)
    for layer, each in maps.items():
        flat = each.flatten(-3) if each.dim() == 4 else each.transpose(0, 1).flatten(1)
        columns |= {
            f"{layer}: {what}": getattr(flat, reduction)(1)
            for what, reduction in (("least", "amin"), ("most", "amax"), ("sum", "sum"))
        }
    occluded = found if isinstance(found, OcclusionMaps) else None
    pictures = _pictures(name, subject, some, maps, occluded, arguments)
    numbers = {
        "method": name,
        "explained": some.words,
        "shapes": {layer: list(each.shape) for layer, each in maps.items()},
    }
    return CommandResult(pictures, numbers, {"samples": rows_of(subject, columns)}, {"maps": _arrays(maps, occluded)})


def _by_layer(found: Any) -> dict[str, Tensor]:
    """Whatever a method returns, by layer; towards the input under a name of its own."""
    if isinstance(found, OcclusionMaps):
        return {_INPUT: found.heat}
    return found if isinstance(found, dict) else {_INPUT: found}


def _arrays(maps: Mapping[str, Tensor], occluded: OcclusionMaps | None) -> dict[str, Tensor]:
    more = (
        {}
        if occluded is None
        else {"drop": occluded.drop, "predicted": occluded.predicted, "activity": occluded.activity}
    )
    return {**maps, **{name: one for name, one in more.items() if one is not None}}


def _pictures(
    name: str,
    subject: ModelUnderStudy,
    some: Explained,
    maps: Mapping[str, Tensor],
    occluded: OcclusionMaps | None,
    arguments: Mapping[str, Any],
) -> Iterator[Page]:
    """A page for each layer."""
    images = subject.rgb(images_of(subject))
    described = method(name)
    title, display, unit = described.title, described.display, described.unit
    common: dict[str, Any] = {"step": subject.step, "verdicts": some.verdicts}
    for layer, each in maps.items():
        seen = "" if layer == _INPUT else layer
        if each.dim() == 5:
            options: dict[str, Any] = {
                "names": some.names,
                "method": title,
                "display": display,
                "layer": seen,
                "unit": unit,
            }
            yield class_columns(f"maps/{layer}", images, each.numpy(), **options, **common)
        elif described.display == "heat":
            heat = each[:, 0].numpy()
            yield heat_overlays(f"maps/{layer}", images, heat, layer=layer, target=some.words, method=title, **common)
        else:
            details = [f"at {seen}"] if seen else []
            single: dict[str, Any] = {
                "method": title,
                "target": some.words,
                "display": display,
                "unit": unit,
                "details": details,
            }
            yield saliency_maps(f"maps/{layer}", images, each.numpy(), **single, **common)
    if occluded is not None and occluded.drop.dim() == 3 and occluded.predicted is not None:
        yield _occlusion(subject, some, occluded, arguments)


def _occlusion(subject: ModelUnderStudy, some: Explained, found: OcclusionMaps, arguments: Mapping[str, Any]) -> Page:
    """What covering each patch did."""
    images = images_of(subject)
    grid = grid_of(images.shape[2:], arguments["patch"], arguments["stride"])
    outputs, predicted = subject.outputs(1), found.predicted
    assert outputs is not None and predicted is not None
    activity = found.activity
    return occlusion_maps(
        "occlusion",
        subject.rgb(images)[:MOST_SAMPLES],
        found.drop[:MOST_SAMPLES].float().cpu().numpy(),
        predicted[:MOST_SAMPLES].cpu().numpy(),
        activity=None if activity is None else activity[:MOST_SAMPLES].float().cpu().numpy(),
        feature="the feature",
        class_names=subject.samples.class_names,
        classes=outputs.shape[1],
        step=subject.step,
        target=some.words,
        patch=grid.patch,
        positions=grid.positions,
        verdicts=some.verdicts[:MOST_SAMPLES],
    )


METHODS = {
    name: Method(
        (
            Behind(
                getattr(attribution, name),
                frozenset({"reshape_transform"}),
                COVERING if name == "occlusion" else WRITTEN,
            ),
        ),
        partial(attributed, name),
        samples=8,
        example="--target 3",
    )
    for name in methods("attribution")
}
"""By name."""


def parser() -> ArgumentParser:
    """Its arguments, by method."""
    return parser_of(
        "attribute",
        "Show what in the input mattered: a map for each sample, as pictures and unnormalized in maps.npz.\n"
        "Each method has the options of the function behind it.",
        METHODS,
    )


def run(options: Namespace) -> None:
    """Attribute.

    Args:
        options: parsed.
    """
    run_method("attribute", METHODS, options)
