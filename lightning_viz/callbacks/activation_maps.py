"""The view of what samples excite in a layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field
from typing import ClassVar, Literal

from torch import nn

from lightning_viz.activations.top_k import Channels, choose_channels
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.fixed_scale import FixedScale, fixed_scale
from lightning_viz.callbacks.snapshot import Requirements, Snapshot
from lightning_viz.callbacks.view import View
from lightning_viz.errors import InvalidArgumentError, ViewError
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.render.activations import activation_maps, channel_maps

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
        layout: ``"table"``, samples by channels; ``"large"``, a page of each channel, its maps beside the samples
            (Yosinski et al., 2015; tag ``activations/<layer>/<channel>``).
        scale: ``"fixed"``: one for each channel at all steps, from the first look's 1st to 99th percentile, doubled
            when it no longer holds; ``"map"``: each map by itself.
    """

    layers: Layers = field(default_factory=_first_and_last)
    channels: Channels = "random"
    scale: Literal["fixed", "map"] = "fixed"
    layout: Literal["table", "large"] = "table"

    kind: ClassVar[str] = "activations"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale not in ("fixed", "map"):
            raise InvalidArgumentError(f"scale is {self.scale!r}: give 'fixed' or 'map'")
        if self.layout not in ("table", "large"):
            raise InvalidArgumentError(f"layout is {self.layout!r}: give 'table' or 'large'")
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
        """One page per call of each layer, or per channel."""
        verdicts = snapshot.verdicts()[:_ROWS]
        for layer in snapshot.requirements.layers:
            for call in snapshot.calls(layer):
                maps = snapshot.observation.maps(call)
                if maps is None:  # units: 1 x 1 maps
                    maps = snapshot.observation.activations[call].float().flatten(1)[:, :, None, None]
                if call not in self.state:
                    chosen = choose_channels(maps, self.channels, _COLUMNS, seed=self.probe.seed)
                    self.state[call] = {"channels": chosen, "scale": None}
                state, scales = self.state[call], None
                if self.scale == "fixed":
                    before = state["scale"] or [None] * len(state["channels"])
                    values = zip(maps[:, state["channels"]].unbind(1), before, strict=True)
                    scales = [fixed_scale(channel.numpy(), snapshot.step, earlier) for channel, earlier in values]
                    state["scale"] = [scale.state for scale in scales]
                images, notes = snapshot.images(self.pixel_space, call)[:_ROWS], snapshot.notes(self.pixel_space, call)
                every, large = list(range(len(state["channels"]))), self.layout == "large"
                for places in [[place] for place in every] if large else [every]:
                    numbers = [state["channels"][place] for place in places]
                    own = [] if scales is None else [scales[place] for place in places]
                    arguments = {
                        "tag": f"{self.kind}/{call}" + (f"/{numbers[0]}" if large else ""),
                        "images": images,
                        "maps": maps[:_ROWS, numbers].numpy(),
                        "layer": call,
                        "step": snapshot.step,
                        "channels": numbers,
                        "limits": [each.limits for each in own] or None,
                        "limits_note": _words(own) if own else "",
                        "verdicts": verdicts,
                        "notes": (*_warnings(numbers, own), *notes),
                    }
                    yield DrawTask(channel_maps if large else activation_maps, arguments)


def _words(scales: Sequence[FixedScale]) -> str:
    """Where the channels' scales come from, for the caption."""
    words = list(dict.fromkeys(scale.words for scale in scales))
    since = [scale.since for scale in scales if scale.since is not None]
    if len(words) == 1:
        return words[0]
    return f"{len(since)} of them wider since step {max(since):,}" if since else f"fixed at step {scales[0].first:,}"


def _warnings(channels: Sequence[int], scales: Sequence[FixedScale]) -> tuple[str, ...]:
    """For the first picture on which some channels' scales are others than on the one before."""
    changed = [channel for channel, scale in zip(channels, scales, strict=False) if scale.warnings]
    if not changed:
        return ()
    before = max(scale.before for scale in scales if scale.warnings)
    return (f"display scale wider than at step {before:,} in ch {', '.join(map(str, changed))}",)
