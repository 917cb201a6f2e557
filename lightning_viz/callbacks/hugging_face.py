"""Views of a run of Hugging Face's Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_viz.callbacks.loop_run import loader_of
from lightning_viz.callbacks.loop_watch import LoopWatch, watch
from lightning_viz.callbacks.probe import Probe
from lightning_viz.callbacks.step_watch import UNSEEN
from lightning_viz.callbacks.view import View

if TYPE_CHECKING:

    class TrainerCallback:
        """What Hugging Face's Trainer calls during a run."""

else:
    try:
        from transformers import TrainerCallback
    except ImportError:  # then there is no such Trainer either
        TrainerCallback = object

__all__ = ["HuggingFaceCallback"]


class HuggingFaceCallback(TrainerCallback):
    """Views in Hugging Face's Trainer: ``Trainer(..., callbacks=[HuggingFaceCallback(data=held_out)])``.

    Views look as in Lightning's Trainer: before the first update, at their occasions, and at the end; where
    ``load_best_model_at_end`` changes the weights then, before it does. Evaluations are not watched: views that watch
    validation passes run samples of `data` by themselves. A run that is resumed draws on, with scales of its own.

    Args:
        views: that look; `default_views` if omitted.
        data: whose samples are watched: a data set, whose samples the Trainer's own collator puts together, a loader,
            a batch, or a `Probe`; training data if omitted.
        logdir: folder of TensorBoard's events; ``lightning_viz`` in the Trainer's ``output_dir`` if omitted.
        logger: takes the pictures instead, see `watch`.
    """

    def __init__(
        self,
        views: Sequence[View] | None = None,
        *,
        data: Any = None,
        logdir: str | Path | None = None,
        logger: Any = None,
    ) -> None:
        self._views, self._data, self._logdir, self._logger = views, data, logdir, logger
        self._watch: LoopWatch | None = None

    def on_train_begin(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        optimizer: Any = None,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Watch, and look at the weights before the first update."""
        data = self._data
        if not isinstance(data, Probe):
            data = loader_of(data, getattr(train_dataloader, "collate_fn", None))
        self._watch = watch(
            model,
            data=data,
            views=self._views,
            logdir=self._logdir or Path(args.output_dir) / "lightning_viz",
            logger=self._logger,
            optimizer=optimizer,
        )
        run = self._watch.run
        run.training_loaders, run.step, run.epoch = train_dataloader, int(state.global_step), int(state.epoch or 0)
        self._watch.begin()

    def on_step_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        """Look, if due; see how the first step calls the model."""
        if self._watch is not None:
            self._watch.run.ends_epoch = _ends_epoch(args, state, train_dataloader)
            self._watch.run.ends_run = state.global_step + 1 >= state.max_steps
            self._watch.begin_batch(reads=UNSEEN)

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A batch was only added to the gradients."""
        if self._watch is not None:
            self._watch.end_batch()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The weights have been updated."""
        if self._watch is not None:
            self._watch.run.step = int(state.global_step)
            self._watch.end_batch()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look, if due."""
        if self._watch is not None:
            self._watch.end_epoch()
            if args.load_best_model_at_end and control.should_training_stop:
                self._watch.look_last()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look for the last time, and wait for what is still being drawn."""
        ended, self._watch = self._watch, None
        if ended is not None:
            ended.close()


def _ends_epoch(args: Any, state: Any, loader: Any) -> bool:
    """Whether the update that comes now is its epoch's last, as far as the loader's length tells."""
    try:
        updates = -(-len(loader) // args.gradient_accumulation_steps)
    except TypeError:  # a stream
        return False
    return bool((state.global_step + 1) % updates == 0)
