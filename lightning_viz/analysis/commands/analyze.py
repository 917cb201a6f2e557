"""``lightning-viz analyze``: every view and technique that suits a model, into one report."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from lightning_viz.analysis.commands.bars import first_process
from lightning_viz.analysis.commands.shell import command_parser, working
from lightning_viz.analysis.commands.sourcing import add_source, case_of


def parser() -> ArgumentParser:
    """Its arguments."""
    found = command_parser(
        "analyze",
        "Understand a trained model: every view and technique that suits it, into TensorBoard and\n"
        "one report. Several checkpoints of a run become a time series; a second run goes on where\n"
        "the first one ended.",
        "lightning-viz analyze lightning_logs/version_0\n"
        "  lightning-viz analyze last.ckpt --model net.Net --data digits.Digits --data.batch_size 64\n"
        "  lightning-viz analyze --torchvision resnet50 --images photographs/",
    )
    add_source(found, out="analysis")
    found.add_argument(
        "--techniques",
        nargs="+",
        type=str,
        metavar="NAME",
        help="those that go deeper, beside the views; all that suit the model if omitted",
    )
    return found


def run(options: Namespace) -> None:
    """Analyse a model, and say where the report is.

    Args:
        options: parsed.
    """
    from lightning_viz.analysis.analyzing import analyze

    with working("analyze") as progress:
        case = case_of(options)
        report = analyze(
            case.checkpoints,
            model=case.model,
            data=case.data,
            out=options.out,
            name=case.name,
            pixels=case.pixels,
            techniques=options.techniques,
            samples=case.samples,
            seed=case.seed,
            trusted=case.trusted,
            overwrite=options.overwrite,
            trainer=case.trainer,
            progress=progress,
        )
    if first_process():
        print(f"report: {report}\nTensorBoard: lightning-viz board {options.out}")
