"""The whole analysis: every checkpoint of a run by every view, the last by every technique, into one report."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed

from lightning_viz.analysis.checkpoint_run import Replay, validate
from lightning_viz.analysis.checkpoints import digest_of, read_checkpoint
from lightning_viz.analysis.data import Data, data_of
from lightning_viz.analysis.metrics_callback import ValidationMetrics
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.models import Model, describe, network
from lightning_viz.analysis.output import open_results, publish
from lightning_viz.analysis.results import Fault, ModelReport, Result, Results, as_plain
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.analysis.view_selection import views_for
from lightning_viz.callbacks.distributed import first_process
from lightning_viz.callbacks.probe import Probe
from lightning_viz.catalogue import techniques
from lightning_viz.descriptors import Technique
from lightning_viz.errors import AnalysisError, LightningVizWarning, UnsuitableModelError, ViewWarning
from lightning_viz.hooks.model_state import same_randomness
from lightning_viz.pixels import PixelSpace

__all__ = ["analyze"]

Progress = Callable[[str, int, int], None]
"""Told what begins, how many parts are done, and of how many."""


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
    """Understand a trained model: every view and technique that suits it, into TensorBoard and one report.

    Several checkpoints of a run become a time series. What was logged live is redrawn as it was then: a checkpoint
    holds the views' state. What is finished is kept in ``out`` as it comes, and not done again.

    Args:
        checkpoints: files and folders of one run; none: the model as it is.
        model: an instance, a class, or a class path with init args.
        data: as the model was trained with: a LightningDataModule, a DataLoader or a data set; or one of them named.
        out: folder for the report, TensorBoard's files and what is finished.
        name: of the model in the report; its class's if empty.
        probe: the samples that pictures show; those of the run's views, or 16 of the validation data, if omitted.
        pixel_space: how the inputs map to pixels; found in the data's ``Normalize`` transform if omitted.
        views: kinds of those that look (``"grad_cam"``); every one that suits the model if omitted.
        techniques: names of those that go deeper; every one that suits the model if omitted.
        samples: of the data, that techniques study.
        seed: of all that is random.
        trusted: load checkpoints that hold more than weights, which runs what they name.
        overwrite: do again what is done.
        trainer: options of Lightning's Trainer: accelerator, devices, strategy, precision.
        conflicts: folder of images with one class's shape and another's texture, for the shape bias.
        progress: told what begins.

    Returns:
        The report's path.

    Raises:
        AnalysisError: see its message.
    """
    given = [checkpoints] if isinstance(checkpoints, (str, Path)) else list(checkpoints)
    conflicting = None if conflicts is None else Path(conflicts)
    options = dict(trainer or {})
    case = RunConfig(
        model, data, given, name, probe, pixel_space, views, techniques, samples, seed, trusted, options, conflicting
    )  # fmt: skip
    return analyze_run(case, out, overwrite=overwrite, progress=progress)


def analyze_run(case: RunConfig, out: Path | str, *, overwrite: bool = False, progress: Progress | None = None) -> Path:
    """The same of a model that is described already.

    Args:
        case: the model.
        out: folder for the report, TensorBoard's files and what is finished.
        overwrite: do again what is done.
        progress: told what begins.

    Returns:
        The report's path.

    Raises:
        AnalysisError: see its message.
    """
    folder, study = Path(out), ModelReport(case.title())
    findings = open_results(folder)
    try:
        fill(study, case, findings, overwrite=overwrite, progress=progress)
    except KeyboardInterrupt:
        publish(folder, [study])
        raise
    return publish(folder, [study])


def fill(
    study: ModelReport, case: RunConfig, findings: Results, *, overwrite: bool = False, progress: Progress | None = None
) -> None:
    """Find out everything about one model; what is finished already is taken from the folder.

    Args:
        study: to which it is added as it comes.
        case: the model.
        findings: where those that are finished are, and new ones are put.
        overwrite: do again what is done.
        progress: told what begins.
    """
    progress = progress if first_process() else None
    series = case.series()
    parts = _parts(case, series)
    # All processes decide alike: nothing is written before the first pass, and in that all of them take part.
    found = {} if overwrite else {part: finding for part in parts if (finding := findings.get(part.name, part.key))}
    earlier: dict[str, Any] = {}
    for step, path in series.items():
        here = [part for part in parts if part.step == step]
        missing = [part for part in here if part not in found]
        study.waiting = [part.name for part in parts if part not in found]
        subject = None
        if missing:
            if progress is not None:
                progress(missing[0].name, len(found), len(parts))
            subject, looked = look(case, step, path, earlier, with_views=here[0] in missing)
            if here[0] in missing:
                found[here[0]] = looked
                if subject is not None:
                    findings.put(here[0].name, here[0].key, looked)
        study.views[step] = found[here[0]]
        earlier = {**earlier, **found[here[0]].state}
        for part in here[1:]:
            if part not in found and part.technique is not None and subject is not None:
                if progress is not None:
                    progress(part.name, len(found), len(parts))
                found[part] = run_technique(part.technique, subject)
                findings.put(part.name, part.key, found[part])
            if part in found:
                study.techniques[part.name] = found[part]
    study.waiting = []


@same_randomness()
def look(
    case: RunConfig, step: int, path: Path | None, earlier: Mapping[str, Any], *, with_views: bool = True
) -> tuple[ModelUnderStudy | None, Result]:
    """One validation pass of a checkpoint, on which all views hang.

    Args:
        case: the model.
        step: completed updates.
        path: of the checkpoint.
        earlier: the state of the views after the checkpoint before.
        with_views: or without any, for the samples alone.

    Returns:
        What techniques go on with, None on all processes but the first; and what the views found, of which the others
        have the state.

    Raises:
        AnalysisError: see its message.
    """
    checkpoint = None if path is None else read_checkpoint(path, trusted=case.trusted)
    content: Mapping[str, Any] = {} if checkpoint is None else checkpoint.content
    _seed(case.seed)
    net, data = network(case.model, checkpoint), data_of(case.data)
    metrics = ValidationMetrics()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ViewWarning)
        recorded = content if case.as_logged else {}
        views = views_for(recorded, earlier, probe=case.probe, pixel_space=case.pixel_space, kinds=case.views)
        probe = case.probe or (views[0].probe if views else Probe())
        replay = Replay(views if with_views else [], step, probe=probe, samples=case.samples)
        own = validate(net, data, [replay, metrics], **case.trainer)
    finding = replay.result
    finding.state = {view.name: view.kept() for view in replay.views}
    if not first_process():
        return None, finding
    if replay.samples is None:
        why = "; ".join(map(str, finding.faults)) or (
            "there are none, or the pass ran in processes of its own (then give the strategy 'ddp')"
        )
        raise AnalysisError(f"no samples of the data can be taken: {why}")
    notes = [*_notes(said), *([_SHARE] if own and torch.distributed.is_initialized() else [])]
    finding.numbers = {
        "model": describe(net, replay.samples),
        "fares": as_plain({**own, **metrics.values}),
    }
    if notes:
        finding.numbers["notes"] = notes
    pixel_space = case.pixel_space or replay.samples.pixel_space or PixelSpace()
    return ModelUnderStudy(case.title(), net, replay.samples, pixel_space, step, case.seed, case.conflicts), finding


_SHARE = "what the module logs itself is of the first process's share, where it does not log with sync_dist"


def _seed(seed: int) -> None:
    """Every library's generator, for models and data that are random when they are made."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def _notes(said: Sequence[warnings.WarningMessage]) -> list[str]:
    """What views said, each once; other warnings go on to whom they are for."""
    for one in said:
        if not issubclass(one.category, ViewWarning):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno, source=one.source)
    notes = dict.fromkeys(str(one.message) for one in said if issubclass(one.category, ViewWarning))
    return [note.removeprefix("lightning_viz: ") for note in notes]


def run_technique(technique: Technique, study: ModelUnderStudy) -> Result:
    """Run a technique of an analysis. An error in it becomes a fault of its result; an unsuitable model gives nothing.

    Args:
        technique: of the catalogue.
        study: the model and its samples.
    """
    result = Result()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LightningVizWarning)  # the pictures say it
            for output in technique.load()(study):
                result.add(output, study.step)
    except UnsuitableModelError:
        pass
    except Exception as error:
        result.faults.append(Fault(technique.name, f"{type(error).__name__}: {error}"))
    return result


@dataclass(frozen=True)
class _Part:
    """A part of an analysis that is done as a whole: the views of a checkpoint, or a technique."""

    name: str
    key: str
    step: int
    technique: Technique | None = None


def _parts(case: RunConfig, series: Mapping[int, Path | None]) -> list[_Part]:
    """All of them, in order. The views of a checkpoint go on from those before."""
    known = techniques()
    names = list(known) if case.techniques is None else list(case.techniques)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise AnalysisError(f"there is no technique {unknown[0]!r}: {', '.join(known)}")
    parts: list[_Part] = []
    before, last = "", max(series)
    for step, path in series.items():
        content = None if path is None else digest_of(path)
        before = case.key(content, f"views after {before}")
        parts.append(_Part(f"views-{step:08d}", before, step))
        if step == last:
            parts += [_Part(name, case.key(content, name), step, known[name]) for name in names]
    return parts
