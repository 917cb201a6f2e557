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


def package_of(module: Any = None) -> Any:
    """The package of a LightningModule or LightningDataModule: ``pytorch_lightning`` or ``lightning.pytorch``.

    Args:
        module: of a class of one of them; anything else may go with either.
    """
    ours = (one for one in _installed if isinstance(module, (one.LightningModule, one.LightningDataModule)))
    return next(ours, _installed[0])


def data_modules() -> tuple[type, ...]:
    """The classes LightningDataModule, of each package that is installed."""
    return tuple(package.LightningDataModule for package in _installed)


def quiet_logger() -> Any:
    """A logger that takes whatever a module hands to it, and keeps nothing."""
    return _installed[0].loggers.logger.DummyLogger()


@contextmanager
def muted(trainer: Trainer) -> Iterator[None]:
    """What a model hands to its loggers by itself, past ``log``, is dropped: the user's curves stay as they are."""
    loggers = trainer.loggers
    trainer.loggers = [quiet_logger() for _ in loggers]
    try:
        yield
    finally:
        trainer.loggers = loggers
