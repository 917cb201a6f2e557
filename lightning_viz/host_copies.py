"""Copies between the CPU's memory and a GPU's for which neither waits for the other."""

from __future__ import annotations

import torch
from torch import Tensor

_PINNING = ("cuda",)  # devices that copy from and to pinned memory while the CPU goes on


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on a device; the CPU goes on at once, and what the device does next finds the values there.

    Args:
        tensor: of any device; from the CPU it goes by pinned memory of its own, so that it may change at once.
        device: where to.
        dtype: to convert to; its own if omitted.
    """
    if tensor.device.type != "cpu" or device.type not in _PINNING or not _can_be_pinned(tensor):
        return tensor.to(device=device, dtype=dtype)
    return send(pinned(tensor.to(dtype=dtype)), device)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor that nobody changes to a device; from pinned memory to a GPU the CPU goes on at once."""
    return tensor.to(device, non_blocking=device.type in _PINNING and _is_pinned(tensor))


def pinned(tensor: Tensor) -> Tensor:
    """A copy in pinned memory of a tensor on the CPU; nobody may change it while a GPU may still read it.

    The tensor itself if it is sparse, of a class of its own, or part of a graph.
    """
    return _empty_pinned(tensor).copy_(tensor) if _can_be_pinned(tensor) else tensor


class HostCopies:
    """Copies tensors to the CPU on a stream of their own: what the GPU does next need not wait for them.

    A copy holds the values after `wait`, and not before. On other devices, and on the CPU, it does at once.
    """

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def copy(self, tensor: Tensor) -> Tensor:
        """A copy on the CPU of what the device's current stream computes; of a tensor there, itself."""
        if not _has_stream(tensor):
            return tensor.cpu()
        if tensor.device not in self._streams:
            self._streams[tensor.device] = torch.cuda.Stream(tensor.device)  # type: ignore[no-untyped-call]
        stream, copy = self._streams[tensor.device], _empty_pinned(tensor)
        stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(stream):
            copy.copy_(tensor.detach(), non_blocking=_is_pinned(copy))
        tensor.record_stream(stream)  # its memory is given to nobody else before it is copied
        return copy

    def wait(self) -> None:
        """Wait until all copies hold their values, and for nothing that was asked of the GPU since."""
        for stream in self._streams.values():
            stream.synchronize()


def _has_stream(tensor: Tensor) -> bool:
    return type(tensor) is Tensor and tensor.device.type in _PINNING and tensor.layout is torch.strided


def _can_be_pinned(tensor: Tensor) -> bool:
    return type(tensor) is Tensor and tensor.layout is torch.strided and not tensor.requires_grad


def _is_pinned(tensor: Tensor) -> bool:
    return _can_be_pinned(tensor) and tensor.is_pinned()


def _empty_pinned(tensor: Tensor) -> Tensor:
    """Pinned memory for a tensor's values, in its layout; pageable memory where there is no more to be pinned."""
    try:
        return torch.empty_like(tensor, device="cpu", pin_memory=True, requires_grad=False)
    except RuntimeError:
        return torch.empty_like(tensor, device="cpu", requires_grad=False)
