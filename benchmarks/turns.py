"""Tools side by side: arms that take turns, on the same network, so that a machine's moods cancel."""

import statistics
import time
from collections.abc import Callable

import torchvision
from torch import nn

Arms = dict[str, Callable[[], object]]


def network(name: str) -> nn.Module:
    return getattr(torchvision.models, name)(weights=None).eval()


def in_turns(arms: Arms, unit: str | tuple[str, ...], rounds: int) -> dict[str, float]:
    """Medians of each arm's time over the (fastest) unit's, in the same round; the first round warms up."""
    ratios: dict[str, list[float]] = {name: [] for name in arms}
    units = (unit,) if isinstance(unit, str) else unit
    for index in range(rounds + 1):
        took = {}
        for name, arm in arms.items():
            started = time.perf_counter()
            arm()
            took[name] = time.perf_counter() - started
        least = min(took[name] for name in units)
        if index:
            for name, seconds in took.items():
                ratios[name].append(seconds / least)
    return {name: statistics.median(values) for name, values in ratios.items()}
