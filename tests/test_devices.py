"""What is found on a device is what is found on the CPU, it lies on the device, and the model is left as it was.

The device is a GPU where there is one, and else one of the tests' own (`tests.separate_device`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F

from lightning_viz import Probe, View, default_views, watch
from lightning_viz.attribution.evaluation import deletion, insertion, model_randomization
from lightning_viz.hooks import observe, top
from lightning_viz.hooks.pytree import all_tensors, map_tensors
from tests.attribution.methods import METHODS, explain
from tests.attribution.nets import inputs
from tests.attribution.nets import network as attributed
from tests.separate_device import DEVICE, moved, separate_device, values_of
from tests.test_synchronizations import CLASSES, ROWS, images, network

GPU = torch.cuda.is_available()
TOLERANCE = 1e-3 if GPU else 1e-10  # of the maximum
TURNED = 0.01 if GPU else 0.0  # share of values that may be off, as a gradient's sign is that is next to zero
RANDOM_STARTS = ("pgd", "apgd", "auto_attack", "minimum_epsilon")  # which a GPU draws with a generator of its own
pytestmark = pytest.mark.filterwarnings("ignore::lightning_viz.errors.LightningVizWarning")


@contextmanager
def device() -> Iterator[torch.device]:
    if not GPU:
        with separate_device():
            yield DEVICE
        return
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield torch.device("cuda")


def there(value: Any) -> Any:
    """A module or tensors on the device."""
    if not GPU:
        return moved(value)
    return value.cuda() if isinstance(value, nn.Module) else map_tensors(value, lambda x: x.cuda())


def back(value: Any) -> Any:
    return map_tensors(value, lambda x: x.detach().cpu()) if GPU else values_of(value)


def counting(model: nn.Module) -> nn.Module:
    """Counts its calls in a buffer, in place, and has one whose values share their memory."""
    model.register_buffer("calls", torch.zeros(3))
    model.register_buffer("shared", torch.zeros(1).expand(3))
    model.register_forward_hook(count)
    return model


def count(model: nn.Module, args: Any, output: Any) -> None:
    model.calls += 1


def state(model: nn.Module) -> dict[str, Any]:
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    found = {name: (id(tensor), tensor.requires_grad, tensor.grad) for name, tensor in named.items()}
    values = {name: back(tensor.detach()).clone() for name, tensor in named.items()}
    generators = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if GPU else ())]
    return {"tensors": found, "values": values, "generators": generators, "training": model.training}


def assert_same_state(model: nn.Module, before: dict[str, Any]) -> None:
    after = state(model)
    assert after["tensors"] == before["tensors"] and after["training"] == before["training"]
    assert all(torch.equal(value, after["values"][name]) for name, value in before["values"].items())
    assert all(map(torch.equal, after["generators"], before["generators"]))


def assert_near(found: Any, expected: Any) -> None:
    pairs = list(zip(all_tensors(found), all_tensors(expected), strict=True))
    assert pairs
    for one, other in pairs:
        assert one.shape == other.shape and one.dtype == other.dtype
        assert other.any() or not other.is_floating_point()
        off = (one.double() - other.double()).abs()
        assert (off > TOLERANCE * other.abs().max()).float().mean() <= TURNED, f"off by {off.max()}"


@pytest.mark.parametrize("name", METHODS)
def test_an_attribution(name):
    kind = METHODS[name].usual
    expected = explain(name, kind, attributed(kind), inputs(kind), [1, 0, 2])
    with device() as here:
        model, given = there(counting(attributed(kind))), there(inputs(kind))
        before = state(model)
        found = explain(name, kind, model, given, [1, 0, 2])
        assert {part.device.type for part in found.values()} == {here.type}
        assert_same_state(model, before)
        assert_near(back(found), expected)
        assert_near(back(explain(name, kind, model, given, there(torch.tensor([1, 0, 2])))), expected)


def test_an_observation():
    wanted = {"layers": ["0", "3"], "gradients": True, "input_gradient": True}
    expected = observe(network(sure=False), images(), top(2), **wanted)
    with device() as here:
        model, given = there(counting(network(sure=False))), there(images())
        before = state(model)
        found = observe(model, given, top(2), **wanted)
        assert {tensor.device.type for tensor in all_tensors(found)} == {here.type}
        assert_same_state(model, before)
        assert_near(back(found), expected)


@pytest.mark.parametrize("name", ROWS)
def test_an_attack_a_dream_or_a_method_of_many_passes(name):
    row = ROWS[name]
    expected = row.work(network(sure=row.sure), images(), 2)
    with device() as here:
        model, given = there(counting(network(sure=row.sure))), there(images())
        before = state(model)
        found = row.work(model, given, 2)
        assert {tensor.device.type for tensor in all_tensors(found)} == {here.type}
        assert_same_state(model, before)
        if not (GPU and name.startswith(RANDOM_STARTS)):
            assert_near(back(found), expected)


def foreign(model: nn.Module, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A method of others, which gathers the scores of classes."""
    x = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)
    return gradient * images


@pytest.mark.parametrize(
    ("check", "curve"), [(deletion, "scores"), (insertion, "scores"), (model_randomization, "correlations")]
)
def test_a_check_of_a_method_of_others(check, curve, monkeypatch):
    if not GPU:  # the tests' own device copies no modules
        module = sys.modules[model_randomization.__module__]
        monkeypatch.setattr(module, "randomized_weights", lambda *_, **__: nullcontext())
    classes = torch.arange(6) % CLASSES
    expected = getattr(check(foreign, network(sure=False), images(), classes), curve)
    with device():
        for given in (classes, there(classes)):
            found = getattr(check(foreign, there(network(sure=False)), there(images()), given), curve)
            assert_near(back(found), expected)


def test_the_pictures_of_a_loop(tmp_path):
    def train(name: str, views: list[View]) -> tuple[dict[Any, Any], dict[str, Any]]:
        model, folder = there(network(sure=False)) if name else network(sure=False), tmp_path / (name or "cpu")
        x, y = images(), torch.arange(6) % CLASSES
        own = (there(x), there(y)) if name else (x, y)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        with watch(model, data=Probe(inputs=x, labels=y), views=views, logdir=folder) as watched:
            for _ in range(3):
                optimizer.zero_grad()
                F.cross_entropy(model(own[0]), own[1]).backward()
                optimizer.step()
                watched.step()
        return pictures(folder) if views else {}, back(dict(model.named_parameters()))

    expected, weights = train("", chosen())
    with device():
        found, there_weights = train("there", chosen())
        _, plain = train("without views", [])
    assert all(torch.equal(plain[name], weight) for name, weight in there_weights.items())
    assert found.keys() == expected.keys() and len(expected) > 10
    if not GPU:
        assert found == expected
        assert all(torch.equal(weight, there_weights[name]) for name, weight in weights.items())


def chosen() -> list[View]:
    """The default views, which look at first and at last."""
    return default_views(every_n_train_steps=100, max_overhead=float("inf"), finish_seconds=120.0)


def pictures(folder: Any) -> dict[tuple[str, int], tuple[bytes, ...]]:
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    return {(tag, one.step): tuple(one.tensor_proto.string_val) for tag in tags for one in events.Tensors(tag)}
