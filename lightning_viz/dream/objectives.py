"""Objectives of images beyond units and classes: norms, directions, likenesses of a layer's output; their passes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor, nn

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.observation import layer_of_call
from lightning_viz.hooks.observe import Forward, Passes, passes
from lightning_viz.hooks.recording import Activations
from lightning_viz.hooks.target_types import FunctionTarget, Target
from lightning_viz.hooks.targets import TargetLike, as_target
from lightning_viz.host_copies import to_device

__all__ = ["direction", "diversity", "gram", "layer", "match"]


def layer(name: str) -> Target:
    r"""Squared norm of a layer's output, :math:`\lVert A \rVert^2` (DeepDream).

    Args:
        name: of the layer; of one that is called several times, of a call: ``"relu:1"``.
    """
    return FunctionTarget(f"{name} squared norm", lambda outputs: outputs[name].flatten(1).square().sum(1), (name,))


def direction(layer: str, vector: Tensor) -> Target:
    r"""Direction in a layer: a linear combination of its channels, :math:`\sum_{ij} \langle A_{ij}, v \rangle`.

    Args:
        layer: its name; of a layer that is called several times, of a call: ``"relu:1"``.
        vector: v, one value for each channel, ``[K]``.
    """

    def along(activations: Activations) -> Tensor:
        maps = activations.maps(layer)
        if list(vector.shape) != [maps.shape[1]]:
            shape = list(vector.shape)
            raise InvalidArgumentError(f"the direction is {shape}: layer {layer!r} has {maps.shape[1]} channels")
        v = to_device(vector, maps.device, maps.dtype).clone()  # it may come from inference mode
        return torch.einsum("nkp,k->n", maps.flatten(2), v)

    return FunctionTarget(f"{layer} direction", along, (layer,))


def match(layer: str, activation: Tensor) -> Target:
    r"""Feature matching: minus the relative squared distance of a layer's output to a given one.

    .. math:: -\lVert \Phi(x) - \Phi_0 \rVert^2 / \lVert \Phi_0 \rVert^2

    At most 0; -1 is what an output of zero reaches (Mahendran and Vedaldi, 2015).

    Args:
        layer: its name; of a layer that is called several times, of a call: ``"relu:1"``.
        activation: the output to come near to, of one sample: ``[K, H, W]``, or with a leading dimension of 1.

    Raises:
        InvalidArgumentError: it is nothing but 0, which all outputs are infinitely far from.
    """
    what = f"the activation to match in layer {layer!r}"
    if not activation.any():
        raise InvalidArgumentError(f"{what} is nothing but 0: give another")

    def nearness(activations: Activations) -> Tensor:
        output = activations[layer]
        wanted = activation if activation.dim() == output.dim() else activation[None]
        if wanted.shape != output[:1].shape:
            raise InvalidArgumentError(f"{what} is {list(activation.shape)}: give {list(output.shape[1:])}")
        wanted = to_device(wanted, output.device, output.dtype)
        return -(output - wanted).flatten(1).square().sum(1) / wanted.square().sum()

    return FunctionTarget(f"{layer} match", nearness, (layer,))


def gram(layer: str, activation: Tensor) -> Target:
    r"""Style matching: minus the distance between Gram matrices of a layer's outputs (Gatys et al., 2016).

    .. math:: -\frac{1}{4 N^2} \Big\lVert \frac{G(x)}{M} - \frac{G_0}{M_0} \Big\rVert^2,
        \qquad G_{ij} = \sum_k F_{ik} F_{jk}

    with N channels and M places: for images of one size it is Gatys's :math:`\lVert G - G_0 \rVert^2 / 4 N^2 M^2`.

    Args:
        layer: its name; of a layer that is called several times, of a call: ``"relu:1"``.
        activation: the layer's output for the style, ``[K, H, W]`` of any size, or with a leading dimension of 1.
    """

    def likeness(activations: Activations) -> Tensor:
        maps = activations.maps(layer)
        wanted = activation if activation.dim() == 4 else activation[None]
        if wanted.dim() != 4 or len(wanted) != 1 or wanted.shape[1] != maps.shape[1]:
            raise InvalidArgumentError(
                f"the style's activation of layer {layer!r} is {list(activation.shape)}: give [{maps.shape[1]}, H, W]"
            )
        difference = _grams(maps) - _grams(to_device(wanted, maps.device, maps.dtype))
        return -difference.flatten(1).square().sum(1) / (4 * maps.shape[1] ** 2)

    return FunctionTarget(f"{layer} style", likeness, (layer,))


def diversity(layer: str) -> Target:
    r"""Diversity: minus the mean cosine between the Gram matrices of the copies of a target (Olah et al., 2017).

    .. math:: -\frac{1}{n - 1} \sum_{b \neq a} \frac{\langle G_a, G_b \rangle}{\lVert G_a \rVert \lVert G_b \rVert}

    It lies between -1 and about 0, so that what it is added to decides its weight; ``maximize(diverse=layer)`` finds
    one.

    Args:
        layer: its name; of a layer that is called several times, of a call: ``"relu:1"``.
    """

    def unlikeness(activations: Activations) -> Tensor:
        grams = torch.nn.functional.normalize(_grams(activations.maps(layer)).flatten(1), dim=1)
        if len(grams) < 2:
            raise InvalidArgumentError(f"diversity({layer!r}) compares the copies of a target: give copies=2 or more")
        cosines = grams @ grams.T
        return (cosines.diagonal() - cosines.sum(1)) / (len(grams) - 1)

    return FunctionTarget(f"{layer} diversity", unlikeness, (layer,))


def as_targets(objectives: TargetLike | Sequence[TargetLike], model: nn.Module) -> list[Target]:
    """One objective or a list of them, ``[3, 7]`` two classes, as targets."""
    if objectives is None or isinstance(objectives, (Target, int, str)) or callable(objectives):
        return [as_target(objectives, model=model)]
    return [as_target(objective, model=model) for objective in objectives]


def single(tensor: Tensor) -> Tensor:
    """The same in single precision at least: sums over maps go beyond what half precision holds."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _grams(maps: Tensor) -> Tensor:
    """Gram matrices per place ``[n, K, K]`` of maps ``[n, K, H, W]``."""
    rows = maps.flatten(2)
    return rows @ rows.transpose(1, 2) / rows.shape[2]


def passes_for(
    model: nn.Module, targets: Sequence[Target], *, forward: Forward | None = None, seed: int | None = None
) -> AbstractContextManager[Passes]:
    """Passes that go as far as targets read (see `lightning_viz.hooks.passes`)."""
    layers = list(dict.fromkeys(layer_of_call(name) for target in targets for name in target.layers))
    return passes(model, layers, whole=any(target.outputs for target in targets), forward=forward, seed=seed)


def recorded(model: nn.Module, images: Tensor, layers: Sequence[str], *, forward: Forward | None = None) -> Activations:
    """The outputs of layers, or of calls of them, for images on any device and in any precision, no part of a graph.

    The model need not be able to go on behind them.
    """
    names = list(dict.fromkeys(map(layer_of_call, layers)))
    with passes(model, names, whole=False, forward=forward) as run, torch.no_grad():
        activations = run(images.to(run.like))
    calls = {name: single(call.detach()) for name, call in activations.calls.items()}
    return Activations(calls, layers=activations.layers, layouts=activations.layouts)


def scalars(activations: Activations, targets: Sequence[Target], copies: int) -> Tensor:
    """The targets, each of its own images, ``[len(targets) * copies]``.

    Raises:
        InvalidArgumentError: an output, a layer's or the model's, does not hold the images in its first dimension, or
            a target is not one scalar for each image.
        OutputError: the targets read the model's output, of which it is unclear which tensor holds the scores.
    """
    count, calls = len(targets) * copies, activations.calls
    whole = any(target.outputs for target in targets)
    outputs, meaning = activations.scores() if whole else (None, None)
    sources = {f"layer {name!r}": call for name, call in calls.items()} | (
        {} if outputs is None else {"the model": outputs}
    )
    for what, output in sources.items():
        if output.shape[:1] != (count,):
            raise InvalidArgumentError(f"{what} puts out {list(output.shape)} for {count} images: not one for each")
    parts = {name: torch.split(single(call), copies) for name, call in calls.items()}
    answers = [None] * len(targets) if outputs is None else torch.split(single(outputs), copies)
    scores = []
    for place, (target, answer) in enumerate(zip(targets, answers, strict=True)):
        own_calls = {name: part[place] for name, part in parts.items()}
        own_meaning = None if meaning is None else replace(meaning, path=())
        own = Activations(own_calls, answer, activations.layers, activations.layouts, own_meaning)
        values = target.scores(own).values
        if list(values.shape) != [copies]:
            raise InvalidArgumentError(
                f"the objective {target.name!r} is {list(values.shape)} for {copies} images: give one scalar for each"
            )
        scores.append(values)
    return torch.cat(scores)
