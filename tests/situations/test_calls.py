"""Kind 1: how the model is called, which the module's own step tells."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_viz import Probe, default_views

from .brought import Classifier, Module, loader, pictures, rows
from .situation import ARGUMENT, REFUSED, Training, situation, situations
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
    "`forward(batch)` takes the batch's dict",
)
def forward_of_dict():
    class Model(Module):
        def forward(self, batch):
            return self.net(batch["image"])

        def step(self, batch):
            return F.cross_entropy(self(batch), batch["label"])

    return Training(Model(), loader(by_name)), all_right


@situation(1, "`forward(batch)` takes the batch's tuple")
def forward_of_tuple():
    class Model(Module):
        def forward(self, batch):
            images, _ = batch
            return self.net(images)

        def step(self, batch):
            return F.cross_entropy(self(batch), batch[1])

    return Training(Model(), rows(images, labels)), all_right


@situation(
    1,
    "`forward(**inputs)`, called with the batch's fields but the labels",
)
def forward_of_keywords():
    class Model(Module):
        def forward(self, **inputs):
            return self.net(inputs["image"])

        def step(self, batch):
            return F.cross_entropy(self(**{name: batch[name] for name in batch if name != "label"}), batch["label"])

    return Training(Model(), loader(by_name)), shown_as_images


@situation(
    1,
    "the step flattens images before it calls",
    says=r"inputs: .*batch\[0\].*flattened",
)
def step_flattens():
    class Model(Classifier):
        def step(self, batch):
            images, labels = batch
            return F.cross_entropy(self(images.view(len(images), -1)), labels)

    return Training(Model(Perceptron()), rows(images, labels), draws=("filters", "saliency")), all_right


@situation(
    1,
    "the step permutes images `[N, H, W, C]` before it calls",
)
def step_permutes():
    class Model(Classifier):
        def step(self, batch):
            images, labels = batch
            return F.cross_entropy(self(images.permute(0, 3, 1, 2)), labels)

    return Training(Model(), rows(images.permute(0, 2, 3, 1), labels)), shown_as_images


@situation(1, "`forward` takes images `[N, H, W, C]`")
def channels_last():
    class Model(Classifier):
        def forward(self, images):
            return self.net(images.permute(0, 3, 1, 2))

    return Training(Model(), rows(images.permute(0, 2, 3, 1), labels)), shown_as_images


@situation(
    1,
    "no `forward`: the step calls `self.net(x)`",
)
def no_forward():
    class Model(Module):
        def step(self, batch):
            return F.cross_entropy(self.net(batch[0]), batch[1])

    return Training(Model(), rows(images, labels)), shown_as_images


@situation(
    1, "no `forward`: the step calls `self.encoder`, then `self.decoder`; the last is meant", says=r"\bdecoder\b"
)
def encoder_then_decoder():
    class Model(Module):
        def __init__(self):
            super().__init__(nn.Identity())
            self.encoder = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU())
            self.decoder = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 4))

        def step(self, batch):
            code = self.encoder(batch[0])
            return F.mse_loss(self.decoder(code), batch[0])

    def check(seen):
        no_class_words(seen)
        assert tuple(seen.inputs.shape[1:]) in ((6, 4, 4), (3, 16, 16)), seen.inputs.shape

    return Training(Model(), rows(images, labels), draws=("filters", "activations")), check


@situation(1, "a GAN: `forward(z)`, the discriminator in the step, two optimizers by hand")
def gan():
    class Model(Module):
        def __init__(self):
            super().__init__(nn.Identity())
            self.automatic_optimization = False
            self.generator = nn.Sequential(nn.Linear(5, 48), nn.Unflatten(1, (3, 4, 4)), nn.ConvTranspose2d(3, 3, 4, 4))
            self.discriminator = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 1))

        def forward(self, z):
            return self.generator(z)

        def training_step(self, batch, batch_idx):
            for optimizer, real in zip(self.optimizers(), (1.0, 0.0), strict=True):
                verdict = self.discriminator(self(torch.randn(len(batch[0]), 5)))
                optimizer.zero_grad()
                self.manual_backward(F.binary_cross_entropy_with_logits(verdict, torch.full_like(verdict, real)))
                optimizer.step()

        validation_step = None

        def configure_optimizers(self):
            return [torch.optim.SGD(part.parameters(), 0.0) for part in (self.generator, self.discriminator)]

    def check(seen):
        assert tuple(seen.inputs.shape[1:]) in ((5,), (3, 16, 16)), seen.inputs.shape
        no_class_words(seen)

    return Training(Model(), rows(images, labels), None, draws=("filters", "activations")), check


@situation(1, "diffusion: `forward(x, t)`, the batch is `(image, label)`; labels are no time steps")
def noise_and_time():
    class Model(Module):
        def forward(self, images, times):
            return self.net(images) * (times / 1000)[:, None, None, None]

        def step(self, batch):
            noise = torch.randn_like(batch[0])
            return F.mse_loss(self(batch[0] + noise, torch.randint(100, 1000, (len(noise),))), noise)

    def check(seen):
        _, times = seen.inputs
        assert (times >= 100).all(), f"time steps are {times.tolist()}"
        no_class_words(seen)

    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    return Training(Model(net), rows(images, labels), draws=("filters", "activations")), check


@situation(
    1,
    "a net compiled by `torch.compile`, called on what the step flattens",
)
def compiled():
    class Model(Module):
        def step(self, batch):
            return F.cross_entropy(self.net(batch[0].flatten(1)), batch[1])

    return Training(Model(torch.compile(Perceptron(), backend="eager")), rows(images, labels), draws=("filters",)), (
        lambda seen: are_rows_of(seen.inputs, images)
    )


@situation(1, "no sanity check, no step yet: `example_input_array` tells that the model takes flat images")
def example_input():
    class Model(Classifier):
        def __init__(self):
            super().__init__(Perceptron())
            self.example_input_array = torch.zeros(2, 3 * 16 * 16)

        def step(self, batch):
            return F.cross_entropy(self(batch[0].flatten(1)), batch[1])

    training = Training(
        Model(), rows(images, labels), draws=("filters", "saliency"), options={"num_sanity_val_steps": 0}
    )

    def check(seen):
        all_right(seen)
        assert {drawing.step for drawing in seen.of("saliency")} == {0, 2}

    return training, check


@situation(1, "no sanity check: `batch[0]`, which `forward` accepts, is looked at before the first step")
def no_sanity_check():
    def check(seen):
        shown_as_images(seen)
        assert {drawing.step for drawing in seen.of("grad_cam")} == {0, 2}

    return Training(Classifier(), rows(images, labels), options={"num_sanity_val_steps": 0}), check


@situation(
    1,
    "no sanity check, and `forward` does not accept `batch[0]`: one look is left out, and said",
    says="step 0",
)
def first_look_left_out():
    class Model(Module):
        def forward(self, batch):
            return self.net(batch["image"])

        def step(self, batch):
            return F.cross_entropy(self(batch), batch["label"])

    def check(seen):
        shown_as_images(seen)
        steps = {drawing.step for drawing in seen.of("grad_cam")}
        assert 0 not in steps and 2 in steps, steps

    return Training(Model(), loader(by_name), options={"num_sanity_val_steps": 0}), check


@situation(
    1,
    "the step calls no module at all: filters are drawn, one line names the argument",
    REFUSED,
    says=r"Probe\(inputs=",
)
def no_call():
    class Model(Module):
        def step(self, batch):
            filtered = F.relu(F.conv2d(batch[0], self.net.conv.weight))
            return F.cross_entropy(20 * F.adaptive_avg_pool2d(filtered, 2).mean(1).flatten(1), batch[1])

    return Training(Model(), rows(images, labels), draws=("filters",)), lambda seen: None


@situation(
    1,
    "`Probe(inputs=, labels=, forward=)` overrides what was watched",
    ARGUMENT,
)
def given_probe():
    class Model(Module):
        def step(self, batch):
            return F.cross_entropy(self.net(batch[0]), batch[1])

    model = Model()
    probe = Probe(inputs=images.flip(0), labels=labels.flip(0), forward=lambda model, images: model.net(images))
    views = [view for view in default_views(probe=probe) if view.kind != "embedding"]
    return Training(model, rows(images, labels), views=views), shown_as_images


@situation(
    1,
    "`Probe(inputs='image', labels='category')` names fields of the batch",
    ARGUMENT,
)
def named_fields():
    def item(index):
        return {"preview": 0 * images[index], "group": index % 2, "image": images[index], "category": labels[index]}

    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch["image"]), batch["category"])

    views = [view for view in default_views(probe=Probe(inputs="image", labels="category")) if view.kind != "embedding"]
    return Training(Model(), loader(item), views=views), shown_as_images


@pytest.mark.parametrize("row", situations(__name__))
def test_calls(row, tmp_path: Path):
    row.verify(tmp_path)
