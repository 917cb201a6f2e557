"""Tags that tell a run's views apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.snapshot import ViewLike

_QUOTES = "'\"()[]"
_IN_TAGS = ("method", "layers", "layer", "probe", "pixel_space")
"""Arguments that views write into their tags by themselves, or that are too long for one."""


def tag_endings(views: Sequence[ViewLike], last: str = "") -> dict[str, str]:
    """By view, what is added to its tags, so that no other view of its kind writes to them; nothing to most.

    Views of one kind are told apart by the arguments in which they differ and that are not the defaults:
    ``grad_cam/conv2/target_predicted`` beside ``grad_cam/conv2``.

    Args:
        views: of a run, in their order.
        last: what every tag ends with.
    """
    endings = {}
    taken: Counter[tuple[str, ...]] = Counter()
    for view in views:
        changed = view.changed()
        alike = [other.changed() for other in views if type(other) is type(view) and other is not view]
        others = [other for other in alike if other.get("method") == changed.get("method")]
        told = {name: value for name, value in changed.items() if any(other.get(name) != value for other in others)}
        words = (f"{name}_{value.strip(_QUOTES)}" for name, value in told.items() if name not in _IN_TAGS)
        ending = "_".join(re.sub(r"[^\w.-]+", "_", word).strip("_") for word in words)
        where = type(view).__name__, ending, *(changed.get(name, "") for name in ("method", "layers", "layer"))
        taken[where] += 1
        number = str(taken[where]) if taken[where] > 1 else ""
        endings[view.name] = "/".join(filter(None, ("_".join(filter(None, (ending, number))), last)))
    return endings


def with_ending(task: DrawTask, ending: str) -> DrawTask:
    """What is to be drawn, under tags that are longer by an ending.

    Args:
        task: of a view.
        ending: of its tags; nothing is changed if it is empty.
    """
    if not ending:
        return task
    arguments = {**task.arguments, "tag": f"{task.arguments['tag']}/{ending}"}
    return replace(task, arguments=arguments, scalars={f"{tag}/{ending}": x for tag, x in task.scalars.items()})
