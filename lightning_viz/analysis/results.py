"""Outputs of techniques, results of a model, and the folders that keep them: each is whole or not there."""

from __future__ import annotations

import csv
import io
import json
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lightning_viz.analysis.plan import Plan
from lightning_viz.archive import json_values, write_whole
from lightning_viz.callbacks.draw_task import Histogram, Projection
from lightning_viz.callbacks.serialization import from_plain, to_plain
from lightning_viz.callbacks.writers import FolderWriter, TensorBoardWriter
from lightning_viz.errors import AnalysisError, InvalidArgumentError
from lightning_viz.render.page import Page, Picture, lay_out

Rows = Sequence[Mapping[str, Any]]
"""Of a table: the same columns in each."""


@dataclass(frozen=True)
class Output:
    """What a technique gives, for a report and for the folder of a command.

    Attributes:
        name: of its numbers among those of a model.
        pictures: in order, each drawn when it is asked for; pages are laid out as they are kept.
        numbers: by name, plain values, arrays and tensors.
        tables: by name, rows, which become a CSV file each.
        arrays: by name of the file, arrays by name, which become an ``.npz`` each.
        found: what they say, in one line.
    """

    name: str
    pictures: Iterable[Page | Picture] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Rows] = field(default_factory=dict)
    arrays: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    found: str = ""


def rows_of(columns: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """A table's rows, of its columns by name."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@contextmanager
def replaced(place: Path) -> Iterator[Path]:
    """A new folder, which takes the place of an earlier one when it is whole."""
    partial = place.parent / f".{place.name}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(place, ignore_errors=True)
    partial.replace(place)


@dataclass
class ModelReport:
    """The results of one model.

    Attributes:
        name: of the model.
        views: by step, the results of the views; their `numbers` hold ``"model"`` (its description) and ``"fares"``.
        techniques: by name, the results of techniques on the last checkpoint.
        waiting: parts that are still to be computed.
        plan: how far each view and technique goes.
    """

    name: str
    views: dict[int, Result] = field(default_factory=dict)
    techniques: dict[str, Result] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    plan: Plan = field(default_factory=lambda: Plan({}))

    @property
    def findings(self) -> list[Result]:
        """All of them, in order."""
        return [*self.views.values(), *self.techniques.values()]

    @property
    def numbers(self) -> dict[str, Any]:
        """All numbers, those of the last checkpoint."""
        return {name: value for result in self.findings for name, value in result.numbers.items()}

    def pictures(self) -> Iterator[Shown]:
        """All of them, in order."""
        return (shown for result in self.findings for shown in result.pictures)


LEFT_OUT = "left out"
"""Among a result's numbers, by technique, why the model does not suit it."""
FOUND = "found"
"""Among a result's numbers, by technique, what it says in one line."""

_LIST, _STATE = "finding.json", "state.pt"
_DAMAGED = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError,
)  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """A picture at a step of the run."""

    picture: Picture
    step: int


@dataclass(frozen=True)
class Fault:
    """Something that a view or a technique could not do.

    Attributes:
        source: kind of the view, or name of the technique.
        message: what went wrong.
        step: completed updates of the model, for a view.
    """

    source: str
    message: str
    step: int | None = None

    def __str__(self) -> str:
        return f"{self.source}{'' if self.step is None else f' at step {self.step}'}: {self.message}"


@dataclass
class Result:
    """Pictures and numbers of views or of a technique; views write to it as to a logger.

    Attributes:
        pictures: in order.
        scalars: tag, value and step, to be plotted.
        numbers: by name, plain values, for JSON and for the report's tables.
        faults: what failed.
        projections: for TensorBoard's projector.
        state: of the views, plain, from which those of the next checkpoint go on.
    """

    pictures: list[Shown] = field(default_factory=list)
    scalars: list[tuple[str, float, int]] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    projections: list[Projection] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None  # all is drawn

    def add(self, output: Output, step: int) -> None:
        """Keep what a technique gives.

        Args:
            output: its numbers go first: they stay if a picture cannot be drawn.
            step: completed updates of the model.
        """
        if output.numbers:
            self.numbers[output.name] = json_values(output.numbers)
        if output.found:
            self.numbers.setdefault(FOUND, {})[output.name] = output.found
        for picture in output.pictures:
            self.picture(picture, step)

    def part(self, chosen: Callable[[str], bool]) -> Result:
        """What belongs to some tags, without state.

        Args:
            chosen: whether a tag is one of them; of a fault its source counts.
        """
        return Result(
            pictures=[shown for shown in self.pictures if chosen(shown.picture.tag)],
            scalars=[scalar for scalar in self.scalars if chosen(scalar[0])],
            numbers={name: value for name, value in self.numbers.items() if chosen(name)},
            faults=[fault for fault in self.faults if chosen(fault.source)],
            projections=[one for one in self.projections if chosen(one.tag)],
        )

    def picture(self, picture: Page | Picture, step: int) -> None:
        """Lay out a page, and keep the picture."""
        self.pictures.append(Shown(lay_out(picture), step))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Keep a number to be plotted."""
        self.scalars.append((tag, float(value), step))

    def text(self, tag: str, markdown: str) -> None:
        """Do nothing: the report says how to read each picture."""

    def histogram(self, tag: str, histogram: Histogram, step: int) -> None:
        """Do nothing: the picture shows it."""

    def projection(self, projection: Projection) -> None:
        """Keep vectors for the projector."""
        self.projections.append(projection)

    def parts(self, tag: str, content: bytes, step: int) -> None:
        """Keep nothing: all is drawn again from the checkpoint."""

    def flush(self) -> None:
        """Do nothing: nothing is held back."""


def joined_results(results: Iterable[Result]) -> Result:
    """Several results as one.

    Args:
        results: in order.
    """
    whole = Result()
    for result in results:
        whole.pictures += result.pictures
        whole.scalars += result.scalars
        whole.numbers.update(result.numbers)
        whole.faults += result.faults
        whole.projections += result.projections
        whole.state.update(result.state)
    return whole


class Results:
    """A folder of results, by name.

    Args:
        folder: created with the first result.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str, key: str) -> Result | None:
        """A finished result; None if there is none, or if it has another key, which is of all that it depends on."""
        place = self._folder / name
        try:
            listed = json.loads((place / _LIST).read_text())
            return _read(place, listed) if listed["key"] == key else None
        except _DAMAGED:
            return None  # there is none, or it is damaged

    def put(self, name: str, key: str, result: Result) -> None:
        """Write a result in place of an earlier one of that name."""
        with replaced(self._folder / name) as folder:
            _write(folder, result, key)


def _write(place: Path, result: Result, key: str) -> None:
    pictures = []
    for number, shown in enumerate(result.pictures):
        about = {name: value for name, value in asdict(shown.picture).items() if name != "image"}
        file = f"{number:03d}.{shown.picture.kind}"
        (place / file).write_bytes(shown.picture.image)
        pictures.append({"file": file, "step": shown.step, **about})
    state = io.BytesIO()
    torch.save(to_plain({"state": result.state, "projections": [vars(one) for one in result.projections]}), state)
    (place / _STATE).write_bytes(state.getvalue())
    listed = {
        "key": key,
        "pictures": pictures,
        "scalars": result.scalars,
        "numbers": result.numbers,
        "faults": [asdict(fault) for fault in result.faults],
    }
    write_whole(place / _LIST, json.dumps(listed, indent=1).encode())


def _read(place: Path, listed: dict[str, Any]) -> Result:
    pictures = []
    for about in listed["pictures"]:
        file, step = about.pop("file"), about.pop("step")
        pictures.append(Shown(Picture(image=(place / Path(file).name).read_bytes(), **about), step))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")  # a damaged file, which is then refused
        kept = from_plain(torch.load(place / _STATE, weights_only=True))
    scalars = [(tag, value, step) for tag, value, step in listed["scalars"]]
    projections = [Projection(**one) for one in kept["projections"]]
    faults = [Fault(**fault) for fault in listed["faults"]]
    return Result(pictures, scalars, listed["numbers"], faults, projections, kept["state"])


_Found = TypeVar("_Found")
_NUMBERS, _PICTURES = "numbers.json", "pictures"


def keep(output: Output, result: Result, page: str, folder: Path, about: Mapping[str, Any]) -> list[Path]:
    """Write a technique's output in place of that of an earlier run, the numbers last: they say that all is there.

    Args:
        output: of a technique.
        result: the same as a result, its pictures drawn.
        page: the same as HTML.
        folder: takes ``index.html``, ``pictures/``, with events for TensorBoard beside them, ``numbers.json``, and a
            file for each table and group of arrays.
        about: what the numbers begin with.

    Returns:
        The pictures.

    Raises:
        AnalysisError: the folder holds pictures that are not ours.
    """
    place, numbers = folder / _PICTURES, folder / _NUMBERS
    if place.exists() and not numbers.exists():
        raise AnalysisError(f"{place} is there already, and no {_NUMBERS} beside it: give another --out")
    with replaced(place) as partial:
        writer = FolderWriter(partial)
        for shown in result.pictures:
            writer.picture(shown.picture, shown.step)
        write_events(partial, [result])
    for name, rows in output.tables.items():
        write_whole(folder / f"{name}.csv", _csv([json_values(row) for row in rows]))
    for name, arrays in output.arrays.items():
        write_whole(folder / f"{name}.npz", _npz(arrays))
    write_whole(folder / "index.html", page.encode())
    content = json_values({**about, "found": output.found, "numbers": output.numbers, **output.tables})
    write_whole(numbers, json.dumps(content, indent=1, ensure_ascii=False).encode())
    return [FolderWriter(place).path(shown.picture, shown.step) for shown in result.pictures]


def write_events(folder: Path, results: Sequence[Result]) -> None:
    """Write results for TensorBoard.

    Args:
        folder: takes the events.
        results: whose pictures, numbers over steps, and vectors.
    """
    from torch.utils.tensorboard import SummaryWriter  # which takes a while to import

    with SummaryWriter(str(folder)) as events:
        writer = TensorBoardWriter(events)
        for result in results:
            for shown in result.pictures:
                writer.picture(shown.picture, shown.step)
            for tag, value, step in result.scalars:
                writer.scalar(tag, value, step)
            for projection in result.projections:
                writer.projection(projection)


def is_kept(folder: Path, key: str) -> bool:
    """Whether a folder holds the output of a run with the same key, which is of all that the output depends on."""
    try:
        return bool(json.loads((folder / _NUMBERS).read_text("utf-8"))["key"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def numbers_of(path: Path, command: str, read: Callable[[str, Mapping[str, Any]], _Found]) -> _Found:
    """What a command found earlier, of another model.

    Args:
        path: of its ``numbers.json``, or of the folder that holds it.
        command: its name, for the message.
        read: from the model's name and the numbers to what is needed of them.

    Raises:
        InvalidArgumentError: it is no such file.
    """
    try:
        content = json.loads((path / _NUMBERS if path.is_dir() else path).read_text("utf-8"))
        return read(content["model"], content["numbers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgumentError(f"reference={path}: this is not a {_NUMBERS} of {command}, or its folder") from error


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _npz(arrays: Mapping[str, Tensor]) -> bytes:
    content = io.BytesIO()
    plain: dict[str, Any] = {name: array.detach().cpu().numpy() for name, array in arrays.items()}
    np.savez_compressed(content, **plain)
    return content.getvalue()
