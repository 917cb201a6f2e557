"""The values on the validation data equal independent computations, whatever a model returns, in whatever order."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz.analysis.checkpoint_run import validate
from lightning_viz.analysis.metrics import Task, metric_for
from lightning_viz.analysis.validation_metrics import ValidationMetrics
from lightning_viz.pixels import PixelSpace
from tests.callbacks.conftest import ConvNet, Net, images, loader


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Identity(Net):
    """Returns its inputs."""

    def forward(self, x):
        return x.clone()

    def validation_step(self, batch, batch_idx):
        self(batch[0])


class Squashed(Identity):
    """Returns probabilities."""

    def forward(self, x):
        return x.softmax(1) if x.dim() == 2 and x.shape[1] > 1 else x.sigmoid()


def measure(data, model=None, batch_size=7, **options):
    data = data if isinstance(data, DataLoader) else DataLoader(data, batch_size=batch_size)
    metrics = ValidationMetrics()
    validate(model or Identity(), data, [metrics], accelerator="cpu", **options)
    assert json.loads(json.dumps(metrics.values, allow_nan=False)) == metrics.values
    return metrics.values


def six_digits(value):
    """To which values are rounded."""
    return pytest.approx(float(value), rel=1e-5)


def calibration_error(probabilities, labels, bins=15):
    """Guo et al. (2017), equation 3."""
    confidences, correct, error = probabilities.max(1), probabilities.argmax(1) == labels, 0.0
    for number in range(bins):
        inside = (confidences * bins).astype(int) == number
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidences[inside].mean())
    return error


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 8, 60])
def test_a_classifiers_values_equal_independent_computations(classes, probabilities):
    scores, labels = (
        3 * drawn(90, classes),
        torch.randint(0, classes, (90,), generator=torch.Generator().manual_seed(1)),
    )
    scores[:50].scatter_add_(1, labels[:50, None], torch.full((50, 1), 4.0))
    values = measure(TensorDataset(scores, labels), Squashed() if probabilities else None)
    predicted = scores.argmax(1)
    assert values["samples"] == 90
    assert values["accuracy"] == six_digits((predicted == labels).float().mean())
    assert values["cross_entropy"] == six_digits(F.cross_entropy(scores, labels))
    calibration = calibration_error(scores.double().softmax(1).numpy(), labels.numpy())
    assert values["calibration_error"] == six_digits(calibration)
    first = scores.argsort(1, descending=True)[:, :5]
    assert values.get("top5_accuracy") == (
        six_digits((first == labels[:, None]).any(1).float().mean()) if classes > 5 else None
    )
    for name, share in values["recall"].items():
        of_class = predicted[labels == int(name)] == int(name)
        assert share == (six_digits(of_class.float().mean()) if len(of_class) else None)
    assert ("confusion" in values) == (classes <= 40)
    for true, row in values.get("confusion", {}).items():
        for other, count in row.items():
            assert count == int(((labels == int(true)) & (predicted == int(other))).sum())


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("shape", [(60,), (60, 1)])
def test_one_score_decides_between_two_classes(shape, probabilities):
    logits, labels = drawn(*shape), torch.arange(60) % 2
    values = measure(TensorDataset(logits, labels), Squashed() if probabilities else None)
    assert values["accuracy"] == six_digits(((logits.flatten() > 0) == labels).float().mean())
    entropy = F.binary_cross_entropy_with_logits(logits.flatten(), labels.float())
    assert values["cross_entropy"] == six_digits(entropy)
    assert set(values["recall"]) == {"0", "1"}


def test_one_score_beside_labels_beyond_two_classes_is_a_regression_without_values():
    assert measure(TensorDataset(drawn(30, 1), torch.arange(30))) == {}


@pytest.mark.parametrize("unknown", [-1, 255])
def test_labels_that_are_no_classes_do_not_count(unknown):
    scores, labels = drawn(30, 4), torch.arange(30) % 4
    expected = measure(TensorDataset(scores[10:], labels[10:]))
    labels[:10] = unknown
    assert measure(TensorDataset(scores, labels)) == expected


def test_outputs_that_are_not_finite_are_left_out_with_a_note():
    scores, labels = drawn(30, 4), torch.arange(30) % 4
    expected = measure(TensorDataset(scores[2:], labels[2:]))
    scores[0, 1], scores[1, 2] = torch.nan, torch.inf
    note = "2 samples with NaN or infinite outputs are left out"
    assert measure(TensorDataset(scores, labels)) == {**expected, "note": note}


def test_a_certain_and_wrong_prediction_has_no_finite_cross_entropy():
    logits = torch.tensor([[200.0, 0.0], [200.0, 0.0]])  # more than a probability in float32 can be apart from 1
    values = measure(TensorDataset(logits, torch.tensor([0, 1])), Squashed())
    assert (values["accuracy"], values["cross_entropy"], values["calibration_error"]) == (0.5, None, 0.5)


BATCHES = {
    "classes": (3 * drawn(90, 8), torch.arange(90) % 8),
    "single scores": (drawn(90), torch.arange(90) % 2),
    "masks": (drawn(90, 3, 4, 4), torch.arange(90 * 16).reshape(90, 4, 4) % 3),
    "images": (drawn(90, 3, 4, 4), drawn(90, 3, 4, 4, seed=1)),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_and_order_make_no_difference(kind):
    data = TensorDataset(*BATCHES[kind])
    whole = measure(data, batch_size=90)
    assert whole["samples"] == 90 and len(whole) > 1
    assert measure(data, batch_size=1) == measure(data, batch_size=7) == whole
    for seed in range(3):
        order = torch.randperm(90, generator=torch.Generator().manual_seed(seed))
        assert measure(TensorDataset(*data[order]), batch_size=11) == whole


TASKS = {
    "classes": Task("classification", 8),
    "single scores": Task("classification", 1),
    "masks": Task("segmentation", 3),
    "images": Task("images"),
}


@pytest.mark.parametrize("kind", ["classes", "images"])
def test_sums_of_many_samples_do_not_depend_on_their_order(kind):
    """On these data float32 sums differ in the sixth digit."""
    outputs, target = {
        "classes": (6 * drawn(20_000, 8), torch.arange(20_000) % 8),
        "images": (2 * drawn(20_000, 1, 2, 2), 2 * drawn(20_000, 1, 2, 2, seed=1)),
    }[kind]
    orders = [torch.randperm(20_000, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    values = []
    for order in orders:
        metric = metric_for(TASKS[kind], PixelSpace())
        for part in order.split(50):
            metric.update(outputs[part], target[part])
        values.append(metric.compute())
    assert all(value == values[0] for value in values)


def synchronize(rank, store, expected):
    """One of two processes; the second sees three batches in one round and none in the other."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for kind, (outputs, target) in BATCHES.items():
        for shares in ((slice(0, 60), slice(60, 90)), (slice(0, 90), slice(0, 0))):
            metric = metric_for(TASKS[kind], PixelSpace())
            for part in zip(outputs[shares[rank]].split(10), target[shares[rank]].split(10), strict=True):
                if len(part[0]):
                    metric.update(*part)
            assert metric.compute() == expected[kind], (kind, rank, shares)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_values_of_one_even_if_one_has_no_batch(tmp_path):
    expected = {}
    for kind, batch in BATCHES.items():
        metric = metric_for(TASKS[kind], PixelSpace())
        metric.update(*batch)
        expected[kind] = metric.compute()
    torch.multiprocessing.spawn(synchronize, (tmp_path / "store", expected), nprocs=2)


def test_classes_have_their_names():
    data = TensorDataset(drawn(30, 3), torch.arange(30) % 3)
    data.classes = ["<script>", "cat", "dog"]
    assert list(measure(data)["recall"]) == list(measure(data)["confusion"]["cat"]) == data.classes
    data.classes = ["cat", "cat", "dog"]  # of which one would be lost
    assert list(measure(data)["recall"]) == ["0", "1", "2"]


@pytest.mark.parametrize("size", [(6, 5), (3, 5)])
def test_a_segmentations_values_leave_out_pixels_that_do_not_count(size):
    scores = drawn(12, 4, *size)
    masks = torch.randint(0, 3, (12, 6, 5), generator=torch.Generator().manual_seed(1))  # 3 is predicted alone
    masks[:, 0], masks[:, 1, 0] = 255, -1
    values = measure(TensorDataset(scores, masks))
    predicted = F.interpolate(scores, (6, 5), mode="bilinear", align_corners=False).argmax(1)
    counted = (masks >= 0) & (masks < 255)
    pairs = [(predicted[counted] == label, masks[counted] == label) for label in range(4)]
    overlaps = [float((mine & true).sum() / (mine | true).sum()) for mine, true in pairs]
    assert list(values["iou"].values()) == [six_digits(overlap) for overlap in overlaps]
    assert values["mean_iou"] == six_digits(np.mean(overlaps))
    assert values["pixel_accuracy"] == six_digits((predicted == masks)[counted].float().mean())
    assert values["samples"] == 12


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_segmentation_of_one_score_has_two_classes(probabilities):
    logits, masks = drawn(9, 1, 6, 6), drawn(9, 6, 6, seed=1) > 0
    values = measure(TensorDataset(logits, masks.long()), Squashed() if probabilities else None)
    assert values["pixel_accuracy"] == six_digits(((logits[:, 0] > 0) == masks).float().mean())


def test_a_class_that_does_not_occur_has_no_overlap_and_is_not_in_the_mean():
    masks = torch.arange(2)[:, None, None].expand(2, 4, 4).contiguous()
    values = measure(TensorDataset(F.one_hot(masks, 3).permute(0, 3, 1, 2).float(), masks))
    assert values == {"samples": 2, "mean_iou": 1.0, "pixel_accuracy": 1.0, "iou": {"0": 1.0, "1": 1.0, "2": None}}


def test_masks_of_which_no_pixel_counts_give_no_values():
    assert measure(TensorDataset(drawn(3, 4, 5, 5), torch.full((3, 5, 5), 255))) == {}


class Autoencoder(Identity):
    def forward(self, x):
        return x * 0.9


@pytest.mark.parametrize("truth", ["input", "target"])
def test_images_have_their_signal_to_noise_ratio(truth):
    inputs = images(10, 3)[0]
    target = inputs if truth == "input" else (inputs * 0.9 + 0.1 * drawn(*inputs.shape)).clamp(0, 1)
    data = TensorDataset(inputs, torch.arange(10)) if truth == "input" else TensorDataset(inputs, target)
    expected = -10 * (inputs * 0.9 - target).square().mean((1, 2, 3)).log10()
    assert measure(data, Autoencoder()) == {"samples": 10, "psnr": six_digits(expected.mean())}


def test_an_image_equal_to_its_target_has_no_finite_ratio():
    assert measure(TensorDataset(images(4)[0])) == {"samples": 4, "psnr": None}


def test_outputs_without_a_fitting_target_have_no_values():
    assert measure(TensorDataset(drawn(9, 4))) == {}  # no labels
    assert measure(TensorDataset(drawn(9, 4, 2), torch.arange(9))) == {}  # sequences


def test_the_network_is_run_if_the_step_does_not_call_it():
    class Around(ConvNet):
        def validation_step(self, batch, batch_idx):
            self.conv1(batch[0])
            self.log("val_loss", self.forward(batch[0]).mean())

    passes, model = [], Around()
    model.conv1.register_forward_hook(lambda *args: passes.append(model.training))
    data = loader(*images(20), batch_size=8)
    assert measure(data, model) == measure(data, ConvNet())
    assert passes == [False] * 9  # the step's own two, and ours, for each batch
    assert not model._forward_hooks


def test_the_step_that_runs_the_network_is_the_only_pass():
    passes, model = [], ConvNet()
    model.conv1.register_forward_hook(lambda *args: passes.append(1))
    assert measure(loader(*images(20), batch_size=8), model)["samples"] == 20
    assert len(passes) == 3


def test_any_module_is_measured():
    torch.manual_seed(0)
    assert measure(loader(*images(20)), nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))["samples"] == 20


def test_the_first_of_several_loaders_counts():
    class Several(ConvNet):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self(batch[0])

    metrics = ValidationMetrics()
    validate(Several(), [loader(*images(20)), loader(*images(9))], [metrics], accelerator="cpu")
    assert metrics.values["samples"] == 20


def test_an_error_is_a_note(monkeypatch):
    monkeypatch.setattr("lightning_viz.analysis.validation_metrics.split_batch", lambda *args: 1 / 0)
    note = "the metrics of the validation pass failed: ZeroDivisionError: division by zero"
    assert measure(loader(*images(20)), ConvNet()) == {"note": note}
