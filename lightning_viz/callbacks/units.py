"""Units as a person names them: ``"conv2 7"``, ``"conv2"``, ``"logit 3"``, ``"logits"``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from lightning_viz.callbacks.messages import ViewError
from lightning_viz.dream.objectives import Objective, channel, logit
from lightning_viz.hooks.layers import LayerNotFoundError, select_layers
from lightning_viz.hooks.maps import feature_count
from lightning_viz.hooks.observation import layer_of_call

LOGITS = "logits"


@dataclass(frozen=True)
class Unit:
    """What a dream is of: a layer's channel, or a class's logit where the layer is `LOGITS`."""

    layer: str
    index: int

    @property
    def objective(self) -> Objective:
        """What a dream of it climbs."""
        return logit(self.index) if self.layer == LOGITS else channel(self.layer, self.index)


def named_units(model: nn.Module, asked: str, each: int, classes: int) -> Iterator[Unit]:
    """The units that a user's words mean.

    Args:
        model: whose layers are meant.
        asked: the words.
        each: so many channels or classes where no number is given.
        classes: how many the model tells apart.

    Raises:
        ViewError: they mean none.
    """
    name, _, index = asked.rpartition(" ")
    if not index.isdigit():
        name, index = asked, ""
    if name == "logit" and index:
        yield Unit(LOGITS, int(index))
        return
    if name == LOGITS and not index:
        yield from (Unit(LOGITS, one) for one in range(min(each, classes)))
        return
    layer = layer_of_call(name)
    try:
        found = select_layers(model, layer)
    except LayerNotFoundError as error:
        meaning = "units are 'conv2 7', 'conv2', 'logit 3' or 'logits'"
        raise ViewError(f"no unit is called {asked!r}: {error}; {meaning}") from error
    for one, module in found.items():
        count = feature_count(module)
        if index and count is not None and int(index) >= count:
            raise ViewError(f"unit {asked!r}: layer {one!r} has {count} channels, numbered from 0")
        if not index and count is None:
            raise ViewError(f"unit {asked!r}: layer {one!r} does not tell its channels: number them, '{asked} 0'")
        chosen = [int(index)] if index else range(min(each, count or 0))
        yield from (Unit(one + name[len(layer) :], place) for place in chosen)
