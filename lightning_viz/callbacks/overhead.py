"""How long training may be held."""

from __future__ import annotations

import time
from collections import defaultdict, deque

FREE_SECONDS = 60.0
"""Held in all before the budget begins to bind: short runs get every picture."""
_LEDGER = 4096  # looks


class OverheadBudget:
    """Keeps account of the seconds for which training was held, per view, against those for which it ran.

    A view may look if, with what its look is expected to take, the time held in all stays within `FREE_SECONDS` and a
    share of the time trained so far; what the last look will take, which is never dropped, is set aside. Views that
    have held training least come first.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._held: defaultdict[str, float] = defaultdict(float)
        self._last: dict[str, float] = {}
        self.ledger: deque[tuple[str, int, float]] = deque(maxlen=_LEDGER)
        """View, step and seconds of the last looks."""

    @property
    def held(self) -> float:
        """Seconds for which training was held so far."""
        return sum(self._held.values())

    @property
    def trained(self) -> float:
        """Seconds of training so far, looks not counted."""
        return time.monotonic() - self._started - self.held

    def charge(self, view: str, step: int, seconds: float) -> None:
        """Book what a look at a step took."""
        self._held[view] += seconds
        self._last[view] = seconds
        self.ledger.append((view, step, seconds))

    def affordable(self, shares: dict[str, float]) -> set[str]:
        """Those of the views that may look now.

        Args:
            shares: for each view that is due, the share of the training time that may be held (``max_overhead``).
        """
        expected = self.held + sum(self._last.values())
        chosen = set()
        for view in sorted(shares, key=lambda name: self._held[name]):
            cost = self._last.get(view, 0.0)
            if expected + cost <= FREE_SECONDS + shares[view] * self.trained:
                expected += cost
                chosen.add(view)
        return chosen
