"""The data of an analysis, as Lightning's Trainer takes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, Dataset

from lightning_viz.analysis.checkpoints import AnalysisError
from lightning_viz.analysis.naming import Named, made
from lightning_viz.callbacks.lightning import Trainer, package_of
from lightning_viz.callbacks.messages import inform

Data = Any
"""A LightningDataModule, a DataLoader, a data set of samples and labels, a list of batches; or one of them named."""

_BATCH = 64


class _Batches(list[Any]):
    """A list of batches: a plain one Lightning takes for one of loaders."""


def data_of(data: Data) -> Any:
    """Data that are named, made; others as they are.

    Args:
        data: see `Data`.

    Raises:
        AnalysisError: they cannot be made.
    """
    return made(data, object, "data") if isinstance(data, Named) else data


@contextmanager
def loaded(data: Data, pl: Any) -> Iterator[dict[str, Any]]:
    """What ``Trainer.validate`` takes the data from.

    A data module is set up as for training, as it was when views looked live. One without validation data (no
    ``val_dataloader``, or one that gives nothing) gives its training data instead, as views do.

    Args:
        data: not named any more.
        pl: the package of the model.

    Raises:
        AnalysisError: the data module is of the other package.
    """
    if not hasattr(data, "val_dataloader"):
        loader = DataLoader(data, batch_size=_BATCH) if isinstance(data, Dataset) else data
        batches = isinstance(loader, (list, tuple)) and not any(isinstance(one, DataLoader) for one in loader)
        yield {"dataloaders": _Batches(loader) if batches else loader}
        return
    if not isinstance(data, pl.LightningDataModule):
        raise AnalysisError(f"the data module is of another Lightning than the model: take both from {pl.__name__}")
    set_up, validation = data.setup, data.val_dataloader
    none = getattr(validation, "__func__", None) is pl.LightningDataModule.val_dataloader

    def val_dataloader() -> Any:
        found = None if none else validation()
        if found is None or (isinstance(found, (list, tuple, dict)) and not found):
            inform(f"{type(data).__name__} has no validation data: the samples are training data")
            return data.train_dataloader()
        return found

    before = dict(vars(data))
    data.setup, data.val_dataloader = lambda stage=None: set_up("fit"), val_dataloader
    try:
        yield {"datamodule": data}
    finally:
        for name in ("setup", "val_dataloader"):
            delattr(data, name)
            if name in before:  # of ``LightningDataModule.from_datasets``
                setattr(data, name, before[name])


def bring_training_data(trainer: Trainer, pl_module: Any) -> None:
    """Let a Trainer that validates know the training data too, for views that look at them.

    Args:
        trainer: in validation; it then has a `train_dataloader`, the validation data where there are no others.
        pl_module: its module.
    """
    pl = package_of(pl_module)
    owners = ((trainer.datamodule, pl.LightningDataModule), (pl_module, pl.LightningModule))
    given = (
        owner.train_dataloader()
        for owner, base in owners
        if owner is not None and type(owner).train_dataloader is not base.train_dataloader
    )
    loader = next(given, trainer.val_dataloaders)
    trainer.fit_loop._combined_loader = pl.utilities.combined_loader.CombinedLoader(loader)
