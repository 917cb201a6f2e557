"""What all methods have in common, generated from one table: a new method is a new row."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lightning_viz.attribution as attribution
from lightning_viz.attribution import OcclusionMaps, batches
from lightning_viz.hooks import channel, classes, maximum, region, top, unit
from tests.attribution.nets import CLASSES, KINDS, inputs, network, plain, some


@dataclass(frozen=True)
class Row:
    """A method.

    Attributes:
        gives: "inputs", in their form; "maps" of a layer; "images", one for each layer; or "covered" images' drops.
        options: small ones.
        relus: whether it needs ReLUs.
        batched: whether it takes many passes, in batches.
        targeted: whether the target plays a part.
    """

    gives: str
    options: dict[str, Any] = field(default_factory=dict)
    relus: bool = False
    batched: bool = False
    targeted: bool = True


METHODS = {
    "gradient": Row("inputs"),
    "input_times_gradient": Row("inputs"),
    "smooth_grad": Row("inputs", {"samples": 4}, batched=True),
    "integrated_gradients": Row("inputs", {"steps": 4}, batched=True),
    "guided_backprop": Row("inputs", relus=True),
    "deconvolution": Row("inputs", relus=True),
    "grad_cam": Row("maps"),
    "grad_cam_plus_plus": Row("maps"),
    "hires_cam": Row("maps"),
    "layer_cam": Row("maps"),
    "score_cam": Row("maps", batched=True),
    "eigen_cam": Row("maps", targeted=False),
    "guided_grad_cam": Row("images", relus=True),
    "occlusion": Row("covered", {"patch": 5, "stride": 4}, batched=True),
}


def fits(name: str, kind: str) -> bool:
    row, of = METHODS[name], KINDS[kind]
    return (of.relus or not row.relus) and not (of.layer is None and row.gives in ("maps", "images"))


EVERY = [pytest.param(name, kind, id=f"{name}-{kind}") for name in METHODS for kind in KINDS if fits(name, kind)]
TARGETED = [case for case in EVERY if METHODS[case.values[0]].targeted]
BATCHED = [case for case in EVERY if METHODS[case.values[0]].batched]
every_method = pytest.mark.parametrize("name", list(METHODS))
every_targeted_method = pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.targeted])


def explain(name: str, kind: str, net: nn.Module, given: Any, target: Any = None, **options: Any) -> dict[str, Tensor]:
    """What a method finds, part by part."""
    row = METHODS[name]
    if row.gives in ("maps", "images"):
        options = {"layers": KINDS[kind].layer, **options}
    return parts(getattr(attribution, name)(net, given, target, **row.options | options))


def parts(found: Any) -> dict[str, Tensor]:
    if isinstance(found, Tensor):
        return {"": found}
    if isinstance(found, OcclusionMaps):
        found = {each.name: getattr(found, each.name) for each in fields(found)}
    named = found.items() if isinstance(found, Mapping) else enumerate(found)
    return {str(key): part for key, part in named if part is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert found.keys() == expected.keys()
    for key, part in expected.items():
        assert found[key].shape == part.shape
        worst = (found[key].double() - part.double()).abs().max()
        assert worst <= tolerance * part.abs().max(), f"{key!r} is off by {worst}, of {part.abs().max()}"


def assert_telling(found: dict[str, Tensor]) -> None:
    """Not zero, so that to be equal means something."""
    assert all(part.isfinite().all() and part.any() for key, part in found.items() if key != "predicted")


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
        expected = {"": image} if isinstance(given, Tensor) else {"0": image, "1": [3, 2]}
    elif METHODS[name].gives == "maps":
        side = {"view()": 5, "channels-last": 6, "tokens": 3}.get(kind, 12)
        expected = {KINDS[kind].layer: [3, 1, side, side]}
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
def test_the_inputs_and_the_target_stay(name, kind):
    given, target = inputs(kind), torch.tensor([1, 0, 2])
    explain(name, kind, network(kind), given, target)
    tensors, fresh = ([x] if isinstance(x, Tensor) else x for x in (given, inputs(kind)))
    assert all(torch.equal(x, y) and not x.requires_grad for x, y in zip(tensors, fresh, strict=True))
    assert target.tolist() == [1, 0, 2]


# --- Targets.


def logits(outputs: Any) -> Tensor:
    scores = outputs["logits"] if isinstance(outputs, dict) else outputs
    return scores.flatten(2).sum(2) if scores.dim() > 2 else scores


@pytest.mark.parametrize(("name", "kind"), TARGETED)
def test_every_way_to_name_classes_means_the_same(name, kind):
    net, given = network(kind), inputs(kind)
    each = [explain(name, kind, net, given, index) for index in range(CLASSES)]
    with torch.no_grad():
        ranked = logits(net.eval()(*given) if isinstance(given, tuple) else net.eval()(given)).argsort(1).flip(1)

    def of(labels: list[int]) -> dict[str, Tensor]:
        return {key: torch.stack([each[label][key][n] for n, label in enumerate(labels)]) for key in each[0]}

    def stacked(rows: list[list[int]]) -> dict[str, Tensor]:
        found = [of(labels) for labels in rows]
        return {
            key: part if key == "predicted" else torch.stack([one[key] for one in found])
            for key, part in found[0].items()
        }

    assert_telling(each[0])
    assert not torch.allclose(*(next(iter(one.values())) for one in each[:2]))
    for target, expected in [
        ([2, 0, 1], of([2, 0, 1])),
        (torch.tensor([2, 0, 1]), of([2, 0, 1])),
        (None, of(ranked[:, 0].tolist())),
        (classes(3, 1), stacked([[3] * 3, [1] * 3])),
        (torch.tensor([[3, 0, 1], [2, 2, 0]]), stacked([[3, 0, 1], [2, 2, 0]])),
        (top(2), stacked(ranked[:, :2].T.tolist())),
        (lambda outputs: logits(outputs)[:, 1], each[1]),
    ]:
        assert_same(explain(name, kind, net, given, target), expected)


def test_eigen_cam_has_no_target():
    """It takes one, so that all methods are called alike."""
    net, given = network("convolutional"), inputs("convolutional")
    found = explain("eigen_cam", "convolutional", net, given)
    assert_same(explain("eigen_cam", "convolutional", net, given, classes(0, 1)), found, 0)


PLACES = [(0, 1, 2), (5, 5, 0), (2, 3, 3)]  # of a unit in a map: channel, row, column
INNER = {
    "unit of a vector": (unit("7", [2, 0, 1]), lambda net, x, n: net(x)[:, [2, 0, 1][n]]),
    "unit of a map": (unit("3", (4, 1, 2)), lambda net, x, n: net[:4](x)[:, 4, 1, 2]),
    "one unit each": (unit("3", PLACES), lambda net, x, n: net[:4](x)[(slice(None), *PLACES[n])]),
    "channel": (channel("3", 2), lambda net, x, n: net[:4](x)[:, 2].sum((1, 2))),
    "one channel each": (channel("3", [2, 0, 1]), lambda net, x, n: net[:4](x)[:, [2, 0, 1][n]].sum((1, 2))),
    "channel's maximum": (maximum("3", 2), lambda net, x, n: net[:4](x)[:, 2].amax((1, 2))),
    "layer's maximum": (maximum("3"), lambda net, x, n: net[:4](x).amax((1, 2, 3))),
}
"""A target in `plain()`, and by hand what it is for sample n."""


@pytest.mark.parametrize("inner", list(INNER))
@every_targeted_method
def test_what_lies_inside_is_explained_as_if_it_were_the_output(name, inner):
    """Also where a ReLU in place follows it, and where several copies of a sample go at once."""
    torch.manual_seed(0)
    net, x = plain().double(), inputs("convolutional")
    target, by_hand = INNER[inner]
    options = {"layers": "0"} if METHODS[name].gives in ("maps", "images") else {}
    found = explain(name, "convolutional", net, x, target, **options)
    for n in range(3):
        one = slice(n, n + 1)
        alone = explain(name, "convolutional", net, x[one], 0, forward=lambda net, x: by_hand(net, x, n), **options)
        for key in alone.keys() - {"predicted"}:
            assert_same({key: found[key][one]}, {key: alone[key]})


@pytest.mark.parametrize(
    "mask",
    [torch.zeros(12, 12).index_fill_(0, torch.tensor([2, 3]), 1), torch.rand(3, 12, 12) > 0.8],
    ids=["all", "own"],
)
@every_targeted_method
def test_a_region_is_a_sum_over_its_places(name, mask):
    net, x = network("dense"), inputs("dense")

    def by_hand(net, x):
        outputs, copies, total = net(x), len(x) // len(mask) if mask.dim() == 3 else 1, 0
        for row in range(12):
            for column in range(12):
                weight = mask[..., row, column].double().view(-1, 1).repeat(copies, 1)
                total = total + outputs[..., row, column] * weight
        return total

    options = {"batch_size": 3} if METHODS[name].batched else {}  # whole sets of samples
    for target, index in [(region(mask.bool(), 2), 2), (region(mask, [0, 3, 1]), [0, 3, 1]), (region(mask), None)]:
        found = explain(name, "dense", net, x, target, **options)
        expected = explain(name, "dense", net, x, index, forward=by_hand, **options)
        found.pop("predicted", None), expected.pop("predicted", None)
        assert_same(found, expected)


@pytest.mark.parametrize("wrong", [[1, 0], [1, 0, 2, 1], torch.zeros(2, 2), region(torch.ones(2, 12, 12), 1)], ids=str)
@every_targeted_method
def test_a_target_for_another_number_of_samples_is_an_error(name, wrong):
    number = (
        r"region's mask is|2 masks for 3" if not isinstance(wrong, (list, Tensor)) else r"[24] targets for 3 samples"
    )
    with pytest.raises(ValueError, match=number):
        explain(name, "dense", network("dense"), inputs("dense"), wrong)


class Opaque:
    """What a model may return, too: only a target function knows what is in it."""

    def __init__(self, scores):
        self.scores = scores


@every_targeted_method
def test_a_target_function_reads_any_output(name):
    net, x = network("convolutional"), inputs("convolutional")
    found = explain(name, "convolutional", net, x, lambda out: out.scores[:, 2], forward=lambda net, x: Opaque(net(x)))
    expected = explain(name, "convolutional", net, x, 2)
    expected.pop("predicted", None)  # of no classes none is
    assert_same(found, expected, 0)
    with pytest.raises(TypeError, match="the model returned .* as target, or forward="):
        explain(name, "convolutional", net, x, 2, forward=lambda net, x: Opaque(net(x)))


# --- Ways to run.


class Mirrored(nn.Module):
    """Any network, of a picture turned left to right."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, image, *others):
        return self.net(image.flip(3), *others)


@pytest.mark.parametrize("kind", ["convolutional", "two inputs"])
@every_method
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
    assert max(sizes) > 3 and sum(size > 3 for size in sizes) <= 2  # not tried again with every batch


@every_method
def test_one_sample_that_does_not_fit_is_an_error(name):
    net = network("convolutional")

    def full(module, args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    net.register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError):
        explain(name, "convolutional", net, inputs("convolutional", 1), 1)


@pytest.mark.parametrize(("delay", "progress", "shown"), [(0, True, True), (0, False, False), (3600, True, False)])
@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.batched])
def test_what_takes_long_shows_a_bar_if_it_may(name, delay, progress, shown, monkeypatch, capsys):
    monkeypatch.setattr(batches, "_DELAY", delay)
    net, x = network("convolutional"), inputs("convolutional")
    explain(name, "convolutional", net, x, 1, progress=progress, batch_size=1)
    out, err = capsys.readouterr()
    title = {"smooth_grad": "SmoothGrad", "score_cam": "Score-CAM of conv2"}.get(name, name.replace("_", " "))
    assert out == "" and (title in err) == shown and bool(err) == shown
