"""``lightning-viz robustness``: how the model fares on what is moved or corrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace

from lightning_viz.adversarial.deepfool import deepfool
from lightning_viz.adversarial.gradient_attacks import pgd
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.output import CommandResult
from lightning_viz.analysis.studies.robustness import one_corrupted
from lightning_viz.cli.attack import WRITTEN as ATTACK
from lightning_viz.cli.function_options import Behind, Method, Written, parser_of, run_method
from lightning_viz.cli.samples import classified, rows_of, true_classes
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.corruptions import corruption_table
from lightning_viz.render.page import Page
from lightning_viz.render.robustness_curves import defense_bars, epsilon_curves, sphere_plot
from lightning_viz.render.text import number
from lightning_viz.robustness.corruption_error import CorruptionError, compare_corruption_error
from lightning_viz.robustness.defenses import DEFENSES, defenses, epsilon_curve
from lightning_viz.robustness.random_directions import random_directions

_EPSILONS = [0.0, *(levels / 255 for levels in (1, 2, 4, 8, 16, 32))]
_TIMES = 2  # as far as an attack went: the lecture's


def corrupted(subject: ModelUnderStudy, arguments: Mapping[str, Any]) -> CommandResult:
    """What corruptions cost.

    Args:
        subject: with model and samples.
        arguments: of `compare_corruption_error`, by keyword.
    """
    images, labels = classified(subject), true_classes(subject)
    given = arguments["reference"]
    reference = subject.name if given is None else given
    found = compare_corruption_error(
        {subject.name: subject.model}, (images, labels), **{**arguments, "reference": reference}
    )[subject.name]
    rows = [
        {"corruption": kind, "severity": severity, "error": error}
        for kind, errors in zip(found.kinds, found.errors.tolist(), strict=True)
        for severity, error in zip(found.severities, errors, strict=True)
    ]
    against = {
        "name": found.reference_name,
        "ce": dict(zip(found.kinds, found.ce.tolist(), strict=True)),
        "mce": found.mce,
        "relative_mce": found.relative_mce,
    }
    numbers = {
        "name": found.name,
        "clean": found.clean,
        "count": found.count,
        "kinds": found.kinds,
        "severities": found.severities,
        "errors": found.errors,
        "mean": found.errors.mean(),
        **({} if given is None else {"reference": against}),
    }

    def pictures() -> Iterator[Page]:
        compared: dict[str, Any] = (
            {} if given is None else {"ratios": {found.name: found.ce.tolist()}, "reference": found.reference_name}
        )
        yield corruption_table(
            "table",
            found.errors.numpy(),
            kinds=found.kinds,
            severities=found.severities,
            clean=found.clean,
            name=found.name,
            details=[f"on {found.count} samples"],
            **compared,
        )
        yield one_corrupted("sheet", subject, images[:1], kinds=found.kinds, severities=found.severities)

    return CommandResult(pictures(), numbers, {"corruptions": rows})


def curved(subject: ModelUnderStudy, arguments: Mapping[str, Any], attack: Mapping[str, Any]) -> CommandResult:
    """Accuracy under attack against epsilon.

    Args:
        subject: with model and samples.
        arguments: of `epsilon_curve`, by keyword.
        attack: of `pgd`.
    """
    labels = true_classes(subject)
    found = epsilon_curve(subject.model, classified(subject), labels, **arguments, attack=partial(pgd, **attack))
    pairs = zip(found.epsilons.tolist(), found.accuracy.tolist(), strict=True)
    rows = [{"epsilon": epsilon, "accuracy": accuracy} for epsilon, accuracy in pairs]
    low, high = subject.pixel_space.bounds

    def pictures() -> Iterator[Page]:
        line = (found.epsilons / (high - low)).numpy(), found.accuracy.numpy()
        details = [f"PGD, {attack['steps']} steps, on {len(labels)} samples"]
        norm = attack["norm"].name
        yield epsilon_curves("epsilon", {subject.name: line}, norm=norm, step=subject.step, details=details)

    return CommandResult(
        pictures(), {}, {"epsilons": rows, "samples": rows_of(subject, {"fooled_at": found.fooled_at})}
    )


def around(subject: ModelUnderStudy, arguments: Mapping[str, Any], attack: Mapping[str, Any]) -> CommandResult:
    """How many random directions change the class.

    Args:
        subject: with model and samples.
        arguments: of `random_directions`, by keyword; without a radius, twice as far as DeepFool went.
        attack: of `deepfool`.
    """
    images, radius = classified(subject), arguments["radius"]
    if radius is None:
        radius = _TIMES * deepfool(subject.model, images, **attack).record.l2[-1]
    found = random_directions(subject.model, images, **{**arguments, "radius": radius})
    columns = {"label": found.labels, "radius": found.radius, "changed": found.changed}
    low, high = subject.pixel_space.bounds

    def pictures() -> Iterator[Page]:
        radii = (found.radius / (high - low)).cpu().numpy()
        changed, count = found.changed.cpu().numpy(), arguments["samples"]
        times = _TIMES if arguments["radius"] is None else None
        yield sphere_plot("random_directions", changed, samples=count, radii=radii, times=times, step=subject.step)

    rows = rows_of(subject, columns)
    return CommandResult(pictures(), {"changed": found.changed.mean(), "counts": found.counts}, {"samples": rows})


def defended(subject: ModelUnderStudy, arguments: Mapping[str, Any], attack: Mapping[str, Any]) -> CommandResult:
    """What changing the input first helps.

    Args:
        subject: with model and samples.
        arguments: of `defenses`, by keyword.
        attack: of `pgd`.
    """
    attacked = pgd(subject.model, classified(subject), true_classes(subject), **attack)
    found = defenses(subject.model, attacked, **arguments)
    triples = zip(found.names, found.clean.tolist(), found.attacked.tolist(), strict=True)
    rows = [{"defense": name, "clean": clean, "attacked": left} for name, clean, left in triples]

    def pictures() -> Iterator[Page]:
        title = f"PGD, ε {number(attack['epsilon'])}, {attack['norm'].name}"
        details = [f"{len(attacked.labels)} samples", "the attack did not know of it"]
        clean, left = found.clean.numpy(), found.attacked.numpy()
        yield defense_bars("defenses", found.names, clean, left, attack=title, details=details)

    return CommandResult(pictures(), {}, {"defenses": rows})


def _reference(value: str | None, subject: ModelUnderStudy) -> CorruptionError | None:
    """What this command found of another model."""
    if value is None:
        return None
    path = Path(value)
    try:
        known = json.loads((path / "numbers.json" if path.is_dir() else path).read_text("utf-8"))
        errors = torch.tensor(known["errors"], dtype=torch.float64)
        name, clean, count = str(known["name"]), float(known["clean"]), int(known["count"])
        kinds, severities = tuple(known["kinds"]), tuple(known["severities"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgumentError("this is no numbers.json of robustness corruptions") from error
    return CorruptionError(name, kinds, severities, count, clean, errors, name, clean, errors)


def _ways(value: Sequence[str], subject: ModelUnderStudy) -> dict[str, Any]:
    unknown = [name for name in value if name not in DEFENSES]
    if unknown:
        raise InvalidArgumentError(f"there is no defense {unknown[0]!r}: {', '.join(map(repr, DEFENSES))}")
    return {name: DEFENSES[name] for name in value}


_SIZE = {"batch_size": Written(int | None, name="attack_batch_size")}
_REFERENCE = Written(
    str | None,
    "what this command found of another model on the same data: its folder; corruption errors are by those of it",
    plain=lambda default: None,
    meant=_reference,
)

METHODS = {
    "corruptions": Method(
        (Behind(compare_corruption_error, frozenset({"models", "data"}), {"reference": _REFERENCE}),),
        corrupted,
        "What noise, blur, weather and encoding cost (Hendrycks and Dietterich, 2019)",
        samples=256,
        example="--kinds gaussian_noise fog",
    ),
    "epsilons": Method(
        (
            Behind(
                epsilon_curve,
                frozenset({"labels", "attack"}),
                {"epsilons": Written(float, plain=lambda default: _EPSILONS, several=True)},
            ),
            Behind(pgd, frozenset({"labels", "epsilon"}), ATTACK),
        ),
        curved,
        "Accuracy under PGD against epsilon",
        samples=128,
        example="--epsilons 0 0.02 0.05 0.1",
    ),
    "random_directions": Method(
        (
            Behind(
                random_directions,
                frozenset({"labels"}),
                {
                    "radius": Written(
                        float | None,
                        "in L2 and pixels; twice as far as DeepFool went if omitted",
                        plain=lambda default: None,
                    ),
                    "samples": Written(int, name="directions"),
                },
            ),
            Behind(deepfool, frozenset({"labels", "norm"}), {**ATTACK, **_SIZE}),
        ),
        around,
        samples=16,
        example="--radius 2",
    ),
    "defenses": Method(
        (
            Behind(
                defenses,
                frozenset({"attacked"}),
                {
                    "ways": Written(
                        str,
                        f"some of {', '.join(map(repr, DEFENSES))}",
                        plain=list,
                        several=True,
                        meant=_ways,
                    ),
                },
            ),
            Behind(pgd, frozenset({"labels"}), {**ATTACK, **_SIZE}),
        ),
        defended,
        samples=128,
        example="--epsilon 0.1",
    ),
}
"""By name."""


def parser() -> ArgumentParser:
    """Its arguments, by method."""
    return parser_of(
        "robustness",
        "Measure how the model fares on images that are moved or corrupted: pictures, and the numbers.\n"
        "Each method has the options of the functions behind it.",
        METHODS,
    )


def run(options: Namespace) -> None:
    """Measure.

    Args:
        options: parsed.
    """
    run_method("robustness", METHODS, options)
