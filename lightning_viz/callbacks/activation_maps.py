"""The view of what samples excite in a layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import ClassVar, Literal

from torch import nn

from lightning_viz.activations.top_k import Channels, choose_channels
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.fixed_scale import fixed_scale
from lightning_viz.callbacks.snapshot import Requirements, Snapshot
from lightning_viz.callbacks.view import View
from lightning_viz.errors import InvalidArgumentError, ViewError
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.render.activations import activation_maps

__all__ = ["ActivationMaps"]

_COLUMNS = 7
_ROWS = 8


def _first_and_last() -> list[str]:
    return ["first_conv", "last_conv"]


class ActivationMaps(View):
    """What each sample excites in a layer's channels (tag ``activations/<layer>``).

    The same samples and the same channels, on the same scale, at every step.

    Args:
        layers: whose output to show; the first and the last convolution if omitted.
        channels: ``"random"`` (picked once, by the probe's seed), ``"first"``, ``"strongest"`` (at the first look), or
            a list of numbers; at most seven.
        scale: ``"fixed"``: one for all maps and steps, from the first look's 1st to 99th percentile, doubled when it
            no longer holds; ``"map"``: each map by itself.
    """

    layers: Layers = field(default_factory=_first_and_last)
    channels: Channels = "random"
    scale: Literal["fixed", "map"] = "fixed"

    kind: ClassVar[str] = "activations"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale not in ("fixed", "map"):
            raise InvalidArgumentError(f"scale is {self.scale!r}: give 'fixed' or 'map'")
        if isinstance(self.channels, str) and self.channels not in ("random", "first", "strongest"):
            raise InvalidArgumentError(
                f"channels is {self.channels!r}: give 'random', 'first', 'strongest' or a list of numbers"
            )

    def check(self, model: nn.Module) -> None:
        """The layers must exist."""
        if not select_layers(model, self.layers):
            raise ViewError("no layers given: name at least one")

    def requirements(self, model: nn.Module) -> Requirements:
        """The layers' outputs for the head of the probe."""
        return Requirements(layers=tuple(select_layers(model, self.layers)))

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One page per call of each layer."""
        verdicts = snapshot.verdicts()[:_ROWS]
        for layer in snapshot.requirements.layers:
            for call in snapshot.calls(layer):
                maps = snapshot.observation.maps(call)
                if maps is None:  # units: 1 x 1 maps
                    maps = snapshot.observation.activations[call].float().flatten(1)[:, :, None, None]
                if call not in self.state:
                    chosen = choose_channels(maps, self.channels, _COLUMNS, seed=self.probe.seed)
                    self.state[call] = {"channels": chosen, "scale": None}
                state, scale = self.state[call], None
                if self.scale == "fixed":
                    scale = fixed_scale(maps[:, state["channels"]].numpy(), snapshot.step, state["scale"])
                    state["scale"] = scale.state
                yield DrawTask(
                    activation_maps,
                    {
                        "tag": f"{self.kind}/{call}",
                        "images": snapshot.images(self.pixel_space, call)[:_ROWS],
                        "maps": maps[:_ROWS, state["channels"]].numpy(),
                        "layer": call,
                        "step": snapshot.step,
                        "channels": state["channels"],
                        "limits": scale and scale.limits,
                        "limits_note": scale.words if scale else "",
                        "verdicts": verdicts,
                        "notes": (*(scale.warnings if scale else ()), *snapshot.notes(self.pixel_space, call)),
                    },
                )
