"""What was logged live is redrawn from a checkpoint, byte for byte; what was not is drawn by the same views.

Whatever the moment at which the checkpoint was saved: the views' state in it is from before or after their look.
"""

import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional as F

from lightning_viz import (
    ActivationMaps,
    ActivationStatistics,
    FirstLayerFilters,
    GradCAM,
    Hyperplanes,
    Occlusion,
    PixelSpace,
    Probe,
    Saliency,
)
from lightning_viz.analysis.checkpoint_run import Replay, validate, views_for
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.models import find_checkpoints, in_order, network, read_checkpoint
from lightning_viz.analysis.parts import run_technique
from lightning_viz.analysis.recipes import recorded_views, view_of
from lightning_viz.callbacks.probe import Samples
from lightning_viz.callbacks.serialization import is_private, recipe_of
from lightning_viz.catalogue import techniques
from lightning_viz.errors import AnalysisError, ViewError
from tests.callbacks.conftest import ConvNet, Perceptron, drawn_at_once, fit, images, loader, plane  # noqa: F401

SAVED = {
    "at the end of an epoch": ({}, {}, {}),
    "after an update": ({"every_n_train_steps": 4}, {"every_n_train_steps": 4}, {}),
    "after validation within an epoch": (
        {"every_n_train_steps": 3},
        {"save_on_train_epoch_end": False},
        {"val_check_interval": 3},
    ),
}


def views(**options):
    options["max_overhead"] = 1e9  # however slow the machine
    return [
        FirstLayerFilters(**options),
        ActivationMaps(**options),
        GradCAM(**options),
        GradCAM(target="top:2", **options),
        Saliency(**options),
        Saliency(method="smooth_grad", sanity_check=True, **options),
    ]


def replayed(path, data, model=ConvNet):
    """What the views of a checkpoint draw from it."""
    checkpoint = read_checkpoint(path)
    found = recorded_views(checkpoint.content)
    replay = Replay(found, checkpoint.step, probe=Probe(), samples=1)
    validate(network(model, checkpoint), data, [replay], accelerator="cpu")
    assert not replay.result.faults
    return {(shown.picture.tag, shown.step): shown.picture for shown in replay.result.pictures}


def test_token_ids_are_watched_in_the_first_batch_whose_step_tells_how_they_are_given():
    class Words(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.embedding, self.fc = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, **inputs):
            return self.fc(self.embedding(inputs["input_ids"]).mean(1))

        def validation_step(self, batch, batch_idx):
            F.cross_entropy(self(input_ids=batch["input_ids"]), batch["labels"])

    rows = [{"input_ids": torch.arange(5) + index % 4, "labels": index % 2} for index in range(8)]
    replay = Replay([ActivationStatistics(layers="fc")], 0, probe=Probe(), samples=1)
    validate(Words(), torch.utils.data.DataLoader(rows, 4), [replay], accelerator="cpu")
    assert not replay.result.faults and [shown.picture.tag for shown in replay.result.pictures] == ["statistics/fc"]


@pytest.mark.parametrize("saved", SAVED)
def test_live_and_replayed_pictures_are_the_same_bytes(saved, drawn_at_once, tmp_path):  # noqa: F811
    schedule, saving, options = SAVED[saved]
    saver = ModelCheckpoint(tmp_path / "checkpoints", save_top_k=-1, **saving)
    validation = loader(*images(40))
    options = {"max_epochs": 2, "enable_checkpointing": True, **options}
    fit(tmp_path, ConvNet(), [*views(**schedule), saver], val=validation, **options)
    live = {(one.tag, drawing.step): one for drawing in drawn_at_once for one in drawing.drawn.pictures}
    drawn_at_once.clear()
    series = in_order(find_checkpoints([tmp_path]))
    assert len(series) >= 2 and 0 < min(series) < max(series) <= 12
    for step, path in series.items():
        again = replayed(path, loader(*images(40)))
        tags = {tag for tag, _ in again}
        assert len(tags) == 7  # two layers' activation maps
        assert {(tag, step) for tag in tags} == again.keys()
        for key, picture in again.items():
            assert picture == live[key], key


def test_hyperplanes_are_redrawn_though_other_views_ask_for_more_samples(drawn_at_once, tmp_path):  # noqa: F811
    view = Hyperplanes(samples=20, probe=Probe(source="train"), every_n_train_steps=5)
    saver = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=5, save_top_k=-1)
    fit(tmp_path, Perceptron(), [view, saver], train=loader(*plane()), enable_checkpointing=True)
    live = drawn_at_once.pictures("hyperplanes/hidden")
    pictures = []
    for path in find_checkpoints([tmp_path]):
        checkpoint = read_checkpoint(path)
        every = views_for(checkpoint.content, {}, probe=None, pixel_space=None, kinds=["hyperplanes", "embedding"])
        replay = Replay(every, checkpoint.step, probe=every[0].probe, samples=1)
        validate(network(Perceptron, checkpoint), loader(*plane()), [replay], accelerator="cpu")
        pictures += replay.result.pictures
    found = {one.step: one.picture for one in pictures if one.picture.tag == "hyperplanes/hidden"}
    assert found == {step: live[step] for step in (5, 10)}


def test_a_probe_that_was_given_is_in_the_checkpoint(drawn_at_once, tmp_path):  # noqa: F811
    given, labels = images(5)
    probe = Probe(inputs=given * 2 - 1, labels=labels, samples=5)
    view = GradCAM(probe=probe, pixel_space=PixelSpace((0.5,), (0.5,)))
    saver = ModelCheckpoint(tmp_path / "checkpoints", save_top_k=-1)
    fit(tmp_path, ConvNet(), [view, saver], enable_checkpointing=True)
    live = drawn_at_once.pictures("grad_cam/conv2")[6]
    (path,) = in_order(find_checkpoints([tmp_path])).values()
    assert replayed(path, loader(*images(9)))["grad_cam/conv2", 6] == live


def test_a_private_run_is_analyzed_in_private(drawn_at_once, tmp_path):  # noqa: F811
    inputs, labels = images(4)
    saver = ModelCheckpoint(dirpath=tmp_path / "saved", save_top_k=-1)
    view = GradCAM(private=True, probe=Probe(inputs=inputs, labels=labels))
    fit(tmp_path, ConvNet(), [view, saver], enable_checkpointing=True)
    (path,) = find_checkpoints([tmp_path])
    content = read_checkpoint(path).content
    assert is_private(content)
    (again,) = recorded_views(content)
    assert again.private and again.probe.inputs is None
    every = views_for(content, {}, probe=None, pixel_space=None, kinds=None, private=True)
    assert len(every) > 5 and all(view.private for view in every)
    study = ModelUnderStudy("net", ConvNet(), Samples(inputs, labels, 4), PixelSpace(), private=True)
    (fault,) = run_technique(techniques()["attacks"], study).faults
    assert "keeps private" in fault.message
    ground = study.rgb(inputs)
    assert ground.shape == (4, *inputs.shape[2:], 3) and ground.min() == ground.max()


def test_views_are_made_again_as_they_were():
    pixel_space = PixelSpace((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    probe = Probe(source="train", samples=3, seed=7)
    for view in (
        GradCAM(target=[1, 2], layers=["conv1"], probe=probe),
        Occlusion(patch=2, pixel_space=pixel_space),
        *views(),
    ):
        again = view_of(recipe_of(view))
        assert type(again) is type(view) and again.name == view.name and again.pixel_space == view.pixel_space


def test_a_checkpoint_can_name_no_class_but_this_packages_views():
    for name in ("Probe", "observe", "os.system", "ViewError", "View", None):
        with pytest.raises(ViewError, match=r"which lightning_viz does not have|cannot be made again"):
            view_of({"view": name, "arguments": {"nonsense": 1}})


@pytest.mark.parametrize(
    ("view", "arguments"),
    [
        ("Saliency", {"method": "smooth_grad", "noise_samples": 10**9}),
        ("Saliency", {"method": "integrated_gradients", "integration_steps": 10**9}),
        ("Dreams", {"updates": 10**9}),
        ("Dreams", {"each": math.inf}),
        ("Adversarial", {"attack_steps": 10**9}),
        ("Hyperplanes", {"grid": 10**6}),
        ("LayerEmbeddings", {"samples": 10**9}),
        ("GradCAM", {"probe": {"source": "val", "samples": 10**9}}),
    ],
)
def test_a_checkpoint_cannot_ask_for_passes_or_memory_without_a_bound(view, arguments):
    with pytest.raises(ViewError, match="is the most that is taken from a checkpoint"):
        view_of({"view": view, "arguments": arguments})


def test_a_view_of_the_users_own_leaves_no_recipe():
    class Mine(GradCAM):
        pass

    assert recipe_of(Mine()) is None
    assert recipe_of(ActivationMaps(layers=[torch.nn.Conv2d])) is None  # a class is no plain value


def test_more_samples_than_the_run_had_begin_with_those_of_the_run(drawn_at_once, tmp_path):  # noqa: F811
    saver = ModelCheckpoint(tmp_path / "checkpoints")
    fit(tmp_path, ConvNet(), [GradCAM(), saver], val=loader(*images(40)), enable_checkpointing=True)
    (path,) = find_checkpoints([tmp_path])
    checkpoint = read_checkpoint(path)
    (view,) = recorded_views(checkpoint.content)
    replay = Replay([view], 6, probe=Probe(), samples=30)
    validate(network(ConvNet, checkpoint), loader(*images(40)), [replay], accelerator="cpu")
    assert len(replay.samples) == 30 and replay.samples.indices[:16] == view.indices[:16]
    assert len(set(replay.samples.indices)) == 30
    torch.testing.assert_close(replay.samples.inputs, images(40)[0][list(replay.samples.indices)])


def test_weights_are_drawn_of_a_model_whose_forward_cannot_take_its_data():
    class Generator(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(5, 16), nn.Unflatten(1, (1, 4, 4)), nn.ConvTranspose2d(1, 1, 2))

        def forward(self, codes):
            return self.net(codes)

        def training_step(self, batch, batch_idx):
            return self(torch.randn(len(batch[0]), 5)).mean()

    replay = Replay([FirstLayerFilters(), ActivationMaps(layers="net.2")], 0, probe=Probe(), samples=1)
    with pytest.raises(AnalysisError, match="cannot take a batch"):
        validate(Generator(), loader(*images(4)), [replay], accelerator="cpu")
    assert [shown.picture.tag for shown in replay.result.pictures] == ["filters/net.2"]
