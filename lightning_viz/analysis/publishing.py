"""What was found, as a person looks at it: TensorBoard's files and the report."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from lightning_viz.analysis.study import Study
from lightning_viz.callbacks.sinks import TensorBoardSink


def publish(folder: Path, studies: Sequence[Study]) -> Path:
    """Write TensorBoard's files and the report, each whole or not at all.

    Args:
        folder: takes ``tensorboard/`` and ``report.html``.
        studies: of one model, or of several to be compared.

    Returns:
        The report's path.
    """
    board, partial = folder / "tensorboard", folder / ".tensorboard.part"
    shutil.rmtree(partial, ignore_errors=True)
    for study in studies:
        with SummaryWriter(str(partial / study.name if len(studies) > 1 else partial)) as writer:
            sink = TensorBoardSink(writer)
            for finding in study.findings:
                for shown in finding.pictures:
                    sink.picture(shown.picture, shown.step)
                for tag, value, step in finding.scalars:
                    sink.scalar(tag, value, step)
                for projection in finding.projections:
                    sink.projection(projection)
    shutil.rmtree(board, ignore_errors=True)
    partial.replace(board)
    return folder / "report.html"
