"""``lightning-viz board``: TensorBoard with the right options for our runs."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lightning_viz.cli.source_options import command_parser


def board_parser() -> ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "board",
        "Open TensorBoard on a folder of runs. It shows every step of every picture, not only ten, and follows runs "
        "that are still being written.",
        "lightning-viz board analysis",
    )
    parser.add_argument("folder", type=str, help="folder of runs, or of an analysis")
    parser.add_argument("--port", type=int, default=6006, metavar="N", help="port of the local server")
    parser.add_argument(
        "--host", type=str, default="localhost", metavar="NAME", help="0.0.0.0: from other machines too"
    )
    return parser


def run_board(options: Namespace) -> None:
    """Run TensorBoard until it is ended.

    Args:
        options: parsed.
    """
    command = board_command(Path(options.folder), options.host, options.port)
    with suppress(KeyboardInterrupt):
        status = subprocess.call(command)
        if status:
            raise SystemExit(status)


def board_command(folder: Path, host: str, port: int) -> list[str]:
    """How TensorBoard is started.

    Args:
        folder: of runs.
        host: at which it listens.
        port: likewise.

    Raises:
        AnalysisError: there is nothing to be shown.
    """
    from lightning_viz.errors import AnalysisError

    if not folder.is_dir():
        raise AnalysisError(f"there is no folder {folder}: give that of a run, or of an analysis")
    if not any(folder.rglob("events.out.tfevents.*")):
        raise AnalysisError(
            f"the folder {folder} holds nothing for TensorBoard (events.out.tfevents.*): give that of a run, or of an "
            "analysis"
        )
    options = [f"--logdir={folder}", f"--host={host}", f"--port={port}"]
    ours = ["--samples_per_plugin=images=1000", "--reload_multifile=true"]
    return [sys.executable, "-m", "tensorboard.main", *options, *ours]
