"""The first process's heartbeat: while it looks, the others wait for it outside of training's collectives."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch.distributed
from torch.distributed.distributed_c10d import PrefixStore

from lightning_viz.callbacks.distributed import connected
from lightning_viz.callbacks.run_protocol import Run
from lightning_viz.callbacks.snapshot import ViewLike

BEAT_SECONDS = 0.5
STALE_SECONDS = 4.0
"""Without a beat for so long, the first process is no longer waited for."""
MOST_TIMEOUTS = 10.0
"""For which a look is waited for; then it hangs, and training's own time-out ends the run."""
_FIRST_EVENTS = 3  # a first look may wait until a step has shown how the model is called
_LONGEST_PAUSE = 0.02  # seconds between two questions to the store

_fits = count()  # the same on all processes, since each of them fits as often


class Heartbeat:
    """Keeps the time-out of a collective from running while the first process looks.

    Each process knows by itself which events of the run are turns, those at which a view may look; whether one does is
    the first's decision. At a turn the others wait on the process group's store until the first has passed it, as long
    as its heart beats. Nothing is sent at other events.

    Args:
        store: of the process group; None if there are no other processes, or nothing to wait for.
        first: whether this is the first process.
        views: of the run, the same on all processes.
        timeout: of its collectives, in seconds.
        together: whether all processes look, and the others wait for what the first does after that.
    """

    def __init__(
        self,
        store: Any = None,
        *,
        first: bool = True,
        views: Sequence[ViewLike] = (),
        timeout: float = 0.0,
        together: bool = False,
    ):
        self._store, self._first, self._views, self._timeout = store, first, views, timeout
        self._together = together
        self._events = self._turns = 0
        self.is_turn = False
        """Whether the event that comes now is one at which a view may look; the same on all processes."""
        self._validated, self._stopped = False, threading.Event()
        if store is not None and first:
            threading.Thread(target=self._beat, args=(store,), name="lightning_viz", daemon=True).start()

    @property
    def longest_look(self) -> float:
        """Seconds that a look may take if it is to be begun again: a quarter of the time-out."""
        return math.inf if self._store is None else self._timeout / 4

    @property
    def waits(self) -> bool:
        """Whether this process waits for the first."""
        return self._store is not None and not self._first

    @property
    def alone(self) -> bool:
        """Whether another process has left the run, so that nothing is worth a look any more; not where all look."""
        return self._first and not self._together and self._read("left") > 0

    def validated(self) -> None:
        """A validation pass has ended: the next event is a turn."""
        self._validated = True

    @contextmanager
    def turn(self, asks: Callable[[ViewLike], bool] | None = None) -> Iterator[None]:
        """An event of the run, at which the first process may look inside; the others come inside after it.

        Where all look, the others come inside with it, and wait for it afterwards.

        Args:
            asks: whether a view's schedule has an occasion; None: the event is a turn in any case.
        """
        self._events += 1
        begins, self._validated = self._validated or self._events <= _FIRST_EVENTS, False
        self.is_turn = begins or asks is None or any(map(asks, self._views))
        if self._store is None or not self.is_turn:
            yield
            return
        self._turns += 1
        if not self._first:
            if not self._together:
                self._wait()
            yield
            if self._together:
                self._wait()
            return
        self._tell("begun")
        try:
            yield
        finally:
            self._tell("passed")

    def close(self) -> None:
        """Nobody has to wait for this process any more."""
        self._tell("over" if self._first else "left")
        self._stopped.set()
        self._store = None

    def _wait(self) -> None:
        """Until the first process has passed this turn, or is not to be waited for."""
        started = beaten = time.monotonic()
        beats, pause = -1, _LONGEST_PAUSE / 64
        while self._store is not None and not self._read("over") and self._read("passed") < self._turns:
            now, latest = time.monotonic(), self._read("beats")
            beats, beaten = (latest, now) if latest != beats else (beats, beaten)
            patience = self._timeout * (MOST_TIMEOUTS if self._read("begun") >= self._turns else 0.25)
            if now - beaten > STALE_SECONDS or now - started > patience:
                return
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _beat(self, store: Any) -> None:
        try:
            while not self._stopped.wait(BEAT_SECONDS):
                store.add("beats", 1)
        except Exception:  # the store is gone, and with it the others
            return

    def _read(self, name: str) -> int:
        """A number on the store, which is not waited for; 0 without a store."""
        return self._add(name, 0)

    def _tell(self, name: str) -> None:
        self._add(name, 1)

    def _add(self, name: str, amount: int) -> int:
        try:
            return 0 if self._store is None else int(self._store.add(name, amount))
        except Exception:  # the process that keeps it has ended: training's next collective tells
            self._store = None
            return 0


def heartbeat_of(run: Run, views: Sequence[ViewLike], *, together: bool = False) -> Heartbeat:
    """The heartbeat of a fit; one that does nothing where there are no other processes, or no store. All must call it.

    Args:
        run: of so many processes.
        views: all that it has.
        together: whether all processes look.
    """
    if not run.trains or not connected(run):
        return Heartbeat(views=views)
    number = next(_fits)
    try:
        group = torch.distributed.distributed_c10d._get_default_store()  # none with MPI
        store = PrefixStore(f"lightning_viz/{number}", group)
        timeout, first = run.collective_timeout, run.is_global_zero
        return Heartbeat(store, first=first, views=views, timeout=timeout, together=together)
    except Exception:  # nor a thread, say: the others then find no beat
        return Heartbeat(views=views)
