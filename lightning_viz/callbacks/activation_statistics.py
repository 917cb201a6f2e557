"""The view of how layers' activations are distributed over the validation data."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_viz.activations.statistics import LayerStatistics, batch_statistics, histogram_edges, saturation_bounds
from lightning_viz.callbacks.continuity import draw_distribution
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.layer_readings import Batch, Reading
from lightning_viz.callbacks.shared_axes import axis_states, axis_words, shared_axes
from lightning_viz.callbacks.snapshot import Snapshot
from lightning_viz.callbacks.view import PopulationView
from lightning_viz.hooks.geometry import Layout
from lightning_viz.hooks.layers import Layers

__all__ = ["ActivationStatistics"]

_AXES = "axes"
"""Where the state holds them, beside the calls'."""


class ActivationStatistics(PopulationView):
    """How a layer's activations are distributed, step by step (tag ``statistics/<layer>``).

    Histograms over the run, on one axis for all layers (ten, a hundred, ... times finer for a layer that would be a
    line on it, which is said); as scalars mean, standard deviation, the fraction of dead units (zero on every sample;
    of maps whole channels count) and, where a layer's outputs are bounded, of saturated activations: those within 1 %
    of a sigmoid's or tanh's range of its bounds, at a hardtanh's or hardsigmoid's bounds, at a ReLU6's 6.

    Args:
        layers: to watch; every top-level block if omitted.
    """

    layers: Layers = "blocks"

    kind: ClassVar[str] = "statistics"

    def read(self, call: str, module: nn.Module, output: Tensor, layout: Layout) -> Reading:
        """Sums over the batch."""
        bounds = saturation_bounds(module)
        if call not in self.state:
            self.state[call] = {"places": bool(layout.grid)}
        numbers = batch_statistics(output, layout=layout, bounds=bounds)
        return Reading(numbers, partial(self._add, bounds is not None))

    def _add(self, bounded: bool, numbers: NDArray[np.float64], batch: Batch, so_far: Any) -> Any:
        found = LayerStatistics.from_batch(numbers, len(batch.numbers), bounded=bounded)
        return found if so_far is None else so_far.merge(found)

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One page and its numbers per call of each layer."""
        population = snapshot.population
        assert population is not None
        found_by_call, edges = population.by_call(), histogram_edges()
        counts = {call: found.bins for call, found in found_by_call.items()}
        axes = shared_axes(counts, edges, snapshot.step, self.state.get(_AXES, {}))
        self.state[_AXES] = axis_states(axes)
        for call, found in found_by_call.items():
            tag, state = f"{self.kind}/{call}", self.state.get(call) or self.state[f"{call}:0"]
            yield DrawTask(
                draw_distribution,
                {
                    "tag": tag,
                    "counts": found.bins,
                    "edges": edges,
                    "layer": call,
                    "step": snapshot.step,
                    "population": population.describe(),
                    "numbers": {
                        "mean": found.mean,
                        "std": found.deviation,
                        "dead": found.dead,
                        "never_positive": found.never_positive,
                        "saturated": found.saturated_fraction,
                        "zero": found.zero,
                    },
                    "units": (len(found.lowest), "channels" if state["places"] else "units"),
                    "limits": axes[call].limits,
                    "axis": axis_words(axes, call),
                    "notes": (*axes[call].warnings, *population.notes, *_broken(found)),
                },
                name=tag,
                memory=self.memories.get(tag),
            )


def _broken(found: LayerStatistics) -> tuple[str, ...]:
    return (f"NaN or infinite in {found.broken:,.0f} samples, left out",) if found.broken else ()
