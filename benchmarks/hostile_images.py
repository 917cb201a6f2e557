"""Seconds and memory that image files take, however they were made, until they are what a model takes.

Each file of `tests/analysis/hostile_images.py`, and each way in which a folder misleads, is read in a process of its
own by the one function that opens images, and scaled and cropped as those of ``--images`` are. Memory is the most
resident memory of that process, libraries included; the line "nothing" is what they take alone.

    python benchmarks/hostile_images.py [--size 224]

The bounds are 5 seconds and 1 GB for each; the status is 1 where one is beyond them.
"""

import argparse
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from lightning_viz.analysis.data import fitting
from lightning_viz.analysis.image_files import read_image
from lightning_viz.errors import AnalysisError
from lightning_viz.pixels import PixelSpace
from tests.analysis.hostile_images import IMAGES

MOST_SECONDS, MOST_MEGABYTES = 5.0, 1000


def in_a_child(work: Callable[[], Any]) -> tuple[float, float, str]:
    """Seconds and most resident MB of a process that does the work, and what came of it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        start = time.perf_counter()
        try:
            outcome = f"read, {tuple(work().shape)}"
        except AnalysisError as error:
            outcome = str(error).rpartition("/")[2]
        except BaseException as error:
            outcome = f"FAULT: {type(error).__name__}: {error}"
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        os.write(writing, f"{seconds}\n{peak}\n{outcome[:400]}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        lines = answer.read().split("\n", 2)
    os.waitpid(child, 0)
    if len(lines) < 3:
        return float("inf"), float("inf"), "FAULT: the process died"
    return float(lines[0]), float(lines[1]), lines[2]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--size", type=int, default=224, help="of the model's input")
    fit = fitting(arguments.parse_args().size, PixelSpace())
    beyond = 0
    print(f"{'file':<36}{'seconds':>8}{'MB':>6}  outcome")
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "nothing.png"
        small.write_bytes(IMAGES["plain"].content())
        rows = {"nothing": (small, "")}
        for name, file in IMAGES.items():
            rows[name] = (Path(folder) / f"image{file.suffix}", file.outcome)
        for name, (path, expected) in rows.items():
            if name in IMAGES:
                path.write_bytes(IMAGES[name].content())
            seconds, megabytes, outcome = in_a_child(lambda path=path: fit(read_image(path)))
            as_expected = bool(re.search(expected, outcome)) if expected else outcome.startswith("read")
            within = seconds <= MOST_SECONDS and megabytes <= MOST_MEGABYTES and as_expected
            beyond += not within
            print(f"{name:<36}{seconds:>8.2f}{megabytes:>6.0f}  {'' if within else 'BEYOND: '}{outcome[:110]}")
    print(f"{beyond} of {len(rows)} beyond {MOST_SECONDS:g} s and {MOST_MEGABYTES} MB, or other than expected")
    return int(beyond > 0)


if __name__ == "__main__":
    sys.exit(main())
