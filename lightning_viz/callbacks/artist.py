"""One process that draws: how it is started, spoken to and ended. What it runs is in ``draw_worker``."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from lightning_viz.callbacks import draw_worker
from lightning_viz.callbacks.drawing_queue import Job


class Artist:
    """A process that draws, and the threads that serve it.

    Args:
        serve: what two of the threads do, beside one that sends.
        low: whether it leaves the cores to others.
        folder: where it keeps what is not drawn in the end.
        spare: bytes of the folder's disk that are left to others.
        log: what it says besides its answers.

    Raises:
        OSError: no process can be started.
        RuntimeError: no thread can be started.

    Attributes:
        low: whether its priority is low.
        retired: whether it takes no more tasks.
        job: what it draws.
        hung: why it was killed, in words, if it hung.
        ended: set when its last answer is read.
    """

    def __init__(
        self,
        serve: tuple[Callable[[Artist], None], Callable[[Artist], None]],
        *,
        low: bool,
        folder: Path | None,
        spare: float,
        log: IO[bytes],
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", draw_worker.__name__, str(os.getpid()), str(folder or ""), str(spare)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=draw_worker.environment(),
        )
        self.low = low and _lowered(self.process.pid)
        self.retired = False
        self.job: Job | None = None
        self.hung = ""
        self.ended = threading.Event()
        self._outbox: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        try:
            for work in (serve[0], Artist._send, serve[1]):
                threading.Thread(target=work, args=(self,), name="lightning_viz", daemon=True).start()
        except (RuntimeError, MemoryError):
            self.process.kill()
            self.close()  # ends the threads that have begun
            with self.process:  # closes its pipes, and waits for its end
                raise

    def send(self, *message: Any) -> None:
        """Send a message; returns at once.

        Args:
            message: see ``draw_worker``.
        """
        self._outbox.put(message)

    def receive(self) -> tuple[Any, float, float]:
        """Wait for the answer to the next task.

        Returns:
            What is drawn, or the error; processor time and time, in seconds.
        """
        assert self.process.stdout is not None
        answer: tuple[Any, float, float] = pickle.load(self.process.stdout)
        return answer

    def raise_priority(self) -> None:
        """Normal priority again, which not every user may give it."""
        if self.low:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self.process.pid, os.getpriority(os.PRIO_PROCESS, 0))
                self.low = False

    def join(self) -> None:
        """Wait for its end: for long, if it keeps what is not drawn."""
        assert self.process.stdout is not None
        self.process.wait()
        self.close()
        self.process.stdout.close()

    def close(self) -> None:
        """Nothing more is read, watched or sent."""
        self.ended.set()
        self._outbox.put(None)

    def _send(self) -> None:
        """Send what is put for it, since it may be slow to read; until there is nothing more."""
        stdin = self.process.stdin
        assert stdin is not None
        try:
            while (message := self._outbox.get()) is not None:
                pickle.dump(message, stdin, protocol=pickle.HIGHEST_PROTOCOL)
                if self._outbox.empty():
                    stdin.flush()
        except Exception:  # it has died, or is of no use any more: the thread that reads sees its end
            self.process.kill()
        with contextlib.suppress(OSError):
            stdin.close()


def _lowered(process: int) -> bool:
    """Whether a process has low priority now."""
    try:
        os.setpriority(os.PRIO_PROCESS, process, 19)
    except (AttributeError, OSError):  # AttributeError: Windows
        return False
    return True
