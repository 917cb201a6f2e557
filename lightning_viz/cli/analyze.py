"""``lightning-viz analyze``: every view and technique that suits a model, in one report."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lightning_viz.catalogue import techniques
from lightning_viz.cli.progress import ProgressBar, is_first_process, print_line, working
from lightning_viz.cli.source_options import add_source, command_parser, run_config_of, run_configs_of


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
    group = parser.add_argument_group("what is computed")
    group.add_argument(
        "--compare",
        action="store_true",
        help="compare models side by side: each checkpoint, folder and --torchvision NAME,NAME is one; "
        "name them by --name NAME,NAME",
    )
    group.add_argument(
        "--views",
        nargs="*",
        type=str,
        metavar="KIND",
        help="views to draw, e.g. grad_cam (default: all applicable; give no names for none)",
    )
    group.add_argument(
        "--techniques",
        nargs="*",
        type=str,
        metavar="NAME",
        help=f"techniques to run on the last checkpoint, of {', '.join(techniques())} (default: all applicable; "
        "give no names for none)",
    )
    group.add_argument(
        "--conflicts",
        type=str | None,
        metavar="FOLDER",
        help="cue-conflict images for the shape bias, named like cat4-elephant2.png",
    )
    return parser


def run_analyze(options: Namespace) -> None:
    """Analyze a model, or compare several, and print where the report is.

    Args:
        options: parsed.
    """
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
    if options.compare:
        return compare(configs, out=options.out, overwrite=options.overwrite, progress=progress)
    return analyze_run(configs[0], options.out, overwrite=options.overwrite, progress=progress)
