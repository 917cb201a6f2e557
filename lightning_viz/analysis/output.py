"""Files of an analysis (report, TensorBoard) or of a command (pictures, JSON, CSV, arrays), each whole or not there."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from lightning_viz.analysis.report.report import report
from lightning_viz.analysis.results import ModelReport, Output, Result, Results, as_plain
from lightning_viz.callbacks.distributed import first_process
from lightning_viz.callbacks.writers import FolderWriter, TensorBoardWriter, write_whole
from lightning_viz.errors import AnalysisError
from lightning_viz.render.page import lay_out


def open_results(folder: Path) -> Results:
    """Open the results of an analysis, in a new folder or in that of an earlier analysis.

    Args:
        folder: created if it does not exist.

    Raises:
        AnalysisError: it cannot be written to, or holds a ``tensorboard`` folder that is not of an analysis.
    """
    board, kept = folder / "tensorboard", folder / "findings"
    if board.exists() and not kept.is_dir():
        raise AnalysisError(f"{board} is not of an analysis and would be replaced: give another --out")
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AnalysisError(f"{folder} cannot be written to ({error.strerror}): give another --out") from error
    return Results(kept)


def publish(folder: Path, reports: Sequence[ModelReport], *, together: Result | None = None) -> Path:
    """Write TensorBoard's files and the report, each whole or not at all; on the first process alone.

    Args:
        folder: takes ``tensorboard/`` and ``report.html``.
        reports: of one model, or of several that are compared.
        together: pictures of several models in one.

    Returns:
        The report's path.
    """
    if not first_process():
        return folder / "report.html"
    board, partial = folder / "tensorboard", folder / ".tensorboard.part"
    shutil.rmtree(partial, ignore_errors=True)
    places = {
        model_report.name: partial / slug(model_report.name) if len(reports) > 1 else partial
        for model_report in reports
    }
    for model_report in reports:
        _write(places[model_report.name], model_report.findings)
    if together is not None:
        _write(partial / "compared", [together])
    shutil.rmtree(board, ignore_errors=True)
    partial.replace(board)
    write_whole(folder / "report.html", report(reports, together=together).encode())
    return folder / "report.html"


def slug(name: str) -> str:
    """A name as a folder's.

    Args:
        name: of anything.

    >>> slug("../plain: 1"), slug("..")
    ('_plain__1', 'model')
    """
    return re.sub(r"[^\w.-]", "_", name).strip(".") or "model"


def _write(folder: Path, results: Sequence[Result]) -> None:
    """Write event files of results."""
    with SummaryWriter(str(folder)) as writer:
        writer = TensorBoardWriter(writer)
        for result in results:
            for shown in result.pictures:
                writer.picture(shown.picture, shown.step)
            for tag, value, step in result.scalars:
                writer.scalar(tag, value, step)
            for projection in result.projections:
                writer.projection(projection)


_NUMBERS, _PICTURES = "numbers.json", "pictures"


def keep(output: Output, folder: Path, *, step: int, about: Mapping[str, Any]) -> None:
    """Write a technique's output in place of that of an earlier run, the numbers last: they say that all is there.

    Args:
        output: of a technique.
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
    for picture in output.pictures:
        writer.picture(lay_out(picture), step)
    shutil.rmtree(place, ignore_errors=True)
    partial.replace(place)
    for name, rows in output.tables.items():
        write_whole(folder / f"{name}.csv", _csv([as_plain(row) for row in rows]))
    for name, arrays in output.arrays.items():
        write_whole(folder / f"{name}.npz", _npz(arrays))
    content = as_plain({**about, "numbers": output.numbers, **output.tables})
    write_whole(numbers, json.dumps(content, indent=1, ensure_ascii=False).encode())


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
