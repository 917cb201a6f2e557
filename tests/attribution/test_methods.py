"""What all methods have in common, generated from one table: a new method is a new row."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_viz.hooks import batching as batches
from lightning_viz.hooks import top
from tests.attribution.methods import (
    BATCHED,
    EVERY,
    IMAGES,
    METHODS,
    assert_same,
    assert_telling,
    every_method,
    explain,
)
from tests.attribution.nets import KINDS, inputs, network, some

# --- What comes out.


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_results_have_the_form_the_device_and_the_precision_of_the_inputs(name, kind, dtype):
    net, given = network(kind, dtype), inputs(kind, dtype=dtype)
    found = explain(name, kind, net, given, 1)
    assert_telling(found)
    shapes = {key: list(part.shape) for key, part in found.items()}
    image = list((given if isinstance(given, Tensor) else given[0]).shape)
    if METHODS[name].gives == "inputs":
        beside = [3] if kind == "shared inputs" else [3, 2]
        expected = {"": image} if isinstance(given, Tensor) else {"0": image, "1": beside}
    elif METHODS[name].gives == "maps":
        side = {"view()": 5, "channels-last": 6, "tokens": 3}.get(kind, 12)
        expected = {KINDS[kind].layer: [3, 1, side, side]}
    elif METHODS[name].gives == "attention":
        layer = "encoder.layers.encoder_layer_1.self_attention"
        expected = {layer if name == "attention" else "": [3, 1, 3, 3]}
    elif METHODS[name].gives == "heat":
        expected = {"": [3, 1, 12, 12]}
    elif METHODS[name].gives == "images":
        expected = {KINDS[kind].layer: image}
    else:
        expected = {"heat": [3, 1, 12, 12], "drop": [3, 3, 3], "predicted": [3, 3, 3]}
    assert shapes == expected
    assert {part.dtype for key, part in found.items() if key != "predicted"} == {dtype}
    assert not any(part.requires_grad for part in found.values())
    exact = explain(name, kind, network(kind), inputs(kind), 1)
    for key in found.keys() - {"predicted"}:
        if dtype in (torch.float64, torch.float32):
            assert_same({key: found[key]}, {key: exact[key]}, 1e-4)
        else:  # a ReLU may turn
            alike = torch.cosine_similarity(found[key].double().flatten(), exact[key].flatten(), 0)
            assert alike > {torch.float16: 0.95, torch.bfloat16: 0.8}[dtype]


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_a_samples_map_is_that_of_the_sample_alone(name, kind):
    net, given = network(kind), inputs(kind)
    whole = explain(name, kind, net, given, [1, 0, 2])
    for place, label in enumerate([1, 0, 2]):
        one = slice(place, place + 1)
        assert_same(
            explain(name, kind, net, some(given, one), [label]), {key: part[one] for key, part in whole.items()}
        )
    assert any(not torch.allclose(part[0], part[1]) for part in whole.values())


@pytest.mark.parametrize("batch_size", [1, 2, 5, 1000])
@pytest.mark.parametrize(("name", "kind"), BATCHED)
def test_the_batch_size_changes_nothing(name, kind, batch_size):
    net, given = network(kind), inputs(kind)
    chosen = explain(name, kind, net, given, [1, 0, 2])
    assert_same(explain(name, kind, net, given, [1, 0, 2], batch_size=batch_size), chosen)


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_a_model_in_training_gives_the_map_of_the_model_in_evaluation(name, kind):
    given = inputs(kind)
    assert_same(explain(name, kind, network(kind), given, 1), explain(name, kind, network(kind).eval(), given, 1), 0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_gradients_may_be_off_around_it(name, kind, mode):
    net = network(kind)
    expected = explain(name, kind, net, inputs(kind), top(2))
    with mode():
        found = explain(name, kind, net, inputs(kind), top(2))
    assert_same(found, expected, 0)


@pytest.mark.parametrize(
    "around", [torch.device("meta"), torch.autocast("cpu", torch.bfloat16)], ids=["device", "autocast"]
)
@every_method
def test_torchs_defaults_around_it_do_no_harm(name, around):
    """A default device (a GPU, say) on which the model is not, and mixed precision."""
    kind = METHODS[name].usual
    net, x = network(kind, torch.float32), inputs(kind, dtype=torch.float32)
    expected = explain(name, kind, net, x, 1)
    with around:
        found = explain(name, kind, net, x, 1)
    for key in found.keys() - {"predicted"}:
        alike = torch.cosine_similarity(found[key].float().flatten(), expected[key].flatten(), 0)
        assert alike > (1 - 1e-6 if isinstance(around, torch.device) else 0.8)


@pytest.mark.parametrize(("name", "kind"), IMAGES)
def test_inputs_that_ask_for_a_gradient_get_none_and_no_graph_comes_back(name, kind):
    given = inputs(kind)
    tensors = [x.requires_grad_() for x in (given if isinstance(given, tuple) else [given]) if x.is_floating_point()]
    found = explain(name, kind, network(kind), given, 1)
    assert not any(part.requires_grad for part in found.values()) and all(x.grad is None for x in tensors)
    assert_same(found, explain(name, kind, network(kind), inputs(kind), 1))


# --- What stays.


def trace(net: nn.Module) -> dict[str, Any]:
    """All that a user could see change in a model, and the state of every random generator."""
    seen: dict[str, Any] = {"torch": torch.get_rng_state().tolist(), "random": random.getstate()}
    seen["numpy"] = [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()]
    for name, p in net.named_parameters():
        grad = None if p.grad is None else (id(p.grad), p.grad.tolist())
        seen[name] = (id(p), p.tolist(), p.requires_grad, grad)
    seen |= {name: (id(buffer), buffer.tolist()) for name, buffer in net.named_buffers()}
    for path, module in net.named_modules():
        for name, value in vars(module).items():
            inside = [(key, id(each)) for key, each in value.items()] if isinstance(value, dict) else value
            seen[f"{path}.{name}"] = (id(value), inside)
    return seen


@pytest.mark.parametrize(
    ("name", "kind", "fails_at"),
    [(*case.values, at) for case in EVERY for at in (None, 1, 3) if at != 3 or METHODS[case.values[0]].batched],
)
def test_model_and_generators_are_left_as_found_also_when_a_pass_fails(name, kind, fails_at):
    net, calls = network(kind), []

    def disturb(module, args, output):
        """A layer that does, when it is called, all that a method must undo."""
        torch.rand(1), np.random.rand(), random.random()
        module.calls = len(calls)
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        calls.append(1)
        if len(calls) == fails_at:
            raise KeyError("midway")

    net.get_submodule(KINDS[kind].last).register_forward_hook(disturb)
    for place, p in enumerate(net.parameters()):
        p.grad = torch.full_like(p, place) if place % 2 else None
    next(net.children()).eval()
    before = trace(net)
    options = {"batch_size": 2} if METHODS[name].batched else {}
    if fails_at is None:
        explain(name, kind, net, inputs(kind), **options)
    else:
        with pytest.raises(KeyError, match="midway"):
            explain(name, kind, net, inputs(kind), **options)
        assert len(calls) == fails_at
    assert calls and trace(net) == before


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_the_inputs_and_the_target_stay_also_where_the_model_writes_to_its_input(name, kind):
    given, target = inputs(kind), torch.tensor([1, 0, 2])

    def forward(net, x):
        return net(x.mul_(2)) if isinstance(x, Tensor) else net(x[0].mul_(2), *x[1:])

    explain(name, kind, network(kind), given, target, forward=forward)
    tensors, fresh = ([x] if isinstance(x, Tensor) else x for x in (given, inputs(kind)))
    assert all(torch.equal(x, y) and not x.requires_grad for x, y in zip(tensors, fresh, strict=True))
    assert target.tolist() == [1, 0, 2]


# --- Ways to run.


class Mirrored(nn.Module):
    """Any network, of a picture turned left to right."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, image, *others):
        return self.net(image.flip(3), *others)


@pytest.mark.parametrize(("name", "kind"), IMAGES)
def test_a_forward_of_ones_own_is_as_a_model_that_does_the_same(name, kind):
    net, given = network(kind), inputs(kind)
    found = explain(
        name,
        kind,
        net,
        given,
        1,
        forward=lambda net, x: net(x.flip(3)) if kind != "two inputs" else net(x[0].flip(3), *x[1:]),
    )
    options = {"layers": "net.conv2"} if METHODS[name].gives in ("maps", "images") else {}
    expected = explain(name, kind, Mirrored(net), given, 1, **options)
    assert_same(found, {key.removeprefix("net."): part for key, part in expected.items()}, 0)


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.batched])
@pytest.mark.parametrize("batch_size", [None, 7])
def test_batches_that_do_not_fit_are_halved(name, batch_size):
    net, x, sizes = network("convolutional"), inputs("convolutional"), []
    expected = explain(name, "convolutional", net, x, [1, 0, 2])

    def small(module, args):
        sizes.append(len(args[0]))
        if len(args[0]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    net.register_forward_pre_hook(small)
    assert_same(explain(name, "convolutional", net, x, [1, 0, 2], batch_size=batch_size), expected)
    assert max(sizes) > 3 and sum(size > 3 for size in sizes) <= 4  # not tried again with every batch


@every_method
def test_one_sample_that_does_not_fit_is_an_error(name):
    kind = METHODS[name].usual
    net = network(kind)

    def full(module, args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    net.register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError):
        explain(name, kind, net, inputs(kind, 1), 1)


@pytest.mark.parametrize(("delay", "progress", "shown"), [(0, True, True), (0, False, False), (3600, True, False)])
@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.batched])
def test_what_takes_long_shows_a_bar_if_it_may(name, delay, progress, shown, monkeypatch, capsys):
    monkeypatch.setattr(batches, "_DELAY", delay)
    net, x = network("convolutional"), inputs("convolutional")
    explain(name, "convolutional", net, x, 1, progress=progress, batch_size=1)
    out, err = capsys.readouterr()
    titles = {"smooth_grad": "SmoothGrad", "score_cam": "Score-CAM of conv2", "ablation_cam": "Ablation-CAM of conv2"}
    titles["rise"] = "RISE"
    title = titles.get(name, name.replace("_", " "))
    assert out == "" and (title in err) == shown and bool(err) == shown
