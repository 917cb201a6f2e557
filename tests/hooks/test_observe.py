"""One pass that sees what autograd sees, whatever the model does, and leaves nothing behind."""

import copy
import dataclasses
import gc
import pickle
import weakref
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_viz.attribution import grad_cam
from lightning_viz.errors import LayerNotFoundError
from lightning_viz.hooks.observe import observe, observe_batches
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.hooks.recording import recording

Pair = namedtuple("Pair", "hidden mask")


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor | None = None


class Small(nn.Module):
    """conv1 - relu - conv2 - relu (the same module) - pool - fc."""

    def __init__(self, inplace=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace)
        self.unused = nn.Linear(2, 2)
        self.fc = nn.Linear(6, 5)

    def stages(self, x):
        a = self.conv1(x)
        b = self.relu(a)
        c = self.conv2(b)
        d = self.relu(c)
        return a, b, c, d, self.fc(d.mean((2, 3)))

    def forward(self, x):
        return self.stages(x)[-1]


def small(seed=0, **options):
    torch.manual_seed(seed)
    return Small(**options)


def images(count=2, size=8, seed=1):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def truth(model, x, target, names=("conv1", "relu:0", "conv2", "relu:1")):
    """Activations, their gradients and the input's by plain autograd on a copy in eval mode that writes to nothing."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    x = x.clone().requires_grad_()
    *stages, logits = model.stages(x)
    scores = logits.gather(1, torch.as_tensor(target).expand(len(x))[:, None]).sum()
    *slopes, of_input = torch.autograd.grad(scores, [*stages, x])
    return dict(zip(names, stages, strict=True)), dict(zip(names, slopes, strict=True)), of_input, logits


def agrees(seen, model, x, target, **tolerance):
    activations, gradients, of_input, logits = truth(model, x, target)
    assert torch.allclose(seen.outputs, logits, **tolerance)
    for name in seen.activations:
        assert torch.allclose(seen.activations[name], activations[name], **tolerance), name
    for name, slope in seen.gradients.items():
        assert torch.allclose(slope, gradients[name], **tolerance), name
        assert slope.abs().max() > 0
    if seen.input_gradient is not None:
        assert torch.allclose(seen.input_gradient, of_input, **tolerance)


LAYERS = ["conv1", "relu", "conv2"]


# --- What is seen.


@pytest.mark.parametrize("inplace", [False, True])
def test_it_sees_what_autograd_sees_also_of_reused_and_in_place_layers(inplace):
    model, x = small(inplace=inplace), images()
    seen = observe(model, x, [3, 1], layers=LAYERS, gradients=True, input_gradient=True)
    assert list(seen.activations) == ["conv1", "relu:0", "relu:1", "conv2"]
    assert list(seen.gradients) == list(seen.activations)
    assert seen.calls("relu") == ["relu:0", "relu:1"] and seen.calls("conv1") == ["conv1"]
    agrees(seen, model, x, [3, 1])
    assert seen.targets.tolist() == [3, 1]
    assert torch.equal(seen.inputs, x)


def test_without_gradients_the_same_activations_and_no_backward(monkeypatch):
    model, x = small(inplace=True), images()
    with monkeypatch.context() as patch:
        patch.setattr(torch.autograd, "grad", lambda *_, **__: pytest.fail("a backward pass"))
        seen = observe(model, x, layers=LAYERS)
    agrees(seen, model, x, 0)
    assert seen.gradients == {} and seen.input_gradient is None
    assert seen.targets.tolist() == seen.outputs.argmax(1).tolist()


def test_torchvisions_in_place_relus_leave_every_record_intact():
    torch.manual_seed(0)
    model = torchvision.models.vgg11(num_classes=7).eval()
    plain = copy.deepcopy(model)
    relus = [module for module in plain.modules() if isinstance(module, nn.ReLU)]
    assert all(module.inplace for module in relus)
    for module in relus:
        module.inplace = False
    x = images(size=32)
    mine, reference = (
        observe(net, x, 2, layers=[nn.Conv2d, nn.ReLU], gradients=True, input_gradient=True) for net in (model, plain)
    )
    assert len(mine.activations) == 18
    for name in mine.activations:
        assert torch.equal(mine.activations[name], reference.activations[name]), name
        assert torch.equal(mine.gradients[name], reference.gradients[name]), name
    assert torch.equal(mine.input_gradient, reference.input_gradient)
    assert (mine.activations["features.0"] < 0).any()  # before the ReLU


def test_in_place_additions_after_a_layer_leave_its_record_intact():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = self.a(x)
            y += x
            y.mul_(2)
            return self.b(y)

    torch.manual_seed(0)
    model, x = Skip(), torch.randn(3, 4)
    seen = observe(model, x, 1, layers="a", gradients=True)
    assert torch.allclose(seen.activations["a"], model.a(x))
    assert torch.allclose(seen.gradients["a"], 2 * model.b.weight[1].expand(3, 4))


class Wraps(nn.Module):
    """A layer whose output comes in a given structure, and a head that takes it apart."""

    def __init__(self, pack, unpack):
        super().__init__()
        self.layer = Packed(pack)
        self.head = nn.Linear(4, 3)
        self.unpack = unpack

    def forward(self, x):
        return self.head(self.unpack(self.layer(x)))


class Packed(nn.Module):
    def __init__(self, pack):
        super().__init__()
        self.inner, self.pack = nn.Linear(4, 4), pack

    def forward(self, x):
        return self.pack(self.inner(x).tanh())


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        (lambda h: h, lambda o: o),
        (lambda h: (h, h.detach()), lambda o: o[0]),
        (lambda h: [h.argmax(1), h], lambda o: o[1]),
        (lambda h: {"mask": h > 0, "hidden": h}, lambda o: o["hidden"]),
        (lambda h: Pair(h, None), lambda o: o.hidden),
        (lambda h: Output(h), lambda o: o.logits),
        (lambda h: {"nested": [None, (Output(h),)]}, lambda o: o["nested"][1][0].logits),
    ],
    ids=["tensor", "tuple", "list", "dict", "namedtuple", "dataclass", "nested"],
)
def test_layers_that_return_structures(pack, unpack):
    torch.manual_seed(0)
    model, x = Wraps(pack, unpack), torch.randn(3, 4)
    seen = observe(model, x, 1, layers="layer", gradients=True)
    assert torch.allclose(seen.activations["layer"], model.layer.inner(x).tanh())
    assert torch.allclose(seen.gradients["layer"], model.head.weight[1].expand(3, 4))


@pytest.mark.parametrize(
    "pack",
    [
        lambda y: (y, None),
        lambda y: {"mask": y > 0, "out": y},
        lambda y: Pair(y, None),
        lambda y: Output(y),
        lambda y: [y],
    ],
)
def test_models_that_return_structures(pack):
    torch.manual_seed(0)
    model, x = Packed(pack), torch.randn(3, 4)
    seen = observe(model, x, layers="inner", gradients=True)
    outputs = model.inner(x).tanh()
    assert torch.allclose(seen.outputs, outputs)
    assert seen.targets.tolist() == outputs.argmax(1).tolist()
    expected = F.one_hot(seen.targets, 4) * (1 - outputs**2)
    assert torch.allclose(seen.gradients["inner"], expected, atol=1e-6)


def test_an_lstm():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    torch.manual_seed(0)
    model, x = Reader(), torch.randn(2, 5, 3)
    seen = observe(model, x, 1, layers="lstm", gradients=True, input_gradient=True)
    expected = torch.zeros(2, 5, 4)
    expected[:, -1] = model.head.weight[1]
    assert torch.allclose(seen.gradients["lstm"], expected)
    assert torch.allclose(seen.activations["lstm"], model.lstm(x)[0])
    leaf = x.clone().requires_grad_()
    assert torch.allclose(seen.input_gradient, torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0])


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.image = nn.Embedding(6, 4), nn.Linear(3, 4)

    def forward(self, image, words, weight=None):
        y = self.image(image) * self.words(words).mean(1)
        return y if weight is None else y * weight


@pytest.mark.parametrize("form", ["tuple", "dict"])
def test_several_inputs_with_whole_numbers_beside(form):
    torch.manual_seed(0)
    model, image, words = Two(), torch.randn(2, 3), torch.tensor([[1, 2], [3, 3]])
    inputs = (image, words) if form == "tuple" else {"words": words, "image": image}
    seen = observe(model, inputs, 2, layers="words", gradients=True, input_gradient=True)
    of_image = seen.input_gradient[0 if form == "tuple" else "image"]
    expected = model.image.weight[2] * model.words(words).mean(1)[:, 2:3]
    assert torch.allclose(of_image, expected)
    assert seen.input_gradient[1 if form == "tuple" else "words"] is None
    assert type(seen.inputs) is type(inputs)
    assert seen.activations["words"].shape == (2, 2, 4)
    assert torch.allclose(seen.gradients["words"][0, 0, 2], model.image(image)[0, 2] / 2)


def test_a_forward_of_ones_own():
    model, x = small(), images()
    seen = observe(
        model, (x, 2.0), 1, layers="conv2", gradients=True, forward=lambda net, given: net(given[0]) * given[1]
    )
    expected = observe(model, x, 1, layers="conv2", gradients=True)
    assert torch.allclose(seen.gradients["conv2"], 2 * expected.gradients["conv2"])


def test_a_target_that_is_a_function_of_the_whole_output():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            h = self.a(x)
            return {"logits": self.b(h), "hidden": h}

    model, x = Hidden(), torch.randn(3, 4)
    seen = observe(model, x, lambda out: out["hidden"][:, 2], layers=["a", "b"], gradients=True)
    assert torch.equal(seen.gradients["a"], F.one_hot(torch.tensor([2, 2, 2]), 4).float())
    assert seen.gradients["b"] is None  # the target does not depend on it
    assert seen.targets is None


def test_what_the_target_does_not_depend_on_and_what_is_not_called():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.aside, self.never = (nn.Linear(4, 4) for _ in range(3))
            self.cut = nn.Linear(4, 4)

        def forward(self, x):
            return {"aside": self.aside(x), "logits": self.main(x) + self.cut(x).detach()}

    seen = observe(Branches(), torch.randn(2, 4), 0, layers=["main", "aside", "never", "cut"], gradients=True)
    assert seen.gradients["aside"] is None and seen.gradients["cut"] is None
    assert seen.gradients["main"].abs().sum() > 0
    assert seen.unreached == ("never",)
    assert set(seen.activations) == {"main", "aside", "cut"}
    attention = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))
    seen = observe(attention, torch.randn(2, 3, 4), layers="0.self_attn.out_proj")
    assert seen.unreached == ("0.self_attn.out_proj",)  # its weights are used, the module is not called


def test_a_rule_where_no_input_has_a_gradient_leaves_the_other_gradients_alone():
    words = torch.tensor([[1, 2], [8, 3]])
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.ReLU(), nn.Linear(8, 3))
    plain = observe(model, words, 1, layers="0", gradients=True)
    seen = observe(model, words, 1, layers="0", gradients=True, rules=("guided", "deconvolution"))
    assert torch.equal(seen.gradients["0"], plain.gradients["0"])
    assert seen.ruled == {"guided": None, "deconvolution": None} and seen.relus.met == 1


def test_gradients_for_some_layers_only():
    model, x = small(inplace=True), images()
    seen = observe(model, x, 1, layers=["conv1", "relu"], gradients="conv2")
    assert list(seen.gradients) == ["conv2"]
    agrees(seen, model, x, 1)
    assert not any(tensor.requires_grad for tensor in all_tensors(dataclasses.replace(seen)))


def test_a_parent_and_its_last_child_that_share_a_tensor():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3))), nn.ReLU(inplace=True))
    model.append(nn.Flatten()).append(nn.LazyLinear(5))
    x = images()
    model(x)
    names = ["0", "0.1", "0.1.0"]
    seen = observe(model, x, 1, layers=names, gradients=True)
    inner = model[0](x).detach().requires_grad_()
    slope = torch.autograd.grad(model[3](model[2](F.relu(inner)))[:, 1].sum(), inner)[0]
    for name in names:
        assert torch.allclose(seen.activations[name], inner)
        assert torch.allclose(seen.gradients[name], slope)


def test_a_module_under_two_names_is_seen_under_each():
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    model, x = nn.Sequential(shared, nn.Tanh(), shared), torch.randn(2, 4)
    seen = observe(model, x, 1, layers=["0", "2"], gradients=True)
    assert set(seen.activations) == {"0:0", "0:1", "2:0", "2:1"}
    for call, layer in (("0", 0), ("1", 2)):
        assert torch.allclose(seen.activations[f"0:{call}"], model[: layer + 1](x))
        assert torch.equal(seen.gradients[f"0:{call}"], seen.gradients[f"2:{call}"])


def test_a_model_that_writes_to_its_input():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            x.mul_(2).add_(1)
            return self.fc(x)

    model, x = Writes(), torch.randn(2, 4)
    given = x.clone()
    seen = observe(model, given, 1, layers="fc", input_gradient=True)
    assert torch.equal(given, x) and torch.equal(seen.inputs, x)
    assert torch.allclose(seen.input_gradient, 2 * model.fc.weight[1].expand(2, 4))
    dropout_first = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))
    seen = observe(dropout_first, given, 1, input_gradient=True)
    assert torch.equal(given, x) and torch.equal(seen.inputs, x)
    batches = [given]
    observe_batches(model, batches, count=sum(map(len, batches)), reduce={"fc": lambda y: y})
    assert torch.equal(given, x)


def test_misuse_is_an_error_that_names_the_layer():
    with pytest.raises(LayerNotFoundError, match="no layer matches 'conv3'; did you mean"):
        observe(small(), images(), layers="conv1", gradients="conv3")
    with pytest.raises(LayerNotFoundError, match="conv9"):
        observe(small(), images(), reduce={"conv9": lambda y: y})


# --- Wherever it is called from.


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inside_no_grad_and_inference_mode(mode):
    model, x = small(inplace=True), images()
    with mode():
        given = images()  # in inference mode: an inference tensor
        seen = observe(model, given, 2, layers=LAYERS, gradients=True, input_gradient=True)
        reduced = observe_batches(model, [given], count=len(given), reduce={"conv1": lambda y: y.flatten(1)})
        assert torch.is_grad_enabled() is False
    agrees(seen, model, x, 2)
    assert torch.equal(reduced["conv1"], seen.activations["conv1"].flatten(1))
    assert not any(
        x.is_inference() for x in [*seen.activations.values(), *seen.gradients.values(), seen.input_gradient]
    )


def test_under_autocast():
    model, x = small(inplace=True), images()
    with torch.autocast("cpu", torch.bfloat16):
        seen = observe(model, x, 2, layers=LAYERS, gradients=True, input_gradient=True)
        seen_again = observe(model, x, 2, layers=LAYERS, gradients=True, input_gradient=True)
    assert seen.activations["conv1"].dtype == torch.bfloat16
    assert seen.input_gradient.dtype == torch.float32
    agrees(dataclasses.replace(
        seen,
        outputs=seen.outputs.float(),
        activations={k: v.float() for k, v in seen.activations.items()},
        gradients={k: v.float() for k, v in seen.gradients.items()},
    ), model, x, 2, rtol=0.05, atol=0.02)  # fmt: skip
    assert torch.equal(seen.gradients["conv1"], seen_again.gradients["conv1"])
    with torch.autocast("cpu", torch.bfloat16):  # no weight in low precision is left behind for training
        loss = model(x).float().square().mean()
    loss.backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if not n.startswith("unused"))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("how", ["whole", "part", "method", "both"])
def test_compiled_modules_run_eagerly_for_the_look_and_stay_compiled(how):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model, x = small(inplace=True), images()
    reference = copy.deepcopy(model)
    if how in ("part", "both"):
        model.conv2 = torch.compile(model.conv2, backend=backend)
    if how == "method":
        model.compile(backend=backend)
    called = torch.compile(model, backend=backend) if how in ("whole", "both") else model
    called(x).sum().backward()
    compiled = len(graphs)
    assert compiled > 0
    seen = observe(called, x, 2, layers=LAYERS, gradients=True, input_gradient=True)
    assert list(seen.activations) == ["conv1", "relu:0", "relu:1", "conv2"]
    agrees(seen, reference, x, 2)
    assert called.training and all(module.training for module in model.modules())
    model.zero_grad()
    called(x).sum().backward()
    assert len(graphs) == compiled  # nothing was compiled for the look or after it
    torch._dynamo.reset()


class Checkpointed(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1))
        self.fc = nn.Linear(4, 3)
        self.options = options

    def forward(self, x):
        h = self.stem(x)
        h = checkpoint(self.block, h, **self.options) if self.options else self.block(h)
        return self.fc(h.relu().mean((2, 3)))


@pytest.mark.parametrize("from_the_input", [True, False])
def test_checkpointed_blocks_record_each_call_once_and_give_the_same_gradients(from_the_input):
    """With nothing upstream that asks for a gradient, Grad-CAM's leaf is made inside the block, and made again."""
    torch.manual_seed(0)
    plain = Checkpointed()
    model = Checkpointed(use_reentrant=False)
    model.load_state_dict(plain.state_dict())
    x, layers = images(), ["block.0", "block.1", "block.2"]
    mine, reference = (
        observe(net, x, 1, layers=layers, gradients=True, input_gradient=from_the_input) for net in (model, plain)
    )
    assert list(mine.activations) == layers
    for name in layers:
        assert torch.equal(mine.activations[name], reference.activations[name])
        assert torch.allclose(mine.gradients[name], reference.gradients[name], atol=1e-7)
        assert mine.gradients[name].abs().max() > 0
    if from_the_input:
        assert torch.allclose(mine.input_gradient, reference.input_gradient, atol=1e-7)
    mine, reference = (grad_cam(net, x, 1, layers="block.0")["block.0"] for net in (model, plain))
    assert torch.allclose(mine, reference, atol=1e-7)


def test_reentrant_checkpoints_name_the_remedy():
    model, x = Checkpointed(use_reentrant=True), images()
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        observe(model, x, 1, input_gradient=True)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_reentrant_checkpoints_name_the_remedy_also_where_the_layer_is_inside():
    model, x = Checkpointed(use_reentrant=True), images()
    with pytest.raises(RuntimeError, match=r"'block.2'.*use_reentrant=False"):
        observe(model, x, 1, layers="block.2", gradients=True)
    seen = observe(model, x, 1, layers=["block.2", "stem"])  # to look on is allowed
    assert torch.allclose(seen.activations["block.2"], model.block(model.stem(x)))


def test_a_layer_that_runs_under_no_grad_is_named():
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            with torch.no_grad():
                h = self.features(x).relu()
            return self.head(h.mean((2, 3)))

    with pytest.raises(RuntimeError, match=r"layer 'features' runs under torch.no_grad"):
        observe(Backbone(), images(), 1, layers="features", gradients=True)
    assert observe(Backbone(), images(), layers="features").activations["features"].shape[1] == 4


def test_frozen_parameters_and_eval_mode_change_nothing():
    model, x = small(), images()
    expected = observe(model, x, 1, layers=LAYERS, gradients=True, input_gradient=True)
    model.requires_grad_(False).eval()
    seen = observe(model, x, 1, layers=LAYERS, gradients=True, input_gradient=True)
    for name in expected.activations:
        assert torch.equal(seen.gradients[name], expected.gradients[name])
    assert torch.equal(seen.input_gradient, expected.input_gradient)


def test_dropout_and_batch_norm_are_in_eval_mode_and_the_generator_stays():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.9), nn.Linear(4, 3))
    x, before = torch.randn(5, 4), torch.get_rng_state()
    first, second = (observe(model, x, 1, layers="0", gradients=True) for _ in range(2))
    assert torch.equal(first.gradients["0"], second.gradients["0"])
    assert torch.equal(first.outputs, copy.deepcopy(model).eval()(x))
    assert torch.equal(model[1].running_mean, torch.zeros(4)) and model.training
    assert torch.equal(torch.get_rng_state(), torch.get_rng_state()) and torch.equal(before, torch.get_rng_state())


# --- What is left behind.


class Probed(nn.Module):
    """Keeps a weak eye on its own intermediate results."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)
        self.watched = Watch()

    def forward(self, x):
        y = self.a(x)
        z = y.exp()
        self.watched.tensors += [weakref.ref(y), weakref.ref(z)]
        return self.b(z)


class Watch:
    def __init__(self):
        self.tensors = []


def test_nothing_of_the_pass_stays_alive_but_the_observation():
    model, x = Probed(), torch.randn(2, 4)
    gc.collect()
    gc.disable()  # without the collector: no cycles
    try:
        seen = observe(
            model, x, 1, layers=["a", "b"], gradients=True, input_gradient=True, reduce={"a": lambda y: y.sum(1)}
        )
        assert model.watched.tensors and all(ref() is None for ref in model.watched.tensors)
        for tensor in all_tensors([seen.inputs, seen.outputs, seen.activations, seen.gradients, seen.input_gradient]):
            assert tensor.grad_fn is None and not tensor.requires_grad
        assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_recording_takes_its_hooks_away_and_records_nothing_more_once_closed():
    model, x = small(), images()
    with recording(
        model, x, {"conv1": model.conv1}, gradients=["conv1"], reduce={"fc": (model.fc, torch.sum)}
    ) as record:
        model(x)
        record.close()
        model(x)
    model(x)
    assert len(record.calls["conv1"]) == len(record.reduced["fc"]) == 1
    assert not any(m._forward_hooks for m in model.modules())
    with pytest.raises(KeyError), recording(model, x, {"conv1": model.conv1}):
        raise KeyError
    assert not model.conv1._forward_hooks


def test_nothing_stays_alive_of_a_pass_that_fails():
    class Fails(Probed):
        def forward(self, x):
            super().forward(x)
            raise KeyError("inside")

    model = Fails()
    with pytest.raises(KeyError):
        observe(model, torch.randn(2, 4), 1, layers=["a"], gradients=True)
    assert not any(m._forward_hooks for m in model.modules())
    gc.collect()
    assert all(ref() is None for ref in model.watched.tensors)
    assert model.training and model.a.weight.requires_grad


def test_an_observation_is_plain_data_that_can_be_pickled():
    model, x = small(inplace=True), images()
    seen = observe(model, x, 1, layers=LAYERS, gradients=True, input_gradient=True)
    again = pickle.loads(pickle.dumps(seen))
    assert torch.equal(again.gradients["conv1"], seen.gradients["conv1"])
    assert again.calls("relu") == ["relu:0", "relu:1"]


def test_what_is_seen_does_not_change_when_training_goes_on():
    model, x = small(inplace=True), images()
    model.fc.bias.data.zero_()
    seen = observe(model, x, 1, layers=[*LAYERS, "fc"], gradients=True)
    kept = pickle.loads(pickle.dumps(seen))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
        x.zero_()
    then, now = (all_tensors([one.inputs, one.outputs, one.activations, one.gradients]) for one in (kept, seen))
    assert all(torch.equal(a, b) for a, b in zip(then, now, strict=True))


# --- Populations.


def test_reductions_over_batches_are_those_over_the_whole():
    model, x = small(inplace=True), images(count=7)
    reduce = {"conv2": lambda y: y.flatten(1)[:, :5], "relu": lambda y: y.mean((2, 3))}
    found = observe_batches(model, [x[:3], x[3:6], x[6:]], count=len(x), reduce=reduce)
    stages = dict(zip(("relu:0", "conv2", "relu:1"), small().stages(x)[1:4], strict=True))
    assert set(found) == {"relu:0", "relu:1", "conv2"}
    assert torch.allclose(found["conv2"], stages["conv2"].flatten(1)[:, :5], atol=1e-6)
    assert torch.allclose(found["relu:1"], stages["relu:1"].mean((2, 3)), atol=1e-6)
    seen = observe(model, x, 1, layers="conv1", gradients=True, reduce=reduce)
    assert torch.allclose(seen.reduced["conv2"], found["conv2"], atol=1e-6)
    assert seen.dimensions == {"conv2": 6 * 64, "relu:0": 4 * 64, "relu:1": 6 * 64}
    assert seen.calls("relu") == ["relu:0", "relu:1"] and "conv2" not in seen.activations


def test_a_population_needs_no_more_memory_than_a_batch():
    alive = []

    class Big(nn.Module):
        def __init__(self):
            super().__init__()
            self.big = nn.Linear(2, 1000)

        def forward(self, x):
            y = self.big(x)
            alive.append(weakref.ref(y))
            assert sum(ref() is not None for ref in alive) == 1
            return y

    observe_batches(
        Big(), (torch.randn(3, 2) for _ in range(5)), count=15, reduce={"big": lambda y: y.sum(1, keepdim=True)}
    )
    assert len(alive) == 5


def test_layers_without_a_row_for_each_sample_are_left_out_of_what_is_reduced():
    class Nodes(nn.Module):
        def __init__(self):
            super().__init__()
            self.node, self.fc = nn.Linear(2, 3), nn.Linear(3, 1)

        def forward(self, x):
            return self.fc(self.node(x.flatten(0, 1)).view(len(x), -1, 3).mean(1))

    batches = list(torch.rand(2, 4, 5, 2))
    reduced = observe_batches(Nodes(), batches, count=8, reduce={"node": lambda y: y, "fc": lambda y: y})
    assert reduced.keys() == {"fc"} and reduced["fc"].shape == (8, 1)
