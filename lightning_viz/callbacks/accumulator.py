"""What views take of a population while it passes through the model, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_viz.errors import InvalidArgumentError, InvalidTypeError, LayerNotReachedError
from lightning_viz.hooks.observation import is_call
from lightning_viz.hooks.pytree import first_tensor, map_tensors

if TYPE_CHECKING:
    from lightning_viz.callbacks.population import PopulationView


@dataclass(frozen=True)
class Batch:
    """A batch of the samples that pass.

    Attributes:
        inputs: as the model takes them, where it is.
        labels: classes ``[n]``; None where they are not known.
        numbers: of the samples, each its own ``[n]``; the rest of the batch are doubles and do not count.
    """

    inputs: Any
    labels: Tensor | None
    numbers: NDArray[np.int64]

    def sample(self, row: int) -> tuple[Any, int | None]:
        """The inputs of one sample, a batch of one on the CPU, and its class."""
        with torch.inference_mode(False):  # else what is kept could not be computed with later
            inputs = map_tensors(self.inputs, lambda x: x[row : row + 1].detach().cpu().clone())
        return inputs, None if self.labels is None else int(self.labels[row])


class Reading(NamedTuple):
    """What a view takes of a layer's output in a batch.

    Attributes:
        numbers: one-dimensional, float64 as a rule, small, still on the layer's device.
        add: from these on the CPU, the batch, and what was summed up before (None before the first), to the new sum.
    """

    numbers: Tensor
    add: Callable[[NDArray[np.float64], Batch, Any], Any]


@dataclass(frozen=True)
class Population:
    """What was seen of a population.

    Attributes:
        sums: by call, what a view summed up.
        step: completed updates.
        samples: how many.
        notes: what should be said of them.
        validation: whether they were the validation pass itself.
    """

    sums: Mapping[str, Any]
    step: int
    samples: int
    notes: tuple[str, ...] = ()
    validation: bool = True

    def of_layers(self, names: Iterable[str]) -> dict[str, Any]:
        """The sums by call, in the order of the layers.

        Args:
            names: of the layers.

        Raises:
            LayerNotReachedError: one was not called.
        """
        found = {}
        for name in names:
            calls = {call: each for call, each in self.sums.items() if is_call(call, name)}
            if not calls:
                raise LayerNotReachedError(f"layer {name!r} is not called in the forward pass: leave it out")
            found.update(calls)
        return found

    def describe(self) -> str:
        """Whose samples these are, for a caption."""
        return f"{self.samples:,} validation samples" if self.validation else f"{self.samples:,} samples"


@dataclass
class Readings:
    """What views took of their layers' outputs in one batch.

    Attributes:
        size: samples in the batch.
        valid: how many of them count, from the first on.
    """

    size: int
    valid: int | None = None
    taken: list[tuple[str, str, Reading]] = field(default_factory=list)
    faults: dict[str, Exception] = field(default_factory=dict)

    def hooks(self, view: PopulationView, layers: Mapping[str, nn.Module]) -> list[Any]:
        """Hang on to layers; what goes wrong does not reach the forward pass, and is kept in `faults`."""
        return [module.register_forward_hook(self._hook(view, name)) for name, module in layers.items()]

    def _hook(self, view: PopulationView, layer: str) -> Callable[[nn.Module, Any, Any], None]:
        calls = 0

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            nonlocal calls
            call, calls = f"{layer}:{calls}", calls + 1
            if view.name in self.faults:
                return
            try:
                tensor = first_tensor(output)
                if tensor is None:
                    raise InvalidTypeError(f"layer {layer!r} puts out no tensor of floating-point numbers")
                if tensor.dim() == 0 or len(tensor) != self.size:
                    shape = list(tensor.shape)
                    raise InvalidArgumentError(f"layer {layer!r} puts out {shape} for a batch of {self.size} samples")
                if self.valid != 0:
                    counted = tensor[: self.valid].detach()
                    counted = counted[:, None] if counted.dim() == 1 else counted  # one unit
                    self.taken.append((view.name, call, view.read(call, module, counted)))
            except Exception as error:
                self.faults[view.name] = error

        return hook


class Tally:
    """What views have summed up so far, by view and call."""

    def __init__(self) -> None:
        self.sums: dict[str, dict[str, Any]] = {}

    def add(self, readings: Readings, batch: Batch) -> None:
        """Add a batch's readings, brought to the CPU at once."""
        taken = [one for one in readings.taken if one[0] not in readings.faults]
        if not taken:
            return
        together = torch.cat([reading.numbers for *_, reading in taken]).cpu().double().numpy()
        ends = np.cumsum([len(reading.numbers) for *_, reading in taken])
        for (view, call, reading), numbers in zip(taken, np.split(together, ends[:-1]), strict=True):
            try:
                sums = self.sums.setdefault(view, {})
                sums[call] = reading.add(numbers, batch, sums.get(call))
            except Exception as error:
                readings.faults[view] = error

    def by_call(self, view: str) -> dict[str, Any]:
        """One view's sums (see `named_calls`)."""
        return named_calls(self.sums.get(view, {}))


def named_calls(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Sums by call; those of a layer that was called once go by its name.

    Args:
        sums: by layer and number of the call, ``"relu:1"``.

    >>> named_calls({"relu:0": "a", "relu:1": "b", "conv:0": "c"})
    {'relu:0': 'a', 'relu:1': 'b', 'conv': 'c'}
    """
    layers = [call.rpartition(":")[0] for call in sums]
    return {
        layer if layers.count(layer) == 1 else call: each
        for (call, each), layer in zip(sums.items(), layers, strict=True)
    }
