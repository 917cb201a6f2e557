"""Small networks, each with something that a method must put up with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

CLASSES = 4


class Convolutional(nn.Module):
    """ReLUs in place, functional and reused; batch normalization, dropout, and a head of two layers."""

    def __init__(self, channels: int = 3):
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.conv3 = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)
        self.relu, self.dropout = nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.hidden, self.head = nn.Linear(20, 16), nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.relu(self.norm(self.conv1(x)))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = self.relu(self.conv3(x))
        x = F.adaptive_avg_pool2d(x, 2).flatten(1)
        return self.head(self.dropout(self.hidden(x).relu()))


def plain() -> nn.Sequential:
    """Every layer by its number: what ends before a layer is a network, too."""
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3, padding=1),
        nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, CLASSES),
    )  # fmt: skip


class Views(nn.Module):
    """``view`` where ``reshape`` would do: it refuses channels-last maps."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 5, 3, stride=2), nn.Linear(125, CLASSES)

    def forward(self, x):
        x = F.relu(self.conv(x))
        return self.head(x.view(x.size(0), -1))


class ChannelsLast(nn.Module):
    """Patches, and a block in the manner of Swin, whose maps are ``[N, H, W, K]``."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 8, 2, stride=2), nn.LayerNorm(8)
        self.block, self.head = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8)), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        x = x + self.block(self.norm(x))
        return self.head(x.relu().mean((1, 2)))


class Dictionary(Convolutional):
    def forward(self, x):
        return {"loss": None, "logits": super().forward(x)}


class TwoInputs(Convolutional):
    """An image, numbers beside it, and words."""

    def __init__(self):
        super().__init__()
        self.beside, self.words = nn.Linear(2, CLASSES), nn.Embedding(7, CLASSES)

    def forward(self, image, beside, words):
        return super().forward(image) * (1 + 0.2 * self.beside(beside)) + self.words(words)


class Shared(Convolutional):
    """An image, a number for each, and a number and a row that all share."""

    def __init__(self):
        super().__init__()
        self.beside = nn.Linear(1, CLASSES)

    def forward(self, image, each, scale, row):
        return (super().forward(image) + row) * scale + self.beside(each[:, None]) ** 2


class Dense(nn.Module):
    """A class for every place."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, CLASSES, 1)

    def forward(self, x):
        return self.head(F.relu(self.conv(x)))


def _tokens():
    return torchvision.models.VisionTransformer(
        image_size=12, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=CLASSES
    )


def _frozen():
    net = Convolutional()
    for parameter in [*net.conv1.parameters(), *net.conv2.parameters()]:
        parameter.requires_grad_(False)
    return net


def _perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(432, 12), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(12, CLASSES))


@dataclass(frozen=True)
class Kind:
    """A kind of network.

    Attributes:
        build: makes one.
        channels: of its images.
        layer: whose output is a map; None where there is no such layer.
        relus: whether all its activations are ReLUs.
        last: its last module to be called.
    """

    build: Callable[[], nn.Module]
    channels: int = 3
    layer: str | None = "conv2"
    relus: bool = True
    last: str = "head"


KINDS = {
    "convolutional": Kind(Convolutional),
    "gray": Kind(lambda: Convolutional(1), channels=1),
    "five channels": Kind(lambda: Convolutional(5), channels=5),
    "view()": Kind(Views, layer="conv"),
    "channels-last": Kind(ChannelsLast, layer="block"),
    "tokens": Kind(_tokens, layer="encoder.layers.encoder_layer_1.ln_1", relus=False, last="heads.head"),
    "dictionary": Kind(Dictionary),
    "two inputs": Kind(TwoInputs),
    "shared inputs": Kind(Shared),
    "dense": Kind(Dense, layer="conv"),
    "frozen": Kind(_frozen),
    "perceptron": Kind(_perceptron, layer=None, last="4"),
}


def network(kind: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
    """A network in training, with weights under which ReLUs are on and off and classes differ."""
    torch.manual_seed(seed)
    net = KINDS[kind].build()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.weight.normal_(std=(2 / module.weight[0].numel()) ** 0.5)
                if module.bias is not None:
                    module.bias.uniform_(0, 0.3)
            elif isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return net.to(dtype).train()


def inputs(kind: str, count: int = 3, dtype: torch.dtype = torch.float64) -> Any:
    """Images of 12 x 12, and what else the network takes."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(3, KINDS[kind].channels, 12, 12, generator=generator).to(dtype)
    if kind == "shared inputs":
        each, row = (torch.randn(n, generator=generator).to(dtype) for n in (3, CLASSES))
        return image[:count], each[:count], torch.tensor(1.5, dtype=dtype), row
    if kind != "two inputs":
        return image[:count]
    beside = torch.randn(3, 2, generator=generator).to(dtype)
    return image[:count], beside[:count], torch.tensor([5, 0, 2])[:count]


def some(given: Any, samples: slice) -> Any:
    """Some samples of the inputs."""
    if isinstance(given, Tensor):
        return given[samples]
    return tuple(x[samples] if x.dim() and len(x) == 3 else x for x in given)
