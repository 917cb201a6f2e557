"""Which of a probe's samples a page shows: chosen at the first look, and then the same, so that each stays in place."""

from __future__ import annotations

from typing import Any

from lightning_viz.callbacks.snapshot import Snapshot
from lightning_viz.errors import InvalidArgumentError

MOST_SHOWN = 16
_KEY = "shown"


def check_shown(samples: int) -> None:
    """Raise if a page cannot show so many samples.

    Args:
        samples: an argument of a view.
    """
    if not 1 <= samples <= MOST_SHOWN:
        raise InvalidArgumentError(f"samples is {samples}: give 1 to {MOST_SHOWN}")


def shown_samples(state: dict[str, Any], snapshot: Snapshot, most: int, count: int) -> list[int]:
    """Numbers of the samples to show, in order.

    Of a network that has most samples right at the first look, its mistakes stand first, on half of the places. One
    that has not learned yet is wrong almost everywhere, which tells nothing: its probe's first samples are shown.

    Args:
        state: of the view, in which the choice is kept.
        snapshot: of the look.
        most: how many to show.
        count: how many there are.
    """
    if _KEY not in state:
        verdicts = snapshot.verdicts()[:count]
        wrong = [index for index, verdict in enumerate(verdicts) if verdict.mistaken]
        first = wrong[: most // 2] if 2 * len(wrong) < len(verdicts) else []
        state[_KEY] = [*first, *(index for index in range(count) if index not in first)][:most]
    return [index for index in state[_KEY] if index < count]
