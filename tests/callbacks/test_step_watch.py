"""What is read of a module's own step: inputs, what was done to them, labels, and the module whose output is meant."""

from __future__ import annotations

import types

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_viz.callbacks.batch_parts import padded, reading_of, split_batch
from lightning_viz.callbacks.step_watch import StepReader, StepWatch
from lightning_viz.errors import InvalidTypeError
from lightning_viz.hooks.calls import call_model

CALL = nn.Module.__call__
X = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 4


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 3, 3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv(x)).mean((2, 3)))


class Model(nn.Module):
    """A LightningModule as far as a step goes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.encoder, self.head, self.mlp = Net(), nn.Conv2d(1, 3, 3), nn.Linear(3, 4), nn.Linear(36, 4)
        self.flat, self.pair = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), nn.Bilinear(36, 36, 4)
        self.loss, self.frozen = nn.CrossEntropyLoss(), Net().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def step(model: Model, batch: object, body: object, *, validation: bool = True) -> tuple[object, object]:
    """The reading of a step, and what the step's last call returned."""
    outputs: list[object] = []
    model.validation_step = types.MethodType(lambda self, given, index: body(self, given), model)
    before = [dict(module.__dict__) for module in model.modules()]
    watch = StepWatch(model, batch, replays="validation_step" if validation else "")
    watch.start()
    try:
        outputs.append(model.validation_step(batch, 0))
    finally:
        watch.stop()
    assert [module.__dict__.keys() for module in model.modules()] == [own.keys() for own in before]
    assert nn.Module.__call__ is CALL
    return watch.reading(), outputs[0]


READ = {
    "forward": ([X, Y], lambda m, b: F.cross_entropy(m(b[0]), b[1]), "inputs: batch[0]; labels: batch[1]"),
    "no forward": (
        {"image": X, "label": Y},
        lambda m, b: m.loss(m.net(b["image"]), b["label"]),
        "inputs: batch['image'], through net; labels: batch['label']",
    ),
    "flattened": (
        [X, Y],
        lambda m, b: F.cross_entropy(m.mlp(b[0].flatten(1)), b[1]),
        "inputs: batch[0] flattened to [N, 36], through mlp; labels: batch[1]",
    ),
    "channels last, bytes": (
        [(X * 255).byte().permute(0, 2, 3, 1).contiguous(), Y],
        lambda m, b: F.cross_entropy(m(b[0].permute(0, 3, 1, 2).float() / 255), b[1]),
        "inputs: batch[0] permuted to [0, 3, 1, 2], times 0.00392; labels: batch[1]",
    ),
    "normalized": (
        [X, Y],
        lambda m, b: F.cross_entropy(m((b[0] - 0.3) / 0.2), b[1]),
        "inputs: batch[0] times 5; labels: batch[1]",
    ),
    "label by comparison, after another number": (
        [X, torch.zeros(8).long(), Y],
        lambda m, b: (m(b[0]).argmax(1) == b[2]).float().mean(),
        "inputs: batch[0]; labels: batch[2]",
    ),
    "label converted": (
        [X, Y],
        lambda m, b: F.binary_cross_entropy_with_logits(m(b[0])[:, :1], (b[1] > 1).float()[:, None]),
        "inputs: batch[0]; labels: batch[1]",
    ),
    "chain": (
        [X, Y],
        lambda m, b: F.cross_entropy(m.head(m.flat(b[0])), b[1]),
        "inputs: batch[0], through flat and head; labels: batch[1]",
    ),
    "functions between modules": (
        [X, Y],
        lambda m, b: F.cross_entropy(m.head(F.relu(m.encoder(b[0])).mean((2, 3))), b[1]),
        "inputs: batch[0], batch[1], through head as in validation_step; labels: batch[1]",
    ),
    "two views": (
        [(X, X + 1), Y],
        lambda m, b: (m(b[0][0]) - m(b[0][1])).pow(2).mean(),
        "inputs: batch[0][1]; labels: none",
    ),
    "siamese": (
        [X, X.flip(3), Y],
        lambda m, b: F.cross_entropy(m.pair(b[0].flatten(1), b[1].flatten(1)), b[2]),
        "inputs: batch[0] flattened to [N, 36], batch[1] flattened to [N, 36], through pair; labels: batch[2]",
    ),
    "perceptual loss through a frozen net": (
        [X, Y],
        lambda m, b: F.mse_loss(m.frozen(m.encoder(b[0]).mean(1, keepdim=True)), m.frozen(b[0][..., :4, :4])),
        "inputs: batch[0], through encoder; labels: none",
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_step_says_what_its_model_is_given(name):
    batch, body, words = READ[name]
    model = Model()
    reading, _ = step(model, batch, body)
    assert reading.words() == words
    assert reading.complete and reading.plain == (words == "inputs: batch[0]; labels: batch[1]")
    last = model.get_submodule(reading.steps[-1].module)
    outputs: list[Tensor] = []
    handle = last.register_forward_hook(lambda module, args, output: outputs.append(output))
    body(model, batch)
    handle.remove()
    parts = split_batch(batch, model, reading)
    assert torch.allclose(call_model(model, parts.inputs), outputs[-1], atol=1e-5)
    if reading.labels is not None:
        assert torch.equal(parts.labels, Y)


def test_inputs_that_only_the_step_makes_are_kept_as_it_made_them():
    model = Model()
    reading, _ = step(model, [X, Y], lambda m, b: m(torch.randn(8, 1, 6, 6)).mean())
    assert not reading.complete and reading.made.shape == X.shape and reading.made_labels is None
    with pytest.raises(InvalidTypeError, match=r"made by the step itself.*give probe=Probe"):
        split_batch([X, Y], model, reading)
    reading, _ = step(model, [X, Y], lambda m, b: m(b[0] + torch.randn(8, 1, 6, 6)).mean())
    assert torch.equal(reading.made_labels, Y)  # of the batch's own samples


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda m, b: F.nll_loss(m(b[0]).clamp_min(1e-9).log(), b[1]), ("nll_loss", "", True)),
        (lambda m, b: F.nll_loss(F.log_softmax(m(b[0]), 1), b[1]), ("nll_loss", "", False)),
        (
            lambda m, b: F.mse_loss(m(b[0]), torch.zeros(8, 4)),
            ("mse_loss", "", False),
        ),
        (lambda m, b: m.loss(m(b[0]), b[1]), ("cross_entropy", "", False)),
    ],
)
def test_the_loss_and_whether_it_takes_a_logarithm_are_seen(body, expected):
    reading, _ = step(Model(), [X, Y], body)
    assert (reading.loss, reading.squashed, reading.logarithm) == expected


def test_a_softmax_at_the_end_is_seen():
    model = Model()
    model.net.fc = nn.Sequential(model.net.fc, nn.Softmax(1))
    reading, _ = step(model, [X, Y], lambda m, b: F.nll_loss(m(b[0]).log(), b[1]))
    assert reading.squashed == "softmax" and reading.logarithm


def test_labels_that_a_model_can_do_without_are_not_given_to_it():
    class WithLoss(Model):
        def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> object:
            output = self.net(pixel_values)
            return output if labels is None else (F.cross_entropy(output, labels), output)

    model, batch = WithLoss(), {"pixel_values": X, "labels": Y}
    reading, _ = step(model, batch, lambda m, b: m(**b)[0])
    parts = split_batch(batch, model, reading)
    assert list(parts.inputs) == ["pixel_values"] and torch.equal(parts.labels, Y)
    assert reading.words() == "inputs: batch['pixel_values']; labels: batch['labels']"


def test_a_list_of_images_of_unlike_sizes_goes_as_one_tensor_and_reaches_the_model_as_the_list():
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, images: list[Tensor]) -> Tensor:
            assert isinstance(images, list)
            return torch.cat([self.net(image[None]) for image in images])

    model = Listed()
    images = [torch.rand(1, 6, 8), torch.rand(1, 7, 5)]
    batch = (images, [{"boxes": torch.rand(1, 4)}, {"boxes": torch.rand(2, 4)}])
    reading, output = step(model, batch, lambda m, b: m(b[0]))
    inputs = reading.split(batch).inputs
    assert inputs.tensors[0].shape == (2, 1, 7, 8) and torch.equal(inputs.tensors[1], padded(images)[1])
    assert torch.equal(call_model(model, inputs), output)


def test_the_step_is_the_same_and_read_once():
    model = Model()
    plain = model(X)
    reader = StepReader(model)
    assert reader.pending
    reader.start([X, Y], "validation_step")
    state = torch.get_rng_state()
    assert torch.equal(model(X), plain) and torch.equal(torch.get_rng_state(), state)
    assert reader.stop() is reading_of(model) is not None
    assert not reader.pending
    reader.start([X, Y], "validation_step")
    assert reader.stop() is None
    assert StepReader(model).pending and reading_of(model) is None  # another run may have other data


@pytest.mark.parametrize("first", ["watched", "not watched"])
@pytest.mark.parametrize("place", ["inside", "in place", "within another"])
def test_compiled_modules_are_watched_from_outside(place, first):
    model = Model()
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        calls.append(1)
        return graph.forward

    if place == "within another":
        model.net.fc = torch.compile(model.net.fc, backend=backend)
    elif place == "inside":
        model.net = torch.compile(model.net, backend=backend)
    else:
        model.net.compile(backend=backend)
    with torch.no_grad():
        if first == "not watched":
            model.net(X)
        assert StepReader(model).pending
        reading, _ = step(model, [X, Y], lambda m, b: F.cross_entropy(m.net(b[0]), b[1]))
        model.net(X)
    assert len(calls) == 1  # not compiled anew
    assert reading.words() == "inputs: batch[0], through net; labels: batch[1]"


class Self(nn.Module):
    """Attention of tokens to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


ATTEND = {
    "attention": Self,
    "layer": lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
    "encoder": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False
    ),
}


@pytest.mark.parametrize("inner", [True, False], ids=["within the model", "called by the step"])
@pytest.mark.parametrize("kind", ATTEND)
def test_a_watched_validation_step_takes_torchs_fast_path_as_an_unwatched_one_does(kind, inner):
    torch.manual_seed(0)
    attends, tokens = ATTEND[kind]().eval(), torch.randn(8, 17, 16)
    model = Model()
    model.net = nn.Sequential(attends, nn.Flatten()).eval() if inner else attends
    with torch.no_grad():
        plain = model.net(tokens)
        reading, watched = step(model, [tokens, Y], lambda m, b: m.net(b[0]))
    assert torch.equal(watched, plain)
    assert reading.sources[0].path == (0,)
