"""The command line: ``lightning-viz``, or ``python -m lightning_viz``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lightning_viz.cli.main import run_command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, by its name and what follows it (the arguments of the process), and return the exit status."""
    try:
        status = run_command_line(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
