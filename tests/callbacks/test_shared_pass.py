"""One forward and one backward for all views that are due, and each view gets what it would have got alone."""

from collections import Counter

import numpy as np
import pytest
import torch

from lightning_viz import ActivationMaps, FirstLayerFilters, GradCAM, LayerEmbeddings, Saliency
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.probe import Probe
from lightning_viz.callbacks.session import Session

from .conftest import ConvNet, fit, images, loader

HEAD, POPULATION, BATCH = 16, 150, 64


class Recorder(DrawingProcess):
    """Takes sketches and draws none of them."""

    sketches: list

    def __init__(self):
        super().__init__()

    def submit(self, owner, step, sketch):
        self.sketches.append((step, sketch.arguments))


class Counting(ConvNet):
    """Counts forwards and backwards, while views look."""

    calls: Counter
    looking = False

    def forward(self, x):
        if self.looking:
            self.calls.update(["forward"])
        return super().forward(x)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Fit with views: for each look, the step, and the forwards and backwards that it took; and all sketches."""

    def go(*views):
        Recorder.sketches, Counting.calls, looks = [], Counter(), []
        look, grad = Session.look, torch.autograd.grad

        def counted_look(self, due, *args, **kwargs):
            Counting.calls.clear()
            Counting.looking = True
            look(self, due, *args, **kwargs)
            Counting.looking = False
            if due:
                looks.append((self.run.step, len(due), Counting.calls["forward"], Counting.calls["backward"]))

        def counted_grad(*args, **kwargs):
            Counting.calls.update(["backward"])
            return grad(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr("lightning_viz.callbacks.picture_log.DrawingProcess", Recorder)
            patch.setattr(Session, "look", counted_look)
            patch.setattr(torch.autograd, "grad", counted_grad)
            patch.setattr(torch.Tensor, "backward", guarded(torch.Tensor.backward))
            fit(tmp_path, Counting(), list(views), loader(*images(24)), loader(*images(200)))
        return looks, Recorder.sketches

    def guarded(backward):
        def call(*args, **kwargs):
            if Counting.looking:
                Counting.calls.update(["backward"])
            return backward(*args, **kwargs)

        return call

    return go


def five():
    return [
        FirstLayerFilters(every_n_train_steps=2),
        ActivationMaps(every_n_train_steps=2),
        GradCAM(every_n_train_steps=2, layers=["conv1", "conv2"]),
        Saliency(every_n_train_steps=2),
        LayerEmbeddings(every_n_train_steps=2, samples=POPULATION, projector=False),
    ]


def test_five_views_due_at_once_cost_one_forward_beyond_the_population_and_one_backward(run):
    looks, sketches = run(*five())
    population = -(-(POPULATION - HEAD) // BATCH)  # batches
    assert population == 3
    assert looks == [(step, 5, 1 + population, 1) for step in (0, 2, 4, 6)]
    assert {arguments["tag"].split("/")[0] for _, arguments in sketches} == {
        "filters", "activations", "grad_cam", "saliency", "embedding",
    }  # fmt: skip


def test_without_a_population_one_forward_and_one_backward_and_without_gradients_no_backward(run):
    looks, _ = run(*five()[:4])
    assert {look[1:] for look in looks} == {(4, 1, 1)}
    looks, _ = run(*five()[:2])
    assert {look[1:] for look in looks} == {(2, 1, 0)}


def test_only_the_views_that_are_due_are_looked_for(run):
    looks, _ = run(GradCAM(every_n_train_steps=2), Saliency(every_n_train_steps=3), ActivationMaps(steps=[1]))
    assert looks == [(0, 3, 1, 1), (1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1), (4, 1, 1, 1), (6, 3, 1, 1)]


def test_another_target_or_another_probe_costs_a_pass_of_its_own(run):
    looks, _ = run(GradCAM(every_n_train_steps=3), Saliency(every_n_train_steps=3, target=1), *five()[:1])
    assert looks[0] == (0, 3, 2, 2)
    looks, _ = run(GradCAM(every_n_train_steps=3), Saliency(every_n_train_steps=3, probe=Probe(seed=4)))
    assert looks[0] == (0, 2, 2, 2)


def same(one, other):
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return one == other


def test_each_view_draws_from_what_it_would_have_seen_alone(run):
    _, together = run(*five())
    alone = [sketch for view in five() for sketch in run(view)[1]]
    key = lambda sketch: (sketch[0], sketch[1]["tag"])  # noqa: E731
    together, alone = sorted(together, key=key), sorted(alone, key=key)
    assert list(map(key, together)) == list(map(key, alone)) and len(together) > 20
    for (step, one), (_, other) in zip(together, alone, strict=True):
        for name in one:
            assert same(one[name], other[name]), (step, one["tag"], name)
    heats = [arguments["maps"] for _, arguments in together if arguments.get("display") == "heat"]
    assert heats and all(heat.max() > 0 for heat in heats)


def test_each_sample_of_a_population_is_seen_once_and_in_order(run):
    x, y = images(POPULATION)
    probe = Probe(inputs=x, labels=y, samples=HEAD)
    _, sketches = run(LayerEmbeddings(layers=["fc"], samples=POPULATION, probe=probe, projector=False))
    first = {arguments["layer"]: arguments for step, arguments in sketches if step == 0 and "layer" in arguments}
    expected = ConvNet()(x).detach().numpy()
    np.testing.assert_allclose(first["fc"]["vectors"], expected, atol=1e-6)
    np.testing.assert_array_equal(first["input"]["vectors"], x.flatten(1).numpy())
    assert first["fc"]["labels"].tolist() == y.tolist()
