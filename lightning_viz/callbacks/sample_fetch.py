"""Samples of a data set, fetched so that neither it nor training notices, within one limit of time."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data._utils import worker

from lightning_viz.hooks.model_state import same_randomness
from lightning_viz.hooks.pytree import map_tensors, sample_count

_BATCH = 64  # samples that are put together at once
_MOST_BROKEN = 16  # samples that may fail before it is the data set that cannot be read
_GRACE = 1.0  # seconds in which a process that was killed is waited for


class FetchedPart(NamedTuple):
    """A batch that was fetched, or a sample that could not be.

    Attributes:
        indices: of its samples; empty if the data set itself makes batches.
        batch: as the loader gives it; None if the sample could not be read.
        fault: why it could not, in words.
    """

    indices: tuple[int, ...]
    batch: Any = None
    fault: str = ""


@dataclass
class Fetched:
    """What came of a fetch.

    Attributes:
        batches: as the loader gives them.
        indices: of their samples; empty if the data set itself makes batches.
        broken: why, by index, samples could not be read.
        failure: why nothing more came, in words; empty if all did.
    """

    batches: list[Any] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)
    failure: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be said of samples that are left out."""
        if not self.broken:
            return ()
        first, *more = self.broken
        which = f"samples {first} and {len(more)} more are" if more else f"sample {first} is"
        return (f"{which} left out, because the data set could not read it: {self.broken[first]}",)

    def add(self, part: FetchedPart) -> None:
        """Take in what came."""
        if part.fault:
            self.broken[part.indices[0]] = part.fault
        else:
            self.batches.append(part.batch)
            self.indices += part.indices


class Fetcher:
    """Fetches samples, for all probes of a run within one limit of time.

    In a process forked for it and isolated from this one; where that cannot be, from a pickled copy of the data set. A
    data set that could not be read so is not tried again.

    Args:
        seconds: for which fetching may hold the run, in all.
    """

    def __init__(self, seconds: float) -> None:
        self._limit = self._left = seconds
        self._failures: dict[int, str] = {}

    def fetch(self, loader: DataLoader[Any], order: Sequence[int], count: int, seed: int) -> Fetched:
        """Samples of a loader's data set; those that cannot be read are left out.

        Args:
            loader: whose data set and ``collate_fn`` to use.
            order: of the indices, as they are to be tried.
            count: how many samples.
            seed: of whatever is random in the data set.
        """
        key = id(loader.dataset)
        if key in self._failures:
            return Fetched(failure=self._failures[key])
        fetched, started = Fetched(), time.monotonic()
        try:
            parts = _from_fork if _can_fork() else _from_copy
            for part in parts(loader, order, count, seed, started + self._left):
                fetched.add(part)
        except TimeoutError:
            fetched.failure = f"the data set could not be read within {self._limit:g} s"
        except Exception as error:
            fetched.failure = f"the data set could not be read unnoticed: {_words(error)}"
        self._left = max(0.0, self._left + started - time.monotonic())
        if not fetched.batches:
            fault = next(iter(fetched.broken.values()), "it is empty")
            fetched.failure = fetched.failure or f"the data set could not be read unnoticed: {fault}"
            self._failures[key] = fetched.failure
        return fetched


def is_indexable(loader: Any) -> bool:
    """Whether a loader's data set can be asked for samples by number."""
    dataset = getattr(loader, "dataset", None)
    return (
        isinstance(loader, DataLoader)
        and not isinstance(dataset, IterableDataset)
        and hasattr(dataset, "__getitem__")
        and hasattr(dataset, "__len__")
    )


def makes_batches(loader: DataLoader[Any]) -> bool:
    """Whether the data set itself puts samples together: ``batch_size=None``."""
    return loader.batch_size is None and loader.batch_sampler is None


# In a process of its own.


def _can_fork() -> bool:
    """Whether a process can be forked, and isolated: Linux tells it what it shares with this one."""
    return "fork" in multiprocessing.get_all_start_methods() and sys.platform == "linux" and Path("/proc/self").exists()


def _from_fork(
    loader: DataLoader[Any], order: Sequence[int], count: int, seed: int, deadline: float
) -> Iterator[FetchedPart]:
    """Parts as a forked process reads them.

    Raises:
        TimeoutError: the deadline has passed.
        RuntimeError: the process could not read, in its own words.
    """
    if deadline <= time.monotonic():
        raise TimeoutError
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader:
        with writer, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside threads
            run = os.getpid()
            process = os.fork()
            if process == 0:
                _serve(writer, loader, order, count, seed, deadline, run)
        try:
            while True:
                if not reader.poll(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                part = _received(reader)
                if part is None:
                    return
                yield part
        finally:
            _end(process)


def _received(reader: Connection) -> FetchedPart | None:
    """The next part; None after the last."""
    try:
        message = reader.recv_bytes()
    except EOFError:
        raise RuntimeError("the process that reads it has ended") from None
    try:
        indices, batch, fault = torch.load(io.BytesIO(message), weights_only=True)
    except pickle.UnpicklingError:
        kinds = "tensors, numbers, strings and containers of them"
        raise RuntimeError(f"its batches hold more than {kinds}") from None
    if not indices and fault:
        raise RuntimeError(fault)
    return None if not indices and batch is None else FetchedPart(tuple(indices), batch, fault)


def _serve(
    writer: Connection, loader: DataLoader[Any], order: Sequence[int], count: int, seed: int, deadline: float, run: int
) -> None:
    """The forked process: send parts, and end."""
    try:
        try:
            from lightning_viz.callbacks.isolation import isolate_process  # which other systems cannot import

            isolate_process(writer.fileno(), max(0.01, deadline - time.monotonic() + _GRACE), run)
            _become_worker(loader, seed)
            for part in _read(_Source.of(loader), order, count):
                _send(writer, FetchedPart(part.indices, map_tensors(part.batch, _alone), part.fault))
            _send(writer, FetchedPart(()))
        except BaseException as error:
            _send(writer, FetchedPart((), None, _words(error)))
    finally:
        os._exit(0)  # nothing of the parent is flushed, closed or finalized


def _send(writer: Connection, part: FetchedPart) -> None:
    buffer = io.BytesIO()
    torch.save(tuple(part), buffer)
    writer.send_bytes(buffer.getbuffer())


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor without the rest of its storage, or what a subclass adds."""
    return tensor.detach().as_subclass(torch.Tensor).clone()


def _become_worker(loader: DataLoader[Any], seed: int) -> None:
    """What a DataLoader does in a worker, with every library's generator seeded."""
    torch.set_num_threads(1)  # other threads did not come along
    _seed(seed)
    worker._worker_info = worker.WorkerInfo(id=0, num_workers=1, seed=seed, dataset=loader.dataset)
    if loader.num_workers > 0 and loader.worker_init_fn is not None:
        loader.worker_init_fn(0)


def _end(process: int) -> None:
    """End a forked process, and leave no zombie behind."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + _GRACE
    with suppress(ChildProcessError):  # where SIGCHLD is ignored
        while os.waitpid(process, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:  # it hangs in the system, in a file on a network, say
                threading.Thread(target=_wait, args=(process,), daemon=True).start()
                return
            time.sleep(0.001)


def _wait(process: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(process, 0)


# In this process.


def _from_copy(
    loader: DataLoader[Any], order: Sequence[int], count: int, seed: int, deadline: float
) -> Iterator[FetchedPart]:
    """Parts of a copy of the data set, which holds nothing in common with it: what cannot be pickled is refused.

    Raises:
        TimeoutError: the deadline has passed.
        Exception: it cannot be pickled.
    """
    source = pickle.loads(pickle.dumps(_Source.of(loader)))
    with same_randomness():
        _seed(seed)
        for part in _read(source, order, count):
            yield part
            if time.monotonic() > deadline:
                raise TimeoutError


# Reading.


class _Source(NamedTuple):
    """What is read.

    Attributes:
        dataset: that holds the samples.
        collate: puts them together.
        sampler: of a data set that makes batches by itself; None if it does not.
    """

    dataset: Any
    collate: Callable[[Any], Any]
    sampler: Any

    @classmethod
    def of(cls, loader: DataLoader[Any]) -> _Source:
        """What a loader reads."""
        return cls(loader.dataset, loader.collate_fn, loader.sampler if makes_batches(loader) else None)

    def samples(self, indices: Sequence[int]) -> Any:
        """A batch of samples."""
        several = getattr(self.dataset, "__getitems__", None)
        items = several(list(indices)) if callable(several) else [self.dataset[index] for index in indices]
        return self.collate(items)

    def list_of(self, indices: Sequence[int]) -> Any:
        """A batch that the data set makes of a list of indices."""
        return self.collate(self.dataset[list(indices)])

    def whole(self, indices: Sequence[int]) -> Any:
        """A batch that the data set holds under a number."""
        return self.collate(self.dataset[indices[0]])


def _read(source: _Source, order: Sequence[int], count: int) -> Iterator[FetchedPart]:
    """Read samples in an order, until there are enough of them."""
    ask, most, whole = source.samples, _BATCH, False
    if source.sampler is not None:
        whole = not isinstance(next(iter(source.sampler), None), (list, tuple))
        ask, most = (source.whole, 1) if whole else (source.list_of, _BATCH)
    done = good = failed = 0
    while good < count and done < len(order):
        indices = order[done : done + min(most, count - good)]
        done += len(indices)
        for part in _parts(ask, indices):
            if part.fault:
                failed += 1
            else:
                good += max(1, sample_count(part.batch)) if whole else len(part.indices)
            yield FetchedPart((), part.batch) if whole and not part.fault else part
        if failed >= _MOST_BROKEN and failed > good:
            return


def _parts(ask: Callable[[Sequence[int]], Any], indices: Sequence[int]) -> Iterator[FetchedPart]:
    """Samples in one batch if that can be, else each in its own."""
    try:
        batch = ask(indices)
    except Exception as error:
        if len(indices) == 1:
            yield FetchedPart((indices[0],), None, _words(error))
        else:
            for index in indices:
                yield from _parts(ask, [index])
    else:
        yield FetchedPart(tuple(indices), batch)


def _seed(seed: int) -> None:
    """Every library's generator."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002


def _words(error: BaseException) -> str:
    """The first line of an error's own words."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
