"""Batched work: batch sizes that follow from the inputs, halved when memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.shards import is_sharded

MOST_ITEMS = 256
"""Items of a batch, as of small images, whose passes cost mostly calls."""
_VALUES = 2**21  # input values of a batch on a CPU: 13 images of 3 x 224 x 224, 75 of 3 x 96 x 96
_VALUES_OF_A_GPU = 2**23  # 55 images of 3 x 224 x 224
_SHARDED = 8  # items of a batch that no process may halve alone
_DELAY = 3.0  # seconds before a progress bar appears

BARS: ContextVar[Callable[[str, Iterable[Any] | None, int | None], Any] | None] = ContextVar("BARS", default=None)
"""Replaces tqdm, called with name, items and total: a command shows the bars among its own."""


def choose_batch_size(values: int, model: nn.Module | None = None) -> int:
    """A batch size that follows from the inputs and the kind of device alone.

    The last digits of a result depend on the size of its batch, so that a search for the fastest would make them depend
    on how fast a machine is. On a CPU it takes at most 1.15 times as long per item as the fastest size (LeNet at 28,
    ResNet-18 at 32 to 224, AlexNet, MobileNetV2 and VGG-11 at 224; forward alone, and with the gradient).

    Args:
        values: of one input.
        model: on whose device it is run; a CPU if omitted.
    """
    device = None if model is None else next((p.device.type for p in model.parameters()), None)
    most = _VALUES if device in (None, "cpu") else _VALUES_OF_A_GPU
    return max(1, min(MOST_ITEMS, most // max(1, values)))


class Batches:
    """Processes items ``0, ..., count - 1`` in order, in batches.

    If no size is given, it follows from `values` per item (`choose_batch_size`). If memory does not suffice, the batch
    is halved and repeated; it is an error only if a single item does not fit. The model's state is preserved once for
    all batches.

    Raises:
        InvalidArgumentError: a size below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        count: int,
        size: int | None = None,
        *,
        values: int = 1,
        progress: bool = True,
        name: str = "",
    ) -> None:
        if size is not None and size < 1:
            raise InvalidArgumentError(f"batch_size={size} must be at least 1, or None for one that suits the inputs")
        self._model, self._count, self._progress, self._name = model, count, progress, name
        self._sharded = is_sharded(model)
        chosen = choose_batch_size(values, model)
        self._size = size or (min(_SHARDED, chosen) if self._sharded else chosen)
        self._channels_last = True

    def run(self, work: Callable[[Tensor], None]) -> None:
        """Process all items: `work` gets the indices of a batch ``[n]``, and fewer again if it runs out of memory."""
        done = 0
        bar = progress_bar(self._name, shown=self._progress, total=self._count)
        with bar, evaluation_mode(self._model):
            while done < self._count:
                size = min(self._size, self._count - done)
                try:
                    work(torch.arange(done, done + size, device="cpu"))
                except RuntimeError as error:
                    if not self._can_retry(error, size):
                        raise
                    continue
                done += size
                bar.update(size)

    def lay_out(self, tensor: Tensor) -> Tensor:
        """A batch of images on the CPU as channels-last, which makes convolutions 1.1 to 1.5 times faster."""
        fast = self._channels_last and tensor.dim() == 4 and tensor.device.type == "cpu"
        return tensor.contiguous(memory_format=torch.channels_last) if fast else tensor

    def _can_retry(self, error: RuntimeError, size: int) -> bool:
        """Whether the batch may succeed when it is repeated, smaller or in the default memory format."""
        if self._channels_last and refuses_layout(error):
            self._channels_last = False  # the model calls view() where reshape() would do
            return True
        if size == 1 or self._sharded or not out_of_memory(error):
            return False
        free_memory(error)
        self._size = size // 2
        return True


def progress_bar(name: str, *, shown: bool, items: Iterable[Any] | None = None, total: int | None = None) -> Any:
    """A progress bar that appears after a few seconds and vanishes at the end.

    It goes over `items`; with a `total` alone it is updated by hand.
    """
    bars = BARS.get()
    if bars is not None and shown:
        return bars(name, items, total)
    return tqdm(items, total=total, desc=name, delay=_DELAY, leave=False, disable=not shown)


def free_memory(error: Exception) -> None:
    """Let go of what a failed pass holds: its traceback every tensor, the allocator of a GPU what is free again."""
    error.__traceback__ = None
    if out_of_memory(error) and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def refuses_layout(error: Exception) -> bool:
    """Whether an error is of a model that calls ``view()`` on maps in another memory format than it expects."""
    return "view size is not compatible" in str(error)


def out_of_memory(error: Exception) -> bool:
    """Whether an error is an out-of-memory error, of a GPU or of torch's CPU allocators."""
    phrases = ("not enough memory", "can't allocate memory")  # the second one on Linux and macOS
    return isinstance(error, torch.OutOfMemoryError) or any(phrase in str(error) for phrase in phrases)
