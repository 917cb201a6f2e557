"""Tools side by side: arms that take turns, on the same network, so that a machine's moods cancel."""

import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from torch import nn

Arms = dict[str, Callable[[], object]]


def network(name: str) -> nn.Module:
    return getattr(torchvision.models, name)(weights=None).eval()


def now() -> float:
    """Seconds, when a GPU that is in use has done all that it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def in_turns(arms: Arms, unit: str | tuple[str, ...], rounds: int) -> dict[str, float]:
    """Medians of each arm's time over the (fastest) unit's, in the same round; the first round warms up."""
    ratios: dict[str, list[float]] = {name: [] for name in arms}
    units = (unit,) if isinstance(unit, str) else unit
    for index in range(rounds + 1):
        took = {}
        for name, arm in arms.items():
            started = now()
            arm()
            took[name] = now() - started
        least = min(took[name] for name in units)
        if index:
            for name, seconds in took.items():
                ratios[name].append(seconds / least)
    return {name: statistics.median(values) for name, values in ratios.items()}
