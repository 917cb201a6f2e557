"""Drawing beside training: a background process of low priority; several of normal priority when training is over.

What the processes run is in ``draw_worker``. The first of them also holds what is not yet drawn and written: whatever
becomes of this process, it is kept in a file beside the run.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lightning_viz.callbacks import draw_worker, task_watch
from lightning_viz.callbacks.artist import Artist
from lightning_viz.callbacks.drawing_queue import DrawingQueue, FinishedDrawing, Job

if TYPE_CHECKING:
    from lightning_viz.callbacks.draw_task import DrawTask

BEHIND_SECONDS = 60.0
"""Drawing is behind when the waiting tasks would take longer than this."""
BEHIND_BYTES = 256 * 2**20
"""... or takes more memory than this."""
_DEATHS = 3
_MOST_ARTISTS = 4  # processes that draw at once when training is over
_GIVEN_UP = "the drawing process died too often and is not started again"


class DrawingProcess:
    """Draws tasks in a process of its own, which is started at the first task, and returns results in their order.

    Tasks of a name depend on each other, see `DrawTask`. A process that dies (out of memory, killed) is started again,
    without the task that it died of; one that hangs is killed. At the end of a run several draw.

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
        self._results: queue.SimpleQueue[tuple[Job | None, FinishedDrawing]] = queue.SimpleQueue()
        self._queue = DrawingQueue(memories or {})
        self._artists: list[Artist] = []
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
        with self._changed:
            if not self._artists and not self._given_up:
                self._start(low=self.low)
            job = self._queue.add(owner, step, task)
            if self._given_up:
                job.given_up = True
                self._answer(job, FinishedDrawing(owner, step, None, self._given_up))
                return
            self._artists[0].send(*job.to_be_kept)
            self._changed.notify_all()

    def behind(self) -> bool:
        """Whether the waiting tasks would take too long to draw, or too much memory to keep."""
        with self._changed:
            held = sum(len(job.payload) for job in self._queue.waiting)
            return self._seconds_left() > BEHIND_SECONDS or held > BEHIND_BYTES

    def _seconds_left(self) -> float:
        """How long one process would take for what is not drawn."""
        return sum(self._queue.usual(job.owner) for job in self._queue.waiting)

    @property
    def waiting(self) -> int:
        """Tasks not yet drawn."""
        with self._changed:
            return len(self._queue.waiting)

    @property
    def undrawn(self) -> int:
        """Tasks not drawn and written, those of a process that was given up among them."""
        with self._changed:
            return len(self._queue.unwritten)

    @property
    def owners(self) -> set[str]:
        """Names of the views of which something is not drawn and written."""
        with self._changed:
            return {job.owner for job in self._queue.unwritten.values()}

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

    def _drop(self, job: Job, finished: FinishedDrawing) -> None:
        """A task needs to be kept no longer."""
        with self._changed:
            self._queue.drop(job)
            if self._artists:
                drawn = finished.drawn
                name, memory = (None, None) if drawn is None else (job.name, drawn.memory)
                self._artists[0].send("drop", job.number, name, memory)

    def _entrust(self) -> None:
        """Have the first process keep what is not written: it has just become the first."""
        if self._artists:
            for job in self._queue.unwritten.values():
                self._artists[0].send(*job.to_be_kept)
            for name, memory in self._queue.written.items():
                self._artists[0].send("drop", None, name, memory)

    def _remove(self, artist: Artist) -> None:
        """A process draws and keeps no more."""
        first = artist is self._artists[0]
        self._artists.remove(artist)
        artist.process.kill()
        if first:
            self._entrust()

    def hurry(self, worth: float = 0.0) -> None:
        """Draw what is left at normal priority, several tasks at once: nothing else needs the cores any more.

        Args:
            worth: seconds of drawing; no other process is started for less.
        """
        with self._changed:
            left = sum(not job.begun for job in self._queue.waiting)
            if not left or self._given_up:
                return
            for artist in self._artists:
                artist.raise_priority()
            if self._seconds_left() < worth:
                return
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
            jobs, folder = self._queue.clear(), self.folder
            artists, self._artists = self._artists, []
            self._changed.notify_all()
        if folder is None:
            jobs = []
        keeper = artists[0] if artists and jobs else None
        for artist in artists:
            if artist is not keeper:
                artist.process.kill()
        if keeper is not None:
            keeper.send("leave", dict(frames))
            if seconds:
                try:
                    keeper.process.wait(seconds)
                except subprocess.TimeoutExpired:  # it hangs
                    keeper.process.kill()
                    keeper = None
        self._close_log()
        if keeper is None and folder is not None and jobs:
            left = [(job.owner, job.step, job.payload) for job in jobs]
            draw_worker.save_tasks(folder, left, self._queue.written, dict(frames), spare=self.spare)
        return len(jobs)

    def close(self) -> None:
        """End the processes and drop the waiting tasks."""
        with self._changed:
            self._queue.clear()
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
            threads = self._watch, self._work
            self._artists.append(Artist(threads, low=low, folder=self.folder, spare=self.spare, log=self._log))
            if len(self._artists) == 1:
                self._entrust()
        except (OSError, RuntimeError, MemoryError) as error:  # no processes, threads, memory or pipes left
            if not self._artists:
                self._give_up(f"the drawing process cannot be started: {str(error) or type(error).__name__}")

    def _give_up(self, reason: str) -> None:
        self._given_up = reason
        for job in self._queue.waiting:
            job.given_up = True
            self._answer(job, FinishedDrawing(job.owner, job.step, None, reason))

    def _work(self, artist: Artist) -> None:
        """Give a process one task after the other, until it is retired, closed or dead."""
        while (job := self._take(artist)) is not None:
            try:
                answer, worked, seconds = artist.receive()
            except Exception:  # the end of the stream, in whatever state a death left it
                self._died(artist, job)
                break
            drawn, error = (None, answer) if isinstance(answer, str) else (answer, "")
            with self._changed:
                self.cpu_seconds += worked
                self._queue.took(job.owner, seconds)
                self._answer(job, FinishedDrawing(job.owner, job.step, drawn, error, job.name))
        artist.join()

    def _watch(self, artist: Artist) -> None:
        """Kill a process that hangs: the thread that waits for its answer then sees its end."""
        job, watch = None, None
        while not artist.ended.wait(task_watch.TICK_SECONDS):
            with self._changed:
                if artist not in self._artists:
                    return
                changed, job = artist.job is not job, artist.job
                usual = 0.0 if job is None else self._queue.usual(job.owner, 0.0)
            if changed:
                watch = None if job is None else task_watch.TaskWatch(artist.process.pid, usual)
            if watch is not None and (hung := watch.tick()) and artist.job is job:
                artist.hung = hung
                artist.process.kill()

    def _take(self, artist: Artist) -> Job | None:
        """Give a process its next task; None if there will be none. A death with nothing to do costs nothing."""
        with self._changed:
            artist.job = None
            while True:
                if artist not in self._artists:
                    return None
                if artist.retired:
                    self._remove(artist)
                    return None
                job = self._queue.next()
                if job is None:
                    self._changed.wait()
                elif artist.process.poll() is not None:
                    self._died(artist, None)
                    return None
                else:
                    job.begun, artist.job = True, job
                    what = job.number if artist is self._artists[0] else job.payload  # the first has it already
                    artist.send("draw", what, job.memories)
                    return job

    def _answer(self, job: Job, finished: FinishedDrawing) -> None:
        """Note what came of a task, and hand on what is finished in the tasks' order."""
        for handed in self._queue.finish(job, finished):
            assert handed.finished is not None
            self._results.put((None if handed.given_up else handed, handed.finished))
        self._changed.notify_all()

    def _died(self, artist: Artist, job: Job | None) -> None:
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


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _draw_here(owner: str, step: int, task: DrawTask) -> FinishedDrawing:
    try:
        return FinishedDrawing(owner, step, task.draw({}), name=task.name)
    except Exception as error:
        return FinishedDrawing(owner, step, None, f"{type(error).__name__}: {error}")
