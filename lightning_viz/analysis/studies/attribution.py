"""Attribution: what in the input matters, by one method or by all of them, with numbers that tell which to trust."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.results import Output
from lightning_viz.attribution.attention_maps import attended_tokens
from lightning_viz.attribution.evaluation import Attribute, deletion, insertion, model_randomization
from lightning_viz.attribution.occlusion import OcclusionMaps, grid_of
from lightning_viz.callbacks.sanity_check import SANITY_KEY
from lightning_viz.catalogue import method as described
from lightning_viz.catalogue import methods
from lightning_viz.catalogue_types import Method
from lightning_viz.costs import Cost, Facts, costing
from lightning_viz.errors import AnalysisError, InterceptionError, LayerNotFoundError, LayerNotReachedError
from lightning_viz.hooks.feature_maps import feature_count
from lightning_viz.hooks.layers import attends, select_layers
from lightning_viz.hooks.observe import resolve_target
from lightning_viz.hooks.target_types import ClassTarget, SideBySide, Target
from lightning_viz.hooks.targets import parse_target, target_list, target_unit
from lightning_viz.render.attribution_maps import (
    MOST_SAMPLES,
    MOST_TARGETS,
    MethodMaps,
    attribution_maps,
    class_columns,
    method_sheet,
)
from lightning_viz.render.occlusion import occlusion_maps
from lightning_viz.render.page import Page
from lightning_viz.render.text import fixed_point
from lightning_viz.render.tiles import EVIDENCE

SHOWN = 6
CHANCE = "a random order"
"""What a method must beat."""

_INPUT = "input"
_STEPS = 16  # of a curve


def attribute(
    study: ModelUnderStudy,
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    target: str | Sequence[str] = "predicted",
) -> Output:
    """An attribution method on the samples: a map for each, as pictures and as it is.

    Args:
        study: the model and its samples.
        method: of the family ``"attribution"`` in `lightning_viz.catalogue`.
        options: of its function in `lightning_viz.attribution`, by keyword.
        target: what to explain: predicted; label, each sample's true class; 3 or class:ox; top:3; something inside,
            conv2[7] or max(conv2); several classes, or of what is inside, side by side.

    Raises:
        UnsuitableModelError: the model does not take one image, or true classes are not known.
        InvalidArgumentError: no such target, or options that the method refuses.
    """
    images, options = study.require_images(), dict(options or {})
    entry = _smoothed(described(method), options)
    function, chosen = entry.load(), target_of(study, target)
    given = study.settings(function)
    if "batch_size" in inspect.signature(function).parameters:
        given["batch_size"] = study.batch_size(options.get("batch_size"))
    result = function(study.model, images, chosen, **{**options, **given})
    maps = {layer: each.detach().float().cpu() for layer, each in _by_layer(result).items()}
    fixed = resolve_target(study.model, images, chosen)
    indices = fixed.index if isinstance(fixed, ClassTarget) and isinstance(fixed.index, Tensor) else None
    classes = None if indices is None else indices.cpu().view(-1, indices.shape[-1]).expand(-1, len(images))
    columns = _columns(study, maps, classes)
    explained = described_target(study, chosen) if "target" in entry.needs else ""
    tokens = attended_tokens(study.model, images[:1]) if "attention" in entry.needs and not explained else {}
    occluded = result if isinstance(result, OcclusionMaps) else None

    def pictures() -> Iterator[Page]:
        about = {"target": explained, "step": study.step, "verdicts": _verdicts(study)}
        for layer, each in maps.items():
            shared = tokens.get(layer, next(iter(tokens.values()), None))  # of rollout all layers have the same
            yield from _map_pages(study, entry, layer, each, fixed, about, shared)
        if occluded is not None and occluded.drop.dim() == 3 and occluded.predicted is not None:
            yield _occlusion_page(study, occluded, options, about)

    arrays = dict(maps)
    if occluded is not None:
        more = {"drop": occluded.drop, "predicted": occluded.predicted, "activity": occluded.activity}
        arrays |= {name: each for name, each in more.items() if each is not None}
    numbers = {
        "method": method,
        "explained": explained or "whatever the class",
        "shapes": {layer: list(each.shape) for layer, each in maps.items()},
    }
    empty = sum(int((each.flatten(1) == 0).all(1).sum()) for each in maps.values())
    of = f" of {explained}" if explained else ", whatever the class"
    found = f"{entry.title}{of}: {len(images)} samples, maps of {', '.join(maps)}"
    found += f"; {empty} maps are zero everywhere" if empty else ""
    return Output("attributions", pictures(), numbers, {"samples": study.sample_rows(columns)}, {"maps": arrays}, found)


def _attributions_cost(facts: Facts, *, samples: int, copies: int, every_channel: bool) -> Cost:
    side = min(facts.sides, default=7)
    patch = max(1, round(side / 7))
    amounts = {"noise_samples": copies, "steps": copies, "masks": 5 * copies, "channels": facts.channels}
    amounts["positions"] = math.prod(grid_of(facts.sides, patch, max(1, patch // 2)).positions) if facts.sides else 0
    chosen = [
        entry
        for entry in methods("attribution").values()
        if entry.display
        and (every_channel or entry.cost != "channels")
        and (facts.attends or "attention" not in entry.needs)
        and (facts.channels or "maps" not in entry.needs)
    ]
    curves = 2 * (_STEPS + 1)  # deletion and insertion
    once = sum(2 * entry.passes(**amounts) + curves for entry in chosen) + curves
    return Cost(min(samples, facts.samples) * once, pages=2)


@costing(_attributions_cost)
def every_attribution(
    study: ModelUnderStudy, *, samples: int = 16, copies: int = 50, every_channel: bool = True
) -> Iterator[Output]:
    """Every attribution method side by side, and which to trust (tags ``attributions/sheet``, ``attributions/layer``).

    Explained is the predicted class of a classifier of images. Of each method is measured how much its maps resemble
    those of the same model with random weights, and how the probability of the class changes as places are deleted or
    inserted in the map's order.
    """
    few = study.first(samples)
    targets = few.predictions()[0].to(few.require_images().device)
    left_out = _unsuited(few, every_channel)
    places = torch.zeros(len(targets), 1, *few.require_images().shape[2:])  # all alike: chance makes the order
    chance: dict[str, float | None] = {"model_randomization": None, **_areas(few, targets, places)}
    measured, pages = {CHANCE: chance}, dict[bool, list[MethodMaps]]()
    for name, entry in methods("attribution").items():
        if name in left_out or not entry.display or ("attention" in entry.needs and not attends(few.model)):
            continue
        try:
            maps, measured[entry.title] = _measured(few, entry, targets, copies)
        except (ValueError, InterceptionError, LayerNotReachedError) as error:
            left_out[name] = str(error)
            continue
        row = MethodMaps(entry.title, maps, entry.display, _words(measured[entry.title]))
        pages.setdefault(_of_layers(entry), []).append(row)
    if not pages:
        raise AnalysisError(f"no method attributes: {'; '.join(dict.fromkeys(left_out.values()))}")
    sheets = [
        _sheet(few, rows, chance, layered, [described(name) for name in left_out])
        for layered, rows in sorted(pages.items())
    ]
    yield Output("attributions", sheets, measured)
    yield Output("attributions left out", (), {described(name).title: why for name, why in left_out.items()})


def maps_of(result: Any) -> Tensor:
    """Whatever a method returns, as maps ``[N, C, h, w]``.

    Args:
        result: a tensor, maps by layer, of which the first is taken, or those of occlusion.
    """
    return next(iter(_by_layer(result).values())).detach().float().cpu()


def _by_layer(result: Any) -> dict[str, Tensor]:
    """Whatever a method returns, by layer; toward the input under a name of its own."""
    if isinstance(result, OcclusionMaps):
        return {_INPUT: result.heat}
    return result if isinstance(result, dict) else {_INPUT: result}


def _smoothed(entry: Method, options: Mapping[str, Any]) -> Method:
    """A method over noisy copies, described by the method whose maps it takes, and by the statistic of them."""
    if "of" not in options:
        return entry
    of, squares = described(options["of"]), options.get("statistic", "mean") != "mean"
    title = {"squared": "SmoothGrad-Squared", "variance": "VarGrad"}.get(options.get("statistic", ""), entry.title)
    title += f" of {of.title[0].lower()}{of.title[1:]}" if of.name != "gradient" else ""
    display, unit = ("sum", "") if squares else (of.display, of.unit)
    return replace(entry, title=title, display=display, unit=unit)


def target_of(study: ModelUnderStudy, words: str | Sequence[str]) -> Target:
    """What is explained, of its words."""
    names = study.samples.class_names
    listed = [words] if isinstance(words, str) else list(words)
    if len(listed) > 1:
        return target_list(listed, names)
    target = parse_target(listed[0], model=study.model, class_names=names)
    return target.bind(study.true_classes() if listed[0].strip() == "label" else None, names)


def described_target(study: ModelUnderStudy, target: Target) -> str:
    """What is explained, in words."""
    if not isinstance(target, ClassTarget):
        return target.name
    if target.count is not None or (isinstance(target.index, Tensor) and target.index.dim() == 2):
        return "several classes"
    if target.index is None:
        return "each sample's predicted class"
    return f"class {study.samples.name(target.index)}" if isinstance(target.index, int) else "each sample's true class"


def _verdicts(study: ModelUnderStudy) -> Sequence[Any]:
    """What stands under the samples; nothing if the model does not classify."""
    return study.verdicts(*study.predictions()) if study.classifies else []


def _columns(study: ModelUnderStudy, maps: Mapping[str, Tensor], classes: Tensor | None) -> dict[str, Tensor]:
    """What was measured of each sample."""
    columns: dict[str, Tensor] = {}
    if study.classifies:
        columns["predicted"], columns["confidence"] = study.predictions()
    for place, each in enumerate([] if classes is None else classes):
        columns["target" if classes is not None and len(classes) == 1 else f"target {place}"] = each
    for layer, each in maps.items():
        flat = each.flatten(-3) if each.dim() == 4 else each.transpose(0, 1).flatten(1)
        reductions = (("least", "amin"), ("most", "amax"), ("sum", "sum"))
        columns |= {f"{layer}: {what}": getattr(flat, reduction)(1) for what, reduction in reductions}
    return columns


def _map_pages(
    study: ModelUnderStudy,
    entry: Method,
    layer: str,
    maps: Tensor,
    target: Target,
    about: Mapping[str, Any],
    tokens: int | None,
) -> Iterator[Page]:
    """The maps of one layer, of attention that is shared among so many tokens; of several targets a page for nine."""
    images, tag, seen = study.rgb(study.require_images()), f"maps/{layer}", "" if layer == _INPUT else layer
    how: dict[str, Any] = {"method": entry.title, "display": entry.display, "layer": seen}
    how["unit"] = target_unit(target, entry.unit)
    if maps.dim() == 5:
        several = {name: value for name, value in about.items() if name != "target"}
        names, of = _column_names(study, target, len(images))
        for first in range(0, len(maps), MOST_TARGETS):
            some = slice(first, first + MOST_TARGETS)
            page = f"{tag}/{first + 1}" if first else tag
            yield class_columns(
                page, images, maps[some].numpy(), names=names[some], of=of, first=first, count=len(maps),
                details=[entry.worth], **how, **several,
            )  # fmt: skip
        return
    heat = entry.display in EVIDENCE
    details = [entry.worth, *([f"at {seen}"] if seen and not heat else [])]
    how["layer"] = seen if heat else ""
    yield attribution_maps(tag, images, maps.numpy(), details=details, tokens=tokens, **how, **about)


def _column_names(study: ModelUnderStudy, target: Target, samples: int) -> tuple[list[list[str]], str]:
    """Of several targets each one's name for each sample, and what they are."""
    if isinstance(target, ClassTarget) and target.index is not None:
        table = torch.as_tensor(target.index).cpu()
        classes = table.expand(len(table), samples).tolist()
        return [[study.samples.name(index) for index in row] for row in classes], "classes"
    parts = target.parts if isinstance(target, SideBySide) else (target,)
    return [[described_target(study, part)] * samples for part in parts], "targets"


def _occlusion_page(
    study: ModelUnderStudy, maps: OcclusionMaps, options: Mapping[str, Any], about: Mapping[str, Any]
) -> Page:
    """What covering each patch did."""
    images = study.require_images()
    grid = grid_of(images.shape[2:], options.get("patch"), options.get("stride"))
    predicted, activity = maps.predicted, maps.activity
    assert predicted is not None
    return occlusion_maps(
        "occlusion",
        study.rgb(images)[:MOST_SAMPLES],
        maps.drop[:MOST_SAMPLES].float().cpu().numpy(),
        predicted[:MOST_SAMPLES].cpu().numpy(),
        uncovered=study.predictions()[0][:MOST_SAMPLES].cpu().numpy() if study.classifies else None,
        activity=None if activity is None else activity[:MOST_SAMPLES].float().cpu().numpy(),
        feature="the feature",
        class_names=study.samples.class_names,
        classes=study.classes,
        patch=grid.patch,
        positions=grid.positions,
        **{**about, "verdicts": about["verdicts"][:MOST_SAMPLES]},
    )


def _unsuited(study: ModelUnderStudy, every_channel: bool) -> dict[str, str]:
    """Methods that the model has no layers for, or that take a pass for each channel and are not to, and why."""
    layered = {name: entry for name, entry in methods("attribution").items() if "maps" in entry.needs}
    try:
        layers = select_layers(study.model, "last_maps")
    except LayerNotFoundError as error:
        return {name: str(error) for name in layered}
    channels = next((feature_count(layer) for layer in layers.values()), None) or 1
    if every_channel:
        return {}
    why = f"its {channels:,} passes of each sample take longer than planned"
    return {name: why for name, entry in layered.items() if entry.cost == "channels"}


def _bound(study: ModelUnderStudy, entry: Method, copies: int) -> Attribute:
    """A method with the options that it takes: alike on every machine, and without a bar."""
    images, function = study.require_images(), entry.load()
    patch = max(1, round(min(images.shape[2:]) / 7))
    options = {"batch_size": study.batch_size(), "progress": False, "seed": study.seed}
    options |= {
        "noise_samples": copies,
        "steps": copies,
        "masks": 5 * copies,
        "patch": patch,
        "stride": max(1, patch // 2),
    }
    parameters = inspect.signature(function).parameters
    return partial(function, **{name: value for name, value in options.items() if name in parameters})


def _measured(
    study: ModelUnderStudy, entry: Method, targets: Tensor, copies: int
) -> tuple[Any, dict[str, float | None]]:
    """A method's maps of the samples shown, and its numbers."""
    function, images = _bound(study, entry, copies), study.require_images()
    result = function(study.model, images, targets)
    similarity = model_randomization(
        function, study.model, images, targets, layers=(), seed=study.seed, original=result
    ).score
    return maps_of(result)[:SHOWN].numpy(), {"model_randomization": similarity, **_areas(study, targets, result)}


def _areas(study: ModelUnderStudy, targets: Tensor, result: Any) -> dict[str, float | None]:
    """Means of the areas under the curves of deletion and insertion."""
    options: dict[str, Any] = {"steps": _STEPS, "seed": study.seed, "batch_size": study.batch_size(), "progress": False}
    checked = (study.model, study.require_images(), targets)
    curves = {check.__name__: check(lambda *_: result, *checked, **options) for check in (deletion, insertion)}
    return {name: float(curve.areas.mean()) for name, curve in curves.items()}


def _sheet(
    study: ModelUnderStudy,
    rows: Sequence[MethodMaps],
    chance: Mapping[str, float | None],
    layered: bool,
    left_out: Sequence[Method],
) -> Page:
    """The methods seen from a layer, or those toward the pixels, side by side."""
    absent = [entry.title for entry in left_out if _of_layers(entry) == layered]
    return method_sheet(
        "attributions/layer" if layered else "attributions/sheet",
        study.rgb(study.require_images()[:SHOWN]),
        rows,
        title="Attribution methods, " + ("seen from the last layer with maps" if layered else "toward the pixels"),
        target="the predicted class's logit",
        key=["random net: near 1 is bad", "del.: less is better", "ins.: more is better"],
        step=study.step,
        verdicts=_verdicts(study)[:SHOWN],
        details=[
            f"numbers: means of {len(study.samples)} samples",
            f"in {CHANCE}: del. {_rounded(chance['deletion'])}, ins. {_rounded(chance['insertion'])}",
        ],
        reading="random net: rank correlation with the maps of the same network with random weights; "
        f"{SANITY_KEY}. Deletion and insertion: mean probability of the class as "
        "places are deleted, or inserted, in the map's order; of deletion less is better, of insertion more.",
        notes=[f"left out: {', '.join(absent)}"] if absent else [],
    )


def _of_layers(entry: Method) -> bool:
    """Whether a method sees places of a layer, not pixels."""
    return not {"maps", "attention"}.isdisjoint(entry.needs)


def _words(measured: Mapping[str, float | None]) -> list[str]:
    return [
        f"random net {_rounded(measured['model_randomization'])}",
        f"del. {_rounded(measured['deletion'])}, ins. {_rounded(measured['insertion'])}",
    ]


def _rounded(value: float | None) -> str:
    return "–" if value is None else fixed_point(value)
