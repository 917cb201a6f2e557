"""What was found, as a person looks at it: TensorBoard's files and the report."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from lightning_viz.analysis.checkpoints import AnalysisError
from lightning_viz.analysis.findings import Finding, Findings
from lightning_viz.analysis.report.reporting import report
from lightning_viz.analysis.study import Study
from lightning_viz.callbacks.processes import first_process
from lightning_viz.callbacks.projector import write_whole
from lightning_viz.callbacks.sinks import TensorBoardSink


def room(folder: Path) -> Findings:
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
    return Findings(kept)


def publish(folder: Path, studies: Sequence[Study], *, together: Finding | None = None) -> Path:
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


def _write(folder: Path, findings: Sequence[Finding]) -> None:
    """Event files of findings."""
    with SummaryWriter(str(folder)) as writer:
        sink = TensorBoardSink(writer)
        for finding in findings:
            for shown in finding.pictures:
                sink.picture(shown.picture, shown.step)
            for tag, value, step in finding.scalars:
                sink.scalar(tag, value, step)
            for projection in finding.projections:
                sink.projection(projection)
