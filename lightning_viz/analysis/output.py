"""What a command found, in a folder: pictures, numbers as JSON and CSV, arrays; each is whole or not there."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from lightning_viz.analysis.report.report import report
from lightning_viz.analysis.results import ModelReport, Result, Results
from lightning_viz.callbacks.distributed import first_process
from lightning_viz.callbacks.writers import FolderWriter, TensorBoardWriter, write_whole
from lightning_viz.errors import AnalysisError
from lightning_viz.render.page import Page, Picture, lay_out


def open_results(folder: Path) -> Results:
    """Where an analysis keeps what it finds: in a new folder, or that of an earlier analysis.

    Args:
        folder: to be made, where it is not there yet.

    Raises:
        AnalysisError: it cannot be made, or holds a ``tensorboard`` that is another's: ours would take its place.
    """
    board, kept = folder / "tensorboard", folder / "findings"
    if board.exists() and not kept.is_dir():
        raise AnalysisError(f"{board} is not of an analysis, whose own would take its place: give another --out")
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AnalysisError(f"{folder} cannot be written to ({error.strerror}): give another --out") from error
    return Results(kept)


def publish(folder: Path, studies: Sequence[ModelReport], *, together: Result | None = None) -> Path:
    """Write TensorBoard's files and the report, each whole or not at all; on the first process alone.

    Args:
        folder: takes ``tensorboard/`` and ``report.html``.
        studies: of one model, or of several to be compared.
        together: what was drawn of several models into one picture.

    Returns:
        The report's path.
    """
    if not first_process():
        return folder / "report.html"
    board, partial = folder / "tensorboard", folder / ".tensorboard.part"
    shutil.rmtree(partial, ignore_errors=True)
    places = {study.name: partial / slug(study.name) if len(studies) > 1 else partial for study in studies}
    for study in studies:
        _write(places[study.name], study.findings)
    if together is not None:
        _write(partial / "compared", [together])
    shutil.rmtree(board, ignore_errors=True)
    partial.replace(board)
    write_whole(folder / "report.html", report(studies, together=together).encode())
    return folder / "report.html"


def slug(name: str) -> str:
    """A name as a folder's.

    Args:
        name: of anything.

    >>> slug("../plain: 1"), slug("..")
    ('_plain__1', 'model')
    """
    return re.sub(r"[^\w.-]", "_", name).strip(".") or "model"


def _write(folder: Path, findings: Sequence[Result]) -> None:
    """Event files of findings."""
    with SummaryWriter(str(folder)) as writer:
        writer = TensorBoardWriter(writer)
        for finding in findings:
            for shown in finding.pictures:
                writer.picture(shown.picture, shown.step)
            for tag, value, step in finding.scalars:
                writer.scalar(tag, value, step)
            for projection in finding.projections:
                writer.projection(projection)


_NUMBERS, _PICTURES = "numbers.json", "pictures"

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class CommandResult:
    """What was found.

    Attributes:
        pictures: in order; pages are laid out as they are written.
        numbers: by name, plain values, arrays and tensors.
        tables: by name, rows with the same columns, which become a CSV file each and stand in the JSON as well.
        arrays: by name of the file, its arrays by name, as they are: an ``.npz`` each.
    """

    pictures: Iterable[Page | Picture]
    numbers: Mapping[str, Any]
    tables: Mapping[str, Rows] = field(default_factory=dict)
    arrays: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


def keep(result: CommandResult, folder: Path, *, step: int, about: Mapping[str, Any]) -> None:
    """Write what was found, in place of what an earlier run left there. The numbers come last: they say that all is.

    Args:
        result: of a command.
        folder: takes ``pictures/``, ``numbers.json``, and a file for each table and group of arrays.
        step: completed updates of the model, for the pictures' names.
        about: what the numbers begin with.

    Raises:
        AnalysisError: the folder holds pictures that are not ours.
    """
    place, partial, numbers = folder / _PICTURES, folder / f".{_PICTURES}.part", folder / _NUMBERS
    if place.exists() and not numbers.exists():
        raise AnalysisError(f"{place} is there already, and no {_NUMBERS} beside it: give another --out")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    writer = FolderWriter(partial)
    for picture in result.pictures:
        writer.picture(lay_out(picture), step)
    shutil.rmtree(place, ignore_errors=True)
    partial.replace(place)
    for name, rows in result.tables.items():
        write_whole(folder / f"{name}.csv", _csv([as_plain(row) for row in rows]))
    for name, arrays in result.arrays.items():
        write_whole(folder / f"{name}.npz", _npz(arrays))
    found = as_plain({**about, **result.numbers, **result.tables})
    write_whole(numbers, json.dumps(found, indent=1, ensure_ascii=False).encode())


def is_kept(folder: Path, key: str) -> bool:
    """Whether a folder holds what a run with the same key found.

    Args:
        folder: of what was found.
        key: of all that it depends on.
    """
    try:
        return bool(json.loads((folder / _NUMBERS).read_text("utf-8"))["key"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def as_plain(value: Any) -> Any:
    """Values that JSON has: tensors as lists, what is not finite as None.

    Args:
        value: numbers, words, tensors, arrays; mappings and sequences of them.
    """
    if isinstance(value, Mapping):
        return {str(name): as_plain(one) for name, one in value.items()}
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return as_plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [as_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _npz(arrays: Mapping[str, Tensor]) -> bytes:
    content = io.BytesIO()
    found: dict[str, Any] = {name: one.detach().cpu().numpy() for name, one in arrays.items()}
    np.savez_compressed(content, **found)
    return content.getvalue()
