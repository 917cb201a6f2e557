"""The validation pass runs the module's own step where it can, and the forward alone where it cannot."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_viz.analysis.checkpoint_run import Replay, validate
from lightning_viz.analysis.validation_metrics import ValidationMetrics
from lightning_viz.callbacks.first_layer_filters import FirstLayerFilters
from lightning_viz.callbacks.probe import Probe
from lightning_viz.errors import AnalysisError, ViewWarning
from tests.callbacks.conftest import ConvNet, images, loader


def run(model, data=None):
    """What the module logs, and our metrics."""
    metrics = ValidationMetrics()
    own = validate(model, data or loader(*images(20), batch_size=8), [metrics], accelerator="cpu")
    return own, metrics.values


class AsksItsLogger(ConvNet):
    """Its step asks for more than there is after training, and its other hooks count on its step."""

    def on_validation_epoch_start(self):
        self.seen = []

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        if batch_idx == 1:
            raise AttributeError("no logger to send images to")
        self.seen.append(batch_idx)

    def on_validation_epoch_end(self):
        assert len(self.seen) == 3


def test_a_modules_own_figures_are_found():
    own, values = run(ConvNet())
    assert own["val_loss"] == pytest.approx(values["cross_entropy"], rel=1e-5)


def test_a_step_that_fails_is_said_and_the_forward_alone_is_run():
    model = AsksItsLogger()
    with pytest.warns(ViewWarning) as caught:
        own, values = run(model)
    assert [str(one.message) for one in caught] == [
        "lightning_viz: the validation pass of AsksItsLogger failed (AttributeError: no logger to send images to): "
        "its forward alone is run"
    ]
    assert (own, values) == ({}, run(ConvNet())[1])
    assert not {"validation_step", "on_validation_epoch_end"} & set(vars(model))
    assert not model._forward_hooks


def test_a_module_without_a_step_is_run_once(recwarn):
    passes = []
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    net.register_forward_hook(lambda *args: passes.append(1))
    assert run(net)[0] == {}
    assert len(passes) == 3 and not recwarn.list


class Broken(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise OSError("the file is gone")


def test_data_that_cannot_be_read_are_an_error(recwarn):
    with pytest.raises(OSError, match="the file is gone"):
        run(ConvNet(), DataLoader(Broken(), batch_size=2))


def test_the_network_evaluates_and_is_left_alone():
    model = ConvNet()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.register_forward_hook(lambda module, *args: modes.append((module.training, torch.is_grad_enabled())))
    modes = []
    run(model)
    assert set(modes) == {(False, False)}
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_a_pass_that_fails_when_all_have_looked_leaves_each_picture_once():
    class Fails(ConvNet):
        def on_validation_end(self):
            raise AttributeError("no logger to send images to")

    def drawn(model):
        replay = Replay([FirstLayerFilters()], 0, probe=Probe(), samples=4)
        validate(model, loader(*images(20)), [replay], accelerator="cpu")
        return [shown.picture.image for shown in replay.result.pictures]

    with pytest.warns(ViewWarning, match="no logger"):
        torch.manual_seed(0)
        failed = drawn(Fails())
    torch.manual_seed(0)
    assert failed and failed == drawn(ConvNet())


def test_data_of_another_shape_are_refused_with_their_shape(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(AnalysisError, match=r"cannot take a batch of \[4, 1, 8, 8\]: .*; give the data .*--gray"):
        validate(net, loader(*images(8)), [], accelerator="cpu")
