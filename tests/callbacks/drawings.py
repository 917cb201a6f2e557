"""Drawings for tests, importable in the drawing process: no torch here."""

import os
import signal
import threading
import time

import numpy as np

from lightning_viz.callbacks.draw_task import DrawResult
from lightning_viz.render.page import compose
from lightning_viz.render.parts import Tile


def draw(tag, step, seconds=0.0):
    """A page of one color, after a while."""
    time.sleep(seconds)
    return compose(tag, f"A page of {tag}", Tile((20, 10), np.full((1, 1, 3), 255, dtype=np.uint8)), step=step)


def draw_and_die(tag, step, deadly=()):
    """A page; killed at some steps, as by a system that is out of memory."""
    if step in deadly or not deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(tag, step)


def draw_or_fail(tag, step, failing=()):
    if step in failing or not failing:
        raise RuntimeError("no pencil")
    return draw(tag, step)


def draw_and_print(tag, step):
    os.write(1, b"a library talks to the standard output\n")
    print("and Python too")
    return draw(tag, step)


def draw_unpicklable(tag, step):
    return DrawResult((draw(tag, step),), memory=lambda: None)


def count(tag, step, memory=None):
    """What was counted before, and one."""
    seen = (memory or 0) + 1
    return DrawResult((draw(tag, step),), {f"{tag}/count": float(seen)}, memory=seen)


def draw_large(tag, step, values):
    return DrawResult((draw(tag, step),), {f"{tag}/sum": float(np.sum(values))})


def priority(tag, step):
    """A page, and the priority with which it is drawn: that of the thread, which on Linux each has for itself."""
    time.sleep(0.05)
    return DrawResult((draw(tag, step),), {"priority": os.getpriority(os.PRIO_PROCESS, threading.get_native_id())})
