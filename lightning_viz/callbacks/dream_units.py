"""Units that dreams are of: channels of layers, and classes; named in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from torch import nn

from lightning_viz.errors import InvalidArgumentError, LayerNotFoundError, ViewError
from lightning_viz.hooks.feature_maps import feature_count
from lightning_viz.hooks.layer_target import LayerTarget
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.observation import layer_of_call
from lightning_viz.hooks.target_types import ClassTarget, Target
from lightning_viz.hooks.targets import channel, logit, parse_target

LOGITS = "logits"
_UNITS = "units are 'conv2[7]', 'conv2', '3' or 'class:ox', or 'logits'"


@dataclass(frozen=True)
class Unit:
    """What a dream is of: a layer's channel, or a class's logit where the layer is `LOGITS`."""

    layer: str
    index: int

    @property
    def target(self) -> Target:
        """What a dream of it climbs."""
        return logit(self.index) if self.layer == LOGITS else channel(self.layer, self.index)

    @property
    def target_in_the_middle(self) -> Target:
        """Of a channel that sees less than the image: what its one position in the middle of the map climbs."""
        return LayerTarget(self.layer, self.index, "unit")


def named_units(
    model: nn.Module, text: str, each: int, classes: int, class_names: Sequence[str] | None = None
) -> Iterator[Unit]:
    """The units of words: ``conv2[7]``, ``conv2`` (its first channels), ``3`` or ``class:ox``, ``logits``.

    Args:
        model: whose layers are meant.
        text: the words.
        each: so many channels or classes where no number is given.
        classes: how many the model tells apart.
        class_names: in the order of the classes; None if not known yet: any name then stands for a class.

    Raises:
        ViewError: they mean none.
    """
    if text == LOGITS:
        yield from (Unit(LOGITS, index) for index in range(min(each, classes)))
        return
    name, index = text, None
    with suppress(InvalidArgumentError):  # not a target, a layer then
        target = parse_target(text)
        if isinstance(target, ClassTarget):
            yield Unit(LOGITS, _class_of(target, text, class_names))
            return
        if not isinstance(target, LayerTarget) or target.kind != "channel" or not isinstance(target.index, int):
            raise ViewError(f"no dream is of {text!r}: {_UNITS}")
        name, index = target.layer, target.index
    layer = layer_of_call(name)
    try:
        modules = select_layers(model, layer)
    except LayerNotFoundError as error:
        raise ViewError(f"no unit is called {text!r}: {error}; {_UNITS}") from error
    for found, module in modules.items():
        count = feature_count(module)
        if index is not None and count is not None and index >= count:
            raise ViewError(f"unit {text!r}: layer {found!r} has {count} channels, numbered from 0")
        if index is None and count is None:
            raise ViewError(f"unit {text!r}: layer {found!r} does not tell its channels: number them, '{text}[0]'")
        chosen = range(min(each, count or 0)) if index is None else [index]
        yield from (Unit(found + name[len(layer) :], place) for place in chosen)


def _class_of(target: ClassTarget, text: str, class_names: Sequence[str] | None) -> int:
    named = target if class_names is None else target.bind(None, class_names)
    if isinstance(named, ClassTarget) and isinstance(named.index, int):
        return named.index
    if class_names is None and text.startswith("class:"):
        return 0  # until the names are known
    raise ViewError(f"no dream is of {text!r}: {_UNITS}")
