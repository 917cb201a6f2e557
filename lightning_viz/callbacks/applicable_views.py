"""All views that suit a model, as one callback."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

from lightning_viz.callbacks.probe import Probe
from lightning_viz.callbacks.run import Callback, LightningModule, Trainer
from lightning_viz.callbacks.schedule import Steps
from lightning_viz.callbacks.view import View, caption_of
from lightning_viz.catalogue import views
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_table

__all__ = ["default_views"]


class Views(Callback, Sequence[View]):
    """Views that a Trainer takes as one callback, alone or among others; a sequence of them to everybody else.

    A list of views would not do where a configuration makes the callbacks one by one (Hydra), since a Trainer takes no
    list within its list. As a run begins the views take their place.

    Args:
        views: in order.
    """

    def __init__(self, views: Iterable[View]) -> None:
        self._views = tuple(views)

    @overload
    def __getitem__(self, index: int) -> View: ...

    @overload
    def __getitem__(self, index: slice) -> Views: ...

    def __getitem__(self, index: int | slice) -> View | Views:
        return Views(self._views[index]) if isinstance(index, slice) else self._views[index]

    def __len__(self) -> int:
        return len(self._views)

    def __add__(self, others: Iterable[Any]) -> list[Any]:
        return [*self._views, *others]

    def __radd__(self, others: Iterable[Any]) -> list[Any]:
        return [*others, *self._views]

    def __repr__(self) -> str:
        return f"Views({list(self._views)})"

    def _repr_html_(self) -> str:
        return html_table("Views", {type(view).__name__: caption_of(view) for view in self})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the views in this callback's place."""
        views = self.of(trainer)
        if views:  # else Lightning, which goes on with the callback behind this place, would leave one out
            place = next(index for index, callback in enumerate(trainer.callbacks) if callback is self)
            trainer.callbacks[place : place + 1] = views
            views[0].setup(trainer, pl_module, stage)

    def of(self, trainer: Trainer) -> Sequence[View]:
        """The views that a Trainer is to have.

        Args:
            trainer: that has this callback.
        """
        return self._views


class AddedViews(Views):
    """Views that nobody passed to the Trainer: of a kind that its script passes, these are left out."""

    def of(self, trainer: Trainer) -> Sequence[View]:
        """Those of other kinds than the Trainer's own.

        Args:
            trainer: that has this callback.
        """
        others = [callback for callback in trainer.callbacks if callback is not self]
        passed = [view for one in others for view in (one if isinstance(one, Views) else [one])]
        kinds = {view.kind for view in passed if isinstance(view, View)}
        return [view for view in self if view.kind not in kinds]


def default_views(
    *,
    every_n_epochs: int | None = None,
    every_n_train_steps: int | None = None,
    steps: Steps = None,
    probe: Probe | None = None,
    pixel_space: PixelSpace | None = None,
    max_overhead: float = 0.05,
    finish_seconds: float = 60.0,
    free_megabytes: float = 200.0,
    log_megabytes: float = 1000.0,
    keep_parts: bool = False,
    private: bool = False,
) -> Views:
    """All views that suit the model: ``Trainer(callbacks=default_views())``.

    A view that does not suit (hyperplanes of an image model, Grad-CAM of a perceptron) is skipped with one line of
    information. Views that you name yourself raise an error instead.

    Args:
        every_n_epochs: look at the end of every n-th epoch; 1 if no other occasion is given.
        every_n_train_steps: look whenever the number of completed updates is a multiple.
        steps: look at these numbers of completed updates; ``"log"``: four a decade. Hyperplanes do so if nothing else
            is asked for.
        probe: the samples to watch; 16, and for embeddings 1,000, of the validation data if omitted.
        pixel_space: how the model's inputs map to pixels; found in the data's ``Normalize`` transform if omitted.
        max_overhead: share of the training time for which training may be held, after 60 s in all.
        finish_seconds: the longest time that the end of a run waits for its pictures; what is not drawn by then is kept
            beside the run, and ``lightning-viz draw`` draws it.
        free_megabytes: of the log's disk, below which pictures stop until there is room.
        log_megabytes: that the pictures of a run may add to each log before they stop.
        keep_parts: keep the values that each page is drawn from beside the run, see `View`.
        private: keep inputs out of logs, kept files and checkpoints: maps and numbers alone, see `View`.

    Returns:
        The views, a Trainer's callbacks, or one among others; a sequence.
    """
    probe = probe or Probe()
    asked = any(occasion is not None for occasion in (every_n_epochs, every_n_train_steps, steps))
    chosen: list[View] = []
    for kind, entry in views().items():
        if not entry.default:
            continue
        view: View = entry.load()(
            every_n_epochs=every_n_epochs,
            every_n_train_steps=every_n_train_steps,
            steps="log" if kind == "hyperplanes" and not asked else steps,
            probe=probe,
            pixel_space=pixel_space,
            max_overhead=max_overhead,
            finish_seconds=finish_seconds,
            free_megabytes=free_megabytes,
            log_megabytes=log_megabytes,
            keep_parts=keep_parts,
            private=private,
        )
        view.optional = True
        chosen.append(view)
    return Views(chosen)
