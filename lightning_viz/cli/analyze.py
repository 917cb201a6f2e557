"""``lightning-viz analyze``: every view and technique that suits a model, into one report."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lightning_viz.cli.main import command_parser, working
from lightning_viz.cli.progress import ProgressBar, first_process
from lightning_viz.cli.source_options import add_source, run_config_of, run_configs_of


def parser() -> ArgumentParser:
    """Its arguments."""
    found = command_parser(
        "analyze",
        "Understand a trained model: every view and technique that suits it, into TensorBoard and one report. "
        "Several checkpoints of a run become a time series; a second run goes on where the first one ended.",
        "lightning-viz analyze lightning_logs/version_0 --model net.Net\n"
        "  lightning-viz analyze last.ckpt --model net.Net --data digits.Digits\n"
        "  lightning-viz analyze --torchvision resnet50 --images photographs/\n"
        "  lightning-viz analyze --compare runs/plain runs/hardened",
    )
    add_source(found, out="analysis")
    done = found.add_argument_group("what is done")
    done.add_argument(
        "--compare",
        action="store_true",
        help="the checkpoints, folders and --torchvision NAME,NAME are models of their own, side by side; their names: "
        "--name NAME,NAME",
    )
    done.add_argument(
        "--views",
        nargs="*",
        type=str,
        metavar="KIND",
        help="those that look, say grad_cam; all that suit the model if omitted, none if empty",
    )
    done.add_argument(
        "--techniques",
        nargs="*",
        type=str,
        metavar="NAME",
        help="those that go deeper, into the last checkpoint; likewise",
    )
    done.add_argument(
        "--conflicts",
        type=str | None,
        metavar="FOLDER",
        help="images with one class's shape and another's texture, for the shape bias",
    )
    return found


def run(options: Namespace) -> None:
    """Analyze a model, or compare several, and say where the report is.

    Args:
        options: parsed.
    """
    if options.conflicts is not None and not Path(options.conflicts).is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), options.conflicts)
    with working("analyze") as progress:
        report = _report(options, progress)
    if first_process():
        print(f"report: {report}\nTensorBoard: lightning-viz board {options.out}")


def _report(options: Namespace, progress: ProgressBar) -> Path:
    from lightning_viz.analysis.analyze import analyze_run
    from lightning_viz.analysis.compare import compare

    conflicts = None if options.conflicts is None else Path(options.conflicts)
    chosen = {"views": options.views, "techniques": options.techniques, "conflicts": conflicts}
    found = run_configs_of(options) if options.compare else [run_config_of(options)]
    cases = [replace(case, **chosen) for case in found]
    if options.compare:
        return compare(cases, out=options.out, overwrite=options.overwrite, progress=progress)
    return analyze_run(cases[0], options.out, overwrite=options.overwrite, progress=progress)
