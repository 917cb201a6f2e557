"""The session of a run: which views are due, one shared pass for them, their faults kept in, time kept in bounds."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec
from weakref import WeakKeyDictionary

from lightning_viz.callbacks.agreement import Agreement, PartedError
from lightning_viz.callbacks.batch_parts import reading_of
from lightning_viz.callbacks.guide import GUIDE_TAG, opening_line, reading_guide
from lightning_viz.callbacks.heartbeat import Heartbeat
from lightning_viz.callbacks.joint_looks import JointLooks
from lightning_viz.callbacks.notices import Faults, LeftOut, cause_of, harmless
from lightning_viz.callbacks.picture_log import PictureLog
from lightning_viz.callbacks.probe import Probe
from lightning_viz.callbacks.run import Trainer, error_text, say_once
from lightning_viz.callbacks.run_protocol import Named, Run
from lightning_viz.callbacks.run_samples import RunSamples
from lightning_viz.callbacks.schedule import OverheadBudget
from lightning_viz.callbacks.shared_pass import SharedPass
from lightning_viz.callbacks.snapshot import PopulationViewLike, Snapshot, ViewLike
from lightning_viz.callbacks.step_watch import StepReader
from lightning_viz.callbacks.suitability import leave_out
from lightning_viz.callbacks.tags import tag_endings, with_ending
from lightning_viz.callbacks.validation_watch import ValidationWatch
from lightning_viz.errors import (
    InterceptionError,
    InvalidArgumentError,
    InvalidTypeError,
    LightningVizError,
    NoLabelsError,
    OutputError,
    TargetError,
    ViewError,
    inform,
    warn_safely,
)
from lightning_viz.hooks.batching import free_memory
from lightning_viz.hooks.model_state import preserve_state

_FAILED = "logging failed"
_UNREAD = "(its step was not seen to call a module: give probe=Probe(inputs=..., forward=...))"

Arguments = ParamSpec("Arguments")

_sessions: WeakKeyDictionary[Any, Session] = WeakKeyDictionary()


def session(trainer: Trainer) -> Session | None:
    """The session of a Trainer's run; None where it has no views, or is not in training.

    Args:
        trainer: any.
    """
    return _sessions.get(trainer)


def _held(event: Callable[Concatenate[Session, Arguments], None]) -> Callable[Concatenate[Session, Arguments], None]:
    """Training is held by what the session does at an event, and it is booked."""

    @wraps(event)
    def measured(self: Session, /, *args: Arguments.args, **options: Arguments.kwargs) -> None:
        names, watching = lambda: [view.name for view in self.views], lambda: self._watch.seconds
        with self.budget.measured(names, watching):
            event(self, *args, **options)

    return measured


class Session:
    """Observes a model for a list of views during one run.

    Args:
        run: a training, or the validation pass of a checkpoint.
        views: those that suit the model, on the processes that look.
        watching: views that read whole validation passes, all that the run has, whether they suit the model or not.
        heartbeat: by which the other processes wait for the first; none if omitted.
        agreement: of the processes, where all look; none if omitted.

    Attributes:
        leader: the view whose hooks pass on the run's events.
        samples: of the views' probes, and of others that are reserved.
    """

    def __init__(
        self,
        run: Run,
        views: Sequence[ViewLike],
        watching: Sequence[PopulationViewLike],
        heartbeat: Heartbeat | None = None,
        agreement: Agreement | None = None,
    ) -> None:
        self._heartbeat, self._agreement = heartbeat or Heartbeat(), agreement or Agreement()
        self._joint = JointLooks(self._agreement, views)
        self.run, self.views, self._began = run, list(views), tuple(views)
        self._exchanges = bool(watching)  # which is so on all processes
        self.budget = OverheadBudget()
        self.shared = SharedPass(run)
        naming = next((view.probe for view in views if view.probe.named or view.probe.labels is not None), Probe())
        self._steps, self._waits = StepReader(run.model, naming), False
        self._faults, self._left_out = Faults(run), LeftOut()
        drawn = views if self._agreement.first else []
        self.pictures = PictureLog(run, drawn, self._fault, self._faults.succeeded, self.budget.wrote)
        self.pictures.process.low = run.beside_training
        self._endings = tag_endings(views, run.ending)
        self._told: set[str | type] = set()  # causes for which views were skipped
        self._drew: set[str] = set()  # names of the views that have drawn
        self._refused: defaultdict[str | type, list[tuple[ViewLike, Exception]]] = defaultdict(list)  # by the cause
        self._watch = ValidationWatch(run, watching, self._agreement)
        self.samples = RunSamples(run, lambda: self.views, self._watch.watches)

    def begin(self, leader: ViewLike) -> None:
        """Be the Trainer's session.

        Args:
            leader: the view whose hooks pass on the run's events.
        """
        self.leader = leader
        _sessions[self.run.owner] = self

    def introduce(self) -> None:
        """Say once which views watch, where their pictures are seen and how they are read."""
        if self.views and self.pictures.writers:
            boards = (writer.folder for writer in self.pictures.writers if getattr(writer, "board", False))
            say_once(self.run.owner, opening_line(self.views, next(boards, None)))
            for writer in self.pictures.writers:
                with harmless("the text on how to read the pictures could not be written"):
                    writer.text(GUIDE_TAG, reading_guide(self.views))

    # Events of the run.

    def on_batch(self, batch: Any) -> None:
        """Between two updates, before a batch.

        Args:
            batch: that is about to be trained on, by the model's own ``training_step``.
        """
        self.on_update_start(batch)
        self.read_step(batch)

    @_held
    def on_update_start(self, batch: Any = None) -> None:
        """Between two updates: the weights are those after a whole number of updates.

        Args:
            batch: that is about to be trained on, if it is known.
        """
        self._on_occasion(lambda view, step: view.schedule.at_step(step), batch)
        for view in self._began:
            with harmless(_FAILED):
                view.before_update(self.run if view in self.views else None)

    @_held
    def read_step(self, batch: Any) -> None:
        """Read how the step that begins now calls the model, if none has been read; it ends at `on_batch_end`.

        Args:
            batch: that it is given.
        """
        with harmless(_FAILED):
            self._steps.start(batch, "training_step")

    def expect_no_step(self) -> None:
        """No step can be read: what fails is told, and does not wait for one."""
        self._steps.pending = False

    @_held
    def on_batch_end(self) -> None:
        """After the update, or the batch that was only added to its gradients."""
        self._read_step()

    @_held
    def on_epoch_end(self) -> None:
        """After an epoch's last update."""
        self._on_occasion(lambda view, step: view.schedule.at_epoch_end(self.run.epoch))

    def finish(self) -> None:
        """After the last update: a last look, and everything drawn."""
        never = [view for view in self._watch.never if view in self.views]
        if never:
            say = inform if all(view.optional for view in never) else warn_safely
            names = ", ".join(type(view).__name__ for view in never)
            say(f"no validation pass ran, so {names} had nothing to watch")
        with self._heartbeat.turn():
            self.last_look()
            if self._agreement.first:
                self.close()
        if not self._agreement.first:
            self.close()

    def last_look(self) -> None:
        """The weights are those after the last update: a look of all views that have not had it."""
        with harmless(_FAILED):
            step = self.run.step
            self.look([view for view in self.views if self._is_due(view, step, True)], step, last=True)

    def finish_without_samples(self) -> None:
        """Draw what needs no samples, where there are none."""
        with harmless(_FAILED), preserve_state(self.run.model):
            alone = [view for view in self.views if not view.requirements(self.run.model).samples]
        self.look(alone, self.run.step, last=True)
        self.close()

    @_held
    def on_validation_start(self) -> None:
        """A validation pass starts."""
        self._watch.start(lambda view: not self.run.is_global_zero or view in self.views)

    @_held
    def on_validation_batch_start(self, batch: Any, loader: int) -> None:
        """A validation batch is about to pass.

        Args:
            batch: on the model's device.
            loader: number of its loader.
        """
        if loader == 0:
            with harmless(_FAILED):
                self.samples.keep(batch)
            with harmless(_FAILED):
                self._steps.start(batch, self.run.held_out_step)
        self._watch.open(batch, loader)

    @_held
    def on_validation_batch_end(self) -> None:
        """It has passed."""
        self._read_step()
        self._watch.close()

    @_held
    def on_validation_end(self) -> None:
        """The pass has ended: bring together what all processes saw, for the views on the first."""
        self._heartbeat.validated()
        with self._faults.gathered():
            if self._watch.end(self._fail_to_watch, self.budget.book):
                self.samples.renew()  # more of them are needed from now on

    def close(self) -> None:
        """Wait, within a limit, for what is still being drawn; write it; leave no hook and no process behind."""
        with harmless(_FAILED), self._faults.gathered():
            self.pictures.finish()
        self.abort()
        for writer in self.pictures.writers:
            with harmless(_FAILED):
                writer.flush()

    def interrupt(self) -> None:
        """Have what is not drawn kept beside the run, without waiting; leave no hook and no process behind."""
        self._heartbeat.close()
        self._agreement.leave()
        with harmless(_FAILED), self._faults.gathered():
            self.pictures.hand_over()
        self.abort()

    def abort(self) -> None:
        """Leave no hook and no process behind; what is still being drawn is lost."""
        self._watch.close()
        with harmless(_FAILED):
            self._steps.stop()
        with harmless(_FAILED):
            self._left_out.report()
        self._heartbeat.close()
        self._agreement.leave()
        self.pictures.process.close()
        if _sessions.get(self.run.owner) is self:
            del _sessions[self.run.owner]

    def _read_step(self) -> None:
        """How the step that was watched calls the model; samples that were taken otherwise are taken anew."""
        with harmless(_FAILED):
            reading = self._steps.stop()
            if reading is not None:
                self._watch.reconsider()
                self.samples.reconsider(plain=reading.plain)
            if reading is not None and not reading.plain:
                say_once(self.run.owner, reading.words())

    # Which views are due.

    def _on_occasion(self, asks: Callable[[ViewLike, int], bool], batch: Any = None) -> None:
        with harmless(_FAILED):
            self.collect()
        with harmless(_FAILED):
            step = self.run.step
            self._watch.note(lambda view: asks(view, step), step)
            with self._heartbeat.turn(lambda view: asks(view, step)):
                if self._agreement.together and not self._heartbeat.is_turn:
                    return
                due = [view for view in self.views if self._is_due(view, step, asks(view, step))]
                self.look(due, step, batch)

    def _is_due(self, view: ViewLike, step: int, occasion: bool) -> bool:
        """By the schedule, or before the first update; of a view that watches when a validation pass has just ended.

        Some of these look before the first update, too.
        """
        if self._watch.watches(view.name):
            if view.last_step is None and step == 0 and self._watch.before_training(view.name):
                return not self._steps.pending  # else what it sees for the first time might be something else
            return self._watch.has_seen(view.name, step) and view.last_step != step
        return view.last_step is None or (view.last_step != step and occasion)

    # Looking.

    def look(self, due: Sequence[ViewLike], step: int, batch: Any = None, *, last: bool = False) -> None:
        """Let views that are due observe the model, as far as time allows; first and last looks always.

        Args:
            due: the views.
            step: completed updates.
            batch: that is about to be trained on, if any.
            last: whether the run ends.
        """
        with self._joint.turn(self.run.model) as goes_on:
            if goes_on:
                self._look(self._joint.chosen(self.views, lambda: self._chosen(due, step, last=last)), step, batch)

    def _chosen(self, due: Sequence[ViewLike], step: int, *, last: bool) -> list[ViewLike]:
        """Those of the views that are due which look, as far as time allows."""
        due = self._short_enough(due, step)
        must = [view for view in due if last or view.last_step is None]
        may = [view for view in due if view not in must]
        if may and self.pictures.process.behind():
            for view in may:  # they wait for their next occasion, training does not
                self._left_out.add(view, step, "as drawing is behind")
            may = []
        affordable = self.budget.affordable({view.name: view.max_overhead for view in may})
        for view in may:
            if view.name not in affordable:
                self._left_out.add(view, step, f"to stay within max_overhead={view.max_overhead:g}")
        chosen = must + [view for view in may if view.name in affordable]
        for view in chosen:
            self._left_out.take(view, step)
        return chosen

    def _look(self, chosen: Sequence[ViewLike], step: int, batch: Any) -> None:
        if not chosen:
            return
        with preserve_state(self.run.model), self.run.muted(), self._faults.gathered():
            for key in dict.fromkeys(view.probe.key() for view in chosen):
                if self._heartbeat.alone:
                    break
                self._look_at_probe([view for view in chosen if view.probe.key() == key], step, batch)
        self._skip_refused()

    def _short_enough(self, due: Sequence[ViewLike], step: int) -> Sequence[ViewLike]:
        """Without the views whose last look nearly outlasted the patience of other processes."""
        longest = self._heartbeat.longest_look
        for view in (long := [view for view in due if self.budget.look_seconds(view.name) > longest]):
            self._left_out.add(view, step, f"as its look took more than {longest:g} s, a quarter of the time-out")
        return [view for view in due if view not in long]

    def _look_at_probe(self, views: list[ViewLike], step: int, batch: Any = None) -> None:
        """One shared pass for views of one probe; if it fails, each by itself, so that only the cause suffers."""
        started = time.monotonic()
        for view in views:
            view.last_step = step  # also of a look that fails: it is not tried again before the next occasion
        try:
            with self._agreement.look():
                requirements = {view.name: view.requirements(self.run.model) for view in views}
                needed, probe = any(need.samples for need in requirements.values()), views[0].probe
                samples = self._joint.samples(probe, lambda: self.samples.of_look(probe, batch, needed=needed))
                unsuited = leave_out(views, requirements, samples)
                self.views, views = ([view for view in some if view not in unsuited] for some in (self.views, views))
                snapshots = self.shared.run({view.name: requirements[view.name] for view in views}, samples, step)
            if samples.unlabeled or self.shared.said_unlabeled:
                self._told.add(NoLabelsError)
        except PartedError:
            raise
        except Exception as error:
            free_memory(error)
            if len(views) == 1 and self._steps.pending and not isinstance(error, InvalidArgumentError):
                # how the model is called shows in the step that comes now
                views[0].last_step = None
                self._wait_for_step(step, error)
            elif len(views) == 1 and isinstance(error, InvalidTypeError):  # batches stay what they are
                self._refused[cause_of(error)].append((views[0], error))
            elif len(views) == 1:
                unread = reading_of(self.run.model) is None and not isinstance(error, LightningVizError)
                self._told |= {error_text(error)} if unread else set()
                self._fault(views[0], step, f"{error_text(error)} {_UNREAD}" if unread else error)
                self.budget.charge(views[0].name, step, time.monotonic() - started)
            else:
                for view in views:
                    self._look_at_probe([view], step, batch)
            return
        for view in views:
            if (failure := self.shared.failures.get(view.name)) is not None:
                self._fail(view, step, failure)
        views = [view for view in views if view.name in snapshots]
        beyond_head = self.shared.population_seconds  # is charged to those who asked for it
        asking = sum(requirements[view.name].beyond_head for view in views)
        share = (time.monotonic() - started - beyond_head) / max(1, len(views))
        for view in views:
            if self._heartbeat.alone:
                return
            started = time.monotonic()
            self.run.begins(view)
            try:
                with self._agreement.look():
                    view.indices = samples.indices
                    self._compute_and_draw(view, snapshots[view.name])
            except PartedError:
                raise
            except Exception as error:
                free_memory(error)
                self._fail(view, step, error)
            else:
                self.run.looked(view)
            extra = beyond_head / asking if requirements[view.name].beyond_head else 0.0
            self.budget.charge(view.name, step, share + extra + time.monotonic() - started)

    def _compute_and_draw(self, view: ViewLike, snapshot: Snapshot) -> None:
        snapshot = replace(snapshot, private=view.private, rates=self.run.learning_rates())
        with self.shared.context():
            if isinstance(view, PopulationViewLike):
                snapshot = replace(snapshot, population=self._watch.take(view, snapshot))
            snapshot = replace(snapshot, extra=view.compute(self.run.model, snapshot))
        if not self._agreement.first:
            self._drew.add(view.name)
            return
        for task in view.draw(snapshot):
            self._drew.add(view.name)
            task = replace(with_ending(task, self._endings[view.name]), keep_parts=view.keep_parts)
            self.pictures.submit(view, snapshot.step, task)
        if facts := view.facts(snapshot):
            self.pictures.keep_facts(self._endings[view.name], snapshot.step, facts)

    @_held
    def collect(self) -> None:
        """Write what was drawn meanwhile, as far as time allows; all is written at the end."""
        share = max((view.max_overhead for view in self.views), default=0.0)
        with self._faults.gathered():
            self.pictures.collect(may_write=lambda: self.budget.may_write(share))

    def settled(self, view: Named) -> bool:
        """Whether all that a view has drawn is written, and no fault of it is still to be reported.

        Args:
            view: that has looked.
        """
        return view.name not in self.pictures.process.owners and view.name not in self._faults.gathering

    # Faults.

    def _wait_for_step(self, step: int, error: Exception) -> None:
        """Say once that the look before the first update must wait."""
        why = f"until a step has shown how the model is called: {error_text(error)}"
        if not self._waits:
            inform(f"the look at step {step} is left out {why}")
        self._waits = True

    def _fail(self, view: ViewLike, step: int, error: Exception) -> None:
        """What a view raised: of a target that the model does not have it is told once, and the view is done with.

        A view that watches validation passes, and could not run samples before training, waits for the first of them.
        """
        if step == 0 and self._watch.waits(view.name):
            return
        if not isinstance(error, (TargetError, OutputError, ViewError, InterceptionError)):
            watches = isinstance(view, PopulationViewLike) and view.optional and view.name not in self._drew
            if watches and self._steps.pending:  # how the model is called shows in the step that comes now
                view.last_step = None
            else:
                (self._fail_to_watch if watches else self._fault)(view, step, error)
        elif self._steps.pending:  # what the output means shows in the step that comes now
            view.last_step = None
            self._wait_for_step(step, error)
        else:
            self._refused[cause_of(error)].append((view, error))

    def _skip_refused(self) -> None:
        """Tell why views are skipped from now on, in one line for each cause, which those by default do not repeat."""
        refused, self._refused = self._refused, defaultdict(list)
        for cause, together in refused.items():
            views = [view for view, _ in together]
            self.views = [view for view in self.views if view not in views]
            if cause not in self._told or not all(view.optional for view in views):
                self._told.add(cause)
                self.run.report_refusal(views, max((error for _, error in together), key=lambda error: len(str(error))))

    def _fail_to_watch(self, view: ViewLike, step: int, error: Exception | str) -> None:
        """A view that never drew and that nobody named is skipped; its reason is told if no other view has told it."""
        if not view.optional or view.name in self._drew:
            self._fault(view, step, error)
            return
        self.views = [other for other in self.views if other is not view]
        words = error_text(error)
        if not any(isinstance(cause, str) and cause in words for cause in self._told):
            say_once(self.run.owner, f"skipped {view.label}: {words}")
        self._told.add(words)

    def _fault(self, view: ViewLike, step: int, error: Exception | str) -> None:
        """Report what a view raised; after too many faults in a row it is switched off, and no more is told of it."""
        if view in self.views and self._faults.add(view, step, error):
            self.views.remove(view)
