"""The analysis of a run: every checkpoint by every view, the last by every technique, in one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_viz.analysis.data import Data
from lightning_viz.analysis.models import Model
from lightning_viz.analysis.parts import Progress, check_names, fill_report
from lightning_viz.analysis.plan import MINUTES
from lightning_viz.analysis.plan_source import plan_of
from lightning_viz.analysis.publication import Publisher, open_results, publish
from lightning_viz.analysis.results import ModelReport
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.callbacks.probe import Probe
from lightning_viz.pixels import PixelSpace

__all__ = ["analyze"]


def analyze(
    checkpoints: Path | str | Sequence[Path | str],
    *,
    model: Model,
    data: Data,
    out: Path | str = "analysis",
    name: str = "",
    probe: Probe | None = None,
    pixel_space: PixelSpace | None = None,
    views: Sequence[str] | None = None,
    techniques: Sequence[str] | None = None,
    samples: int = 256,
    seed: int = 0,
    trusted: bool = False,
    overwrite: bool = False,
    trainer: Mapping[str, Any] | None = None,
    conflicts: Path | str | None = None,
    minutes: float = MINUTES,
    plan: Path | str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Analyze a trained model by every view and technique that suits it, in TensorBoard and one report.

    Several checkpoints of a run become a time series. What was logged live is redrawn as it was then: a checkpoint
    holds the views' state. How far each view and technique goes is planned before anything is computed, from how fast
    the model is on this machine; the plan is kept in ``out`` as ``plan.json``, and the report says what it shortened.
    Each result is kept as soon as it is finished, and not computed again; the report is rewritten as they come.

    Args:
        checkpoints: files and folders of one run; none: the model as it is.
        model: an instance, a class, or a class path with init args.
        data: as the model was trained with: a LightningDataModule, a DataLoader or a data set; or one of them named.
        out: folder for the report, TensorBoard's files, the plan and the results.
        name: of the model in the report; its class's if empty.
        probe: the samples that pictures show; those of the run's views, or 16 of the validation data, if omitted.
        pixel_space: how the inputs map to pixels; found in the data's ``Normalize`` transform if omitted.
        views: kinds of views to draw, ``"grad_cam"`` say; all that suit the model if omitted.
        techniques: names of techniques to run on the last checkpoint; all that suit the model if omitted.
        samples: how many of the data techniques may use.
        seed: of everything random.
        trusted: load checkpoints that hold more than weights, which runs the code that they name.
        overwrite: recompute existing results.
        trainer: options of Lightning's Trainer: accelerator, devices, strategy, precision.
        conflicts: folder of images with one class's shape and another's texture, for the shape bias.
        minutes: in which the analysis is to be done, roughly (4); ``math.inf``: nothing is shortened. What is named in
            `views` or `techniques` is done in any case, at its least if there is no time for more.
        plan: file of the plan of another analysis, which is repeated, on this machine or any other.
        progress: called with each part that begins.

    Returns:
        The report's path.

    Raises:
        AnalysisError: see its message.
    """
    places = [checkpoints] if isinstance(checkpoints, (str, Path)) else list(checkpoints)
    folder = None if conflicts is None else Path(conflicts)
    options = dict(trainer or {})
    config = RunConfig(
        model, data, places, name, probe, pixel_space, views, techniques, samples, seed, trusted, options, folder
    )  # fmt: skip
    return analyze_run(config, out, minutes=minutes, plan=plan, overwrite=overwrite, progress=progress)


def analyze_run(
    config: RunConfig,
    out: Path | str,
    *,
    minutes: float = MINUTES,
    plan: Path | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Analyze a model and data that a configuration describes.

    Args:
        config: the model, its data and what is asked for.
        out: folder for the report, TensorBoard's files and the results.
        minutes: see `analyze`, as for all that follow.
        plan: likewise.
        overwrite: likewise.
        progress: likewise.

    Returns:
        The report's path.

    Raises:
        AnalysisError: see its message.
    """
    folder, report = Path(out), ModelReport(config.title())
    check_names(config)
    results = open_results(folder)
    report.plan = plan_of([config], folder, minutes=minutes, file=plan, overwrite=overwrite, progress=progress)
    publisher = Publisher(folder, [report])
    try:
        fill_report(report, config, results, overwrite=overwrite, progress=progress, changed=publisher.changed)
    except KeyboardInterrupt:
        publish(folder, [report])
        raise
    return publish(folder, [report])
