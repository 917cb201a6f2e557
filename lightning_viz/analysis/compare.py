"""Several models side by side: the same samples, the same pictures, and what can be drawn into one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lightning_viz.analysis.analyze import Progress, fill
from lightning_viz.analysis.output import open_results, publish, slug
from lightning_viz.analysis.results import ModelReport, Output, Result, Results
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.analysis.studies.robustness import recorded_corruption_error
from lightning_viz.callbacks.probe import Probe
from lightning_viz.errors import AnalysisError
from lightning_viz.render.corruptions import corruption_table
from lightning_viz.render.robustness_curves import epsilon_curves
from lightning_viz.render.shape_bias import shape_bias_plot

__all__ = ["compare"]


def compare(
    cases: Sequence[RunConfig],
    *,
    out: Path | str = "comparison",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Understand several models beside each other: accuracy, robustness, and the same pictures of the same samples.

    Of each model the last checkpoint is taken. All are looked at by the same views, whatever their runs had; of equal
    data they see the same samples. What is finished is kept, as in `analyze`.

    Args:
        cases: two models or more, each with a name of its own; corruptions are measured against the first.
        out: folder for the report, TensorBoard's files and what is finished.
        overwrite: do again what is done.
        progress: told what begins.

    Returns:
        The report's path.

    Raises:
        AnalysisError: fewer than two models, or two of one name; else as `analyze`.
    """
    names = [case.title() for case in cases]
    if len(cases) < 2:
        raise AnalysisError(
            f"there is nothing to compare {', '.join(names) or 'no model'} with: give two models or more"
        )
    twice = next((name for name in names if [slug(one) for one in names].count(slug(name)) > 1), None)
    if twice is not None:
        raise AnalysisError(f"two models are called {twice!r}: give each a name of its own")
    folder, studies = Path(out), [ModelReport(name) for name in names]
    open_results(folder)
    last = [_last(case) for case in cases]  # which finds at once what cannot be read
    try:
        for case, study in zip(last, studies, strict=True):
            fill(study, case, Results(folder / "findings" / slug(study.name)), overwrite=overwrite,
                 progress=None if progress is None else _named(progress, study.name))  # fmt: skip
    except KeyboardInterrupt:
        publish(folder, studies)
        raise
    return publish(folder, studies, together=together(studies))


def together(studies: Sequence[ModelReport]) -> Result:
    """What can be drawn of several models into one picture, from what was measured of each.

    Args:
        studies: of the models, the first of which is the reference.
    """
    result = Result()
    for outputs in (_epsilons(studies), _corruptions(studies), _biases(studies)):
        for output in outputs:
            result.add(output, 0)
    return result


def _epsilons(studies: Sequence[ModelReport]) -> Iterator[Output]:
    """Accuracy against epsilon, all in one plot."""
    found = {study.name: study.numbers["epsilon"] for study in studies if "epsilon" in study.numbers}
    if len(found) > 1:
        lines = {name: (one["epsilons"], one["accuracy"]) for name, one in found.items()}
        page = epsilon_curves("compared/epsilon", lines, norm="L-inf", details=["PGD, on the same samples"])
        yield Output("epsilon", [page])


def _corruptions(studies: Sequence[ModelReport]) -> Iterator[Output]:
    """Each model's corruption error, the first one's being 1."""
    measured = [study for study in studies if "corruptions" in study.numbers]
    if len(measured) < 2:
        return
    first_name, reference = measured[0].name, measured[0].numbers["corruptions"]
    errors = {
        study.name: recorded_corruption_error(study.numbers["corruptions"], study.name, reference, first_name)
        for study in measured
    }
    ratios = {name: error.ce.tolist() for name, error in errors.items()}
    first = errors[first_name]
    page = corruption_table(
        "compared/corruptions",
        first.errors.numpy(),
        kinds=first.kinds,
        severities=first.severities,
        clean=first.clean,
        name=first.name,
        ratios=ratios,
        reference=first.name,
    )
    yield Output("mce", [page], {name: error.mce for name, error in errors.items()})


def _biases(studies: Sequence[ModelReport]) -> Iterator[Output]:
    """The shape bias of each class, all in one plot."""
    found = {study.name: study.numbers["shape_bias"] for study in studies if "shape_bias" in study.numbers}
    alike = len({tuple(one["classes"]) for one in found.values()}) == 1
    if len(found) > 1 and alike:
        bias: list[Any] = [math.nan if one["bias"] is None else one["bias"] for one in found.values()]
        classes = np.array([list(one["classes"].values()) for one in found.values()], dtype=np.float64)
        names = list(next(iter(found.values()))["classes"])
        count = next(iter(found.values()))["conflicts"]
        details = [f"the same {count} cue conflicts"]
        page = shape_bias_plot("compared/shape_bias", classes, bias, names=names, models=list(found), details=details)
        yield Output("shape_bias", [page])


def _last(case: RunConfig) -> RunConfig:
    """The model at its last checkpoint, looked at by no views but those that all have."""
    path = list(case.series().values())[-1]
    return replace(case, checkpoints=() if path is None else (path,), as_logged=False, probe=case.probe or Probe())


def _named(progress: Progress, name: str) -> Progress:
    return lambda part, done, total: progress(f"{name}: {part}", done, total)
