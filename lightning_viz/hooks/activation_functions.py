"""Which activation function follows each layer, found by watching one forward pass."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from lightning_viz.hooks.calls import call_model
from lightning_viz.hooks.layers import NORMALIZATIONS
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.pytree import all_tensors, first_tensor
from lightning_viz.hooks.relu import relu_ceiling

__all__ = ["ActivationFunction", "activation_functions"]

_SATURATES: Mapping[str, float] = {
    "tanh": math.atanh(0.98),
    "sigmoid": math.log(99),
    "hardsigmoid": 3.0,
    "softsign": 49.0,
}
"""Absolute inputs from which on outputs lie within 1 % of the function's range of its bounds."""
SATURATION_BOUNDS = (*((-level, level) for level in _SATURATES.values()), (-math.inf, 6.0))
"""Pairs of the inputs at or below and at or above which a function saturates; the last is a ReLU6's."""
_OTHERS = (
    *("gelu", "silu", "elu", "leaky_relu", "prelu", "selu", "celu", "mish", "softplus", "hardswish", "glu", "hardtanh"),
    *("softmax", "log_softmax"),
)
_KEEPS_UNITS = (
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"),
    *("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
    *(
        "flatten",
        "view",
        "reshape",
        "contiguous",
        "squeeze",
        "unsqueeze",
        "permute",
        "transpose",
        "movedim",
        "unflatten",
    ),
)
"""Functions after which a unit exceeds zero, or a bound, exactly if it did before."""
_NORMALIZES = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")


@dataclass(frozen=True)
class ActivationFunction:
    """The activation function that is applied to a layer's output.

    Attributes:
        name: of the function, such as ``"relu"``; empty if none was seen.
        reads: the layer whose output is its input: the layer itself, or the normalization that follows it.
        dies: whether a unit whose input never exceeds zero is constant and passes no gradient.
        low: inputs at or below it saturate; -inf if none does.
        high: inputs at or above it saturate; inf if none does.
        judged: whether it alone takes that output, inside the model: a unit without gradient there has none at all.
    """

    name: str
    reads: str
    dies: bool = False
    low: float = -math.inf
    high: float = math.inf
    judged: bool = True


def activation_functions(
    model: nn.Module, inputs: Any, layers: Mapping[str, nn.Module]
) -> dict[str, ActivationFunction]:
    """The activation function after each layer, seen in one forward pass in eval mode; the model's state is restored.

    A layer's output may pass a normalization, a maximum over places, dropout, or a change of shape before. A function
    is not judged if something else takes the layer's output, too, as in ``x * sigmoid(x)`` or around a residual block;
    if its own output is a factor, as of a gate; and if that is the model's output, where a bounded function that is
    sure of every sample is no fault. What is called inside compiled or scripted code, or through operators, is not
    seen.

    Args:
        model: any module.
        inputs: as the model takes them, of a few samples.
        layers: by name, among them the normalizations.

    Returns:
        By layer; of a normalization only if its input is no other layer's output. A layer that is not called is left
        out.
    """
    trace = _Trace()
    with evaluation_mode(model), torch.no_grad(), ExitStack() as stack:
        for name, module in layers.items():
            stack.callback(module.register_forward_hook(trace.hook(name)).remove)
        with trace:
            outputs = call_model(model, inputs, None)
        trace.end(all_tensors(outputs))
    return trace.result()


class _Source(NamedTuple):
    """Where a tensor's values come from: the layer, and the layer whose output was passed on unit by unit."""

    owner: str
    reads: str


class _Made(NamedTuple):
    source: _Source
    version: int  # of the tensor: it is another's after an operation in place


class _Trace(TorchFunctionMode):
    """Sees which functions take layers' outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.uses: defaultdict[_Source, list[ActivationFunction | None]] = defaultdict(list)  # None: something else
        self._made: Any = WeakTensorKeyDictionary()  # by tensor, as what a layer made
        self._results: Any = WeakTensorKeyDictionary()  # by tensor, the source of the activation function's input
        self._gates: set[_Source] = set()

    def hook(self, name: str) -> Any:
        """A forward hook that notes a layer's output."""

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            made, tensor = first_tensor(output), first_tensor(inputs)
            if made is None:
                return
            source = self._source(tensor) if isinstance(module, NORMALIZATIONS) and tensor is not None else None
            source = _Source(name if source is None else source.owner, name)
            self.uses[source]  # seen
            self._made[made] = _Made(source, made._version)

        return hook

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        taken = list(_tensors((args, tuple(kwargs.values()))))
        sources = list(filter(None, map(self._source, taken)))
        gated = [self._results[tensor] for tensor in taken if tensor in self._results]
        function = _function(func, args, kwargs) if sources else None  # before it may write to its input
        result = func(*args, **kwargs)
        name = _name(func)
        if gated and name in ("mul", "__mul__", "__rmul__", "__imul__"):
            self._gates.update(gated)
        if not sources or not isinstance(result, (Tensor, tuple, list)) or not all_tensors(result):
            return result  # of a shape, say
        if name in _KEEPS_UNITS:
            for tensor in all_tensors(result)[:1]:
                self._made[tensor] = _Made(sources[0], tensor._version)
        elif function is not None:
            self.uses[sources[0]].append(function)
            self._results[all_tensors(result)[0]] = sources[0]
        elif name not in _NORMALIZES:
            for source in sources:
                self.uses[source].append(None)
        return result

    def end(self, outputs: Sequence[Tensor]) -> None:
        """Note which results are the model's output."""
        self._gates.update(self._results[tensor] for tensor in outputs if tensor in self._results)

    def result(self) -> dict[str, ActivationFunction]:
        """By layer."""
        found: dict[str, ActivationFunction] = {}
        elsewhere = {source.owner for source, uses in self.uses.items() if None in uses}
        for source, uses in self.uses.items():
            functions = list(dict.fromkeys(use for use in uses if use is not None))
            earlier = found.get(source.owner)
            if not functions:
                found.setdefault(source.owner, ActivationFunction("", source.owner, judged=False))
                continue
            alone = len(functions) == 1 and source.owner not in elsewhere and (earlier is None or not earlier.name)
            function, bounded = functions[0], source in self._gates and not functions[0].dies
            judged = function.judged and alone and not bounded
            found[source.owner] = replace(function, reads=source.reads, judged=judged)
        return found

    def _source(self, tensor: Tensor) -> _Source | None:
        made = self._made.get(tensor)
        return made.source if made is not None and made.version == tensor._version else None


def _tensors(structure: Any) -> Iterator[Tensor]:
    """Tensors among arguments, also in lists."""
    if isinstance(structure, Tensor):
        yield structure
    elif isinstance(structure, (tuple, list)):
        for part in structure:
            yield from _tensors(part)


def _name(func: Any) -> str:
    """A function's name without the underscore of one in place."""
    name = str(getattr(func, "__name__", "")).partition(".")[0]
    return name if name.startswith("__") else name.rstrip("_")


def _function(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ActivationFunction | None:
    """The activation function that is called, `reads` left empty; None if it is none."""
    ceiling = relu_ceiling(func, args, dict(kwargs))
    if ceiling is not None:
        return ActivationFunction("relu" if ceiling == math.inf else "relu6", "", dies=True, high=ceiling)
    name = _name(func)
    if name in _SATURATES:
        return ActivationFunction(name, "", low=-_SATURATES[name], high=_SATURATES[name])
    return ActivationFunction(name, "", judged=False) if name in _OTHERS else None
