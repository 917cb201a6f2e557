"""The base of all views: when they look, at what, what they draw, and their state."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.environment import silenced
from lightning_viz.callbacks.evaluation import EVALUATIONS, KEPT, SetAside, end_evaluation, start_evaluation
from lightning_viz.callbacks.kept_state import WrongFormError, check_views
from lightning_viz.callbacks.keyword_arguments import KeywordArguments, arguments_of, plain_containers
from lightning_viz.callbacks.layer_readings import Reading
from lightning_viz.callbacks.notices import harmless
from lightning_viz.callbacks.probe import Probe, as_probe
from lightning_viz.callbacks.run import Callback, LightningModule, Trainer, TrainerRun, averaging_text
from lightning_viz.callbacks.run_protocol import Run
from lightning_viz.callbacks.schedule import Schedule, Steps
from lightning_viz.callbacks.serialization import (
    CHECKPOINT,
    CLASSES,
    RECIPE,
    class_paths,
    from_plain,
    recipe_of,
    to_plain,
)
from lightning_viz.callbacks.session import Session, session
from lightning_viz.callbacks.sessions import start_session
from lightning_viz.callbacks.snapshot import Requirements, Snapshot
from lightning_viz.callbacks.suitability import refuse_twins
from lightning_viz.catalogue import views
from lightning_viz.costs import Facts
from lightning_viz.errors import InvalidArgumentError, ViewError, inform, warn_safely
from lightning_viz.hooks.geometry import Layout
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_table

__all__ = ["PopulationView", "View"]

_AMOUNTS = {
    "max_overhead": "a share of the training time",
    "finish_seconds": "a number of seconds",
    "free_megabytes": "a size",
    "log_megabytes": "a size",
}
_WHEN = ("every_n_epochs", "every_n_train_steps", "steps", "animation", "keep_parts", *_AMOUNTS)
"""Arguments that do not change what a view draws at a step."""
_SHORT = 40  # characters of an argument in a line of the log


def caption_of(view: View) -> str:
    """What a view shows, in a sentence or two: as the catalogue says, or its docstring begins.

    Args:
        view: of any kind.

    >>> from lightning_viz import GradCAM
    >>> caption_of(GradCAM())
    'Where, seen from a layer, the evidence for a class lies.'
    """
    known = views().get(view.kind)
    return known.caption if known else (type(view).__doc__ or "").strip().partition("\n")[0]


class View(KeywordArguments, Callback):
    """Looks at a model while it trains, without leaving a trace, and draws what it saw.

    A view says what it needs in `requirements`, may run passes of its own in `compute`, and makes tasks for the drawing
    process of a `Snapshot` in `draw`. All views of a run share one `Session`, which runs one pass for all that are due.

    Args:
        every_n_epochs: look at the end of every n-th epoch; 1 if no other occasion is given.
        every_n_train_steps: look whenever the number of completed updates is a multiple.
        steps: look at these numbers of completed updates; ``"log"``: four a decade. In any case a view looks before
            the first update and at the end.
        probe: the samples to watch.
        pixel_space: how the model's inputs map to pixels; found in the data's ``Normalize`` transform if omitted.
        max_overhead: share of the training time for which training may be held, after 60 s in all.
        finish_seconds: the longest time that the end of a run waits for its pictures; what is not drawn by then is kept
            beside the run, and ``lightning-viz draw`` draws it. Of several views the longest holds.
        free_megabytes: of the log's disk, below which pictures stop until there is room.
        log_megabytes: that the pictures of a run may add to each log before they stop.
        animation: at the end of fit, one animation over all logged steps.
        keep_parts: keep the values that each page is drawn from beside the run, for `lightning_viz.render.read_page`;
            they count as pictures in ``log_megabytes``.
        private: keep inputs out of logs, kept files and checkpoints: maps and numbers are drawn, on a gray ground. Maps
            may resemble their input all the same: those of a first layer, or a gradient times the input.
    """

    every_n_epochs: int | None = None
    every_n_train_steps: int | None = None
    steps: Steps = None
    probe: Probe = Probe()
    pixel_space: PixelSpace | None = None
    max_overhead: float = 0.05
    finish_seconds: float = 60.0
    free_megabytes: float = 200.0
    log_megabytes: float = 1000.0
    animation: bool = False
    keep_parts: bool = False
    private: bool = False

    kind: ClassVar[str] = "view"
    """First part of the view's tags."""

    def __post_init__(self) -> None:
        for name in arguments_of(type(self)):
            setattr(self, name, plain_containers(getattr(self, name)))
        self.probe = as_probe(self.probe)
        self.schedule = Schedule(self.every_n_epochs, self.every_n_train_steps, self.steps)
        for name, amount in _AMOUNTS.items():
            if not getattr(self, name) >= 0:
                raise InvalidArgumentError(f"{name} is {getattr(self, name)!r}: give {amount}, 0 or more")
        self.optional = False  # made by default_views(): skipped if it does not suit the model
        self._trainer: weakref.ref[Any] | None = None
        self.set_aside: SetAside | None = None
        self.forget()

    def forget(self) -> None:
        """As before the first look."""
        self.last_step: int | None = None
        self.indices: tuple[int, ...] | None = None
        self.state: dict[str, Any] = {}
        self.memories: dict[str, Any] = {}
        self.frames: dict[str, list[tuple[int, NDArray[np.uint8]]]] = {}

    # What a view is made of.

    def check(self, model: nn.Module) -> None:
        """Raise a `ViewError` that says what to do, if the view does not suit the model."""

    def requirements(self, model: nn.Module) -> Requirements:
        """What the shared pass must give; `draw` gets it back as `Snapshot.requirements`."""
        return Requirements()

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """Passes of the view's own, right after the shared one; what they give is `Snapshot.extra`."""
        return {}

    def passes(self, facts: Facts) -> float:
        """Forward passes of one sample that `compute` takes, at most; one with its backward counts as three.

        Args:
            facts: of model and samples.
        """
        return 0.0

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """What to draw of a snapshot. What must stay the same from step to step is set in `state` at the first."""
        raise NotImplementedError

    def facts(self, snapshot: Snapshot) -> Mapping[str, Any]:
        """What was found, in plain values, for ``lightning-viz digest``: with the ``"tag"`` of the page that shows it.

        Args:
            snapshot: that was drawn.
        """
        return {}

    def before_update(self, run: Run | None) -> None:
        """See the weights right before an update, and before the next batch if several make one.

        Args:
            run: that is about to update them; None once this view looks no more.
        """

    # A view's place in a run.

    @property
    def name(self) -> str:
        """The kind of view and those arguments that change what it draws, where they are not the defaults.

        Views of one name would draw the same pictures; a checkpoint keeps their state under it.

        >>> from lightning_viz import Saliency
        >>> Saliency(method="smooth_grad", every_n_epochs=2).name
        "Saliency(method='smooth_grad')"
        """
        name: str | None = vars(self).get("_name")  # asked for at every batch, and slow to write
        if name is None:
            changed = [f"{name}={value}" for name, value in self.changed().items()]
            name = f"{type(self).__name__}({', '.join(changed)})" if changed else type(self).__name__
            vars(self)["_name"] = name
        return name

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; an argument changes the view's name."""
        super().__setattr__(name, value)
        if name in self._arguments:
            vars(self).pop("_name", None)

    @property
    def label(self) -> str:
        """The view in a line of the log: its kind, with the arguments that are short.

        >>> from lightning_viz import Saliency
        >>> Saliency(method="smooth_grad", probe=8).label
        "Saliency(method='smooth_grad')"
        """
        changed = [
            f"{name}={value}" for name, value in self.changed().items() if len(value) <= _SHORT and name != "probe"
        ]
        return f"{type(self).__name__}({', '.join(changed)})" if changed else type(self).__name__

    def _repr_html_(self) -> str:
        looked = "not yet" if self.last_step is None else f"at step {self.last_step}"
        return html_table(type(self).__name__, {"shows": caption_of(self), **self.changed(), "looked last": looked})

    def changed(self) -> dict[str, str]:
        """Arguments that change what it draws and are not the defaults, as they are written."""
        defaults = {name: repr(value) for name, value in arguments_of(type(self)).items() if name not in _WHEN}
        given = {name: repr(getattr(self, name)) for name in defaults}
        return {name: value for name, value in given.items() if value != defaults[name]}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget another trainer's run, and check what can be known before the model is complete."""
        if silenced() or stage not in ("fit", *EVALUATIONS):
            return
        self._put_back()  # of an evaluation that failed
        if self._trainer is None or self._trainer() is not trainer:
            self.forget()
            self._trainer = weakref.ref(trainer)
        refuse_twins(view for view in views_of(trainer) if view.name == self.name)
        self.set_aside = SetAside(self, stage) if stage in EVALUATIONS else None  # type: ignore[arg-type]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check all views against the model, and start their session."""
        views = views_of(trainer)
        if views[0] is self:
            run = TrainerRun(trainer, pl_module, finish_seconds=max(view.finish_seconds for view in views))
            started = start_session(run, views)
            if started is not None and trainer.is_global_zero and any(view.optional for view in views):
                with harmless("the list of views could not be written"):
                    started.introduce()
            if started is not None and trainer.is_global_zero and (line := averaging_text(trainer, self)):
                inform(line)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Select the views that watch the validation pass; of ``Trainer.validate`` and ``test``, start a session."""
        if (views := views_of(trainer))[0] is self:
            start_evaluation(trainer, pl_module, views)
        if led := self._led(trainer):
            led.on_validation_start()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Register the forward hooks."""
        if led := self._led(trainer):
            led.on_validation_batch_start(batch, dataloader_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Remove the hooks."""
        if led := self._led(trainer):
            led.on_validation_batch_end()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge what all processes saw."""
        if led := self._led(trainer):
            led.on_validation_end()
            end_evaluation(led)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As of validation."""
        self.on_validation_start(trainer, pl_module)

    def on_test_batch_start(self, *arguments: Any) -> None:
        """As of validation."""
        self.on_validation_batch_start(*arguments)

    def on_test_batch_end(self, *arguments: Any) -> None:
        """As of validation."""
        self.on_validation_batch_end(*arguments)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As of validation."""
        self.on_validation_end(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Look, if due: the weights are those after a whole number of updates."""
        if led := self._led(trainer):
            led.on_batch(batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """See how the first step called the model."""
        if led := self._led(trainer):
            led.on_batch_end()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, if due."""
        if led := self._led(trainer):
            led.on_epoch_end()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for the last time, and wait for what is still being drawn."""
        if led := self._led(trainer):
            led.finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Have what is not drawn kept: nothing waits, since Lightning's checkpoint callbacks come after this."""
        if led := self._led(trainer):
            led.interrupt()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no process behind."""
        if led := self._led(trainer):
            led.close()
        self._put_back()

    def _put_back(self) -> None:
        """Go on in training as before an evaluation."""
        aside, self.set_aside = self.set_aside, None
        if aside is not None:
            aside.put_back()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what makes the pictures of a resumed run the same."""
        with harmless("writing pictures before a checkpoint failed"):
            if running := session(trainer):
                running.collect()
        with harmless(f"{self.label} could not be kept in a checkpoint, its resumed run begins anew"):
            checkpoint.setdefault(CLASSES, class_paths(model=pl_module, data=trainer.datamodule))
            if self.last_step is not None:
                kept = {**self.kept(), RECIPE: recipe_of(self)}
                checkpoint.setdefault(CHECKPOINT, {})[self.name] = kept

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on as the run that was interrupted."""
        with harmless(f"{self.label} could not go on from the checkpoint and begins anew"):
            if self.set_aside is None:
                self.restore(checkpoint)
            else:
                self.set_aside.load(checkpoint)

    def kept(self) -> dict[str, Any]:
        """What `restore` goes on from, in plain values."""
        return {name: to_plain(getattr(self, name)) for name in KEPT}

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the view's state from a checkpoint: scales, channels, the probe's indices, the last embedding."""
        try:
            states = checkpoint.get(CHECKPOINT, {})
            list(check_views(states))
        except WrongFormError as error:
            warn_safely(f"{self.label} begins as in a new run: the checkpoint's {error}")
            return
        kept = states.get(self.name, {})
        state = {name: from_plain(kept[name]) for name in KEPT if name in kept}  # whole, or none of it
        for name, value in state.items():
            setattr(self, name, value)

    def _led(self, trainer: Trainer) -> Session | None:
        """The session, if this view leads it."""
        running = session(trainer)
        return running if running is not None and running.leader is self else None

    def __getstate__(self) -> dict[str, Any]:
        """What lives only in this process stays here; Lightning attaches the module's ``log`` to a callback."""
        kept = {name: value for name, value in self.__dict__.items() if name not in ("log", "log_dict")}
        return {**kept, "_trainer": None, "set_aside": None}


def views_of(trainer: Trainer) -> list[View]:
    """The views among a trainer's callbacks."""
    return [callback for callback in trainer.callbacks if isinstance(callback, View)]


class PopulationView(View):
    """Reads its layers' outputs in every validation pass that its schedule allows, and draws when it has ended.

    It hangs on the forward passes that the validation loop runs anyway, on every process, and runs none of its own.
    Where it cannot (no validation data, or the model is compiled), some of the probe's data set goes forward for it
    alone. Between occasions of the schedule and validation passes: an occasion waits for the next pass.

    Args:
        layers: to watch.
        samples: of the probe's data set, where they are run for the view alone.
    """

    layers: Layers = "last_conv"
    samples: int = 1000

    before_training: ClassVar[bool] = False
    """Whether it also looks before the first update, at samples that are run for it alone."""
    by_sample: ClassVar[bool] = True
    """Whether it needs outputs with a row for each sample, and their layout; else it takes any as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise InvalidArgumentError(f"samples is {self.samples}: give 1 or more")

    def check(self, model: nn.Module) -> None:
        """The layers must exist."""
        if not select_layers(model, self.layers):
            raise ViewError("no layers given: name at least one")

    def requirements(self, model: nn.Module) -> Requirements:
        """Nothing of the shared pass."""
        return Requirements(head=False)

    def read(self, call: str, module: nn.Module, output: Tensor, layout: Layout) -> Reading:
        """What to take of a layer's output for a batch ``[n, ...]``; nothing that waits for the device.

        Args:
            call: the layer's name and number of the call, ``"layer1:0"``.
            module: the layer.
            output: of the call.
            layout: of the output: where its channels and places are.
        """
        raise NotImplementedError
