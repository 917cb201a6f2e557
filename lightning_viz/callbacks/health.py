"""The view of whether training is healthy: dead and saturated units, sizes of updates, scales of activations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_viz.activations.ranges import UnitRanges, range_sums
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.layer_health import LayerHealth, Placed, as_recorded, moves, record
from lightning_viz.callbacks.layer_readings import Batch, Reading
from lightning_viz.callbacks.population import Population
from lightning_viz.callbacks.run import error_text
from lightning_viz.callbacks.run_protocol import Run
from lightning_viz.callbacks.snapshot import Requirements, Snapshot
from lightning_viz.callbacks.view import PopulationView
from lightning_viz.callbacks.weight_copy import WeightCopy, all_finite, checksums, own_weights, precedes_look
from lightning_viz.hooks.activation_functions import ActivationFunction, activation_functions
from lightning_viz.hooks.geometry import Layout
from lightning_viz.hooks.layers import NORMALIZATIONS, Layers, named_layers, select_layers
from lightning_viz.hooks.observation import layer_of_call
from lightning_viz.hooks.pytree import on_device
from lightning_viz.render.health import layer_health

__all__ = ["Health"]

_MOST_LAYERS = 256
_TRACED = 2  # samples of the pass that shows the activation functions
_BEFORE = 64  # samples at least that are run before training
_UNITS_SECOND = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)  # axis of their units


class Health(PopulationView):
    """Whether training is healthy: one page of all layers with weights, step by step (tag ``health``).

    For each layer the share of its units that are dead, or of its activations that are saturated, the relative size of
    the last update of its weights, and the scale of its outputs; a sentence says what is wrong and since when. A unit
    is dead if it feeds a ReLU and does not exceed zero on any sample; an activation is saturated if it lies within 1 %
    of the range of tanh, sigmoid or the like of a bound, or at a ReLU6's 6. Functions that do neither (GELU, SiLU), the
    model's output, gates, and layers around which something else is added have no such share.

    Red is only what is beyond doubt: 95 % lost in a layer, NaN or infinity, and weights that have not moved in 10
    updates or more though they want a gradient, their learning rate is not zero, and their optimizer moved others.
    (Layers of runs that learn well have half of their units dead and more.) What is frozen, in no optimizer, or has a
    learning rate of 0 is named in gray.

    Numbers of units are those of the validation pass that runs anyway; before training, if Lightning's sanity check has
    shown how the model is called, those of the samples that the run's views have fetched, 64 at least. An update that
    cannot be foreseen has no ratio; a checkpoint holds only those that were seen in training.

    Args:
        layers: to watch; all with weights if omitted, at most 256.
        max_bytes: size of the copy of weights before an update (256 MiB); layers beyond it have no ratio.
    """

    layers: Layers = "weighted"
    max_bytes: int = 256 * 2**20

    kind: ClassVar[str] = "health"
    before_training: ClassVar[bool] = True
    by_sample: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._copy = WeightCopy(self.max_bytes)

    def requirements(self, model: nn.Module) -> Requirements:
        """Some samples, for the pass that shows the activation functions, and for the look before training."""
        return Requirements(head=False, population=_BEFORE)

    def before_update(self, run: Run | None) -> None:
        """Copy the weights, if the update that comes now is followed by a look or by a validation pass."""
        self._copy.before_update(
            run,
            lambda update: update.validated or precedes_look(update, self.schedule),
            lambda: self._trained(run.model) if run else {},
        )

    def read(self, call: str, module: nn.Module, output: Tensor, layout: Layout) -> Reading:
        """The range of each unit over the batch."""
        output = output[:, None] if output.dim() == 1 else output
        return Reading(range_sums(output, axis=1 if isinstance(module, _UNITS_SECOND) else -1), _add)

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """What is measured of each layer."""
        assert snapshot.population is not None
        functions = self._functions(model, snapshot)
        ranges = _by_layer(snapshot.population)
        rows, weights = self._rows(model, ranges), self._weights(model)
        ratios = self._copy.ratios(snapshot.step, self._trained(model)) or {}
        watched = select_layers(model, self.layers)
        moved, finite = self._moves(weights, snapshot), all_finite(weights)
        measured = {
            name: LayerHealth(
                **_shares(functions.get(name), ranges),
                ratio=ratios.get(name, math.nan),
                scale=ranges[name].scale if name in ranges else math.nan,
                broken=_broken(finite.get(name, True), ranges.get(name)),
                unmoved=moved[name][0] if name in moved else None,
                note=moved[name][1] if name in moved else "",
                called=name in ranges or name not in watched,
            )
            for name in rows
        }
        return {"layers": measured if snapshot.rates is not None else as_recorded(self.state, measured, snapshot.step)}

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One page of all steps so far."""
        if not snapshot.extra["layers"]:
            return
        assert snapshot.population is not None
        arguments = record(self.state, snapshot.extra["layers"], snapshot.step, snapshot.population.samples)
        unseen = (self.state["unseen"],) if "unseen" in self.state else ()
        caption = {"details": (snapshot.population.describe(), *unseen), "notes": snapshot.population.notes}
        yield DrawTask(layer_health, {"tag": self.kind, **arguments, **caption, "step": snapshot.step})

    def facts(self, snapshot: Snapshot) -> Mapping[str, Any]:
        """What is wrong with which layer, and since when."""
        if not snapshot.extra["layers"]:
            return {}
        assert snapshot.population is not None
        return {"tag": self.kind, "samples": snapshot.population.samples, "findings": self.state["findings"]}

    def _functions(self, model: nn.Module, snapshot: Snapshot) -> dict[str, ActivationFunction]:
        """The activation function after each layer, as it was seen at the first look."""
        if "functions" not in self.state:
            inputs = snapshot.samples.part(0, _TRACED)
            seen: dict[str, ActivationFunction] = {}
            try:
                seen = activation_functions(model, on_device(model, inputs), select_layers(model, self.layers))
            except Exception as error:  # of a model that does not run so: the rest is drawn
                error.__traceback__ = None  # holds the tensors of the pass
                self.state["unseen"] = f"activation functions not seen: {error_text(error)}"
            self.state["functions"] = {name: asdict(function) for name, function in seen.items()}
        return {name: ActivationFunction(**function) for name, function in self.state["functions"].items()}

    def _rows(self, model: nn.Module, ranges: Mapping[str, UnitRanges]) -> list[str]:
        """Names of the layers that are shown, as they were at the first look.

        Left out are normalizations after a layer, which are shown with it, and layers that are neither trained nor
        called, such as those of a metric.
        """
        if "rows" not in self.state:
            layers, weights = select_layers(model, self.layers), self._weights(model)
            own = {name for name, function in self.state["functions"].items() if function["name"]}
            chosen = [
                name
                for name, module in named_layers(model).items()
                if (name in layers and (name in own or not isinstance(module, NORMALIZATIONS)))
                or (name in weights and name not in layers)
            ]
            trained = {name for name in chosen if any(p.requires_grad for p in named_layers(model)[name].parameters())}
            self.state["rows"] = [name for name in chosen if name in ranges or name in trained][:_MOST_LAYERS]
        return list(self.state["rows"])

    def _weights(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The weights that are shown; by default also those of layers inside others, whose outputs are not watched."""
        return own_weights(model, () if self.layers == "weighted" else self.layers)

    def _trained(self, model: nn.Module) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in self._weights(model).items() if weight.requires_grad}

    def _moves(self, weights: Mapping[str, nn.Parameter], snapshot: Snapshot) -> dict[str, tuple[int | None, str]]:
        """Of each layer's weights the step since which they have not moved though they are trained, and why not."""
        rates = snapshot.rates or {}
        places = {}
        for name, weight in weights.items():
            optimizer, rate = rates.get(id(weight), (None, 0.0))
            places[name] = Placed(optimizer, rate, weight.requires_grad)
        return moves(self.state, places if rates else {}, checksums(weights) if rates else {}, snapshot.step)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_copy": WeightCopy(self.max_bytes)}


def _add(numbers: NDArray[np.float64], batch: Batch, so_far: Any) -> UnitRanges:
    found = UnitRanges.from_batch(numbers)
    return found if so_far is None else so_far.merge(found)


def _by_layer(population: Population) -> dict[str, UnitRanges]:
    """The ranges over all calls of each layer, if they have the same units."""
    layers: dict[str, UnitRanges] = {}
    for call, ranges in population.sums.items():
        name = layer_of_call(call)
        same = name in layers and len(layers[name].highest) == len(ranges.highest)
        layers[name] = layers[name].merge(ranges) if same else layers.get(name, ranges)
    return layers


def _shares(function: ActivationFunction | None, ranges: Mapping[str, UnitRanges]) -> dict[str, float]:
    """The shares of units that are dead and saturated, as far as they have a meaning."""
    units = ranges.get(function.reads) if function is not None and function.judged else None
    if function is None or units is None or units.broken:
        return {}
    dead = {"dead": units.never_positive} if function.dies else {}
    return {**dead, **({"saturated": units.saturated(function.low, function.high)} if function.high < math.inf else {})}


def _broken(finite: bool, ranges: UnitRanges | None) -> str:
    """What of a layer is NaN or infinite."""
    return "weights" if not finite else "activations" if ranges is not None and ranges.broken else ""
