"""What each look of a training takes: seconds, and the most memory beyond what was held before it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from memory import reset_peak, resident, status
from turns import now

from lightning_viz.callbacks.session import Session

MIB = 2**20


@dataclass
class Looks:
    """Of one training, in order.

    Attributes:
        seconds: that training was held.
        peaks: bytes, on the GPU that is in use, and else resident.
    """

    seconds: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)


@contextmanager
def measured_looks() -> Iterator[Looks]:
    """Measure the looks of trainings inside."""
    looks = Looks()

    def look(session: Session, chosen: Any, *arguments: Any, plain: Any = Session._look) -> None:
        before = _held()
        started = now()
        plain(session, chosen, *arguments)
        if chosen:
            looks.seconds.append(now() - started)
            looks.peaks.append(_peak() - before)

    with patch.object(Session, "_look", look):
        yield looks


def _held() -> float:
    """What is held now, from where on the peak counts."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    reset_peak()
    return resident() * MIB


def _peak() -> float:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else status("VmHWM") * MIB
