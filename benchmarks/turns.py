"""Tools side by side: arms that take turns, on the same network, so that a machine's moods cancel."""

import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from torch import nn

Arms = dict[str, Callable[[], object]]
SHORT = 0.01


def network(name: str) -> nn.Module:
    return getattr(torchvision.models, name)(weights=None).eval()


def now() -> float:
    """Seconds, when a GPU that is in use has done all that it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def in_turns(arms: Arms, unit: str | tuple[str, ...], rounds: int) -> dict[str, float]:
    """Medians of each arm's time over the (fastest) unit's, in the same round; the first round warms up.

    An arm of less than a hundredth of a second runs as often as fills it, and its mean counts.
    """
    ratios: dict[str, list[float]] = {name: [] for name in arms}
    units = (unit,) if isinstance(unit, str) else unit
    times = dict.fromkeys(arms, 1)
    for index in range(rounds + 1):
        took = {}
        for name, arm in arms.items():
            started = now()
            for _ in range(times[name]):
                arm()
            took[name] = (now() - started) / times[name]
        if not index:
            for name, arm in arms.items():
                started = now()
                arm()
                times[name] = max(1, round(SHORT / (now() - started)))
            continue
        least = min(took[name] for name in units)
        for name, seconds in took.items():
            ratios[name].append(seconds / least)
    return {name: statistics.median(values) for name, values in ratios.items()}
