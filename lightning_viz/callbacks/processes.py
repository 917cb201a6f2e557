"""What several processes of a run tell one another, so that none waits for another for ever."""

from __future__ import annotations

import pickle
from typing import Any

import torch.distributed

from lightning_viz.callbacks.lightning import Trainer

NOTHING = None
"""What a process has given that had nothing to give, or whose gift could not be sent."""


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


def connected(trainer: Trainer) -> bool:
    """Whether there are other processes, with which this one can speak."""
    found = torch.distributed.is_available() and torch.distributed.is_initialized()
    return found and trainer.world_size > 1 and torch.distributed.get_world_size() == trainer.world_size


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
