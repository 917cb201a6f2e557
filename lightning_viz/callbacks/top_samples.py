"""The view of what excites a layer's channels most, in the whole of the validation data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_viz.activations.channels import Channels, choose_channels
from lightning_viz.activations.ranking import Strongest, peaks_of
from lightning_viz.callbacks.crops import crops_of, entries_of
from lightning_viz.callbacks.look import Look
from lightning_viz.callbacks.passing import Batch, Reading
from lightning_viz.callbacks.population import PopulationView
from lightning_viz.callbacks.probe import Samples
from lightning_viz.callbacks.sketch import Sketch
from lightning_viz.hooks.maps import as_maps, feature_count
from lightning_viz.pixels import PixelSpace
from lightning_viz.render.excitation import MOST_CHANNELS, MOST_SAMPLES, excitations


@dataclass(kw_only=True, eq=False)
class TopSamples(PopulationView):
    """For each channel the samples that excite it most, of all validation data (tag ``top_samples/<layer>``).

    Each is cropped to what the channel's maximum depends on, its receptive field, beside the deconvolved map of that
    one activation (Zeiler and Fergus, 2014). The samples come from the validation pass that runs anyway, of all
    processes; the maps from backward passes of the view's own, of those samples alone.

    Args:
        layers: to show; the last convolution if omitted.
        channels: ``"random"`` (picked once, by the probe's seed), ``"first"``, or a list of numbers; at most eight.
        best: samples shown per channel, at most nine.
    """

    channels: Channels = "random"
    best: int = MOST_SAMPLES

    kind: ClassVar[str] = "top_samples"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.channels, str) and self.channels not in ("random", "first"):
            raise ValueError(f"channels is {self.channels!r}: give 'random', 'first' or a list of numbers")
        if not 1 <= self.best <= MOST_SAMPLES:
            raise ValueError(f"best is {self.best}: give 1 to {MOST_SAMPLES}")

    def _forget(self) -> None:
        super()._forget()
        self._fields: dict[Any, Any] = {}  # receptive fields found so far: they never change

    def passes(self, samples: Samples) -> float:
        """As many more as there are crops."""
        return super().passes(samples) + MOST_CHANNELS * self.best / samples.head

    def read(self, call: str, module: nn.Module, output: Tensor) -> Reading:
        """The maximum of each shown channel's map, and where it is."""
        maps = as_maps(output, features=feature_count(module))
        places = maps is not None
        maps = output.flatten(1)[:, :, None, None] if maps is None else maps
        if call not in self.state:
            chosen = choose_channels(maps, self.channels, MOST_CHANNELS, seed=self.probe.seed)
            self.state[call] = {"channels": chosen, "places": places}
        peaks = peaks_of(maps, self.state[call]["channels"])
        return Reading(peaks.flatten(), partial(self._rank, tuple(peaks.shape), maps.shape[3]))

    def _rank(self, shape: tuple[int, ...], width: int, numbers: NDArray[np.float64], batch: Batch, so_far: Any) -> Any:
        before: Strongest = so_far or Strongest.nobody(shape[1], self.best)
        return before.update(numbers.reshape(shape), width, batch.numbers, batch.sample)

    def look(self, model: nn.Module, look: Look) -> Mapping[str, Any]:
        """The crops of the strongest samples, and the maps of their maxima."""
        population = self.population(model, look)
        space = self.pixels or look.samples.pixels or PixelSpace()
        pages = {}
        for call, ranking in population.of_layers(self._layers).items():
            state = self.state.get(call) or self.state[f"{call}:0"]
            entries = entries_of(ranking, state["channels"])
            name = look.samples.name
            pages[call] = crops_of(model, call, entries, space, name, places=state["places"], known=self._fields)
        return {"pages": pages, "population": population}

    def draw(self, look: Look) -> Iterable[Sketch]:
        """One page per call of each layer."""
        population = look.extra["population"]
        for call, (crops, details) in look.extra["pages"].items():
            channels = (self.state.get(call) or self.state[f"{call}:0"])["channels"]
            yield Sketch(
                excitations,
                {
                    "tag": f"{self.kind}/{call}",
                    "crops": [crops[row] for row in range(len(channels))],
                    "layer": call,
                    "step": look.step,
                    "channels": channels,
                    "population": population.describe(),
                    "notes": (*population.notes, *look.notes(self.pixels)),
                    **details,
                },
            )
