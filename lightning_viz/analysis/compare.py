"""Several models side by side, on the same samples, by the same views and techniques."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from lightning_viz.analysis.parts import Progress, check_names, fill_report
from lightning_viz.analysis.plan import MINUTES
from lightning_viz.analysis.plan_source import plan_of
from lightning_viz.analysis.publication import Publisher, open_results, publish, slug
from lightning_viz.analysis.results import ModelReport, Output, Result, Results
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.analysis.studies.robustness import corruption_page, recorded_corruption_error
from lightning_viz.analysis.studies.stability import recorded_stability
from lightning_viz.callbacks.probe import Probe
from lightning_viz.errors import AnalysisError
from lightning_viz.render.robustness import accuracy_bars, epsilon_curves
from lightning_viz.render.shape_bias import shape_bias_plot
from lightning_viz.render.stability import stability_bars

__all__ = ["compare"]


def compare(
    configs: Sequence[RunConfig],
    *,
    out: Path | str = "comparison",
    minutes: float = MINUTES,
    plan: Path | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Compare several models: accuracy, robustness, and the same pictures of the same samples.

    The last checkpoint of each model is taken. All models get the same views, whatever their runs had, and the same
    samples if their data are equal, and one plan says for all how far each goes. Finished results are kept, as in
    `analyze`.

    Args:
        configs: two models or more, with different names; corruption errors are relative to the first.
        out: folder for the report, TensorBoard's files and the results.
        minutes: in which all of it is to be done, roughly (4), as in `analyze`.
        plan: file of the plan of another analysis or comparison, which is repeated.
        overwrite: recompute existing results.
        progress: called with each part that begins.

    Returns:
        The report's path.

    Raises:
        AnalysisError: fewer than two models, or two of one name; else as `analyze`.
    """
    names = [config.title() for config in configs]
    if len(configs) < 2:
        raise AnalysisError(
            f"there is nothing to compare {', '.join(names) or 'no model'} with: give two models or more"
        )
    slugs = [slug(name) for name in names]
    twice = next((name for name in names if slugs.count(slug(name)) > 1), None)
    if twice is not None:
        raise AnalysisError(f"two models are called {twice!r}: give each a name of its own")
    folder, reports = Path(out), [ModelReport(name) for name in names]
    open_results(folder)
    last = [_last(config) for config in configs]  # which finds at once what cannot be read
    for config in last:
        check_names(config)
    chosen = plan_of(last, folder, minutes=minutes, file=plan, overwrite=overwrite, progress=progress)
    for report in reports:
        report.plan = chosen
    publisher = Publisher(folder, reports)
    try:
        for config, report in zip(last, reports, strict=True):
            results = Results(folder / "findings" / slug(report.name))
            own = None if progress is None else _named(progress, report.name)
            fill_report(report, config, results, overwrite=overwrite, progress=own, changed=publisher.changed)
    except KeyboardInterrupt:
        publish(folder, reports)
        raise
    return publish(folder, reports, together=together(reports))


def together(reports: Sequence[ModelReport]) -> Result:
    """Pictures of several models in one, from the numbers of each.

    Args:
        reports: of the models, the first of which is the reference.
    """
    result = Result()
    for output in chain(
        _epsilons(reports), _robust_accuracies(reports), _corruptions(reports), _stability(reports), _biases(reports)
    ):
        result.add(output, 0)
    return result


def _epsilons(reports: Sequence[ModelReport]) -> Iterator[Output]:
    """Accuracy against epsilon, all in one plot."""
    curves = {report.name: report.numbers["epsilon"] for report in reports if "epsilon" in report.numbers}
    if len(curves) > 1:
        lines = {name: (curve["epsilons"], curve["accuracy"]) for name, curve in curves.items()}
        page = epsilon_curves("compared/epsilon", lines, norm="L-inf", details=["PGD, on the same samples"])
        yield Output("epsilon", [page])


def _robust_accuracies(reports: Sequence[ModelReport]) -> Iterator[Output]:
    """Accuracy as it is and under AutoAttack; a model that costs more may have been given fewer of the samples."""
    measured = {
        report.name: report.numbers["robust_accuracy"] for report in reports if "robust_accuracy" in report.numbers
    }
    if len(measured) > 1:
        pairs = [[numbers[kind] for numbers in measured.values()] for kind in ("clean", "robust")]
        counts = [numbers["samples"] for numbers in measured.values()]
        same = len(set(counts)) == 1
        details = f"on the same {counts[0]} samples" if same else f"on the first {', '.join(map(str, counts))} samples"
        attack = next(iter(measured.values()))["attack"]
        page = accuracy_bars("compared/robust_accuracy", list(measured), *pairs, attack=attack, details=[details])
        yield Output("robust_accuracy", [page], dict(zip(measured, pairs[1], strict=True)))


def _corruptions(reports: Sequence[ModelReport]) -> Iterator[Output]:
    """Each model's corruption error, the first one's being 1."""
    measured = [report for report in reports if "corruptions" in report.numbers]
    if len(measured) < 2:
        return
    first_name, reference = measured[0].name, measured[0].numbers["corruptions"]
    errors = {
        report.name: recorded_corruption_error(report.numbers["corruptions"], report.name, reference, first_name)
        for report in measured
    }
    ratios = {name: error.ce.tolist() for name, error in errors.items()}
    page = corruption_page("compared/corruptions", errors[first_name], ratios=ratios, reference=first_name)
    yield Output("mce", [page], {name: error.mce for name, error in errors.items()})


def _stability(reports: Sequence[ModelReport]) -> Iterator[Output]:
    """Each model's flip probabilities, and its flip rate, the first one's being 1; on the samples that all share."""
    kept = {report.name: report.numbers.get("perturbation_stability") for report in reports}
    measured = {name: recorded_stability(numbers) for name, numbers in kept.items() if numbers}
    if len(measured) < 2:
        return
    count = min(found.flips.shape[1] for found in measured.values())  # the costlier a model, the fewer
    alike = {name: found.first(count) for name, found in measured.items()}
    first_name, reference = next(iter(alike.items()))
    rates = {name: found.flip_rate(reference) for name, found in alike.items()}
    page = stability_bars(
        "compared/perturbation_stability",
        {name: found.flip_probability.tolist() for name, found in alike.items()},
        kinds=reference.kinds,
        rates={name: rate.tolist() for name, rate in rates.items()},
        reference=first_name,
        details=[f"on the same {count} samples"],
    )
    yield Output("mfr", [page], {name: rate.nanmean().item() for name, rate in rates.items()})


def _biases(reports: Sequence[ModelReport]) -> Iterator[Output]:
    """The shape bias of each class, all in one plot."""
    measured = {report.name: report.numbers["shape_bias"] for report in reports if "shape_bias" in report.numbers}
    alike = len({tuple(numbers["classes"]) for numbers in measured.values()}) == 1
    if len(measured) > 1 and alike:
        bias = [math.nan if numbers["bias"] is None else numbers["bias"] for numbers in measured.values()]
        classes = np.array([list(numbers["classes"].values()) for numbers in measured.values()], dtype=np.float64)
        first = next(iter(measured.values()))
        names, details = list(first["classes"]), [f"the same {first['conflicts']} cue conflicts"]
        page = shape_bias_plot(
            "compared/shape_bias", classes, bias, names=names, models=list(measured), details=details
        )
        yield Output("shape_bias", [page])


def _last(config: RunConfig) -> RunConfig:
    """The model at its last checkpoint, with the views that all models have."""
    path = list(config.series().values())[-1]
    checkpoints = () if path is None else (path,)
    return replace(config, checkpoints=checkpoints, as_logged=False, probe=config.probe or Probe())


def _named(progress: Progress, name: str) -> Progress:
    return lambda part, done, total, left: progress(f"{name}: {part}", done, total, left)
