"""The data of an analysis are taken as Lightning takes them, whatever they come in, and are left as they were."""

import pytest
import pytorch_lightning as pl
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz.analysis.checkpoint_run import validate
from lightning_viz.analysis.validation_metrics import ValidationMetrics
from tests.callbacks.conftest import images


def seen(data):
    """How many samples are judged."""
    metrics = ValidationMetrics()
    validate(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), data, [metrics], accelerator="cpu")
    return metrics.values["samples"]


def test_a_list_of_batches_is_one_loader_not_one_each():
    inputs, labels = images(20)
    assert seen([(inputs[:8], labels[:8]), (inputs[8:], labels[8:])]) == 20


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_the_validation_data_of_from_datasets_are_taken_and_stay():
    few, many = TensorDataset(*images(4)), TensorDataset(*images(20))
    data = pl.LightningDataModule.from_datasets(train_dataset=few, val_dataset=many)
    assert seen(data) == 20
    assert data.val_dataloader().dataset is many


@pytest.mark.parametrize("nothing", [None, []])
def test_training_data_where_the_validation_loader_gives_nothing(nothing, capsys):
    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(TensorDataset(*images(12)), batch_size=4)

        def val_dataloader(self):
            return nothing

    data = Data()
    assert seen(data) == 12
    assert "Data has no validation data: the samples are training data" in capsys.readouterr().err
    assert not {"setup", "val_dataloader"} & set(vars(data))
