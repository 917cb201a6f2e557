"""A digest of a run for programs: what `Health` and `Mistakes` found at their last look, and the pictures of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_viz.callbacks.facts import FACTS
from lightning_viz.callbacks.writers.log_files import tag_path
from lightning_viz.catalogue import board_tag
from lightning_viz.errors import AnalysisError, MalformedFileError
from lightning_viz.plain_text import plain_text

__all__ = ["DIGEST_VERSION", "digest"]

DIGEST_VERSION = 1
"""Of the form of a digest: it grows when a field changes its meaning or goes away, not when one is added."""

_MOST_BYTES = 16 * 2**20  # of a file


def digest(run: Path | str) -> dict[str, Any]:
    """What `Health` and `Mistakes` know of a run, as plain values: the output of ``lightning-viz digest``.

    .. code-block:: text

        version   1
        run       the folder
        health    a list, one entry for each `Health` view of the run:
          step      completed updates at its last look
          samples   from which units were judged
          findings  what is wrong with layers, the worst first; empty if nothing is:
            layer     its name
            kind      "broken" (NaN or infinite), "still" (its weights do not move), "dead", "saturated",
                      "grown" or "faded" (activations 1,000 times as large or small as at first), "idle" (not trained)
            certain   whether it is beyond doubt that something is wrong
            since     completed updates at the first look that found it without a break
            words     the same for people
          picture   tag, step, and where it is stored (see below)
        mistakes  a list, one entry for each `Mistakes` view of the run:
          step      completed updates at its last look
          samples   that were scored
          wrong     how many of them the model gets wrong
          flawed    how many more have scores that are NaN
          worst     the samples with the largest loss, the largest first:
            index     in the data set that the view watched: the validation set, in its order
            loss      cross-entropy; null if it is infinite
            truth, prediction                 number and name of the class, {"index": 3, "name": "cat"}
            confidence                        probability of the prediction; null if it is not known
          picture   tag, step, and where it is stored:
            board_tag  the tag under which TensorBoard shows it
            file       the picture, or the file of events that holds it, below the folder; null if it is not there

    Nothing that is read runs code.

    Args:
        run: folder of the run's log, or one above it.

    Raises:
        AnalysisError: no such folder, nothing in it, or several runs.
        MalformedFileError: a file does not hold what it should.
    """
    folder = _run_folder(Path(run))
    pages = [_read(path) for path in sorted((folder / FACTS).glob("*.json"))]
    held = _pictures_in_events(folder)
    found: dict[str, Any] = {"version": DIGEST_VERSION, "run": str(folder), "health": [], "mistakes": []}
    for page in pages:
        kind = page["tag"].partition("/")[0]
        if kind not in ("health", "mistakes"):
            continue
        entry = {name: value for name, value in page.items() if name != "tag"}
        tag, step = page["tag"], page["step"]
        place = {"tag": tag, "board_tag": board_tag(tag), "step": step, "file": _file_of(folder, tag, step, held)}
        found[kind].append({**entry, "picture": place})
    return found


def _run_folder(folder: Path) -> Path:
    """The folder of the run's log, at a place or below it."""
    if not folder.is_dir():
        raise AnalysisError(f"there is no folder {folder}: give that of a run")
    runs = [folder] if (folder / FACTS).is_dir() else sorted(path.parent for path in folder.rglob(FACTS))
    if not runs:
        raise AnalysisError(
            f"the folder {folder} holds no {FACTS}: give that of a run that Health or Mistakes watched, with a log on "
            "this machine"
        )
    if len(runs) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in runs[:4])
        raise AnalysisError(
            f"the folder {folder} holds {len(runs)} runs ({names}{', ...' * (len(runs) > 4)}): give one"
        )
    return runs[0]


def _read(path: Path) -> dict[str, Any]:
    """What a view wrote."""
    if path.stat().st_size > _MOST_BYTES:
        raise MalformedFileError(f"{path} is larger than {_MOST_BYTES:,} bytes")
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise MalformedFileError(f"{path} holds no JSON: {error}") from error
    step = content.get("step") if isinstance(content, Mapping) else None
    if not isinstance(content, dict) or not isinstance(content.get("tag"), str) or type(step) is not int:
        raise MalformedFileError(f"{path} holds no tag and step of a picture")
    return content


def _file_of(folder: Path, tag: str, step: int, held: Mapping[tuple[str, int], str]) -> str | None:
    """Where the picture of a tag and step is stored below a folder, of whose events `held` says what they hold."""
    place = Path(tag_path(tag)) / f"{step:08d}.png"
    within = ".." not in place.parts and (folder / place).is_file()
    return place.as_posix() if within else held.get((plain_text(board_tag(tag)), step))


def _pictures_in_events(folder: Path) -> dict[tuple[str, int], str]:
    """The files of events by the tags and steps of what they hold."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader  # takes a while to import

    return {
        (value.tag, int(event.step)): path.name
        for path in sorted(folder.glob("events.out.tfevents.*"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    }
