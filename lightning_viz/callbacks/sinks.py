"""Where pictures go: TensorBoard, another logger that takes images, or a folder."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.image.metadata import create_summary_metadata

from lightning_viz.callbacks.projector import write_projection, write_whole
from lightning_viz.callbacks.sketch import Projection
from lightning_viz.render.picture import Picture


class Sink(Protocol):
    """Takes pictures and numbers, in the training process."""

    def picture(self, picture: Picture, step: int) -> None:
        """Show a picture at a step."""

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Plot a number at a step."""

    def projection(self, projection: Projection) -> None:
        """Hand vectors to a projector, if there is one."""

    def flush(self) -> None:
        """See that everything is written."""


class TensorBoardSink:
    """Writes encoded pictures as they are: `add_image` would take a 700 px page apart and encode it again, 130 ms."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._folder = Path(writer.log_dir)

    def picture(self, picture: Picture, step: int) -> None:
        """Show a picture, its description behind the card's info sign."""
        size = [str(picture.width).encode(), str(picture.height).encode()]
        tensor = TensorProto(dtype=types_pb2.DT_STRING, string_val=[*size, picture.image])
        tensor.tensor_shape.dim.add(size=3)
        metadata = create_summary_metadata(display_name="", description=picture.description)
        value = Summary.Value(tag=picture.tag, tensor=tensor, metadata=metadata)
        self._writer._get_file_writer().add_summary(Summary(value=[value]), step)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Plot a number."""
        self._writer.add_scalar(tag, value, step)

    def projection(self, projection: Projection) -> None:
        """Put the vectors beside the events, in place of an earlier step's."""
        write_projection(self._folder, projection)

    def flush(self) -> None:
        """See that everything is on the disk."""
        self._writer.flush()


class ImageLoggerSink:
    """Another Lightning logger with ``log_image`` (Weights & Biases, MLflow, ...)."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def picture(self, picture: Picture, step: int) -> None:
        """Log an image with its caption."""
        image = Image.open(io.BytesIO(picture.image))
        self._logger.log_image(key=picture.tag, images=[image], step=step, caption=[picture.description])

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Log a number."""
        self._logger.log_metrics({tag: value}, step=step)

    def projection(self, projection: Projection) -> None:
        """There is no projector here."""

    def flush(self) -> None:
        """Nothing is held back."""


class FolderSink:
    """Files in a folder: ``<tag>/<step>.png`` with the description beside it, and ``scalars.csv``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def picture(self, picture: Picture, step: int) -> None:
        """Write a picture; a file is whole or not there."""
        kind = "gif" if picture.image.startswith(b"GIF") else "png"
        path = self._folder / _as_path(picture.tag) / f"{step:08d}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        for file, content in ((path, picture.image), (path.with_suffix(".md"), picture.description.encode())):
            write_whole(file, content)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Add a line to the numbers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "scalars.csv"
        header = "" if path.exists() else "tag,step,value\n"
        with path.open("a") as file:
            file.write(f"{header}{tag},{step},{'' if math.isnan(value) else value}\n")

    def projection(self, projection: Projection) -> None:
        """There is no projector here."""

    def flush(self) -> None:
        """Nothing is held back."""


def find_sinks(loggers: Sequence[Any], fallback: Path) -> tuple[list[Sink], str]:
    """The sinks for a run's loggers, known by what they can do, and a line to say where nothing suits.

    Args:
        loggers: of the trainer, of either package.
        fallback: where a folder for the pictures is made, ``version_<n>``, if no logger takes images.
    """
    boards: list[Sink] = []
    others: list[Sink] = []
    for logger in loggers:
        if type(logger).__name__ == "DummyLogger":  # claims to be able to do anything
            continue
        writer = getattr(logger, "experiment", None)
        if hasattr(writer, "_get_file_writer") and getattr(writer, "log_dir", None):
            boards.append(TensorBoardSink(writer))
        elif callable(getattr(logger, "log_image", None)):
            others.append(ImageLoggerSink(logger))
    if boards or others:
        return boards + others, ""
    taken = {path.name for path in fallback.glob("version_*")}
    folder = next(place for number in count() if (place := fallback / f"version_{number}").name not in taken)
    return [FolderSink(folder)], f"no logger takes images: pictures go to {folder}"


def _as_path(tag: str) -> str:
    return re.sub(r"[^\w./-]", "_", tag).replace("..", "_").strip("/")
