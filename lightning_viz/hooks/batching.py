"""Batched work: searches for the fastest batch size, and halves it when memory does not suffice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.shards import is_sharded

_FIRST = 8  # items in the first batch
_MOST = 256  # maximum items per batch
_MOST_VALUES = 2**23  # maximum input values per batch: 55 images of 3 x 224 x 224
_BETTER = 0.97  # a larger batch takes more memory, so its time per item must be at most this share
_DELAY = 3.0  # seconds before a progress bar appears

_MEASURED: WeakKeyDictionary[nn.Module, dict[tuple[str, int, str], dict[int, float]]] = WeakKeyDictionary()
"""Seconds per item, by model, kind of work and batch size; a later call continues the search."""

_FIXED: ContextVar[bool] = ContextVar("_FIXED", default=False)
_FIXED_MOST = 64
_FIXED_VALUES = 2**21  # 13 images of 3 x 224 x 224: a forward and backward of them stays far below a gigabyte

BARS: ContextVar[Callable[[str, Iterable[Any] | None, int | None], Any] | None] = ContextVar("BARS", default=None)
"""Replaces tqdm, called with name, items and total: a command shows the bars among its own."""


@contextmanager
def fixed_batches() -> Iterator[None]:
    """No search for the fastest batch size: sizes follow from the inputs alone.

    The last digits of a result depend on the size of its batch, so that it would depend on how fast a machine is.
    """
    before = _FIXED.set(True)
    try:
        yield
    finally:
        _FIXED.reset(before)


def fixed_batch_size(values: int) -> int:
    """A batch size that follows from the inputs alone, and keeps memory small.

    Args:
        values: of one input.
    """
    return max(1, min(_FIXED_MOST, _FIXED_VALUES // max(1, values)))


class Batches:
    """Processes items ``0, ..., count - 1`` in order, in batches.

    If no size is given, and sizes are not fixed (`fixed_batches`), neighboring powers of two are tried while working,
    and the fastest is kept: it depends on model and machine (on two cores 32 for AlexNet, 8 for ResNet-18), and is
    stored for the model. If memory does not suffice, the batch is halved and repeated; it is an error only if a single
    item does not fit. The model's state is preserved once for all batches; `values` per item bound the size.

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
            raise InvalidArgumentError(f"batch_size={size} must be at least 1, or None to search for the fastest")
        if size is None and _FIXED.get():
            size = fixed_batch_size(values)
        self._model, self._count, self._progress, self._name = model, count, progress, name
        if is_sharded(model):  # what is found out by time, or by memory, may differ from process to process
            size = min(_FIRST, count) if size is None else size
        self._sharded = is_sharded(model)
        self._most = max(1, min(_MOST, _MOST_VALUES // max(1, values))) if size is None else size
        self._searching, self._seconds = size is None, {} if size is not None else _measured(model, name, values)
        self._size = next_size(self._seconds, self._most)[0] if size is None else size
        self._warm = bool(self._seconds)
        self._channels_last = True

    def run(self, work: Callable[[Tensor], None]) -> None:
        """Process all items: `work` gets the indices of a batch ``[n]``, and fewer again if it runs out of memory."""
        done = 0
        bar = progress_bar(self._name, shown=self._progress, total=self._count)
        with bar, evaluation_mode(self._model):
            while done < self._count:
                size = min(self._size, self._count - done)
                started = time.perf_counter()
                try:
                    work(torch.arange(done, done + size, device="cpu"))
                except RuntimeError as error:
                    if not self._can_retry(error, size):
                        raise
                    continue
                if self._searching and size == self._size:
                    self._record_time(started)
                done += size
                bar.update(size)

    def lay_out(self, tensor: Tensor) -> Tensor:
        """A batch of images on the CPU as channels-last, which makes convolutions 1.1 to 1.5 times faster."""
        fast = self._channels_last and tensor.dim() == 4 and tensor.device.type == "cpu"
        return tensor.contiguous(memory_format=torch.channels_last) if fast else tensor

    def _can_retry(self, error: RuntimeError, size: int) -> bool:
        """Whether the batch may succeed when it is repeated, smaller or in the default memory format."""
        if self._channels_last and "view size is not compatible" in str(error):
            self._channels_last = False  # the model calls view() where reshape() would do
            return True
        if size == 1 or self._sharded or not out_of_memory(error):
            return False
        free_memory(error)
        self._seconds[size] = math.inf
        self._size = size // 2
        return True

    def _record_time(self, started: float) -> None:
        """Record the time per item at the present size, and choose the next; the first batch is a warm-up."""
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()  # otherwise only the launch is timed
        if self._warm:
            self._seconds[self._size] = (time.perf_counter() - started) / self._size
            self._size, self._searching = next_size(self._seconds, self._most)
        self._warm = True


def progress_bar(name: str, *, shown: bool, items: Iterable[Any] | None = None, total: int | None = None) -> Any:
    """A progress bar that appears after a few seconds and vanishes at the end.

    It goes over `items`; with a `total` alone it is updated by hand.
    """
    bars = BARS.get()
    if bars is not None and shown:
        return bars(name, items, total)
    return tqdm(items, total=total, desc=name, delay=_DELAY, leave=False, disable=not shown)


def next_size(seconds: Mapping[int, float], most: int) -> tuple[int, bool]:
    """The next batch size, and whether it is still a trial, from the seconds per item of the sizes tried.

    Those that ran out of memory are infinite.

    >>> next_size({}, 64), next_size({8: 1.0}, 64), next_size({8: 1.0, 16: 0.8}, 64), next_size({8: math.inf}, 64)
    ((8, True), (16, True), (32, True), (4, True))
    >>> next_size({4: 1.1, 8: 1.0, 16: 1.2}, 64)
    (8, False)
    """
    fitting = {size: duration for size, duration in seconds.items() if duration < math.inf and size <= most}
    too_large = [size for size, duration in seconds.items() if duration == math.inf]
    if not fitting:
        return min([_FIRST, most, *(max(1, size // 2) for size in too_large)]), True
    best = min(fitting)
    for size in sorted(fitting):
        if fitting[size] <= _BETTER * fitting[best]:
            best = size
    for size in (best * 2, best // 2):
        if 1 <= size <= most and size not in seconds and size < min(too_large, default=math.inf):
            return size, True
    return best, False


def _measured(model: nn.Module, name: str, values: int) -> dict[int, float]:
    device = str(next((p.device for p in model.parameters()), "cpu"))
    return _MEASURED.setdefault(model, {}).setdefault((name, values, device), {})


def free_memory(error: Exception) -> None:
    """Let go of what a failed pass holds: its traceback every tensor, the allocator of a GPU what is free again."""
    error.__traceback__ = None
    if out_of_memory(error) and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def out_of_memory(error: Exception) -> bool:
    """Whether an error is an out-of-memory error, of a GPU or of torch's CPU allocators."""
    phrases = ("not enough memory", "can't allocate memory")  # the second one on Linux and macOS
    return isinstance(error, torch.OutOfMemoryError) or any(phrase in str(error) for phrase in phrases)
