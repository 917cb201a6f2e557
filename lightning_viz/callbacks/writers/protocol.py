"""What a place for pictures takes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lightning_viz.callbacks.draw_task import Histogram, Projection
from lightning_viz.render.page import Picture


class Writer(Protocol):
    """Takes pictures and numbers, in the training process."""

    @property
    def folder(self) -> Path | None:
        """Of the log on this machine, where undrawn pictures are kept; None if there is none."""

    def picture(self, picture: Picture, step: int) -> None:
        """Show a picture at a step."""

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Plot a number at a step."""

    def text(self, tag: str, markdown: str) -> None:
        """Show a text, if there is a place for texts."""

    def histogram(self, tag: str, histogram: Histogram, step: int) -> None:
        """Show a distribution at a step, if there is a place for distributions."""

    def projection(self, projection: Projection) -> None:
        """Show vectors in a projector, if there is one."""

    def parts(self, tag: str, content: bytes, step: int) -> None:
        """Keep a page's parts beside the log, if it is on this machine."""

    def flush(self) -> None:
        """Make sure that everything is written."""
