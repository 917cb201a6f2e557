"""Whatever happens to a model inside `preserve_state`, it leaves as it came: one case per kind of state."""

import copy
import random
from collections import Counter, OrderedDict, defaultdict, deque

import numpy as np
import pytest
import torch
from torch import nn

from lightning_viz.hooks import model_state
from lightning_viz.hooks.model_state import evaluating, evaluation_mode, preserve_state, same_randomness
from lightning_viz.hooks.observe import observe


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer("absent", None)

    def forward(self, x):
        return self.norm(self.linear(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.BatchNorm1d(4).eval()
        self.head = nn.Linear(4, 3)
        self.head.weight.requires_grad_(False)
        self.head.bias.grad = torch.full((3,), 7.0)
        self.count = 0
        self.seen, self.empty_list = [1, 2], []
        self.table, self.empty_table = {"a": 1}, {}
        self.ordered = OrderedDict(a=1, b=2)
        self.kinds, self.queue = {1, 2}, deque([1, 2], maxlen=3)
        self.tally, self.groups = Counter(a=2), defaultdict(list, a=1)
        self.cache = torch.zeros(2)
        self.generator = torch.Generator().manual_seed(1)
        self.numpy_generator, self.numpy_state = np.random.default_rng(1), np.random.RandomState(1)
        self.python_generator = random.Random(1)
        self.register_forward_hook(self.count_calls)

    def count_calls(self, module, inputs, output):
        self.count += 1

    def forward(self, x):
        return self.head(self.frozen(self.drop(self.inner(x))))


CONTAINERS = ["seen", "empty_list", "table", "empty_table", "ordered", "kinds", "queue", "tally", "groups"]


def state(net):
    """All that `preserve_state` promises, as values that compare; and which objects they are."""
    found = {
        "modes": [m.training for m in net.modules()],
        "requires_grad": [p.requires_grad for p in net.parameters()],
        "grads": [p.grad if p.grad is None else p.grad.tolist() for p in net.parameters()],
        "grad identity": [id(p.grad) for p in net.parameters() if p.grad is not None],
        "weights": [p.tolist() for p in net.parameters()],
        "weight identity": [id(p) for p in net.parameters()],
        "buffers": [(name, id(b), b.data_ptr(), b.tolist()) for name, b in net.named_buffers()],
        "attributes": [sorted(vars(m)) for m in net.modules()],
        "hooks": [
            [list(value) for name, value in sorted(vars(m).items()) if name.endswith("hooks")] for m in net.modules()
        ],
        "modules": [name for name, _ in net.named_modules()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": repr(np.random.get_state()),
        "python": random.getstate(),
    }
    if isinstance(net, Net):
        values = vars(net)
        containers = [values[name] for name in CONTAINERS]
        found |= {
            "count": net.count,
            "containers": copy.deepcopy([list(c.items()) if isinstance(c, dict) else list(c) for c in containers]),
            "container identity": [id(c) for c in containers],
            "cache": id(values.get("cache")),
            "cached": values["cache"].tolist() if "cache" in values else None,
            "generator": net.generator.get_state().tolist(),
            "numpy generator": repr(net.numpy_generator.bit_generator.state),
            "numpy state": repr(net.numpy_state.get_state()),
            "python generator": net.python_generator.getstate(),
        }
    return found


def rebind_buffer(net):
    net.inner.scale = net.inner.scale * 2
    net.inner.absent = torch.ones(1)


def write_buffer_past_autograd(net):
    net.inner.scale.data.mul_(3)
    net.frozen.running_mean.data = torch.full((4,), 9.0)


def train_forward(net):
    net.train()
    net(torch.randn(8, 4))


def backward(net):
    net.train()
    net(torch.randn(8, 4)).sum().backward()


def backward_into_shared_grad(net):
    net.head.bias.requires_grad_(True)
    net.head(torch.ones(2, 4)).sum().backward()
    net.head.zero_grad()


def inference_forward(net):
    net.train()
    with torch.inference_mode():
        net(torch.randn(8, 4))
        net.cache = torch.ones(2)


def fill_containers(net):
    net.seen.append(3)
    net.seen[0] = 9
    net.empty_list.append(1)
    net.table["b"] = net.table.pop("a")
    net.empty_table["x"] = 1
    net.ordered.move_to_end("a")
    net.kinds.clear()
    net.queue.extend([7, 8])
    net.tally["a"] += 1
    net.groups["new"].append(1)


def rebind_containers(net):
    net.seen, net.table, net.kinds, net.tally = [], {}, set(), Counter()


def draw(net):
    torch.rand(1, generator=net.generator)
    net.numpy_generator.random(), net.numpy_state.rand(), net.python_generator.random()
    torch.rand(1), np.random.rand(1), random.random()


def seed_everything(net):
    torch.manual_seed(3), np.random.seed(3), random.seed(3)


def add_and_remove_attributes(net):
    net.new = 1
    net.count += 5
    net.inner.extra = torch.ones(1)
    del net.cache, net.inner.scale
    net.more = nn.Linear(1, 1)
    net.register_buffer("another", torch.ones(1))
    net.drop = nn.Identity()


def register_hooks(net):
    for module in net.modules():
        module.register_forward_hook(lambda *_: None)
        module.register_forward_pre_hook(lambda *_: None)
        module.register_full_backward_hook(lambda *_: None)
    net._forward_hooks.popitem(last=False)


def freeze_and_thaw(net):
    net.requires_grad_(False)
    net.head.requires_grad_(True)


def shadow_methods(net):
    net.forward = lambda x: x


DISTURBANCES = [
    train_forward, backward, backward_into_shared_grad, inference_forward, rebind_buffer, write_buffer_past_autograd,
    fill_containers, rebind_containers, draw, seed_everything, add_and_remove_attributes, register_hooks,
    freeze_and_thaw, shadow_methods, nn.Module.eval, nn.Module.zero_grad, nn.Module.double,
]  # fmt: skip
FREE = {nn.Module.double}  # weights changed in place are not covered


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("disturb", [d for d in DISTURBANCES if d not in FREE], ids=lambda d: d.__name__)
def test_nothing_is_left_of_what_happened_inside(disturb, raises):
    torch.manual_seed(0)
    net = Net()
    before = state(net)
    with pytest.raises(KeyError) if raises else preserve_state(net):
        with preserve_state(net):
            disturb(net)
            changed = state(net)
            if raises:
                raise KeyError
    assert changed != before  # the disturbance is one
    after = state(net)
    assert [kind for kind in before if before[kind] != after[kind]] == []


def test_training_goes_on_as_if_nothing_had_been():
    """Twenty steps with every disturbance before each end in the same weights, bit for bit, as twenty without."""

    def trained(disturbed):
        torch.manual_seed(0)
        net = Net()
        net.head.bias.grad = None
        optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.1)
        for _ in range(20):
            x = torch.randn(8, 4)
            for disturb in DISTURBANCES if disturbed else []:
                if disturb not in FREE:
                    with preserve_state(net):
                        disturb(net)
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
        return state(net)

    plain, disturbed = trained(False), trained(True)
    assert [
        k for k in plain if "identity" not in k and k not in ("buffers", "cache", "hooks") and plain[k] != disturbed[k]
    ] == []
    values = [[(name, content) for name, _, _, content in run["buffers"]] for run in (plain, disturbed)]
    assert values[0] == values[1]


def test_a_buffer_that_was_not_written_is_not_written_back():
    """Restoring would count as a write, and break a backward that still needs the buffer."""
    net = Net()
    net.register_buffer("broken", torch.tensor(float("nan")))
    net.register_buffer("spread", torch.tensor([float("nan")]).expand(3))  # cannot be written to
    places, ones = torch.arange(3).expand(2, 3), torch.ones(3)
    net.register_buffer("sparse", torch.sparse_coo_tensor(places, ones, (3, 3), check_invariants=True).coalesce())
    versions = {name: buffer._version for name, buffer in net.named_buffers()}
    with preserve_state(net):
        net.eval()
    assert {name: buffer._version for name, buffer in net.named_buffers()} == versions
    with preserve_state(net):
        net.broken.fill_(0), net.sparse.mul_(2)
    assert net.broken.isnan() and torch.equal(net.sparse.to_dense(), torch.eye(3))


def test_buffers_made_in_inference_mode_are_left_in_peace():
    net = Net()
    with torch.inference_mode():
        net.inner.scale = torch.full((3,), 2.0)
    inputs = torch.randn(8, 4)
    before = state(net)
    observe(net, inputs, layers="inner", gradients=True)
    assert state(net) == before


def test_log_does_nothing_inside_and_works_again_afterwards():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.logged = []
            self.part = nn.Linear(2, 2)

        def log(self, name, value):
            self.logged.append(name)

        def log_dict(self, values):
            self.logged.extend(values)

        def forward(self, x):
            self.log("mean", x.mean())
            self.log_dict({"max": x.max()})
            return self.part(x)

    net = Module()
    with preserve_state(net):
        net(torch.ones(1, 2))
        assert net.logged == []
    net(torch.ones(1, 2))
    assert net.logged == ["mean", "max"]
    assert "log" not in vars(net)


def test_a_module_with_a_log_of_another_kind_keeps_it():
    class Positive(nn.Module):
        def log(self):
            return self.weight.log()

        def forward(self, x):
            return x * self.log()

    net = Positive()
    net.weight = nn.Parameter(torch.tensor([1.0]))
    with preserve_state(net):
        assert net(torch.ones(1)).item() == 0


class Merging(nn.Module):
    """As LoRA layers do: leaving train mode adds the adapter to the weights, entering it subtracts it again."""

    def __init__(self):
        super().__init__()
        self.base, self.adapter = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.switched = []

    def train(self, mode=True):
        self.switched.append(mode)
        self.base.weight.data += self.adapter.weight.data * (-1 if mode else 1)
        return super().train(mode)

    def forward(self, x):
        return self.base(x) + (self.adapter(x) if self.training else 0)


def test_modes_are_set_without_calling_train_which_may_do_more():
    net = nn.Sequential(Merging(), nn.Linear(4, 2))
    weights = net[0].base.weight.clone()
    with preserve_state(net), evaluating(net):
        assert not any(module.training for module in net.modules())
    observe(net, torch.randn(2, 4), layers="1", gradients=True)
    assert net[0].switched == []
    assert torch.equal(net[0].base.weight, weights)
    assert all(module.training for module in net.modules())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_scripted_parts_leave_as_they_came():
    net = nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))), nn.Linear(4, 2))
    net[0][0].eval()
    modes = [m.training for m in net.modules()]
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    with preserve_state(net):
        net.train()
        net(torch.randn(8, 4)).sum().backward()
        net.eval()
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(b, buffers[name]) for name, b in net.named_buffers())
    assert all(p.grad is None for p in net.parameters())
    seen = observe(net, torch.randn(8, 4), layers="1", input_gradient=True)
    assert seen.input_gradient.abs().sum() > 0
    assert [m.training for m in net.modules()] == modes


def test_evaluating_asks_for_no_weights_gradient_and_allows_gradients_anywhere():
    net = Net()
    with torch.inference_mode(), preserve_state(net), evaluating(net):
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        assert not any(p.requires_grad for p in net.parameters())
    with torch.no_grad():
        with preserve_state(net), evaluating(net):
            assert torch.is_grad_enabled()
        assert not torch.is_grad_enabled()


def test_randomness_comes_back_also_when_the_body_raises():
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = [torch.rand(1).item(), np.random.rand(), random.random()]
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    with pytest.raises(KeyError), same_randomness():
        torch.rand(5), np.random.rand(5), random.random()
        raise KeyError
    assert [torch.rand(1).item(), np.random.rand(), random.random()] == expected


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_scripted_parts_stay_in_eval_mode_from_one_nested_pass_to_the_next():
    net = nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))), nn.Linear(4, 2))
    x, modes = torch.randn(8, 4), []
    with evaluation_mode(net):
        for _ in range(3):
            observe(net, x, layers="1")
            modes.append(net[0].training)
    assert modes == [False] * 3 and net[0].training


class Constrained(nn.Linear):
    """Renormalizes its weight in every forward, as layers of EEGNet do."""

    def forward(self, x):
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.1)
        self.weight.data.mul_(0.5)
        return super().forward(x)


def constrained(kind):
    classes = {"class": {"max_norm": 0.1}, "property": {"max_norm": property(lambda self: 0.1)}}
    net = type("Layer", (Constrained,), classes.get(kind, {}))(4, 4)
    if kind == "buffer":
        net.register_buffer("max_norm", torch.tensor(0.1))
    elif kind == "parameter":
        net.max_norm = nn.Parameter(torch.tensor(0.1))
    elif kind == "attribute":
        net.max_norm = 0.1
    return net


@pytest.mark.parametrize("kind", ["attribute", "class", "property", "buffer", "parameter"])
def test_weights_are_restored_of_layers_that_have_a_largest_norm(kind):
    net = constrained(kind)
    weight = net.weight.detach().clone()
    with evaluation_mode(net):
        net(torch.randn(2, 4))
        assert not torch.equal(net.weight, weight)
    assert torch.equal(net.weight, weight)


@pytest.mark.parametrize("part", ["attributes", "containers"])
def test_an_interrupt_in_the_midst_of_a_restore_leaves_nothing_undone(part, monkeypatch):
    net, times = nn.Sequential(*(nn.BatchNorm1d(2) for _ in range(8))), []
    for module in net:
        module.calls = [0]
    is_same = model_state._is_same

    def interrupted(container, before):
        if (type(container) is list) == (part == "containers"):
            times.append(container)
            if len(times) == 4:
                raise KeyboardInterrupt
        return is_same(container, before)

    monkeypatch.setattr(model_state, "_is_same", interrupted)
    with pytest.raises(KeyboardInterrupt):
        with preserve_state(net):
            net.eval()
            for module in net:
                module.calls.append(1)
    assert all(module.training and module.calls == [0] for module in net)


def test_a_set_is_restored_that_has_as_many_other_members():
    net = nn.Linear(2, 2)
    net.seen, net.kinds = {1, 2}, [{"a"}]
    with preserve_state(net):
        net.seen.remove(1), net.seen.add(3)
        net.kinds[0].clear(), net.kinds[0].add("b")
    assert net.seen == {1, 2} and net.kinds == [{"a"}]


def test_one_restore_that_fails_does_not_keep_the_others_from_running():
    class Stubborn(random.Random):
        closed = False

        def setstate(self, state):
            if self.closed:
                raise KeyError("closed")
            super().setstate(state)

    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    net[0].own, net[1].own, net[2].own = random.Random(0), Stubborn(0), random.Random(1)
    states, mean = [net[0].own.getstate(), net[2].own.getstate()], net[1].running_mean.clone()
    with pytest.raises(KeyError, match="closed"):
        with preserve_state(net):
            net(torch.randn(8, 2))
            net[0].own.random(), net[2].own.random()
            net[0].eval(), net[2].eval()
            net[2].weight.requires_grad_(False)
            Stubborn.closed = True
    assert [net[0].own.getstate(), net[2].own.getstate()] == states
    assert torch.equal(net[1].running_mean, mean)
    assert net[0].training and net[2].training and net[2].weight.requires_grad
