"""The plan of an analysis: one that is given, one that an earlier run kept, or a new one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_viz.analysis.estimates import looks_of, make_plan
from lightning_viz.analysis.files import digest_of
from lightning_viz.analysis.parts import Progress, announced, kinds_of, techniques_of
from lightning_viz.analysis.plan import LOOKS, TECHNIQUE, VIEW, VIEWS, Plan, Rung, read_plan, whole_plan
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.callbacks.distributed import first_process, from_the_first_process
from lightning_viz.catalogue import views
from lightning_viz.catalogue_types import Technique
from lightning_viz.errors import AnalysisError, MalformedFileError

PLAN = "plan.json"
"""File of the plan, beside the results."""


def plan_of(
    configs: Sequence[RunConfig],
    folder: Path,
    *,
    minutes: float,
    file: Path | str | None,
    overwrite: bool,
    progress: Progress | None,
) -> Plan:
    """The plan of an analysis: that of a file, that which an earlier run has kept in the folder, or a new one.

    All processes of a run get the same. It is kept in the folder by the first.

    Args:
        configs: the model, or several that are compared.
        folder: of the results.
        minutes: that it may take, roughly.
        file: of a plan that is repeated instead.
        overwrite: make a new one though there is one.
        progress: told that speed is measured.
    """
    known = techniques_of(configs[0])
    names = [*(VIEW + kind for kind in kinds_of(configs[0])), *(TECHNIQUE + name for name in known)]
    kept = folder / PLAN
    if file is not None:
        plan = read_plan(Path(file))
        _check_plan(plan, names, known)
    else:
        key = _plan_key(configs, minutes)
        earlier = None if overwrite else _kept_plan(kept, key, names, known)
        if earlier is not None:
            return earlier
        if not names or math.isinf(minutes):
            plan = whole_plan(_wholes(configs, known), key=key)
        else:
            announced(progress)("measuring the model", 0, 1, 0.0)
            plan = from_the_first_process(make_plan(configs, minutes, known, key=key))
    if first_process():
        plan.write(kept)
    return plan


def _wholes(configs: Sequence[RunConfig], known: Mapping[str, Technique]) -> dict[str, Rung]:
    """The settings of all views and techniques if nothing is shortened."""
    looks = max(len(config.series()) for config in configs)
    return {VIEW + kind: looks_of(views()[kind], looks)[0] for kind in kinds_of(configs[0])} | {
        TECHNIQUE + name: technique.rungs[0] for name, technique in known.items()
    }


def _plan_key(configs: Sequence[RunConfig], minutes: float) -> str:
    """Of what a plan depends on but speed."""
    contents = [[None if path is None else digest_of(path) for path in config.series().values()] for config in configs]
    keys = [config.key(",".join(map(str, each)), "plan") for config, each in zip(configs, contents, strict=True)]
    return hashlib.sha256(f"{minutes} {keys}".encode()).hexdigest()


def _kept_plan(file: Path, key: str, names: Sequence[str], known: Mapping[str, Technique]) -> Plan | None:
    """The plan of an earlier run of the same analysis, which goes on; None if there is none."""
    try:
        plan = read_plan(file)
        _check_plan(plan, names, known)
    except (OSError, MalformedFileError, AnalysisError):
        return None
    return plan if plan.key == key else None


def _check_plan(plan: Plan, names: Sequence[str], known: Mapping[str, Technique]) -> None:
    """A plan must say something of all views and techniques, and nothing that they do not have.

    Raises:
        AnalysisError: it does not.
    """
    rungs: dict[str, Rung] = {VIEW + kind: {VIEWS: (), LOOKS: 1} for kind in views()}
    rungs |= {TECHNIQUE + name: technique.rungs[0] for name, technique in known.items()}
    for name in names:
        settings = plan.settings(name)
        if settings is None:
            continue
        own = [settings.keys() ^ rungs[name].keys()]
        if name.startswith(VIEW):
            arguments = zip(settings.get(VIEWS, ()), views()[name.removeprefix(VIEW)].offline, strict=False)
            own += [given.keys() ^ expected.keys() for given, expected in arguments]
        if any(own):
            raise AnalysisError(f"the plan is of another version of {name!r}: make it anew, without --plan")
