"""A run of Weights & Biases."""

from __future__ import annotations

import csv
import html
import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from lightning_viz.callbacks.draw_task import Histogram, Projection
from lightning_viz.callbacks.writers.image_logger import ImageLoggerWriter
from lightning_viz.callbacks.writers.log_files import picture_file, plain_path
from lightning_viz.render.page import Picture

_MEDIA = ("Image", "Video", "Html", "Histogram", "Table")


def wandb_client(experiment: Any) -> ModuleType | None:
    """The package of a run of Weights & Biases; None if the experiment is none.

    Args:
        experiment: of a logger.
    """
    client = sys.modules.get(type(experiment).__module__.partition(".")[0])
    is_run = callable(getattr(experiment, "define_metric", None)) and isinstance(getattr(experiment, "dir", None), str)
    return client if is_run and all(hasattr(client, name) for name in _MEDIA) else None


class WandbWriter(ImageLoggerWriter):
    """Logs media as Weights & Biases shows them, at the step of the logger's own curves.

    Encoded pictures are copied into the run's folder as they are.

    Args:
        logger: of Lightning.
        client: the package ``wandb``.

    Attributes:
        folder: of the run on this machine; what Weights & Biases uploads is in its ``files``.
    """

    def __init__(self, logger: Any, client: ModuleType) -> None:
        super().__init__(logger)
        self._client: Any = client
        self.folder = Path(logger.experiment.dir).parent

    def picture(self, picture: Picture, step: int) -> None:
        """Log an image, or a video that plays, with its caption."""
        kind = self._client.Video if picture.kind == "gif" else self._client.Image
        with picture_file(picture) as path:
            self._log(picture.tag, kind(str(path), caption=picture.description), step)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Log a number."""
        self._log(tag, value, step)

    def text(self, tag: str, markdown: str) -> None:
        """Show a text as a page."""
        page = f'<pre style="white-space: pre-wrap">{html.escape(markdown)}</pre>'
        self._log(tag, self._client.Html(io.StringIO(page)), 0)

    def histogram(self, tag: str, histogram: Histogram, step: int) -> None:
        """Log a distribution."""
        numbers = (histogram.counts.tolist(), histogram.edges.tolist())
        self._log(f"{tag}/histogram", self._client.Histogram(np_histogram=numbers), step)

    def projection(self, projection: Projection) -> None:
        """Log a table of labels and vectors, which can be shown as a projection to the plane."""
        lines = projection.vectors.decode().splitlines()
        vectors: list[list[Any]] = [list(map(float, line.split("\t"))) for line in lines]
        columns, rows = [f"x{number}" for number in range(len(vectors[0]))], vectors
        if projection.metadata is not None:
            head, *labels = csv.reader(
                io.StringIO(projection.metadata.decode()), delimiter="\t", quoting=csv.QUOTE_NONE
            )
            if len(labels) == len(vectors) - 1:  # one column has no head
                head, labels = ["label"], [head, *labels]
            columns, rows = [*head, *columns], [[*a, *b] for a, b in zip(labels, vectors, strict=True)]
        self._log(f"{projection.tag}/vectors", self._client.Table(columns=columns, data=rows), None)

    def _log(self, tag: str, value: Any, step: int | None) -> None:
        self._logger.log_metrics({plain_path(tag): value}, step=step)
