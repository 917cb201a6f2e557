"""The probe: a small fixed set of samples, picked the same way every time, fetched unnoticed."""

import os

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from lightning_viz import LayerEmbeddings, Probe, Saliency
from lightning_viz.callbacks.batch_parts import split_batch
from lightning_viz.callbacks.probe import find_class_names
from lightning_viz.callbacks.probe_loading import find_labels, pick_balanced
from lightning_viz.hooks.pytree import image_of

from .conftest import ConvNet, Net, Perceptron, fit, images, loader, make_trainer

# Which samples.


@pytest.mark.parametrize("count", [1, 4, 7, 10, 30])
def test_balanced_takes_the_classes_in_turn(count):
    labels = [0] * 20 + [1] * 6 + [2] * 1 + [3] * 3
    chosen = pick_balanced(labels, count, seed=5)
    assert len(set(chosen)) == len(chosen) == count
    taken = np.bincount([labels[index] for index in chosen], minlength=4)
    available = np.bincount(labels)
    # No class has two more than another that still has samples left.
    for one in range(4):
        for other in range(4):
            assert taken[one] <= taken[other] + 1 or taken[other] == available[other]


def test_the_seed_picks_the_samples():
    labels = [index % 3 for index in range(60)]
    assert pick_balanced(labels, 9, seed=0) == pick_balanced(labels, 9, seed=0)
    assert set(pick_balanced(labels, 9, seed=0)) != set(pick_balanced(labels, 9, seed=1))


def test_the_head_of_a_larger_probe_is_balanced_too():
    labels = [0] * 90 + [1] * 10
    assert sorted(labels[index] for index in pick_balanced(labels, 60, seed=0)[:8]) == [0] * 4 + [1] * 4


def test_the_first_samples_do_not_depend_on_how_many_follow():
    labels = [index % 4 for index in range(50)]
    assert pick_balanced(labels, 40, seed=2)[:12] == pick_balanced(labels, 12, seed=2)


def test_labels_are_found_where_data_sets_list_them():
    y = torch.tensor([2, 0, 1])

    class Listing(Dataset):
        def __len__(self):
            return 3

    for name in ("targets", "labels"):
        for form in (y, y.tolist(), y.numpy()):
            data = Listing()
            setattr(data, name, form)
            assert find_labels(data) == [2, 0, 1]
    assert find_labels(TensorDataset(torch.zeros(3, 2), y)) == [2, 0, 1]
    assert find_labels(Subset(TensorDataset(torch.zeros(3, 2), y), [2, 0])) == [1, 2]
    assert find_labels(TensorDataset(torch.zeros(3, 2))) is None
    assert find_labels(TensorDataset(torch.zeros(3, 2), torch.rand(3))) is None  # a regression
    assert find_labels(Listing()) is None


def test_class_names_are_found_through_wrappers():
    data = TensorDataset(torch.zeros(3, 2))
    data.classes = ["a", "b"]
    assert find_class_names(Subset(Subset(data, [0, 1]), [0])) == ("a", "b")
    assert find_class_names(TensorDataset(torch.zeros(3, 2))) == ()


# What of a batch is what.


class Takes(torch.nn.Module):
    def forward(self, image, mask=None):
        return image


class TakesTwo(torch.nn.Module):
    def forward(self, image, numbers):
        return image


X, N, Y = torch.rand(4, 1, 5, 5), torch.rand(4, 3), torch.tensor([1, 0, 2, 1])


@pytest.mark.parametrize(
    ("model", "batch", "inputs", "labels"),
    [
        (Takes(), X, X, None),
        (Takes(), [X, Y], X, Y),
        (Takes(), (X, N, Y), X, Y),
        (Takes(), [X], X, None),
        (Takes(), [X, N], X, None),
        (Takes(), [X, torch.zeros(4, 5, 5).long()], X, None),  # a segmentation's map is no label
        (TakesTwo(), [X, N, Y], (X, N), Y),
        (TakesTwo(), [[X, N], Y], (X, N), Y),
        (TakesTwo(), [{"image": X, "numbers": N}, Y], {"image": X, "numbers": N}, Y),
        (Takes(), {"image": X, "label": Y}, X, Y),
        (Takes(), {"index": torch.arange(4), "image": X, "label": Y}, X, Y),
        (Takes(), {"picture": X, "vector": N, "y": Y}, X, Y),
        (TakesTwo(), {"numbers": N, "image": X, "y": Y}, {"image": X, "numbers": N}, Y),
    ],
)
def test_inputs_and_labels_are_told_apart(model, batch, inputs, labels):
    found, classes, *_ = split_batch(batch, model)
    assert type(found) is type(inputs)
    if isinstance(inputs, dict):
        assert {name: id(x) for name, x in found.items()} == {name: id(x) for name, x in inputs.items()}
    elif isinstance(inputs, tuple):
        assert [id(x) for x in found] == [id(x) for x in inputs]
    else:
        assert found is inputs
    assert (classes is None) == (labels is None)
    assert labels is None or torch.equal(classes, labels)


@pytest.mark.parametrize("batch", [["a", "b"], {"name": ["a"]}, 3, []])
def test_a_batch_without_an_input_is_an_error_with_the_remedy(batch):
    with pytest.raises(TypeError, match=r"give probe=Probe\(inputs=..., labels=...\)"):
        split_batch(batch, Takes())


def test_the_image_among_the_inputs():
    assert image_of((N, X)) is X
    assert image_of({"n": N, "x": X}) is X
    assert image_of(N) is None


# As it is fetched.


class Noisy(Dataset):
    """Counts how often it is asked, and draws from generators of all kinds."""

    def __init__(self):
        self.x, self.y = images()
        self.asked, self.processes = 0, set()
        self.rng = np.random.default_rng(0)
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        self.asked += 1
        self.processes.add(os.getpid())
        noise = torch.rand(1, generator=self.generator) + torch.rand(1) + self.rng.random() + np.random.random()
        return self.x[index] + 0 * noise.float(), int(self.y[index])


def test_the_data_set_does_not_notice(tmp_path, drawn_at_once):
    seen = {}
    for views in ([], [Saliency(), LayerEmbeddings(samples=24)]):
        data = Noisy()
        pl.seed_everything(1)
        model = ConvNet()
        fit(tmp_path / str(len(views)), model, views, DataLoader(data, batch_size=4, shuffle=True), DataLoader(data))
        seen[bool(views)] = (
            data.asked,
            data.processes,
            data.rng.bit_generator.state["state"],
            data.generator.get_state().tolist(),
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
            model.conv1.weight.tolist(),
        )
    assert len(drawn_at_once) > 0
    assert seen[True] == seen[False]


def test_samples_are_the_same_in_another_run_and_process(tmp_path, drawn_at_once):
    found = []
    for run in range(2):
        torch.manual_seed(run)
        view = Saliency()
        fit(tmp_path / str(run), ConvNet(), [view], loader(*images(), shuffle=True), loader(*images()))
        found.append(view.indices)
    assert found[0] == found[1]
    other = Saliency(probe=Probe(seed=1))
    fit(tmp_path / "other", ConvNet(), [other], loader(*images()))
    assert other.indices != found[0]


def test_labels_that_are_not_listed_are_found_by_looking(tmp_path, drawn_at_once):
    """Rare classes come into the probe although the data set does not list its labels."""

    class Rare(Dataset):
        def __len__(self):
            return 200

        def __getitem__(self, index):
            return torch.full((1, 8, 8), index / 200), int(index in (50, 150)) + int(index == 99) * 2

    view = Saliency(probe=Probe(samples=6))
    fit(tmp_path, ConvNet(), [view], loader(*images()), DataLoader(Rare(), batch_size=50))
    assert {50, 150, 99} <= set(view.indices)
    truths = [one.truth for one in drawn_at_once.arguments("saliency/gradient")[0]["verdicts"]]
    assert sorted(truths) == ["0", "0", "0", "1", "1", "2"]


def test_batches_go_through_the_modules_own_hooks_as_in_validation(tmp_path, drawn_at_once):
    class Augmenting(ConvNet):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            x, y = batch
            return (torch.zeros_like(x) if self.trainer.training else x / 2), y

    x, y = images()
    views = [Saliency(samples=16)]
    fit(tmp_path, Augmenting(), views, loader(x, y))
    shown = torch.as_tensor(drawn_at_once.arguments("saliency/gradient")[0]["images"][..., 0]).float()
    torch.testing.assert_close(shown, x[list(views[0].indices), 0] / 2 * 255, atol=0.6, rtol=0)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_samples_are_in_the_precision_of_the_run(precision, tmp_path, drawn_at_once, caplog):
    fit(tmp_path, ConvNet(), [Saliency()], precision=precision)
    assert drawn_at_once.tags() == {"saliency/gradient": [0, 6]}
    assert not [record for record in caplog.records if record.name == "lightning_viz"]


def test_the_loaders_own_collate_is_used(tmp_path, drawn_at_once):
    x, y = images()

    def halved(rows):
        return torch.stack([x for x, _ in rows]) / 2, torch.stack([y for _, y in rows])

    views = [Saliency(samples=16)]
    fit(tmp_path, ConvNet(), views, loader(x, y, collate_fn=halved))
    shown = torch.as_tensor(drawn_at_once.arguments("saliency/gradient")[0]["images"][..., 0]).float()
    torch.testing.assert_close(shown, x[list(views[0].indices), 0] / 2 * 255, atol=0.6, rtol=0)


@pytest.mark.parametrize("source", ["val", "train"])
def test_the_source_is_the_one_asked_for(source, tmp_path, drawn_at_once):
    dark, light = images()[0] / 2, images()[0] / 2 + 0.5
    fit(
        tmp_path,
        ConvNet(),
        [Saliency(probe=Probe(source))],
        loader(dark, images()[1]),
        loader(light, images()[1]),
    )
    shown = drawn_at_once.arguments("saliency/gradient")[0]["images"]
    assert (shown.min() >= 127) == (source == "val")
    assert (shown.max() <= 128) == (source == "train")


@pytest.mark.parametrize("form", [tuple, dict])
def test_given_inputs_in_every_form(form, tmp_path, drawn_at_once):
    class Sum(Net):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(64, 3)

        def forward(self, a, b):
            return self.fc((a + b).flatten(1))

        def training_step(self, batch, batch_idx):
            return self(batch[0], batch[0]).square().mean()

        def validation_step(self, batch, batch_idx):
            pass

    x, y = images(5)
    inputs = (x, 1 - x) if form is tuple else {"a": x, "b": 1 - x}
    model = Sum()
    fit(tmp_path, model, [Saliency(probe=Probe(inputs=inputs, labels=y))])
    gradient = torch.as_tensor(drawn_at_once.arguments("saliency/gradient")[6]["maps"])
    expected = model.fc.weight.detach()[y].view(5, 1, 8, 8)
    torch.testing.assert_close(gradient, expected)


def test_given_inputs_are_copied(tmp_path, drawn_at_once):
    x, y = images(5)
    model, view = ConvNet(), Saliency(probe=Probe(inputs=x, labels=y))
    trainer = make_trainer(tmp_path, [view])

    class Vandal(pl.Callback):
        def on_train_batch_end(self, *_):
            x.zero_()

    trainer.callbacks.append(Vandal())
    trainer.fit(model, loader(*images()), loader(*images()))
    drawn = drawn_at_once.arguments("saliency/gradient")
    assert x.abs().sum() == 0
    assert np.array_equal(drawn[6]["images"], drawn[0]["images"])
    assert drawn[0]["images"].max() > 0


def test_views_of_one_probe_share_its_samples(tmp_path, drawn_at_once):
    views = [
        Saliency(samples=16),
        LayerEmbeddings(layers="fc", samples=24),
        Saliency(samples=16, method="smooth_grad", noise_samples=1),
    ]
    fit(tmp_path, ConvNet(), views)
    assert len({view.indices for view in views}) == 1
    drawn = drawn_at_once.arguments("saliency/gradient")[0]
    assert len(drawn["images"]) == 16  # the head; the population's other samples go forward only
    assert np.array_equal(drawn["images"], drawn_at_once.arguments("saliency/smooth_grad")[0]["images"])


def test_a_strip_of_values_where_the_input_is_no_image(tmp_path, drawn_at_once):
    x = torch.randn(12, 7, generator=torch.Generator().manual_seed(0))
    y = torch.arange(12) % 2
    views = [Saliency(samples=16, probe=Probe(samples=12))]
    model = Perceptron(inputs=7)
    fit(tmp_path, model, views, loader(x, y, batch_size=6))
    drawn = drawn_at_once.arguments("saliency/gradient")[2]
    assert drawn["maps"].shape == (12, 1, 1, 7)
    assert drawn["images"].shape == (12, 1, 7, 3)
    leaf = x[list(views[0].indices)].clone().requires_grad_()
    score = model(leaf).gather(1, y[list(views[0].indices), None]).sum()
    expected = torch.autograd.grad(score, leaf)[0]
    torch.testing.assert_close(torch.as_tensor(drawn["maps"][:, 0, 0]), expected)
