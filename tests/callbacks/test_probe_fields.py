"""Probes that name the fields of a batch, or call the model by a function of their own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from lightning_viz import ActivationMaps, GradCAM, Probe
from lightning_viz.callbacks.probe import as_probe
from lightning_viz.callbacks.view import View
from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.hooks.calls import Call
from tests.callbacks.conftest import ConvNet, images, make_trainer


class Look(View):
    """Keeps what it is given."""

    kind = "look"

    def draw(self, snapshot):
        self.snapshots = [*getattr(self, "snapshots", []), snapshot]
        return []


class Rows(torch.utils.data.Dataset):
    """Samples as dicts, one field within another."""

    def __init__(self, height=8):
        self.images, self.labels = images(count=12, height=height)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"weight": torch.tensor(1.0), "scan": {"image": self.images[index]}, "diagnosis": self.labels[index]}


class Nested(ConvNet):
    """Takes the whole batch apart in a way of its own."""

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["scan"]["image"]), batch["diagnosis"])

    def validation_step(self, batch, batch_idx):
        self(torch.zeros_like(batch["scan"]["image"]))


def run(tmp_path, model, *views):
    trainer = make_trainer(tmp_path, list(views), max_steps=1)
    trainer.fit(model, DataLoader(Rows(), 4), DataLoader(Rows(), 4))
    return views[0].snapshots


@pytest.mark.parametrize("fields", [("scan", "image"), [("scan", "image")]])
def test_names_of_fields_override_the_step(tmp_path, drawn_at_once, fields):
    probe = Probe(samples=4, inputs=fields, labels="diagnosis")
    snapshots = run(tmp_path, Nested(), Look(probe=probe))
    for snapshot in snapshots:
        assert snapshot.samples.inputs.shape == (4, 1, 8, 8) and float(snapshot.samples.inputs.std()) > 0
        assert sorted(snapshot.samples.labels.tolist()) == [0, 0, 1, 2]


def test_labels_alone_may_be_named(tmp_path, drawn_at_once):
    class Unlabeled(Nested):
        def validation_step(self, batch, batch_idx):
            self(batch["scan"]["image"])

    snapshots = run(tmp_path, Unlabeled(), Look(probe=Probe(samples=3, labels="diagnosis")))
    assert sorted(snapshots[-1].samples.labels.tolist()) == [0, 1, 2]


def test_a_function_of_the_user_s_calls_the_model(tmp_path, drawn_at_once):
    calls = []

    def forward(model, inputs):
        calls.append(tuple(inputs.shape))
        return model(inputs)

    probe = Probe(samples=4, inputs=("scan", "image"), labels="diagnosis", forward=forward)
    snapshots = run(tmp_path, Nested(), Look(probe=probe), GradCAM(probe=probe), ActivationMaps(probe=probe))
    assert isinstance(snapshots[0].samples.inputs, Call) and set(calls) == {(4, 1, 8, 8)}
    assert {"grad_cam/conv2", "activations/conv1"} <= set(drawn_at_once.tags())


@pytest.mark.parametrize("given", [7, "train", Probe(samples=3)])
def test_a_probe_may_be_a_number_of_samples_or_a_source(given):
    probe = GradCAM(probe=given).probe
    assert probe == (given if isinstance(given, Probe) else Probe(samples=7) if given == 7 else Probe(source="train"))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (0, InvalidArgumentError, "samples is 0: give 1 or more"),
        ("valid", InvalidArgumentError, "source is 'valid': give 'val' or 'train', or inputs"),
        (True, InvalidTypeError, "probe is a bool: give a Probe, a number of samples, 'val' or 'train'"),
        (nn.Identity(), InvalidTypeError, "probe is a Identity"),
    ],
)
def test_what_is_no_probe_is_refused_at_the_start(given, error, words):
    with pytest.raises(error, match=words):
        GradCAM(probe=given)
    assert as_probe(2).samples == 2


def test_a_field_that_the_batch_does_not_have_is_named(tmp_path, drawn_at_once):
    view = Look(probe=Probe(samples=4, inputs="picture", labels="diagnosis"))
    view.snapshots = []
    with pytest.warns(UserWarning, match=r"a batch of type dict has no batch\['picture'\]"):
        run(tmp_path, Nested(), view)
