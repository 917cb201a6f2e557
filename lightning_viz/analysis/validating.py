"""One validation pass by Lightning's own Trainer, with the user's strategy and devices: all that looks hangs on it."""

from __future__ import annotations

import signal
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_viz.analysis.checkpoints import AnalysisError
from lightning_viz.analysis.naming import Named, made
from lightning_viz.analysis.networks import for_trainer, network_of
from lightning_viz.callbacks.lightning import Callback, package_of, quiet_logger
from lightning_viz.callbacks.probe import split_batch
from lightning_viz.hooks.observing import run

_BATCH = 64

Data = Any
"""A LightningDataModule, a DataLoader, a data set of samples and labels, a list of batches; or one of them named."""


def validate(net: nn.Module, data: Data, callbacks: Sequence[Callback], **options: Any) -> dict[str, float]:
    """Run the validation data through a network once.

    The module's own ``validation_step`` is run, so that its own figures are found; where it has none, its forward.

    Args:
        net: LightningModule, or any other.
        data: as it was trained with.
        callbacks: that look.
        **options: of the Trainer: accelerator, devices, strategy, precision.

    Returns:
        What the module itself logs.
    """
    module = for_trainer(net)
    pl = package_of(module)
    trainer = pl.Trainer(
        logger=quiet_logger(),
        callbacks=list(callbacks),
        inference_mode=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"devices": 1, **options},
    )
    with _set_up(data, pl) as given, _steppable(module), _interruptible():
        found: Sequence[Mapping[str, float]] = trainer.validate(module, verbose=False, **given)
    return {name: float(value) for part in found for name, value in part.items()}


def data_of(data: Data) -> Any:
    """Data that are named, made; others as they are.

    Args:
        data: see `Data`.

    Raises:
        AnalysisError: they cannot be made.
    """
    return made(data, object, "data") if isinstance(data, Named) else data


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
def _steppable(module: Any) -> Iterator[None]:
    """A validation step for a module that has none."""
    if type(module).validation_step is not package_of(module).LightningModule.validation_step:
        yield
        return

    def validation_step(self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        run(network_of(self), split_batch(batch, network_of(self))[0])

    module.validation_step = types.MethodType(validation_step, module)
    try:
        yield
    finally:
        del module.validation_step


@contextmanager
def _set_up(data: Data, pl: Any) -> Iterator[dict[str, Any]]:
    """The data as ``Trainer.validate`` takes them; a data module set up for training, as it was when views looked."""
    if not hasattr(data, "val_dataloader"):
        loader = DataLoader(data, batch_size=_BATCH) if isinstance(data, Dataset) else data
        yield {"dataloaders": loader}
        return
    if not isinstance(data, pl.LightningDataModule):
        raise AnalysisError(f"the data module is of another Lightning than the model: both of {pl.__name__}, please")
    data.prepare_data()
    data.setup("fit")
    data.setup = lambda stage: None  # once is enough: a split drawn again would be another
    data.prepare_data = lambda: None
    try:
        yield {"datamodule": data}
    finally:
        del data.setup, data.prepare_data
