"""The table of methods, and of the networks that each is tried on: a new method is a new row."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import pytest
from torch import Tensor, nn

import lightning_viz.attribution as attribution
from lightning_viz.attribution import OcclusionMaps
from tests.attribution.nets import KINDS


@dataclass(frozen=True)
class Row:
    """A method.

    Attributes:
        gives: "inputs", in their form; "maps" of a layer; "images", one for each layer; or "covered" images' drops.
        options: small ones.
        relus: whether it needs ReLUs.
        batched: whether it takes many passes, in batches.
        targeted: whether the target plays a part.
        kinds: the networks that it is tried on, where a method that runs the same way is tried on every one.
    """

    gives: str
    options: dict[str, Any] = field(default_factory=dict)
    relus: bool = False
    batched: bool = False
    targeted: bool = True
    kinds: tuple[str, ...] = tuple(KINDS)


TENSORS, MAPS = ("convolutional", "two inputs"), ("convolutional", "channels-last")

METHODS = {
    "gradient": Row("inputs"),
    "input_times_gradient": Row("inputs", kinds=TENSORS),
    "smooth_grad": Row("inputs", {"samples": 4}, batched=True),
    "integrated_gradients": Row("inputs", {"steps": 4}, batched=True),
    "guided_backprop": Row("inputs", relus=True),
    "deconvolution": Row("inputs", kinds=TENSORS, relus=True),
    "grad_cam": Row("maps"),
    "grad_cam_plus_plus": Row("maps", kinds=MAPS),
    "hires_cam": Row("maps", kinds=MAPS),
    "layer_cam": Row("maps", kinds=MAPS),
    "score_cam": Row("maps", batched=True),
    "eigen_cam": Row("maps", targeted=False),
    "guided_grad_cam": Row("images", relus=True),
    "occlusion": Row("covered", {"patch": 5, "stride": 4}, batched=True),
}


def fits(name: str, kind: str) -> bool:
    row, of = METHODS[name], KINDS[kind]
    suits = (of.relus or not row.relus) and not (of.layer is None and row.gives in ("maps", "images"))
    return suits and kind in row.kinds


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
    found = parts(getattr(attribution, name)(net, given, target, **row.options | options))
    if kind == "shared inputs":  # what all samples share is in no sample's map
        found.pop("2", None), found.pop("3", None)
    return found


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
