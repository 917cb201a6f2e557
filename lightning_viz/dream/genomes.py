"""How images that evolve are written down: each pixel by itself, or a network of the coordinates that grows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Genomes = NDArray[Any]
"""One entry for each image: what an encoding makes, mutates and draws, and what selection indexes."""

Shape = Sequence[int]
"""Channels, rows and columns."""


class Encoding(Protocol):
    """A way to write down images that evolve. A new one is a class with these."""

    def random(self, count: int, shape: Shape, rng: np.random.Generator) -> Genomes:
        """The genomes of so many images of a shape, from which evolution starts, by a source of randomness."""

    def mutate(self, genomes: Genomes, generation: int, rng: np.random.Generator) -> Genomes:
        """A child of each genome, which stays as it is; the first children are generation 1."""

    def draw(self, genomes: Genomes, shape: Shape) -> NDArray[np.float32]:
        """The images ``[n, C, H, W]``, in [0, 1], of n genomes in a shape."""


def polynomial_mutation(
    values: NDArray[np.float32],
    rng: np.random.Generator,
    *,
    chosen: NDArray[np.bool_],
    eta: float = 15.0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> NDArray[np.float32]:
    r"""Small changes often, large ones seldom (Deb and Goyal, 1996).

    .. math:: x' = x + (b - a)\,\delta, \qquad p(\delta) = \tfrac{1}{2} (\eta + 1) (1 - |\delta|)^{\eta}, \quad
        |\delta| \leq 1

    Only the chosen values change; they stay within the bounds a and b. The larger eta, the smaller the changes: 15
    (Nguyen et al., 2015).
    """
    low, high = bounds
    chance = rng.random(np.count_nonzero(chosen), dtype=np.float32)
    nearer = (2 * np.minimum(chance, 1 - chance)) ** (1 / (eta + 1))  # 1 - |delta|
    mutated: NDArray[np.float32] = values.copy()
    mutated[chosen] += (high - low) * np.where(chance < 0.5, nearer - 1, 1 - nearer)
    return mutated.clip(low, high)


@dataclass(frozen=True)
class Direct:
    """Each pixel by itself, uniform in [0, 1] at first.

    Attributes:
        rate: share of the pixels that a child changes (0.1, the paper's).
        halved_every: generations after which that share is half as large (1000, the paper's).
        eta: see `polynomial_mutation`.
    """

    rate: float = 0.1
    halved_every: int = 1000
    eta: float = 15.0

    def random(self, count: int, shape: Shape, rng: np.random.Generator) -> Genomes:
        """Uniform noise."""
        return rng.random((count, *shape), dtype=np.float32)

    def mutate(self, genomes: Genomes, generation: int, rng: np.random.Generator) -> Genomes:
        """Children with some pixels changed."""
        rate = self.rate * 0.5 ** (generation // self.halved_every)
        chosen = rng.random(genomes.shape, dtype=np.float32) < rate
        return polynomial_mutation(genomes, rng, chosen=chosen, eta=self.eta)

    def draw(self, genomes: Genomes, shape: Shape) -> NDArray[np.float32]:
        """The genomes themselves."""
        return genomes


_INPUTS = 4  # x, y, distance from the center, bias
_NONE = -1  # the function of a place that holds no node

_FUNCTIONS: tuple[Callable[[NDArray[np.float32]], NDArray[np.float32]], ...] = (
    np.sin,
    lambda sums: np.tanh(sums / 2),  # the sigmoid, from -1 to 1
    lambda sums: np.exp(-np.square(sums)),
    lambda sums: np.clip(sums, -1, 1),  # linear
)


@dataclass(frozen=True)
class EvolvedCPPN:
    """A pattern-producing network whose wiring evolves, drawn at any size (Stanley, 2007).

    Nodes stand in a row: x, y, the distance from the center (all from -1 to 1 over the longer side) and 1, then places
    for hidden nodes (sine, sigmoid, Gaussian, or linear up to 1), then a sigmoid output for each channel. Links go
    forward, so that one sweep along the row computes all images at once. It starts without hidden nodes, as NEAT does.
    The figures are those of the authors for MNIST; their crossover is left out.

    Attributes:
        places: for hidden nodes, the most there can be.
        add_link: share of the children with a new link.
        drop_link: share of the children that lose one.
        add_node: share of the children with a new node of a random function, in the middle of a link.
        drop_node: share of the children that lose one, with its links.
        rate: share of the weights, and of the nodes' functions, that change.
        eta: see `polynomial_mutation`.
        largest: weights keep to -largest and largest.
    """

    places: int = 16
    add_link: float = 0.5
    drop_link: float = 0.3
    add_node: float = 0.5
    drop_node: float = 0.2
    rate: float = 0.1
    eta: float = 15.0
    largest: float = 10.0

    def random(self, count: int, shape: Shape, rng: np.random.Generator) -> Genomes:
        """Every input linked to every output."""
        first = _INPUTS + self.places  # of the outputs
        nodes = first + shape[0]
        genomes = np.zeros(count, [("weights", np.float32, (nodes, nodes)), ("functions", np.int8, nodes)])
        genomes["functions"][:, _INPUTS:first] = _NONE
        genomes["weights"][:, :_INPUTS, first:] = self._weights(rng, (count, _INPUTS, shape[0]))
        return genomes

    def mutate(self, genomes: Genomes, generation: int, rng: np.random.Generator) -> Genomes:
        """Children with other weights, functions, links and nodes."""
        children: Genomes = genomes.copy()
        weights, functions = children["weights"], children["functions"]  # from, to; 0 is no link
        self._drop(weights, functions, rng)
        self._add(weights, functions, rng)
        chosen = (weights != 0) & (rng.random(weights.shape, dtype=np.float32) < self.rate)
        bounds = (-self.largest, self.largest)
        weights[:] = polynomial_mutation(weights, rng, chosen=chosen, eta=self.eta, bounds=bounds)
        others = self._hidden(functions) & (rng.random(functions.shape) < self.rate)
        functions[others] = rng.integers(len(_FUNCTIONS), size=np.count_nonzero(others))
        return children

    def draw(self, genomes: Genomes, shape: Shape) -> NDArray[np.float32]:
        """What the networks make of the coordinates; they have as many outputs as the images have channels."""
        channels, height, width = shape
        weights, functions = genomes["weights"], genomes["functions"]
        nodes = functions.shape[1]
        values = np.zeros((len(genomes), nodes, height * width), np.float32)
        values[:, :_INPUTS] = _coordinates(height, width)
        for node in range(_INPUTS, nodes - channels):
            for number, function in enumerate(_FUNCTIONS):
                here = np.flatnonzero(functions[:, node] == number)
                if len(here):
                    values[here, node] = function((weights[here, None, :node, node] @ values[here, :node])[:, 0])
        before = nodes - channels
        sums = weights[:, :before, before:].transpose(0, 2, 1) @ values[:, :before]
        pixels: NDArray[np.float32] = 0.5 + 0.5 * np.tanh(sums / 2)
        return pixels.reshape(-1, channels, height, width)

    def _drop(self, weights: NDArray[Any], functions: NDArray[Any], rng: np.random.Generator) -> None:
        genome, node = _one_of(self._hidden(functions), self.drop_node, rng)
        weights[genome, node] = weights[genome, :, node] = 0
        functions[genome, node] = _NONE
        weights[_one_of(weights != 0, self.drop_link, rng)] = 0

    def _add(self, weights: NDArray[Any], functions: NDArray[Any], rng: np.random.Generator) -> None:
        genome, start, end = _one_of(weights != 0, self.add_node, rng)
        row = np.arange(functions.shape[1])
        between = (row > start[:, None]) & (row < end[:, None])
        split, node = _one_of((functions[genome] == _NONE) & between, 1, rng)
        genome, start, end = genome[split], start[split], end[split]
        weights[genome, node, end] = weights[genome, start, end]
        weights[genome, start, node] = 1
        weights[genome, start, end] = 0
        functions[genome, node] = rng.integers(len(_FUNCTIONS), size=len(node))

        there, first = functions != _NONE, _INPUTS + self.places
        forward = (row < first)[:, None] & (row >= _INPUTS) & (row[:, None] < row)
        free = _one_of(there[:, :, None] & there[:, None] & forward & (weights == 0), self.add_link, rng)
        weights[free] = self._weights(rng, (len(free[0]),))

    def _hidden(self, functions: NDArray[Any]) -> NDArray[np.bool_]:
        row = np.arange(functions.shape[1])
        hidden: NDArray[np.bool_] = (functions != _NONE) & (row >= _INPUTS) & (row < _INPUTS + self.places)
        return hidden

    def _weights(self, rng: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.float64]:
        return rng.uniform(-self.largest, self.largest, size)


ENCODINGS: Mapping[str, Encoding] = MappingProxyType({"direct": Direct(), "cppn": EvolvedCPPN()})
"""The two of the paper."""


def _coordinates(height: int, width: int) -> NDArray[np.float64]:
    """Of each pixel x, y, distance and 1, ``[4, H * W]``."""
    rows, columns = (np.linspace(-side, side, side) / max(height, width) for side in (height, width))
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([x, y, np.hypot(x, y), np.ones_like(x)]).reshape(_INPUTS, -1)


def _one_of(possible: NDArray[np.bool_], share: float, rng: np.random.Generator) -> tuple[NDArray[np.intp], ...]:
    """In a share of the genomes, of all that is possible in each ``[n, ...]`` one at random: indices of these."""
    flat = possible.reshape(len(possible), math.prod(possible.shape[1:]))
    place = (rng.random(flat.shape, dtype=np.float32) * flat).argmax(1)
    genome = np.flatnonzero((rng.random(len(flat)) < share) & flat.any(1))
    return genome, *np.unravel_index(place[genome], possible.shape[1:])
