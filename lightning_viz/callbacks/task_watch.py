"""Whether a child process gets on with its task: one that is stopped, or waits for what never comes, is hung."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICK_SECONDS = 1.0
"""Between two looks at the process."""
STOPPED_SECONDS = 5.0
"""A process that is stopped for so long (SIGSTOP, a debugger) is hung."""
IDLE_SECONDS = 30.0
"""So is one that has a task and uses no processor time; only Linux tells."""
TASK_SECONDS = 600.0
"""The most that a task may take,"""
TASK_FACTOR = 20.0
"""or so many times what such tasks took before."""
_GRACE = 2.0  # seconds in which a process that should end is waited for


@dataclass
class TaskWatch:
    """Watches a process at one task.

    Time is counted in ticks, so that hours for which this process itself was stopped are not held against the other.

    Args:
        process: its number.
        usual: seconds that such a task takes; 0 if none was finished yet.
    """

    process: int
    usual: float = 0.0
    _taken: float = 0.0
    _stopped: float = 0.0
    _idle: float = 0.0
    _used: float | None = None

    def tick(self) -> str:
        """Why the task will not be finished, in words; empty while it may. To be called every `TICK_SECONDS`."""
        state, used = process_activity(self.process)
        self._taken += TICK_SECONDS
        self._stopped = self._stopped + TICK_SECONDS if state in ("T", "t") else 0.0
        works = used is None or used != self._used or state == "D"  # which waits for a disk
        self._idle, self._used = 0.0 if works else self._idle + TICK_SECONDS, used
        if self._stopped >= STOPPED_SECONDS:
            return f"was stopped for {self._stopped:.0f} s"
        if self._idle >= IDLE_SECONDS:
            return f"did nothing for {self._idle:.0f} s"
        if self._taken >= max(TASK_SECONDS, TASK_FACTOR * self.usual):
            return f"was not done after {self._taken:.0f} s"
        return ""


def process_activity(process: int) -> tuple[str, float | None]:
    """A process's state, as one letter, and the processor seconds that it has used; empty and None if nobody tells.

    Args:
        process: its number.
    """
    with suppress(OSError, ValueError, IndexError):
        state, *numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return state, (int(numbers[10]) + int(numbers[11])) / os.sysconf("SC_CLK_TCK")
    return "", None


def exit_code(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code of a process that should end now; None of one that hangs in the system, even when it is killed.

    Args:
        process: closed its streams, or was killed.
    """
    for _ in range(2):
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_GRACE)
        process.kill()
    return None
