"""The pictures of a run: drawn beside it, written as they are finished, animated and waited for at its end."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from lightning_viz.callbacks.draw_task import DrawResult, DrawTask
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.drawing_queue import FinishedDrawing
from lightning_viz.callbacks.facts import write_facts
from lightning_viz.callbacks.frames import animations, keep_frame
from lightning_viz.callbacks.log_limits import MEGABYTE, limited
from lightning_viz.callbacks.run import error_text
from lightning_viz.callbacks.run_protocol import Run
from lightning_viz.callbacks.snapshot import ViewLike
from lightning_viz.callbacks.writers import Writer
from lightning_viz.errors import inform, warn_safely
from lightning_viz.render.page import Picture, lay_out

_KEEP_SECONDS = 6.0  # that the end of a run waits for the file of what is not drawn
_WORTH_SECONDS = 1.5  # of drawing, for which another process is started at once: it takes as long to import
_HAND_OVER_SECONDS = 0.2  # that an interrupted run writes what is drawn


class PictureLog:
    """Has the views' tasks drawn, and writes what comes of them.

    Args:
        run: that is watched.
        views: those that suit the model.
        fault: takes what goes wrong: the view, its step, and the error.
        succeeded: takes a view of which a picture was written.
        wrote: takes a view, a step, and the seconds that writing a picture took.
    """

    def __init__(
        self,
        run: Run,
        views: Sequence[ViewLike],
        fault: Callable[[ViewLike, int, Exception | str], None],
        succeeded: Callable[[ViewLike], None],
        wrote: Callable[[str, int, float], None] = lambda view, step, seconds: None,
    ) -> None:
        self._run, self._fault, self._succeeded, self._wrote = run, fault, succeeded, wrote
        self._views = {view.name: view for view in views}
        self._animated = False
        self._failures: dict[str, int] = {}  # in a row, by log
        self.process = DrawingProcess()
        self.writers: Sequence[Writer] = limited(run.open_writers(), views) if views else ()
        self.process.folder = next((writer.folder for writer in self.writers if writer.folder is not None), None)
        self.process.spare = max((view.free_megabytes for view in views), default=0.0) * MEGABYTE

    def submit(self, view: ViewLike, step: int, task: DrawTask) -> None:
        """Have a task drawn beside the run.

        Args:
            view: whose it is.
            step: of the observation.
            task: what to draw.
        """
        self.process.submit(view.name, step, task)

    def keep_facts(self, ending: str, step: int, facts: Mapping[str, Any]) -> None:
        """Keep what a view found beside the log, if it is on this machine.

        Args:
            ending: of the view's tags.
            step: completed updates.
            facts: plain values, with the tag of the page that shows them.
        """
        if self.process.folder is not None:
            plain = {name: value for name, value in facts.items() if name != "tag"}
            write_facts(self.process.folder, "/".join(filter(None, (facts["tag"], ending))), step, plain)

    def collect(self, seconds: float = math.inf, may_write: Callable[[], bool] = lambda: True) -> None:
        """Write what was drawn meanwhile.

        Args:
            seconds: what is not written by then waits for the next call.
            may_write: likewise from when this is false.
        """
        deadline = time.monotonic() + seconds
        for result in self.process.results(lambda: time.monotonic() <= deadline and may_write()):
            view = self._views[result.owner]
            if result.drawn is None:
                self._fault(view, result.step, result.error)
            else:
                started = time.monotonic()
                try:
                    self._write(view, result)
                except Exception as error:
                    self._fault(view, result.step, error)
                else:
                    self._succeeded(view)
                    if result.drawn.memory is not None and result.name is not None:
                        view.memories[result.name] = result.drawn.memory
                finally:
                    self._wrote(view.name, result.step, time.monotonic() - started)

    def _write(self, view: ViewLike, result: FinishedDrawing) -> None:
        assert result.drawn is not None
        pictures = write_result(self.writers, result.drawn, result.step, self._wrote_to)
        if view.animation and pictures:
            keep_frame(view.frames, pictures[0], result.step)

    def _wrote_to(self, writer: Writer, error: Exception | None) -> None:
        """One of several logs took a result or failed; one that fails again and again is given up."""
        name = _log_name(writer)
        failures = self._failures[name] = 0 if error is None else self._failures.get(name, 0) + 1
        if error is not None and failures == 1:
            warn_safely(f"{name} could not take a picture: {error_text(error)} (the run's other logs go on)")
        if failures >= self._run.most_faults:
            self.writers = [each for each in self.writers if each is not writer]
            warn_safely(f"{name} gets no more pictures after {failures} failures in a row")

    def finish(self) -> None:
        """Wait, within the run's limit, until all is drawn, animations last, and write it; keep what is not drawn."""
        limit = self._run.finish_seconds
        deadline = time.monotonic() + limit
        self.process.hurry(_WORTH_SECONDS)
        self.process.drain(min(1.0, limit))
        if (waiting := self.process.waiting) and math.isfinite(limit):
            inform(f"finishing {waiting} drawings, for at most {limit:g} s")
        self._wait(deadline)
        if not self.process.waiting:
            self._animate()
            self._wait(deadline)
        self._keep(_KEEP_SECONDS)

    def hand_over(self) -> None:
        """Write what is drawn, if that is soon done, and have the rest kept: the run ends now."""
        self.collect(_HAND_OVER_SECONDS)
        self._keep()

    def _keep(self, seconds: float = 0.0) -> None:
        """Have what is not drawn kept in a file, and say how it is drawn."""
        undrawn = self.process.undrawn
        if not undrawn:
            return
        animated = [] if self._animated else [view for view in self._views.values() if view.animation]
        try:
            kept = self.process.hand_over({view.name: view.frames for view in animated}, seconds)
        except Exception as error:
            warn_safely(f"{undrawn} drawings were not finished and are lost: {error_text(error)}")
            return
        if kept:
            command = f"lightning-viz draw {shlex.quote(str(self.process.folder))}"
            inform(f"{kept} drawings were not finished: they are kept beside the run, and drawn by: {command}")
        else:
            warn_safely(f"{undrawn} drawings were not finished and are lost: the run has no folder on this machine")

    def _wait(self, deadline: float) -> None:
        """Wait until all is drawn, with a progress bar in a terminal, and write it."""
        self.process.hurry()  # training needs the cores no more
        with tqdm(total=self.process.waiting, desc="lightning_viz", unit="drawing", leave=False, disable=None) as bar:
            while (left := deadline - time.monotonic()) > 0 and (waiting := self.process.drain(min(left, 0.5))):
                bar.update(bar.total - waiting - bar.n)
                self.collect()
                if self._run.interrupted:
                    break
        self.collect()

    def _animate(self) -> None:
        """Have each view's pictures of all steps drawn as animations, once."""
        views, self._animated = [] if self._animated else list(self._views.values()), True
        for view in (view for view in views if view.animation):
            for step, task in animations(view.frames):
                self.submit(view, step, task)


def write_result(
    writers: Sequence[Writer],
    drawn: DrawResult,
    step: int,
    wrote_to: Callable[[Writer, Exception | None], None] = lambda writer, error: None,
) -> list[Picture]:
    """Write what was drawn, to each log whatever becomes of the others.

    Args:
        writers: take it.
        drawn: of a task.
        step: of the observation.
        wrote_to: takes each writer, with what it raised.

    Returns:
        The pictures.

    Raises:
        Exception: what the first writer raised, where none took the result.
    """
    pictures = [lay_out(picture) for picture in drawn.pictures]
    keeper = next((writer for writer in writers if writer.folder is not None), None)
    errors: dict[int, Exception] = {}
    for number, writer in enumerate(writers):
        try:
            _write_to(writer, pictures, drawn, step, keeps_parts=writer is keeper)
        except Exception as error:
            errors[number] = error
    if errors and len(errors) == len(writers):
        raise errors[0]
    for number, writer in enumerate(writers):
        wrote_to(writer, errors.get(number))
    return pictures


def _write_to(writer: Writer, pictures: Sequence[Picture], drawn: DrawResult, step: int, *, keeps_parts: bool) -> None:
    if keeps_parts:
        for tag, content in drawn.kept.items():
            writer.parts(tag, content, step)
    for picture in pictures:
        writer.picture(picture, step)
    for projection in drawn.projections:
        writer.projection(projection)
    for tag, value in drawn.scalars.items():
        writer.scalar(tag, value, step)
    for tag, histogram in drawn.histograms.items():
        writer.histogram(tag, histogram, step)


def _log_name(writer: Writer) -> str:
    """The class of the user's logger, for a line."""
    inner = getattr(writer, "_writer", writer)
    return type(getattr(inner, "_logger", inner)).__name__
