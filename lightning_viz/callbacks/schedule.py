"""When a view looks at the model: by epochs, by updates, or by a list of them, as far as training may be held."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Union

from lightning_viz.errors import InvalidArgumentError

Steps = Union[Sequence[int], Literal["log"], None]

FREE_SECONDS = 60.0
"""Held in all before the budget begins to bind: short runs get every picture."""
_LEDGER = 4096  # looks


@dataclass(frozen=True)
class Schedule:
    """Occasions by epochs, by completed updates, or by a list of them; where several are given, at each.

    Attributes:
        every_n_epochs: at the end of every n-th epoch; 1 if nothing else is given.
        every_n_train_steps: whenever the number of completed updates is a multiple.
        steps: at these numbers of completed updates; ``"log"``: four a decade, 1, 2, 3, 6, 10, 18, 32, 56, 100, ...
    """

    every_n_epochs: int | None = None
    every_n_train_steps: int | None = None
    steps: Steps = None

    def __post_init__(self) -> None:
        for name in ("every_n_epochs", "every_n_train_steps"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InvalidArgumentError(
                    f"{name} is {value!r}: give 1 or more (a view leaves the run by not being added)"
                )
        if isinstance(self.steps, str):
            if self.steps != "log":
                raise InvalidArgumentError(f"steps is {self.steps!r}: give a list of numbers, or 'log'")
        elif self.steps is not None:
            if not isinstance(self.steps, Iterable):
                raise InvalidArgumentError(f"steps is {self.steps!r}: give a list, [{self.steps!r}], or 'log'")
            if any(not isinstance(step, int) or step < 0 for step in self.steps):
                raise InvalidArgumentError(
                    f"steps is {list(self.steps)!r}: give whole numbers of completed updates, 0 or more"
                )
            object.__setattr__(self, "steps", tuple(sorted(set(self.steps))))

    def at_step(self, step: int) -> bool:
        """Whether a look is due once `step` updates are completed.

        >>> [step for step in range(200) if Schedule(steps="log").at_step(step)]
        [0, 1, 2, 3, 6, 10, 18, 32, 56, 100, 178]
        """
        if self.every_n_train_steps is not None and step % self.every_n_train_steps == 0:
            return True
        if self.steps == "log":
            return step == 0 or step in _logarithmic(step)
        return self.steps is not None and step in self.steps

    def at_epoch_end(self, epoch: int) -> bool:
        """Whether a look is due at the end of epoch number `epoch`, counted from 0."""
        every = self.every_n_epochs
        if every is None and self.every_n_train_steps is None and self.steps is None:
            every = 1
        return every is not None and (epoch + 1) % every == 0


def _logarithmic(step: int) -> set[int]:
    """The logarithmic steps of a step's own decade."""
    decade = 10 ** (len(str(step)) - 1)
    return {round(decade * 10 ** (quarter / 4)) for quarter in range(4)}


class OverheadBudget:
    """Keeps account of the seconds for which training was held, per view, against those for which it ran.

    A view may look if, with what its look is expected to take, the time held in all stays within `FREE_SECONDS` and a
    share of the time trained so far; what the last look will take, which is never dropped, is set aside. A look takes
    what writing its pictures takes, too, later. Views that have held training least come first.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._held: defaultdict[str, float] = defaultdict(float)
        self._last: dict[str, float] = {}
        self._writing: dict[str, tuple[int, float]] = {}  # by view, the last step that was written, and its seconds
        self._unwritten: defaultdict[str, deque[int]] = defaultdict(lambda: deque(maxlen=_LEDGER))  # steps of looks
        self._picture = 0.0  # seconds that the last picture took to be written
        self._measured = False
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

    @property
    def held_by(self) -> dict[str, float]:
        """The same by view; by "" of what no view is there for."""
        return dict(self._held)

    @contextmanager
    def measured(
        self, views: Callable[[], Collection[str]], apart: Callable[[], float] = lambda: 0.0
    ) -> Iterator[None]:
        """An event for which training is held; what inside it is charged to no view is shared by all.

        Args:
            views: those that share.
            apart: seconds that are measured, and not yet charged.
        """
        if self._measured:  # a part of another event
            yield
            return
        started, before, self._measured = time.monotonic(), self.held + apart(), True
        try:
            yield
        finally:
            self._measured = False
            rest = time.monotonic() - started - (self.held + apart() - before)
            sharing = tuple(views()) or ("",)
            for view in sharing:
                self._held[view] += rest / len(sharing)

    def book(self, view: str, seconds: float) -> None:
        """Book what held training for a view, and was no look."""
        self._held[view] += seconds

    def wrote(self, view: str, step: int, seconds: float) -> None:
        """Book what a logger took for one of the pictures of a look."""
        self._held[view] += seconds
        last, before = self._writing.get(view, (step, 0.0))
        self._writing[view] = step, seconds + (before if last == step else 0.0)
        unwritten = self._unwritten[view]
        while unwritten and unwritten[0] <= step:
            unwritten.popleft()
        self._picture = seconds

    def may_write(self, share: float) -> bool:
        """Whether one more picture may be written now, if it takes as long as the last."""
        return self.held + self._picture <= FREE_SECONDS + share * self.trained

    def look_seconds(self, view: str) -> float:
        """What a view's last look took; 0 before the first."""
        return self._last.get(view, 0.0)

    def _cost(self, view: str) -> float:
        """What a look is expected to take, with its pictures."""
        return self.look_seconds(view) + self._writing.get(view, (0, 0.0))[1]

    def charge(self, view: str, step: int, seconds: float) -> None:
        """Book what a look at a step took."""
        self._held[view] += seconds
        self._last[view] = seconds
        self._unwritten[view].append(step)
        self.ledger.append((view, step, seconds))

    def affordable(self, shares: dict[str, float]) -> set[str]:
        """Those of the views that may look now.

        Args:
            shares: for each view that is due, the share of the training time that may be held (``max_overhead``).
        """
        unwritten = sum(len(steps) * self._writing.get(view, (0, 0.0))[1] for view, steps in self._unwritten.items())
        expected = self.held + sum(map(self._cost, self._last)) + unwritten
        chosen = set()
        for view in sorted(shares, key=lambda name: self._held[name]):
            cost = self._cost(view)
            if expected + cost <= FREE_SECONDS + shares[view] * self.trained:
                expected += cost
                chosen.add(view)
        return chosen
