"""The number of multiplications that run, and of values that are written."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lightning_viz.hooks.patched_maps import PatchedMaps, is_view
from lightning_viz.hooks.pytree import first_tensor
from lightning_viz.hooks.work import Work


class Multiplications(TorchDispatchMode):
    """Counts those of convolutions and matrix products inside its context, of whatever windows are computed.

    Attributes:
        work: so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it; what is done in windows comes here again."""
        if any(issubclass(kind, PatchedMaps) for kind in types):
            return NotImplemented
        result = func(*args, **(kwargs or {}))
        if not is_view(func) and (written := first_tensor(result)) is not None:
            self.work.written += written.numel()
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            with suppress(Exception):  # of an operation in an unusual form, which is not counted
                self.work.multiplications += formula(*args, **(kwargs or {}), out_val=result) // 2
        return result
