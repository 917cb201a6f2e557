"""``lightning-viz analyze``: every view and technique in one report; ``board``: the same in TensorBoard; and others."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import webbrowser
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lightning_viz.catalogue import techniques
from lightning_viz.cli.progress import ProgressBar, is_first_process, print_line, working
from lightning_viz.cli.source_options import (
    FLAG,
    OptionRow,
    add_options,
    add_source,
    command_parser,
    run_config_of,
    run_configs_of,
)
from lightning_viz.errors import AnalysisError


def analyze_parser() -> ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "analyze",
        "Analyze a trained model by every view and technique that suits it, in TensorBoard and one report. "
        "Several checkpoints of a run become a time series; a second run continues where the first one ended.",
        "lightning-viz analyze lightning_logs/version_0 --model net.Net\n"
        "  lightning-viz analyze last.ckpt --model net.Net --data digits.Digits\n"
        "  lightning-viz analyze --torchvision resnet50 --images photographs/\n"
        "  lightning-viz analyze --compare runs/plain runs/hardened",
    )
    add_source(parser, out="analysis")
    add_options(parser.add_argument_group("what is computed"), _COMPUTED)
    return parser


# fmt: off
_COMPUTED: tuple[OptionRow, ...] = (
    ("--compare", FLAG, False, "", "compare models side by side: each checkpoint, folder and --torchvision NAME,NAME "
     "is one; name them by --name NAME,NAME"),
    ("--views", (str, "*"), None, "KIND",
     "views to draw, e.g. grad_cam (default: all applicable; give no names for none)"),
    ("--techniques", (str, "*"), None, "NAME", "techniques to run on the last checkpoint, of "
     f"{', '.join(techniques())} (default: all applicable; give no names for none)"),
    ("--minutes", float, 4.0, "N", "time that it may take, roughly: how far each view and technique goes is planned "
     "from how fast the model is on this machine, and the report says what was shortened; inf: all of it"),
    ("--plan", str | None, None, "FILE", "repeat the plan of another analysis, the plan.json in its folder, on any "
     "machine"),
    ("--conflicts", str | None, None, "FOLDER",
     "cue-conflict images for the shape bias, named like cat4-elephant2.png"),
)
# fmt: on


def run_analyze(options: Namespace) -> None:
    """Analyze a model, or compare several, and print where the report is."""
    if options.conflicts is not None and not Path(options.conflicts).is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), options.conflicts)
    with working("analyze") as progress:
        report = _report(options, progress)
    if is_first_process():
        print_line(f"report: {report}\nTensorBoard: lightning-viz board {options.out}")


def _report(options: Namespace, progress: ProgressBar) -> Path:
    from lightning_viz.analysis.analyze import analyze_run
    from lightning_viz.analysis.compare import compare

    conflicts = None if options.conflicts is None else Path(options.conflicts)
    chosen = {"views": options.views, "techniques": options.techniques, "conflicts": conflicts}
    named = run_configs_of(options) if options.compare else [run_config_of(options)]
    configs = [replace(config, **chosen) for config in named]
    how = {name: options[name] for name in ("minutes", "plan", "overwrite")} | {"progress": progress}
    return compare(configs, out=options.out, **how) if options.compare else analyze_run(configs[0], options.out, **how)


def draw_parser() -> ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "draw",
        "Draw what a run observed and had no time to draw, as its last lines say, and add it to the run's events or "
        "folder of pictures.",
        "lightning-viz draw lightning_logs/version_0",
    )
    parser.add_argument("folder", type=str, help="folder of a run, or of several")
    parser.add_argument(
        "--trust", action="store_true", help="import and call what views of other packages draw with, by its name"
    )
    return parser


def run_draw(options: Namespace) -> None:
    """Draw what is kept, and print what became of it."""
    from lightning_viz.analysis.late_drawing import draw_undrawn

    if draw_undrawn(Path(options.folder), trusted=options.trust, report=print_line):
        raise SystemExit(1)


def digest_parser() -> ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "digest",
        "Print what Health and Mistakes found of a run as JSON, for programs: which layers died, blew up or do not "
        "move, and since which step; the samples with the largest loss; the pictures that show it. The fields are "
        "described by help(lightning_viz.analysis.digest).",
        "lightning-viz digest lightning_logs/version_0",
    )
    parser.add_argument("folder", type=str, help="folder of a run")
    return parser


def run_digest(options: Namespace) -> None:
    """Print the digest."""
    from lightning_viz.analysis.run_facts import digest

    print_line(json.dumps(digest(options.folder), indent=2, allow_nan=False))


def board_parser() -> ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "board",
        "Open TensorBoard on the pictures of a folder of runs, of an analysis or of another command's output. It shows "
        "every step of every picture, not only ten, and follows runs that are still being written.",
        "lightning-viz board lightning_logs",
    )
    parser.add_argument("folder", type=str, help="folder of runs, or of what another command wrote")
    parser.add_argument("--port", type=int, default=6006, metavar="N", help="port of the local server")
    parser.add_argument(
        "--host", type=str, default="localhost", metavar="NAME", help="0.0.0.0: from other machines too"
    )
    parser.add_argument("--no_browser", action="store_true", help="print the address only")
    return parser


def run_board(options: Namespace) -> None:
    """Run TensorBoard until it is ended, print where its pictures are, and open them where there is a display."""
    from tensorboard import program

    check_board(Path(options.folder))
    board = program.TensorBoard()
    board.configure([None, *board_options(Path(options.folder), options.host, options.port)])
    try:
        address = f"{board.launch()}#images"
    except program.TensorBoardServerException as error:  # the port is in use, or there is no such host
        raise AnalysisError(f"{error}: give another --port or --host") from error
    print_line(f"pictures: {address} (Ctrl-C ends it)")
    if not options.no_browser and has_display():
        webbrowser.open(address)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def has_display() -> bool:
    """Whether a browser could be seen."""
    return sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def check_board(folder: Path) -> None:
    """There must be something to be shown.

    Raises:
        AnalysisError: there is not.
    """
    if not folder.is_dir():
        raise AnalysisError(f"there is no folder {folder}: give that of a run, or of an analysis")
    if not any(folder.rglob("events.out.tfevents.*")):
        raise AnalysisError(
            f"the folder {folder} holds nothing for TensorBoard (events.out.tfevents.*): give that of a run, or of an "
            "analysis"
        )


def board_options(folder: Path, host: str, port: int) -> list[str]:
    """TensorBoard's options for a folder of runs, where it listens at a host and port."""
    options = [f"--logdir={folder}", f"--host={host}", f"--port={port}"]
    return [*options, "--samples_per_plugin=images=1000", "--reload_multifile=true"]
