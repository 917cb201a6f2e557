"""How a model is called on inputs, where that is more than ``model(inputs)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_viz.errors import ObservationError
from lightning_viz.hooks.pytree import all_tensors, map_leaves, map_tensors, part_at
from lightning_viz.hooks.shards import arrive, settle

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

    @property
    def images(self) -> list[Tensor] | None:
        """The images ``[C, H, W]``, each of its own size, of a call that takes a list of them and nothing else."""
        if self.forward is not None or self.steps != _LISTED:
            return None
        return list(self._filled(self.steps[0].arguments[0], ()))

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
                value = part_at(results[leaf.step], leaf.path)
            return value if leaf.shape is None else value.reshape(len(value), *leaf.shape)

        return map_leaves(template, (Slot, Returned, Constant), fill)


_LISTED = (CallStep(arguments=(Slot(0, sizes=1),)),)
"""The steps of a call that takes a list of images."""


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


def call_model(model: nn.Module, inputs: Any, forward: Callable[[nn.Module, Any], Any] | None = None) -> Any:
    """Call a model on a tensor, a tuple of arguments, a dict of keyword arguments, or a `Call`.

    Args:
        model: any module.
        inputs: for it.
        forward: calls the model instead, ``forward(model, inputs)``; a list of images it is given as a list.
    """
    try:
        output = _called(model, inputs, forward)
        plain = all(type(tensor) is Tensor for tensor in all_tensors(output))
        return output if plain else map_tensors(output, arrive)
    except Exception:
        settle(model)  # a pass that ended in its midst
        raise


def _called(model: nn.Module, inputs: Any, forward: Callable[[nn.Module, Any], Any] | None) -> Any:
    if forward is not None:
        images = inputs.images if isinstance(inputs, Call) else None
        return forward(model, inputs if images is None else images)
    if isinstance(inputs, Call):
        return inputs(model)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


def as_call(inputs: Any) -> Any:
    """A list of images ``[C, H, W]`` of unlike sizes, as detectors take it, as a `Call`; other inputs as they are.

    >>> as_call([torch.ones(3, 2, 4), torch.ones(3, 4, 2)]).tensors[0].shape
    torch.Size([2, 3, 4, 4])
    """
    images = isinstance(inputs, list) and all(isinstance(x, Tensor) and x.dim() == 3 for x in inputs)
    return Call(padded(inputs), _LISTED) if images and inputs else inputs


def as_given(results: Any, inputs: Any) -> Any:
    """Results in the form of `as_call`'s inputs in the form in which these were given: a list if they were one.

    Args:
        results: for each value of the inputs, or None; several targets stand in a leading dimension.
        inputs: as they were given.
    """
    if not isinstance(results, Call) or isinstance(inputs, Call):
        return results
    whole = results.tensors[0]
    if whole is None:
        return [None] * len(inputs)
    parts = whole.unbind(whole.dim() - 4)
    return [part[..., : image.shape[1], : image.shape[2]] for part, image in zip(parts, inputs, strict=True)]


def padded(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Images ``[C, H, W]`` of unlike sizes as one tensor ``[N, C, H, W]``, padded below and right, and their sizes.

    >>> images, sizes = padded([torch.ones(1, 2, 3), torch.ones(1, 3, 2)])
    >>> images.shape, sizes.tolist()
    (torch.Size([2, 1, 3, 3]), [[2, 3], [3, 2]])
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    whole = [F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in images]
    return torch.stack(whole), torch.tensor([image.shape[1:] for image in images], device=whole[0].device)


def image_sizes(inputs: Any) -> Tensor | None:
    """Heights and widths ``[N, 2]`` of a call's images that were padded to one size; None if they were not."""
    if not isinstance(inputs, Call):
        return None
    indices: list[int] = []

    def see(slot: Slot) -> Slot:
        indices.extend([] if slot.sizes is None else [slot.sizes])
        return slot

    for step in inputs.steps:
        map_leaves((step.arguments, dict(step.keywords)), Slot, see)
    return inputs.tensors[indices[0]] if indices else None
