"""Kind 3: labels that name no class. What can be drawn is drawn; what is unknown is said once."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_viz import ActivationMaps, FirstLayerFilters, GradCAM, Predictions, Saliency

from .brought import Classifier, loader, pictures, rows
from .situation import REFUSED, Training, situation, situations
from .truth import all_right

images, labels = pictures()


def some_unknown(seen, unknown: torch.Tensor) -> None:
    """Predictions are right; the truth is stated where it is known, and only there."""
    right = {
        tuple(image.flatten().tolist()): (int(label), bool(hidden))
        for image, label, hidden in zip(images, labels, unknown, strict=True)
    }
    samples = [right[tuple(image.flatten().tolist())] for image in seen.inputs]
    assert seen.verdicts
    for verdict, (label, hidden) in zip(seen.verdicts, samples, strict=False):
        assert verdict.prediction == str(label), verdict
        assert verdict.truth == (None if hidden else str(label)), verdict


def unknown_labels(value: int):
    """Every third label is none of a class; the loss ignores it."""

    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1], ignore_index=value)

    unknown = torch.arange(16) % 3 == 0
    marked = torch.where(unknown, value, labels)
    return Training(Model(), rows(images, marked)), lambda seen: some_unknown(seen, unknown)


@situation(3, "some labels are -1: those samples are explained by their prediction, said once", says=r"label.*-1\b")
def labels_of_minus_one():
    return unknown_labels(-1)


@situation(3, "some labels are 255", says=r"label.*\b255\b")
def labels_of_255():
    return unknown_labels(255)


@situation(3, "all labels are -1, as of an unlabeled test set")
def no_label_known():
    class Model(Classifier):
        def step(self, batch):
            return self(batch[0]).logsumexp(1).mean()

    unknown = torch.ones(16, dtype=torch.bool)
    return Training(Model(), rows(images, torch.full((16,), -1))), lambda seen: some_unknown(seen, unknown)


@situation(3, "labels begin at 1; the step subtracts it: nothing is called wrong that is right", says="labels")
def labels_from_one():
    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1] - 1)

    def check(seen):
        assert seen.verdicts
        for verdict, image in zip(seen.verdicts, seen.inputs, strict=False):
            right = int((images == image).flatten(1).all(1).nonzero()) % 4
            assert verdict.prediction == str(right), verdict
            assert verdict.truth in (None, str(right)), verdict

    return Training(Model(), rows(images, labels + 1)), check


@situation(3, "float labels of classes, which the step makes whole numbers")
def float_labels():
    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1].long())

    return Training(Model(), rows(images, labels.float())), all_right


@situation(3, "one-hot labels, cross-entropy of probabilities")
def one_hot_labels():
    return Training(Classifier(), rows(images, F.one_hot(labels, 4).float())), all_right


@situation(3, "smoothed or mixed labels, cross-entropy of probabilities: the strongest is the truth")
def smoothed_labels():
    smooth = F.one_hot(labels, 4) * 0.9 + 0.025
    return Training(Classifier(), rows(images, smooth)), all_right


@situation(3, "labels of shape `[N, 1]`")
def column_labels():
    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1].squeeze(1))

    return Training(Model(), rows(images, labels[:, None])), all_right


@situation(3, "strings, which the step looks up")
def string_labels():
    names = ("ant", "bee", "cat", "dog")

    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch[0]), torch.tensor([names.index(name) for name in batch[1]]))

    def check(seen):
        assert seen.verdicts
        for verdict, image in zip(seen.verdicts, seen.inputs, strict=False):
            right = int((images == image).flatten(1).all(1).nonzero()) % 4
            assert verdict.prediction in (str(right), names[right]), verdict
            assert verdict.truth in (None, str(right), names[right]), verdict

    words = [names[label] for label in labels]
    return Training(Model(), rows(images, words)), check


@situation(3, "no labels: the batch is the images alone")
def no_labels():
    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch), self(batch).argmax(1))

    def check(seen):
        assert all(verdict.truth is None for verdict in seen.verdicts)

    return Training(Model(), loader(lambda index: images[index])), check


@situation(3, "labels are None in a collated batch: the batch is `(images, None)`")
def labels_none():
    class Model(Classifier):
        def step(self, batch):
            return self(batch[0]).logsumexp(1).mean()

    def collate(samples):
        return torch.stack(samples), None

    def check(seen):
        assert all(verdict.truth is None for verdict in seen.verdicts)

    return Training(Model(), loader(lambda index: images[index], collate_fn=collate)), check


@situation(3, "a class that the model does not have, of one view: the others draw", REFUSED, says=r"class 7\b.*\b4\b")
def one_bad_target():
    views = [FirstLayerFilters(), ActivationMaps(), GradCAM(target=7), Saliency()]
    return Training(
        Classifier(), rows(images, labels), views=views, draws=("filters", "activations", "saliency")
    ), all_right


@situation(3, "labels out of range and only views that explain nothing: they draw")
def labels_of_no_concern():
    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1] - 1)

    views = [FirstLayerFilters(), ActivationMaps()]

    def check(seen):
        assert len(seen.of("activations")) == 2 and len(seen.of("filters")) == 2

    return Training(Model(), rows(images, labels + 1), views=views, draws=("filters", "activations")), check


@situation(3, "masks with 255 at their borders: the picture counts the others, and says so")
def masks_with_255():
    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1], ignore_index=255)

    net = nn.Conv2d(3, 2, 1)
    net.weight.data = torch.stack([torch.zeros(3), torch.full((3,), 10.0)])[:, :, None, None]
    net.bias.data = torch.tensor([13.5, 0.0])
    masks = (images.mean(1) > 0.45).long()
    masks[:, 0] = 255

    def check(seen):
        drawn = seen.last("predictions")
        assert drawn["accuracy"] > 0.99
        assert "do not count" in str(drawn["notes"])

    views = [FirstLayerFilters(), ActivationMaps(), Predictions()]
    return Training(
        Model(net), rows(images, masks), views=views, draws=("filters", "activations", "predictions")
    ), check


@pytest.mark.parametrize("row", situations(__name__))
def test_labels(row, tmp_path: Path):
    row.verify(tmp_path)
