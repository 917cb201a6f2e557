"""Processor time of what a short run draws, by kind of task: `python -m benchmarks.drawing [SCRIPT]`.

Runs the script (`short_run.py` of the cases) with its views, keeps its drawing tasks instead of drawing them, and draws
them in a fresh process, one after the other.
"""

from __future__ import annotations

import pickle
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

SCRIPT = Path("/work/shared/cases/short_run.py")


def record(script: Path, file: Path) -> None:
    """Keep the tasks of a run in a file, in their order.

    Args:
        script: runs with its views for the argument ``views``.
        file: to write.
    """
    from lightning_viz.callbacks.drawing import DrawingProcess

    tasks: list[tuple[str, int, bytes]] = []

    def submit(process: DrawingProcess, owner: str, step: int, task: object) -> None:
        tasks.append((owner, step, pickle.dumps(task)))

    with patch.object(sys, "argv", [str(script), "views"]), patch.object(DrawingProcess, "submit", submit):
        runpy.run_path(str(script), run_name="__main__")
    file.write_bytes(pickle.dumps(tasks))


def draw(file: Path) -> None:
    """Draw the tasks of a file, and print a table of processor time.

    Args:
        file: of `record`.
    """
    started = time.process_time()
    from lightning_viz.callbacks.frames import animations, keep_frame

    imports = time.process_time() - started
    seconds: dict[str, list[float]] = {}
    memories: dict[str, Any] = {}
    frames: dict[str, Any] = {}
    sizes: list[int] = []

    def draw_one(owner: str, step: int, payload: bytes) -> None:
        started = time.process_time()
        task = pickle.loads(payload)
        result = task.draw(memories)
        taken = time.process_time() - started
        kind = f"{owner}: {task.function.__name__}{', all pages' if task.arguments.get('full') else ''}"
        kind += "" if kind in seconds else " (first)"  # which imports
        seconds.setdefault(kind.removesuffix(" (first)"), [])
        seconds.setdefault(kind, []).append(taken)
        sizes.extend(len(picture.image) for picture in result.pictures)
        if task.name is not None and result.pictures:
            keep_frame(frames, result.pictures[0], step)

    for waiting in pickle.loads(file.read_bytes()):
        draw_one(*waiting)
    for step, task in animations(frames):
        draw_one("animations", step, pickle.dumps(task))
    print(f"{'kind':52} {'count':>5} {'median ms':>9} {'max ms':>7} {'sum s':>6}")
    print(f"{'imports':52} {1:5} {1000 * imports:9.0f} {1000 * imports:7.0f} {imports:6.2f}")
    for kind, times in seconds.items():
        if times:
            print(f"{kind:52} {len(times):5} {1000 * median(times):9.0f} {1000 * max(times):7.0f} {sum(times):6.2f}")
    total = imports + sum(map(sum, seconds.values()))
    print(f"{len(sizes)} pictures, {sum(sizes) / 1e6:.2f} MB, {total:.2f} s of processor time")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--record"]:
        record(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--draw"]:
        draw(Path(sys.argv[2]))
    else:
        script = sys.argv[1] if len(sys.argv) > 1 else str(SCRIPT)
        with tempfile.TemporaryDirectory() as folder:
            tasks = str(Path(folder) / "tasks.pickle")
            for arguments in (["--record", script, tasks], ["--draw", tasks]):
                subprocess.run([sys.executable, "-m", "benchmarks.drawing", *arguments], check=True)
