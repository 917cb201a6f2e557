"""The views of an analysis: those that the run had, and every other that suits the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import lightning_viz
from lightning_viz.callbacks.probe import Probe
from lightning_viz.callbacks.serialization import CHECKPOINT, RECIPE, from_plain
from lightning_viz.callbacks.view import View
from lightning_viz.catalogue import views
from lightning_viz.errors import AnalysisError, ViewError, warn_safely
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
        view.restore({CHECKPOINT: earlier})
    return [view for view in recorded + others if kinds is None or view.kind in kinds]


def _every(probe: Probe, pixel_space: PixelSpace | None) -> list[View]:
    """Those that the catalogue names for an analysis."""
    given: dict[str, Any] = {"probe": probe, "pixel_space": pixel_space}
    return [entry.load()(**options, **given) for entry in views().values() for options in entry.offline]


def _alike(view: View, other: View) -> bool:
    """Whether both draw under the same tags."""
    return type(view) is type(other) and getattr(view, "method", None) == getattr(other, "method", None)


def view_of(recipe: Mapping[str, Any]) -> View:
    """The view of a recipe. No class but this package's views can be named in it.

    Args:
        recipe: of `recipe_of`, from a checkpoint.

    Raises:
        ViewError: it names another class, or arguments that this version's view does not take.
    """
    name = recipe.get("view")
    made = getattr(lightning_viz, str(name)) if name in dir(lightning_viz) else None
    if not (isinstance(made, type) and issubclass(made, View)):
        raise ViewError(f"the checkpoint names a view {name!r}, which lightning_viz does not have")
    try:
        arguments = from_plain(dict(recipe["arguments"]))
        parts = {part: _PARTS[part](value) for part, value in arguments.items() if part in _PARTS and value is not None}
        return made(**{**arguments, **parts})
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ViewError(f"{name} cannot be made again as the checkpoint says: {error}") from error


def recorded_views(checkpoint: Mapping[str, Any]) -> list[View]:
    """The views of the run that a checkpoint is from, as they were then: scales, channels, the probe's indices.

    Args:
        checkpoint: of which those views are found that are this package's own. One that cannot be made again, as
            another version saved it, is left out, which is said.
    """
    views = []
    kept = checkpoint.get(CHECKPOINT)
    for name, one in (kept if isinstance(kept, Mapping) else {}).items():
        if not isinstance(one, Mapping) or one.get(RECIPE) is None:
            continue
        try:
            view = view_of(one[RECIPE])
            view.restore(checkpoint)
            views.append(view)
        except (ViewError, TypeError, ValueError, LookupError, AttributeError) as error:
            warn_safely(f"{str(name).partition('(')[0]} is not drawn as it was: {type(error).__name__}: {error}")
    return views


def _probe(arguments: Mapping[str, Any]) -> Probe:
    given = {name: _as_tensors(arguments[name]) for name in ("inputs", "labels")}
    return Probe(**{**arguments, **given})


_PARTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "probe": _probe,
    "pixel_space": lambda pixel_space: PixelSpace(**pixel_space),
    "target_pixel_space": lambda pixel_space: PixelSpace(**pixel_space),
}
"""Arguments that are not plain values, and how they are put together."""


def _as_tensors(value: Any) -> Any:
    """What `from_plain` made arrays of."""
    if isinstance(value, dict):
        return {key: _as_tensors(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_as_tensors, value))
    return torch.as_tensor(value) if hasattr(value, "__array__") else value
