"""The parts of an analysis, each of which is finished, kept and shown by itself: passes, kinds of views, techniques."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_viz.analysis.checkpoint_pass import Looks, run_checkpoint
from lightning_viz.analysis.checkpoint_run import Listener
from lightning_viz.analysis.files import digest_of
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.plan import LOOKS, TECHNIQUE, VIEW, VIEWS, Plan, Rung, looked_at
from lightning_viz.analysis.results import LEFT_OUT, Fault, ModelReport, Result, Results, joined_results
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.callbacks.distributed import first_process
from lightning_viz.callbacks.run import error_text
from lightning_viz.catalogue import techniques, views
from lightning_viz.catalogue_types import Technique
from lightning_viz.errors import AnalysisError, LightningVizWarning, UnsuitableModelError
from lightning_viz.hints import unknown_name

Progress = Callable[[str, int, int, float], None]
"""Called with what begins, how many parts are done, of how many, and an estimate of the seconds that are left."""


def kinds_of(config: RunConfig) -> list[str]:
    """The kinds of views that are wanted, in the report's order."""
    return [kind for kind in views() if config.views is None or kind in config.views]


def techniques_of(config: RunConfig) -> dict[str, Technique]:
    """The techniques that are wanted, by name, in their order."""
    known = techniques()
    return {name: known[name] for name in (known if config.techniques is None else config.techniques)}


def check_names(config: RunConfig) -> None:
    """Views and techniques that are named must exist.

    Raises:
        AnalysisError: one does not.
    """
    kinds, names = config.views or (), config.techniques or ()
    if words := unknown_name("view", kinds, views()) or unknown_name("technique", names, techniques()):
        raise AnalysisError(words)


def announced(progress: Progress | None) -> Progress:
    """What is called with each part; it does nothing on all processes but the first, and if nobody asks."""
    return progress if progress is not None and first_process() else lambda *_: None


def fill_report(
    report: ModelReport,
    config: RunConfig,
    results: Results,
    *,
    overwrite: bool,
    progress: Progress | None,
    changed: Callable[[], None] = lambda: None,
) -> None:
    """Add to a report all that is to be known of its model; what the folder has finished is not computed again.

    Args:
        report: with the plan.
        config: the model and its data.
        results: those that are finished.
        overwrite: whether these are computed again.
        progress: called with each part that begins.
        changed: called with each part that is finished.
    """
    series = config.series()
    parts = _parts(config, series, report.plan)
    # All processes decide alike: nothing is written before the first pass, and in that all of them take part.
    known = {} if overwrite else {part: found for part in parts if (found := results.get(part.name, part.key))}
    work = _Work(report, parts, results, announced(progress), changed)
    for part, result in known.items():
        work.take(part, result)
    earlier: dict[str, Any] = {}
    for step, path in series.items():
        here = [part for part in parts if part.step == step]
        if any(part not in work.finished for part in here):
            _complete(config, step, path, earlier, here, work)
        for part in here:
            if part.kind and part in work.finished:
                earlier = {**earlier, **work.finished[part].state}
    report.waiting = []


def _complete(
    config: RunConfig, step: int, path: Path | None, earlier: Mapping[str, Any], here: Sequence[_Part], work: _Work
) -> None:
    """Finish the parts of one checkpoint that are not finished."""
    missing = [part for part in here if part not in work.finished]
    of_kind = {part.kind: part for part in here if part.kind}
    own = next(part for part in here if not part.kind and part.technique is None)
    work.begin(own if own in missing else missing[0])
    listener = Listener(
        begins=lambda kind: work.begin(of_kind[kind]) if kind in of_kind else None,
        finished=lambda kind, result: work.finish(of_kind[kind], result),
    )
    looks = Looks(
        kinds=of_kind.keys(),
        missing={part.kind for part in missing},
        arguments={kind: part.settings[VIEWS] for kind, part in of_kind.items()},
        listener=listener,
    )
    found = run_checkpoint(config, step, path, earlier, looks=looks)
    if own in missing:
        work.finish(own, found.result)
    for kind, result in found.by_kind.items():
        work.finish(of_kind[kind], result)
    for part in of_kind.values():  # without a view that suits the model
        if part not in work.finished:
            work.finish(part, Result())
    if found.study is None:
        return
    for part in missing:
        if part.technique is not None:
            work.begin(part)
            work.finish(part, run_technique(part.technique, found.study, part.settings))


@dataclass
class _Work:
    """Parts as they are finished: kept, shown in the report, and told."""

    report: ModelReport
    parts: Sequence[_Part]
    results: Results
    progress: Progress
    changed: Callable[[], None]
    finished: dict[_Part, Result] = field(default_factory=dict)
    current: _Part | None = None

    def begin(self, part: _Part) -> None:
        """It is told once, with the time that what is not finished was estimated to take."""
        if part is self.current:
            return
        self.current = part
        left = sum(each.seconds for each in self.parts if each not in self.finished)
        self.progress(part.name, len(self.finished), len(self.parts), left)

    def finish(self, part: _Part, result: Result) -> None:
        """It is kept, on the first process, and shown."""
        if first_process():
            self.results.put(part.name, part.key, result)
        self.take(part, result)
        self.changed()

    def take(self, part: _Part, result: Result) -> None:
        """It is shown: of the views of one checkpoint in their order, whichever is finished first."""
        self.finished[part] = result
        self.report.waiting = [each.name for each in self.parts if each not in self.finished]
        if part.technique is None:
            here = [
                self.finished[each]
                for each in self.parts
                if each.step == part.step and each.technique is None and each in self.finished
            ]
            self.report.views[part.step] = joined_results(here)
            self.report.views = dict(sorted(self.report.views.items()))
        else:
            names = [each.name for each in self.parts]
            self.report.techniques[part.name] = result
            self.report.techniques = dict(sorted(self.report.techniques.items(), key=lambda pair: names.index(pair[0])))


def run_technique(technique: Technique, study: ModelUnderStudy, settings: Rung | None = None) -> Result:
    """Run a technique of an analysis. An error in it becomes a fault of its result; why it was left out, a number.

    Args:
        technique: of the catalogue.
        study: the model and its samples.
        settings: of its function; the whole if omitted.
    """
    result = Result()
    if technique.shows_inputs and study.private:
        result.faults.append(Fault(technique.name, "left out: its pictures show samples, which the run keeps private"))
        return result
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LightningVizWarning)  # the pictures say it
            for output in technique.load()(study, **(settings or {})):
                result.add(output, study.step)
    except UnsuitableModelError as error:
        result.numbers[LEFT_OUT] = {technique.name: str(error)}
    except Exception as error:
        result.faults.append(Fault(technique.name, error_text(error)))
    return result


@dataclass(frozen=True)
class _Part:
    """A part of an analysis that is finished as a whole: a checkpoint's own pass, a kind of views at it, a technique.

    Attributes:
        name: of its folder among the results.
        key: of all that its result depends on.
        step: of the checkpoint.
        kind: of the views; empty of others.
        technique: None of others.
        settings: of the plan.
        seconds: that it was estimated to take.
    """

    name: str
    key: str
    step: int
    kind: str = ""
    technique: Technique | None = None
    settings: Rung = field(default_factory=dict, hash=False)
    seconds: float = 0.0


def _parts(config: RunConfig, series: Mapping[int, Path | None], plan: Plan) -> list[_Part]:
    """All parts that the plan has, in order. Views at a checkpoint continue those at the one before."""
    parts: list[_Part] = []
    steps, last = list(series), max(series)
    before: dict[str, str] = {}
    chosen = {kind: settings for kind in kinds_of(config) if (settings := plan.settings(VIEW + kind)) is not None}
    at = {kind: looked_at(steps, settings[LOOKS]) for kind, settings in chosen.items()}
    for step, path in series.items():
        content = None if path is None else digest_of(path)
        own = _Part(f"model-{step:08d}", config.key(content, "model"), step, seconds=plan.passes / len(series))
        parts.append(own)
        for kind, settings in chosen.items():
            if step in at[kind]:
                given = json.dumps(settings[VIEWS], sort_keys=True)
                before[kind] = config.key(content, f"{kind} {given} after {before.get(kind, '')}")
                seconds = plan.choices[VIEW + kind].seconds / len(at[kind])
                parts.append(_Part(f"{kind}-{step:08d}", before[kind], step, kind, None, settings, seconds))
        for name, technique in techniques_of(config).items() if step == last else ():
            if (settings := plan.settings(TECHNIQUE + name)) is not None:
                key = config.key(content, f"{name} {json.dumps(settings, sort_keys=True)}")
                parts.append(_Part(name, key, step, "", technique, settings, plan.choices[TECHNIQUE + name].seconds))
    return parts
