"""The views of an analysis: those that the run had, and every other that suits the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_viz.callbacks.probe import Probe
from lightning_viz.callbacks.serialization import recorded_views
from lightning_viz.callbacks.view import View
from lightning_viz.catalogue import views
from lightning_viz.errors import AnalysisError
from lightning_viz.pixels import PixelSpace


def views_for(
    checkpoint: Mapping[str, Any],
    earlier: Mapping[str, Any],
    *,
    probe: Probe | None,
    pixel_space: PixelSpace | None,
    kinds: Sequence[str] | None,
) -> list[View]:
    """The views that a run had, in the state that its checkpoint holds, and every other.

    Args:
        checkpoint: as Lightning saved it.
        earlier: state of the views after the checkpoint before, from which those go on that this one does not hold.
        probe: of the others; that of the run's first view, or the default, if omitted.
        pixel_space: of the others.
        kinds: of views, which alone are wanted; None: all.

    Raises:
        AnalysisError: there is no such kind of view.
    """
    unknown = [kind for kind in kinds or () if kind not in views()]
    if unknown:
        raise AnalysisError(f"there is no kind of view {unknown[0]!r}: choose from {', '.join(views())}")
    recorded = recorded_views(checkpoint)
    probe = probe or (recorded[0].probe if recorded else Probe())
    others = [view for view in _every(probe, pixel_space) if not any(_alike(view, one) for one in recorded)]
    for view in others:
        view.restore({"lightning_viz": earlier})
    return [view for view in recorded + others if kinds is None or view.kind in kinds]


def _every(probe: Probe, pixel_space: PixelSpace | None) -> list[View]:
    """Those that the catalogue names for an analysis."""
    given: dict[str, Any] = {"probe": probe, "pixel_space": pixel_space}
    return [entry.load()(**options, **given) for entry in views().values() for options in entry.offline]


def _alike(view: View, other: View) -> bool:
    """Whether both draw under the same tags."""
    return type(view) is type(other) and getattr(view, "method", None) == getattr(other, "method", None)
