"""The command line: ``lightning-viz``, or ``python -m lightning_viz``."""

import sys


def main() -> None:
    """Run a command."""
    from lightning_viz.analysis.commands.shell import run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
