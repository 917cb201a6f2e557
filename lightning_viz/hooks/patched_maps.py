"""A tensor of copies of one map that differ in a window each; what a model does with it is done in the windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_viz.hooks.patched_copies import NotFollowedError, Patched
from lightning_viz.hooks.patched_operations import follow, leaves
from lightning_viz.hooks.pytree import map_leaves


class PatchedMaps(Tensor):
    """A tensor ``[n, ...]`` of `Patched` copies, which becomes an ordinary one where an operation cannot be followed.

    Attributes:
        patched: what the copies are; None if they cannot be known.
        ordinary: the copies once they are computed, which count from then on.
        aliases: the tensors that an operation in place on this one would change, too, itself among them.
    """

    patched: Patched | None
    ordinary: Tensor | None
    aliases: WeakSet[PatchedMaps]

    @staticmethod
    def __new__(cls, patched: Patched) -> PatchedMaps:
        """Of the copies' shape, type and device, as the ordinary tensor would have them."""
        shared = patched.shared
        return Tensor._make_wrapper_subclass(
            cls, patched.shape, strides=patched.strides, dtype=shared.dtype, device=shared.device
        )

    def __init__(self, patched: Patched) -> None:
        self.patched, self.ordinary = patched, None
        self.aliases = WeakSet([self])

    @classmethod
    def unknown(cls, like: Patched) -> PatchedMaps:
        """Stands for what is returned beside a followed map, and is not used (the indices of a max-pooling)."""
        made = cls(like)
        made.patched = None
        return made

    def become(self, other: PatchedMaps) -> PatchedMaps:
        """Take another's values, after an operation in place.

        Raises:
            NotFollowedError: other tensors share the memory.
        """
        self.check_alone()
        self.patched, self.ordinary = other.patched, other.ordinary
        return self

    def share_memory_with(self, other: PatchedMaps) -> PatchedMaps:
        """Be a view of another, which an operation in place on either would change."""
        other.aliases.add(self)
        self.aliases = other.aliases
        return self

    def check_alone(self) -> None:
        """Check that no view is changed along.

        Raises:
            NotFollowedError: there is one.
        """
        if len(self.aliases) > 1:
            raise NotFollowedError("the model changes maps in place of which it keeps views")

    def copies(self) -> Tensor:
        """The copies as an ordinary tensor, the same at every call: who changes it changes this.

        Raises:
            NotFollowedError: the values are not known.
        """
        if self.ordinary is None:
            if self.patched is None:
                raise NotFollowedError("the model uses the indices or statistics of a layer")
            self.ordinary = self.patched.copies()
        return self.ordinary

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """Its shape and windows."""
        return f"PatchedMaps({list(self.shape)})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Follow linear layers, which torch takes apart before it dispatches; leave the rest to the dispatcher."""
        with torch._C.DisableTorchFunctionSubclass():
            result = _in_windows(func, args, kwargs or {}) if func is F.linear else None
            return func(*args, **(kwargs or {})) if result is None else result

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do an operation in the windows, or else on the copies."""
        kwargs = kwargs or {}
        result = _changed_in_windows(func, args, kwargs) if func._schema.is_mutable else _in_windows(func, args, kwargs)
        if result is not None:
            return result
        if func._schema.is_mutable or is_view(func):
            for maps in (part for part in leaves((args, kwargs)) if isinstance(part, PatchedMaps)):
                maps.check_alone()
        return func(*ordinary(list(args)), **ordinary(kwargs))


def ordinary(structure: Any) -> Any:
    """A structure with every tensor as an ordinary one."""
    return map_leaves(structure, PatchedMaps, PatchedMaps.copies)


def _in_windows(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What an operation returns, done in the windows; None where it cannot be."""
    maps = [part for part in leaves((args, kwargs)) if isinstance(part, PatchedMaps)]
    if any(part.patched is None or part.ordinary is not None for part in maps):
        return None
    args, kwargs = map_leaves((list(args), kwargs), PatchedMaps, lambda part: part.patched)
    result = follow(func, args, kwargs)
    if result is None:
        return None
    parts = result if isinstance(result, list) else [result]
    parts[0].kept.followed += 1
    results = [PatchedMaps(part) for part in parts]
    if is_view(func):
        for part in results:
            part.share_memory_with(maps[0])
    else:
        parts[0].kept.spared.written += sum(part.shared.numel() * part.outside for part in parts)
    if isinstance(result, list):
        return results
    others = len(func._schema.returns) - 1 if func is not F.linear else 0
    return (results[0], *(PatchedMaps.unknown(parts[0]) for _ in range(others))) if others else results[0]


def _changed_in_windows(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The first argument, changed in place in the windows; None where it cannot be."""
    packet = getattr(torch.ops.aten, func.overloadpacket.__name__.removesuffix("_"), None)
    same = getattr(packet, func._overloadname, None)
    if same is None or same is func or not args or not isinstance(args[0], PatchedMaps) or "out" in kwargs:
        return None
    result = _in_windows(same, args, kwargs)
    if not isinstance(result, PatchedMaps) or result.shape != args[0].shape or result.dtype != args[0].dtype:
        return None
    return args[0].become(result)


def is_view(func: Any) -> bool:
    """Whether what an operation returns shares memory with what it was given."""
    aliases = [part.alias_info for part in func._schema.arguments] if hasattr(func, "_schema") else []
    return any(alias is not None and not alias.is_write for alias in aliases)
