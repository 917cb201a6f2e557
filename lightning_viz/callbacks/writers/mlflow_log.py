"""A run of MLflow."""

from __future__ import annotations

import inspect
import io
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from PIL import Image

from lightning_viz.callbacks.draw_task import Projection
from lightning_viz.callbacks.writers.image_logger import ImageLoggerWriter
from lightning_viz.callbacks.writers.log_files import plain_path
from lightning_viz.callbacks.writers.projector_files import projection_files
from lightning_viz.plain_text import harmless_markdown
from lightning_viz.render.page import Picture


def is_mlflow(logger: Any, experiment: Any) -> bool:
    """Whether a logger's experiment is a client of MLflow that shows images by step (MLflow 2.11 and later).

    Args:
        logger: of Lightning.
        experiment: of it.
    """
    log_image = getattr(type(experiment), "log_image", None)
    if not (callable(log_image) and callable(getattr(type(experiment), "log_artifacts", None))):
        return False
    return {"run_id", "image", "key", "step"} <= set(inspect.signature(log_image).parameters) and hasattr(
        logger, "run_id"
    )


class MLflowWriter(ImageLoggerWriter):
    """Images by step, everything else among the run's artifacts, where MLflow plays and shows them.

    MLflow's images have no caption: how to read them is a text beside them, once for all steps of a tag.

    Attributes:
        folder: of the run on this machine; None where artifacts go elsewhere.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__(logger)
        self._client, self._run = logger.experiment, logger.run_id
        self.folder = _run_folder(self._client.get_run(self._run).info.artifact_uri)
        self._explained: set[str] = set()

    def picture(self, picture: Picture, step: int) -> None:
        """Log an image at its step, or an animation as a GIF."""
        path = plain_path(picture.tag)
        if picture.kind == "gif":
            self._artifacts(f"animations/{path}", {f"{step:08d}.gif": picture.image})
        else:
            image = Image.open(io.BytesIO(picture.image))
            self._client.log_image(self._run, image, key=path, step=step)
        if path not in self._explained:
            self.text(f"how_to_read/{path}", harmless_markdown(picture.explanation or picture.description))
            self._explained.add(path)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Log a number."""
        super().scalar(plain_path(tag), value, step)

    def text(self, tag: str, markdown: str) -> None:
        """Keep a text, which MLflow shows formatted."""
        self._client.log_text(self._run, markdown, f"{tag}.md")

    def projection(self, projection: Projection) -> None:
        """Keep vectors, labels and thumbnails, in place of an earlier step's."""
        self._artifacts(f"projector/{plain_path(projection.tag)}", projection_files(projection))

    def _artifacts(self, place: str, files: dict[str, bytes]) -> None:
        with tempfile.TemporaryDirectory(prefix="lightning_viz_") as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            self._client.log_artifacts(self._run, folder, place)


def _run_folder(artifacts: str) -> Path | None:
    """The folder around a run's artifacts, if they are on this machine."""
    parts = urlparse(artifacts)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path)).parent
    return Path(artifacts).parent if len(parts.scheme) < 2 else None  # a letter is a drive of Windows
