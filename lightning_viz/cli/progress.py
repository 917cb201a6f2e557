"""Progress and output on the terminal: bars on stderr, or a line per part; and lines that nobody may read any more."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from lightning_viz.errors import LightningVizError

if TYPE_CHECKING:
    from rich.progress import Progress


class ProgressBar(Protocol):
    """What is called with each part that begins."""

    def __call__(self, part: str, done: int, count: int, left: float = 0.0, /) -> None:
        """Show it.

        Args:
            part: that begins.
            done: how many are done.
            count: of how many.
            left: seconds that are estimated to be left; 0 if there is no estimate.
        """


class OutputClosedError(LightningVizError):
    """Nobody reads what the command prints any more, as in ``| head``."""


def print_line(text: str) -> None:
    """Print one line or more for the user.

    Raises:
        OutputClosedError: standard output is closed.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError as error:
        raise OutputClosedError from error


_DELAY = 1.0  # seconds after which a bar of a single function appears


def is_first_process() -> bool:
    """Whether this is the process of a run that prints to the terminal."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK"))


@contextmanager
def working(title: str) -> Iterator[ProgressBar]:
    """Show the work and, on a terminal, the bars of the functions that do it.

    Yields:
        What is called with each part that begins.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from lightning_viz.hooks.batching import BARS

    def line(part: str, done: int, count: int, left: float = 0.0, /) -> None:
        if is_first_process():  # another process shows it
            print(f"{title}: {part} ({done + 1} of {count}{_time_left(left)})", file=sys.stderr, flush=True)

    def move(part: str, done: int, count: int, left: float = 0.0, /) -> None:
        bars.update(whole, description=f"{title}: {part}{_time_left(left)}", completed=done, total=count)

    console = Console(stderr=True)
    drawn = is_first_process() and console.is_terminal
    columns = TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn()
    bars = Progress(*columns, console=console, transient=True)
    whole = bars.add_task(title, total=None)
    before = BARS.set(partial(_Bar, bars) if drawn else _none)
    try:
        with bars if drawn else nullcontext():
            yield move if drawn else line
    finally:
        BARS.reset(before)


def _time_left(seconds: float) -> str:
    """An estimate, as precise as it is; nothing if there is none."""
    if seconds < 1:
        return ""
    return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {5 * math.ceil(seconds / 5)} s left"


def _none(name: str, items: Iterable[Any] | None, total: int | None) -> Any:
    from tqdm import tqdm

    return tqdm(items, disable=True)


class _Bar:
    """A bar among others, with what `progress_bar` promises: it is iterated over, or moved by hand."""

    def __init__(self, bars: Progress, name: str, items: Iterable[Any] | None, total: int | None) -> None:
        self._bars, self._items, self._started = bars, items, time.monotonic()
        count = len(items) if total is None and isinstance(items, Sized) else total
        self._task = bars.add_task(f"  {name}", total=count, visible=False)

    def __iter__(self) -> Iterator[Any]:
        with self:
            for item in self._items or ():
                yield item
                self.update()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, count: int = 1) -> None:
        """Advance by some items."""
        late = time.monotonic() - self._started > _DELAY
        self._bars.update(self._task, advance=count, visible=late)

    def close(self) -> None:
        """Remove the bar."""
        if self._task in self._bars.task_ids:
            self._bars.remove_task(self._task)
