"""Draws what a run observed and had no time to draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.frames import AnimationFrames, animations, keep_frame
from lightning_viz.callbacks.picture_log import write_result
from lightning_viz.callbacks.undrawn import PATTERN, Undrawn, read_undrawn
from lightning_viz.callbacks.writers import FolderWriter, TensorBoardWriter, Writer
from lightning_viz.errors import AnalysisError


def draw_undrawn(folder: Path, *, trusted: bool = False, report: Callable[[str], None] = print) -> int:
    """Draw what is kept beside a run, add it to the run's events or folder of pictures, and delete what kept it.

    Pictures are those that the run would have drawn, byte for byte.

    Args:
        folder: of a run, or of several.
        trusted: whether drawings of other packages may be imported and called.
        report: takes a line for each file, and for each drawing that failed.

    Returns:
        How many drawings failed; the files of these stay.

    Raises:
        AnalysisError: nothing is kept there.
        MalformedFileError: a file does not hold drawings, or some that are not trusted.
    """
    paths = sorted(folder.rglob(PATTERN)) if folder.is_dir() else []
    if not paths:
        raise AnalysisError(f"{folder} holds no undrawn pictures ({PATTERN}): give the folder of a run that named it")
    failed = 0
    for path in paths:
        undrawn = read_undrawn(path, trusted=trusted)
        faults = _draw(undrawn, path.parent)
        failed += len(faults)
        for fault in faults:
            report(fault)
        report(f"{path}: {len(undrawn.tasks) - len(faults)} of {len(undrawn.tasks)} drawn")
        if not faults:
            path.unlink()
    return failed


def _draw(undrawn: Undrawn, folder: Path) -> list[str]:
    """Draw all tasks, then animations; what failed, in words."""
    writer = _writer(folder)
    frames: dict[str, AnimationFrames] = {
        owner: {tag: list(pages) for tag, pages in tags.items()} for owner, tags in undrawn.frames.items()
    }
    with closing(DrawingProcess(undrawn.memories)) as process:
        process.low = False
        faults = _draw_all(process, undrawn.tasks, writer, frames)
        last = [(owner, step, task) for owner, pages in frames.items() for step, task in animations(pages)]
        faults += _draw_all(process, last, writer, {})
    writer.flush()
    return faults


def _draw_all(
    process: DrawingProcess,
    tasks: Sequence[tuple[str, int, DrawTask]],
    writer: Writer,
    frames: Mapping[str, AnimationFrames],
) -> list[str]:
    """Draw tasks, write what comes of them, and keep the pages of those that are animated."""
    faults, left = [], len(tasks)
    for task in tasks:
        process.submit(*task)
    process.hurry()
    with tqdm(total=left, desc="lightning_viz", unit="drawing", leave=False, disable=None) as bar:
        while left:
            process.drain(0.2)
            for result in process.results():
                left -= 1
                bar.update()
                if result.drawn is None:
                    faults.append(f"{result.owner} failed at step {result.step}: {result.error}")
                    continue
                pictures = write_result([writer], result.drawn, result.step)
                if pictures and result.owner in frames:
                    keep_frame(frames[result.owner], pictures[0], result.step)
    return faults


def _writer(folder: Path) -> Writer:
    """Adds to a run's events, or to its folder of pictures if it has no events."""
    if any(folder.glob("events.out.tfevents.*")):
        from torch.utils.tensorboard import SummaryWriter  # which takes a while to import

        return TensorBoardWriter(SummaryWriter(str(folder)))
    return FolderWriter(folder)
