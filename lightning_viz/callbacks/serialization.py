"""How a view was made, in plain values, as a checkpoint may hold it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lightning_viz
from lightning_viz.callbacks.keyword_arguments import arguments_of
from lightning_viz.callbacks.probe import Probe
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.pixels import PixelSpace

TUPLE = "__tuple__"
"""Name under which a tuple stands in plain values."""


def to_plain(value: Any) -> Any:
    """Arrays as tensors, tuples marked, NumPy's numbers as Python's, equal strings as one: files of them are alike."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {to_plain(key): to_plain(part) for key, part in value.items()}
    if type(value) is str:
        return sys.intern(value)
    if isinstance(value, tuple):
        return {TUPLE: [to_plain(part) for part in value]}
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
        if TUPLE in value:
            return tuple(from_plain(part) for part in value[TUPLE])
        return {key: from_plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [from_plain(part) for part in value]
    return value


CHECKPOINT, RECIPE = "lightning_viz", "recipe"
"""Where a checkpoint holds its views' states by name, and where each of them says how it was made."""
MOST_BYTES = 16 * 2**20
"""Samples that a `Probe` was given are kept in a checkpoint up to this size."""


def recipe_of(view: Any) -> dict[str, Any] | None:
    """The view's class and arguments in plain values; None of a class, or of an argument, that cannot be named so.

    Samples that its probe was given are left out if they are large, or private.

    Args:
        view: a `View`, one of this package's. Others are made again where their class is at hand.
    """
    name = type(view).__name__
    if name not in dir(lightning_viz) or getattr(lightning_viz, name) is not type(view):
        return None
    arguments = {name: getattr(view, name) for name in arguments_of(type(view))}
    most = 0 if view.private else MOST_BYTES
    plain = to_plain({name: _taken_apart(value, most) for name, value in arguments.items()})
    return {"view": name, "arguments": plain} if _is_plain(plain) else None


def _taken_apart(value: Any, most: int) -> Any:
    if isinstance(value, Probe):
        size = sum(x.nbytes for part in (value.inputs, value.labels) for x in all_tensors(part))
        kept = {field.name: getattr(value, field.name) for field in fields(value)}
        return kept if size <= most else {**kept, "inputs": None, "labels": None}
    return asdict(value) if isinstance(value, PixelSpace) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) and _is_plain(part) for key, part in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str, Tensor)


CLASSES = "lightning_viz_classes"
"""Where a checkpoint holds the class paths of model and data, which a LightningCLI of fixed classes does not say."""


def class_paths(**objects: Any) -> dict[str, str]:
    """Names of the classes of objects, from which they can be imported; none of a class within a function.

    Args:
        **objects: by what they are; None where there is none.
    """
    classes = {what: type(thing) for what, thing in objects.items() if thing is not None}
    return {
        what: f"{found.__module__}.{found.__name__}"
        for what, found in classes.items()
        if found.__qualname__ == found.__name__
    }


def is_private(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a view of the run that a checkpoint is from was to keep inputs private.

    Args:
        checkpoint: as Lightning saved it.
    """
    kept = checkpoint.get(CHECKPOINT)
    recipes = (_part(state, RECIPE) for state in kept.values()) if isinstance(kept, dict) else ()
    return any(_part(_part(recipe, "arguments"), "private") is True for recipe in recipes)


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
