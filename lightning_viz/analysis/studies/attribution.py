"""Every attribution method on the same samples, with numbers that say which to believe."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from lightning_viz import attribution
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.studies.samples import Taken, affordable, batch_size, number, taken
from lightning_viz.analysis.technique import Found
from lightning_viz.attribution.evaluation import Attribute, deletion, insertion, model_randomization
from lightning_viz.errors import (
    AnalysisError,
    AttributionWarning,
    InterceptionError,
    LayerNotFoundError,
    LayerNotReachedError,
)
from lightning_viz.hooks.feature_maps import feature_count
from lightning_viz.hooks.layers import select_layers
from lightning_viz.render.attribution_sheets import MethodMaps, method_sheet

SHOWN = 6
CHANCE = "a random order"
"""What a method must beat."""

_STEPS = 16  # of a curve
_PASSES = 1200  # of a sample, under all methods and checks of them


@dataclass(frozen=True)
class Method:
    """An attribution method, as the sheet shows it.

    Attributes:
        attribute: called with model, inputs and target.
        display: one of `lightning_viz.render.heatmaps.DISPLAYS`.
        layered: seen from the last layer with maps, and not towards the pixels.
        many: takes many passes, in batches.
    """

    attribute: Attribute
    display: str
    layered: bool = False
    many: bool = False


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "gradient": Method(attribution.gradient, "sum"),
        "SmoothGrad": Method(attribution.smooth_grad, "sum", many=True),
        "input × gradient": Method(attribution.input_times_gradient, "signed"),
        "integrated gradients": Method(attribution.integrated_gradients, "signed", many=True),
        "deconvolution": Method(attribution.deconvolution, "image"),
        "guided backpropagation": Method(attribution.guided_backprop, "image"),
        "occlusion": Method(attribution.occlusion, "signed", many=True),
        "guided Grad-CAM": Method(attribution.guided_grad_cam, "image", layered=True),
        "Grad-CAM": Method(attribution.grad_cam, "heat", layered=True),
        "Grad-CAM++": Method(attribution.grad_cam_plus_plus, "heat", layered=True),
        "HiResCAM": Method(attribution.hires_cam, "heat", layered=True),
        "LayerCAM": Method(attribution.layer_cam, "heat", layered=True),
        "Score-CAM": Method(attribution.score_cam, "heat", layered=True, many=True),
        "EigenCAM": Method(attribution.eigen_cam, "heat", layered=True),
    }
)
"""All of them, by name."""


def every_attribution(subject: ModelUnderStudy) -> Iterator[Found]:
    """Every attribution method side by side, and whether to believe it (tags ``attributions/sheet``, ``/layer``).

    Explained is the class that the model says. Of each method is measured how much its maps resemble those of the same
    model with random weights, and what the class's probability does as places are deleted or inserted in its order.

    Args:
        subject: with a classifier of images.
    """
    few = taken(subject, affordable(subject, _PASSES, most=16, least=4))
    chosen, left_out = _suited(subject, few)
    measured = {CHANCE: _by_chance(subject, few)}
    pages: dict[bool, list[MethodMaps]] = {}
    for name, method in chosen.items():
        try:
            maps, measured[name] = _measured(subject, few, method)
        except (ValueError, InterceptionError, LayerNotReachedError) as error:
            left_out[name] = str(error)
            continue
        pages.setdefault(method.layered, []).append(MethodMaps(name, maps, method.display, _words(measured[name])))
    if not pages:
        raise AnalysisError(f"no method attributes: {'; '.join(dict.fromkeys(left_out.values()))}")
    yield "attributions", measured
    if left_out:
        yield "attributions left out", left_out
    chance = measured[CHANCE]
    for layered, methods in pages.items():
        absent = [name for name in left_out if METHODS[name].layered == layered]
        yield method_sheet(
            "attributions/layer" if layered else "attributions/sheet",
            subject.rgb(few.images[:SHOWN]),
            methods,
            title="Attribution methods, " + ("seen from the last layer with maps" if layered else "towards the pixels"),
            target="the predicted class's logit",
            key=["random net: 0 is best", "del.: less is better", "ins.: more is better"],
            step=subject.step,
            verdicts=few.verdicts(subject)[:SHOWN],
            details=[
                f"numbers: means of {len(few.images)} samples",
                f"in {CHANCE}: del. {_told(chance['deletion'])}, ins. {_told(chance['insertion'])}",
            ],
            reading="random net: rank correlation with the maps of the same network with random weights, 0 is best; "
            "near 1 the map does not show what was learned. Deletion and insertion: mean probability of the class as "
            "places are deleted, or inserted, in the map's order; of deletion less is better, of insertion more.",
            notes=[f"left out: {', '.join(absent)}"] if absent else [],
        )


def maps_of(found: Any) -> Tensor:
    """Whatever a method returns, as maps ``[N, C, h, w]``.

    Args:
        found: a tensor, a layer's map in a dict, or occlusion's result.
    """
    found = getattr(found, "heat", found)
    maps: Tensor = next(iter(found.values())) if isinstance(found, dict) else found
    return maps.detach().float().cpu()


def bound(subject: ModelUnderStudy, images: Tensor, method: Method) -> Attribute:
    """A method with its options: alike on every machine, and without a bar.

    Args:
        subject: whose model is run.
        images: to be explained.
        method: of the table.
    """
    if not method.many:
        return method.attribute
    options: dict[str, Any] = {"batch_size": batch_size(images), "progress": False}
    if method.attribute in (attribution.smooth_grad, attribution.integrated_gradients):
        copies = affordable(subject, 3 * 4 * len(images), most=50, least=20)
        noisy = method.attribute is attribution.smooth_grad
        options |= {"noise_samples": copies, "seed": subject.seed} if noisy else {"steps": copies}
    if method.attribute is attribution.occlusion:
        patch = max(1, round(min(images.shape[2:]) / 7))
        options |= {"patch": patch, "stride": max(1, patch // 2)}
    return partial(method.attribute, **options)


def _suited(subject: ModelUnderStudy, few: Taken) -> tuple[dict[str, Method], dict[str, str]]:
    """The methods that the model has the layers for, and why others are left out."""
    left_out: dict[str, str] = {}
    try:
        layers = select_layers(subject.model, "last_maps")
    except LayerNotFoundError as error:
        left_out = {name: str(error) for name, method in METHODS.items() if method.layered}
    else:
        channels = next((feature_count(layer) for layer in layers.values()), None) or 1
        if not affordable(subject, 2 * channels * len(few.images), most=1, least=0):
            left_out["Score-CAM"] = f"its {channels:,} passes of each sample would take too long"
    return {name: method for name, method in METHODS.items() if name not in left_out}, left_out


def _measured(subject: ModelUnderStudy, few: Taken, method: Method) -> tuple[Any, dict[str, float | None]]:
    """A method's maps of the samples shown, and its numbers."""
    model, images, said = subject.model, few.images, few.said
    attribute = bound(subject, images, method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttributionWarning)  # the picture says it
        found = attribute(model, images, said)
        same = model_randomization(attribute, model, images, said, layers=(), seed=subject.seed, original=found).score
        areas = _areas(subject, few, found)
    return maps_of(found)[:SHOWN].numpy(), {"model_randomization": number(same), **areas}


def _by_chance(subject: ModelUnderStudy, few: Taken) -> dict[str, float | None]:
    places = torch.zeros(len(few.images), 1, *few.images.shape[2:])  # all alike: chance makes the order
    return {"model_randomization": None, **_areas(subject, few, places)}


def _areas(subject: ModelUnderStudy, few: Taken, found: Any) -> dict[str, float | None]:
    """Means of the areas under the curves of deletion and insertion."""
    options: dict[str, Any] = {
        "steps": _STEPS,
        "seed": subject.seed,
        "batch_size": batch_size(few.images),
        "progress": False,
    }
    return {
        check.__name__: number(check(lambda *_: found, subject.model, few.images, few.said, **options).areas.mean())
        for check in (deletion, insertion)
    }


def _words(measured: Mapping[str, float | None]) -> list[str]:
    return [
        f"random net {_told(measured['model_randomization'])}",
        f"del. {_told(measured['deletion'])}, ins. {_told(measured['insertion'])}",
    ]


def _told(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 2) + 0:.2f}".replace("-", "−")
