"""A folder of pictures, for runs without a logger that takes them."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from lightning_viz.archive import write_whole
from lightning_viz.callbacks.writers.base import BaseWriter
from lightning_viz.callbacks.writers.log_files import tag_path, whole_addition
from lightning_viz.plain_text import harmless_markdown, plain_text
from lightning_viz.render.page import Picture


class FolderWriter(BaseWriter):
    """Files in a folder: ``<tag>/<step>.png`` with the description beside it, and ``scalars.csv``.

    Attributes:
        folder: of the files.
    """

    folder: Path
    queued = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, picture: Picture, step: int) -> Path:
        """Where a picture is written."""
        return self.folder / tag_path(picture.tag) / f"{step:08d}.{picture.kind}"

    def picture(self, picture: Picture, step: int) -> None:
        """Write a picture; a file is whole or not there."""
        path = self.path(picture, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, picture.image)
        write_whole(path.with_suffix(".md"), harmless_markdown(picture.description).encode())

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Add a line to the numbers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "scalars.csv"
        rows = [] if path.exists() else [("tag", "step", "value")]
        with whole_addition(path), path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([*rows, (plain_text(tag), step, "" if math.isnan(value) else value)])
