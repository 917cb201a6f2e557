"""State as checkpoints may hold it: what ``torch.load(weights_only=True)`` reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

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
