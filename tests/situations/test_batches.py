"""Kind 1: which elements of a batch are inputs and labels, and the data sets that make whole batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from .brought import Classifier, Items, Module, Quarters, loader, pictures, rows
from .situation import REFUSED, Training, situation, situations
from .truth import all_right, are_rows_of, no_class_words, shown_as_images

images, labels = pictures()


def by_name(index):
    return {"image": images[index], "label": labels[index]}


class Perceptron(nn.Sequential):
    """`Quarters` on flattened images."""

    def __init__(self):
        super().__init__(nn.Linear(3 * 16 * 16, 4, bias=False))
        quarter = torch.zeros(4, 3, 16, 16)
        for number in range(4):
            top, left = number // 2 * 8, number % 2 * 8
            quarter[number, :, top : top + 8, left : left + 8] = 20 / (3 * 64)
        self[0].weight.data = quarter.flatten(1)


@situation(
    1,
    "self-supervised: the batch is `((view1, view2), label)`, the net is called on each view",
)
def two_views():
    class Model(Classifier):
        def step(self, batch):
            (first, second), _ = batch
            return -F.cosine_similarity(self(first), self(second)).mean()

    def check(seen):
        are_rows_of(seen.inputs, images)
        no_class_words(seen)

    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 8)
    )
    pairs = loader(lambda index: ((images[index], images[index]), labels[index]))
    return Training(Model(net), pairs, draws=("filters", "activations")), check


@situation(1, "a siamese net `forward(a, b)`, the batch is `((a, b), same)`")
def siamese():
    class Model(Module):
        def forward(self, first, second):
            return 20 * (0.9 - (self.net(first) - self.net(second)).abs().mean(1))

        def step(self, batch):
            (first, second), same = batch
            return F.binary_cross_entropy_with_logits(self(first, second), same.float())

    def check(seen):
        first, second = seen.inputs
        are_rows_of(first, images)
        are_rows_of(second, images)
        assert not torch.equal(first, second)
        for image, call in ((first, "net.conv:0"), (second, "net.conv:1")):  # maps lie over the image that they are of
            shown = torch.as_tensor(seen.last(f"grad_cam/{call}")["images"]).permute(0, 3, 1, 2) / 255
            apart = torch.cdist(shown[:8].flatten(1), image.float().flatten(1), p=float("inf")).amin(1)
            assert (apart < 3e-3).all()

    pairs = loader(
        lambda index: ((images[index], images[index * 3 % 16]), int(labels[index] == labels[index * 3 % 16]))
    )
    return Training(Model(Quarters(sharpness=3.0)), pairs, draws=("filters", "activations")), check


@situation(
    1, "a batch that is a graph, no tensors: one line gives the reason, weights are drawn", REFUSED, says="Graph"
)
def graph():
    class Graph:
        def __init__(self, parts):
            self.nodes, self.labels = (torch.stack(column) for column in zip(*parts, strict=True))

        def to(self, device):
            return self

    class Model(Module):
        def forward(self, graph):
            return self.net(graph.nodes)

        def step(self, batch):
            return F.cross_entropy(self(batch), batch.labels)

    graphs = loader(lambda index: (images[index], labels[index]), collate_fn=Graph)
    return Training(Model(), graphs, draws=("filters",)), lambda seen: None


@situation(1, "a triplet net: the batch is `(anchor, positive, negative)`, the net is called three times")
def triplet():
    class Model(Classifier):
        def step(self, batch):
            return F.triplet_margin_loss(*map(self, batch))

    def check(seen):
        are_rows_of(seen.inputs, images)
        no_class_words(seen)

    triplets = loader(lambda index: (images[index], images[(index + 4) % 16], images[(index + 1) % 16]))
    return Training(Model(), triplets, draws=("filters", "activations")), check


@situation(
    1,
    "the batch is `(image, domain, label)`; the loss takes the last",
    says=r"labels: .*batch\[2\]",
)
def batch_of_three():
    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch[0]), batch[2])

    return Training(Model(), rows(images, torch.arange(16) // 4 % 2, labels)), shown_as_images


@situation(1, "two inputs, image and numbers: the batch is `(image, numbers, label)`")
def image_and_numbers():
    class Model(Module):
        def forward(self, images, numbers):
            return self.net(images) + 0 * numbers.sum(1, keepdim=True)

        def step(self, batch):
            return F.cross_entropy(self(batch[0], batch[1]), batch[2])

    return Training(Model(), rows(images, torch.rand(16, 5), labels)), shown_as_images


@situation(1, "the data set returns whole batches, `DataLoader(batch_size=None)`")
def whole_batches():
    batches = loader(
        lambda index: (images[index * 8 : index * 8 + 8], labels[index * 8 : index * 8 + 8]), 2, batch_size=None
    )
    return Training(Classifier(), batches), shown_as_images


@situation(1, "the sampler gives lists of numbers, `DataLoader(sampler=BatchSampler(...), batch_size=None)`")
def lists_of_numbers():
    whole = Items(lambda indices: (images[indices], labels[indices]), 16)
    batches = DataLoader(whole, sampler=BatchSampler(SequentialSampler(whole), 8, drop_last=False), batch_size=None)
    return Training(Classifier(), batches), shown_as_images


@situation(
    1,
    "`forward` takes a list of images",
)
def list_of_images():
    class Model(Classifier):
        def forward(self, images):
            return self.net(torch.stack(images))

    def as_lists(samples):
        return [image for image, _ in samples], torch.stack([label for _, label in samples])

    return Training(Model(), rows(images, labels, collate_fn=as_lists)), shown_as_images


@situation(
    1,
    "a dict whose first tensor is a mask of the image's size",
)
def mask_comes_first():
    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch["image"]), batch["label"])

    def item(index):
        return {"mask": torch.ones(3, 16, 16), **by_name(index)}

    return Training(Model(), loader(item)), shown_as_images


@situation(
    1,
    "a dict whose first tensor is an id, which no label is",
)
def id_comes_first():
    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch["image"]), batch["category"])

    def item(index):
        return {"id": 1000 + index, "image": images[index], "category": labels[index]}

    return Training(Model(), loader(item)), shown_as_images


@situation(
    1,
    "uint8 images in a dict, which the step makes floats",
)
def uint8_in_dict():
    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch["image"].float() / 255), batch["label"])

    def item(index):
        return {"image": (images[index] * 255).round().to(torch.uint8), "label": labels[index]}

    return Training(Model(), loader(item)), shown_as_images


@dataclass
class Graphs:
    """A batch of PyTorch Geometric: an object with tensors of nodes, edges and graphs."""

    x: Tensor
    edge_index: Tensor
    batch: Tensor
    y: Tensor

    def to(self, *args: Any, **kwargs: Any) -> "Graphs":
        return Graphs(*(part.to(*args, **kwargs) for part in (self.x, self.edge_index, self.batch, self.y)))


@situation(
    1,
    "a batch of PyTorch Geometric, `forward(data)`: nodes are no samples; what needs no pass is drawn",
    REFUSED,
    says="not of one for each sample",
)
def graphs():
    class Model(Module):
        def forward(self, data):
            given = torch.zeros_like(data.x).index_add(0, data.edge_index[1], data.x[data.edge_index[0]])
            pooled = torch.zeros(int(data.batch.max()) + 1, 4).index_add(0, data.batch, self.net(data.x + 0 * given))
            return 10 * pooled

        def step(self, data):
            return F.cross_entropy(self(data), data.y)

    def collate(samples):
        x = torch.cat([F.one_hot(label, 4).float().expand(3, 4) for label in samples])
        return Graphs(
            x,
            torch.stack([torch.arange(len(x)), torch.arange(len(x))]),
            torch.arange(len(samples)).repeat_interleave(3),
            torch.stack(samples),
        )

    net = nn.Linear(4, 4, bias=False)
    net.weight.data = torch.eye(4)
    return Training(
        Model(net), loader(lambda index: labels[index], collate_fn=collate), draws=("filters",)
    ), lambda seen: None


@situation(1, "token ids: what needs a gradient towards pixels is left out, said once")
def token_ids():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 4, bias=False)
            self.embedding.weight.data = torch.eye(9)[:, :4] * 5
            self.head.weight.data = torch.eye(4) * 3

        def forward(self, ids):
            return self.head(self.embedding(ids).mean(1))

    tokens = labels[:, None].expand(16, 6)
    # The only page with samples is that of the eight worst.
    return Training(Classifier(Net()), rows(tokens, labels), draws=()), lambda seen: all_right(seen, classes=2)


@situation(
    1,
    "the batch itself: watching it leaves no trace in what training is given",
)
def batch_untouched():
    given: list[Any] = []

    class Model(Module):
        def step(self, batch):
            given.append(batch)
            return F.cross_entropy(self.net(batch.pop("image")), batch.pop("label"))

    def check(seen):
        shown_as_images(seen)
        assert all(type(batch) is dict and not batch for batch in given)

    return Training(Model(), loader(by_name)), check


@situation(1, "an LSTM on series `[N, T, F]`: no images, no places")
def lstm():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(5, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, series):
            return self.head(self.lstm(series)[0][:, -1])

    series = torch.rand(16, 12, 5)

    def check(seen):
        are_rows_of(seen.inputs, series)
        assert not seen.of("grad_cam")

    return Training(Classifier(Net()), rows(series, labels % 3), draws=("saliency",)), check


@pytest.mark.parametrize("row", situations(__name__))
def test_batches(row, tmp_path: Path):
    row.verify(tmp_path)
