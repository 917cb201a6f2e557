"""The command line: ``lightning-viz``, or ``python -m lightning_viz``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_NEEDED = ("jsonargparse", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: its name, and what stands after it; those of the process if omitted.

    Returns:
        Exit status.
    """
    try:
        from lightning_viz.cli.main import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        print(f"lightning-viz: {error.name} is missing: pip install 'lightning-viz[cli]'", file=sys.stderr)
        return 1
    try:
        status = run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
