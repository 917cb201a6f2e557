"""A fault matrix: every stage of the views' work x every fault x where in the run; with views a run ends as without.

    python benchmarks/faults.py [--runs 1200] [--only STAGE:FAULT[:PLACE]] [--slice] [--kept FILE]

Every run is a tiny training in a process of its own, forked from this one, which has imported everything. In every
tenth run drawing processes are started as ever, in the others they are forked from the run. Its fault is planted in our
own functions, or strikes the process that does the work. The same run without views, to which the same happens (a
signal, its death) at the same hook, is the reference.

A run that ends otherwise, weights that differ after a batch, checkpoints that differ, a file half written (also what
cannot be read or drawn of what was kept of undrawn pictures), and a process of the run's session that is alive
`LINGER_SECONDS` after its end are counted; none is right.
"""

from __future__ import annotations

import argparse
import atexit
import itertools
import json
import multiprocessing.util
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import fault_run
import torch
from fault_run import PLACES, STAGES, Row
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tqdm import tqdm

from lightning_viz.analysis.late_drawing import draw_undrawn
from lightning_viz.callbacks.undrawn import PATTERN, read_undrawn

LINGER_SECONDS = 6.0
HUNG_SECONDS = 90.0
COLD_EVERY = 10  # rows of which one starts its drawing processes as ever
FAULTS = ("exception", "out of memory", "hang", "kill", "NaN", "disk full", "read-only", "signal")
_ERRORS = {
    "exception": ("RuntimeError", "odd", "StopIteration"),
    "out of memory": ("MemoryError", "allocator", "ENOMEM"),
    "disk full": ("ENOSPC", "EDQUOT"),
    "read-only": ("EROFS", "EACCES"),
    "NaN": ("NaN",),
}
NOT_APPLICABLE = {("drain", "NaN"): "it waits, and is given no data"}


def variants(stage: str, fault: str, place: str) -> list[Row]:
    """All rows of a cell of the matrix: how the fault strikes, whom, which view, under which logger and loop."""
    own = stage not in ("fetch", "draw")  # in training's own process
    lasting: Sequence[bool] = (False, True)
    if fault in _ERRORS:
        ways = [(how, {"fetch": "worker", "draw": "drawer"}.get(stage, "run")) for how in _ERRORS[fault]]
    elif fault == "hang":  # what hangs in training's own process is ended by a person
        ways, lasting = [("hang until Ctrl-C", "run") if own else ("hang", "process")], (False,)
    elif fault == "kill":
        ways, lasting = [("kill", "run" if own else "process")], (False,) if own else (False, True)
        if stage in ("write", "collect", "drain"):
            ways.append(("kill", "artist"))
    else:
        ways, lasting = [(how, "run" if own else "process") for how in ("SIGINT", "SIGTERM", "SIGHUP")], (False,)
        if stage == "fetch":
            ways += [(how, "run") for how in ("SIGINT", "SIGHUP")]
    kinds = ("saliency", "grad_cam", "filters") if stage in ("pickle", "draw", "write") else ("saliency", "grad_cam")
    if stage not in ("pickle", "draw", "write", "pass", "checkpoint"):
        kinds = kinds[:1]
    loops = ((1, 0), (2, 0))
    return [
        Row(stage, fault, place, how, victim, kind, last, logger, accumulate, workers)
        for (how, victim), kind, last, logger, (accumulate, workers) in itertools.product(
            ways, kinds, lasting, ("board", "folder", "images"), loops
        )
    ]


def matrix(runs: int) -> list[Row]:
    """So many rows, spread over the cells; the same for the same number."""
    generator = random.Random(0)
    cells = [
        generator.sample(rows, len(rows))
        for stage, fault, place in itertools.product(STAGES, FAULTS, PLACES)
        if (stage, fault) not in NOT_APPLICABLE and (rows := variants(stage, fault, place))
    ]
    layers = itertools.zip_longest(*generator.sample(cells, len(cells)))
    rows = [row for layer in layers for row in layer if row is not None][:runs]
    rows = [replace(row, cold=number % COLD_EVERY == 0) for number, row in enumerate(rows)]
    return rows + [replace(row, workers=2) for row in rows[:: max(1, len(rows) // 20)]]  # that load training data


NASTIEST = (
    Row("fetch", "hang", "first", "hang", "process"),
    Row("fetch", "kill", "last", "kill", "process", logger="folder"),
    Row("pass", "exception", "middle", "odd", lasting=True),
    Row("reduce", "out of memory", "last", "MemoryError", logger="folder"),
    Row("pickle", "exception", "last", "RuntimeError", logger="images"),
    Row("draw", "kill", "middle", "kill", "process", lasting=True),
    Row("draw", "hang", "last", "hang", "process", logger="folder"),
    Row("write", "disk full", "middle", "ENOSPC"),
    Row("write", "signal", "middle", "SIGTERM", logger="folder"),
    Row("collect", "kill", "last", "kill", "artist"),
    Row("drain", "signal", "middle", "SIGINT"),
    Row("checkpoint", "exception", "middle", "RuntimeError"),
    Row("resume", "exception", "first", "RuntimeError", accumulate=2),
)


# Processes.


def forked(work: Callable[[], Any], folder: Path, name: str) -> int:
    """A process with a session of its own that does some work; what it prints is in the folder's file ``name``.

    It ends as Python does, by 0 or 1, or by what `SystemExit` says; the kind of error is left in ``name.end``.
    """
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        log = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        warnings.resetwarnings()
        warnings.simplefilter("ignore", DeprecationWarning)
        tqdm.set_lock(threading.RLock())  # the usual one is shared by processes, one of which may be killed
        atexit._clear()  # what the process that was forked would do at its end
        atexit.register(multiprocessing.util._exit_function)
        try:
            work()
            code = 0
        except BaseException as error:
            (folder / f"{name}.end").write_text(type(error).__name__)
            if isinstance(error, SystemExit):
                code = error.code if isinstance(error.code, int) else int(error.code is not None)
            traceback.print_exc()
        atexit._run_exitfuncs()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def alive(run: int) -> list[int]:
    """Processes of a session, but for those that are dead and not waited for."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == run and state != "Z":
            found.append(int(path.parent.name))
    return found


def ended(process: int, seconds: float) -> Iterator[None]:
    """Wait for a process; one that hangs is killed. Returns how it ended."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return "hung"
        yield


@dataclass
class Result:
    """What came of a run.

    Attributes:
        end: exit code, and the kind of error.
        trail: the weights after each batch.
        checkpoints: by name, the weights and optimizers that they hold.
        torn: files half written, in words.
        left: processes alive after its end.
        fired: whether its fault struck.
        said: its last words.
        seconds: that it took.
    """

    end: str
    trail: str = ""
    checkpoints: dict[str, str] | None = None
    torn: tuple[str, ...] = ()
    left: int = 0
    fired: bool = False
    said: str = ""
    seconds: float = 0.0


def watched(row: Row) -> Iterator[None]:
    """Run, wait for what lingers, and look at what is there; returns a `Result`."""
    folder = Path(tempfile.mkdtemp(prefix="fault_"))
    started = time.monotonic()
    process = forked(lambda: fault_run.run(row, folder), folder, "log")
    code = yield from ended(process, HUNG_SECONDS)
    took = time.monotonic() - started
    kind = (folder / "log.end").read_text() if (folder / "log.end").exists() else ""
    deadline = time.monotonic() + LINGER_SECONDS
    while (left := alive(process)) and time.monotonic() < deadline:
        yield
    for one in left:
        os.kill(one, signal.SIGKILL)
    (folder / "cured").touch()
    inspector = forked(lambda: (folder / "seen.json").write_text(json.dumps(inspection(folder))), folder, "inspection")
    code_of_inspection = yield from ended(inspector, HUNG_SECONDS)
    if code_of_inspection == 0:
        seen = json.loads((folder / "seen.json").read_text())
    else:
        seen = {"torn": [f"inspection: {tail(folder / 'inspection')}"], "checkpoints": {}}
    trail = (folder / "trail").read_text() if (folder / "trail").exists() else ""
    result = Result(
        f"{code} {kind}".strip(), trail, seen["checkpoints"], tuple(seen["torn"]), len(left),
        (folder / "fired").exists(), tail(folder / "log"), took,
    )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    return result


def tail(path: Path) -> str:
    """The last lines of a text."""
    return " | ".join(path.read_text(errors="replace").strip().splitlines()[-4:])[-500:] if path.exists() else ""


# Files.


def inspection(folder: Path) -> dict[str, Any]:
    """What a run has left: files that are not whole, before and after its undrawn pictures are drawn; checkpoints."""
    torch.set_num_threads(1)
    torn = list(torn_files(folder))
    checkpoints = {}
    for path in sorted(folder.rglob("*.ckpt")):
        try:
            kept = torch.load(path, weights_only=False)
            optimizers = [state["state"] for state in kept["optimizer_states"]]
            flat = {
                f"{i}/{j}/{key}": value
                for i, one in enumerate(optimizers)
                for j in one
                for key, value in one[j].items()
            }
            checkpoints[path.name] = fault_run.digest(kept["state_dict"] | flat) + f" at {kept['global_step']}"
        except Exception as error:
            torn.append(f"{path.name}: {error!r}")
    if not torn and any(folder.rglob(PATTERN)):
        lines: list[str] = []
        if draw_undrawn(folder, trusted=True, report=lines.append):
            torn.append(f"undrawn pictures cannot be drawn: {lines}")
        torn += torn_files(folder)
    return {"torn": torn, "checkpoints": checkpoints}


def torn_files(folder: Path) -> Iterator[str]:
    """Files of a run that are not whole, and why."""
    readers = {".png": _read_png, ".npz": lambda path: read_undrawn(path, trusted=True), ".csv": _read_lines}
    for path in sorted(folder.rglob("*")):
        read = _read_events if "tfevents" in path.name else readers.get(path.suffix)
        try:
            if path.suffix == ".part":
                raise ValueError("left behind")
            if read is not None:
                read(path)
        except Exception as error:
            yield f"{path.relative_to(folder)}: {error!r}"


def _read_png(path: Path) -> None:
    Image.open(path).load()


def _read_lines(path: Path) -> None:
    if not path.read_bytes().endswith(b"\n"):
        raise ValueError("its last line is not whole")


def _read_events(path: Path) -> None:
    """Read records to the very end; pictures by the check sums of their own."""
    content, place = path.read_bytes(), 0
    while place < len(content):
        (size,) = struct.unpack_from("<Q", content, place)
        record = content[place + 12 : place + 12 + size]
        place += size + 16
        if place > len(content):
            raise ValueError("its last record is not whole")
        for value in Event.FromString(record).summary.value:
            for text in value.tensor.string_val[2:]:
                if text.startswith(b"\x89PNG") and not _whole_png(text):
                    raise ValueError(f"{value.tag} is no picture")


def _whole_png(content: bytes) -> bool:
    place = 8
    while place < len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        part = content[place + 4 : place + 8 + size]
        if zlib.crc32(part) != int.from_bytes(content[place + 8 + size : place + 12 + size], "big"):
            return False
        place += size + 12
    return kind == b"IEND"


# The matrix.


def compared(row: Row, references: dict[Any, Result]) -> Iterator[None]:
    """Run a row and, if no row has had it, its reference; returns what is wrong, by column."""
    key = row.reference
    if key not in references:
        references[key] = yield from watched(replace(row, views=False))
    plain = references[key]
    result = yield from watched(row)
    columns = {
        "end": "" if result.end == plain.end else f"{result.end!r}, without views {plain.end!r}: {result.said}",
        "weights": "" if (result.trail == plain.trail and result.trail) or result.trail == plain.trail else "differ",
        "checkpoints": "" if result.checkpoints == plain.checkpoints else f"{result.checkpoints} {plain.checkpoints}",
        "torn": "; ".join(result.torn),
        "left": f"{result.left} processes" if result.left else "",
    }
    return {"row": asdict(row), "fired": result.fired, "seconds": result.seconds, "wrong": columns, "end": result.end}


def in_turn(rows: Sequence[Row], at_once: int, report: Callable[[dict[str, Any]], None]) -> None:
    """Run rows, some at once."""
    references: dict[Any, Result] = {}
    waiting, running = list(reversed(rows)), []
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(compared(waiting.pop(), references))
        for work in list(running):
            try:
                next(work)
            except StopIteration as end:
                running.remove(work)
                report(end.value)
        time.sleep(0.01)


def show(results: Sequence[dict[str, Any]]) -> int:
    """Print how often each stage x fault was reached, and what was wrong; how many of these there are."""
    reached = Counter((result["row"]["stage"], result["row"]["fault"]) for result in results if result["fired"])
    print(f"{'':<12}" + "".join(f"{fault:>15}" for fault in FAULTS))
    for stage in STAGES:
        cells = ["n/a" if (stage, fault) in NOT_APPLICABLE else str(reached[stage, fault]) for fault in FAULTS]
        print(f"{stage:<12}" + "".join(f"{cell:>15}" for cell in cells))
    for (stage, fault), why in NOT_APPLICABLE.items():
        print(f"n/a: {fault} in {stage}: {why}")
    wrong = defaultdict(list)
    for result in results:
        for column, words in result["wrong"].items():
            if words:
                wrong[column].append((result["row"], words))
        if not result["fired"]:
            wrong["not reached"].append((result["row"], result["end"]))
    names = {
        "end": "ended otherwise than without views", "weights": "weights that differ",
        "checkpoints": "checkpoints that differ", "torn": "files half written", "left": "processes left",
        "not reached": "faults that never struck",
    }  # fmt: skip
    print(f"{len(results)} runs, {sum(result['fired'] for result in results)} of them reached their fault")
    for column, name in names.items():
        print(f"{name}: {len(wrong[column])}")
        for row, words in wrong[column][:12]:
            given = " ".join(f"{value}" for value in row.values())
            print(f"    {given}: {words[:400]}")
    return sum(map(len, wrong.values()))


def main() -> int:
    """Run the matrix, or a part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1200)
    parser.add_argument("--only", default="", help="STAGE:FAULT[:PLACE]")
    parser.add_argument("--slice", action="store_true", help="the nastiest rows alone")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--kept", type=Path, help="a file that keeps what came of each run; those in it are not rerun")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(NASTIEST) if options.slice else matrix(options.runs)
    asked = options.only.split(":") if options.only else []
    rows = [row for row in rows if [row.stage, row.fault, row.place][: len(asked)] == asked]
    kept = options.kept.read_text().splitlines() if options.kept and options.kept.exists() else ()
    known = {Row(**result["row"]): result for result in map(json.loads, kept)}
    results = [known[row] for row in rows if row in known]

    def report(result: dict[str, Any]) -> None:
        results.append(result)
        if options.kept:
            with options.kept.open("a") as file:
                file.write(json.dumps(result) + "\n")

    in_turn([row for row in rows if row not in known], options.at_once, report)
    return 1 if show(results) else 0


if __name__ == "__main__":
    sys.exit(main())
