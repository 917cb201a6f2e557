"""Layers that a model calls once for each image of a list: their outputs as one, with a dimension of samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_viz.hooks.geometry import Layout
from lightning_viz.hooks.recording import Recording

_T = TypeVar("_T")


@dataclass(frozen=True)
class JoinedCalls:
    """What one pass recorded, with the calls of a layer that is called image by image as one call.

    Attributes:
        calls: outputs by layer.
        gradients: with respect to them.
        reduced: what reductions made of outputs.
        joined: layers of which the calls were joined.
        layouts: of the outputs; none of maps that were padded, whose channels come first.
        extents: the share that each image takes up of maps that were padded to one size ``[N, 2]``; None if none were.
    """

    calls: Mapping[str, list[Tensor]]
    gradients: Mapping[str, list[Tensor | None]]
    reduced: Mapping[str, list[Tensor]]
    joined: frozenset[str]
    layouts: Mapping[str, list[Layout]]
    extents: Tensor | None

    def of_calls(self, values: Mapping[str, list[_T]]) -> dict[str, list[_T]]:
        """Values by call, one for all images where the calls were joined."""
        return {name: own[:1] if name in self.joined else own for name, own in values.items()}


def joined_calls(
    record: Recording, gradients: Mapping[int, Tensor | None], differentiated: Iterable[str], sizes: Tensor | None
) -> JoinedCalls:
    """Join the calls of layers that a model calls once for each image of a list.

    Args:
        record: of the pass.
        gradients: with respect to recorded outputs, by their id.
        differentiated: layers of which the gradients are wanted.
        sizes: heights and widths of the images ``[N, 2]``; None if the model was given no list of images.
    """
    count = 0 if sizes is None else len(sizes)
    by_layer = {name: [gradients[id(x)] for x in record.calls[name]] for name in differentiated}
    calls, slopes, reduced = dict(record.calls), dict(by_layer), dict(record.reduced)
    joined, padded = set(), set()
    for name, outputs in record.calls.items():
        if _by_image(outputs, count):
            calls[name] = [_join(outputs, 0)]
            joined.add(name)
            padded |= {name} if len({x.shape for x in outputs}) > 1 else set()
            if name in slopes:
                slopes[name] = [_join_gradients(slopes[name], outputs)]
    for name, results in record.reduced.items():
        if _by_image(results, count) and len({x.shape for x in results}) == 1:
            reduced[name] = [torch.cat(results)]
            joined.add(name)
    extents = sizes / sizes.amax(0) if padded and sizes is not None else None
    layouts = {name: own[:1] if name in joined else own for name, own in record.layouts.items() if name not in padded}
    return JoinedCalls(calls, slopes, reduced, frozenset(joined), layouts, extents)


def _by_image(calls: Sequence[Tensor], count: int) -> bool:
    """Whether there is one call for each image, with outputs that go together."""
    if count < 2 or len(calls) != count or any(x.dim() == 0 or len(x) != 1 for x in calls):
        return False
    alike = len({x.shape for x in calls}) == 1
    return alike or (all(x.dim() == 4 for x in calls) and len({x.shape[1] for x in calls}) == 1)


def _join(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Parts of one image each as one tensor, maps padded below and right to one size."""
    if len({part.shape for part in parts}) > 1:
        height, width = (max(part.shape[side] for part in parts) for side in (-2, -1))
        parts = [F.pad(part, (0, width - part.shape[-1], 0, height - part.shape[-2])) for part in parts]
    return torch.cat(list(parts), axis)


def _join_gradients(gradients: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> Tensor | None:
    """Gradients of calls of one image each; zero where the target does not depend on an image's."""
    known = next((gradient for gradient in gradients if gradient is not None), None)
    if known is None:
        return None
    axis = known.dim() - outputs[0].dim()
    parts = [
        output.new_zeros(*known.shape[:axis], *output.shape) if gradient is None else gradient
        for gradient, output in zip(gradients, outputs, strict=True)
    ]
    return _join(parts, axis)
