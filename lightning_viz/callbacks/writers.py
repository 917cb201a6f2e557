"""Where pictures go: TensorBoard, another logger that takes images, or a folder."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from google.protobuf import text_format
from PIL import Image
from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from lightning_viz.archive import write_whole
from lightning_viz.callbacks.draw_task import Projection
from lightning_viz.catalogue import board_tag, curve_tag
from lightning_viz.errors import warn_safely
from lightning_viz.plain_text import file_name, harmless_markdown, plain_text
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

    def projection(self, projection: Projection) -> None:
        """Show vectors in a projector, if there is one."""

    def parts(self, tag: str, content: bytes, step: int) -> None:
        """Keep a page's parts beside the log, if it is on this machine."""

    def flush(self) -> None:
        """Make sure that everything is written."""


PARTS = "lightning_viz_parts"
"""Folder of kept parts, beside a run's log."""


def _write_parts(folder: Path | None, tag: str, content: bytes, step: int) -> None:
    """Keep a page's parts beside a log: ``lightning_viz_parts/<tag>/<step>.npz``, whole or not there."""
    if folder is None:
        return
    path = folder / PARTS / _as_path(tag) / f"{step:08d}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


class TensorBoardWriter:
    """Writes encoded pictures as they are: `add_image` would decode a 700 px page and encode it again, 130 ms.

    They go into the user's event file, since TensorBoard follows only the newest of a folder.

    Attributes:
        folder: of the event file; None where it is on no local file system.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self.folder = local_path(writer.log_dir)
        self._shield: _Shield | None = None

    @property
    def queued(self) -> int:
        """Bytes that wait to be written, the user's and ours."""
        waiting = getattr(self._events(), "_byte_queue", None)
        return 0 if waiting is None else sum(len(one) for one in list(waiting.queue) if isinstance(one, bytes))

    def picture(self, picture: Picture, step: int) -> None:
        """Show a picture, its description behind the card's info sign."""
        size = [str(picture.width).encode(), str(picture.height).encode()]
        tensor = TensorProto(dtype=types_pb2.DT_STRING, string_val=[*size, picture.image])
        tensor.tensor_shape.dim.add(size=3)
        lasting = harmless_markdown(picture.explanation or picture.description)  # the first step's is shown for ever
        metadata = create_summary_metadata(display_name="", description=lasting)
        value = Summary.Value(tag=plain_text(board_tag(picture.tag)), tensor=tensor, metadata=metadata)
        self._shield = _shield(self._events()) or self._shield
        if self._shield is None:
            self._writer._get_file_writer().add_summary(Summary(value=[value]), step)
        else:
            self._shield.report()
            event = Event(wall_time=time.time(), step=int(step), summary=Summary(value=[value]))
            self._events().write(_Picture(event.SerializeToString()))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Plot a number."""
        self._writer.add_scalar(plain_text(curve_tag(tag)), value, step)

    def text(self, tag: str, markdown: str) -> None:
        """Show a text in the tab of texts."""
        self._writer.add_text(tag, markdown, 0)

    def projection(self, projection: Projection) -> None:
        """Put the vectors beside the events, in place of an earlier step's; only where there are local files."""
        if self.folder is not None:
            write_projection(self.folder, projection)

    def parts(self, tag: str, content: bytes, step: int) -> None:
        """Keep a page's parts beside the log."""
        _write_parts(self.folder, tag, content, step)

    def flush(self) -> None:
        """Make sure that everything is on the disk."""
        self._writer.flush()
        if self._shield is not None:
            self._shield.report()

    def _events(self) -> Any:
        """TensorBoard's queue of events, which a thread writes."""
        return getattr(getattr(self._writer._get_file_writer(), "event_writer", None), "_async_writer", None)


class _Picture(bytes):
    """A picture's record among the user's."""


class _Shield:
    """Stands before what writes records, in TensorBoard's thread: a picture that cannot be written is dropped whole.

    TensorBoard reads nothing past half a record, and would raise the thread's error in the user's next call.
    """

    def __init__(self, records: Any, path: Path) -> None:
        self._records, self._path = records, path
        self._error: OSError | None = None

    def write(self, record: bytes) -> None:
        if not isinstance(record, _Picture):
            self._records.write(record)
            return
        try:
            with whole_addition(self._path):
                self._records.write(record)
        except OSError as error:
            self._error = self._error or error

    def flush(self) -> None:
        self._records.flush()

    def report(self) -> None:
        """Say in the caller's thread what went wrong in the other."""
        error, self._error = self._error, None
        if error is not None:
            warn_safely(f"a picture could not be written: {error}")


def _shield(events: Any) -> _Shield | None:
    """The shield of a queue of events, set up if there is none; None where files are not local or TensorFlow's own."""
    worker: Any = getattr(events, "_worker", None)
    records: Any = getattr(worker, "_record_writer", None)
    if isinstance(records, _Shield):
        return records
    file: Any = getattr(records, "_writer", None)
    if not isinstance(getattr(file, "fs", None), LocalFileSystem):
        return None
    shield = _Shield(records, Path(os.fsdecode(file.filename)))
    worker._record_writer = shield
    return shield


class ImageLoggerWriter:
    """Another Lightning logger with ``log_image`` (Weights & Biases, MLflow, ...).

    Attributes:
        folder: of what it keeps on this machine, if anything.
    """

    queued = 0

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self.folder = local_path(getattr(logger, "save_dir", None))

    def picture(self, picture: Picture, step: int) -> None:
        """Log an image with its caption."""
        image = Image.open(io.BytesIO(picture.image))
        self._logger.log_image(key=picture.tag, images=[image], step=step, caption=[picture.description])

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Log a number."""
        self._logger.log_metrics({tag: value}, step=step)

    def text(self, tag: str, markdown: str) -> None:
        """There is no place for texts here."""

    def projection(self, projection: Projection) -> None:
        """There is no projector here."""

    def parts(self, tag: str, content: bytes, step: int) -> None:
        """Keep a page's parts beside the log."""
        _write_parts(self.folder, tag, content, step)

    def flush(self) -> None:
        """Nothing is held back."""


class FolderWriter:
    """Files in a folder: ``<tag>/<step>.png`` with the description beside it, and ``scalars.csv``.

    Attributes:
        folder: of the files.
    """

    queued = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, picture: Picture, step: int) -> Path:
        """Where a picture is written."""
        kind = "gif" if picture.image.startswith(b"GIF") else "png"
        return self.folder / _as_path(picture.tag) / f"{step:08d}.{kind}"

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

    def text(self, tag: str, markdown: str) -> None:
        """There is no place for texts here."""

    def projection(self, projection: Projection) -> None:
        """There is no projector here."""

    def parts(self, tag: str, content: bytes, step: int) -> None:
        """Keep a page's parts beside the log."""
        _write_parts(self.folder, tag, content, step)

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
    why = "no logger takes images"
    for logger in loggers:
        if type(logger).__name__ == "DummyLogger":  # claims to be able to do anything
            continue
        try:
            writer = getattr(logger, "experiment", None)
        except Exception as error:  # its folder cannot be made: the user's own call will tell
            why = f"{type(logger).__name__} cannot be opened ({error})"
            continue
        if hasattr(writer, "_get_file_writer") and isinstance(getattr(writer, "log_dir", None), (str, os.PathLike)):
            boards.append(TensorBoardWriter(writer))
        elif callable(getattr(logger, "log_image", None)):
            others.append(ImageLoggerWriter(logger))
    if boards or others:
        return boards + others, ""
    folder = new_folder(fallback)
    return [FolderWriter(folder)], f"{why}: pictures go to {folder}"


def new_folder(root: Path) -> Path:
    """A folder ``version_<n>`` that no other run has, made below another.

    Args:
        root: of them.
    """
    return next(filter(_made, (root / f"version_{number}" for number in count())))


def _made(folder: Path) -> bool:
    """Make a folder that no other run has; that it cannot be made shows when it is written to."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        return not isinstance(error, FileExistsError)
    return True


def _as_path(tag: str) -> str:
    """A tag as a path of its own: what a file system may not take is written as in an address, long names shortened."""
    return "/".join(file_name(part, quote(plain_text(part), safe=" =,()[]")) for part in tag.split("/") if part)


_OURS = "lightning_viz_projector"


def write_projection(folder: Path, projection: Projection) -> None:
    """Write a layer's vectors, labels and sprite, and name them in the run's projector config.

    What others wrote into the config stays; what an earlier step of the same layer wrote is replaced. Every file is
    whole or not there.

    Args:
        folder: of the run's event files; the projector takes paths relative to it.
        projection: what to write.
    """
    tag = plain_text(projection.tag)
    name = file_name(tag, re.sub(r"[^\w.-]", "_", tag))
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


@contextmanager
def whole_addition(path: Path) -> Iterator[None]:
    """What is added to the end of a file within is there whole or, where that fails, not at all.

    Args:
        path: of the file, which may not exist.
    """
    size = path.stat().st_size if path.exists() else None
    try:
        yield
    except OSError:
        with suppress(OSError):
            if size is None:
                path.unlink(missing_ok=True)
            else:
                os.truncate(path, size)
        raise


def local_path(place: Any) -> Path | None:
    """A place as a path; None if it is none on a local file system (``memory://``, ``gs://``).

    Args:
        place: as a logger or Trainer names it.
    """
    if not isinstance(place, (str, os.PathLike)) or "://" in str(place):
        return None
    return Path(place)
