"""The process beside training that draws: reads tasks, writes pictures. Imports no torch and no Lightning.

Started by `drawing` as ``python -m lightning_viz.callbacks.drawing_worker``; it ends when its input does.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
import warnings
from typing import Any, BinaryIO


def _main() -> None:
    """Draw tasks from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for training, which then collects the finished drawings
    if hasattr(os, "nice"):
        os.nice(19)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # printed text must not mix with the replies
    serve(sys.stdin.buffer, replies)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer each pickled ``(number, pickled task)`` with ``(number, drawn or error, CPU seconds, seconds)``.

    Args:
        requests: read until its end.
        replies: written to, in the order of the requests.
    """
    memories: dict[str, Any] = {}
    while True:
        try:
            number, payload = pickle.load(requests)
        except EOFError:
            return
        started, worked = time.monotonic(), time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = pickle.loads(payload).draw(memories)
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        del payload
        took = time.process_time() - worked, time.monotonic() - started
        try:
            pickle.dump((number, answer, *took), replies, protocol=pickle.HIGHEST_PROTOCOL)
            replies.flush()
        except BrokenPipeError:
            return


if __name__ == "__main__":
    _main()
