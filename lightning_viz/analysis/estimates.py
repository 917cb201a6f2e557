"""Estimates of what an analysis takes: what views and techniques cost, times how fast the model runs here."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.parameter import is_lazy

from lightning_viz.analysis.checkpoint_pass import CheckpointPass, run_checkpoint
from lightning_viz.analysis.checkpoint_run import draws_alike
from lightning_viz.analysis.files import files_in
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.plan import (
    LOOKS,
    TECHNIQUE,
    VIEW,
    VIEWS,
    Estimate,
    Plan,
    Rung,
    choose_plan,
    with_fewer_looks,
)
from lightning_viz.analysis.results import Result
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.callbacks.view import View
from lightning_viz.catalogue import views
from lightning_viz.catalogue_types import Technique, ViewEntry
from lightning_viz.costs import Cost, Facts, cost_of
from lightning_viz.errors import AnalysisError, LayerNotFoundError
from lightning_viz.hooks.calls import call_model
from lightning_viz.hooks.feature_maps import feature_count
from lightning_viz.hooks.layers import attends, select_layers
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.pytree import on_device, spatial_input
from lightning_viz.pixels import clamp_inputs
from lightning_viz.robustness.corruptions import corrupt

Clock = Callable[[], float]
"""Seconds since some moment."""

_BATCH = 8  # samples in the passes that are timed, as most batches here are
_TIMES = 2
_BATCHES = 2  # of validation data, from which a model's speed is taken; as many as Lightning's sanity check takes
_SPREAD = ("gaussian_noise", "motion_blur", "fog", "jpeg_compression")  # one corruption of each group


@dataclass(frozen=True)
class Speeds:
    """How fast a model and its machine are, in seconds.

    Attributes:
        forward: of a forward pass of one sample.
        image: to corrupt one image.
        page: to draw a page.
        checkpoint: to load a checkpoint and its data, without its passes.
    """

    forward: float = 0.0
    image: float = 0.0
    page: float = 0.0
    checkpoint: float = 0.0

    def seconds(self, cost: Cost) -> float:
        """What a cost takes."""
        return cost.passes * self.forward + cost.images * self.image + cost.pages * self.page


def make_plan(
    configs: Sequence[RunConfig], minutes: float, techniques: Mapping[str, Technique], *, key: str = ""
) -> Plan:
    """Measure models, and choose how far the views and techniques of an analysis go.

    Args:
        configs: the model, or several that are compared: one plan holds for all of them.
        minutes: for all of it.
        techniques: that are wanted.
        key: of what the plan is made for.
    """
    together: list[Sequence[Estimate]] = []
    passes = forward = 0.0
    for config in configs:
        series = config.series()
        step, path = list(series.items())[-1]
        found, facts, speeds = measure(config, step, path)
        together.append(estimates_of(config, techniques, facts, speeds, found.recorded, len(series)))
        passes += len(series) * (speeds.checkpoint + speeds.forward * max(found.available, facts.head))
        forward = max(forward, speeds.forward)
    return choose_plan(summed(together), minutes, passes=passes, forward=forward, key=key)


def summed(together: Sequence[Sequence[Estimate]]) -> list[Estimate]:
    """Estimates of several models as of one: each rung takes what it takes of all.

    Args:
        together: of each model, the same views and techniques in the same order.
    """
    return [
        replace(same[0], seconds=[sum(seconds) for seconds in zip(*(each.seconds for each in same), strict=True)])
        for same in zip(*together, strict=True)
    ]


def measure(
    config: RunConfig, step: int, path: Path | None, clock: Clock = time.perf_counter
) -> tuple[CheckpointPass, Facts, Speeds]:
    """What costs depend on, and how fast the model is, on the first of its validation data.

    Args:
        config: the model and the data.
        step: completed updates.
        path: of the checkpoint.
        clock: tells the time.
    """
    if isinstance(config.model, nn.Module) and any(map(is_lazy, config.model.parameters())):
        config = replace(config, model=deepcopy(config.model))  # else its weights would be there before they are to be
    few = min(config.samples, config.probe.samples if config.probe else _BATCH)
    trainer = {**config.trainer, "limit_val_batches": _BATCHES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the analysis itself says it
        started = clock()
        try:
            found = run_checkpoint(replace(config, samples=few, trainer=trainer), step, path)
        except AnalysisError:  # weights alone can be drawn, or the analysis says it
            found = CheckpointPass(None, Result(), {})
        took = clock() - started
    if found.study is None:
        return found, Facts(), Speeds(checkpoint=took)
    facts = facts_of(found.study, samples=min(config.samples, found.available or config.samples))
    speeds = measured_speeds(found.study, clock, corrupts=facts.classes > 0)
    return found, facts, replace(speeds, checkpoint=took)


def measured_speeds(study: ModelUnderStudy, clock: Clock = time.perf_counter, *, corrupts: bool = True) -> Speeds:
    """How fast a model runs on its samples, and the machine corrupts and draws.

    Args:
        study: the model and its samples.
        clock: tells the time.
        corrupts: whether images are corrupted, else they take no time.
    """
    count = min(_BATCH, len(study.samples))
    inputs = on_device(study.model, study.samples.part(0, count))
    with evaluation_mode(study.model), torch.no_grad():
        forward = _timed(lambda: call_model(study.model, inputs), clock) / count
    images = study.images
    image = 0.0
    if images is not None and corrupts:
        one = clamp_inputs(images[:1], study.pixel_space, math.inf)

        def corrupted() -> None:
            for kind in _SPREAD:
                corrupt(one, kind, 3, pixel_space=study.pixel_space)

        image = _timed(corrupted, clock, times=1) / len(_SPREAD)
    return Speeds(forward, image, _timed(_draw, clock))


def facts_of(study: ModelUnderStudy, *, samples: int) -> Facts:
    """What costs depend on.

    Args:
        study: the model and some of its samples.
        samples: that techniques may use.
    """
    image, model, classifies = spatial_input(study.samples.inputs), study.model, study.classifies
    channels = 0
    with suppress(LayerNotFoundError):
        channels = next((feature_count(layer) for layer in select_layers(model, "last_maps").values()), None) or 1
    return Facts(
        samples=samples,
        head=min(samples, study.samples.head),
        classes=study.classes if classifies else 0,
        channels=channels,
        sides=() if image is None else tuple(image.shape[2:]),
        labeled=study.labels is not None,
        attends=attends(model),
        conflicts=0 if study.conflicts is None else len(files_in(study.conflicts)[0]),
        private=study.private,
    )


def estimates_of(
    config: RunConfig,
    techniques: Mapping[str, Technique],
    facts: Facts,
    speeds: Speeds,
    recorded: Sequence[View],
    checkpoints: int,
) -> list[Estimate]:
    """What each kind of views, and each technique, would take.

    Args:
        config: which views are wanted.
        techniques: that are wanted.
        facts: of model and samples.
        speeds: of model and machine.
        recorded: the views of the run.
        checkpoints: at which views may look.
    """
    estimates = []
    for kind, entry in views().items():
        if kind not in (config.views if config.views is not None else views()):
            continue
        logged = [view for view in recorded if view.kind == kind]
        looks = []
        for rung in entry.rungs:
            added = (entry.load()(**arguments) for arguments in rung)
            some = [*logged, *(view for view in added if not any(draws_alike(view, other) for other in logged))]
            passes = sum(view.passes(facts) for view in some)
            looks.append(speeds.seconds(Cost(passes, pages=entry.pages * len(some))))
        rungs = looks_of(entry, checkpoints)
        counts = [rung[LOOKS] for rung in rungs]
        seconds = [looks[min(place, len(looks) - 1)] * count for place, count in enumerate(counts)]
        estimates.append(Estimate(VIEW + kind, rungs, seconds, required=config.views is not None))
    for name, technique in techniques.items():
        seconds = [speeds.seconds(_cost(technique, facts, rung)) for rung in technique.rungs]
        estimates.append(Estimate(TECHNIQUE + name, technique.rungs, seconds, required=config.techniques is not None))
    return estimates


def looks_of(entry: ViewEntry, checkpoints: int) -> list[Rung]:
    """The settings of a kind of views, from the whole to the least.

    Args:
        entry: of the catalogue.
        checkpoints: at which it may look.
    """
    return with_fewer_looks([{VIEWS: [dict(one) for one in rung]} for rung in entry.rungs], checkpoints)


def _cost(technique: Technique, facts: Facts, settings: Mapping[str, Any]) -> Cost:
    """What a technique costs; nothing if it does not suit the model, which it says at once."""
    lacks = (
        ("classes" in technique.needs and not facts.classes)
        or ("labels" in technique.needs and not facts.labeled)
        or ("cues" in technique.needs and not facts.conflicts)
        or (technique.shows_inputs and facts.private)
    )
    return Cost() if lacks else cost_of(technique.load(), facts, **settings)


def _timed(work: Callable[[], Any], clock: Clock, times: int = _TIMES) -> float:
    work()
    seconds = []
    for _ in range(times):
        started = clock()
        work()
        seconds.append(clock() - started)
    return median(seconds)


def _draw() -> None:
    """As long as a page takes, roughly: a large picture made, scaled and encoded."""
    from io import BytesIO

    pixels = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    for _ in range(4):
        Image.fromarray(pixels).resize((512, 512), Image.Resampling.BICUBIC).save(BytesIO(), "png", optimize=True)
