"""Whatever is explained, by whatever method: all ways to name it come to the same."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_viz.hooks import Target, channel, classes, maximum, region, top, unit
from tests.attribution.methods import (
    METHODS,
    TARGETED,
    assert_same,
    assert_telling,
    every_method_of_a_scalar,
    every_targeted_method,
    explain,
)
from tests.attribution.nets import CLASSES, inputs, network, plain


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
        if callable(target) and not isinstance(target, Target) and name == "rise":
            continue  # it explains a class's probability, a function by itself
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
@every_method_of_a_scalar
def test_what_lies_inside_is_explained_as_if_it_were_the_output(name, inner):
    """Also where a ReLU in place follows it, and where several copies of a sample go at once."""
    torch.manual_seed(0)
    net, x = plain().double(), inputs("convolutional")
    target, by_hand = INNER[inner]
    options = {"layers": "0"} if METHODS[name].gives in ("maps", "images") else {}
    found = explain(name, "convolutional", net, x, target, **options)
    for n in range(3):
        one = slice(n, n + 1)
        alone = explain(name, "convolutional", net, x[one], None, forward=lambda net, x: by_hand(net, x, n), **options)
        for key in alone.keys() - {"predicted"}:
            assert_same({key: found[key][one]}, {key: alone[key]})


@pytest.mark.parametrize(
    "mask",
    [torch.zeros(12, 12).index_fill_(0, torch.tensor([2, 3]), 1), torch.rand(3, 12, 12) > 0.8],
    ids=["all", "own"],
)
@every_method_of_a_scalar
def test_a_region_is_a_sum_over_its_places(name, mask):
    net, x = network("dense"), inputs("dense")

    def by_hand(net, x):
        outputs, copies, total = net(x), len(x) // len(mask) if mask.dim() == 3 else 1, 0
        for row in range(12):
            for column in range(12):
                weight = mask[..., row, column].double().view(-1, 1).repeat(copies, 1)
                total = total + outputs[..., row, column] * weight
        return total

    options = {"batch_size": 6} if METHODS[name].batched else {}  # each sample twice
    for target, index in [
        (region(mask.bool(), 2), 2),
        (region(mask, [0, 3, 1]), [0, 3, 1]),
        (region(mask), None),
        (region(mask, top(2)), top(2)),
    ]:
        found = explain(name, "dense", net, x, target, **options)
        expected = explain(name, "dense", net, x, index, forward=by_hand, **options)
        found.pop("predicted", None), expected.pop("predicted", None)
        assert_same(found, expected)


@pytest.mark.parametrize("wrong", [[1, 0], [1, 0, 2, 1], torch.zeros(2, 2), region(torch.ones(2, 12, 12), 1)], ids=str)
@every_targeted_method
def test_a_target_for_another_number_of_samples_is_an_error(name, wrong):
    number = r"the mask is|2 masks for 3" if not isinstance(wrong, (list, Tensor)) else r"[24] targets for 3 samples"
    with pytest.raises(ValueError, match=number):
        explain(name, "dense", network("dense"), inputs("dense"), wrong)


class Opaque:
    """What a model may return, too: only a target function knows what is in it."""

    def __init__(self, scores):
        self.scores = scores


@every_method_of_a_scalar
def test_a_target_function_reads_any_output(name):
    net, x = network("convolutional"), inputs("convolutional")
    found = explain(name, "convolutional", net, x, lambda out: out.scores[:, 2], forward=lambda net, x: Opaque(net(x)))
    expected = explain(name, "convolutional", net, x, 2)
    expected.pop("predicted", None)  # of no classes none is
    assert_same(found, expected, 0)
    with pytest.raises(TypeError, match=r"the model returned .* as target, or forward="):
        explain(name, "convolutional", net, x, 2, forward=lambda net, x: Opaque(net(x)))
