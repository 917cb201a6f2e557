"""Accuracy under attack: against epsilon, and at one epsilon under AutoAttack."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from lightning_viz.adversarial.attack_ensemble import AutoAttackResult, auto_attack
from lightning_viz.adversarial.norms import LossName, NormName, resolve_norm
from lightning_viz.adversarial.result import AttackResult
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.results import Output, rows_of
from lightning_viz.catalogue import method
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.page import Page
from lightning_viz.render.robustness import accuracy_bars, epsilon_curves
from lightning_viz.render.text import fixed_point
from lightning_viz.render.text import number as format_number
from lightning_viz.robustness.defenses import epsilon_curve

CurveAttack = Literal["pgd", "apgd", "fgsm", "square", "auto_attack"]
"""Attacks within epsilon; names of rows of the catalogue."""

_EPSILONS = tuple(levels / 255 for levels in (0, 1, 2, 4, 8, 16, 32))
_SMALL = 0.06  # of the pixels' range: epsilons below that are written as gray levels


def accuracy_curve(
    study: ModelUnderStudy,
    *,
    epsilons: Sequence[float] = _EPSILONS,
    attack: CurveAttack = "pgd",
    norm: NormName = "linf",
    steps: int | None = None,
    restarts: int | None = None,
    loss: LossName | None = None,
    stop_below: float = 0.0,
    batch_size: int | None = None,
) -> Output:
    """Accuracy under attack: the share of samples that stay correct under an attack, against epsilon.

    Args:
        study: a classifier of images within the range of pixels.
        epsilons: how far pixels in [0, 1] may change.
        attack: PGD, APGD, FGSM, Square or AutoAttack.
        norm: in which epsilon is measured.
        steps: of the attack for each epsilon; its own if omitted (10 of PGD, 100 of APGD and AutoAttack).
        restarts: random starts of PGD; samples that are not fooled start again (1 if omitted).
        loss: maximized by the attack; its own if omitted. The margin does not saturate if the model is confident.
        stop_below: show no epsilon beyond the first that leaves less accuracy than this.
        batch_size: samples attacked at a time; chosen by their size if omitted.

    Raises:
        UnsuitableModelError: the model is not a classifier, or the images are not pixels.
        InvalidArgumentError: an option that the attack does not have.
    """
    images, labels = study.bounded_images(), study.true_or_predicted_classes()
    options = _options(attack, norm=norm, steps=steps, restarts=restarts, loss=loss)
    function, left_out = method(attack).load(), dict[str, str]()
    size, own = study.batch_size(batch_size), study.settings(function)

    def within(*given: Any, epsilon: float) -> AttackResult:
        result: AttackResult = function(*given, epsilon=epsilon, **options, batch_size=size, **own)
        left_out.update(result.left_out if isinstance(result, AutoAttackResult) else {})
        return result

    curve = epsilon_curve(study.model, images, labels, epsilons, attack=within, progress=study.progress)
    low_enough = (curve.accuracy < stop_below).nonzero().flatten().tolist()
    kept = max(2, low_enough[0] + 1) if low_enough else len(curve.epsilons)
    shown, accuracy = curve.epsilons[:kept], curve.accuracy[:kept]
    low, high = study.pixel_space.bounds
    parameters = inspect.signature(function).parameters
    taken = f", {options.get('steps', parameters['steps'].default)} steps" if "steps" in parameters else ""

    def pictures() -> Iterator[Page]:
        yield epsilon_curves(
            "robustness/epsilon",
            {study.name: ((shown / (high - low)).numpy(), accuracy.numpy())},
            norm=resolve_norm(norm).name,
            gray_levels=bool(shown[-1] < _SMALL * (high - low)),
            step=study.step,
            details=[f"{method(attack).title}{taken}, on {len(images)} samples", _counted(study), _without(left_out)],
        )

    tables = {
        "curve": rows_of({"epsilon": shown.tolist(), "accuracy": accuracy.tolist()}),
        "samples": study.sample_rows({"fooled_at": curve.fooled_at}),
    }
    first, last = accuracy[0].item(), accuracy[-1].item()
    found = (
        f"accuracy {fixed_point(first)} at ε {format_number(shown[0].item())}, "
        f"{fixed_point(last)} at ε {format_number(shown[-1].item())}"
    )
    return Output("epsilon", pictures(), {"epsilons": shown, "accuracy": accuracy}, tables, found=found)


def robust_accuracy(
    study: ModelUnderStudy,
    *,
    epsilon: float = 8 / 255,
    norm: NormName = "linf",
    steps: int = 100,
    queries: int = 5000,
    batch_size: int | None = None,
) -> Output:
    """Robust accuracy: the share of samples that stay correct under AutoAttack, beside clean accuracy.

    A sample that nothing fools takes 11,600 passes; one that falls at once, a few.

    Args:
        study: a classifier of images within the range of pixels.
        epsilon: how far pixels in [0, 1] may change (8/255, for which RobustBench ranks models in L-inf).
        norm: in which epsilon is measured.
        steps: of APGD and FAB (100, the standard).
        queries: of Square (5,000, the standard).
        batch_size: samples attacked at a time; chosen by their size if omitted.

    Raises:
        UnsuitableModelError: the model is not a classifier, or the images are not pixels.
    """
    images, labels = study.bounded_images(), study.true_or_predicted_classes()
    result = auto_attack(
        study.model, images, labels, epsilon=epsilon, norm=norm, steps=steps, queries=queries,
        batch_size=study.batch_size(batch_size), **study.settings(auto_attack),
    )  # fmt: skip
    clean, robust = 1 - float(result.initially_misclassified.double().mean()), float(result.accuracy)
    fallen = {name: int(count) for name, count in result.fooled_by.items()}
    low, high = study.pixel_space.bounds
    size = format_number(255 * epsilon / (high - low))
    attack = f"AutoAttack, {resolve_norm(norm).name}, ε {size}/255"

    def pictures() -> Iterator[Page]:
        yield accuracy_bars(
            "robustness/robust_accuracy",
            [study.name],
            [clean],
            [robust],
            attack=attack,
            step=study.step,
            details=[f"{len(images)} samples", _fallen(fallen), _counted(study), _without(result.left_out)],
        )

    numbers = {
        "clean": clean, "robust": robust, "epsilon": epsilon, "norm": norm, "steps": steps, "queries": queries,
        "samples": len(images), "fooled_by": fallen, "left_out": dict(result.left_out), "attack": attack,
    }  # fmt: skip
    step = result.first_success_step.tolist()
    names = ["misclassified", *result.components]
    rows = study.sample_rows({"label": result.labels, "fooled": result.fooled, "queries": result.queries})
    rows = [{**row, "by": "" if at < 0 else names[at]} for row, at in zip(rows, step, strict=True)]
    found = f"accuracy {fixed_point(clean)}, {fixed_point(robust)} under {attack} on {len(images)} samples"
    return Output("robust_accuracy", pictures(), numbers, {"samples": rows}, found=found)


def _options(attack: str, norm: NormName, **given: Any) -> dict[str, Any]:
    """What is asked for of an attack, as far as it has such options.

    Raises:
        InvalidArgumentError: it does not have one that is asked for.
    """
    parameters = inspect.signature(method(attack).load()).parameters
    asked = {name: value for name, value in given.items() if value is not None}
    asked |= {"norm": norm} if "norm" in parameters or norm != "linf" else {}
    unknown = next((name for name in asked if name not in parameters), None)
    if unknown is not None:
        raise InvalidArgumentError(f"{unknown}={asked[unknown]!r}: {method(attack).title} has no such option")
    return asked


def _fallen(fallen: Mapping[str, int]) -> str:
    return "fell to " + ", ".join(f"{name} {count}" for name, count in fallen.items())


def _counted(study: ModelUnderStudy) -> str:
    return "" if study.labels is not None else "a sample's own prediction counts as correct"


def _without(left_out: Mapping[str, str]) -> str:
    return f"without {', '.join(left_out)}" if left_out else ""
