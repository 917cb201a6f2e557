"""``lightning-viz robustness``: how the model fares on what is moved or corrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace

from lightning_viz.adversarial.ascending import pgd
from lightning_viz.adversarial.boundary import deep_fool
from lightning_viz.adversarial.corruption_errors import CorruptionError, compare_corruption_error
from lightning_viz.adversarial.defending import DEFENCES, defences, epsilon_curve
from lightning_viz.adversarial.neighbourhood import sphere
from lightning_viz.analysis.commands.attack import WRITTEN as ATTACK
from lightning_viz.analysis.commands.keeping import Result
from lightning_viz.analysis.commands.methods import Method, parser_of, run_method
from lightning_viz.analysis.commands.options import Behind, Written
from lightning_viz.analysis.commands.samples import classified, rows_of, true_classes
from lightning_viz.analysis.studies.enduring import one_corrupted
from lightning_viz.analysis.subject import Subject
from lightning_viz.render.picture import Picture
from lightning_viz.render.robustness import corruption_table
from lightning_viz.render.robustness_curves import defence_bars, epsilon_curves, sphere_plot
from lightning_viz.render.text import number

_EPSILONS = [0.0, *(levels / 255 for levels in (1, 2, 4, 8, 16, 32))]
_TIMES = 2  # as far as an attack went: the lecture's


def corrupted(subject: Subject, arguments: Mapping[str, Any]) -> Result:
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

    def pictures() -> Iterator[Picture]:
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

    return Result(pictures(), numbers, {"corruptions": rows})


def curved(subject: Subject, arguments: Mapping[str, Any], attack: Mapping[str, Any]) -> Result:
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
    low, high = subject.space.bounds

    def pictures() -> Iterator[Picture]:
        line = (found.epsilons / (high - low)).numpy(), found.accuracy.numpy()
        details = [f"PGD, {attack['steps']} steps, on {len(labels)} samples"]
        norm = attack["norm"].name
        yield epsilon_curves("epsilon", {subject.name: line}, norm=norm, step=subject.step, details=details)

    return Result(pictures(), {}, {"epsilons": rows, "samples": rows_of(subject, {"fooled_at": found.fooled_at})})


def around(subject: Subject, arguments: Mapping[str, Any], attack: Mapping[str, Any]) -> Result:
    """How many random directions change the class.

    Args:
        subject: with model and samples.
        arguments: of `sphere`, by keyword; without a radius, twice as far as DeepFool went.
        attack: of `deep_fool`.
    """
    images, radius = classified(subject), arguments["radius"]
    if radius is None:
        radius = _TIMES * deep_fool(subject.model, images, **attack).record.l2[-1]
    found = sphere(subject.model, images, **{**arguments, "radius": radius})
    columns = {"label": found.labels, "radius": found.radius, "changed": found.changed}
    low, high = subject.space.bounds

    def pictures() -> Iterator[Picture]:
        radii = (found.radius / (high - low)).cpu().numpy()
        changed, count = found.changed.cpu().numpy(), arguments["samples"]
        times = _TIMES if arguments["radius"] is None else None
        yield sphere_plot("sphere", changed, samples=count, radii=radii, times=times, step=subject.step)

    rows = rows_of(subject, columns)
    return Result(pictures(), {"changed": found.changed.mean(), "counts": found.counts}, {"samples": rows})


def defended(subject: Subject, arguments: Mapping[str, Any], attack: Mapping[str, Any]) -> Result:
    """What changing the input first helps.

    Args:
        subject: with model and samples.
        arguments: of `defences`, by keyword.
        attack: of `pgd`.
    """
    attacked = pgd(subject.model, classified(subject), true_classes(subject), **attack)
    found = defences(subject.model, attacked, **arguments)
    triples = zip(found.names, found.clean.tolist(), found.attacked.tolist(), strict=True)
    rows = [{"defence": name, "clean": clean, "attacked": left} for name, clean, left in triples]

    def pictures() -> Iterator[Picture]:
        title = f"PGD, ε {number(attack['epsilon'])}, {attack['norm'].name}"
        details = [f"{len(attacked.labels)} samples", "the attack did not know of it"]
        clean, left = found.clean.numpy(), found.attacked.numpy()
        yield defence_bars("defences", found.names, clean, left, attack=title, details=details)

    return Result(pictures(), {}, {"defences": rows})


def _reference(value: str | None, subject: Subject) -> CorruptionError | None:
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
        raise ValueError("this is no numbers.json of robustness corruptions") from error
    return CorruptionError(name, kinds, severities, count, clean, errors, name, clean, errors)


def _ways(value: Sequence[str], subject: Subject) -> dict[str, Any]:
    unknown = [name for name in value if name not in DEFENCES]
    if unknown:
        raise ValueError(f"there is no defence {unknown[0]!r}: {', '.join(map(repr, DEFENCES))}")
    return {name: DEFENCES[name] for name in value}


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
    "sphere": Method(
        (
            Behind(
                sphere,
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
            Behind(deep_fool, frozenset({"labels", "norm"}), {**ATTACK, **_SIZE}),
        ),
        around,
        samples=16,
        example="--radius 2",
    ),
    "defences": Method(
        (
            Behind(
                defences,
                frozenset({"attacked"}),
                {
                    "ways": Written(
                        str,
                        f"some of {', '.join(map(repr, DEFENCES))}",
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
