"""What all places for pictures have in common."""

from __future__ import annotations

from pathlib import Path

from lightning_viz.callbacks.draw_task import Histogram, Projection
from lightning_viz.callbacks.writers.log_files import write_parts


class BaseWriter:
    """A place for pictures and numbers alone, that holds nothing back; those with places for more say so themselves.

    Attributes:
        folder: of the log on this machine; None if there is none.
    """

    folder: Path | None

    def text(self, tag: str, markdown: str) -> None:
        """There is no place for texts here."""

    def histogram(self, tag: str, histogram: Histogram, step: int) -> None:
        """There is no place for distributions here."""

    def projection(self, projection: Projection) -> None:
        """There is no projector here."""

    def parts(self, tag: str, content: bytes, step: int) -> None:
        """Keep a page's parts beside the log."""
        write_parts(self.folder, tag, content, step)

    def flush(self) -> None:
        """Nothing is held back."""
