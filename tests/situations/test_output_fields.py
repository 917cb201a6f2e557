"""Kind 2: which tensor of what a model returns is meant."""

from collections import OrderedDict
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz import ActivationMaps, FirstLayerFilters, Predictions

from .brought import Classifier, pictures, rows
from .situation import REFUSED, Training, situation, situations
from .truth import all_right, grad_cam_by_hand, no_class_words, own_class

images, labels = pictures()
WITHOUT_TARGETS = ("filters", "activations")


@dataclass
class ModelOutput(OrderedDict):
    """As Hugging Face's: a dataclass and an ordered dict in one, whose fields that are None are left out."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    def __post_init__(self):
        for own in fields(self):
            if getattr(self, own.name) is not None:
                self[own.name] = getattr(self, own.name)


class Inception(NamedTuple):
    """As torchvision's."""

    logits: Tensor
    aux_logits: Tensor


def returning(what, loss):
    """A model whose forward returns what a function makes of features ``[N, 3]`` and logits, and its loss."""

    class Model(Classifier):
        def forward(self, images):
            return what(images.mean((2, 3)), self.net(images))

        def step(self, batch):
            return F.cross_entropy(loss(self(batch[0])), batch[1])

    def check(seen):
        all_right(seen)
        inputs = seen.inputs.clone()
        net = model.net
        truth = torch.tensor([int(verdict.truth) for verdict in seen.verdicts])
        heat = grad_cam_by_hand(net.conv, lambda: net(inputs[: len(truth)]), own_class(truth))
        drawn = seen.map("grad_cam/net.conv")[: len(truth)]
        torch.testing.assert_close(drawn, heat, atol=1e-6, rtol=1e-6)

    model = Model()
    return Training(model, rows(images, labels)), check


@situation(2, "a dict with `features` before `logits`")
def dict_of_features_and_logits():
    return returning(lambda features, logits: {"features": features, "logits": logits}, lambda output: output["logits"])


@situation(2, "a tuple `(features, logits)`; the loss takes the second")
def tuple_of_features_and_logits():
    return returning(lambda features, logits: (features, logits), lambda output: output[1])


@situation(2, "Hugging Face's output with `loss` and hidden states, an ordered dict")
def model_output():
    def output(features, logits):
        return ModelOutput(loss=logits.sum() * 0, logits=logits, hidden_states=(features,))

    return returning(output, lambda output: output.logits)


@situation(2, "a tuple `(loss, logits)`: a scalar loss is skipped")
def loss_and_logits():
    return returning(lambda features, logits: (logits.sum() * 0, logits), lambda output: output[1])


@situation(2, "a dict whose logits are called `scores`, beside maps")
def dict_with_one_candidate():
    return returning(
        lambda features, logits: {"maps": features[:, None, :, None, None], "scores": logits},
        lambda output: output["scores"],
    )


@situation(2, "auxiliary logits in a named tuple")
def auxiliary_logits():
    return returning(lambda features, logits: Inception(logits, -logits), lambda output: output.logits)


@situation(
    2,
    "a variational autoencoder's `(image, mean, log variance)`: the fields are listed, `forward=` is named",
    REFUSED,
    says=r"forward=",
)
def variational_autoencoder():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Conv2d(3, 4, 4, 4), nn.ConvTranspose2d(2, 3, 4, 4)

        def forward(self, images):
            mean, variance = self.encoder(images).chunk(2, 1)
            return self.decoder(mean), mean.flatten(1), variance.flatten(1)

    class Model(Classifier):
        def step(self, batch):
            drawn, mean, variance = self(batch[0])
            return F.mse_loss(drawn, batch[0]) + mean.square().mean() + variance.square().mean()

    return Training(Model(Net()), rows(images, labels), draws=WITHOUT_TARGETS), no_class_words


@situation(2, "an autoencoder's image: no class words, no crosses")
def autoencoder():
    class Model(Classifier):
        def step(self, batch):
            return F.mse_loss(self(batch[0]), batch[0])

    net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.ConvTranspose2d(4, 3, 4, 4))
    return Training(Model(net), rows(images, labels), draws=WITHOUT_TARGETS), no_class_words


@situation(2, "segmentation `{'out': [N, K, H, W], 'aux': ...}` in either order, masks `[N, H, W]`")
def segmentation():
    class Model(Classifier):
        def forward(self, images):
            maps = self.net(images)
            return OrderedDict(aux=-maps, out=maps)

        def step(self, batch):
            return F.cross_entropy(self(batch[0])["out"], batch[1])

    net = nn.Conv2d(3, 2, 1)
    net.weight.data = torch.stack([torch.zeros(3), torch.full((3,), 10.0)])[:, :, None, None]
    net.bias.data = torch.tensor([13.5, 0.0])
    masks = (images.mean(1) > 0.45).long()

    def check(seen):
        drawn = seen.last("predictions")
        predicted = torch.as_tensor(drawn["prediction"])
        truth = torch.as_tensor(drawn["truth"])
        assert (predicted.reshape(truth.shape) == truth).float().mean() > 0.95

    views = [FirstLayerFilters(), ActivationMaps(), Predictions()]
    return Training(
        Model(net), rows(images, masks), views=views, draws=("filters", "activations", "predictions")
    ), check


@pytest.mark.parametrize("row", situations(__name__))
def test_output_fields(row, tmp_path: Path):
    row.verify(tmp_path)
