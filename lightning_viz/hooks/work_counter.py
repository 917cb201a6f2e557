"""Counts the work of what runs."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lightning_viz.hooks.patched_maps import PatchedMaps, is_view
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.hooks.work import Work

_NOTHING_WRITTEN = {getattr(torch.ops.aten, name) for name in ("_unsafe_view", "empty", "empty_like", "empty_strided")}


class WorkCounter(TorchDispatchMode):
    """Counts the work that is done inside its context, of whatever windows are computed.

    Attributes:
        work: so far, of all samples of all passes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it; what is done in windows comes here again."""
        if any(issubclass(kind, PatchedMaps) for kind in types):
            return NotImplemented
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet not in _NOTHING_WRITTEN and not is_view(func):
            self.work.written += sum(tensor.numel() for tensor in all_tensors(result) if tensor.is_floating_point())
        formula = flop_registry.get(packet)
        if formula is not None:
            with suppress(Exception):  # of an operation in an unusual form, which is not counted
                self.work.multiplications += formula(*args, **(kwargs or {}), out_val=result) // 2
        return result
