"""Many passes of one model, as an optimisation needs them: each goes no further than the layers asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.hooks.guard import looking, seed_torch
from lightning_viz.hooks.layers import LayerNotReachedError, Layers, select_layers
from lightning_viz.hooks.maps import feature_count
from lightning_viz.hooks.observing import Forward, run
from lightning_viz.hooks.record import Enough, call_names, recording
from lightning_viz.hooks.structure import map_tensors


@dataclass(frozen=True)
class Seen:
    """What one pass saw, still part of its graph.

    Attributes:
        calls: outputs of layers, by call: a layer called several times is ``"name:0"``, ``"name:1"``, ...
        outputs: what the model returned; None where the pass ended before.
        features: by layer how many features its weights put out, None where it has none (see `feature_count`).
    """

    calls: Mapping[str, Tensor]
    outputs: Any = None
    features: Mapping[str, int | None] = field(default_factory=dict)


class Passes:
    """Runs a model again and again; what it changes in itself or in random generators is put back after the last pass.

    The first pass goes to the end, unless the model fails behind the last layer asked for: an image that its head
    cannot take serves the layers before it. Every later pass ends with the call that was the last of the first pass.

    Attributes:
        like: an empty tensor on the model's device and in its precision, those of its first weight.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module], whole: bool, forward: Forward | None) -> None:
        self._model, self._layers, self._whole, self._forward = model, layers, whole, forward
        self._calls: int | None = None
        self.like = next((one for one in model.parameters() if one.is_floating_point()), torch.zeros(())).new_empty(0)
        self._features = {name: feature_count(module) for name, module in layers.items()}

    def __call__(self, inputs: Any) -> Seen:
        """One forward.

        Args:
            inputs: as the model takes them, part of a graph or not; it is given a copy, to write to.

        Raises:
            LayerNotReachedError: the forward does not call a layer that was asked for.
        """
        outputs = None
        until = None if self._whole else self._calls
        with recording(self._layers, gradients=self._layers, until=until) as record:
            try:
                outputs = (self._forward or run)(self._model, map_tensors(inputs, torch.clone))
            except Enough:
                pass
            except RuntimeError:
                if self._whole or self._calls is not None or set(record.calls) != set(self._layers):
                    raise
        missing = [name for name in self._layers if not record.calls.get(name)]
        if missing:
            which = f"layer {missing[0]!r} is" if len(missing) == 1 else f"layers {missing} are"
            raise LayerNotReachedError(f"{which} not called in the forward pass")
        self._calls = record.count
        return Seen(call_names(record.calls), outputs, self._features)


@contextmanager
def passes(
    model: nn.Module,
    layers: Layers = (),
    *,
    whole: bool = True,
    forward: Forward | None = None,
    seed: int | None = None,
) -> Iterator[Passes]:
    """One look at a model for many passes; gradients of what they saw can be taken inside, none for any weight.

    Args:
        model: any module; on leaving it is bit for bit as before (see `unchanged`).
        layers: whose outputs are asked for.
        whole: whether the model's output is asked for as well; if not, a pass ends at the last of the layers.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.
        seed: of what the model itself may draw from torch's generators; they go on as they are if None.

    Raises:
        LayerNotFoundError: no layer matches.
    """
    chosen = select_layers(model, layers) if layers else {}
    with looking(model):
        if seed is not None:
            seed_torch(seed)
        yield Passes(model, chosen, whole or not chosen, forward)
