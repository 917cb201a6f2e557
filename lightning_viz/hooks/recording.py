"""Forward hooks that record or reduce the outputs of layers during one pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.geometry import Geometry, Layout, as_maps, watch_geometry
from lightning_viz.hooks.observation import is_call, layer_of_call
from lightning_viz.hooks.outputs import OutputMeaning, form_meaning, no_scores, scores_path
from lightning_viz.hooks.pytree import first_tensor, part_at, replace_first_tensor
from lightning_viz.hooks.shards import Outputs, whole_outputs

__all__ = ["Activations"]

T = TypeVar("T")
Reduce = Callable[[Tensor], Tensor]


class StopForward(BaseException):
    """Ends a forward pass that has recorded everything; a BaseException, so that models do not catch it."""


class Recording:
    """Recorded outputs by layer, in the order of its calls."""

    def __init__(self) -> None:
        self.calls: defaultdict[str, list[Tensor]] = defaultdict(list)
        self.reduced: defaultdict[str, list[Tensor]] = defaultdict(list)
        self.dimensions: defaultdict[str, list[int]] = defaultdict(list)
        self.layouts: defaultdict[str, list[Layout]] = defaultdict(list)
        self.geometry: Geometry | None = None
        self.traced: set[str] = set()  # layers that were called with gradients enabled
        self.open = True
        self.until: int | None = None  # number of calls after which the pass ends

    @property
    def count(self) -> int:
        """Number of recorded calls of all layers."""
        return sum(map(len, self.calls.values()))

    def close(self) -> None:
        """Stop recording, because a backward through checkpointed blocks runs their layers and hooks again."""
        self.open = False
        if self.geometry is not None:
            self.geometry.open = False

    def note_layout(self, name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Keep the layout of a call of a layer."""
        if self.geometry is not None:
            self.layouts[name].append(self.geometry.layout(module, inputs, output, name))


@contextmanager
def recording(
    model: nn.Module,
    inputs: Any,
    layers: Mapping[str, nn.Module],
    *,
    gradients: Collection[str] = (),
    reduce: Mapping[str, tuple[nn.Module, Reduce]] | None = None,
    until: int | None = None,
) -> Iterator[Recording]:
    """Record the outputs of layers inside the context; later in-place operations do not change them.

    Outputs of layers in `gradients` stay part of the graph (or start it), so that gradients with respect to them can be
    computed; of those in `reduce` a function's result is recorded instead. After `until` recorded calls `StopForward`
    ends the pass.
    """
    record = Recording()
    record.until = until
    with whole_outputs(model) as outputs, ExitStack() as hooks:
        for name, module in layers.items():
            hook = _record_hook(record, name, outputs, differentiable=name in gradients)
            hooks.callback(module.register_forward_hook(hook, prepend=outputs.first(module)).remove)
        for name, (module, function) in (reduce or {}).items():
            reducing = _reduce_hook(record, name, outputs, function)
            hooks.callback(module.register_forward_hook(reducing, prepend=outputs.first(module)).remove)
        with watch_geometry(model, inputs) if layers else nullcontext() as record.geometry:
            yield record


@dataclass(frozen=True)
class Activations:
    """The recorded outputs of one pass, still part of its graph.

    Attributes:
        calls: outputs of layers ``[N, ...]``, by call: a layer called several times is ``"name:0"``, ``"name:1"``, ...
        outputs: of the model; None if the pass ended before.
        layers: names of the requested layers.
        layouts: of the outputs, by call; channels first where there is none (see `as_maps`).
        meaning: of the outputs; by their form alone if None.
    """

    calls: Mapping[str, Tensor]
    outputs: Any = None
    layers: Collection[str] = ()
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    meaning: OutputMeaning | None = None

    def scores(self) -> tuple[Tensor, OutputMeaning]:
        """The scores among the model's outputs, as it returns them, and what they mean.

        Raises:
            OutputError: there are none, or several tensors could be.
        """
        path = scores_path(self.outputs) if self.meaning is None else self.meaning.path
        scores = part_at(self.outputs, path)
        if scores.dim() == 0:
            raise no_scores(self.outputs)
        return scores, self.meaning or form_meaning(scores, path)

    def __getitem__(self, layer: str) -> Tensor:
        """A layer's output ``[N, ...]``; of a layer called several times that of a call, ``"relu:1"``.

        Raises:
            InvalidArgumentError: the call does not exist, the layer has several, or it was not requested.
        """
        if layer in self.calls:
            return self.calls[layer]
        name = layer_of_call(layer)
        calls = [call for call in self.calls if is_call(call, name)]
        if calls:
            times = f"{len(calls)} times" if len(calls) > 1 else "once"
            hint = f"name the call, one of {calls}" if layer == name else f"{layer!r} is none of {calls}"
            raise InvalidArgumentError(f"layer {name!r} is called {times}: {hint}")
        if name in self.layers:
            raise InvalidArgumentError(f"the target's layer {layer!r} is not called in the forward pass")
        raise InvalidArgumentError(f"layer {layer!r} is read but not announced: give the target layers=({layer!r},)")

    def planes(self, layer: str) -> Tensor | None:
        """A layer's output as maps ``[N, K, *S]``, in one to three dimensions; None if it has no places."""
        return as_maps(self[layer], self.layouts.get(layer))

    def maps(self, layer: str) -> Tensor:
        """A layer's output as maps ``[N, K, *S]``, in one to three dimensions; ``[N, K, 1, P]`` without places."""
        maps, output = self.planes(layer), self[layer]
        if maps is not None:
            return maps
        output = output.unsqueeze(1) if output.dim() == 1 else output  # one unit
        layout = self.layouts.get(layer)
        first = output if layout is None or output.dim() < 3 else output.movedim(layout.channel_axis, 1)
        return first.reshape(len(first), first.shape[1], 1, -1)


def call_names(calls: Mapping[str, list[T]]) -> dict[str, T]:
    """Flatten calls by layer: a single call has the layer's name, several have ``"name:0"``, ``"name:1"``, ..."""
    named: dict[str, T] = {}
    for name, results in calls.items():
        named.update({f"{name}:{index}" if len(results) > 1 else name: result for index, result in enumerate(results)})
    return named


def _record_hook(
    record: Recording, name: str, outputs: Outputs, *, differentiable: bool
) -> Callable[[nn.Module, Any, Any], Any]:
    def copy(output: Tensor) -> None:
        if record.open:
            record.calls[name].append(output.detach().clone())

    def branch(output: Tensor) -> Tensor:
        """Record the original and return a clone, because an in-place ReLU may follow."""
        original = output if output.requires_grad else output.detach().requires_grad_()
        if record.open:
            record.calls[name].append(original)
            if torch.is_grad_enabled():
                record.traced.add(name)
        return original.clone()

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        tensor = first_tensor(output)
        result = output
        if tensor is not None:
            whole, as_before = outputs.whole(inputs, tensor, name)
            if record.open:
                record.note_layout(name, module, inputs, whole)
            if differentiable:
                result = replace_first_tensor(output, lambda _: as_before(branch(whole)))
            else:
                copy(whole)
        if record.open and record.count == record.until:
            raise StopForward
        return result

    return hook


def _reduce_hook(
    record: Recording, name: str, outputs: Outputs, function: Reduce
) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if record.open and tensor is not None:
            tensor, _ = outputs.whole(inputs, tensor, name)
            result = function(tensor.detach())
            shared = result.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
            record.reduced[name].append(result.clone() if shared else result)
            record.dimensions[name].append(tensor[:1].numel())

    return hook
