"""The pictures of a run: drawn beside it, written as they are finished, animated and waited for at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.drawing import DrawingProcess, FinishedDrawing
from lightning_viz.callbacks.frames import animations, keep_frame
from lightning_viz.callbacks.log_limits import limited
from lightning_viz.callbacks.run import Run
from lightning_viz.callbacks.snapshot import ViewLike
from lightning_viz.callbacks.writers import Writer
from lightning_viz.errors import inform, warn_safely
from lightning_viz.render.page import lay_out


class PictureLog:
    """Has the views' tasks drawn, and writes what comes of them.

    Args:
        run: that is watched.
        views: those that suit the model.
        fault: takes what goes wrong: the view, its step, and the error.
        succeeded: takes a view of which a picture was written.
    """

    def __init__(
        self,
        run: Run,
        views: Sequence[ViewLike],
        fault: Callable[[ViewLike, int, Exception | str], None],
        succeeded: Callable[[ViewLike], None],
    ) -> None:
        self._run, self._fault, self._succeeded = run, fault, succeeded
        self._views = {view.name: view for view in views}
        self._animated = False
        self.process = DrawingProcess()
        self.writers: Sequence[Writer] = limited(run.open_writers(), views) if views else ()

    def submit(self, view: ViewLike, step: int, task: DrawTask) -> None:
        """Have a task drawn beside the run.

        Args:
            view: whose it is.
            step: of the observation.
            task: what to draw.
        """
        self.process.submit(view.name, step, task)

    def collect(self) -> None:
        """Write what was drawn meanwhile."""
        for result in self.process.results():
            view = self._views[result.owner]
            if result.drawn is None:
                self._fault(view, result.step, result.error)
                continue
            try:
                self._write(view, result)
            except Exception as error:
                self._fault(view, result.step, error)
                continue
            self._succeeded(view)
            if result.drawn.memory is not None and result.name is not None:
                view.memories[result.name] = result.drawn.memory

    def _write(self, view: ViewLike, result: FinishedDrawing) -> None:
        drawn = result.drawn
        assert drawn is not None
        pictures = [lay_out(picture) for picture in drawn.pictures]
        for writer in self.writers:
            for picture in pictures:
                writer.picture(picture, result.step)
            if drawn.projection is not None:
                writer.projection(drawn.projection)
            for tag, value in drawn.scalars.items():
                writer.scalar(tag, value, result.step)
        if view.animation and pictures:
            keep_frame(view, pictures[0], result.step)

    def finish(self) -> None:
        """Wait, within the run's limit, until all is drawn, animations last, and write it."""
        limit = self._run.drain_seconds
        deadline = time.monotonic() + limit
        self.process.drain(min(1.0, limit))
        if (waiting := self.process.waiting) and math.isfinite(limit):
            inform(f"finishing {waiting} drawings, for at most {limit:.0f} s")
        self._wait(deadline)
        self._animate()
        self._wait(deadline)
        if lost := self.process.waiting:
            warn_safely(f"{lost} drawings were not finished within {limit:.0f} s and are lost")

    def _wait(self, deadline: float) -> None:
        """Wait until all is drawn, with a progress bar in a terminal, and write it."""
        self.process.hurry()  # training needs the cores no more
        with tqdm(total=self.process.waiting, desc="lightning_viz", unit="drawing", leave=False, disable=None) as bar:
            while (left := deadline - time.monotonic()) > 0 and (waiting := self.process.drain(min(left, 0.5))):
                bar.update(bar.total - waiting - bar.n)
        self.collect()

    def _animate(self) -> None:
        """Have each view's pictures of all steps drawn as animations, once."""
        views, self._animated = [] if self._animated else list(self._views.values()), True
        for view in (view for view in views if view.animation):
            for step, task in animations(view):
                self.submit(view, step, task)
