"""How a model is called on inputs, where that is more than ``model(inputs)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from lightning_viz.errors import ObservationError
from lightning_viz.hooks.pytree import map_leaves

__all__ = ["Call"]


@dataclass(frozen=True)
class Slot:
    """Stands for one of a call's tensors in its arguments.

    Attributes:
        index: of the tensor.
        shape: of each sample as the model takes it; as it is if None.
        order: of the dimensions as the model takes them, ``(0, 2, 3, 1)`` of an image whose channels come last there.
        sizes: index of the heights and widths ``[N, 2]`` of images that were padded to one size: the model takes a list
            of images ``[C, H, W]``, each of its own size. None where it takes them as one tensor.
    """

    index: int
    shape: tuple[int, ...] | None = None
    sizes: int | None = None
    order: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Returned:
    """Stands for what an earlier step of the call returned.

    Attributes:
        step: number of the step.
        path: keys into what it returned.
        shape: of each sample as the module takes it; as it is if None.
    """

    step: int
    path: tuple[Any, ...] = ()
    shape: tuple[int, ...] | None = None


class Constant:
    """A tensor among the arguments that all samples share; no part of the inputs."""

    def __init__(self, value: Tensor) -> None:
        self.value = value.detach().cpu().clone()

    def __repr__(self) -> str:
        return f"Constant({list(self.value.shape)})"


@dataclass(frozen=True)
class CallStep:
    """The call of one module.

    Attributes:
        module: its name in the model; empty for the model itself.
        arguments: with a `Slot`, `Returned` or `Constant` for each tensor.
        keywords: likewise.
        replay: name of a method of the model that is given the arguments and ends with the module's call, and the
            number of that call; None where the module itself is called.
    """

    module: str = ""
    arguments: tuple[Any, ...] = (Slot(0),)
    keywords: Mapping[str, Any] = field(default_factory=dict)
    replay: tuple[str, int] | None = None


@dataclass(frozen=True)
class Call:
    """Inputs together with the way in which a model takes them: ``forward(batch)``, ``net(x)`` of a model, a chain.

    Goes wherever inputs go. The functions of this package see its tensors, each with one entry per sample.

    Attributes:
        tensors: of all samples.
        steps: modules called in order; what the last returns is the output.
        forward: calls the model instead of the steps, ``forward(model, inputs)``: the tensor, or a tuple of several.

    >>> import torch
    >>> call = Call((torch.ones(2, 1, 2, 2),), (CallStep("fc", (Slot(0, (4,)),)),))
    >>> call_model(nn.ModuleDict({"fc": nn.Linear(4, 3)}), call).shape
    torch.Size([2, 3])
    """

    tensors: tuple[Tensor, ...]
    steps: tuple[CallStep, ...] = field(default=(CallStep(),), metadata={"tensors": False})
    forward: Callable[..., Any] | None = field(default=None, metadata={"tensors": False})

    def __call__(self, model: nn.Module) -> Any:
        """Call the model."""
        if self.forward is not None:
            return self.forward(model, self.tensors[0] if len(self.tensors) == 1 else self.tensors)
        results: list[Any] = []
        for step in self.steps:
            module = model.get_submodule(step.module)
            arguments, keywords = (self._filled(part, results) for part in (step.arguments, dict(step.keywords)))
            if step.replay is None:
                results.append(module(*arguments, **keywords))
            else:
                results.append(_replayed(getattr(model, step.replay[0]), module, arguments, step.replay[1]))
        return results[-1]

    def _filled(self, template: Any, results: Sequence[Any]) -> Any:
        def fill(leaf: Slot | Returned | Constant) -> Any:
            if isinstance(leaf, Constant):
                return leaf.value.to(self.tensors[0].device) if self.tensors else leaf.value
            if isinstance(leaf, Slot):
                value: Any = self.tensors[leaf.index]
                value = value if leaf.order is None else value.permute(leaf.order)
                if leaf.sizes is not None:
                    sizes = self.tensors[leaf.sizes].tolist()
                    return [image[:, : int(h), : int(w)] for image, (h, w) in zip(value, sizes, strict=True)]
            else:
                value = results[leaf.step]
                for key in leaf.path:
                    value = value[key] if isinstance(value, (Mapping, list, tuple)) else getattr(value, key)
            return value if leaf.shape is None else value.reshape(len(value), *leaf.shape)

        return map_leaves(template, (Slot, Returned, Constant), fill)


class _Reached(BaseException):
    """Ends a step where its output is known; a BaseException, so that the step does not catch it."""


def _replayed(method: Callable[..., Any], module: nn.Module, arguments: Sequence[Any], number: int) -> Any:
    """What a module returns in a run of a method of the model, which ends there."""
    outputs: list[Any] = []

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        outputs.append(output)
        if len(outputs) == number + 1:
            raise _Reached

    handle = module.register_forward_hook(hook)
    try:
        method(*(*arguments, 0)[: len(inspect.signature(method).parameters)])
    except _Reached:
        return outputs[-1]
    finally:
        handle.remove()
    raise ObservationError(f"{method.__name__} called {type(module).__name__} {len(outputs)} times, not {number + 1}")


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Call a model on a tensor, a tuple of arguments, a dict of keyword arguments, or a `Call`."""
    if isinstance(inputs, Call):
        return inputs(model)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)
