"""How much pictures may take where a run's log is: never the last of a disk, and no more than a run gives them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from lightning_viz.callbacks.draw_task import Histogram, Projection
from lightning_viz.callbacks.free_space import free_space
from lightning_viz.callbacks.snapshot import ViewLike
from lightning_viz.callbacks.writers import FolderWriter, ImageLoggerWriter, TensorBoardWriter, Writer
from lightning_viz.errors import warn_safely
from lightning_viz.render.page import Picture

MEGABYTE = 1e6
"""Bytes."""
_AROUND = 4096  # bytes around a picture or number: tag, check sums, the rest of a block
_LOGS = (TensorBoardWriter, ImageLoggerWriter, FolderWriter)


def limited(writers: Sequence[Writer], views: Sequence[ViewLike]) -> list[Writer]:
    """A run's writers, those that write to a log within the strictest limits of its views.

    Args:
        writers: of the run.
        views: one or more, with their ``free_megabytes`` and ``log_megabytes``.
    """
    spare = max(view.free_megabytes for view in views)
    most = min(view.log_megabytes for view in views)
    said: set[str] = set()
    return [LimitedWriter(writer, spare, most, said) if isinstance(writer, _LOGS) else writer for writer in writers]


class LimitedWriter:
    """Passes on to a log what finds room there; the rest is dropped, which is said once for all logs of a run.

    Args:
        writer: of the log.
        spare: megabytes of the disk that are left to others.
        most: megabytes that may be added to the log.
        said: the limits that were spoken of, shared by the logs of a run.
    """

    def __init__(
        self,
        writer: TensorBoardWriter | ImageLoggerWriter | FolderWriter,
        spare: float,
        most: float,
        said: set[str],
    ) -> None:
        self._writer, self._spare, self._most, self._said = writer, spare, most, said
        self._written = 0

    @property
    def folder(self) -> Path | None:
        """Of the log, on this machine."""
        return self._writer.folder

    @property
    def board(self) -> bool:
        """Whether TensorBoard shows the log."""
        return isinstance(self._writer, TensorBoardWriter)

    def picture(self, picture: Picture, step: int) -> None:
        """Show a picture at a step."""
        if self._has_room(size := len(picture.image) + len(picture.description.encode(errors="replace"))):
            self._written += size
            self._writer.picture(picture, step)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Plot a number at a step."""
        if self._has_room(len(tag)):
            self._writer.scalar(tag, value, step)

    def text(self, tag: str, markdown: str) -> None:
        """Show a text, if there is a place for texts."""
        if self._has_room(len(markdown.encode())):
            self._writer.text(tag, markdown)

    def histogram(self, tag: str, histogram: Histogram, step: int) -> None:
        """Show a distribution at a step, if there is a place for distributions."""
        if self._has_room(size := 2 * histogram.edges.nbytes):
            self._written += size
            self._writer.histogram(tag, histogram, step)

    def projection(self, projection: Projection) -> None:
        """Show vectors in a projector, in place of an earlier step's."""
        parts = (projection.vectors, projection.metadata, projection.sprite)
        if self._has_room(sum(len(part) for part in parts if part is not None)):
            self._writer.projection(projection)

    def parts(self, tag: str, content: bytes, step: int) -> None:
        """Keep a page's parts beside the log."""
        if self._has_room(len(content)):
            self._written += len(content)
            self._writer.parts(tag, content, step)

    def flush(self) -> None:
        """Make sure that everything is written."""
        self._writer.flush()

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes may be written now; once the run's share is used up, nothing may."""
        if self._written + size > self._most * MEGABYTE:
            self._written = math.ceil(self._most * MEGABYTE) + 1
            self._warn("log_megabytes", f"pictures have added {self._most:g} MB to the log and stop")
            return False
        folder = self._writer.folder
        if folder is None or not self._spare:
            return True
        free = free_space(folder) - self._writer.queued - size - _AROUND
        if free < self._spare * MEGABYTE:
            self._warn(
                "free_megabytes",
                f"less than {self._spare:g} MB of the disk would be left where {folder} is: pictures stop until there "
                "is room",
            )
            return False
        return True

    def _warn(self, limit: str, line: str) -> None:
        if limit not in self._said:
            self._said.add(limit)
            warn_safely(f"{line} ({limit})")
