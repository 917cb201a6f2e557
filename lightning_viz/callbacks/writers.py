"""Where pictures go: TensorBoard, another logger that takes images, or a folder."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from google.protobuf import text_format
from PIL import Image
from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from lightning_viz.callbacks.draw_task import Projection
from lightning_viz.plain_text import harmless_markdown, plain_text
from lightning_viz.render.page import Picture


class Writer(Protocol):
    """Takes pictures and numbers, in the training process."""

    def picture(self, picture: Picture, step: int) -> None:
        """Show a picture at a step."""

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Plot a number at a step."""

    def projection(self, projection: Projection) -> None:
        """Show vectors in a projector, if there is one."""

    def flush(self) -> None:
        """Make sure that everything is written."""


class TensorBoardWriter:
    """Writes encoded pictures as they are: `add_image` would decode a 700 px page and encode it again, 130 ms."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._folder = Path(writer.log_dir)

    def picture(self, picture: Picture, step: int) -> None:
        """Show a picture, its description behind the card's info sign."""
        size = [str(picture.width).encode(), str(picture.height).encode()]
        tensor = TensorProto(dtype=types_pb2.DT_STRING, string_val=[*size, picture.image])
        tensor.tensor_shape.dim.add(size=3)
        metadata = create_summary_metadata(display_name="", description=harmless_markdown(picture.description))
        value = Summary.Value(tag=plain_text(picture.tag), tensor=tensor, metadata=metadata)
        self._writer._get_file_writer().add_summary(Summary(value=[value]), step)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Plot a number."""
        self._writer.add_scalar(plain_text(tag), value, step)

    def projection(self, projection: Projection) -> None:
        """Put the vectors beside the events, in place of an earlier step's."""
        write_projection(self._folder, projection)

    def flush(self) -> None:
        """Make sure that everything is on the disk."""
        self._writer.flush()


class ImageLoggerWriter:
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


class FolderWriter:
    """Files in a folder: ``<tag>/<step>.png`` with the description beside it, and ``scalars.csv``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def picture(self, picture: Picture, step: int) -> None:
        """Write a picture; a file is whole or not there."""
        kind = "gif" if picture.image.startswith(b"GIF") else "png"
        path = self._folder / _as_path(picture.tag) / f"{step:08d}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, picture.image)
        write_whole(path.with_suffix(".md"), harmless_markdown(picture.description).encode())

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Add a line to the numbers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "scalars.csv"
        rows = [] if path.exists() else [("tag", "step", "value")]
        with path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([*rows, (plain_text(tag), step, "" if math.isnan(value) else value)])

    def projection(self, projection: Projection) -> None:
        """There is no projector here."""

    def flush(self) -> None:
        """Nothing is held back."""


def find_writers(loggers: Sequence[Any], fallback: Path) -> tuple[list[Writer], str]:
    """The writers for a run's loggers, chosen by what the loggers can do, and a line to report if none takes images.

    Args:
        loggers: of the trainer, of either package.
        fallback: where a folder for the pictures is made, ``version_<n>``, if no logger takes images.
    """
    boards: list[Writer] = []
    others: list[Writer] = []
    for logger in loggers:
        if type(logger).__name__ == "DummyLogger":  # claims to be able to do anything
            continue
        writer = getattr(logger, "experiment", None)
        if hasattr(writer, "_get_file_writer") and getattr(writer, "log_dir", None):
            boards.append(TensorBoardWriter(writer))
        elif callable(getattr(logger, "log_image", None)):
            others.append(ImageLoggerWriter(logger))
    if boards or others:
        return boards + others, ""
    folder = next(filter(_made, (fallback / f"version_{number}" for number in count())))
    return [FolderWriter(folder)], f"no logger takes images: pictures go to {folder}"


def _made(folder: Path) -> bool:
    """Make a folder that no other run has; that it cannot be made shows when it is written to."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        return not isinstance(error, FileExistsError)
    return True


def _as_path(tag: str) -> str:
    """A tag as a path of its own: what a file system may not take is written as in an address, long names shortened."""
    return "/".join(_as_name(part, quote(plain_text(part), safe=" =,()[]")) for part in tag.split("/") if part)


def _as_name(text: str, written: str) -> str:
    """A name for a file or folder: as written, but neither dots alone nor longer than file systems take."""
    if set(written) == {"."}:
        return written.replace(".", "%2E")
    digest = hashlib.sha256(plain_text(text).encode()).hexdigest()
    return written if len(written.encode()) <= _LONGEST_NAME else f"{written[:_KEPT_OF_NAME]}~{digest[:16]}"


_OURS = "lightning_viz_projector"
_LONGEST_NAME, _KEPT_OF_NAME = 200, 60  # bytes; letters, of four bytes at most


def write_projection(folder: Path, projection: Projection) -> None:
    """Write a layer's vectors, labels and sprite, and name them in the run's projector config.

    What others wrote into the config stays; what an earlier step of the same layer wrote is replaced. Every file is
    whole or not there.

    Args:
        folder: of the run's event files; the projector takes paths relative to it.
        projection: what to write.
    """
    tag = plain_text(projection.tag)
    name = _as_name(tag, re.sub(r"[^\w.-]", "_", tag))
    place = folder / _OURS / name
    place.mkdir(parents=True, exist_ok=True)
    files = {"vectors.tsv": projection.vectors, "labels.tsv": projection.metadata, "sprite.png": projection.sprite}
    for file, content in files.items():
        if content is not None:
            write_whole(place / file, content)
    path = folder / "projector_config.pbtxt"
    config = ProjectorConfig()
    if path.exists():
        text_format.Parse(path.read_text(), config)
    others = [entry for entry in config.embeddings if entry.tensor_name != tag]
    del config.embeddings[:]
    config.embeddings.extend(others)
    entry = config.embeddings.add(tensor_name=tag, tensor_path=f"{_OURS}/{name}/vectors.tsv")
    if projection.metadata is not None:
        entry.metadata_path = f"{_OURS}/{name}/labels.tsv"
    if projection.sprite is not None:
        entry.sprite.image_path = f"{_OURS}/{name}/sprite.png"
        entry.sprite.single_image_dim.extend([projection.side, projection.side])
    write_whole(path, text_format.MessageToString(config).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there.

    Args:
        path: of the file, which is replaced.
        content: all of it.
    """
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(content)
    partial.replace(path)
