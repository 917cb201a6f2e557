"""Planted ills show on the health page from the step after they were planted; healthy runs show nothing in red."""

import math
import re

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from lightning_viz import Health
from lightning_viz.analysis.models import find_checkpoints, in_order
from lightning_viz.callbacks.layer_health import LayerHealth, record
from lightning_viz.render.parts import Cell, Label, Text
from lightning_viz.render.text import RED
from tests.analysis.test_replay import replayed

from .conftest import Net, fit, images, loader

EPOCH = 8  # updates in an epoch of 32 images
PLANTED = 10  # completed updates: between the first look, after 8, and the second, after 16
LAYERS = ["conv", "fc", "head"]


class Small(Net):
    """A convolution and two fully connected layers."""

    def __init__(self, function=nn.ReLU):
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(1, 6, 3), nn.Linear(54, 12), nn.Linear(12, 3)
        self.function, self.pool, self.epoch_of_rest = function(), nn.MaxPool2d(2), -1

    def forward(self, x):
        x = self.pool(self.function(self.conv(x)))
        return self.head(self.function(self.fc(x.flatten(1))))


class Plant(pl.Callback):
    """Does something to a model after some updates."""

    def __init__(self, change):
        self.change = change

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == PLANTED:
            with torch.no_grad():
                self.change(module)


class Detached(Small):
    def forward(self, x):
        x = self.pool(self.function(self.conv(x)))
        return self.head(self.function(self.fc(x.flatten(1).detach())))


def by_layer(rates):
    def configure(self):
        groups = [{"params": getattr(self, name).parameters(), "lr": rate} for name, rate in rates.items()]
        return torch.optim.SGD(groups, lr=0.1)

    return configure


@pytest.fixture
def looks(monkeypatch):
    """What the view hands to its page function, step by step."""
    seen, original = {}, Health.draw

    def draw(self, snapshot):
        for task in original(self, snapshot):
            seen[snapshot.step] = task.arguments
            yield task

    monkeypatch.setattr(Health, "draw", draw)
    return seen


def train(tmp_path, model, callbacks=(), count=32, **options):
    return fit(tmp_path, model, [Health(), *callbacks], loader(*images(count)), **{"max_epochs": 3, **options})


def red(arguments, step=-1):
    """The layers and columns that are red at a step."""
    columns = ("units", "weights", "scale")
    return {
        (layer, columns[place])
        for row, layer in enumerate(arguments["layers"])
        for place in range(3)
        if arguments["faults"][step][row][place]
    }


def explode(model):
    model.conv.weight.mul_(1e6)
    for group in model.optimizers().param_groups:
        group["lr"] = 1e-12  # else gradients as large would kill units, too


ILLS = {
    "a dead layer": (
        lambda model: model.fc.bias.fill_(-100),
        nn.ReLU,
        {("fc", "units")},
        "fc: all units dead since step 16",
    ),
    "dead channels": (
        lambda model: model.conv.bias.fill_(-100),
        nn.ReLU,
        {("conv", "units")},
        "conv: all units dead since step 16",
    ),
    "a saturated layer": (
        lambda model: model.fc.weight.mul_(1e4),
        nn.Tanh,
        {("fc", "units")},
        "fc: (99 % of|all) activations saturated since step 16",
    ),
    "a saturated sigmoid": (
        lambda model: model.fc.bias.fill_(50),
        nn.Sigmoid,
        {("fc", "units")},
        "fc: all activations saturated since step 16",
    ),
    "an exploding layer": (
        explode,
        nn.ReLU,
        set(),
        "conv and 2 more: activations .* times as large as at step 8 since step 16",
    ),
    "NaN weights": (
        lambda model: model.head.weight[0, 0].fill_(math.nan),
        nn.ReLU,
        {("head", "weights"), ("fc", "weights"), ("conv", "weights")},
        "conv and 2 more: NaN or infinite weights since step 16",
    ),
    "infinite activations": (
        lambda model: model.fc.bias.fill_(math.inf).requires_grad_(False),
        nn.Tanh,
        {("fc", "scale")},
        "fc: NaN or infinite activations since step 16",
    ),
}


@pytest.mark.parametrize("ill", ILLS)
def test_an_ill_shows_from_the_look_after_it_was_planted(ill, tmp_path, drawn_at_once, looks):
    change, function, expected, words = ILLS[ill]
    train(tmp_path, Small(function), [Plant(change)])
    assert list(looks) == [8, 16, 24]
    assert not looks[8]["found"] and not red(looks[8])
    for step in (16, 24):
        assert red(looks[step]) == expected
        assert re.search(words, " · ".join(looks[step]["found"]))
        assert looks[step]["certain"] == bool(expected)
    assert not red(looks[24], step=0)  # the bar of the first look stays as it was


def test_weights_that_do_not_move_show_once_that_is_beyond_doubt(tmp_path, drawn_at_once, looks):
    train(tmp_path, Detached())
    assert not red(looks[8]) and not looks[8]["found"]  # nothing to compare with
    assert not red(looks[16]) and not looks[16]["found"]  # not ten updates yet
    assert red(looks[24]) == {("conv", "weights")}
    assert looks[24]["found"] == ["conv: weights do not move since step 8"] and looks[24]["certain"]


@pytest.mark.parametrize(
    ("model", "notes", "found"),
    [
        ("frozen", ["frozen", "", ""], []),
        ("rate 0", ["rate 0", "", ""], ["conv: learning rate 0 since step 8"]),
        ("all rates 0", ["rate 0"] * 3, []),
        ("no optimizer", ["no optimizer", "", ""], ["conv: in no optimizer since step 8"]),
    ],
)
def test_what_is_not_meant_to_move_is_named_and_not_red(model, notes, found, tmp_path, drawn_at_once, looks):
    net = Small()
    rates = {"conv": 0.0 if "0" in model else 0.1, "fc": 0.0 if "all" in model else 0.1, "head": 0.1}
    if model == "frozen":
        net.conv.requires_grad_(False)
    if model == "no optimizer":
        del rates["conv"]
    if model == "all rates 0":
        rates["head"] = 0.0
    net.configure_optimizers = by_layer(rates).__get__(net)
    train(tmp_path, net)
    for arguments in looks.values():
        assert arguments["notes_of_layers"] == notes and arguments["found"] == found and not red(arguments)


class WarmUp(Small):
    """The first fifteen updates have a learning rate of 0."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step >= 15))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Adversaries(Small):
    """Two optimizers, of which the second rests after the first epoch."""

    automatic_optimization = False

    def configure_optimizers(self):
        first = torch.optim.SGD([*self.conv.parameters(), *self.fc.parameters()], 0.1)
        return first, torch.optim.SGD(self.head.parameters(), 0.1)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        for optimizer in self.optimizers()[: 2 if self.current_epoch == 0 else 1]:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers()[: 2 if self.current_epoch == 0 else 1]:
            optimizer.step()


class Unused(Small):
    """A layer that nothing calls, and one that only validation calls."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(3, 3)

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (WarmUp, []),
        (Adversaries, []),
        (Unused, ["extra: not called in validation, weights do not move since step 8"]),
    ],
)
def test_what_may_be_meant_is_not_red(model, found, tmp_path, drawn_at_once, looks):
    train(tmp_path, model())
    assert not any(map(red, looks.values()))
    assert looks[24]["found"] == found
    if model is Unused:
        assert looks[24]["layers"] == [*LAYERS, "extra"] and looks[24]["called"] == [True] * 3 + [False]


@pytest.mark.parametrize("ill", [False, True])
def test_what_is_known_before_training_is_shown(ill, tmp_path, drawn_at_once, looks):
    model, (x, y) = Small(), images(80)
    if ill:
        nn.init.constant_(model.fc.bias, -100)
    outputs = {}
    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: outputs.update({name: output}))
        for name, module in ((name, getattr(model, name)) for name in LAYERS)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    data = loader(x, y)
    fit(tmp_path, model, [Health(probe=80)], data, data, max_epochs=2, num_sanity_val_steps=2)
    assert list(looks) == [0, 20, 40]
    first = looks[0]
    assert first["steps"] == [0] and "80 samples" in first["details"]
    scales = [float(outputs[name].square().mean().sqrt()) for name in LAYERS]
    assert first["scale"][0].tolist() == pytest.approx(scales, rel=1e-5)
    dead = [float((outputs[name].amax((0, 2, 3)[: outputs[name].dim() - 1]) <= 0).float().mean()) for name in LAYERS]
    assert first["dead"][0][:2].tolist() == pytest.approx(dead[:2])
    assert all(map(math.isnan, first["ratio"][0])) and not math.isnan(looks[20]["ratio"][1][0])
    assert red(first) == ({("fc", "units")} if ill else set())
    assert first["found"] == (["fc: all units dead since step 0"] if ill else [])
    if ill:
        assert red(looks[40]) >= {("fc", "units")} and "fc: all units dead since step 0" in looks[40]["found"]
    page = next(drawing for drawing in drawn_at_once if drawing.step == 0).sketch
    labels = [part.text for part in page.function(**page.arguments).parts(Label)]
    assert labels.count("–") == 4  # three ratios, and the output has no dead units


def test_few_samples_are_run_before_training_for_it_alone(tmp_path, drawn_at_once, looks):
    data = loader(*images(100))
    fit(tmp_path, Small(), [Health()], data, data, num_sanity_val_steps=2)
    assert "64 samples" in looks[0]["details"] and not looks[0]["notes"]
    assert "100 validation samples" in looks[25]["details"]


@pytest.mark.parametrize(("count", "found"), [(24, []), (32, ["fc: all units dead since step 8"])])
def test_few_samples_do_not_prove_that_a_unit_is_dead(count, found, tmp_path, drawn_at_once, looks):
    model = Small()
    nn.init.constant_(model.fc.bias, -100)
    train(tmp_path, model, count=count, max_epochs=1)
    (arguments,) = looks.values()
    assert arguments["dead"][0][1] == 1 and arguments["found"] == found


def digits():
    found = load_digits()
    pictures = torch.tensor(found.images[:240], dtype=torch.float32)[:, None] / 16
    return pictures, torch.tensor(found.target[:240])


def lenet(normalized=False, dropout=0.0):
    norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(16)] if normalized else [nn.Identity(), nn.Identity()]
    first = [nn.Conv2d(1, 8, 3), norms[0], nn.ReLU(), nn.Conv2d(8, 16, 3), norms[1], nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 10))


def perceptron(function):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), function(), nn.Linear(32, 32), function(), nn.Linear(32, 10))


class Digits(Net):
    def __init__(self, net, optimizer=torch.optim.AdamW, **options):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.optimizer = net(), lambda parameters: optimizer(parameters, **options)

    def forward(self, x):
        return self.net(x)

    def configure_optimizers(self):
        return self.optimizer(self.parameters())


HEALTHY = {
    "LeNet": lambda: Digits(lenet, lr=5e-3),
    "LeNet, SGD": lambda: Digits(lenet, torch.optim.SGD, lr=0.05, momentum=0.9),
    "LeNet, a high rate": lambda: Digits(lenet, lr=1e-2),
    "LeNet, BatchNorm": lambda: Digits(lambda: lenet(normalized=True), lr=3e-3),
    "LeNet, dropout, weight decay": lambda: Digits(lambda: lenet(dropout=0.5), lr=3e-3, weight_decay=0.1),
    "tanh": lambda: Digits(lambda: perceptron(nn.Tanh), lr=5e-3),
    "sigmoid": lambda: Digits(lambda: perceptron(nn.Sigmoid), lr=1e-2),
    "GELU": lambda: Digits(lambda: perceptron(nn.GELU), lr=5e-3),
}


@pytest.mark.parametrize("kind", HEALTHY)
def test_nothing_of_a_healthy_run_is_red(kind, tmp_path, drawn_at_once, looks):
    model = HEALTHY[kind]()
    pictures, labels = digits()
    fit(tmp_path, model, [Health()], loader(pictures, labels, batch_size=16), max_epochs=3)
    with torch.no_grad():
        assert (model(pictures).argmax(1) == labels).float().mean() > 0.3  # it learns
    assert list(looks) == [15, 30, 45]
    for arguments in looks.values():
        assert not red(arguments) and not arguments["certain"]
        known = ~torch.tensor(arguments["ratio"][-1]).isnan()
        assert known.all()  # of every layer, at every look
    shares = looks[45]["dead"][-1].tolist(), looks[45]["saturated"][-1].tolist()
    judged = {"tanh": (0, 2), "sigmoid": (0, 2), "GELU": (0, 0)}.get(kind, (3, 0))
    assert tuple(sum(not math.isnan(share) for share in each) for each in shares) == judged
    for drawing in drawn_at_once:
        page = drawing.sketch.function(**drawing.sketch.arguments)
        assert not any(cell.color == RED for cell in page.parts(Cell))
        assert not any(text.color == RED for text in page.parts(Text))


def test_the_ratio_is_that_of_the_update_before_the_look(tmp_path, drawn_at_once, looks):
    model, weights = Small(), {}

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            weights[trainer.global_step] = {name: module.get_submodule(name).weight.detach().clone() for name in LAYERS}

    options = {"val_check_interval": 3}
    fit(tmp_path, model, [Health(every_n_train_steps=1), Watch()], loader(*images(32)), max_epochs=1, **options)
    assert list(looks) == [3, 6]
    for step, arguments in looks.items():
        for row, name in enumerate(LAYERS):
            before, after = weights[step - 1][name], weights[step][name]
            assert math.isclose(arguments["ratio"][-1][row], (after - before).norm() / before.norm(), rel_tol=1e-5)


def test_a_resumed_run_is_drawn_as_one_that_was_not_interrupted(tmp_path, drawn_at_once):
    train(tmp_path / "whole", Detached(), max_epochs=4)
    whole = {one.step: one.drawn.pictures[0].image for one in drawn_at_once}
    drawn_at_once.clear()
    train(tmp_path / "first", Detached(), max_epochs=2).save_checkpoint(tmp_path / "half.ckpt")
    drawn_at_once.clear()
    train(tmp_path / "second", Detached(), max_epochs=4, ckpt_path=tmp_path / "half.ckpt")
    again = {one.step: one.drawn.pictures[0].image for one in drawn_at_once}
    assert list(again) == [24, 32] and again == {step: whole[step] for step in again}


def test_a_checkpoint_gives_the_page_that_was_drawn_live(tmp_path, drawn_at_once):
    saver = ModelCheckpoint(tmp_path / "checkpoints", save_top_k=-1, save_on_train_epoch_end=True)
    train(tmp_path, Detached(), [saver], enable_checkpointing=True)
    live = drawn_at_once.pictures("health")
    drawn_at_once.clear()
    for step, path in in_order(find_checkpoints([tmp_path])).items():
        assert replayed(path, loader(*images(32)), Detached)["health", step] == live[step]


class Delicate(Small):
    """What notices a pass or a look: dropout, running statistics, weights that are computed, torch's fast attention."""

    def __init__(self):
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm2d(6), nn.Dropout(0.3)
        self.fc = nn.utils.parametrizations.spectral_norm(self.fc)
        self.attention = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)

    def forward(self, x):
        x = self.dropout(self.pool(self.function(self.norm(self.conv(x)))))
        return self.head(self.attention(self.function(self.fc(x.flatten(1)))[:, None])[:, 0])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))


@pytest.mark.filterwarnings("ignore:.*nested tensor.*")
def test_training_is_the_same_with_and_without_it(tmp_path, drawn_at_once, looks):
    def outcome(views):
        options = {"val_check_interval": 3, "num_sanity_val_steps": 1}
        trainer = fit(tmp_path, model := Delicate(), views, loader(*images(32)), max_epochs=2, **options)
        return model.state_dict(), trainer.callback_metrics["val_loss"], torch.get_rng_state(), model

    (plain, loss, state, _), (watched, *others, model) = outcome([]), outcome([Health(every_n_train_steps=1)])
    assert list(looks) == [0, 3, 6, 11, 14]
    assert dict(zip(looks[3]["layers"], looks[3]["called"], strict=True))["attention.linear1"]  # as far as is known
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    assert torch.equal(loss, others[0]) and torch.equal(state, others[1])
    assert not any(module._forward_hooks for module in model.modules())


def test_what_is_beyond_doubt_is_so_since_then_and_not_since_it_began():
    state, said = {}, []
    for step, dead in ((0, 0.0), (38, 0.3), (76, 0.31), (114, 1.0), (152, 1.0), (190, 0.4)):
        found = record(state, {"fc": LayerHealth(dead=dead, scale=1.0)}, step, 100)["found"]
        said.append(found[0] if found else "")
    assert said == [
        "",
        "fc: 30 % of units dead since step 38",
        "fc: 31 % of units dead since step 38",
        "fc: all units dead since step 114",
        "fc: all units dead since step 114",
        "fc: 40 % of units dead since step 38",
    ]
