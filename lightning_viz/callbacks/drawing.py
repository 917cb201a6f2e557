"""Drawing beside training: one background process of low priority, fed and read by two threads.

The process runs this module, ``python -m lightning_viz.callbacks.drawing``: it reads tasks, writes pictures, and ends
when its input does. Nothing here imports more than Python's own library.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import deque
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:  # the process must not lose time before it ignores Ctrl-C
    from lightning_viz.callbacks.draw_task import DrawResult, DrawTask

BEHIND_SECONDS = 60.0
"""Drawing is behind when the waiting tasks would take longer than this."""
BEHIND_BYTES = 256 * 2**20
"""... or takes more memory than this."""
_FIRST_GUESS = 0.5  # seconds that a view's first drawing is expected to take
_DEATHS = 3
_GIVEN_UP = "the drawing process died too often and is not started again"


@dataclass(frozen=True)
class FinishedDrawing:
    """A finished drawing, or why there is none.

    Attributes:
        owner: name of the view.
        step: of the observation.
        drawn: None if drawing failed.
        error: what went wrong.
        name: of the task, if the next one depends on this one.
    """

    owner: str
    step: int
    drawn: DrawResult | None
    error: str = ""
    name: str | None = None


@dataclass
class _Job:
    number: int
    owner: str
    step: int
    name: str | None
    payload: bytes


class DrawingProcess:
    """Draws tasks in a process of its own, which is started at the first task, and returns results in their order.

    A process that dies (out of memory, killed) is started again, without the task that it died of.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.cpu_seconds = 0.0
        self._results: queue.SimpleQueue[FinishedDrawing] = queue.SimpleQueue()
        self._waiting: deque[_Job] = deque()  # not yet answered, the first being drawn
        self._seconds: dict[str, float] = {}
        self._changed = threading.Condition()
        self._number = 0
        self._deaths = 0
        self._log: IO[bytes] | None = None

    def submit(self, owner: str, step: int, task: DrawTask) -> None:
        """Queue a task; returns at once.

        Args:
            owner: name of the view.
            step: of the observation.
            task: its function must be importable; one from the user's script (``__main__``) is drawn here and now.
        """
        if task.function.__module__ == "__main__":
            self._results.put(_draw_here(owner, step, task))
            return
        if self._deaths > _DEATHS:
            self._results.put(
                FinishedDrawing(owner, step, None, "the drawing process died too often and is not started again")
            )
            return
        payload = pickle.dumps(task, protocol=pickle.HIGHEST_PROTOCOL)
        if self.process is None:
            self._start()
        with self._changed:
            self._number += 1
            self._waiting.append(_Job(self._number, owner, step, task.name, payload))
            self._changed.notify_all()

    def behind(self) -> bool:
        """Whether the waiting tasks would take too long to draw, or too much memory to keep."""
        with self._changed:
            seconds = sum(self._seconds.get(job.owner, _FIRST_GUESS) for job in self._waiting)
            return seconds > BEHIND_SECONDS or sum(len(job.payload) for job in self._waiting) > BEHIND_BYTES

    @property
    def waiting(self) -> int:
        """Sketches not yet drawn."""
        return len(self._waiting)

    def results(self) -> list[FinishedDrawing]:
        """The drawings finished since the last call."""
        finished = []
        with contextlib.suppress(queue.Empty):
            while True:
                finished.append(self._results.get_nowait())
        return finished

    def drain(self, seconds: float) -> int:
        """Wait until all tasks are drawn, or the time is over.

        Args:
            seconds: the longest time to wait.

        Returns:
            The number of tasks not drawn.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._waiting and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, 1.0))
            return len(self._waiting)

    def close(self) -> None:
        """End the process and drop the waiting tasks."""
        with self._changed:
            self._waiting.clear()
            process, self.process = self.process, None
            self._changed.notify_all()
        if process is not None:
            process.kill()
            process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _start(self) -> None:
        self._log = self._log or tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lightning_viz.callbacks.drawing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(),
        )
        for work in (self._feed, self._read):
            threading.Thread(target=work, args=(self.process,), name="lightning_viz", daemon=True).start()

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        """Send the process one task after the other."""
        assert process.stdin is not None
        sent = 0
        with contextlib.suppress(OSError):  # `_read` reports a death
            while True:
                with self._changed:
                    job = next((job for job in self._waiting if job.number > sent), None)
                    while job is None and self.process is process:
                        self._changed.wait()
                        job = next((job for job in self._waiting if job.number > sent), None)
                    if self.process is not process or job is None:
                        break
                    sent = job.number
                pickle.dump((job.number, job.payload), process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
                process.stdin.flush()
        with contextlib.suppress(OSError):
            process.stdin.close()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Read its answers, and notice its death."""
        assert process.stdout is not None
        while True:
            try:
                number, answer, worked, seconds = pickle.load(process.stdout)
            except Exception:  # the end of the stream, in whatever state a death left it
                process.stdout.close()
                self._died(process)
                return
            with self._changed:
                if self.process is not process:
                    return
                job = self._waiting.popleft()
                assert job.number == number
                self.cpu_seconds += worked
                before = self._seconds.get(job.owner, seconds)
                self._seconds[job.owner] = 0.5 * before + 0.5 * seconds
                drawn, error = (None, answer) if isinstance(answer, str) else (answer, "")
                self._results.put(FinishedDrawing(job.owner, job.step, drawn, error, job.name))
                self._changed.notify_all()

    def _died(self, process: subprocess.Popen[bytes]) -> None:
        with self._changed:
            if self.process is not process:
                return  # closed by us
            code = process.wait()
            self._deaths += 1
            if self._waiting:
                job = self._waiting.popleft()
                reason = f"the drawing process died (exit code {code}){self._last_words()}"
                self._results.put(FinishedDrawing(job.owner, job.step, None, reason))
            if self._deaths <= _DEATHS:
                self._start()
            else:
                self.process = None
                self._drop(_GIVEN_UP)
            self._changed.notify_all()

    def _drop(self, reason: str) -> None:
        while self._waiting:
            job = self._waiting.popleft()
            self._results.put(FinishedDrawing(job.owner, job.step, None, reason))

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        lines = self._log.read()[-2000:].decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


def _draw_here(owner: str, step: int, task: DrawTask) -> FinishedDrawing:
    try:
        return FinishedDrawing(owner, step, task.draw({}), name=task.name)
    except Exception as error:
        return FinishedDrawing(owner, step, None, f"{type(error).__name__}: {error}")


def _environment() -> dict[str, str]:
    """One thread: more would take training's cores. The same import path as here, for views of the user's own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, **threads, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg"}


def _main() -> None:
    """Draw tasks from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for training, which then collects the finished drawings
    if hasattr(os, "nice"):
        os.nice(19)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # printed text must not mix with the replies
    serve(sys.stdin.buffer, replies)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer each pickled ``(number, pickled task)`` with ``(number, drawn or error, CPU seconds, seconds)``.

    Args:
        requests: read until its end.
        replies: written to, in the order of the requests.
    """
    memories: dict[str, Any] = {}
    while True:
        try:
            number, payload = pickle.load(requests)
        except EOFError:
            return
        started, worked = time.monotonic(), time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = pickle.loads(payload).draw(memories)
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        del payload
        took = time.process_time() - worked, time.monotonic() - started
        try:
            pickle.dump((number, answer, *took), replies, protocol=pickle.HIGHEST_PROTOCOL)
            replies.flush()
        except BrokenPipeError:
            return


if __name__ == "__main__":
    _main()
