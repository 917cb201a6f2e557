"""What processes that watch a pass together tell one another of it.

The sums, which are small, go to every process and are merged on each in the same way. What is kept of single samples
(images, as a rule) then goes to the first process alone, and only of samples that are still in the merged sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Sums = Mapping[str, Mapping[str, Any]]
"""By view and call, what a view summed up; it has a ``merge``, and may have ``kept`` by sample."""
Kept = Mapping[tuple[str, str], Mapping[int, Any]]
"""By view and call, what is kept of samples."""


@dataclass(frozen=True)
class Share:
    """What one process tells the others of its pass.

    Attributes:
        sums: without what is kept of samples.
        faults: of views that could not watch, in words.
        samples: that passed.
    """

    sums: Sums
    faults: Mapping[str, str]
    samples: int


def share_of(sums: Sums, faults: Mapping[str, str], samples: int) -> Share:
    """A process's share, small enough for all.

    Args:
        sums: of this process.
        faults: likewise.
        samples: likewise.
    """
    return Share(_with(sums, {}), dict(faults), samples)


def merged(shares: Sequence[Share | None]) -> Sums:
    """All processes' sums together; the same wherever it is called.

    Args:
        shares: of all processes, in order; None of one that had nothing to give.
    """
    whole: dict[str, dict[str, Any]] = {}
    for share in shares:
        for view, calls in (share.sums if share is not None else {}).items():
            sums = whole.setdefault(view, {})
            for call, each in calls.items():
                sums[call] = sums[call].merge(each) if call in sums else each
    return whole


def kept_of(mine: Sums, whole: Sums) -> Kept:
    """What this process keeps of samples that are in the merged sums.

    Args:
        mine: this process's sums.
        whole: the merged ones.
    """
    found = {}
    for view, calls in whole.items():
        for call, each in calls.items():
            kept = getattr(mine.get(view, {}).get(call), "kept", {})
            wanted = set(each.samples.ravel().tolist()) if kept else ()
            found[view, call] = {number: kept[number] for number in wanted if number in kept}
    return found


def with_kept(whole: Sums, kept: Sequence[Kept | None]) -> Sums:
    """Merged sums with what is kept of their samples; of several processes that keep one, the first's.

    Args:
        whole: the merged sums.
        kept: of all processes, in order.
    """
    every: dict[tuple[str, str], dict[int, Any]] = {}
    for some in reversed([one for one in kept if one is not None]):
        for key, found in some.items():
            every.setdefault(key, {}).update(found)
    return _with(whole, every)


def _with(sums: Sums, kept: Kept) -> Sums:
    return {
        view: {
            call: replace(each, kept=kept.get((view, call), {})) if hasattr(each, "kept") else each
            for call, each in calls.items()
        }
        for view, calls in sums.items()
    }
