"""Lightning, under whichever of its two names it is installed.

``pytorch_lightning`` and ``lightning.pytorch`` hold unrelated classes of the same names; a callback that descends from
both runs in both.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

Trainer = Any
LightningModule = Any

_installed = [
    importlib.import_module(name)
    for name, package in (("pytorch_lightning", "pytorch_lightning"), ("lightning.pytorch", "lightning"))
    if importlib.util.find_spec(package) is not None
]

if TYPE_CHECKING:

    class Callback:
        """What Lightning calls during a run."""

else:
    Callback = type(
        "Callback",
        tuple(package.Callback for package in _installed),
        {"__doc__": "What Lightning calls during a run.", "__module__": __name__},
    )


@contextmanager
def muted(trainer: Trainer) -> Iterator[None]:
    """What a model hands to its loggers by itself, past ``log``, is dropped: the user's curves stay as they are."""
    loggers = trainer.loggers
    trainer.loggers = [_installed[0].loggers.logger.DummyLogger() for _ in loggers]
    try:
        yield
    finally:
        trainer.loggers = loggers
