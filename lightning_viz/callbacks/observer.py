"""The one who looks for all views of a run: one shared pass, handed out; faults kept in, time kept in bounds."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.lightning import LightningModule, Trainer, muted
from lightning_viz.callbacks.overhead import OverheadBudget
from lightning_viz.callbacks.probe import Samples
from lightning_viz.callbacks.probe_loading import indexable_source, load_samples
from lightning_viz.callbacks.shared_pass import SharedPass
from lightning_viz.callbacks.snapshot import Snapshot
from lightning_viz.callbacks.writers import Writer, find_writers
from lightning_viz.errors import NoProbeYetError, inform, warn_safely
from lightning_viz.hooks.model_state import preserve_state
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.render.animation import animate, thin
from lightning_viz.render.page import lay_out

if TYPE_CHECKING:
    from lightning_viz.callbacks.view import View

FAULTS = 3
"""After so many in a row a view is switched off."""
DRAIN_SECONDS = 120.0
"""The most that the end of a run waits for drawing."""
_FRAMES = 120  # kept per animation before they are thinned to half


class Observer:
    """Looks for a list of views during one fit.

    Args:
        trainer: of the run.
        model: the LightningModule.
        views: those that suit it.
    """

    def __init__(self, trainer: Trainer, model: LightningModule, views: Sequence[View]) -> None:
        self.trainer, self.model = trainer, model
        self.views = list(views)
        self.budget = OverheadBudget()
        self.artist = DrawingProcess()
        self.writers: list[Writer] = self._find_writers()
        self.shared = SharedPass(trainer, model)
        self._samples: dict[Any, Samples] = {}
        self._passed: list[Any] = []
        self._faults: Counter[str] = Counter()
        self._postponed: set[str] = set()
        self._frames: defaultdict[tuple[str, str], list[tuple[int, bytes]]] = defaultdict(list)

    # Occasions.

    @property
    def step(self) -> int:
        """Completed updates of the weights: the x of the user's own curves."""
        return int(self.trainer.fit_loop.epoch_loop._batches_that_stepped)

    def on_step(self, batch: Any) -> None:
        """Between two updates."""
        with self._harmless():
            self.collect()
            step = self.step
            due = [view for view in self.views if view.due(step, view.schedule.at_step(step))]
            if due:
                self.visit(due, step, batch)

    def on_epoch_end(self) -> None:
        """After an epoch's last update."""
        with self._harmless():
            self.collect()
            step, epoch = self.step, self.trainer.current_epoch
            self.visit([view for view in self.views if view.due(step, view.schedule.at_epoch_end(epoch))], step)

    def finish(self) -> None:
        """After the last update: a last look, and everything drawn."""
        with self._harmless():
            step = self.step
            self.visit([view for view in self.views if view.due(step, True)], step, last=True)
        self.close()

    def passing(self, batch: Any) -> None:
        """Keep a validation batch if its data set cannot be asked for samples by number."""
        with self._harmless():
            wanting = [v for v in self.views if v.probe.inputs is None and v.probe.key() not in self._samples]
            if wanting and not any(indexable_source(self.trainer, view.probe) for view in wanting):
                kept = sum(len(all_tensors(one)[0]) for one in self._passed)
                if kept < max(map(self._count, wanting)):
                    self._passed.append(batch)

    def close(self) -> None:
        """Wait, within a limit, for what is still being drawn; write it; end the drawing process."""
        with self._harmless():
            self._drain()
            self._animate()
            self._drain()
        self.artist.close()
        for writer in self.writers:
            with self._harmless():
                writer.flush()

    # Looking.

    def visit(self, due: Sequence[View], step: int, batch: Any = None, *, last: bool = False) -> None:
        """Let views look that are due at a step, as far as time allows; first and last looks always."""
        must = [view for view in due if last or view.last_step is None]
        may = [view for view in due if view not in must]
        if may and self.artist.behind():
            may = []  # they wait for their next occasion, training does not
        affordable = self.budget.affordable({view.name: view.max_overhead for view in may})
        for view in may:
            if view.name not in affordable and view.name not in self._postponed:
                self._postponed.add(view.name)
                inform(f"{view.kind} is looked at less often from step {step} on: max_overhead={view.max_overhead:g}")
        chosen = must + [view for view in may if view.name in affordable]
        with preserve_state(self.model), muted(self.trainer):
            for probe_key in dict.fromkeys(view.probe.key() for view in chosen):
                self._look([view for view in chosen if view.probe.key() == probe_key], step, batch)

    def _look(self, views: list[View], step: int, batch: Any = None) -> None:
        """One shared pass for views of one probe; if it fails, each by itself, so that only the cause suffers."""
        started = time.monotonic()
        for view in views:
            view.last_step = step  # also of a look that fails: it is not tried again before the next occasion
        try:
            samples = self._probe(views[0], batch)
            requirements = {view.name: view.requirements(self.model) for view in views}
            looks = self.shared.run(requirements, samples, step)
        except Exception as error:
            self._free_memory(error)
            if len(views) == 1:
                self._fault(views[0], step, error)
                self.budget.charge(views[0].name, step, time.monotonic() - started)
            else:
                for view in views:
                    self._look([view], step, batch)
            return
        survey = self.shared.population_seconds  # is charged to those who asked for it
        surveys = sum(need.surveys for need in requirements.values())
        share = (time.monotonic() - started - survey) / len(views)
        for view in views:
            started = time.monotonic()
            try:
                view.indices = samples.indices
                self._show(view, looks[view.name])
            except Exception as error:
                self._free_memory(error)
                self._fault(view, step, error)
            extra = survey / surveys if requirements[view.name].surveys else 0.0
            self.budget.charge(view.name, step, share + extra + view.held + time.monotonic() - started)
            view.held = 0.0

    def _show(self, view: View, look: Snapshot) -> None:
        with self.shared.context():
            look = replace(look, extra=view.look(self.model, look))
        for sketch in view.draw(look):
            self.artist.submit(view.name, look.step, sketch)

    def _probe(self, view: View, batch: Any) -> Samples:
        """The samples of a view's probe, fetched once."""
        key = view.probe.key()
        if key not in self._samples:
            same = [one for one in self.views if one.probe.key() == key]
            count = max(map(self._count, same))
            indices = max((one.indices for one in same if one.indices), key=len, default=None)
            load = partial(load_samples, self.trainer, self.model, view.probe, count, indices=indices)
            try:
                samples = load(passed=self._passed)
            except NoProbeYetError:
                if batch is None:
                    raise
                samples = load(passed=[batch])
                if view.probe.source == "val" and self.trainer.val_dataloaders is not None:
                    note = "no validation batch has passed before the first look: the samples are training data"
                    samples = replace(samples, notes=(*samples.notes, note))
            self._passed = []
            self._samples[key] = samples
            given = all(view.pixel_space is not None for view in same)
            for note in samples.notes:
                if not (given and "pixel range" in note):
                    warn_safely(note)
        return self._samples[key]

    def _count(self, view: View) -> int:
        return max(view.probe.samples, view.requirements(self.model).population)

    # What comes of it.

    def collect(self) -> None:
        """Write what was drawn meanwhile."""
        for result in self.artist.results():
            view = next((view for view in self.views if view.name == result.owner), None)
            if result.drawn is None:
                if view is not None:
                    self._fault(view, result.step, result.error)
                continue
            try:
                for place, picture in enumerate(map(lay_out, result.drawn.pictures)):
                    for writer in self.writers:
                        writer.picture(picture, result.step)
                    if view is not None and view.animation and place == 0 and picture.image.startswith(b"\x89PNG"):
                        self._keep_frame(view.name, picture.tag, result.step, picture.image)
                if result.drawn.projection is not None:
                    for writer in self.writers:
                        writer.projection(result.drawn.projection)
                for tag, value in result.drawn.scalars.items():
                    for writer in self.writers:
                        writer.scalar(tag, value, result.step)
            except Exception as error:
                if view is not None:
                    self._fault(view, result.step, error)
                continue
            if view is not None:
                self._faults[view.name] = 0
                if result.drawn.memory is not None and result.name is not None:
                    view.memories[result.name] = result.drawn.memory

    def _keep_frame(self, view: str, tag: str, step: int, image: bytes) -> None:
        frames = self._frames[view, tag]
        frames.append((step, image))
        if len(frames) > _FRAMES:
            kept = thin([step for step, _ in frames], most=_FRAMES // 2)
            self._frames[view, tag] = [frames[index] for index in kept]

    def _animate(self) -> None:
        frames, self._frames = self._frames, defaultdict(list)
        for (view, tag), pages in frames.items():
            if len(pages) > 1:
                arguments = {"tag": f"{tag}/animation", "frames": pages, "description": f"{tag}, step by step."}
                self.artist.submit(view, pages[-1][0], DrawTask(animate, arguments))

    def _drain(self) -> None:
        waiting = self.artist.waiting
        if waiting and self.artist.drain(1.0):
            inform(f"finishing {self.artist.waiting} drawings, for at most {DRAIN_SECONDS:.0f} s")
            if lost := self.artist.drain(DRAIN_SECONDS):
                warn_safely(f"{lost} drawings were not finished within {DRAIN_SECONDS:.0f} s and are lost")
        self.collect()

    def _find_writers(self) -> list[Writer]:
        if self.trainer.fast_dev_run:
            return []  # everything runs, nothing is kept: as with Lightning's own loggers
        writers, line = find_writers(self.trainer.loggers, Path(self.trainer.default_root_dir) / "lightning_viz_logs")
        if line:
            warn_safely(line)
        return writers

    # Faults.

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Nothing that goes wrong in our own works reaches the run."""
        try:
            yield
        except Exception as error:
            warn_safely(f"a look failed: {type(error).__name__}: {error}")

    def _fault(self, view: View, step: int, error: Exception | str) -> None:
        what = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        self._faults[view.name] += 1
        off = self._faults[view.name] >= FAULTS and view in self.views
        if off:
            self.views.remove(view)
        end = f"the view is switched off after {FAULTS} faults in a row" if off else "training goes on"
        warn_safely(f"{view.kind} ({view.name}) failed at step {step}: {what} ({end})")

    @staticmethod
    def _free_memory(error: Exception) -> None:
        error.__traceback__ = None  # holds every tensor of the failed pass
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
