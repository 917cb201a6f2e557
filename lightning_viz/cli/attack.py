"""``lightning-viz attack``: samples moved just so far that the model errs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace
from torch import Tensor

from lightning_viz.adversarial.carlini_wagner import carlini_wagner
from lightning_viz.adversarial.deepfool import deepfool
from lightning_viz.adversarial.gradient_attacks import fgsm, gradient_ascent, pgd
from lightning_viz.adversarial.norms import LossName, NormName
from lightning_viz.adversarial.one_pixel import one_pixel
from lightning_viz.adversarial.result import AttackResult, AttackTrace
from lightning_viz.adversarial.square_attack import square
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.output import CommandResult
from lightning_viz.analysis.studies.attacks import record_page, shown, twin_page
from lightning_viz.cli.function_options import Behind, Method, Written, parser_of, run_method
from lightning_viz.cli.samples import class_of, classified, rows_of, true_classes
from lightning_viz.render.attacks import pixel_gallery
from lightning_viz.render.page import Page


def _labels(value: str, subject: ModelUnderStudy) -> Tensor | None:
    return true_classes(subject) if value == "true" else None


WRITTEN: Mapping[str, Written] = {
    "labels": Written(
        Literal["predicted", "true"],
        "the class to lead away from: what the model says of a sample, or what it truly is",
        plain=lambda labels: "predicted",
        meant=_labels,
    ),
    "epsilon": Written(float, "how far pixels in [0, 1] may move: each of them (L-inf), or the image as a whole (L2)"),
    "norm": Written(
        NormName,
        "in which perturbations are measured",
    ),
    "normalize": Written(
        NormName | None,
        "the norm in which every step has length lr; as long as the gradient if omitted",
    ),
    "target": Written(int | str | None, "class to lead to, 3 or class:ox; any wrong one if omitted", meant=class_of),
    "pixels": Written(int, name="count"),
    "loss": Written(
        LossName | None,
        "what is climbed; the margin does not go flat where the model is sure",
    ),
}
"""How attacks' options are written."""


def attack(
    function: Callable[..., AttackResult], title: str, subject: ModelUnderStudy, arguments: Mapping[str, Any]
) -> CommandResult:
    """What an attack makes of the samples.

    Args:
        function: the attack.
        title: what it is called.
        subject: with model and samples.
        arguments: of the attack, by keyword.
    """
    found = function(subject.model, classified(subject), **arguments)
    record, turned = found.record, found.fooled & ~found.initially_misclassified
    middle = {name: getattr(record, name)[-1][turned].median() for name in ("l2", "linf", "relative")}
    return CommandResult(
        _pictures(found, title, subject),
        {
            "success": found.success,
            "accuracy": found.accuracy,
            "median": {name: value if bool(turned.any()) else None for name, value in middle.items()},
            "class_names": subject.samples.class_names,
        },
        {"samples": rows_of(subject, _columns(found))},
        {
            "record": {one.name: getattr(record, one.name) for one in fields(AttackTrace)},
            "images": {"original": found.original, "attacked": found.pixels},
        },
    )


def _columns(found: AttackResult) -> dict[str, Tensor]:
    """What was measured of each sample."""
    record = found.record
    target = {} if found.target is None else {"target": found.target}
    return {
        "label": found.labels,
        **target,
        "before": record.classes[0],
        "confidence_before": record.confidences[0],
        "after": record.classes[-1],
        "confidence_after": record.confidences[-1],
        "loss": record.losses[-1],
        "l2": record.l2[-1],
        "linf": record.linf[-1],
        "relative": record.relative[-1],
        "already": found.initially_misclassified,
        "fooled": found.fooled,
        "first_success_step": found.first_success_step,
        "queries": found.queries,
        "backwards": found.backwards,
    }


def _pictures(found: AttackResult, title: str, subject: ModelUnderStudy) -> Iterator[Page]:
    """Samples and their twins, and step by step what the model says."""
    if title == _FEW:
        yield _few_pixels(found, subject)
    else:
        yield twin_page(subject, found, "twins", title)
    if len(found.record.classes) > 2:
        yield record_page(subject, found, "record", title)


def _few_pixels(found: AttackResult, subject: ModelUnderStudy) -> Page:
    """The pixels that changed, circled."""
    record = found.record
    before, after = (
        subject.verdicts(subject.labels, record.classes[step], record.confidences[step]) for step in (0, -1)
    )
    return pixel_gallery(
        "twins",
        shown(found.original, found),
        shown(found.pixels, found)[None],
        rows=[_FEW],
        before=before,
        after=[after],
        details=[f"{found.success:.0%} of those that were not fooled before"],
    )


_FEW = "few pixels"
_TITLES: dict[str, tuple[Callable[..., AttackResult], str]] = {
    "pgd": (pgd, "PGD"),
    "fgsm": (fgsm, "FGSM"),
    "deepfool": (deepfool, "DeepFool"),
    "carlini_wagner": (carlini_wagner, "Carlini and Wagner"),
    "gradient_ascent": (gradient_ascent, "gradient ascent"),
    "one_pixel": (one_pixel, _FEW),
    "square": (square, "Square"),
}

METHODS = {
    name: Method((Behind(function, frozenset({"start"}), WRITTEN),), partial(attack, function, title))
    for name, (function, title) in _TITLES.items()
}
"""By name."""


def parser() -> ArgumentParser:
    """Its arguments, by method."""
    return parser_of(
        "attack",
        "Move samples just so far that the model errs: pictures, and the numbers of every sample.\n"
        "Each method has the options of the function behind it.",
        METHODS,
    )


def run(options: Namespace) -> None:
    """Attack the samples.

    Args:
        options: parsed.
    """
    run_method("attack", METHODS, options)
