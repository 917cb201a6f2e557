"""What an analysis publishes: the report, rewritten as results come, and TensorBoard's files."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_viz.analysis.report.report import findings
from lightning_viz.analysis.report.report import report as write_report
from lightning_viz.analysis.report.report_path import ReportPath
from lightning_viz.analysis.results import ModelReport, Result, Results, replaced, write_events
from lightning_viz.archive import write_whole
from lightning_viz.callbacks.distributed import first_process
from lightning_viz.errors import AnalysisError
from lightning_viz.plain_text import file_name


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
        The report's path, with what was found for a notebook.
    """
    if not first_process():
        return folder / "report.html"
    with replaced(folder / "tensorboard") as board:
        for report in reports:
            write_events(board / slug(report.name) if len(reports) > 1 else board, report.findings)
        if together is not None:
            write_events(board / "compared", [together])
    write_whole(folder / "report.html", write_report(reports, together=together).encode())
    found = [
        (f"{report.name}: {title}" if len(reports) > 1 else title, sentence)
        for report in reports
        for title, sentence in findings(report)
    ]
    return ReportPath.of(folder / "report.html", found)


class Publisher:
    """Rewrites the report as results come, as often as it takes but a small share of the time.

    Args:
        folder: takes ``report.html``.
        reports: of one model, or of several that are compared.
        clock: tells the seconds since some moment.
    """

    def __init__(
        self, folder: Path, reports: Sequence[ModelReport], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._reports, self._clock = folder, reports, clock
        self._next = -math.inf

    def changed(self) -> None:
        """Something is finished; what has no picture waits for the next that has."""
        started = self._clock()
        if not first_process() or started < self._next or not any(any(each.pictures()) for each in self._reports):
            return
        write_whole(self._folder / "report.html", write_report(self._reports).encode())
        ended = self._clock()
        self._next = ended + _PAUSE * (ended - started)


_PAUSE = 20  # times as long as the last writing took


def slug(name: str) -> str:
    """A name as a folder's.

    >>> slug("../plain: 1"), slug("..")
    ('_plain__1', 'model')
    """
    return file_name(name, re.sub(r"[^\w.-]", "_", name).strip(".") or "model")
