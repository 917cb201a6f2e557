"""Which samples of a ranked page are new since the step before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_KEY = "ranked"


def new_among(state: dict[str, Any], step: int, samples: Sequence[Sequence[int]]) -> list[list[bool]] | None:
    """Of each sample in rankings whether it was not in its ranking at the step before; None at the first step.

    A step that is replayed says the same.

    Args:
        state: of the view, or a part of it, in which the samples of two steps are kept.
        step: completed updates.
        samples: their numbers, in rankings that are the same ones at each step.
    """
    kept = state.setdefault(_KEY, {"step": None, "before": None, "shown": None})
    if kept["step"] != step:
        kept.update(step=step, before=kept["shown"])
    kept["shown"] = [list(ranking) for ranking in samples]
    if kept["before"] is None:
        return None
    pairs = zip(samples, kept["before"], strict=True)
    return [[number not in before for number in ranking] for ranking, before in pairs]
