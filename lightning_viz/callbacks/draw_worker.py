"""The drawing process: ``python -m lightning_viz.callbacks.draw_worker PARENT FOLDER SPARE``.

It reads messages, draws, and ends when its input or its parent does; what was given to it to keep, and is not drawn by
then, it writes into the run's folder. Nothing here imports more than Python's own library.

Messages are pickled tuples: ``("draw", pickled task or number of a kept one, memories)``, answered by
``(drawn or error, CPU seconds, seconds)``; ``("keep", number, owner, step, pickled task)``;
``("drop", number, name, memory)``; ``("leave", frames)``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, BinaryIO

_Tasks = queue.SimpleQueue[tuple[bytes, dict[str, Any]]]
_WATCH_SECONDS = 0.5
_SIGNAL_AT_PARENTS_END = 1  # PR_SET_PDEATHSIG


class Keeper:
    """Holds tasks that are not yet drawn and written, and writes them into a file where nobody will draw them.

    Args:
        folder: of the run; nothing is kept if it is empty.
        spare: bytes of its disk that are left to others.
    """

    def __init__(self, folder: str, spare: float) -> None:
        self._folder, self._spare = folder, spare
        self._tasks: dict[int, tuple[str, int, bytes]] = {}
        self._memories: dict[str, Any] = {}
        self._lock = threading.Lock()

    def keep(self, number: int, owner: str, step: int, payload: bytes) -> None:
        """A task is to be drawn.

        Args:
            number: of the task, in their order.
            owner: name of the view.
            step: of the observation.
            payload: the pickled task.
        """
        with self._lock:
            self._tasks[number] = owner, step, payload

    def payload(self, number: int) -> bytes:
        """A task that is kept, pickled.

        Args:
            number: of the task.
        """
        return self._tasks[number][2]

    def drop(self, number: int | None, name: str | None, memory: Any) -> None:
        """It is drawn and written.

        Args:
            number: of the task; None of one that was never kept here.
            name: of the task, if others go on from its memory.
            memory: what it left.
        """
        with self._lock:
            if number is not None:
                self._tasks.pop(number, None)
            if name is not None:
                self._memories[name] = memory

    def save(self, frames: dict[str, Any]) -> None:
        """Write what is left into a file, once.

        Args:
            frames: by view that is animated, its pages so far.
        """
        with self._lock:
            tasks, self._tasks = self._tasks, {}
            if tasks and self._folder:
                try:
                    left = [tasks[number] for number in sorted(tasks)]
                    save_tasks(Path(self._folder), left, self._memories, frames, spare=self._spare)
                except Exception:
                    traceback.print_exc()


def save_tasks(
    folder: Path,
    tasks: list[tuple[str, int, bytes]],
    memories: dict[str, Any],
    frames: dict[str, Any],
    *,
    spare: float,
) -> None:
    """Write tasks into a file; those that hold what no file may hold are left out.

    Args:
        folder: of the run.
        tasks: name of the view, step, and pickled task.
        memories: by name of a task, what they go on from.
        frames: by view that is animated, its pages so far.
        spare: bytes of the disk that are left to others.
    """
    from lightning_viz.callbacks.undrawn import Undrawn, storable, write_undrawn

    undrawn = [(owner, step, pickle.loads(payload)) for owner, step, payload in tasks]
    write_undrawn(folder, Undrawn([entry for entry in undrawn if storable(entry)], memories, frames), spare=spare)


def serve(requests: BinaryIO, replies: BinaryIO, keeper: Keeper) -> None:
    """Draw what messages ask for, and end the process after the last, in the midst of a drawing if need be.

    Drawing is the main thread's, whose priority is the process's; another reads.

    Args:
        requests: the messages.
        replies: written to, in the order of the requests to draw.
        keeper: of the tasks that are not drawn.
    """
    tasks: _Tasks = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(requests, keeper, tasks), daemon=True)
    reader.start()
    with contextlib.suppress(BrokenPipeError):
        while True:
            _answer(*tasks.get(), replies)
    reader.join()


def _read(requests: BinaryIO, keeper: Keeper, tasks: _Tasks) -> None:
    """Read messages; after the last have kept what is not drawn, and end the process."""
    try:
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):  # the end, in the midst of a message
            while True:
                kind, *content = pickle.load(requests)
                if kind == "draw":
                    task, memories = content
                    tasks.put((keeper.payload(task) if isinstance(task, int) else task, memories))
                elif kind == "keep":
                    keeper.keep(*content)
                elif kind == "drop":
                    keeper.drop(*content)
                else:
                    keeper.save(content[0])
                    break
        keeper.save({})
    finally:
        sys.stderr.flush()
        os._exit(0)


def _answer(payload: bytes, memories: dict[str, Any], replies: BinaryIO) -> None:
    """Draw a task, and send what comes of it."""
    started, worked = time.monotonic(), time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = pickle.loads(payload).draw(memories)
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    took = time.process_time() - worked, time.monotonic() - started
    try:
        content = pickle.dumps((answer, *took), protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        content = pickle.dumps((f"{type(error).__name__}: {error}", *took))
    replies.write(content)
    replies.flush()


def _watch(parent: int, keeper: Keeper) -> None:
    """End soon after the parent, whose other children may hold this process's input open for longer."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    keeper.save({})
    os._exit(0)


def _main(parent: str, folder: str, spare: str) -> None:
    """Draw what standard input asks for, until it ends."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # sent to the whole group: the run, which ends first, decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # printed text must not mix with the replies
    keeper = Keeper(folder, float(spare))
    if sys.platform == "linux":  # where this process is stopped, the parent's end wakes it
        with contextlib.suppress(Exception):
            ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_END, signal.SIGCONT)
    if os.name == "posix":
        threading.Thread(target=_watch, args=(int(parent), keeper), daemon=True).start()
    serve(sys.stdin.buffer, replies, keeper)


def environment() -> dict[str, str]:
    """One thread: more would take training's cores. The same import path as here, for views of the user's own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, **threads, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg"}


if __name__ == "__main__":
    _main(*sys.argv[1:])
