"""Agreement of a run's processes, where all must look: what the first decides, and what failed on any of them.

A pass of a sharded model is collective: what one process leaves out, another waits for. So the first process decides,
and sends what it decided; and before each collective of a look all processes say that they are about to run the same
one, or that they have failed. Then none waits for another that will not come.
"""

from __future__ import annotations

import math
import pickle
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_viz.callbacks.distributed import connected
from lightning_viz.callbacks.run import error_text
from lightning_viz.callbacks.run_protocol import Run
from lightning_viz.errors import LightningVizError, ProcessError

AGREE_SECONDS = 180.0
"""For which a process waits for others to come to the same point of a look; fetching samples takes 60 s at most."""

Decision = TypeVar("Decision")

_COLLECTIVE, _MESSAGE, _DONE, _FAILED = range(4)
_NAMESPACES = ("c10d", "_c10d_functional", "_c10d_functional_autograd", "c10d_functional", "_dtensor")
_LOCAL = ("wait_tensor", "_wrap_tensor_autograd")  # operators of these that send nothing


class PartedError(LightningVizError, RuntimeError):
    """Another process has left the look, or did not come to it in time: there is nothing more to look at together."""


class Agreement:
    """Has the processes of a run do the same, where all of them look. On a process that looks alone it does nothing.

    Args:
        group: of all processes, used for nothing else; None where a process looks alone.

    Attributes:
        together: whether all processes look.
        ended: whether another process has left, after which there are no more looks.
    """

    def __init__(self, group: Any = None) -> None:
        self._group = group
        self.together = group is not None
        self.ended = False
        self._rank = torch.distributed.get_rank(group) if group is not None else 0
        self._count = torch.distributed.get_world_size(group) if group is not None else 1
        self._open = self._speaking = False
        self._failure: Exception | None = None

    @property
    def first(self) -> bool:
        """Whether this process decides; also one that looks alone."""
        return self._rank == 0

    @contextmanager
    def look(self) -> Iterator[None]:
        """A part of a look in which all processes do the same; what fails on one of them is raised on all.

        Raises:
            ProcessError: another process failed.
            PartedError: another has left, or did not come in time.
        """
        if not self.together or self._open:  # the outer part tells
            yield
            return
        if self.ended:
            raise PartedError("another process has left the run")
        self._open, self._failure = True, None
        try:
            with _Collectives(self._about_to_send):
                yield
        except PartedError:
            raise
        except Exception as error:
            if self._failure is None:
                self._tell(_FAILED, content=_packed(error))
            error.__traceback__ = None  # holds the tensors of the pass
        except BaseException:  # the process is to end
            self.leave()
            raise
        else:
            if self._failure is None:
                self._tell(_DONE)
        finally:
            self._open = False
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def decided(self, decide: Callable[[], Decision]) -> Decision:
        """What the first process decides, on all; inside `look`.

        Args:
            decide: called on the first process alone; what it returns can be pickled.
        """
        if not self.together:
            return decide()
        content = pickle.dumps(decide()) if self.first else b""
        return pickle.loads(self._tell(_MESSAGE, content=content))  # type: ignore[no-any-return]

    def leave(self) -> None:
        """No look is taken part in any more; whoever waits for this process learns of it."""
        group, self._group, self.ended = self._group, None, True
        if group is not None:
            try:
                torch.distributed.destroy_process_group(group)
            except Exception:  # it has been ended with all the others
                return

    def _about_to_send(self, what: str) -> None:
        """Before a collective of a pass: all are about to run it, or none does."""
        if self._speaking:
            return
        if self._failure is not None:  # told before, and caught by whoever runs the pass
            raise self._failure
        self._tell(_COLLECTIVE, zlib.crc32(what.encode()))
        if self._failure is not None:
            raise self._failure

    def _tell(self, kind: int, detail: int = 0, content: bytes = b"") -> bytes:
        """Tell the others what this process does next, and hear what they do; returns the first's content."""
        if self.ended:
            raise PartedError("another process has left the run")
        if self._failure is not None:
            raise self._failure
        self._speaking = True
        try:
            heard = self._gathered(torch.tensor([kind, detail, len(content)]))
            kinds, sizes = [int(row[0]) for row in heard], [int(row[2]) for row in heard]
            if _FAILED in kinds:
                length = max(size for one, size in zip(kinds, sizes, strict=True) if one == _FAILED)
                mine = content if kind == _FAILED else b""
                parts = self._gathered(_as_tensor(mine, length))
                told = {rank: bytes(parts[rank][: sizes[rank]].tolist()) for rank in range(self._count)
                        if kinds[rank] == _FAILED}  # fmt: skip
                self._failure = _failure(told, self._count)
                return b""
            if len({(one, int(row[1])) for one, row in zip(kinds, heard, strict=True)}) > 1:
                self._failure = ProcessError("the processes of the run do not look in the same order")
                raise self._failure
            if kind != _MESSAGE or not sizes[0]:
                return b""
            sent = _as_tensor(content, sizes[0])
            torch.distributed.broadcast(sent, group=self._group, group_src=0)
            return sent.numpy().tobytes()
        except RuntimeError as error:
            if isinstance(error, LightningVizError):
                raise
            self.leave()
            words = f"another process has left the run, or did not come to a look in time ({error_text(error)})"
            raise PartedError(words) from None
        finally:
            self._speaking = False

    def _gathered(self, mine: Tensor) -> list[Tensor]:
        every = [torch.empty_like(mine) for _ in range(self._count)]
        torch.distributed.all_gather(every, mine, group=self._group)
        return every


class _Collectives(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells of each collective that is about to be sent, also in a backward pass."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tell = tell

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, after it was told of."""
        if any(kind is not Tensor and kind.__name__ == "DTensor" for kind in types):
            return NotImplemented  # comes again as what it is made of
        if func.namespace in _NAMESPACES and func._opname not in _LOCAL:
            self._tell(str(func))
        return func(*args, **(kwargs or {}))


def agreement_of(run: Run, together: bool) -> Agreement:
    """The agreement of a run's processes. All of them must call it.

    Args:
        run: of so many processes.
        together: whether all processes look.
    """
    if not together or not connected(run):
        return Agreement()
    seconds = min(AGREE_SECONDS, run.collective_timeout / 2)
    return Agreement(torch.distributed.new_group(backend="gloo", timeout=timedelta(seconds=math.ceil(seconds))))


def _as_tensor(content: bytes, length: int) -> Tensor:
    values = torch.zeros(length, dtype=torch.uint8)
    values[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else values[:0]
    return values


def _packed(error: Exception) -> bytes:
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
        return content
    except Exception:
        return pickle.dumps(error_text(error))


def _failure(told: dict[int, bytes], count: int) -> Exception:
    """What is raised on all processes, the same on each: what the first of those that failed raised."""
    rank, content = min(told.items())
    error = pickle.loads(content)
    if len(told) == count and isinstance(error, Exception):
        return error
    words = f"on process {rank} of {count}: {error if isinstance(error, LightningVizError) else error_text(error)}"
    try:
        return type(error)(words) if isinstance(error, LightningVizError) else ProcessError(words)
    except Exception:
        return ProcessError(words)
