"""Much work of one kind in batches of the size that goes fastest, halved where memory does not suffice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.model_state import evaluation_mode

_FIRST = 8  # items per batch to begin with
_MOST = 256  # items per batch, and
_MOST_VALUES = 2**23  # input values: 55 images of 3 x 224 x 224
_BETTER = 0.97  # a larger batch takes more memory: it must take at most this share of the time per item
_DELAY = 3.0  # seconds after which a progress bar appears

_MEASURED: WeakKeyDictionary[nn.Module, dict[tuple[str, int, str], dict[int, float]]] = WeakKeyDictionary()
"""By model and kind of work the seconds that an item took, by size of batch: a later call goes on from there."""

BARS: ContextVar[Callable[[str, Iterable[Any] | None, int | None], Any] | None] = ContextVar("BARS", default=None)
"""What makes bars in place of tqdm, of their name, items and total: where a command shows them among its own."""


class Batches:
    """Goes through items ``0, ..., count - 1`` in order, in batches.

    With no size given, neighboring powers of two are tried while the work is done, and the fastest is kept: it
    depends on model and machine (on two cores 32 for AlexNet, 8 for ResNet-18), and is remembered for the model. On
    out-of-memory the batch is halved and done again; only one item that does not fit is an error.

    Args:
        model: that the work runs; it is looked at once for all batches.
        count: how many items.
        size: items per batch; chosen if None.
        values: input values of one item, which bound the choice.
        progress: whether a bar is shown when the work takes more than a few seconds.
        name: of the work, for the bar.

    Raises:
        ValueError: a size below 1.
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
            raise InvalidArgumentError(f"batch_size is {size}: give 1 or more, or None to have it chosen")
        self._model, self._count, self._progress, self._name = model, count, progress, name
        self._most = max(1, min(_MOST, _MOST_VALUES // max(1, values))) if size is None else size
        self._searching, self._seconds = size is None, {} if size is not None else _measured(model, name, values)
        self._size = next_size(self._seconds, self._most)[0] if size is None else size
        self._warm = bool(self._seconds)
        self._channels_last = True

    def run(self, work: Callable[[Tensor], None]) -> None:
        """Do the work.

        Args:
            work: called with the numbers of a batch's items, ``[n]``; again with fewer, if it runs out of memory.
        """
        done = 0
        bar = progress_bar(self._name, shown=self._progress, total=self._count)
        with bar, evaluation_mode(self._model):
            while done < self._count:
                size = min(self._size, self._count - done)
                started = time.perf_counter()
                try:
                    work(torch.arange(done, done + size, device="cpu"))
                except RuntimeError as error:
                    if not self._mended(error, size):
                        raise
                    continue
                if self._searching and size == self._size:
                    self._learn(started)
                done += size
                bar.update(size)

    def lay_out(self, tensor: Tensor) -> Tensor:
        """Images on the CPU as channels-last, which convolutions take 1.1 to 1.5 times faster; other tensors as given.

        Args:
            tensor: a batch of inputs.
        """
        fast = self._channels_last and tensor.dim() == 4 and tensor.device.type == "cpu"
        return tensor.contiguous(memory_format=torch.channels_last) if fast else tensor

    def _mended(self, error: RuntimeError, size: int) -> bool:
        """Whether the batch may succeed when it is done again: smaller, or in the usual memory format."""
        if self._channels_last and "view size is not compatible" in str(error):
            self._channels_last = False  # the model calls view() where reshape() would do
            return True
        if size == 1 or not out_of_memory(error):
            return False
        error.__traceback__ = None  # holds the tensors of the failed pass
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
        self._seconds[size] = math.inf
        self._size = size // 2
        return True

    def _learn(self, started: float) -> None:
        """Note what an item took at the present size, and go on to a better one; the first batch warms up."""
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()  # else the time is that of asking, not of doing
        if self._warm:
            self._seconds[self._size] = (time.perf_counter() - started) / self._size
            self._size, self._searching = next_size(self._seconds, self._most)
        self._warm = True


def progress_bar(name: str, *, shown: bool, items: Iterable[Any] | None = None, total: int | None = None) -> Any:
    """A bar that appears where the work takes long, and goes when it is done.

    Args:
        name: of the work.
        shown: whether there is a bar at all.
        items: to go through, one at a time.
        total: how many there are, where the bar is moved by hand.
    """
    bars = BARS.get()
    if bars is not None and shown:
        return bars(name, items, total)
    return tqdm(items, total=total, desc=name, delay=_DELAY, leave=False, disable=not shown)


def next_size(seconds: Mapping[int, float], most: int) -> tuple[int, bool]:
    """The size to use next, and whether that is still a trial.

    Args:
        seconds: per item, of the sizes tried; infinite of those for which memory did not suffice.
        most: the largest size allowed.

    >>> next_size({}, 64), next_size({8: 1.0}, 64), next_size({8: 1.0, 16: 0.8}, 64), next_size({8: math.inf}, 64)
    ((8, True), (16, True), (32, True), (4, True))
    >>> next_size({4: 1.1, 8: 1.0, 16: 1.2}, 64)
    (8, False)
    """
    fitting = {size: taken for size, taken in seconds.items() if taken < math.inf and size <= most}
    too_large = [size for size, taken in seconds.items() if taken == math.inf]
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


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice, on a GPU or, as torch's allocators word it, on the CPU."""
    words = ("not enough memory", "can't allocate memory")  # the second one on Linux and macOS
    return isinstance(error, torch.OutOfMemoryError) or any(one in str(error) for one in words)
