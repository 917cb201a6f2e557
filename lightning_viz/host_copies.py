"""Copies between the CPU's memory and a device's for which neither waits for the other."""

from __future__ import annotations

import torch
from torch import Tensor

_WAITING = ("cpu", "mps")  # devices of which no copy goes on beside the CPU, or none safely


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on a device; the CPU goes on at once, and what the device does next finds the values there.

    Args:
        tensor: of any device; from the CPU it is copied by pinned memory of its own.
        device: where to.
        dtype: to convert to; its own if omitted.
    """
    if tensor.device.type != "cpu" or device.type in _WAITING:
        return tensor.to(device=device, dtype=dtype)
    tensor = tensor.to(dtype=dtype)  # before the copy: converted under way, it would go by memory that is not pinned
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
