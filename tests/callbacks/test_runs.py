"""Every kind of run that Lightning knows: pictures line up with the curves, go on after a resume, and end no run."""

import copy
import importlib
import os
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import lightning.pytorch
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.tuner import Tuner
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from lightning_viz import (
    ActivationMaps,
    FirstLayerFilters,
    GradCAM,
    LayerEmbeddings,
    Probe,
    Saliency,
    ViewWarning,
    default_views,
)
from lightning_viz.callbacks import Requirements
from lightning_viz.catalogue import board_tag, views

from .conftest import ConvNet, Perceptron, Watch, fit, images, loader, make_trainer, plane, said
from .test_writers import events, number_of


class Total(Watch):
    """Keeps, at each look, the sum of the first layer's weights."""

    def __post_init__(self):
        super().__post_init__()
        self.totals = {}

    def requirements(self, model):
        return Requirements(weights=("conv1.weight",))

    def draw(self, snapshot):
        self.totals[snapshot.step] = snapshot.observation.weights["conv1.weight"].sum().item()
        return super().draw(snapshot)


class Logging(ConvNet):
    """Logs the same sum, before each update."""

    def training_step(self, batch, batch_idx):
        self.log("total", self.conv1.weight.sum())
        return super().training_step(batch, batch_idx)


class TwoOptimizers(Logging):
    """Manual optimization: each half of the network has an optimizer of its own."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        halves = (self.conv1.parameters(), [*self.conv2.parameters(), *self.fc.parameters()])
        return [torch.optim.SGD(half, lr=0.05) for half in halves]

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()


@pytest.mark.parametrize(
    ("model", "options", "updates"),
    [
        (Logging, {}, 6),
        (Logging, {"accumulate_grad_batches": 2}, 3),
        (Logging, {"accumulate_grad_batches": 4}, 2),
        (TwoOptimizers, {}, 6),
    ],
)
def test_steps_line_up_with_the_users_curves(model, options, updates, tmp_path, drawn_at_once):
    view = Total(every_n_train_steps=1)
    fit(tmp_path, model(), [view], max_epochs=2, **options)
    logged = {step: number_of(value) for step, value in events(tmp_path)["total"].items()}
    assert list(view.totals) == list(range(2 * updates + 1))
    shared = sorted(logged.keys() & view.totals.keys())
    assert len(shared) >= 2 * updates - 1
    assert len({view.totals[step] for step in shared}) == len(shared)  # every update counts
    for step in shared:
        assert logged[step] == pytest.approx(view.totals[step], abs=1e-6), step


def test_two_optimizers_count_one_step_a_batch(tmp_path, drawn_at_once):
    trainer = fit(tmp_path, TwoOptimizers(), [Watch(every_n_train_steps=2)])
    assert trainer.global_step == 12
    assert drawn_at_once.tags() == {"watch/page": [0, 2, 4, 6]}


def test_fast_dev_run_runs_everything_and_keeps_nothing(tmp_path, drawn_at_once):
    before = set(tmp_path.rglob("*"))
    fit(tmp_path, ConvNet(), default_views(probe=Probe(samples=4)), fast_dev_run=True)
    assert {tag.split("/")[0] for tag in drawn_at_once.tags()} >= {"filters", "activations", "grad_cam", "saliency"}
    assert set(tmp_path.rglob("*")) == before


def test_nothing_is_looked_at_while_sanity_checking(tmp_path, drawn_at_once):
    looks = []

    class Sane(Watch):
        def draw(self, snapshot):
            looks.append((snapshot.step, model.trainer.sanity_checking))
            return super().draw(snapshot)

    model = ConvNet()
    fit(tmp_path, model, [Sane()], num_sanity_val_steps=2)
    assert looks == [(0, False), (6, False)]


def test_validation_within_an_epoch_changes_no_occasion(tmp_path, drawn_at_once):
    view = Total(every_n_train_steps=2)
    fit(tmp_path, ConvNet(), [view], val_check_interval=0.5, max_epochs=2)
    assert drawn_at_once.tags() == {"watch/page": [0, 2, 4, 6, 8, 10, 12]}


class Evaluated(ConvNet):
    test_step = ConvNet.validation_step

    def __init__(self):
        super().__init__()
        self.seen = torch.zeros(())  # which inference mode replaces by a tensor of its own

    def validation_step(self, batch, batch_idx):
        self.seen = self.seen + 1
        return super().validation_step(batch, batch_idx)


@pytest.mark.parametrize("method", ["validate", "test"])
def test_every_view_draws_at_the_end_of_an_evaluation(method, tmp_path, drawn_at_once, capfd):
    chosen = [
        entry.load()(probe=Probe(samples=4))
        for kind, entry in views().items()
        if kind not in ("hyperplanes", "predictions", "attention")
    ]
    trainer = make_trainer(tmp_path, chosen)
    getattr(trainer, method)(Evaluated(), loader(*images()), verbose=False)
    tags = drawn_at_once.tags()
    assert {tag.split("/")[0] for tag in tags} >= {"filters", "grad_cam", "top_samples", "embedding", "adversarial"}
    assert all(("/test" in tag) == (method == "test") for tag in tags)
    lines = capfd.readouterr().err
    assert lines.count(f"UpdateRatio: drawn in training only, nothing in Trainer.{method}") == 1
    assert "failed" not in lines


def test_an_evaluation_is_what_it_is_without_views(tmp_path, drawn_at_once):
    def outcome(chosen):
        torch.manual_seed(3)
        trainer, model = make_trainer(tmp_path, chosen), Evaluated()
        measured = trainer.validate(model, loader(*images()), verbose=False)
        return measured, model.seen.item(), model.state_dict(), torch.get_rng_state()

    (plain, seen, weights, state), watched = outcome([]), outcome([GradCAM(), Saliency()])
    assert drawn_at_once and (plain, seen) == watched[:2]
    assert all(torch.equal(weights[name], watched[2][name]) for name in weights) and torch.equal(state, watched[3])


def test_an_evaluation_has_no_training_data(tmp_path, drawn_at_once, capfd):
    trainer = make_trainer(tmp_path, [Saliency(probe=Probe("train", samples=4))])
    trainer.validate(Evaluated(), loader(*images()), verbose=False)
    assert "Saliency: of training data, which Trainer.validate does not have" in capfd.readouterr().err
    assert not drawn_at_once


def test_predict_draws_nothing(tmp_path, drawn_at_once):
    trainer = make_trainer(tmp_path, [Saliency(), GradCAM()])
    trainer.predict(ConvNet(), DataLoader(images()[0], batch_size=4))
    assert not drawn_at_once


def test_no_step_at_all_is_no_error(tmp_path, drawn_at_once):
    fit(tmp_path, ConvNet(), [Saliency()], max_steps=0, max_epochs=-1)
    assert not drawn_at_once


@pytest.mark.parametrize("package", [pl, lightning.pytorch])
def test_both_packages_run_the_same_views(package, tmp_path, drawn_at_once):
    class Net(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.conv1, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(self.conv1(x).relu().mean((2, 3)))

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            pass

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    logger = package.loggers.TensorBoardLogger(tmp_path, "run", version="")
    trainer = package.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=logger,
        callbacks=[GradCAM(), FirstLayerFilters()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    trainer.fit(Net(), loader(*images()), loader(*images()))
    found = events(tmp_path)
    assert list(found[board_tag("grad_cam/conv1")]) == list(found[board_tag("filters/conv1")]) == [0, 6]


CONFIG = """
seed_everything: 0
trainer:
  max_epochs: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  enable_checkpointing: false
  log_every_n_steps: 1
  logger:
    class_path: {package}.loggers.TensorBoardLogger
    init_args: {{save_dir: {folder}, name: run, version: ''}}
  callbacks:
    - class_path: lightning_viz.GradCAM
      init_args: {{layers: [conv1], probe: {{samples: 8}}}}
    - class_path: lightning_viz.Saliency
      init_args: {{steps: log, target: predicted, pixel_space: {{mean: [0.5], std: [0.25]}}}}
    - class_path: lightning_viz.ActivationMaps
      init_args: {{layers: conv2, channels: [2, 0], steps: [1, 4]}}
    - class_path: lightning_viz.FirstLayerFilters
      init_args: {{every_n_train_steps: 3}}
    - class_path: lightning_viz.LayerEmbeddings
      init_args: {{layers: [fc], samples: 24, input: false}}
"""


@pytest.mark.parametrize("package", [pl, lightning.pytorch])
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")  # of Lightning's CLI
def test_views_come_from_yaml(package, tmp_path, drawn_at_once, monkeypatch):
    class Net(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(self.conv2(self.conv1(x).relu()).relu().mean((2, 3)))

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            pass

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Data(package.LightningDataModule):
        def train_dataloader(self):
            return loader(*images())

        val_dataloader = train_dataloader

    cli = importlib.import_module(f"{package.__name__}.cli")
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(package=package.__name__, folder=tmp_path))
    monkeypatch.setattr(sys, "argv", ["train.py", "fit", "--config", str(config)])
    cli.LightningCLI(Net, Data, save_config_callback=None)
    found = events(tmp_path)
    wanted = {
        "grad_cam/conv1": [0, 6],
        "saliency/gradient": [0, 1, 2, 3, 6],
        "activations/conv2": [0, 1, 4, 6],
        "filters/conv1": [0, 3, 6],
        "embedding/every_layer": [0, 6],
    }
    assert {tag: list(found[board_tag(tag)]) for tag in wanted} == wanted
    assert len(drawn_at_once.arguments("grad_cam/conv1")[0]["images"]) == 8
    assert drawn_at_once.arguments("activations/conv2")[0]["channels"] == [2, 0]
    assert drawn_at_once.arguments("saliency/gradient")[0]["images"].min() >= 127  # pixels = input / 4 + 0.5


# The tuner.


class Tuned(ConvNet):
    def __init__(self):
        super().__init__()
        self.lr, self.batch_size = 0.05, 4

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def train_dataloader(self):
        return loader(*images(), batch_size=self.batch_size)

    val_dataloader = train_dataloader


@pytest.mark.filterwarnings("ignore:.*lr_find.*")
@pytest.mark.parametrize("what", ["lr_find", "scale_batch_size"])
def test_the_tuner_logs_no_picture_and_the_fit_after_it_does(what, tmp_path, drawn_at_once):
    views = [Watch(every_n_train_steps=2), Saliency()]
    trainer = make_trainer(tmp_path, views)
    model = Tuned()
    if what == "lr_find":
        Tuner(trainer).lr_find(model, num_training=5, update_attr=False)
    else:
        Tuner(trainer).scale_batch_size(model, max_trials=1, init_val=4, steps_per_trial=2)
        model.batch_size = 4
    assert not drawn_at_once
    assert all(view.last_step is None for view in views)
    trainer.fit(model)
    assert drawn_at_once.tags() == {"watch/page": [0, 2, 4, 6], "saliency/gradient": [0, 6]}
    found = events(tmp_path)
    assert list(found["watch/page"]) == [0, 2, 4, 6]


@pytest.mark.filterwarnings("ignore:.*lr_find.*")
@pytest.mark.parametrize("first", [True, False])
def test_a_tuner_among_the_callbacks_logs_no_picture_either(first, tmp_path, drawn_at_once):
    from pytorch_lightning.callbacks import LearningRateFinder

    finder, view = LearningRateFinder(num_training_steps=5, update_attr=False), Watch(every_n_train_steps=2)
    trainer = make_trainer(tmp_path, [finder, view] if first else [view, finder])
    trainer.fit(Tuned())
    assert drawn_at_once.tags() == {"watch/page": [0, 2, 4, 6]}


# Resuming.


def resumable():
    return [
        ActivationMaps(layers="conv1"),
        FirstLayerFilters(),
        GradCAM(),
        Saliency(),
        LayerEmbeddings(layers="fc", samples=24),
    ]


def deterministic(**options):
    return ModelCheckpoint(filename="{step}", save_top_k=-1, **options)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_run_draws_the_same_pictures(tmp_path, drawn_at_once):
    checkpoints = tmp_path / "checkpoints"
    keep = deterministic(dirpath=checkpoints, every_n_epochs=1, save_on_train_epoch_end=True)
    fit(tmp_path, ConvNet(), [*resumable(), keep], max_epochs=3, enable_checkpointing=True)
    whole = {tag: drawn_at_once.pictures(tag) for tag in drawn_at_once.tags()}
    state = torch.load(checkpoints / "step=6.ckpt", weights_only=True)
    assert len(state["lightning_viz"]) == 5
    drawn_at_once.clear()

    views = resumable()
    fit(tmp_path / "resumed", ConvNet(), views, ckpt_path=checkpoints / "step=6.ckpt", max_epochs=3)
    resumed = {tag: drawn_at_once.pictures(tag) for tag in drawn_at_once.tags()}
    assert resumed.keys() == whole.keys()
    for tag, pictures in resumed.items():
        steps = [18] if tag.endswith("animation") else [12, 18]
        assert sorted(pictures) == steps, tag
        if not tag.endswith("animation"):
            for step in steps:
                assert pictures[step].image == whole[tag][step].image, (tag, step)
                assert pictures[step].description == whole[tag][step].description
    kept = next(value for name, value in state["lightning_viz"].items() if name.startswith("ActivationMaps"))
    assert kept["last_step"] == 6
    assert views[0].indices == tuple(kept["indices"]["__tuple__"])


def test_what_a_checkpoint_keeps_is_what_a_resumed_view_has(tmp_path, drawn_at_once):
    """Also where the options that the state came from would now choose otherwise."""
    x, y = images()
    first = resumable()
    trainer = fit(tmp_path, ConvNet(), first, loader(x, y))
    path = tmp_path / "end.ckpt"
    trainer.save_checkpoint(path)
    looks = drawn_at_once.arguments("activations/conv1")
    drawn_at_once.clear()
    second = resumable()
    fit(tmp_path, ConvNet(), second, loader(x * 3, y), ckpt_path=path, max_epochs=2)  # three times as bright
    assert [view.indices for view in second] == [view.indices for view in first]
    now = drawn_at_once.arguments("activations/conv1")[12]
    assert now["channels"] == looks[0]["channels"]
    for (_, high), (_, later) in zip(looks[0]["limits"], now["limits"], strict=True):
        assert later / high in (1, 2, 4, 8)  # each channel's scale is the same, or doubled


NAN = float("nan")
WRONG_STATES = {
    "words": "state",
    "None": None,
    "a list": [1],
    "a number": 3,
    "a view of words": {"Saliency": "state"},
    "a view of a list": {"Saliency": []},
    "a step in words": {"Saliency": {"last_step": "abc"}},
    "a step that is no number": {"Saliency": {"last_step": NAN}},
    "a step below 0": {"Saliency": {"last_step": -1}},
    "places in words": {"Saliency": {"indices": "all"}},
    "places that are halves": {"Saliency": {"indices": [0.5]}},
    "a state in words": {"Saliency": {"state": "x"}},
    "memories in a list": {"Saliency": {"memories": [1]}},
    "frames of words": {"Saliency": {"frames": {"tag": ["page"]}}},
    "no mark of a tuple": {"Saliency": {"state": {"limits": {"__tuple__": 3}}}},
    "a sparse tensor": {"Saliency": {"state": {"a": torch.ones(2, 2).to_sparse()}}},
    "a tensor without values": {"Saliency": {"state": {"a": torch.ones(2, device="meta")}}},
    "a type that NumPy lacks": {"Saliency": {"state": {"a": torch.ones(2, dtype=torch.bfloat16)}}},
}


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize("wrong", WRONG_STATES.values(), ids=WRONG_STATES)
def test_a_state_of_a_wrong_form_is_said_and_costs_the_run_nothing(wrong, tmp_path, drawn_at_once):
    path = tmp_path / "end.ckpt"
    fit(tmp_path, ConvNet(), [Saliency(every_n_epochs=2)]).save_checkpoint(path)
    drawn_at_once.clear()
    torch.save({**torch.load(path, weights_only=True), "lightning_viz": wrong}, path)
    with pytest.warns(
        ViewWarning, match="Saliency begins as in a new run: the checkpoint's (tensor in )?lightning_viz"
    ):
        trainer = fit(tmp_path, ConvNet(), [Saliency(every_n_epochs=2)], ckpt_path=path, max_epochs=2)
    assert trainer.global_step == 12
    assert drawn_at_once.tags()["saliency/gradient"] == [6, 12]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize(
    "strange",
    [
        {},
        {"last_step": 3},
        {"indices": [10**9]},
        {"state": {"limits": "x"}},
        {"memories": {"saliency/gradient": "x"}},
        {"state": {"saliency/gradient": torch.zeros(2)}},
    ],
    ids=["nothing", "a step", "no such samples", "words for limits", "words for a memory", "an array"],
)
def test_a_state_of_strange_content_ends_no_run(strange, tmp_path, drawn_at_once):
    path = tmp_path / "end.ckpt"
    fit(tmp_path, ConvNet(), [Saliency()]).save_checkpoint(path)
    torch.save({**torch.load(path, weights_only=True), "lightning_viz": {"Saliency": strange}}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ViewWarning)
        assert fit(tmp_path, ConvNet(), [Saliency()], ckpt_path=path, max_epochs=2).global_step == 12


def test_embeddings_go_on_from_the_saved_points(tmp_path, drawn_at_once):
    view, data = LayerEmbeddings(layers="fc", input=False, samples=36), loader(*images(36), batch_size=6)
    trainer = fit(tmp_path, ConvNet(), [view], data)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    points = view.memories[f"{view.name} fc"]["points"]
    drawn_at_once.clear()
    again = LayerEmbeddings(layers="fc", input=False, samples=36)
    fit(tmp_path, ConvNet(), [again], data, ckpt_path=tmp_path / "end.ckpt", max_epochs=2)
    first = next(one for one in drawn_at_once if one.step == 12)
    assert (first.sketch.memory["points"] == points).all()
    moved = again.memories[f"{again.name} fc"]["points"]
    spread = points.std(0).sum()
    assert abs(moved - points).mean() < 0.5 * spread


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
def test_no_look_is_repeated_at_the_step_resumed_from(tmp_path, drawn_at_once):
    keep = deterministic(dirpath=tmp_path, every_n_train_steps=3)
    fit(tmp_path, ConvNet(), [Watch(every_n_train_steps=1), keep], enable_checkpointing=True)
    drawn_at_once.clear()
    fit(tmp_path, ConvNet(), [Watch(every_n_train_steps=1)], ckpt_path=tmp_path / "step=3.ckpt")
    # What was written at step 3 was saved before the look there: on_train_batch_end comes before on_train_batch_start.
    assert drawn_at_once.tags() == {"watch/page": [3, 4, 5, 6]}
    drawn_at_once.clear()
    trainer = fit(tmp_path, ConvNet(), [Watch(every_n_train_steps=1)])
    trainer.save_checkpoint(tmp_path / "looked.ckpt")
    drawn_at_once.clear()
    fit(tmp_path, ConvNet(), [Watch(every_n_train_steps=1)], ckpt_path=tmp_path / "looked.ckpt", max_epochs=2)
    assert drawn_at_once.tags() == {"watch/page": [7, 8, 9, 10, 11, 12]}


def test_a_checkpoint_without_views_resumes_with_them_and_the_other_way_round(tmp_path, drawn_at_once):
    trainer = fit(tmp_path, ConvNet(), [])
    trainer.save_checkpoint(tmp_path / "without.ckpt")
    trainer = fit(tmp_path, ConvNet(), [Watch()], ckpt_path=tmp_path / "without.ckpt", max_epochs=2)
    assert drawn_at_once.tags() == {"watch/page": [6, 12]}
    trainer.save_checkpoint(tmp_path / "with.ckpt")
    trainer = fit(tmp_path, ConvNet(), [], ckpt_path=tmp_path / "with.ckpt", max_epochs=3)
    assert trainer.global_step == 18


# Data.


class Stream(IterableDataset):
    """Samples that cannot be asked for by number."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __iter__(self):
        yield from zip(self.x, self.y, strict=True)


def watched_images(gallery, tag="saliency/gradient", step=0):
    return {tuple(image.flatten().tolist()) for image in gallery.arguments(tag)[step]["images"][..., 0]}


def as_bytes(x):
    return {tuple((image[0] * 255).round().int().flatten().tolist()) for image in x}


def test_iterable_validation_data_are_watched_as_they_pass(tmp_path, drawn_at_once, caplog):
    (x, y), (vx, vy) = images(), images(12)
    vx = 1 - vx
    stream, val = DataLoader(Stream(x, y), batch_size=4), DataLoader(Stream(vx, vy), batch_size=4)
    fit(tmp_path, ConvNet(), [Saliency(probe=Probe(samples=6))], stream, val, num_sanity_val_steps=2)
    assert drawn_at_once.tags() == {"saliency/gradient": [0, 6]}
    assert watched_images(drawn_at_once) <= as_bytes(vx)
    assert len(watched_images(drawn_at_once)) == 6
    assert watched_images(drawn_at_once, step=6) == watched_images(drawn_at_once)
    assert not [record for record in caplog.records if record.name == "lightning_viz"]


def test_where_no_validation_batch_has_passed_training_samples_are_shown_and_said(tmp_path, drawn_at_once):
    (x, y), (vx, vy) = images(), images(12)
    stream, val = DataLoader(Stream(x, y), batch_size=4), DataLoader(Stream(1 - vx, vy), batch_size=4)
    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, ConvNet(), [Saliency(probe=Probe(samples=4))], stream, val)
    assert len(said(caught)) == 1
    assert "the samples are training data" in said(caught)[0]
    assert watched_images(drawn_at_once) == as_bytes(x[:4])


@pytest.mark.parametrize("form", ["list", "dict", "batches"])
def test_validation_data_in_every_form(form, tmp_path, drawn_at_once):
    x, y = images(12)
    x = 1 - x
    one, other = loader(x, y), loader(*images(8))
    val = {"list": [one, other], "dict": {"a": one, "b": other}, "batches": [[x[:6], y[:6]], [x[6:], y[6:]]]}[form]

    class Several(ConvNet):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            pass

    fit(tmp_path, Several(), [Saliency(probe=Probe(samples=6))], loader(*images()), val)
    assert drawn_at_once.tags() == {"saliency/gradient": [0, 6]}
    assert len(watched_images(drawn_at_once)) == 6
    assert watched_images(drawn_at_once) <= as_bytes(x)


def test_validation_switched_off_is_no_validation_data(tmp_path, drawn_at_once):
    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, ConvNet(), [Saliency()], loader(*images()), loader(*images(12)), limit_val_batches=0)
    assert said(caught) == ["lightning_viz: no validation data: the samples are training data"]
    assert watched_images(drawn_at_once) <= as_bytes(images()[0])


def test_a_data_module_gives_its_data(tmp_path, drawn_at_once):
    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return loader(*images())

        def val_dataloader(self):
            return loader(1 - images()[0], images()[1])

    make_trainer(tmp_path, [Saliency()]).fit(ConvNet(), datamodule=Data())
    assert watched_images(drawn_at_once) <= as_bytes(1 - images()[0])


# One object in several runs.


def test_a_copy_of_a_view_is_a_view(tmp_path, drawn_at_once):
    view = ActivationMaps(layers="conv1", probe=Probe(samples=4))
    fit(tmp_path, ConvNet(), [view])
    pictures = drawn_at_once.pictures("activations/conv1")
    for twin in (copy.deepcopy(view), pickle.loads(pickle.dumps(view))):
        assert twin.name == view.name
        assert not [value for value in vars(twin).values() if isinstance(value, nn.Module)]
        drawn_at_once.clear()
        fit(tmp_path / twin.__class__.__name__, ConvNet(), [twin])
        again = drawn_at_once.pictures("activations/conv1")
        assert {step: one.image for step, one in again.items()} == {step: one.image for step, one in pictures.items()}


def test_a_second_fit_with_the_same_view_starts_afresh(tmp_path, drawn_at_once):
    view = LayerEmbeddings(layers="fc", input=False, samples=24)
    fit(tmp_path / "one", ConvNet(), [view])
    first = drawn_at_once.pictures("embedding/every_layer")
    drawn_at_once.clear()
    fit(tmp_path / "two", ConvNet(), [view])
    second = drawn_at_once.pictures("embedding/every_layer")
    assert {step: one.image for step, one in first.items()} == {step: one.image for step, one in second.items()}
    drawn_at_once.clear()
    fit(tmp_path / "three", ConvNet(channels=3), [view], loader(*images(10, channels=3)))
    assert sorted(drawn_at_once.pictures("embedding/every_layer")) == [0, 3]
    assert len(view.indices) == 10


def test_a_second_fit_of_the_same_trainer_goes_on(tmp_path, drawn_at_once):
    trainer, model, data = make_trainer(tmp_path, [Watch()]), ConvNet(), loader(*images())
    trainer.fit(model, data, data)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, data, data)
    assert drawn_at_once.tags() == {"watch/page": [0, 6, 12]}


def test_default_views_of_a_perceptron_draw_lines_at_logarithmic_steps(tmp_path, drawn_at_once, capsys):
    fit(tmp_path, Perceptron(), default_views(probe=Probe(samples=4)), loader(*plane()))
    tags = drawn_at_once.tags()
    assert tags["hyperplanes/hidden"] == [0, 1, 2, 3, 6, 10]
    assert tags["filters/hidden"] == [0, 10]
    assert tags["hyperplanes/hidden/animation"] == [10]
    drawn_at_once.clear()
    fit(tmp_path, Perceptron(), default_views(probe=Probe(samples=4), every_n_epochs=1), loader(*plane()))
    assert drawn_at_once.tags()["hyperplanes/hidden"] == [0, 10]


def test_all_default_views_cost_one_forward_and_one_backward_a_look(tmp_path, drawn_at_once):
    calls = []

    class Counting(ConvNet):
        def forward(self, x):
            if not self.training and not self.trainer.validating:
                calls.append((self.trainer.fit_loop.epoch_loop._batches_that_stepped, torch.is_grad_enabled(), len(x)))
            return super().forward(x)

    views = [ActivationMaps(), GradCAM(), Saliency(), FirstLayerFilters(), LayerEmbeddings(samples=24)]
    fit(tmp_path, Counting(), views)
    assert calls == [(0, True, 16), (0, False, 8), (6, True, 16), (6, False, 8)]


# Several processes.

SCRIPT = """
import sys, time
import torch
from torch.utils.data import DataLoader, TensorDataset
from tests.callbacks.conftest import ConvNet, images, make_trainer
from lightning_viz import default_views

class Said(ConvNet):
    def on_train_end(self):
        print(f"rank {{self.trainer.global_rank}} ends after {{self.trainer.global_step}}: "
              f"{{self.conv1.weight.sum().item():.6f}}", flush=True)

if __name__ == "__main__":
    torch.set_num_threads(1)
    data = DataLoader(TensorDataset(*images()), batch_size=4)
    trainer = make_trainer({folder!r}, default_views(every_n_train_steps=3), strategy="ddp", devices=2, max_epochs=2)
    trainer.fit(Said(), data, data)
    print(f"rank {{trainer.global_rank}} has", sum(view.last_step is not None for view in trainer.callbacks
          if hasattr(view, "last_step")), "views that looked", flush=True)
"""


@pytest.mark.slow
def test_of_several_processes_the_first_logs_and_none_hangs(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path)))
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ends = dict(re.findall(r"rank (\d) ends after 6: (\S+)", done.stdout))
    assert ends.keys() == {"0", "1"}
    assert ends["0"] == ends["1"]
    assert "rank 0 has 7 views that looked" in done.stdout
    assert "rank 1 has 0 views that looked" in done.stdout
    found = events(tmp_path)  # in which no tag is there twice at a step
    assert set(found[board_tag("grad_cam/conv2")]) == set(found[board_tag("saliency/gradient")]) == {0, 3, 6}
    assert "failed at step" not in done.stderr
