"""The one line to add to a Trainer."""

from __future__ import annotations

from lightning_viz.callbacks.probe import Probe
from lightning_viz.callbacks.schedule import Steps
from lightning_viz.callbacks.view import View
from lightning_viz.catalogue import views
from lightning_viz.pixels import PixelSpace

__all__ = ["default_views"]


def default_views(
    *,
    every_n_epochs: int | None = None,
    every_n_train_steps: int | None = None,
    steps: Steps = None,
    probe: Probe | None = None,
    pixel_space: PixelSpace | None = None,
    max_overhead: float = 0.05,
) -> list[View]:
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

    Returns:
        The views, to be put among a Trainer's callbacks.
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
        )
        view.optional = True
        chosen.append(view)
    return chosen
