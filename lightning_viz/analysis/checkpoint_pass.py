"""One validation pass of a checkpoint: what its views draw, how the model fares, and the model with its samples."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import nn

from lightning_viz.analysis.checkpoint_run import Listener, Replay, validate, views_for
from lightning_viz.analysis.data import data_of
from lightning_viz.analysis.model_under_study import ModelUnderStudy, of_one_tensor
from lightning_viz.analysis.models import describe, network, read_checkpoint
from lightning_viz.analysis.recipes import recorded_views
from lightning_viz.analysis.results import Fault, Result
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.analysis.validation_metrics import ValidationMetrics
from lightning_viz.archive import json_values
from lightning_viz.callbacks.distributed import first_process
from lightning_viz.callbacks.probe import Probe, Samples
from lightning_viz.callbacks.serialization import is_private
from lightning_viz.callbacks.view import View
from lightning_viz.errors import AnalysisError, ViewWarning
from lightning_viz.hooks.model_state import same_randomness
from lightning_viz.pixels import PixelSpace


@dataclass(frozen=True)
class Looks:
    """Which views look at a checkpoint.

    Attributes:
        kinds: of the views, whether or not they are finished: what they watch and the samples that they take are those
            of an analysis that was not interrupted.
        missing: those of them that are not finished, and look.
        arguments: by kind, those of each view that is added to those of the run.
        listener: is told of each kind.
    """

    kinds: Container[str]
    missing: Container[str]
    arguments: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    listener: Listener = field(default_factory=Listener)


@dataclass(frozen=True)
class CheckpointPass:
    """What one validation pass of a checkpoint gives.

    Attributes:
        study: the model under study; None on all processes but the first, and if there are no samples.
        result: of the pass itself: the model, how it fares, and what failed.
        by_kind: results of the views that were not finished before its end.
        recorded: the views of the run, as its checkpoint has them.
        available: how many validation samples there are, as far as is known.
    """

    study: ModelUnderStudy | None
    result: Result
    by_kind: Mapping[str, Result]
    recorded: Sequence[View] = ()
    available: int = 0


@same_randomness()
def run_checkpoint(
    config: RunConfig,
    step: int,
    path: Path | None,
    earlier: Mapping[str, Any] | None = None,
    *,
    looks: Looks | None = None,
    check: Callable[[nn.Module], None] | None = None,
) -> CheckpointPass:
    """Run one validation pass of a checkpoint, which all views share.

    Args:
        config: the model and the data.
        step: completed updates.
        path: of the checkpoint.
        earlier: state of the views after the checkpoint before.
        looks: the views that look; the pass takes samples alone if omitted.
        check: raises if the model does not suit, before data are read and the model is run.

    Raises:
        AnalysisError: see its message.
    """
    checkpoint = None if path is None else read_checkpoint(path, trusted=config.trusted)
    _seed_all(config.seed)  # models and data may be random when they are created
    net = network(config.model, checkpoint)
    if check is not None:
        check(net)
    data = data_of(config.data)
    private = checkpoint is not None and is_private(checkpoint.content)
    metrics = ValidationMetrics()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ViewWarning)
        content = checkpoint.content if checkpoint is not None and config.as_logged else {}
        recorded = recorded_views(content)
        views = views_for(
            content,
            earlier or {},
            probe=config.probe,
            pixel_space=config.pixel_space,
            kinds=config.views,
            arguments=None if looks is None else looks.arguments,
            private=private,
        )
        probe = config.probe or (views[0].probe if views else Probe())
        looking = [] if looks is None else [view for view in views if view.kind in looks.kinds]
        how: dict[str, Any] = {} if looks is None else {"looking": looks.missing, "listener": looks.listener}
        replay = Replay(looking, step, probe=probe, samples=config.samples, **how)
        failure: AnalysisError | None = None
        try:
            own = validate(net, data, [replay, metrics], **config.trainer)
        except AnalysisError as error:
            own, failure = {}, error
    by_kind, result = replay.results()
    found = CheckpointPass(None, result, by_kind, recorded, replay.available)
    if failure is not None and not replay.result.pictures:
        raise failure
    if not first_process():
        return found
    if replay.samples is None:
        result.numbers = {"model": describe(net, Samples((), None, 0))}
        return _without_samples(found, replay, failure, step)
    notes = [*_notes(caught), *([_SHARE] if own and torch.distributed.is_initialized() else [])]
    result.numbers = {"model": describe(net, replay.samples), "fares": json_values({**own, **metrics.values})}
    if notes:
        result.numbers["notes"] = notes
    pixel_space = config.pixel_space or replay.samples.pixel_space or PixelSpace()
    net, samples = of_one_tensor(net, replay.samples)
    study = ModelUnderStudy(config.title(), net, samples, pixel_space, step, config.seed, config.conflicts)
    return replace(found, study=replace(study, private=private))


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def _without_samples(found: CheckpointPass, replay: Replay, failure: AnalysisError | None, step: int) -> CheckpointPass:
    """A pass of which no samples can be taken, so that views of weights alone were drawn.

    Raises:
        AnalysisError: not even these.
    """
    why = "; ".join(dict.fromkeys(fault.message for fault in replay.result.faults)) or (
        "there are none, or the pass ran in processes of its own (then give the strategy 'ddp')"
    )
    reason = failure or AnalysisError(f"no samples of the data can be taken: {why}")
    if not replay.result.pictures:
        raise reason
    found.result.faults = [Fault("samples", f"weights alone are drawn: {reason}", step)]
    return replace(found, by_kind={kind: replace(each, faults=[]) for kind, each in found.by_kind.items()})


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
