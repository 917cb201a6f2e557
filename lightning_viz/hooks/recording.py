"""Forward hooks that keep what layers put out during one pass, and what they kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.feature_maps import as_maps
from lightning_viz.hooks.observation import is_call, layer_of_call
from lightning_viz.hooks.pytree import first_tensor, replace_first_tensor

__all__ = ["Activations"]

T = TypeVar("T")
Reduce = Callable[[Tensor], Tensor]


class StopForward(BaseException):
    """Ends a forward pass that has seen all that is asked for; no error, so that no model's ``except`` stops it."""


class Recording:
    """Per layer, what was kept of each of its calls, in order."""

    def __init__(self) -> None:
        self.calls: defaultdict[str, list[Tensor]] = defaultdict(list)
        self.reduced: defaultdict[str, list[Tensor]] = defaultdict(list)
        self.dimensions: defaultdict[str, list[int]] = defaultdict(list)
        self.traced: set[str] = set()  # layers that were called with gradients enabled
        self.open = True
        self.until: int | None = None  # so many calls in all

    @property
    def count(self) -> int:
        """How many calls were kept, of all layers together."""
        return sum(map(len, self.calls.values()))

    def close(self) -> None:
        """Keep nothing more: a backward through checkpointed blocks runs their layers, and so the hooks, again."""
        self.open = False


@contextmanager
def recording(
    layers: Mapping[str, nn.Module],
    *,
    gradients: Collection[str] = (),
    reduce: Mapping[str, tuple[nn.Module, Reduce]] | None = None,
    until: int | None = None,
) -> Iterator[Recording]:
    """Keep the output of layers while the context is open.

    Args:
        layers: by name, those whose output is kept as it is, out of reach of a later in-place operation.
        gradients: names among them that start the graph, if nothing before them did, and stay part of it: the
            gradient of anything computed afterwards can be taken towards what is kept of them.
        reduce: by name, layers of whose output only what a function makes of it is kept.
        until: the pass ends, by `StopForward`, with so many calls kept; it goes to the end if None.
    """
    record = Recording()
    record.until = until
    handles = [
        module.register_forward_hook(_keep(record, name, differentiable=name in gradients))
        for name, module in layers.items()
    ]
    handles += [
        module.register_forward_hook(_reduce(record, name, function))
        for name, (module, function) in (reduce or {}).items()
    ]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Activations:
    """The recorded outputs of one pass, still part of its graph.

    Attributes:
        calls: outputs of layers ``[N, ...]``, by call: a layer called several times is ``"name:0"``, ``"name:1"``, ...
        outputs: what the model returned; None where the pass ended before.
        features: by layer that was asked for, how many features its weights put out, None where it has none (see
            `feature_count`).
    """

    calls: Mapping[str, Tensor]
    outputs: Any = None
    features: Mapping[str, int | None] = field(default_factory=dict)

    def __getitem__(self, layer: str) -> Tensor:
        """A layer's output ``[N, ...]``; of a layer called several times that of a call, ``"relu:1"``.

        Raises:
            InvalidArgumentError: the call does not exist, the layer has several, or nobody asked for the layer.
        """
        if layer in self.calls:
            return self.calls[layer]
        name = layer_of_call(layer)
        calls = [call for call in self.calls if is_call(call, name)]
        if calls:
            times = f"{len(calls)} times" if len(calls) > 1 else "once"
            hint = f"name the call, one of {calls}" if layer == name else f"{layer!r} is none of {calls}"
            raise InvalidArgumentError(f"layer {name!r} is called {times}: {hint}")
        if name in self.features:
            raise InvalidArgumentError(f"the target's layer {layer!r} is not called in the forward pass")
        raise InvalidArgumentError(f"layer {layer!r} is read but not announced: give the target layers=({layer!r},)")

    def planes(self, layer: str) -> Tensor | None:
        """A layer's output as maps ``[N, K, H, W]``; None of a layer without places in a plane."""
        return as_maps(self[layer], features=self.features.get(layer_of_call(layer)))

    def maps(self, layer: str) -> Tensor:
        """A layer's output as maps ``[N, K, H, W]``; of a layer without places in a plane ``[N, K, 1, P]``."""
        maps, output = self.planes(layer), self[layer]
        if maps is not None:
            return maps
        output = output.unsqueeze(1) if output.dim() == 1 else output  # one unit
        features = self.features.get(layer_of_call(layer))
        first = output.transpose(1, 2) if output.dim() == 3 and output.shape[2] == features else output
        return first.reshape(len(first), first.shape[1], 1, -1)


def call_names(calls: Mapping[str, list[T]]) -> dict[str, T]:
    """Flatten calls by layer: a single call goes by the layer's name, several by ``"name:0"``, ``"name:1"``, ..."""
    named: dict[str, T] = {}
    for name, results in calls.items():
        named.update({f"{name}:{index}" if len(results) > 1 else name: one for index, one in enumerate(results)})
    return named


def _keep(record: Recording, name: str, *, differentiable: bool) -> Callable[[nn.Module, Any, Any], Any]:
    def copy(output: Tensor) -> Tensor:
        if record.open:
            record.calls[name].append(output.detach().clone())
        return output

    def branch(output: Tensor) -> Tensor:
        """Keep the original and hand on a clone: an in-place ReLU that follows writes to the clone."""
        kept = output if output.requires_grad else output.detach().requires_grad_()
        if record.open:
            record.calls[name].append(kept)
            if torch.is_grad_enabled():
                record.traced.add(name)
        return kept.clone()

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        result = replace_first_tensor(output, branch if differentiable else copy)
        if record.open and record.count == record.until:
            raise StopForward
        return result

    return hook


def _reduce(record: Recording, name: str, function: Reduce) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if record.open and tensor is not None:
            result = function(tensor.detach())
            shared = result.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
            record.reduced[name].append(result.clone() if shared else result)
            record.dimensions[name].append(tensor[:1].numel())

    return hook
