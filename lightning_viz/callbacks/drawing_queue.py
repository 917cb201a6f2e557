"""The tasks that are to be drawn: which can be begun, and in which order their results are handed on."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_viz.callbacks.draw_task import DrawResult, DrawTask

_FIRST_GUESS = 0.5  # seconds that a view's first drawing is expected to take


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


@dataclass(eq=False)
class Memory:
    """What a task leaves to the next of its name.

    Attributes:
        known: whether the task is drawn.
        value: None before.
    """

    known: bool = False
    value: Any = None


@dataclass(eq=False)
class Job:
    """A task on its way.

    Attributes:
        number: in their order.
        owner: name of the view.
        step: of the observation.
        name: of the task.
        payload: the pickled task.
        start: what the task of its name before it leaves.
        after: name of the task that the first of its name comes after.
        before: what that one leaves.
        collected: what other tasks leave, by their names.
        left: what it leaves itself.
        begun: whether it is given to a process.
        finished: what came of it.
        given_up: whether it is not drawn, and still to be kept.
    """

    number: int
    owner: str
    step: int
    name: str | None
    payload: bytes
    start: Memory
    after: str | None = None
    before: Memory | None = None
    collected: dict[str, Memory] = field(default_factory=dict)
    left: Memory = field(default_factory=Memory)
    begun: bool = False
    finished: FinishedDrawing | None = None
    given_up: bool = False

    @property
    def ready(self) -> bool:
        """Whether all is known that it depends on."""
        first = self.before is None or self.start.value is not None or self.before.known
        return self.start.known and first and all(memory.known for memory in self.collected.values())

    @property
    def memories(self) -> dict[str, Any]:
        """What it goes on from, by name of a task."""
        memories = {} if self.name is None else {self.name: self.start.value}
        if self.after is not None and self.before is not None:
            memories[self.after] = self.before.value
        memories |= {name: memory.value for name, memory in self.collected.items()}
        return memories

    @property
    def to_be_kept(self) -> tuple[Any, ...]:
        """The message that hands it to the process that keeps it."""
        return "keep", self.number, self.owner, self.step, self.payload


class DrawingQueue:
    """Tasks in their order, until they are written.

    A task waits for the one of its name before it and for those whose memories it collects, the first of a name also
    for the one that it comes after: no matter how many are drawn at once, each goes on from the same.

    Args:
        memories: by name of a task, what the first one of that name goes on from.

    Attributes:
        unwritten: tasks not yet written, drawn or not, by number.
        written: by name, what the last task that is written left.
    """

    def __init__(self, memories: Mapping[str, Any]) -> None:
        self.unwritten: dict[int, Job] = {}
        self.written: dict[str, Any] = {}
        self._jobs: deque[Job] = deque()  # not handed on
        self._left = {name: Memory(True, value) for name, value in memories.items()}  # by name, of the last task
        self._numbers = count()
        self._seconds: dict[str, float] = {}

    def add(self, owner: str, step: int, task: DrawTask) -> Job:
        """A task is to be drawn.

        Args:
            owner: name of the view.
            step: of the observation.
            task: of which a copy is made.
        """
        payload = pickle.dumps(task, protocol=pickle.HIGHEST_PROTOCOL)
        job = Job(next(self._numbers), owner, step, task.name, payload, Memory(True, task.memory))
        if task.name is not None:
            job.start = self._left.get(task.name, job.start)
            self._left[task.name] = job.left
            if task.after is not None:
                job.after, job.before = task.after, self._left.get(task.after)
            job.collected = {name: self._left[name] for name in task.collects if name in self._left}
        self.unwritten[job.number] = job
        self._jobs.append(job)
        return job

    def next(self) -> Job | None:
        """The first task that can be begun."""
        return next((job for job in self._jobs if not job.begun and job.finished is None and job.ready), None)

    def finish(self, job: Job, finished: FinishedDrawing) -> list[Job]:
        """Note what came of a task.

        Args:
            job: the task.
            finished: its drawing.

        Returns:
            The tasks that are handed on by this: all those before them are.
        """
        job.finished = finished
        job.left.known = True
        job.left.value = job.start.value if finished.drawn is None else finished.drawn.memory
        handed: list[Job] = []
        while self._jobs and self._jobs[0].finished is not None:
            handed.append(self._jobs.popleft())
        return handed

    def drop(self, job: Job) -> None:
        """A task is written, or is lost.

        Args:
            job: the task.
        """
        self.unwritten.pop(job.number, None)
        if job.name is not None and job.finished is not None and job.finished.drawn is not None:
            self.written[job.name] = job.finished.drawn.memory

    def clear(self) -> list[Job]:
        """Drop all tasks.

        Returns:
            Those that are not written.
        """
        unwritten = list(self.unwritten.values())
        self.unwritten.clear()
        self._jobs.clear()
        return unwritten

    @property
    def waiting(self) -> list[Job]:
        """Tasks not yet drawn."""
        return [job for job in self._jobs if job.finished is None]

    def took(self, owner: str, seconds: float) -> None:
        """Note how long a drawing took.

        Args:
            owner: name of the view.
            seconds: of one drawing.
        """
        self._seconds[owner] = 0.5 * self._seconds.get(owner, seconds) + 0.5 * seconds

    def usual(self, owner: str, otherwise: float = _FIRST_GUESS) -> float:
        """How long a view's drawing usually takes.

        Args:
            owner: name of the view.
            otherwise: of a view that has not been drawn.
        """
        return self._seconds.get(owner, otherwise)
