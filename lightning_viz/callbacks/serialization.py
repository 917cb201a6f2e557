"""How a view was made, as a checkpoint may hold it: so that a run's views can be made again from it alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import lightning_viz
from lightning_viz.callbacks.probe import Probe
from lightning_viz.errors import ViewError, warn_safely
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.pixels import PixelSpace

if TYPE_CHECKING:
    from lightning_viz.callbacks.view import View

_TUPLE = "__tuple__"


def to_plain(value: Any) -> Any:
    """Arrays as tensors, tuples marked, NumPy's numbers as Python's."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: to_plain(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE: [to_plain(part) for part in value]}
    if isinstance(value, list):
        return [to_plain(part) for part in value]
    return value


def from_plain(value: Any) -> Any:
    """What `to_plain` was given.

    >>> from_plain(to_plain({"limits": (0.0, np.float32(1.5)), "points": np.zeros(2)}))
    {'limits': (0.0, 1.5), 'points': array([0., 0.])}
    """
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, dict):
        if _TUPLE in value:
            return tuple(from_plain(part) for part in value[_TUPLE])
        return {key: from_plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [from_plain(part) for part in value]
    return value


CHECKPOINT, RECIPE = "lightning_viz", "recipe"
"""Where a checkpoint holds its views' states by name, and where each of them says how it was made."""
MOST_BYTES = 16 * 2**20
"""Samples that a `Probe` was given are kept in a checkpoint up to this size."""


def recipe_of(view: View) -> dict[str, Any] | None:
    """The view's class and arguments in plain values; None of a class, or of an argument, that cannot be named so.

    Args:
        view: one of this package's. Others are made again where their class is at hand.
    """
    name = type(view).__name__
    if name not in dir(lightning_viz) or getattr(lightning_viz, name) is not type(view):
        return None
    arguments = {field.name: getattr(view, field.name) for field in fields(view) if field.init}
    plain = to_plain({name: _taken_apart(value) for name, value in arguments.items()})
    return {"view": name, "arguments": plain} if _is_plain(plain) else None


def view_of(recipe: Mapping[str, Any]) -> View:
    """The view of a recipe. No class but this package's views can be named in it.

    Args:
        recipe: of `recipe_of`, from a checkpoint.

    Raises:
        ViewError: it names another class, or arguments that this version's view does not take.
    """
    from lightning_viz.callbacks.view import View

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


def _taken_apart(value: Any) -> Any:
    if isinstance(value, Probe):
        size = sum(x.nbytes for part in (value.inputs, value.labels) for x in all_tensors(part))
        kept = {field.name: getattr(value, field.name) for field in fields(value)}
        return kept if size <= MOST_BYTES else {**kept, "inputs": None, "labels": None}
    return asdict(value) if isinstance(value, PixelSpace) else value


def _as_tensors(value: Any) -> Any:
    """What `from_plain` made arrays of."""
    if isinstance(value, dict):
        return {key: _as_tensors(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_as_tensors, value))
    return torch.as_tensor(value) if hasattr(value, "__array__") else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) and _is_plain(part) for key, part in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str, Tensor)
