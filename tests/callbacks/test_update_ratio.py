"""The update ratio is that of the one update before a look; its copy lives for that update alone."""

from unittest import mock

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback
from torch.overrides import TorchFunctionMode

from lightning_viz import Health, UpdateRatio, ViewError
from lightning_viz.callbacks.probe import Samples
from lightning_viz.callbacks.snapshot import Snapshot
from lightning_viz.callbacks.weight_copy import WeightCopy
from lightning_viz.hooks import Observation
from lightning_viz.render.parts import Cell, ColorBar
from lightning_viz.render.weights import update_ratios

from .conftest import ConvNet, fit, images, loader

LAYERS = ["conv1", "conv2", "fc"]


class Weights(Callback):
    """Every step's weights, and how many bytes a view holds of them between steps."""

    def __init__(self, view=None):
        self.weights, self.view, self.held = [], view, []

    def note(self, module):
        self.weights.append({name: module.get_submodule(name).weight.detach().clone() for name in LAYERS})

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if len(self.weights) == trainer.global_step:
            self.note(module)
        copied = self.view._copy.weights
        self.held.append(sum(weight.nbytes for weight in copied.values()))

    def on_train_end(self, trainer, module):
        self.note(module)

    def ratio(self, step, name):
        before, after = self.weights[step - 1][name], self.weights[step][name]
        return float((after - before).norm() / before.norm())


def pages(monkeypatch):
    """What the view hands to its page function, step by step."""
    seen = {}
    original = UpdateRatio.draw

    def draw(self, snapshot):
        for task in original(self, snapshot):
            seen[snapshot.step] = task
            yield task

    monkeypatch.setattr(UpdateRatio, "draw", draw)
    return seen


@pytest.mark.parametrize(
    ("options", "trainer", "steps"),
    [
        ({"every_n_train_steps": 2}, {}, [2, 4, 6, 8, 10, 12]),
        ({"steps": [1, 5]}, {}, [1, 5, 12]),
        ({}, {}, [6, 12]),
        ({"every_n_train_steps": 2}, {"accumulate_grad_batches": 2}, [2, 4, 6]),
        ({"steps": [3]}, {"max_steps": 5}, [3, 5]),
    ],
    ids=["steps", "listed", "epochs", "accumulated", "stopped"],
)
def test_it_is_the_norm_of_the_last_update_by_that_of_the_weights(tmp_path, monkeypatch, options, trainer, steps):
    seen, view = pages(monkeypatch), UpdateRatio(**options)
    watch = Weights(view)
    fit(tmp_path, ConvNet(), [view, watch], loader(*images(24)), max_epochs=2, **trainer)
    assert list(seen) == steps
    for step, task in seen.items():
        assert task.arguments["steps"] == [earlier for earlier in steps if earlier <= step]
        for place, name in enumerate(LAYERS):
            expected = watch.ratio(step, name)
            assert np.isclose(task.arguments["ratios"][-1][place], expected, rtol=1e-5)
            assert np.isclose(task.scalars[f"update_ratio/{name}"], expected, rtol=1e-5)
    assert view._copy.step is None


def test_the_copy_lives_for_one_update_and_is_bounded(tmp_path, monkeypatch):
    seen, view = pages(monkeypatch), UpdateRatio(steps=[4], max_bytes=400)
    watch = Weights(view)
    fit(tmp_path, ConvNet(), [view, watch], loader(*images(24)), max_epochs=1)
    sizes = {name: watch.weights[0][name].nbytes for name in LAYERS}
    kept = sizes["conv1"] + sizes["fc"]  # conv2 alone is larger than what is left
    assert sizes["conv2"] > 400 >= kept
    assert watch.held == [0, 0, 0, kept, 0, kept]  # before the fourth update, and the last
    assert seen[4].arguments["layers"] == ["conv1", "fc"]
    assert seen[4].arguments["notes"] == ("1 layers beyond max_bytes=400 left out",)


def test_views_that_measure_updates_share_one_copy(tmp_path, drawn_at_once):
    views = [Health(every_n_train_steps=2), UpdateRatio(every_n_train_steps=2), UpdateRatio(steps=[4], max_bytes=400)]
    copies, held = [], []

    class Counts(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.Tensor.clone and tuple(args[0].shape) in shapes:
                copies.append(tuple(args[0].shape))
            return func(*args, **(kwargs or {}))

    class Holds(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            held.append(
                [tuple(copy.shape) for copy in {id(x): x for v in views for x in v._copy.weights.values()}.values()]
            )

    model = ConvNet()
    weights = [model.get_submodule(name).weight for name in LAYERS]
    shapes = [tuple(weight.shape) for weight in weights]
    copy = WeightCopy.take

    def take(self, *args):
        with Counts():
            copy(self, *args)

    with mock.patch.object(WeightCopy, "take", take):
        fit(tmp_path, model, [*views, Holds()], loader(*images(24)), max_epochs=1, val_check_interval=2)
    assert copies == shapes * 3  # before the updates to steps 2, 4 and 6, by whichever view asks first
    assert [sorted(one) for one in held] == [[], sorted(shapes)] * 3
    assert not any(view._copy.weights for view in views)


def test_a_frozen_or_shared_weight_has_no_update_of_its_own(tmp_path, monkeypatch):
    class Tied(ConvNet):
        def __init__(self):
            super().__init__()
            self.again = self.fc
            self.conv1.weight.requires_grad_(False)

    seen = pages(monkeypatch)
    fit(tmp_path, Tied(), [UpdateRatio(steps=[2])], loader(*images(24)), max_epochs=1)
    assert seen[2].arguments["layers"] == ["conv2", "fc"]


def test_a_checkpoint_alone_does_not_suffice_which_is_said():
    inputs = torch.rand(2, 1, 8, 8)
    snapshot = Snapshot(Observation(inputs), Samples(inputs, None, head=2), step=3)
    with pytest.raises(ViewError, match="which a checkpoint does not hold"):
        UpdateRatio().compute(ConvNet(), snapshot)


def test_the_page_shows_powers_of_ten_around_the_usual():
    ratios = [[1e-3, 1e-1, 1e-2], [1e-5, np.nan, 1.01e-4]]
    page = update_ratios("update_ratio", ["a", "b", "c"], [1, 10], ratios, step=10)
    cells = list(page.parts(Cell))
    assert [cell.lines[0] for cell in cells] == ["−3.0", "−5.0", "−1.0", "–", "−2.0", "−4.0"]
    usual, small, large, _, most, least = (np.array(cell.color, dtype=float) for cell in cells)
    assert (usual == most).all() and (usual == least).all() and np.ptp(usual) == 0  # gray, or they pass for too high
    assert large[0] > large[2] + 40 and small[2] > small[0] + 40  # red above, blue below
    (bar,) = page.parts(ColorBar)
    assert (bar.low, bar.middle, bar.high) == ("−6", "usual", "0") and "usual: −4 to −2" in bar.label
