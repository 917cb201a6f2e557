"""Attacks: samples, their adversarial counterparts, and the record of every step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Literal

from torch import Tensor

from lightning_viz.adversarial.attack_ensemble import AutoAttackResult
from lightning_viz.adversarial.norms import resolve_norm
from lightning_viz.adversarial.result import AttackResult, AttackTrace
from lightning_viz.adversarial.sign_image import FgsmTerms, fgsm_terms
from lightning_viz.analysis.model_under_study import ModelUnderStudy, to_display
from lightning_viz.analysis.results import Output
from lightning_viz.catalogue import method as described
from lightning_viz.costs import Cost, Facts, costing
from lightning_viz.render.attacks import pixel_gallery, record_table, sign_sums, twins
from lightning_viz.render.page import Page
from lightning_viz.render.text import number, percent
from lightning_viz.render.tiles import describe_channels

SAMPLES = 8
GRAY_LEVELS = (8, 16, 32, 64)
"""Epsilons of FGSM and PGD in an analysis, of 255: the first, usual for photographs, or the least that fools half."""


def attack(
    study: ModelUnderStudy,
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    labels: Literal["predicted", "true"] = "predicted",
    target: int | str | None = None,
) -> Output:
    """An attack on the samples: adversarial counterparts, and class, confidence and norms after every step.

    Args:
        study: a classifier of images within the range of pixels.
        method: of the family ``"attack"`` in `lightning_viz.catalogue`.
        options: of its function in `lightning_viz.adversarial`, by keyword.
        labels: the class to lead away from: the predicted or the true one.
        target: the class to lead to, 3 or class:ox; any other class if omitted.

    Raises:
        UnsuitableModelError: the model is not a classifier, the images are not pixels, or true labels are not known.
        InvalidArgumentError: options that the attack refuses.
    """
    result, options = _attacked(study, method, options, labels=labels, target=target), options or {}

    def pictures() -> Iterator[Page]:
        yield _counterparts(study, method, result, options)
        if method == "fgsm":
            yield _sums(study, _terms(study, options, labels=labels, target=target), "attacks/fgsm/sum")
        if len(result.record.classes) > 2:
            yield _record(study, f"attacks/{method}/record", result, described(method).title)

    numbers = {
        "success": result.success,
        "accuracy": result.accuracy,
        "median": _medians(result),
        "class_names": study.samples.class_names,
        **({"fooled_by": result.fooled_by} if isinstance(result, AutoAttackResult) else {}),
    }
    arrays = {
        "record": {field.name: getattr(result.record, field.name) for field in fields(AttackTrace)},
        "images": {"original": result.original, "attacked": result.pixels},
    }
    tables = {"samples": study.sample_rows(_columns(result)), "steps": _steps(study, result)}
    return Output("attacks", pictures(), numbers, tables, arrays, _found(study, method, result, options))


def _attacks_cost(facts: Facts, *, samples: int, steps: int, ascent: int) -> Cost:
    once = (
        described("deepfool").passes()
        + 2 * described("fgsm").passes()
        + described("gradient_ascent").passes(steps=ascent)
    )
    attacked = len(GRAY_LEVELS) * described("pgd").passes(steps=steps) + once
    return Cost(min(samples, facts.samples) * attacked, pages=5)


@costing(_attacks_cost)
def attacks(study: ModelUnderStudy, *, samples: int = SAMPLES, steps: int = 20, ascent: int = 100) -> Iterator[Output]:
    """The same samples under several attacks, and the record of a gradient ascent, as an analysis shows them.

    Attacks lead a classifier of images within the range of pixels away from the predicted class. Epsilon is doubled
    from 8 gray levels until PGD fools half of the samples.
    """
    few = study.first(samples)
    low, high = study.pixel_space.bounds
    for levels in GRAY_LEVELS:
        within = {"epsilon": levels / 255 * (high - low)}
        pgd = _attacked(few, "pgd", {**within, "steps": steps})
        if pgd.success >= 0.5:
            break
    terms = _terms(few, within)
    results = {
        "fgsm": (terms.result, within),
        "pgd": (pgd, within),
        "deepfool": (_attacked(few, "deepfool"), {}),
    }
    lengths = results["deepfool"][0].record.l2[-1]
    moved = lengths[lengths > 0]  # a fifth of DeepFool's way: the ascent takes some steps for it, not hundreds
    stride = {"normalize": "l2", "lr": float(moved.median()) / 5 if len(moved) else 0.1}
    climb = _attacked(few, "gradient_ascent", {**stride, "steps": ascent})
    pictures = [_counterparts(few, name, result, options) for name, (result, options) in results.items()]
    pictures.insert(1, _sums(few, terms, "attacks/fgsm/sum"))
    pictures.append(_record(few, "attacks/record", climb, "gradient ascent in equal steps"))
    numbers = {
        name: {"success": result.success, **_medians(result), "epsilon": options.get("epsilon")}
        for name, (result, options) in {**results, "ascent": (climb, {})}.items()
    }
    found = "; ".join(_found(few, name, result, options) for name, (result, options) in results.items())
    yield Output("attacks", pictures, numbers, {"steps": _steps(few, climb)}, found=found)


def _attacked(
    study: ModelUnderStudy,
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    labels: Literal["predicted", "true"] = "predicted",
    target: int | str | None = None,
) -> AttackResult:
    result: AttackResult = _called(study, described(method).load(), options, labels, target)
    return result


def _terms(
    study: ModelUnderStudy,
    options: Mapping[str, Any],
    *,
    labels: Literal["predicted", "true"] = "predicted",
    target: int | str | None = None,
) -> FgsmTerms:
    """What FGSM adds up, with its options."""
    own = {name: value for name, value in options.items() if name != "stop_on_success"}
    terms: FgsmTerms = _called(study, fgsm_terms, own, labels, target)
    return terms


def _called(
    study: ModelUnderStudy,
    function: Callable[..., Any],
    options: Mapping[str, Any] | None,
    labels: str,
    target: int | str | None,
) -> Any:
    """An attack's function on the samples, with the study's own settings."""
    images = study.bounded_images()
    arguments = {**study.settings(function), **(options or {})}
    arguments["batch_size"] = study.batch_size(arguments.get("batch_size"))
    if target is not None:
        index = study.class_index(target)
        arguments |= {"target": index} if "target" in inspect.signature(function).parameters else {}
    truths = study.true_classes() if labels == "true" else None
    return function(study.model, images, truths, **arguments)


def _found(study: ModelUnderStudy, method: str, result: AttackResult, options: Mapping[str, Any]) -> str:
    """How many samples are fooled, and by how small a perturbation."""
    low, high = study.pixel_space.bounds
    right = int((~result.initially_misclassified).sum())
    fooled = int((result.fooled & ~result.initially_misclassified).sum())
    relative = _medians(result)["relative"]
    size = "" if relative is None else f", perturbations of {percent(float(relative), 1)} % of the image's norm"
    title = described(method).title if described(method).unit == "pixels" else _title(method, options, high - low)
    return f"{title}: {fooled} of {right} fooled{size}"


def _medians(result: AttackResult) -> dict[str, Tensor | None]:
    """Norms of the perturbations that succeed, in the median; None if none does."""
    fooled, record = result.fooled & ~result.initially_misclassified, result.record
    norms = {name: getattr(record, name)[-1][fooled] for name in ("relative", "l2", "linf")}
    return {name: lengths.median() if len(lengths) else None for name, lengths in norms.items()}


def _columns(result: AttackResult) -> dict[str, Tensor]:
    """What was measured of each sample."""
    record, whole = result.record, ("initially_misclassified", "fooled", "first_success_step", "queries", "backwards")
    return {
        "label": result.labels,
        **({} if result.target is None else {"target": result.target}),
        "before": record.classes[0],
        "confidence_before": record.confidences[0],
        "after": record.classes[-1],
        "confidence_after": record.confidences[-1],
        "loss": record.losses[-1],
        **{norm: getattr(record, norm)[-1] for norm in ("l2", "linf", "relative")},
        **{name: getattr(result, name) for name in whole},
    }


def _steps(study: ModelUnderStudy, result: AttackResult) -> list[dict[str, Any]]:
    """The record as a table: of each sample a row for every step."""
    record, rows = result.record, []
    for step, classes in enumerate(record.classes):
        columns = {"class": classes, "confidence": record.confidences[step], "relative": record.relative[step]}
        measured = study.sample_rows(columns)
        rows += [{"step": step, **row, "name": study.samples.name(row["class"])} for row in measured]
    return sorted(rows, key=lambda row: row["sample"])


def _counterparts(study: ModelUnderStudy, method: str, result: AttackResult, options: Mapping[str, Any]) -> Page:
    """Samples, their adversarial counterparts, and the differences; of few pixels these are circled instead."""
    (low, high), record, tag = result.pixel_space.bounds, result.record, f"attacks/{method}"
    original, attacked = (to_display(pixels, result.pixel_space) for pixels in (result.original, result.pixels))
    before, after = (study.verdicts(record.classes[step], record.confidences[step]) for step in (0, -1))
    if described(method).unit == "pixels":
        details = [f"{percent(float(result.success))} % of those that were classified correctly"]
        return pixel_gallery(
            tag, original, attacked[None], rows=["few pixels"], before=before, after=[after], details=details
        )
    channels = describe_channels(result.original.shape[1])
    return twins(
        tag,
        original,
        attacked,
        (result.perturbations / (high - low)).float().cpu().numpy(),
        before=before,
        after=after,
        norms=[f"{percent(share, 1)} %" for share in record.relative[-1].tolist()],
        attack=_title(method, options, high - low),
        norm="its L2 norm over its image's",
        step=study.step,
        notes=[f"images: {channels}"] if channels else [],
    )


def _sums(study: ModelUnderStudy, terms: FgsmTerms, tag: str) -> Page:
    """Samples, the signs of their gradients as images, and the sums."""
    result, record = terms.result, terms.result.record
    images, signs, sums = (
        to_display(pixels, result.pixel_space) for pixels in (result.original, terms.images, result.pixels)
    )
    before, after = (study.verdicts(record.classes[step], record.confidences[step]) for step in (0, -1))
    alone = [replace(said, truth=None) for said in study.verdicts(terms.classes, terms.confidences)]
    (low, high), epsilon = result.pixel_space.bounds, float(result.epsilon or 0)
    channels = describe_channels(result.original.shape[1])
    return sign_sums(
        tag, images, signs, sums, before=before, alone=alone, after=after,
        epsilon=f"{number(255 * epsilon / (high - low))}/255", step=study.step,
        notes=[f"images: {channels}"] if channels else [],
    )  # fmt: skip


def _title(method: str, options: Mapping[str, Any], scale: float) -> str:
    """The attack's name, its epsilon in gray levels of 255 if it has one, or else its norm."""
    entry, epsilon, norm = described(method), options.get("epsilon"), options.get("norm")
    name = resolve_norm(norm or entry.unit).name
    return f"{entry.title}, {name}" if epsilon is None else f"{entry.title}, ε {number(255 * epsilon / scale)}/255"


def _record(study: ModelUnderStudy, tag: str, result: AttackResult, title: str) -> Page:
    """The prediction after each step."""
    record, names = result.record, study.samples.class_names
    classes = record.classes.cpu().numpy()
    return record_table(
        tag,
        to_display(result.original, result.pixel_space),
        classes,
        record.confidences.cpu().numpy(),
        result.labels.cpu().numpy(),
        names=names if len(names) > classes.max() else None,
        relative=record.relative.cpu().numpy(),
        attack=title,
        details=["label: the class to lead away from"],
    )
