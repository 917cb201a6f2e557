"""One validation pass by Lightning's own Trainer, with the user's strategy and devices: all that looks hangs on it."""

from __future__ import annotations

import logging
import signal
import threading
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lightning_viz.analysis.data import Data, loaded
from lightning_viz.analysis.models import for_trainer, network_of
from lightning_viz.callbacks.lightning import Callback, package_of, quiet_logger
from lightning_viz.callbacks.probe import split_batch
from lightning_viz.errors import AnalysisError, warn_safely
from lightning_viz.hooks.observe import call_model
from lightning_viz.hooks.pytree import all_tensors

_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
_WHEN = ("start", "end", "epoch_start", "epoch_end", "batch_start", "batch_end")
_AROUND = [*(f"on_validation_{when}" for when in _WHEN), "teardown"]


def validate(net: nn.Module, data: Data, callbacks: Sequence[Callback], **options: Any) -> dict[str, float]:
    """Run the validation data through a network once.

    The module's own ``validation_step`` is run, so that its own figures are found; where it has none, or cannot do
    outside of training, its forward.

    Args:
        net: LightningModule, or any other.
        data: as it was trained with.
        callbacks: that look. Where the module's own step fails they begin once more.
        **options: of the Trainer: accelerator, devices, strategy, precision.

    Returns:
        What the module itself logs.
    """
    module = for_trainer(net)
    pl = package_of(module)
    steps = type(module).validation_step is not pl.LightningModule.validation_step
    with loaded(data, pl) as given, _interruptible(), _quiet():
        trainer = _trainer(pl, callbacks, options)
        found: Sequence[Mapping[str, float]] = []
        try:
            if steps:
                found = trainer.validate(module, verbose=False, **given)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            warn_safely(f"the validation pass of {type(net).__name__} failed ({why}): its forward alone is run")
            trainer, steps = _trainer(pl, callbacks, options), False
        if not steps:
            with _forward_alone(module, pl):
                trainer.validate(module, verbose=False, **given)
    net.to(trainer.strategy.root_device)  # from which Lightning took it away; there it goes on
    return {name: float(value) for part in found for name, value in part.items()}


def _trainer(pl: Any, callbacks: Sequence[Callback], options: Mapping[str, Any]) -> Any:
    return pl.Trainer(
        logger=quiet_logger(),
        callbacks=list(callbacks),
        inference_mode=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"devices": 1, **options},
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """What Lightning says to those who train (devices, tips, too few workers) is not for those who look."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=rf"({'|'.join(_LOGGERS)})(\.|$)")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lightning ends the process at Ctrl-C; here what is finished is still to be written."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextmanager
def _forward_alone(module: Any, pl: Any) -> Iterator[None]:
    """A validation step that runs the network's forward, and nothing of the module's own around it."""

    def validation_step(self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        inputs, _ = split_batch(batch, network_of(self))
        try:
            call_model(network_of(self), inputs)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            shapes = ", ".join(str(list(x.shape)) for x in all_tensors(inputs))
            raise AnalysisError(
                f"the model cannot take a batch of {shapes}: {str(error).splitlines()[0]}; give the data that it was "
                "trained with (of a folder's images: --size, --gray)"
            ) from error

    steps = {"validation_step": validation_step, **{name: getattr(pl.LightningModule, name) for name in _AROUND}}
    for name, step in steps.items():
        setattr(module, name, types.MethodType(step, module))
    try:
        yield
    finally:
        for name in steps:
            delattr(module, name)
