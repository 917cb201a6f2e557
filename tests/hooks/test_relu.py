"""The ReLU rules on every way to write a ReLU, against a ReLU of the test's own put in the place of torch's."""

import threading

import captum.attr
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_viz.hooks.relu import relu_rule
from tests.truth import INFINITY, reference_rule

RULES = ["backprop", "deconvolution", "guided"]
torchscript = pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:FutureWarning")


# --- The reference: no mode that intercepts; torch's own names lead to another ReLU while the model runs.


def reference_gradient(model, x, rule):
    with reference_rule(rule):
        return gradient(model, x)


def gradient(model, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x)[:, 0].sum(), x)[0]


def ruled_gradient(model, x, rule):
    """The gradient under the rule, and how many calls were met; none may escape."""
    x = x.clone().requires_grad_()
    with relu_rule(rule) as relus:
        output = model(x)[:, 0].sum()
        result = torch.autograd.grad(output, x)[0]
    assert relus.escaped(output) == []
    return result, relus.met


def assert_close(ours, reference, relative):
    assert reference.abs().max() > 0
    assert (ours - reference).abs().max() <= relative * reference.abs().max()


# --- Every way to write a ReLU.


def discarded(name, *args):
    """The method in place, its result thrown away."""

    def call(x):
        getattr(x, name)(*args)
        return x

    return call


FORMS = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": lambda x: F.relu(x),
    "F.relu keyword": lambda x: F.relu(input=x),
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu in place, positional": lambda x: F.relu(x, True),
    "F.relu_": lambda x: F.relu_(x),
    "torch.relu": lambda x: torch.relu(x),
    "torch.relu keyword": lambda x: torch.relu(input=x),
    "torch.relu_": lambda x: torch.relu_(x),
    "relu": lambda x: x.relu(),
    "relu_": lambda x: x.relu_(),
    "relu_ discarded": discarded("relu_"),
    "clamp(min)": lambda x: x.clamp(min=0),
    "clamp_(min) discarded": discarded("clamp_", 0.0),
    "clamp_min": lambda x: x.clamp_min(0),
    "clamp_min_ discarded": discarded("clamp_min_", 0),
    "clip": lambda x: x.clip(0),
    "torch.clamp": lambda x: torch.clamp(x, 0),
    "torch.clamp(min, max=None)": lambda x: torch.clamp(x, min=0.0, max=None),
    "torch.clamp(max=inf)": lambda x: torch.clamp(x, 0, INFINITY),
    "torch.clamp_": lambda x: torch.clamp_(x, 0),
    "torch.clamp_min": lambda x: torch.clamp_min(x, min=0),
    "torch.clip_": lambda x: torch.clip_(x, 0),
    "F.threshold": lambda x: F.threshold(x, 0, 0),
    "F.threshold in place": lambda x: F.threshold(x, threshold=0.0, value=0.0, inplace=True),
    "F.threshold_": lambda x: F.threshold_(x, 0, 0),
    "torch.threshold": lambda x: torch.threshold(x, 0, 0),
    "nn.Threshold": nn.Threshold(0, 0),
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "F.relu6": lambda x: F.relu6(x),
    "F.relu6 in place": lambda x: F.relu6(x, inplace=True),
    "F.hardtanh(0, 6)": lambda x: F.hardtanh(x, 0, 6),
    "F.hardtanh(0, inf)": lambda x: F.hardtanh(x, 0.0, INFINITY),
    "F.hardtanh_": lambda x: F.hardtanh_(x, 0.0, 6.0),
    "nn.Hardtanh(0, 6)": nn.Hardtanh(0, 6),
    "clamp(0, 6)": lambda x: x.clamp(0, 6),
}
OPERATORS = {
    "relu": lambda x: torch.ops.aten.relu.default(x),
    "relu_": lambda x: torch.ops.aten.relu_.default(x),
    "relu, packet": lambda x: torch.ops.aten.relu(x),
    "relu, keyword": lambda x: torch.ops.aten.relu.default(self=x),
    "clamp": lambda x: torch.ops.aten.clamp.default(x, 0),
    "clamp_min": lambda x: torch.ops.aten.clamp_min.default(x, 0),
    "threshold": lambda x: torch.ops.aten.threshold.default(x, 0, 0),
}
OPERATORS6 = {
    "relu6": lambda x: torch.ops.aten.relu6.default(x),
    "hardtanh": lambda x: torch.ops.aten.hardtanh.default(x, 0.0, 6.0),
    "hardtanh_": lambda x: torch.ops.aten.hardtanh_.default(x, 0, 6),
}


class Net(nn.Module):
    """Two convolutions, each with the activation after it, and a linear layer; values reach well beyond 6."""

    def __init__(self, activation):
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8 * 16, 3)
        self.activation = activation

    def forward(self, x):
        x = self.activation(4 * self.conv1(x))
        x = self.activation(4 * self.conv2(x))
        return self.head(x.flatten(1))


class Skips(nn.Module):
    """A ReLU's input also feeds a skip, one of the two in place on the sum; one module is reused."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 3, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.conv1(x)
        x = x + self.conv2(F.relu(x))
        y = self.relu(self.conv2(self.relu(self.conv2(x))))
        y = y + x
        self.relu(y)
        return self.conv3(y).mean((2, 3))


class Mixture(nn.Module):
    """Many forms in one net, with a ReLU in place on a view and activations that are none."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1) for i in range(7))
        self.relu, self.relu6 = nn.ReLU(), nn.ReLU6(inplace=True)

    def forward(self, x):
        x = self.relu(self.convs[0](x))
        x = F.relu(self.convs[1](x), inplace=True)
        x = F.leaky_relu(self.convs[2](x), 0.3).clamp(min=0)
        x = self.convs[3](x)
        x.relu_()
        x = self.relu6(5 * self.convs[4](x))
        x = self.convs[5](x)
        x[:, 1:3].relu_()
        x = torch.relu(F.gelu(self.convs[6](x)) - 0.01)
        return x.clamp_min(0).clamp_max(1).mean((2, 3))


STRUCTURES = {"skips": (Skips, 4), "mixture": (Mixture, 8)}


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Inputs are small: more threads than free cores only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- The rules are right.


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_follows_the_rule(form, rule, x):
    model = Net(FORMS[form]).double()
    ours, met = ruled_gradient(model, x, rule)
    assert met == 2
    assert_close(ours, reference_gradient(model, x, rule), 1e-10)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", [*OPERATORS, *OPERATORS6])
def test_operators_of_exported_graphs_follow_the_rule(name, rule, x):
    model = Net((OPERATORS | OPERATORS6)[name]).double()
    ours, met = ruled_gradient(model, x, rule)
    assert met == 2
    model.activation = nn.ReLU() if name in OPERATORS else nn.ReLU6()
    assert_close(ours, reference_gradient(model, x, rule), 1e-10)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("wrap", ["plain", "fx", "export", "compile"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_whole_nets_follow_the_rule(name, wrap, rule, x):
    build, calls = STRUCTURES[name]
    model = build().double().eval()
    wrapped = {
        "plain": lambda: model,
        "fx": lambda: torch.fx.symbolic_trace(model),
        "export": lambda: torch.export.export(model, (x,)).module(),
        "compile": lambda: torch.compile(model, backend="eager"),
    }[wrap]()
    with torch.compiler.set_stance("force_eager" if wrap == "compile" else "default"):
        ours, met = ruled_gradient(wrapped, x, rule)
    assert met == calls
    assert_close(ours, reference_gradient(model, x, rule), 1e-10)


def test_the_rules_differ_from_one_another(x):
    model = Net(nn.ReLU()).double()
    backprop, deconvolution, guided = (ruled_gradient(model, x, rule)[0] for rule in RULES)
    for one, other in [(backprop, deconvolution), (backprop, guided), (deconvolution, guided)]:
        assert (one - other).abs().max() > 0.1 * other.abs().max()


def build_torchvision(name):
    options = {"googlenet": {"aux_logits": False, "init_weights": False}, "vgg11": {"init_weights": False}}
    return torchvision.models.get_model(name, weights=None, **options.get(name, {})).eval()


@pytest.mark.parametrize(
    "name, calls", [("resnet18", 17), ("googlenet", 57), ("densenet121", 121), ("vgg11", 10), ("mobilenet_v2", 35)]
)
def test_torchvision_nets_follow_every_rule(name, calls):
    model, x = build_torchvision(name), torch.randn(2, 3, 64, 64)
    for rule in RULES:
        ours, met = ruled_gradient(model, x, rule)
        assert met == calls
        assert_close(ours, reference_gradient(model, x, rule), 1e-5)


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
@pytest.mark.parametrize("rule, method", [("deconvolution", "Deconvolution"), ("guided", "GuidedBackprop")])
def test_captum_agrees_where_it_is_right(rule, method, x):
    """Where every ReLU is a module of its own."""
    conv = [nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(3)]
    model = nn.Sequential(
        conv[0], nn.ReLU(), nn.MaxPool2d(2), conv[1], nn.BatchNorm2d(8), nn.ReLU(), conv[2], nn.ReLU(), nn.Flatten()
    )
    model = nn.Sequential(model, nn.Linear(8 * 16, 3)).double().eval()
    ours, met = ruled_gradient(model, x, rule)
    assert met == 3
    assert_close(ours, getattr(captum.attr, method)(model).attribute(x.requires_grad_(), target=0).detach(), 1e-10)


@pytest.mark.parametrize("form", ["nn.ReLU", "relu_", "clamp(min)", "F.threshold", "nn.ReLU6", "clamp(0, 6)"])
def test_at_its_corners_a_relu_is_off(form):
    s = torch.tensor([[-1.0], [0.0], [1e-30], [3.0], [6.0], [7.0]])
    on = (s > 0) & (s < (6 if "6" in form else INFINITY))
    assert torch.equal(ruled_gradient(lambda s: FORMS[form](s * 1), s, "guided")[0], on.float())
    assert torch.equal(ruled_gradient(lambda s: FORMS[form](s * 1), s, "deconvolution")[0], torch.ones(6, 1))


@pytest.mark.parametrize("form", FORMS)
def test_backprop_is_autograd_exactly(form, x):
    model = Net(FORMS[form]).double()
    assert torch.equal(ruled_gradient(model, x, "backprop")[0], gradient(model, x))


@pytest.mark.parametrize("rule", RULES)
def test_autocast(rule, x):
    model, x = Skips(), x.float()
    with torch.autocast("cpu", torch.bfloat16):
        ours, met = ruled_gradient(model, x, rule)
        reference = reference_gradient(model, x, rule)
    assert met == 4
    assert_close(ours, reference, 1e-5)


@pytest.mark.parametrize("outside", [torch.no_grad, torch.inference_mode])
def test_within_code_that_has_gradients_off(outside, x):
    model = Skips().double()
    expected = ruled_gradient(model, x, "guided")[0]
    with outside():
        inputs = x.clone()
        with torch.inference_mode(False), torch.enable_grad():
            ours, met = ruled_gradient(model, inputs, "guided")
        with relu_rule("guided") as relus:
            output = model(inputs)
    assert met == relus.met == 4
    assert torch.equal(ours, expected)
    assert torch.equal(output, model(x))


def test_checkpointed_blocks_follow_the_rule_also_when_recomputed_outside_it(x):
    model = Net(nn.ReLU6(inplace=True)).double()
    expected = ruled_gradient(model, x, "guided")[0]
    inputs = x.clone().requires_grad_()
    with relu_rule("guided") as relus:
        output = checkpoint(model, inputs, use_reentrant=False)[:, 0].sum()
        within = torch.autograd.grad(output, inputs)[0]
        again = checkpoint(model, inputs, use_reentrant=False)[:, 0].sum()
    assert relus.met == 4
    assert torch.equal(within, expected)
    assert torch.equal(torch.autograd.grad(again, inputs)[0], expected)


# --- The forward is as it was.


@pytest.mark.parametrize("dtype, bits", [(torch.float32, torch.int32), (torch.bfloat16, torch.int16)])
@pytest.mark.parametrize("form", FORMS)
def test_values_are_unchanged_to_the_bit(form, dtype, bits):
    s = torch.cat([torch.randn(20) * 5, torch.tensor([0.0, -0.0, 6.0, INFINITY, -INFINITY, float("nan"), 1e-40])])
    s = s.to(dtype).requires_grad_()
    plain = FORMS[form](s * 1)
    with relu_rule("guided"):
        ours = FORMS[form](s * 1)
    assert torch.equal(ours.detach().view(bits), plain.detach().view(bits))


def test_in_place_calls_write_to_their_input_and_return_it():
    leaf = torch.randn(4, 5, requires_grad=True)
    with relu_rule("guided"):
        for form in ("relu_", "F.relu in place", "torch.clamp_", "nn.ReLU6 in place", "F.threshold_"):
            s = leaf * 1
            assert FORMS[form](s) is s
            assert s.min() == 0
        base = leaf * 1
        base[1:3].relu_()  # on a view
    assert torch.equal(base, torch.cat([leaf[:1], leaf[1:3].relu(), leaf[3:]]))
    g = torch.randn(4, 5)
    rows = torch.tensor([False, True, True, False])[:, None]
    expected = torch.where(rows & ((leaf <= 0) | (g <= 0)), 0, g)
    assert torch.equal(torch.autograd.grad(base, leaf, g)[0], expected)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "steps",
    [
        lambda s: (F.relu(s), s.add_(1))[0],  # the input overwritten
        lambda s: F.relu6(s).add_(1),  # the result overwritten
        lambda s: s.clamp(min=0).mul_(2),
        lambda s: s.clamp_(0).mul_(2),
        lambda s: F.hardtanh(s, 0, 6, True) ** 2,
    ],
)
def test_what_may_be_overwritten_in_plain_torch_may_be_under_the_rule(steps, rule):
    s = torch.linspace(-4, 9, 20)[:, None].requires_grad_()
    ours, _ = ruled_gradient(lambda s: steps(s * 1), s.detach(), rule)
    assert torch.allclose(ours, reference_gradient(lambda s: steps(s * 1), s.detach(), rule))


# --- Other activations stay plain.

NO_RELU = {
    "gelu": F.gelu,
    "silu": F.silu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "leaky_relu(0)": lambda x: F.leaky_relu(x, 0.0),
    "elu": F.elu,
    "hardswish": F.hardswish,
    "hardtanh": F.hardtanh,
    "hardtanh(0, 1)": lambda x: F.hardtanh(x, 0.0, 1.0),
    "clamp(0, 1)": lambda x: x.clamp(0, 1),
    "clamp(max)": lambda x: x.clamp(max=0),
    "clamp(min=-1)": lambda x: torch.clamp(x, min=-1.0),
    "clamp(min=tensor)": lambda x: x.clamp(min=torch.zeros((), dtype=x.dtype)),
    "clamp_min(1e-3)": lambda x: x.clamp_min(1e-3),
    "threshold(1, 0)": lambda x: F.threshold(x, 1, 0),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "integers": lambda x: x * torch.arange(-2, x.shape[-1] - 2).clamp(min=0),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NO_RELU)
def test_other_activations_are_not_met_and_stay_plain(name, rule, x):
    model = Net(NO_RELU[name]).double()
    ours, met = ruled_gradient(model, x, rule)
    assert met == 0
    assert torch.equal(ours, gradient(model, x))


def test_threshold_to_another_value_is_no_relu(x):
    model = Net(lambda x: F.threshold(x, 0, 5)).double()
    inputs = x.clone().requires_grad_()
    with relu_rule("guided") as relus:
        ours = torch.autograd.grad(model(inputs)[:, 0].sum(), inputs)[0]
    assert relus.met == 0
    assert torch.equal(ours, gradient(model, x))


def test_a_call_that_writes_elsewhere_is_left_alone():
    s, out = torch.randn(5), torch.empty(5)
    with relu_rule("guided") as relus:
        assert torch.clamp(s, min=0, out=out) is out
    assert relus.met == 0
    assert torch.equal(out, s.relu())


# --- What escapes is told.


@pytest.mark.parametrize("form", FORMS)
def test_a_call_of_any_form_past_the_rule_is_told(form, x):
    relus, output = relu_rule("guided"), Net(FORMS[form]).double()(x.requires_grad_())
    told = relus.escaped(output)
    assert len(told) == 1
    assert told[0].startswith("2 ")
    output.sum().backward()
    assert relus.escaped(output) == told  # also after the backward
    assert relu_rule("backprop").escaped(output) == []


@torchscript
@pytest.mark.parametrize("convert", ["trace", "script"])
def test_torchscript_is_told_by_name(convert):
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 1))
    x = torch.randn(2, 3, 8, 8)
    features = torch.jit.trace(features, x) if convert == "trace" else torch.jit.script(features)
    model = nn.Sequential()
    model.add_module("features", features)
    model.add_module("relu", nn.ReLU())
    for _ in range(3):  # TorchScript optimizes after its first runs
        with relu_rule("guided") as relus:
            output = model(x).sum()
        assert relus.met == 1
        assert relus.escaped(output) == ["1 HardtanhBackward0", "1 ReluBackward0"]
        assert relus.escaped(output, model)[2:] == ["traced or scripted module 'features'"]
        output.backward()
    assert relus.escaped(features(x), features)[2:] == ["the model is traced or scripted"]


@torchscript
def test_what_torchscript_fused_is_told_as_opaque():
    class Block(nn.Module):
        def forward(self, x):
            return (x * 2).clamp(min=0).tanh()

    model, x = torch.jit.script(Block()), torch.randn(4, requires_grad=True)
    for _ in range(3):
        with relu_rule("guided") as relus:
            output = model(x).sum()
        assert len(relus.escaped(output)) == 1
        output.backward()
    assert relus.escaped(output) == ["1 DifferentiableGraphBackward"]


@torchscript
def test_torchscript_without_a_relu_is_no_complaint():
    x = torch.randn(2, 3)
    model = nn.Sequential(torch.jit.trace(nn.Linear(3, 3), x), nn.ReLU())
    with relu_rule("guided") as relus:
        assert relus.escaped(model(x), model) == []


def test_another_thread_is_told(x):
    """As with DataParallel's replicas."""
    model, outputs = Net(nn.ReLU()).double(), []
    with relu_rule("guided") as relus:
        thread = threading.Thread(target=lambda: outputs.append(model(x)))
        thread.start()
        thread.join()
        output = outputs[0] + model(x)
    assert relus.met == 2
    assert relus.escaped(output) == ["2 ReluBackward0"]


def test_recurrent_relus_are_told():
    with relu_rule("guided") as relus:
        output = nn.RNN(3, 4, nonlinearity="relu")(torch.randn(5, 2, 3))[0]
    assert (relus.met, relus.escaped(output)) == (0, ["5 ReluBackward0"])


def test_reentrant_checkpoints_are_told(x):
    with relu_rule("guided") as relus:
        output = checkpoint(Net(nn.ReLU()).double(), x.requires_grad_(), use_reentrant=True)
    assert relus.escaped(output) == ["1 CheckpointFunctionBackward"]


def test_compiled_code_is_told_unless_forced_eager(x):
    torch.compiler.reset()
    model = torch.compile(Net(nn.ReLU()).double(), backend="aot_eager")
    with relu_rule("guided") as relus:
        output = model(x.requires_grad_())
    assert relus.escaped(output) == ["1 CompiledFunctionBackward"]


# --- Nothing stays behind.


def test_afterwards_all_is_plain(x):
    model = Skips().double()
    plain = gradient(model, x)
    with relu_rule("guided") as relus:
        model(x)
    assert torch.equal(gradient(model, x), plain)
    assert relus.met == 4


def test_after_an_exception_all_is_plain(x):
    model = Skips().double()
    plain = gradient(model, x)
    with pytest.raises(ZeroDivisionError), relu_rule("deconvolution"):
        F.relu(x)
        raise ZeroDivisionError
    assert torch.equal(gradient(model, x), plain)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match=r"'guidd'.*'backprop', 'deconvolution', 'guided'"):
        relu_rule("guidd")
