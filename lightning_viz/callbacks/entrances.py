"""The modules that a step may call from outside, as far as they can be watched."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn


def is_redirected(module: nn.Module) -> bool:
    """Whether a call runs the step: Lightning leads it through DistributedDataParallel as the module's forward."""
    return getattr(module.__dict__.get("forward"), "__name__", "") == "wrapped_forward"


def is_compiled(module: nn.Module) -> bool:
    """Whether calls of a module run compiled code."""
    return (
        "_orig_mod" in module._modules
        or getattr(module, "_compiled_call_impl", None) is not None
        or getattr(module, "_compiler_ctx", None) is not None  # Lightning's, of a module compiled as a whole
        or hasattr(module.forward, "_torchdynamo_orig_callable")
    )


def entrances(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules that the step may call; not those inside compiled or scripted ones, nor losses and metrics."""
    kinds = {kind.__name__ for kind in type(module).__mro__}
    if "_Loss" in kinds or "Metric" in kinds or "MetricCollection" in kinds:
        return
    if not isinstance(module, torch.jit.ScriptModule):
        yield name, module
        if not is_compiled(module):
            for key, child in module.named_children():
                yield from entrances(child, f"{name}.{key}" if name else key)
