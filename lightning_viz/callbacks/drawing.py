"""Drawing beside training: a background process of low priority; several of normal priority when training is over.

What the processes run is in ``draw_worker``. The first of them also holds what is not yet drawn and written: whatever
becomes of this process, it is kept in a file beside the run.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lightning_viz.callbacks import draw_worker, task_watch

if TYPE_CHECKING:
    from lightning_viz.callbacks.draw_task import DrawResult, DrawTask

BEHIND_SECONDS = 60.0
"""Drawing is behind when the waiting tasks would take longer than this."""
BEHIND_BYTES = 256 * 2**20
"""... or takes more memory than this."""
_FIRST_GUESS = 0.5  # seconds that a view's first drawing is expected to take
_DEATHS = 3
_MOST_ARTISTS = 4  # processes that draw at once when training is over
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
    """A task on its way: its name and that of the one whose memory it needs, its process, and what came of it."""

    number: int
    owner: str
    step: int
    name: str | None
    after: str | None
    payload: bytes
    artist: _Artist | None = None
    finished: FinishedDrawing | None = None
    given_up: bool = False  # not drawn, and still to be kept

    @property
    def to_be_kept(self) -> tuple[Any, ...]:
        """The message that hands it to the process that keeps it."""
        return "keep", self.number, self.owner, self.step, self.payload


@dataclass(eq=False)
class _Artist:
    """A process that draws, of low priority or not; one that is retired takes no more tasks.

    What is put into the outbox is sent to it. It has a job or none, and if it hung, why, in words.
    """

    process: subprocess.Popen[bytes]
    low: bool
    retired: bool = False
    outbox: queue.SimpleQueue[tuple[Any, ...] | None] = field(default_factory=queue.SimpleQueue)
    job: _Job | None = None
    hung: str = ""
    ended: threading.Event = field(default_factory=threading.Event)


class DrawingProcess:
    """Draws tasks in a process of its own, which is started at the first task, and returns results in their order.

    Tasks of a name wait for those of the same view before them, since they depend on what these leave. A process that
    dies (out of memory, killed) is started again, without the task that it died of; one that hangs is killed. At the
    end of a run several draw.

    Args:
        memories: by name of a task, what the first one of that name goes on from.

    Attributes:
        cpu_seconds: processor time of all tasks.
        folder: where what is not drawn is kept in the end; it is lost if None. To be set before the first task.
        spare: bytes of the folder's disk that are left to others.
        low: whether drawing leaves the cores to a training beside it.
    """

    def __init__(self, memories: Mapping[str, Any] | None = None) -> None:
        self.cpu_seconds, self.low = 0.0, True
        self.folder: Path | None = None
        self.spare = 0.0
        self._results: queue.SimpleQueue[tuple[_Job | None, FinishedDrawing]] = queue.SimpleQueue()
        self._numbers = count()
        self._unwritten: dict[int, _Job] = {}  # in their order, also those that are drawn
        self._jobs: deque[_Job] = deque()  # not yet among the results, in their order
        self._artists: list[_Artist] = []
        self._memories: dict[str, Any] = dict(memories or {})  # by name, what the last task left
        self._written: dict[str, Any] = {}  # likewise, of those that are written
        self._seconds: dict[str, float] = {}
        self._changed = threading.Condition()
        self._deaths = 0
        self._given_up = ""  # why nothing is drawn any more
        self._log: IO[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The process that draws beside the run; None before the first task."""
        return self._artists[0].process if self._artists else None

    def submit(self, owner: str, step: int, task: DrawTask) -> None:
        """Queue a task; returns at once.

        Args:
            owner: name of the view.
            step: of the observation.
            task: its function must be importable; one from the user's script (``__main__``) is drawn here and now.
        """
        if task.function.__module__ == "__main__":
            self._results.put((None, _draw_here(owner, step, task)))
            return
        payload = pickle.dumps(task, protocol=pickle.HIGHEST_PROTOCOL)
        with self._changed:
            if not self._artists and not self._given_up:
                self._start(low=self.low)
            job = _Job(next(self._numbers), owner, step, task.name, task.after, payload)
            self._unwritten[job.number] = job
            if self._given_up:
                self._results.put((None, FinishedDrawing(owner, step, None, self._given_up)))
                return
            self._jobs.append(job)
            self._artists[0].outbox.put(job.to_be_kept)
            self._changed.notify_all()

    def behind(self) -> bool:
        """Whether the waiting tasks would take too long to draw, or too much memory to keep."""
        with self._changed:
            waiting = [job for job in self._jobs if job.finished is None]
            seconds = sum(self._seconds.get(job.owner, _FIRST_GUESS) for job in waiting)
            return seconds > BEHIND_SECONDS or sum(len(job.payload) for job in waiting) > BEHIND_BYTES

    @property
    def waiting(self) -> int:
        """Sketches not yet drawn."""
        with self._changed:
            return sum(job.finished is None for job in self._jobs)

    @property
    def undrawn(self) -> int:
        """Tasks not drawn and written, those of a process that was given up among them."""
        with self._changed:
            return len(self._unwritten)

    def results(self, more: Callable[[], bool] = lambda: True) -> Iterator[FinishedDrawing]:
        """The drawings finished since the last call; each counts as written when the next is asked for.

        Args:
            more: whether another is wanted.
        """
        with contextlib.suppress(queue.Empty):
            while more():
                job, finished = self._results.get_nowait()
                yield finished
                if job is not None:
                    self._drop(job, finished)

    def _drop(self, job: _Job, finished: FinishedDrawing) -> None:
        """A task needs to be kept no longer."""
        memory = None if finished.drawn is None else finished.drawn.memory
        with self._changed:
            self._unwritten.pop(job.number, None)
            if self._artists:
                self._artists[0].outbox.put(("drop", job.number, None if finished.drawn is None else job.name, memory))
            if job.name is not None and finished.drawn is not None:
                self._written[job.name] = memory

    def _entrust(self) -> None:
        """Have the first process keep what is not written: it has just become the first."""
        if self._artists:
            for job in self._unwritten.values():
                self._artists[0].outbox.put(job.to_be_kept)
            for name, memory in self._written.items():
                self._artists[0].outbox.put(("drop", None, name, memory))

    def _remove(self, artist: _Artist) -> None:
        """A process draws and keeps no more."""
        first = artist is self._artists[0]
        self._artists.remove(artist)
        artist.process.kill()
        if first:
            self._entrust()

    def hurry(self) -> None:
        """Draw what is left at normal priority, several tasks at once: nothing else needs the cores any more."""
        with self._changed:
            left = sum(job.finished is None and job.artist is None for job in self._jobs)
            if not left or self._given_up:
                return
            for artist in self._artists:
                artist.low = artist.low and not _raised(artist.process.pid)
            for _ in range(min(_cores(), _MOST_ARTISTS, left) - sum(not artist.low for artist in self._artists)):
                self._start(low=False)
            replaced = not all(artist.low for artist in self._artists)
            for artist in self._artists:  # one of low priority goes on where no other can be started
                artist.retired = artist.low and replaced
            self._changed.notify_all()

    def drain(self, seconds: float) -> int:
        """Wait until all tasks are drawn, or the time is over.

        Args:
            seconds: the longest time to wait.

        Returns:
            The number of tasks not drawn.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while (waiting := self.waiting) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, 1.0))
            return waiting

    def hand_over(self, frames: Mapping[str, Any], seconds: float = 0.0) -> int:
        """Have what is not drawn and written kept in a file beside the run, and end the processes.

        Args:
            frames: by view that is animated, its pages so far.
            seconds: the longest time to wait for the file.

        Returns:
            The number of tasks that are kept; 0 if there is no folder.

        Raises:
            OSError: no process can write the file, nor can this one.
        """
        with self._changed:
            jobs = [] if self.folder is None else list(self._unwritten.values())
            artists, self._artists = self._artists, []
            self._jobs.clear()
            self._unwritten.clear()
            self._changed.notify_all()
        keeper = artists[0] if artists and jobs else None
        for artist in artists:
            if artist is not keeper:
                artist.process.kill()
        if keeper is not None:
            keeper.outbox.put(("leave", dict(frames)))
            if seconds:
                try:
                    keeper.process.wait(seconds)
                except subprocess.TimeoutExpired:  # it hangs
                    keeper.process.kill()
                    keeper = None
        self._close_log()
        if keeper is None and self.folder is not None and jobs:
            left = [(job.owner, job.step, job.payload) for job in jobs]
            draw_worker.save_tasks(self.folder, left, self._written, dict(frames), spare=self.spare)
        return len(jobs)

    def close(self) -> None:
        """End the processes and drop the waiting tasks."""
        with self._changed:
            self._jobs.clear()
            self._unwritten.clear()
            artists, self._artists = self._artists, []
            self._changed.notify_all()
        for artist in artists:
            artist.process.kill()
            task_watch.exit_code(artist.process)
        self._close_log()

    def _close_log(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.close()

    def _start(self, *, low: bool) -> None:
        """Start a process; where none can be started, and none is there, everything is given up."""
        try:
            self._log = self._log or tempfile.TemporaryFile()  # noqa: SIM115
            arguments = [str(os.getpid()), str(self.folder or ""), str(self.spare)]
            process = subprocess.Popen(
                [sys.executable, "-m", draw_worker.__name__, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=draw_worker.environment(),
            )
            artist = _Artist(process, low and _lowered(process.pid))
            try:
                for serve in (self._watch, _send, self._work):
                    threading.Thread(target=serve, args=(artist,), name="lightning_viz", daemon=True).start()
            except (RuntimeError, MemoryError):
                process.kill()
                artist.ended.set()
                artist.outbox.put(None)  # ends the threads that have begun
                with process:  # closes its pipes, and waits for its end
                    raise
            self._artists.append(artist)
            if len(self._artists) == 1:
                self._entrust()
        except (OSError, RuntimeError, MemoryError) as error:  # no processes, threads, memory or pipes left
            if not self._artists:
                self._give_up(f"the drawing process cannot be started: {str(error) or type(error).__name__}")

    def _give_up(self, reason: str) -> None:
        self._given_up = reason
        for job in [job for job in self._jobs if job.finished is None]:
            job.given_up = True
            self._answer(job, FinishedDrawing(job.owner, job.step, None, reason))

    def _work(self, artist: _Artist) -> None:
        """Give a process one task after the other, until it is retired, closed or dead."""
        process = artist.process
        assert process.stdout is not None
        while (job := self._take(artist)) is not None:
            try:
                answer, worked, seconds = pickle.load(process.stdout)
            except Exception:  # the end of the stream, in whatever state a death left it
                self._died(artist, job)
                break
            drawn, error = (None, answer) if isinstance(answer, str) else (answer, "")
            with self._changed:
                self.cpu_seconds += worked
                before = self._seconds.get(job.owner, seconds)
                self._seconds[job.owner] = 0.5 * before + 0.5 * seconds
                if drawn is not None and job.name is not None:
                    self._memories[job.name] = drawn.memory
                self._answer(job, FinishedDrawing(job.owner, job.step, drawn, error, job.name))
        process.wait()  # for long, if it keeps what is not drawn
        artist.ended.set()
        artist.outbox.put(None)
        process.stdout.close()

    def _watch(self, artist: _Artist) -> None:
        """Kill a process that hangs: the thread that waits for its answer then sees its end."""
        job, watch = None, None
        while not artist.ended.wait(task_watch.TICK_SECONDS):
            with self._changed:
                if artist not in self._artists:
                    return
                changed, job = artist.job is not job, artist.job
                usual = 0.0 if job is None else self._seconds.get(job.owner, 0.0)
            if changed:
                watch = None if job is None else task_watch.TaskWatch(artist.process.pid, usual)
            if watch is not None and (hung := watch.tick()) and artist.job is job:
                artist.hung = hung
                artist.process.kill()

    def _take(self, artist: _Artist) -> _Job | None:
        """Give a process its next task; None if there will be none. A death with nothing to do costs nothing."""
        with self._changed:
            artist.job = None
            while True:
                if artist not in self._artists:
                    return None
                if artist.retired:
                    self._remove(artist)
                    return None
                job = self._next()
                if job is None:
                    self._changed.wait()
                elif artist.process.poll() is not None:
                    self._died(artist, None)
                    return None
                else:
                    job.artist, artist.job = artist, job
                    what = job.number if artist is self._artists[0] else job.payload  # the first has it already
                    memories = {name: self._memories[name] for name in (job.name, job.after) if name in self._memories}
                    artist.outbox.put(("draw", what, memories))
                    return job

    def _next(self) -> _Job | None:
        """The first task that can be begun."""
        held: set[str] = set()  # views of which a task is being drawn that others depend on
        for job in self._jobs:
            if job.finished is not None or (job.name is not None and job.owner in held):
                continue
            if job.artist is None:
                return job
            if job.name is not None:
                held.add(job.owner)
        return None

    def _answer(self, job: _Job, finished: FinishedDrawing) -> None:
        """Note what came of a task, and hand on what is finished in the tasks' order."""
        job.finished = finished
        while self._jobs and (first := self._jobs[0].finished) is not None:
            job = self._jobs.popleft()
            self._results.put((None if job.given_up else job, first))
        self._changed.notify_all()

    def _died(self, artist: _Artist, job: _Job | None) -> None:
        with self._changed:
            if artist not in self._artists:
                return  # closed by us
            code = task_watch.exit_code(artist.process)
            self._remove(artist)
            self._deaths += 1
            if job is not None:
                died = f"the drawing process died (exit code {code}){self._last_words()}"
                reason = f"the drawing process hung and was killed: it {artist.hung}" if artist.hung else died
                self._answer(job, FinishedDrawing(job.owner, job.step, None, reason))
            if self._deaths <= _DEATHS:
                self._start(low=artist.low)
            elif not self._artists:
                self._give_up(_GIVEN_UP)
            self._changed.notify_all()

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        lines = self._log.read()[-2000:].decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


def _send(artist: _Artist) -> None:
    """Send a process what is put for it, since it may be slow to read; until there is nothing more."""
    stdin = artist.process.stdin
    assert stdin is not None
    try:
        while (message := artist.outbox.get()) is not None:
            pickle.dump(message, stdin, protocol=pickle.HIGHEST_PROTOCOL)
            if artist.outbox.empty():
                stdin.flush()
    except Exception:  # it has died, or is of no use any more: the thread that reads sees its end
        artist.process.kill()
    with contextlib.suppress(OSError):
        stdin.close()


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _lowered(process: int) -> bool:
    """Whether a process has low priority now."""
    try:
        os.setpriority(os.PRIO_PROCESS, process, 19)
    except (AttributeError, OSError):  # AttributeError: Windows
        return False
    return True


def _raised(process: int) -> bool:
    """Whether a process has normal priority again, which not every user may give it."""
    try:
        os.setpriority(os.PRIO_PROCESS, process, os.getpriority(os.PRIO_PROCESS, 0))
    except OSError:
        return False
    return True


def _draw_here(owner: str, step: int, task: DrawTask) -> FinishedDrawing:
    try:
        return FinishedDrawing(owner, step, task.draw({}), name=task.name)
    except Exception as error:
        return FinishedDrawing(owner, step, None, f"{type(error).__name__}: {error}")
