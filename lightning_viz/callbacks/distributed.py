"""What several processes of a run tell one another, so that none waits for ever, and which samples each has."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch.distributed
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, IterableDataset, SequentialSampler

from lightning_viz.callbacks.run import Trainer, package_of

NOTHING = None
"""What a process has given that had nothing to give, or whose gift could not be sent."""


class Numbering(NamedTuple):
    """Which samples of a data set pass on a process: `first`, `first + stride`, ..., of those before `end`.

    What comes at or behind the end doubles a sample, to give all processes equally many. Of a data set that makes its
    batches by itself, `batches` is that end, counted in batches.
    """

    first: int = 0
    stride: int = 1
    end: float = np.inf
    batches: float = np.inf

    def among(self, passed: int, size: int, batch: int = 0) -> NDArray[np.int64]:
        """The numbers of a batch's samples, without the doubles, which are last.

        Args:
            passed: samples before the batch.
            size: of the batch.
            batch: how many batches passed before it.
        """
        if self.first + self.stride * batch >= self.batches:
            size = 0
        numbers = self.first + self.stride * np.arange(passed, passed + size)
        return numbers[numbers < self.end]


def from_every_process(trainer: Trainer, mine: Any) -> list[Any]:
    """What each process gives, in order, on every one of them. All must call it, whatever happened to them before.

    Args:
        trainer: of the run.
        mine: anything that can be pickled; if it cannot, `NOTHING` arrives.
    """
    if not connected(trainer):
        return [mine]
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, _packed(mine))
    return [_unpacked(one) for one in everyone]


def to_the_first_process(trainer: Trainer, mine: Any) -> list[Any]:
    """What each process gives, in order, on the first; nothing on the others. All must call it.

    Args:
        trainer: of the run.
        mine: as for `from_every_process`.
    """
    if not connected(trainer):
        return [mine]
    first = torch.distributed.get_rank() == 0
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.gather_object(_packed(mine), everyone if first else None, dst=0)
    return [_unpacked(one) for one in everyone] if first else []


def from_the_first_process(mine: Any) -> Any:
    """What the first process gives, on every one of them; all must call it. Nothing is exchanged if there is one.

    Args:
        mine: anything that can be pickled.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return mine
    given = [mine]
    torch.distributed.broadcast_object_list(given, src=0)
    return given[0]


def first_process() -> bool:
    """Whether this is a run's first process, which alone writes; also where there is no Trainer, or none any more."""
    return bool(package_of().utilities.rank_zero_only.rank == 0)


def connected(trainer: Trainer) -> bool:
    """Whether there are other processes, with which this one can speak."""
    found = torch.distributed.is_available() and torch.distributed.is_initialized()
    return found and trainer.world_size > 1 and torch.distributed.get_world_size() == trainer.world_size


def numbering(trainer: Trainer, loader: Any) -> Numbering:
    """How the samples that pass on this process are numbered, so that no two processes give one number to two samples.

    Args:
        trainer: of the run.
        loader: as it is in validation.
    """
    if trainer.world_size == 1:
        return Numbering()
    sampler: Any = getattr(loader, "sampler", None)
    whole = getattr(loader, "batch_sampler", loader) is None  # the sampler gives numbers of batches, or lists
    if hasattr(sampler, "num_replicas") and hasattr(sampler, "rank"):
        dataset = getattr(sampler, "dataset", None)
        end = np.inf if dataset is None else len(dataset)
        return Numbering(sampler.rank, sampler.num_replicas, **{"batches" if whole else "end": end})
    if _sees_all(loader, sampler):
        return Numbering(end=np.inf if trainer.is_global_zero else 0)
    return Numbering(trainer.global_rank, trainer.world_size)


def _sees_all(loader: Any, sampler: Any) -> bool:
    """Whether a loader goes through the whole data set in order, on each process."""
    if isinstance(getattr(loader, "dataset", None), IterableDataset):
        return False
    batches = getattr(loader, "batch_sampler", None)
    if type(sampler) is BatchSampler:  # with ``batch_size=None``
        batches, sampler = sampler, sampler.sampler
    return type(sampler) is SequentialSampler and (batches is None or type(batches) is BatchSampler)


def _packed(mine: Any) -> bytes:
    """Pickled beforehand: what fails must not fail in the middle of the exchange, with the others waiting."""
    try:
        return pickle.dumps(mine)
    except Exception:
        return b""


def _unpacked(content: bytes) -> Any:
    try:
        return pickle.loads(content) if content else NOTHING
    except Exception:
        return NOTHING


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
