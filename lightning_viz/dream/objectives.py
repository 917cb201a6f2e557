"""What a dream climbs: scalars of a model's insides, one per image, that add, subtract and scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_viz.errors import InvalidArgumentError, InvalidTypeError, LayerNotReachedError
from lightning_viz.hooks.batching import out_of_memory
from lightning_viz.hooks.feature_maps import as_maps
from lightning_viz.hooks.observation import is_call, layer_of_call
from lightning_viz.hooks.observe import Activations, Forward, Passes, passes
from lightning_viz.hooks.pytree import first_tensor
from lightning_viz.hooks.targets import Indices, Inner, Target, layer_of, target_scores
from lightning_viz.hooks.targets import channel as channel_target
from lightning_viz.hooks.targets import unit as unit_target

__all__ = ["Objective", "channel", "direction", "diversity", "gram", "layer", "logit", "match", "objective", "unit"]


@dataclass(frozen=True)
class Response:
    """What the images of one objective excite, part of a graph.

    Attributes:
        calls: outputs of layers ``[n, ...]``, by call.
        outputs: the first tensor that the model returned, ``[n, ...]``; None where nobody asked for it.
        features: by layer, how many features its weights put out.
    """

    calls: Mapping[str, Tensor]
    outputs: Tensor | None = None
    features: Mapping[str, int | None] = field(default_factory=dict)

    def __getitem__(self, layer: str) -> Tensor:
        """A layer's output ``[n, ...]``; of a layer called several times that of a call, ``"relu:1"``.

        In single precision at least: sums over maps go beyond what half precision holds.

        Raises:
            ValueError: the call does not exist, the layer has several, or the objective does not say that it reads it.
        """
        if layer not in self.calls:
            calls = [name for name in self.calls if is_call(name, layer_of_call(layer))]
            if not calls:
                raise InvalidArgumentError(
                    f"layer {layer!r} is read but not announced: give the objective layers=({layer!r},)"
                )
            times = f"{len(calls)} times" if len(calls) > 1 else "once"
            raise InvalidArgumentError(
                f"layer {layer_of_call(layer)!r} is called {times}: {layer!r} is none of {calls}"
            )
        return single(self.calls[layer])

    def maps(self, layer: str) -> Tensor:
        """A layer's output as maps ``[n, K, H, W]``; of a layer without places in a plane ``[n, K, 1, P]``."""
        output, features = self[layer], self.features.get(layer_of_call(layer))
        maps = as_maps(output, features=features)
        if maps is not None:
            return maps
        first = output.transpose(1, 2) if output.dim() == 3 and output.shape[2] == features else output
        return first.reshape(len(first), *first.shape[1:2], 1, -1)


@dataclass(frozen=True)
class Objective:
    """A scalar for each image, to be climbed. It adds to, and subtracts from, others and scales.

    A new one is a function: ``Objective("mean of conv1", lambda seen: seen["conv1"].mean((1, 2, 3)), ("conv1",))``.

    Attributes:
        name: as it is to be read.
        function: from what images excite to a scalar for each of them, ``[n]``; it must treat them alike.
        layers: whose outputs it reads; of a layer that is called several times, the call: ``"relu:1"``.
        outputs: whether it reads what the model returns: every pass then goes to the end.

    >>> channel("conv2", 7) - 0.1 * logit(3)
    conv2 channel 7 - 0.1 * logit 3
    """

    name: str
    function: Callable[[Response], Tensor]
    layers: tuple[str, ...] = ()
    outputs: bool = False

    def __call__(self, seen: Response) -> Tensor:
        """The scalars, ``[n]``."""
        return self.function(seen)

    def __add__(self, other: Objective) -> Objective:
        return self._with(other, f"{self.name} + {other.name}", lambda seen: self(seen) + other(seen))

    def __radd__(self, nothing: int) -> Objective:
        """`sum` begins with 0."""
        return self if nothing == 0 else NotImplemented

    def __sub__(self, other: Objective) -> Objective:
        return self._with(other, f"{self.name} - {other._grouped}", lambda seen: self(seen) - other(seen))

    def __mul__(self, factor: float) -> Objective:
        return self._with(self, f"{factor:g} * {self._grouped}", lambda seen: factor * self(seen))

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return self._with(self, f"-{self._grouped}", lambda seen: -self(seen))

    def __repr__(self) -> str:
        return self.name

    @property
    def _grouped(self) -> str:
        return f"({self.name})" if " + " in self.name or " - " in self.name else self.name

    def _with(self, other: Objective, name: str, function: Callable[[Response], Tensor]) -> Objective:
        layers = tuple(dict.fromkeys(self.layers + other.layers))
        return Objective(name, function, layers, self.outputs or other.outputs)


def objective(target: Target, name: str) -> Objective:
    """Whatever an attribution can explain, as an objective.

    Args:
        target: see `lightning_viz.hooks.Target`; None is the class that each image comes nearest to, as it is climbed.
        name: as it is to be read.
    """
    inside = layer_of(target)

    def scalars(seen: Response) -> Tensor:
        if inside is None:
            return target_scores(seen.outputs, target).values
        features = seen.features.get(layer_of_call(inside))
        return target_scores(None, target, {inside: seen[inside]}, features=features).values

    return Objective(name, scalars, (inside,) if inside else (), outputs=inside is None)


def unit(layer: str, channel: int, position: Sequence[int] | None = None) -> Objective:
    """One unit of a layer.

    Args:
        layer: its name; of a layer that is called several times, of a call: ``"relu:1"``.
        channel: of maps the channel, of a vector the unit.
        position: row and column in the map; its middle if omitted.
    """
    if position is not None:
        row, column = position
        return objective(unit_target(layer, (channel, row, column)), f"{layer} unit {channel} at ({row}, {column})")

    def middle(seen: Response) -> Tensor:
        features = seen.features.get(layer_of_call(layer))
        maps = as_maps(seen[layer], features=features)
        place: Indices = channel if maps is None else (channel, maps.shape[2] // 2, maps.shape[3] // 2)
        return target_scores(None, Inner(layer, place, "unit"), {layer: seen[layer]}, features=features).values

    return Objective(f"{layer} unit {channel}", middle, (layer,))


def channel(layer: str, index: int) -> Objective:
    """A layer's channel, summed over its map.

    Args:
        layer: its name; of a layer that is called several times, of a call: ``"relu:1"``.
        index: of the channel.
    """
    return objective(channel_target(layer, index), f"{layer} channel {index}")


def logit(index: int) -> Objective:
    """A class's score, before the softmax; of a dense output summed over its places.

    Args:
        index: of the class.
    """
    return objective(index, f"logit {index}")


def layer(name: str) -> Objective:
    r"""How much a layer is excited altogether, :math:`\lVert A \rVert^2` (DeepDream).

    Args:
        name: of the layer; of one that is called several times, of a call: ``"relu:1"``.
    """
    return Objective(f"{name} squared norm", lambda seen: seen[name].flatten(1).square().sum(1), (name,))


def direction(layer: str, vector: Tensor) -> Objective:
    r"""A combination of a layer's channels, :math:`\sum_{ij} \langle A_{ij}, v \rangle`.

    Args:
        layer: its name; of a layer that is called several times, of a call: ``"relu:1"``.
        vector: v, one value for each channel, ``[K]``.
    """

    def along(seen: Response) -> Tensor:
        maps = seen.maps(layer)
        if list(vector.shape) != [maps.shape[1]]:
            shape = list(vector.shape)
            raise InvalidArgumentError(f"the direction is {shape}: layer {layer!r} has {maps.shape[1]} channels")
        return torch.einsum("nkij,k->n", maps, vector.to(maps).clone())  # it may come from inference mode

    return Objective(f"{layer} direction", along, (layer,))


def match(layer: str, activation: Tensor) -> Objective:
    r"""How near a layer's output is to a given one, :math:`-\lVert \Phi(x) - \Phi_0 \rVert^2 / \lVert \Phi_0 \rVert^2`.

    At most 0; -1 is what an output of zero reaches (Mahendran and Vedaldi, 2015).

    Args:
        layer: its name; of a layer that is called several times, of a call: ``"relu:1"``.
        activation: the output to come near to, of one sample: ``[K, H, W]``, or with a leading dimension of 1.

    Raises:
        ValueError: it is nothing but 0, which all outputs are infinitely far from.
    """
    if not activation.any():
        raise InvalidArgumentError(f"the activation to match in layer {layer!r} is nothing but 0: give another")

    def nearness(seen: Response) -> Tensor:
        wanted = _of_one_sample(activation, seen[layer], f"the activation to match in layer {layer!r}")
        return -(seen[layer] - wanted).flatten(1).square().sum(1) / wanted.square().sum()

    return Objective(f"{layer} match", nearness, (layer,))


def gram(layer: str, activation: Tensor) -> Objective:
    r"""How near a layer's style is to that of a given output (Gatys et al., 2016).

    .. math:: -\frac{1}{4 N^2} \Big\lVert \frac{G(x)}{M} - \frac{G_0}{M_0} \Big\rVert^2,
        \qquad G_{ij} = \sum_k F_{ik} F_{jk}

    with N channels and M places: for images of one size it is Gatys's :math:`\lVert G - G_0 \rVert^2 / 4 N^2 M^2`.

    Args:
        layer: its name; of a layer that is called several times, of a call: ``"relu:1"``.
        activation: the layer's output for the style, ``[K, H, W]`` of any size, or with a leading dimension of 1.
    """

    def likeness(seen: Response) -> Tensor:
        maps = seen.maps(layer)
        wanted = activation if activation.dim() == 4 else activation[None]
        if wanted.dim() != 4 or len(wanted) != 1 or wanted.shape[1] != maps.shape[1]:
            raise InvalidArgumentError(
                f"the style's activation of layer {layer!r} is {list(activation.shape)}: give [{maps.shape[1]}, H, W]"
            )
        difference = _grams(maps) - _grams(wanted.to(maps))
        return -difference.flatten(1).square().sum(1) / (4 * maps.shape[1] ** 2)

    return Objective(f"{layer} style", likeness, (layer,))


def diversity(layer: str) -> Objective:
    r"""How unlike the copies of an objective are in style: minus the mean cosine to the others (Olah et al., 2017).

    .. math:: -\frac{1}{n - 1} \sum_{b \neq a} \frac{\langle G_a, G_b \rangle}{\lVert G_a \rVert \lVert G_b \rVert}

    Args:
        layer: its name; of a layer that is called several times, of a call: ``"relu:1"``.
    """

    def unlikeness(seen: Response) -> Tensor:
        grams = torch.nn.functional.normalize(_grams(seen.maps(layer)).flatten(1), dim=1)
        if len(grams) < 2:
            raise InvalidArgumentError(
                f"diversity({layer!r}) compares the copies of an objective: give copies=2 or more"
            )
        cosines = grams @ grams.T
        return (cosines.diagonal() - cosines.sum(1)) / (len(grams) - 1)

    return Objective(f"{layer} diversity", unlikeness, (layer,))


def single(tensor: Tensor) -> Tensor:
    """The same in single precision at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _grams(maps: Tensor) -> Tensor:
    """Gram matrices per place ``[n, K, K]`` of maps ``[n, K, H, W]``."""
    rows = maps.flatten(2)
    return rows @ rows.transpose(1, 2) / rows.shape[2]


def _of_one_sample(given: Tensor, like: Tensor, what: str) -> Tensor:
    one = given if given.dim() == like.dim() else given[None]
    if one.shape != like[:1].shape:
        raise InvalidArgumentError(f"{what} is {list(given.shape)}: give {list(like.shape[1:])}")
    return one.to(like)


def passes_for(
    model: nn.Module, objectives: Sequence[Objective], *, forward: Forward | None = None, seed: int | None = None
) -> AbstractContextManager[Passes]:
    """Passes that go as far as objectives read (see `lightning_viz.hooks.passes`).

    Args:
        model: any module.
        objectives: to be read.
        forward: how to run the model, if not ``model(inputs)``.
        seed: of what the model itself may draw.
    """
    layers = list(dict.fromkeys(layer_of_call(name) for one in objectives for name in one.layers))
    return passes(model, layers, whole=any(one.outputs for one in objectives), forward=forward, seed=seed)


def response(model: nn.Module, images: Tensor, layers: Sequence[str], *, forward: Forward | None = None) -> Response:
    """What images excite in layers, no part of a graph; the model need not be able to go on behind them.

    Args:
        model: any module.
        images: as the model takes them, on any device and in any precision.
        layers: by name, or calls of them.
        forward: how to run the model, if not ``model(inputs)``.
    """
    names = list(dict.fromkeys(map(layer_of_call, layers)))
    with passes(model, names, whole=False, forward=forward) as run, torch.no_grad():
        seen = run(images.to(run.like))
    return Response({name: call.detach() for name, call in seen.calls.items()}, features=seen.features)


@contextmanager
def taken(shape: Sequence[int]) -> Iterator[None]:
    """Runs a model on images of a size that it may not be able to take, which is said.

    Args:
        shape: of an image.

    Raises:
        ValueError: what the model raises, with the size.
    """
    try:
        yield
    except (RuntimeError, ValueError, AssertionError) as error:
        if isinstance(error, LayerNotReachedError) or out_of_memory(error):
            raise
        raise InvalidArgumentError(f"the model cannot take images of {' x '.join(map(str, shape))}: {error}") from error


def scalars(seen: Activations, objectives: Sequence[Objective], copies: int) -> Tensor:
    """The objectives, each of its own images, ``[len(objectives) * copies]``.

    Args:
        seen: the pass.
        objectives: in the order of the images.
        copies: images of each.

    Raises:
        ValueError: an output, a layer's or the model's, does not hold the images in its first dimension, or an
            objective is not one scalar for each image.
        TypeError: the objectives read the model's output, which is a dict.
    """
    each = [one(part) for one, part in zip(objectives, _responses(seen, objectives, copies), strict=True)]
    for one, values in zip(objectives, each, strict=True):
        if list(values.shape) != [copies]:
            raise InvalidArgumentError(
                f"the objective {one.name!r} is {list(values.shape)} for {copies} images: give one scalar for each, "
                f"[{copies}], by .mean((1, 2, 3)), say"
            )
    return torch.cat(each)


def _responses(seen: Activations, objectives: Sequence[Objective], copies: int) -> list[Response]:
    """What the images of each objective excite."""
    count = len(objectives) * copies
    for name, output in seen.calls.items():
        _check_count(output, count, f"layer {name!r}")
    outputs = _outputs(seen) if any(one.outputs for one in objectives) else None
    if outputs is not None:
        _check_count(outputs, count, "the model")
    parts = {name: torch.split(output, copies) for name, output in seen.calls.items()}  # one node of the graph for all
    answers = [None] * len(objectives) if outputs is None else torch.split(outputs, copies)
    return [
        Response({name: part[place] for name, part in parts.items()}, answers[place], seen.features)
        for place in range(len(objectives))
    ]


def _outputs(seen: Activations) -> Tensor | None:
    """The first tensor that the model returned."""
    if isinstance(seen.outputs, Mapping):
        keys = ", ".join(map(repr, seen.outputs))
        raise InvalidTypeError(
            f"the model returns a {type(seen.outputs).__name__} with {keys}: say which by "
            "forward=lambda model, images: model(images)[key]"
        )
    outputs = first_tensor(seen.outputs)
    return None if outputs is None else single(outputs)


def _check_count(output: Tensor, count: int, what: str) -> None:
    if output.shape[:1] != (count,):
        raise InvalidArgumentError(f"{what} puts out {list(output.shape)} for {count} images: not one for each")
