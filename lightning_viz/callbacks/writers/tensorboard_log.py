"""TensorBoard's event files, through the run's own writer."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem
from tensorboard.plugins.image.metadata import create_summary_metadata

from lightning_viz.callbacks.draw_task import Histogram, Projection
from lightning_viz.callbacks.writers.base import BaseWriter
from lightning_viz.callbacks.writers.log_files import local_path, whole_addition
from lightning_viz.callbacks.writers.projector_files import write_projection
from lightning_viz.catalogue import board_tag, curve_tag
from lightning_viz.errors import warn_safely
from lightning_viz.plain_text import harmless_markdown, plain_text
from lightning_viz.render.page import Picture


class TensorBoardWriter(BaseWriter):
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

    def histogram(self, tag: str, histogram: Histogram, step: int) -> None:
        """Show a distribution in the tab of histograms."""
        self._writer.add_histogram_raw(
            plain_text(curve_tag(tag)),
            min=float(histogram.edges[0]),
            max=float(histogram.edges[-1]),
            num=float(histogram.counts.sum()),
            sum=float(histogram.counts @ histogram.centers),
            sum_squares=float(histogram.counts @ histogram.centers**2),
            bucket_limits=[float(edge) for edge in histogram.edges],
            bucket_counts=[0.0, *(float(count) for count in histogram.counts)],  # below the first edge there is nothing
            global_step=step,
        )

    def projection(self, projection: Projection) -> None:
        """Put the vectors beside the events, in place of an earlier step's; only where there are local files."""
        if self.folder is not None:
            write_projection(self.folder, projection)

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
