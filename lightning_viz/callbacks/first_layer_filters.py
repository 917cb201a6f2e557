"""The view of a network's first filters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from torch import nn

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.fixed_scale import fixed_scale
from lightning_viz.callbacks.snapshot import Requirements, Snapshot
from lightning_viz.callbacks.view import View
from lightning_viz.errors import ViewError
from lightning_viz.hooks.layers import Layers, named_layers, select_layers
from lightning_viz.hooks.map_shapes import flattened_maps
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.parameters import filter_images, first_layer, hides_inputs, is_transposed
from lightning_viz.render.text import number, times
from lightning_viz.render.weights import filter_table, filters

__all__ = ["FirstLayerFilters"]


class FirstLayerFilters(View):
    """The filters that the first layer learns, as images (tag ``filters/<layer>``).

    The first convolution's kernels, or the weights of the first fully connected layer in the shape of its input; with
    depth as slices side by side, of series as curves. All steps share one scale, with zero in the middle.

    A fully connected layer behind convolutions has a weight for each place of the maps ``[C, h, w]`` that it flattens:
    each unit is drawn as C images.

    Args:
        layer: by name, instead of the first convolution or fully connected layer.
        table: deeper convolutions, or fully connected layers behind them, to show as a table of kernels, filters by
            input channels.
        per_filter: scale each filter by itself rather than the layer as a whole.
        as_rgb: kernels over three channels as color images; else each channel by itself.
    """

    layer: str | None = None
    table: Layers = ()
    per_filter: bool = False
    as_rgb: bool = True

    kind: ClassVar[str] = "filters"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._flattened: dict[str, tuple[int, ...]] | None = None

    def check(self, model: nn.Module) -> None:
        """The model must have a layer of filters."""
        name = self.layer or first_layer(model)
        hiding = hides_inputs(model)
        if name is None and hiding is not None:
            own = type(select_layers(model, hiding)[hiding])
            package = own.__module__.partition(".")[0]
            kind = own.__name__ if package == "torch" else f"{package}.{own.__name__}"
            raise ViewError(
                f"the first layer, {hiding!r}, is of type {kind}, which has no filters: name another layer="
            )
        if name is None:
            raise ViewError("the model has no convolution and no fully connected layer: name the layer=")
        for one in (name, *select_layers(model, self.table)):
            weight = getattr(select_layers(model, one)[one], "weight", None)
            if weight is None or weight.dim() < 2:
                raise ViewError(f"layer {one!r} has no filters: name a convolution or fully connected layer")

    def requirements(self, model: nn.Module) -> Requirements:
        """The weights alone."""
        layers = [self.layer or first_layer(model) or "", *select_layers(model, self.table)]
        return Requirements(weights=tuple(f"{name}.weight" for name in layers), head=False)

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """Which layers are transposed convolutions, whose weights begin with the inputs; maps that others flatten."""
        modules, names = named_layers(model), [x.removesuffix(".weight") for x in snapshot.requirements.weights]
        if self._flattened is None:
            layers = {name: modules[name] for name in names}
            self._flattened = flattened_maps(model, snapshot.observation.inputs, layers)
        return {
            "transposed": {name for name in names if is_transposed(modules[name])},
            "flattened": self._flattened,
        }

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One page per layer."""
        shape = next((tuple(x.shape[1:]) for x in all_tensors(snapshot.observation.inputs)), ())
        for place, asked in enumerate(snapshot.requirements.weights):
            name, weight = asked.removesuffix(".weight"), snapshot.observation.weights[asked]
            transposed, maps = name in snapshot.extra["transposed"], snapshot.extra["flattened"].get(name)
            images = filter_images(weight.transpose(0, 1) if transposed else weight, shape=maps or shape).numpy()
            known, norm = self.state.get(name, {}), float(np.sqrt(np.square(images, dtype=np.float64).sum()))
            scale, first = fixed_scale(images, snapshot.step, known.get("scale")), known.get("norm", norm)
            self.state[name] = {"scale": scale.state, "norm": first}
            arguments = {
                "tag": f"{self.kind}/{name}",
                "weights": images,
                "layer": name,
                "step": snapshot.step,
                "limit": max(map(abs, scale.limits)) or None,
                "details": [
                    "" if maps is None else f"in the shape of the maps it flattens, {times(maps)}",
                    f"weights' norm {number(norm)}, at step {scale.first:,} it was {number(first)}",
                ],
            }
            shared = {"limit_note": scale.words, "notes": scale.warnings}
            if place and images.shape[1] > 1:
                yield DrawTask(filter_table, {**arguments, **shared, "weights": images[:20, :15]})
            elif self.per_filter:
                yield DrawTask(filters, {**arguments, "per_filter": True, "as_rgb": self.as_rgb})
            else:
                yield DrawTask(filters, {**arguments, **shared, "as_rgb": self.as_rgb})
