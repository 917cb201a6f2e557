"""``lightning-viz analyze``: every view and technique that suits a model, into one report."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from lightning_viz.analysis.commands.shell import command_parser, working
from lightning_viz.analysis.commands.sourcing import add_source, case_of


def parser() -> ArgumentParser:
    """Its arguments."""
    found = command_parser(
        "analyze",
        "Understand a trained model: every view and technique that suits it, into TensorBoard and one report.\n"
        "Several checkpoints of a run become a time series; a second run goes on where the first ended.",
        "lightning-viz analyze lightning_logs/version_0",
    )
    add_source(found, out="analysis")
    found.add_argument(
        "--techniques", nargs="+", type=str, metavar="NAME", help="those that go deeper; all that suit the model"
    )
    return found


def run(options: Namespace) -> None:
    """Analyse a model.

    Args:
        options: parsed.
    """
    case = case_of(options)
    with working("analyze") as progress:
        print(case, progress)
