"""The methods of the catalogue, and the networks that each is tried on."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import pytest
from torch import Tensor, nn

import lightning_viz.attribution as attribution
from lightning_viz.attribution import OcclusionMaps
from lightning_viz.attribution.cam import FORMULAS
from lightning_viz.catalogue import methods
from lightning_viz.catalogue_types import Method
from tests.attribution.nets import KINDS

OPTIONS: dict[str, dict[str, Any]] = {
    "smooth_grad": {"noise_samples": 4},
    "integrated_gradients": {"steps": 4},
    "rise": {"masks": 9, "cells": 4},
    "occlusion": {"patch": 5, "stride": 4},
}
"""Small ones, for methods of many passes."""

TENSORS, MAPS = ("convolutional", "two inputs"), ("convolutional", "channels-last")
UNDERSTOOD = ("convolutional", "gray", "view()", "dictionary", "dense", "frozen", "perceptron")
"""Networks without attention, layer normalization or products of activations."""


@dataclass(frozen=True)
class Row:
    """What the catalogue says of a method, as the tests ask it."""

    method: Method

    @property
    def gives(self) -> str:
        """ "inputs", in their form; "maps" of a layer; "images", one for each; a "heat" map; or drops, "covered"."""
        if self.attends:
            return "attention"
        if "maps" in self.method.needs:
            return "maps" if self.method.display == "heat" else "images"
        if self.method.display == "contrast":
            return "heat"
        return "covered" if "image" in self.method.needs else "inputs"

    @property
    def options(self) -> dict[str, Any]:
        return OPTIONS.get(self.method.name, {})

    @property
    def relus(self) -> bool:
        return "relu" in self.method.needs

    @property
    def attends(self) -> bool:
        """Whether it needs a transformer."""
        return "attention" in self.method.needs

    @property
    def usual(self) -> str:
        """The first network that it is tried on."""
        return self.kinds[0]

    @property
    def batched(self) -> bool:
        """Whether it takes many passes, in batches."""
        return isinstance(self.method.cost, str)

    @property
    def targeted(self) -> bool:
        """Whether the target plays a part."""
        return "target" in self.method.needs

    @property
    def kinds(self) -> tuple[str, ...]:
        """The networks that it is tried on; all of them for one of those methods that run the same way."""
        if self.attends:
            return ("tokens",)
        if self.method.name in ("input_times_gradient", "deconvolution"):
            return TENSORS
        if self.method.name == "lrp":
            return UNDERSTOOD
        another_formula = self.method.name in FORMULAS and self.method.name not in ("grad_cam", "eigen_cam")
        return MAPS if another_formula else tuple(KINDS)


METHODS = {name: Row(method) for name, method in methods("attribution").items() if method.display}


def fits(name: str, kind: str) -> bool:
    row, of = METHODS[name], KINDS[kind]
    suits = (of.relus or not row.relus) and not (of.layer is None and row.gives in ("maps", "images"))
    return suits and kind in row.kinds


EVERY = [pytest.param(name, kind, id=f"{name}-{kind}") for name in METHODS for kind in KINDS if fits(name, kind)]
TARGETED = [case for case in EVERY if METHODS[case.values[0]].targeted]
BATCHED = [case for case in EVERY if METHODS[case.values[0]].batched]
IMAGES = [
    (name, kind)
    for name, row in METHODS.items()
    for kind in (row.kinds if row.attends else TENSORS)
    if name != "lrp" or kind in UNDERSTOOD
]
every_method = pytest.mark.parametrize("name", list(METHODS))
every_targeted_method = pytest.mark.parametrize(
    "name", [name for name, row in METHODS.items() if row.targeted and not row.attends]
)
every_method_of_a_scalar = pytest.mark.parametrize(
    "name", [name for name, row in METHODS.items() if row.targeted and not row.attends and name not in ("rise", "lrp")]
)
"""Those to which a target is the scalar alone: RISE takes a probability, and LRP hands back through each sum."""


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
