"""Tensors in nested structures: found, changed, and the structure given left alone."""

import dataclasses
from collections import OrderedDict, namedtuple
from types import MappingProxyType

import pytest
import torch

from lightning_viz.hooks.pytree import all_tensors, first_tensor, map_tensors, replace_first_tensor

Pair = namedtuple("Pair", "first second")


@dataclasses.dataclass
class Output:
    logits: object
    extra: object = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    logits: object
    mask: object = None


whole = torch.tensor([1, 2])
real = torch.tensor([1.0, 2.0])
other = torch.tensor([5.0])

STRUCTURES = [
    real,
    (whole, real, other),
    [whole, [real], other],
    {"mask": whole, "logits": real, "aux": other},
    OrderedDict(out=real, aux=other),
    Pair(whole, real),
    Output(real, {"more": [other]}),
    Output(None, (real, other)),
    Frozen(real, whole),
    {"a": (None, "text", 3), "b": Pair(Output(real), other)},
]


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: type(s).__name__)
def test_the_first_real_tensor_is_found_and_replaced_and_nothing_else(structure):
    assert first_tensor(structure) is real
    before = all_tensors(structure)
    replaced = replace_first_tensor(structure, lambda x: x + 10)
    assert type(replaced) is type(structure)
    assert all(now is then for now, then in zip(all_tensors(structure), before, strict=True))  # the given one is intact
    changed = all_tensors(replaced)
    place = next(i for i, x in enumerate(before) if x is real)
    assert torch.equal(changed[place], real + 10)
    assert all(changed[i] is x for i, x in enumerate(before) if i != place)


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: type(s).__name__)
def test_every_tensor_is_mapped_in_order(structure):
    seen = []
    mapped = map_tensors(structure, lambda x: seen.append(x) or x * 2)
    assert type(mapped) is type(structure)
    assert all(a is b for a, b in zip(seen, all_tensors(structure), strict=True))
    assert [x.tolist() for x in all_tensors(mapped)] == [(x * 2).tolist() for x in all_tensors(structure)]


def test_what_is_no_tensor_stays():
    structure = {"a": (None, "text", 3), "b": real}
    assert map_tensors(structure, lambda x: None) == {"a": (None, "text", 3), "b": None}
    assert first_tensor((whole, None, "text")) is None
    assert replace_first_tensor((whole, 3), lambda x: x + 1) == (whole, 3)
    assert all_tensors(Output) == []  # the class itself is no structure
    assert first_tensor(MappingProxyType({"a": real})) is real
