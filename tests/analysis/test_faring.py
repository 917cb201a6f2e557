"""How a model fares is told by figures that are those of independent metrics, whatever it puts out."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassCalibrationError, MulticlassJaccardIndex
from torchmetrics.functional.image import peak_signal_noise_ratio

from lightning_viz.analysis.faring import Fares
from lightning_viz.analysis.validating import validate
from tests.callbacks.conftest import ConvNet, Net, images, loader


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Says(Net):
    """Puts out what lies in the batch beside the truth."""

    def forward(self, x):
        return x.clone()

    def validation_step(self, batch, batch_idx):
        self(batch[0])


def figures(data, model=None, batch_size=7, **options):
    data = data if isinstance(data, DataLoader) else DataLoader(data, batch_size=batch_size)
    fares = Fares()
    validate(model or Says(), data, [fares], accelerator="cpu", **options)
    assert json.loads(json.dumps(fares.numbers, allow_nan=False)) == fares.numbers
    return fares.numbers


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 8, 60])
def test_a_classifiers_figures_are_those_of_independent_metrics(classes, probabilities):
    scores, labels = (
        3 * drawn(90, classes),
        torch.randint(0, classes, (90,), generator=torch.Generator().manual_seed(1)),
    )
    scores[:50].scatter_add_(1, labels[:50, None], torch.full((50, 1), 4.0))
    found = figures(TensorDataset(scores.softmax(1) if probabilities else scores, labels))
    predicted = scores.argmax(1)
    assert found["samples"] == 90
    assert found["accuracy"] == pytest.approx(float((predicted == labels).float().mean()))
    assert found["cross_entropy"] == pytest.approx(float(F.cross_entropy(scores, labels)), rel=1e-5)
    calibration = MulticlassCalibrationError(classes, n_bins=15)(scores.softmax(1), labels)
    assert found["calibration_error"] == pytest.approx(float(calibration), rel=1e-4)
    first = scores.argsort(1, descending=True)[:, :5]
    assert found.get("top5_accuracy") == (
        pytest.approx(float((first == labels[:, None]).any(1).float().mean())) if classes > 5 else None
    )
    for name, share in found["recall"].items():
        of_class = predicted[labels == int(name)] == int(name)
        assert share == (pytest.approx(float(of_class.float().mean())) if len(of_class) else None)
    assert ("confusion" in found) == (classes <= 40)
    for true, row in found.get("confusion", {}).items():
        for said, count in row.items():
            assert count == int(((labels == int(true)) & (predicted == int(said))).sum())


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("shape", [(60,), (60, 1)])
def test_one_score_tells_two_classes(shape, probabilities):
    logits, labels = drawn(*shape), torch.arange(60) % 2
    found = figures(TensorDataset(logits.sigmoid() if probabilities else logits, labels))
    assert found["accuracy"] == pytest.approx(float(((logits.flatten() > 0) == labels).float().mean()))
    entropy = F.binary_cross_entropy_with_logits(logits.flatten(), labels.float())
    assert found["cross_entropy"] == pytest.approx(float(entropy), rel=1e-5)
    assert set(found["recall"]) == {"0", "1"}


def test_one_number_beside_numbers_that_are_no_classes_is_not_judged():
    assert figures(TensorDataset(drawn(30, 1), torch.arange(30))) == {}


@pytest.mark.parametrize("strange", [-1, 255])
def test_labels_that_are_no_classes_do_not_count(strange):
    scores, labels = drawn(30, 4), torch.arange(30) % 4
    expected = figures(TensorDataset(scores[10:], labels[10:]))
    labels[:10] = strange
    assert figures(TensorDataset(scores, labels)) == expected


def test_broken_outputs_are_left_out_and_said():
    scores, labels = drawn(30, 4), torch.arange(30) % 4
    expected = figures(TensorDataset(scores[2:], labels[2:]))
    scores[0, 1], scores[1, 2] = torch.nan, torch.inf
    note = "2 samples with NaN or infinite outputs are left out"
    assert figures(TensorDataset(scores, labels)) == {**expected, "note": note}


def test_a_certain_and_wrong_prediction_is_no_number_in_the_report():
    found = figures(TensorDataset(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])))
    assert (found["accuracy"], found["cross_entropy"], found["calibration_error"]) == (0.5, None, 0.5)


def test_batches_make_no_difference():
    data = TensorDataset(3 * drawn(90, 8), torch.arange(90) % 8)
    assert figures(data, batch_size=1) == figures(data, batch_size=7) == figures(data, batch_size=90)


def test_classes_go_by_their_names():
    data = TensorDataset(drawn(30, 3), torch.arange(30) % 3)
    data.classes = ["<script>", "cat", "dog"]
    assert list(figures(data)["recall"]) == list(figures(data)["confusion"]["cat"]) == data.classes
    data.classes = ["cat", "cat", "dog"]  # of which one would be lost
    assert list(figures(data)["recall"]) == ["0", "1", "2"]


@pytest.mark.parametrize("size", [(6, 5), (3, 5)])
def test_a_segmentations_figures_leave_out_what_does_not_count(size):
    scores = drawn(12, 4, *size)
    masks = torch.randint(0, 3, (12, 6, 5), generator=torch.Generator().manual_seed(1))  # 3 is predicted alone
    masks[:, 0], masks[:, 1, 0] = 255, -1
    found = figures(TensorDataset(scores, masks))
    predicted = F.interpolate(scores, (6, 5), mode="bilinear", align_corners=False).argmax(1)
    counted = (masks >= 0) & (masks < 255)
    overlaps = MulticlassJaccardIndex(4, average=None)(predicted[counted], masks[counted])
    assert list(found["iou"].values()) == pytest.approx(overlaps.tolist())
    assert found["mean_iou"] == pytest.approx(float(overlaps.mean()))
    assert found["pixel_accuracy"] == pytest.approx(float((predicted == masks)[counted].float().mean()))
    assert found["samples"] == 12


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_segmentation_of_one_score_has_two_classes(probabilities):
    logits, masks = drawn(9, 1, 6, 6), drawn(9, 6, 6, seed=1) > 0
    found = figures(TensorDataset(logits.sigmoid() if probabilities else logits, masks.long()))
    assert found["pixel_accuracy"] == pytest.approx(float(((logits[:, 0] > 0) == masks).float().mean()))


class Autoencoder(Says):
    def forward(self, x):
        return x * 0.9


@pytest.mark.parametrize("truth", ["input", "target"])
def test_images_are_judged_by_their_noise(truth):
    inputs = images(10, 3)[0]
    target = inputs if truth == "input" else (inputs * 0.9 + 0.1 * drawn(*inputs.shape)).clamp(0, 1)
    data = TensorDataset(inputs, torch.arange(10)) if truth == "input" else TensorDataset(inputs, target)
    expected = [
        peak_signal_noise_ratio(out, true, data_range=1.0) for out, true in zip(inputs * 0.9, target, strict=True)
    ]
    assert figures(data, Autoencoder()) == {"samples": 10, "psnr": pytest.approx(float(torch.stack(expected).mean()))}


def test_what_is_not_known_is_not_judged():
    assert figures(TensorDataset(drawn(9, 4))) == {}  # no labels
    assert figures(TensorDataset(drawn(9, 4, 2), torch.arange(9))) == {}  # sequences


def test_the_network_runs_by_itself_where_the_step_does_without_it():
    class Around(ConvNet):
        def validation_step(self, batch, batch_idx):
            self.conv1(batch[0])
            self.log("val_loss", self.forward(batch[0]).mean())

    passes, model = [], Around()
    model.conv1.register_forward_hook(lambda *args: passes.append(model.training))
    data = loader(*images(20), batch_size=8)
    assert figures(data, model) == figures(data, ConvNet())
    assert passes == [False] * 9  # the step's own two, and ours, for each batch
    assert not model._forward_hooks


def test_the_step_that_runs_the_network_is_the_only_pass():
    passes, model = [], ConvNet()
    model.conv1.register_forward_hook(lambda *args: passes.append(1))
    assert figures(loader(*images(20), batch_size=8), model)["samples"] == 20
    assert len(passes) == 3


def test_any_module_is_judged():
    torch.manual_seed(0)
    assert figures(loader(*images(20)), nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))["samples"] == 20


def test_the_first_of_several_loaders_counts():
    class Several(ConvNet):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self(batch[0])

    fares = Fares()
    validate(Several(), [loader(*images(20)), loader(*images(9))], [fares], accelerator="cpu")
    assert fares.numbers["samples"] == 20


def test_what_goes_wrong_is_a_note(monkeypatch):
    monkeypatch.setattr("lightning_viz.analysis.faring.split_batch", lambda *args: 1 / 0)
    note = "the validation pass could not be judged: ZeroDivisionError: division by zero"
    assert figures(loader(*images(20)), ConvNet()) == {"note": note}
