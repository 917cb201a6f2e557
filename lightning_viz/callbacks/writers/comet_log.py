"""An experiment of Comet."""

from __future__ import annotations

import importlib
import inspect
import io
from typing import Any

from lightning_viz.callbacks.draw_task import Histogram, Projection
from lightning_viz.callbacks.writers.image_logger import ImageLoggerWriter
from lightning_viz.callbacks.writers.log_files import local_path, picture_file
from lightning_viz.callbacks.writers.projector_files import projection_files
from lightning_viz.plain_text import plain_text
from lightning_viz.render.page import Picture


def is_comet(experiment: Any) -> bool:
    """Whether a logger's experiment is one of Comet.

    Args:
        experiment: of it.
    """
    functions = [getattr(type(experiment), name, None) for name in ("log_image", "log_video", "log_asset")]
    if not all(map(callable, functions)):
        return False
    return {"image_data", "name", "step", "metadata"} <= set(inspect.signature(functions[0]).parameters)  # type: ignore[arg-type]


class CometWriter(ImageLoggerWriter):
    """Images, videos, texts and histograms, as Comet shows them; captions are their metadata.

    Attributes:
        queued: bytes that an offline experiment will need once more, when it is packed.
        folder: of an offline experiment's archive; None for one that is sent.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__(logger)
        self._experiment = logger.experiment
        offline = local_path(getattr(self._experiment, "offline_directory", None))
        self.folder = None if offline is None else offline / str(self._experiment.get_key())

    def picture(self, picture: Picture, step: int) -> None:
        """Log an image, or a video that plays, with its caption."""
        tag, caption = plain_text(picture.tag), {"caption": picture.description}
        with picture_file(picture) as path:
            if picture.kind == "gif":
                self._experiment.log_video(str(path), name=f"{tag}.gif", step=step, metadata=caption)
            else:
                self._experiment.log_image(str(path), name=tag, step=step, metadata=caption)
        self.queued += len(picture.image)

    def text(self, tag: str, markdown: str) -> None:
        """Show a text."""
        self._experiment.log_text(markdown, step=0, metadata={"tag": tag})

    def histogram(self, tag: str, histogram: Histogram, step: int) -> None:
        """Show a distribution beside those of other steps."""
        counts = importlib.import_module("comet_ml.data_structure").Histogram()
        counts.add(histogram.centers.tolist(), counts=histogram.counts.tolist())
        self._experiment.log_histogram_3d(counts, name=plain_text(tag), step=step)

    def projection(self, projection: Projection) -> None:
        """Keep vectors, labels and thumbnails as assets, in place of an earlier step's."""
        for name, content in projection_files(projection).items():
            place = f"{plain_text(projection.tag)}/{name}"
            self._experiment.log_asset(io.BytesIO(content), file_name=place, overwrite=True)
            self.queued += len(content)
