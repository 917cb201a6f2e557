"""The analysis of a run: every checkpoint by every view, the last by every technique, in one report."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import nn

from lightning_viz.analysis.checkpoint_run import Replay, validate, views_for
from lightning_viz.analysis.data import Data, data_of
from lightning_viz.analysis.files import digest_of
from lightning_viz.analysis.model_under_study import ModelUnderStudy, of_one_tensor
from lightning_viz.analysis.models import Model, describe, network, read_checkpoint
from lightning_viz.analysis.report.report import report as write_report
from lightning_viz.analysis.results import (
    LEFT_OUT,
    Fault,
    ModelReport,
    Result,
    Results,
    as_plain,
    replaced,
    write_events,
)
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.analysis.validation_metrics import ValidationMetrics
from lightning_viz.archive import write_whole
from lightning_viz.callbacks.distributed import first_process
from lightning_viz.callbacks.probe import Probe, Samples
from lightning_viz.callbacks.run import error_text
from lightning_viz.callbacks.serialization import is_private
from lightning_viz.catalogue import techniques, views
from lightning_viz.catalogue_types import Technique
from lightning_viz.errors import AnalysisError, LightningVizWarning, UnsuitableModelError, ViewWarning
from lightning_viz.hints import unknown_name
from lightning_viz.hooks.model_state import same_randomness
from lightning_viz.pixels import PixelSpace
from lightning_viz.plain_text import file_name

__all__ = ["analyze"]

Progress = Callable[[str, int, int], None]
"""Called with what begins, how many parts are done, and of how many."""


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
    progress: Progress | None = None,
) -> Path:
    """Analyze a trained model by every view and technique that suits it, in TensorBoard and one report.

    Several checkpoints of a run become a time series. What was logged live is redrawn as it was then: a checkpoint
    holds the views' state. Each result is kept in ``out`` as soon as it is finished, and not computed again.

    Args:
        checkpoints: files and folders of one run; none: the model as it is.
        model: an instance, a class, or a class path with init args.
        data: as the model was trained with: a LightningDataModule, a DataLoader or a data set; or one of them named.
        out: folder for the report, TensorBoard's files and the results.
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
    return analyze_run(config, out, overwrite=overwrite, progress=progress)


def analyze_run(
    config: RunConfig, out: Path | str, *, overwrite: bool = False, progress: Progress | None = None
) -> Path:
    """Analyze a model and data that a configuration describes; for the other arguments see `analyze`."""
    folder, report = Path(out), ModelReport(config.title())
    results = open_results(folder)
    try:
        fill_report(report, config, results, overwrite=overwrite, progress=progress)
    except KeyboardInterrupt:
        publish(folder, [report])
        raise
    return publish(folder, [report])


def fill_report(
    report: ModelReport, config: RunConfig, results: Results, *, overwrite: bool, progress: Progress | None
) -> None:
    """Add to a report all that is to be known of its model; what the folder has finished is not computed again."""
    announce: Progress = progress if progress is not None and first_process() else lambda *_: None
    kinds, names = config.views or (), config.techniques or ()
    if words := unknown_name("view", kinds, views()) or unknown_name("technique", names, techniques()):
        raise AnalysisError(words)
    series = config.series()
    parts = _parts(config, series)
    # All processes decide alike: nothing is written before the first pass, and in that all of them take part.
    finished = {} if overwrite else {part: known for part in parts if (known := results.get(part.name, part.key))}
    earlier: dict[str, Any] = {}
    for step, path in series.items():
        views_here, *techniques_here = [part for part in parts if part.step == step]
        missing = [part for part in (views_here, *techniques_here) if part not in finished]
        report.waiting = [part.name for part in parts if part not in finished]
        study = None
        if missing:
            announce(missing[0].name, len(finished), len(parts))
            study, result = run_checkpoint(config, step, path, earlier, with_views=views_here in missing)
            if views_here in missing:
                finished[views_here] = result
                if first_process():
                    results.put(views_here.name, views_here.key, result)
        report.views[step] = finished[views_here]
        earlier = {**earlier, **finished[views_here].state}
        for part in techniques_here:
            if part not in finished and part.technique is not None and study is not None:
                announce(part.name, len(finished), len(parts))
                finished[part] = run_technique(part.technique, study)
                results.put(part.name, part.key, finished[part])
            if part in finished:
                report.techniques[part.name] = finished[part]
    report.waiting = []


@same_randomness()
def run_checkpoint(
    config: RunConfig,
    step: int,
    path: Path | None,
    earlier: Mapping[str, Any],
    *,
    with_views: bool = True,
    check: Callable[[nn.Module], None] | None = None,
) -> tuple[ModelUnderStudy | None, Result]:
    """Run one validation pass of a checkpoint, which all views share.

    Args:
        config: the model and the data.
        step: completed updates.
        path: of the checkpoint.
        earlier: state of the views after the checkpoint before.
        with_views: draw the views; else the pass takes samples alone.
        check: raises if the model does not suit, before data are read and the model is run.

    Returns:
        The model under study, None on all processes but the first; and the result of the views, of which the other
        processes have only the state.

    Raises:
        AnalysisError: see its message.
    """
    checkpoint = None if path is None else read_checkpoint(path, trusted=config.trusted)
    random.seed(config.seed)  # models and data may be random when they are created
    np.random.seed(config.seed % 2**32)  # noqa: NPY002
    torch.manual_seed(config.seed)
    net = network(config.model, checkpoint)
    if check is not None:
        check(net)
    data = data_of(config.data)
    private = checkpoint is not None and is_private(checkpoint.content)
    metrics = ValidationMetrics()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ViewWarning)
        recorded = checkpoint.content if checkpoint is not None and config.as_logged else {}
        views = views_for(
            recorded,
            earlier,
            probe=config.probe,
            pixel_space=config.pixel_space,
            kinds=config.views,
            detector=getattr(data, "listed", False),
            private=private,
        )
        probe = config.probe or (views[0].probe if views else Probe())
        replay = Replay(views if with_views else [], step, probe=probe, samples=config.samples)
        failure: AnalysisError | None = None
        try:
            own = validate(net, data, [replay, metrics], **config.trainer)
        except AnalysisError as error:
            own, failure = {}, error
    result = replay.result
    result.state = {view.name: view.kept() for view in replay.views}
    if failure is not None and not result.pictures:
        raise failure
    if not first_process():
        return None, result
    if replay.samples is None:
        why = "; ".join(dict.fromkeys(fault.message for fault in result.faults)) or (
            "there are none, or the pass ran in processes of its own (then give the strategy 'ddp')"
        )
        reason = failure or AnalysisError(f"no samples of the data can be taken: {why}")
        if not result.pictures:
            raise reason
        result.faults = [Fault("samples", f"weights alone are drawn: {reason}", step)]
        result.numbers = {"model": describe(net, Samples((), None, 0))}
        return None, result
    notes = [*_notes(caught), *([_SHARE] if own and torch.distributed.is_initialized() else [])]
    result.numbers = {"model": describe(net, replay.samples), "fares": as_plain({**own, **metrics.values})}
    if notes:
        result.numbers["notes"] = notes
    pixel_space = config.pixel_space or replay.samples.pixel_space or PixelSpace()
    net, samples = of_one_tensor(net, replay.samples)
    study = ModelUnderStudy(config.title(), net, samples, pixel_space, step, config.seed, config.conflicts)
    study = replace(study, private=private)
    return study, result


def model_alone(config: RunConfig, step: int, path: Path | None) -> ModelUnderStudy:
    """A checkpoint's model without samples, for what needs its weights alone.

    Args:
        config: the model.
        step: completed updates.
        path: of the checkpoint.

    Raises:
        AnalysisError: see its message.
    """
    torch.manual_seed(config.seed)
    checkpoint = None if path is None else read_checkpoint(path, trusted=config.trusted)
    pixel_space = config.pixel_space or PixelSpace()
    samples = Samples(torch.empty(0), None, 0)
    return ModelUnderStudy(config.title(), network(config.model, checkpoint), samples, pixel_space, step, config.seed)


_SHARE = "values that the module logs without sync_dist are of the first process's share of the data alone"


def _notes(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """Warnings of views, each once; all others are passed on."""
    for warning in caught:
        if not issubclass(warning.category, ViewWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno, source=warning.source
            )
    notes = dict.fromkeys(str(warning.message) for warning in caught if issubclass(warning.category, ViewWarning))
    return [note.removeprefix("lightning_viz: ") for note in notes]


def run_technique(technique: Technique, study: ModelUnderStudy) -> Result:
    """Run a technique of an analysis. An error in it becomes a fault of its result; why it was left out, a number."""
    result = Result()
    if technique.shows_inputs and study.private:
        result.faults.append(Fault(technique.name, "left out: its pictures show samples, which the run keeps private"))
        return result
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LightningVizWarning)  # the pictures say it
            for output in technique.load()(study):
                result.add(output, study.step)
    except UnsuitableModelError as error:
        result.numbers[LEFT_OUT] = {technique.name: str(error)}
    except Exception as error:
        result.faults.append(Fault(technique.name, error_text(error)))
    return result


@dataclass(frozen=True)
class _Part:
    """A part of an analysis that is finished as a whole: the views of a checkpoint, or a technique."""

    name: str
    key: str
    step: int
    technique: Technique | None = None


def _parts(config: RunConfig, series: Mapping[int, Path | None]) -> list[_Part]:
    """All parts, in order. The views of a checkpoint continue those of the checkpoint before."""
    known = techniques()
    names = list(known) if config.techniques is None else list(config.techniques)
    parts: list[_Part] = []
    before, last = "", max(series)
    for step, path in series.items():
        content = None if path is None else digest_of(path)
        before = config.key(content, f"views after {before}")
        parts.append(_Part(f"views-{step:08d}", before, step))
        if step == last:
            parts += [_Part(name, config.key(content, name), step, known[name]) for name in names]
    return parts


def open_results(folder: Path) -> Results:
    """Open the results of an analysis, in a new folder or in that of an earlier analysis.

    Args:
        folder: created if it does not exist.

    Raises:
        AnalysisError: it cannot be written to, or holds a ``tensorboard`` folder that is not of an analysis.
    """
    board, kept = folder / "tensorboard", folder / "findings"
    if board.exists() and not kept.is_dir():
        raise AnalysisError(f"{board} is not of an analysis and would be replaced: give another --out")
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AnalysisError(f"{folder} cannot be written to ({error.strerror}): give another --out") from error
    return Results(kept)


def publish(folder: Path, reports: Sequence[ModelReport], *, together: Result | None = None) -> Path:
    """Write TensorBoard's files and the report, each whole or not at all; on the first process alone.

    Args:
        folder: takes ``tensorboard/`` and ``report.html``.
        reports: of one model, or of several that are compared.
        together: pictures of several models in one.

    Returns:
        The report's path.
    """
    if not first_process():
        return folder / "report.html"
    with replaced(folder / "tensorboard") as board:
        for report in reports:
            write_events(board / slug(report.name) if len(reports) > 1 else board, report.findings)
        if together is not None:
            write_events(board / "compared", [together])
    write_whole(folder / "report.html", write_report(reports, together=together).encode())
    return folder / "report.html"


def slug(name: str) -> str:
    """A name as a folder's.

    >>> slug("../plain: 1"), slug("..")
    ('_plain__1', 'model')
    """
    return file_name(name, re.sub(r"[^\w.-]", "_", name).strip(".") or "model")
