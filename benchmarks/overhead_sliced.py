"""The wall clock of `overhead.py`'s arms on a machine whose own speed drifts: the arms take turns of two seconds.

Each arm is a process of its own, with its drawing process, in a process group that is stopped while it is not its turn.
Its clocks, the budget's among them, count its own turns only: a drift slower than a few seconds meets all arms alike.

    python benchmarks/overhead_sliced.py [--steps 1000] [--first 0]
"""

import argparse
import json
import logging
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import overhead

from lightning_viz.callbacks import drawing as artist
from lightning_viz.callbacks import picture_log
from lightning_viz.callbacks import schedule as budget

TURN = 2.0  # seconds
ENTRY = struct.Struct("ddd")  # seconds granted, start of the present turn, whether it is one
ARMS = list(overhead.ARMS)


def shared(folder: Path) -> mmap.mmap:
    """The turns of all arms, seen by all processes."""
    return mmap.mmap(os.open(folder / "turns", os.O_RDWR), ENTRY.size * len(ARMS))


def train(folder: Path, index: int, steps: int) -> None:
    """One arm, by the clock of its turns."""
    turns, real = shared(folder), time.perf_counter

    def own_time() -> float:
        granted, start, running = ENTRY.unpack_from(turns, index * ENTRY.size)
        return granted + (real() - start if running else 0.0)

    time.monotonic = time.perf_counter = own_time
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    picture_log.inform = lambda message: None
    budget.FREE_SECONDS = 0.0
    artist.BEHIND_SECONDS *= len(ARMS)  # the drawing process's own clock goes on while it is stopped
    overhead.FINISH_SECONDS = 120.0 * len(ARMS)
    dataset, watch = overhead.data(), overhead.Watch()
    overhead.run("no views", steps // 50, dataset, watch)  # the first steps are slow
    result = overhead.run(ARMS[index], steps, dataset, watch)
    (folder / f"{index}.json").write_text(json.dumps(asdict(result)))


def take_turns(folder: Path, steps: int, first: int) -> None:
    """Let one process group run at a time, until all arms have ended."""
    (folder / "turns").write_bytes(bytes(ENTRY.size * len(ARMS)))
    turns, granted = shared(folder), [0.0] * len(ARMS)
    command = [sys.executable, __file__, "--folder", str(folder), "--steps", str(steps), "--arm"]
    arms = [subprocess.Popen([*command, str(index)], start_new_session=True) for index in range(len(ARMS))]
    for arm in arms:
        os.killpg(arm.pid, signal.SIGSTOP)
    while any(arm.poll() is None for arm in arms):
        for index in range(first, first + len(arms)):
            arm, place = arms[index % len(arms)], index % len(arms)
            if arm.poll() is not None:
                continue
            start = time.perf_counter()
            ENTRY.pack_into(turns, place * ENTRY.size, granted[place], start, 1.0)
            os.killpg(arm.pid, signal.SIGCONT)
            time.sleep(TURN)
            if arm.poll() is None:
                os.killpg(arm.pid, signal.SIGSTOP)
            granted[place] += time.perf_counter() - start
            ENTRY.pack_into(turns, place * ENTRY.size, granted[place], 0.0, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="of training, per arm (1000)")
    parser.add_argument("--first", type=int, default=0, help="arm that has the first turn (0)")
    parser.add_argument("--arm", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm is not None:
        train(options.folder, options.arm, options.steps)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        take_turns(folder, options.steps, options.first)
        results = [json.loads((folder / f"{index}.json").read_text()) for index in range(len(ARMS))]
    plain = results[0]["training"]
    for one in results:
        print(
            f"{one['arm']:10} training {one['training']:6.1f} s, ratio {one['training'] / plain:.3f}; to the end "
            f"{one['to_end']:6.1f} s; held {one['held']:.2f} s in {one['looks']} looks; drawing process "
            f"{one['cpu']:.1f} CPU s, {one['memory']:.0f} MiB"
        )


if __name__ == "__main__":
    main()
