"""The views of a run as its checkpoint says them: their classes, arguments and state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

import lightning_viz
from lightning_viz.callbacks.probe import Probe
from lightning_viz.callbacks.serialization import CHECKPOINT, RECIPE, from_plain
from lightning_viz.callbacks.view import View
from lightning_viz.errors import ViewError, warn_safely
from lightning_viz.pixels import PixelSpace

_MOST = {
    **dict.fromkeys(("noise_samples", "integration_steps", "attack_steps", "updates"), 10_000),  # passes of a sample
    "each": 1_000,
    "grid": 2_000,  # squared
    "samples": 1_000_000,
}


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
        _check_amounts(arguments)
        parts = {part: _PARTS[part](value) for part, value in arguments.items() if part in _PARTS and value is not None}
        return made(**{**arguments, **parts})
    except Exception as error:  # a view's constructor may do anything with values of another version
        raise ViewError(f"{name} cannot be made again as the checkpoint says: {error}") from error


def _check_amounts(arguments: Mapping[str, Any]) -> None:
    """What multiplies passes, samples or memory must be of a size that somebody may have asked for."""
    for name, value in (*arguments.items(), *dict(arguments.get("probe") or {}).items()):
        most = _MOST.get(name, math.inf)
        if isinstance(value, (int, float)) and not value <= most:
            raise ViewError(f"{name} is {value:,}, and {most:,} is the most that is taken from a checkpoint")


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
    **dict.fromkeys(("pixel_space", "target_pixel_space"), lambda arguments: PixelSpace(**arguments)),
}
"""Arguments that are not plain values, and how they are put together."""


def _as_tensors(value: Any) -> Any:
    """What `from_plain` made arrays of."""
    if isinstance(value, dict):
        return {key: _as_tensors(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_as_tensors, value))
    return torch.as_tensor(value) if hasattr(value, "__array__") else value
