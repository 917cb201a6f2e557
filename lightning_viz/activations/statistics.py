"""How a layer's activations are distributed over samples, from sums that can be added up in any order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lightning_viz.activations.top_k import widest
from lightning_viz.hooks.feature_maps import as_maps

__all__ = ["Bounds", "LayerStatistics", "bounds_of", "edges", "reading_of"]

HISTOGRAM_VALUES = 512
"""Of larger layers the histogram takes so many values of each sample, at random places that stay the same."""
_OCTAVES, _PER_OCTAVE = 20, 16  # bins from 2^-20 to 2^20 on either side of zero, at most 6 % wide
_RUN = 256


@dataclass(frozen=True)
class Bounds:
    """Between which values an activation function's outputs lie, and from where on they count as saturated.

    Attributes:
        low: at or below this an output is saturated.
        high: at or above this.
    """

    low: float
    high: float


@dataclass(frozen=True)
class LayerStatistics:
    """Sums over samples of a layer's output; those of two sets of samples add up, to the bit what both give together.

    Attributes:
        samples: how many, without those that are broken.
        values: how many activations they have.
        total: the sum of these, in whatever order they came.
        squares: the sum of their squares, likewise.
        saturated: how many of them are; None where the layer's outputs are not bounded.
        broken: how many samples had a NaN or infinite activation, and are left out.
        lowest: of each unit, a channel's map or a scalar of a vector, over all samples ``[K]``.
        highest: likewise.
        bins: how many activations lie in each bin of `edges`, below the first and above the last ones included.
    """

    samples: float
    values: float
    total: ExactSum
    squares: ExactSum
    saturated: float | None
    broken: float
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    bins: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Of all activations."""
        return float(self.total) / self.values if self.values else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation of all activations."""
        return math.sqrt(max(0.0, float(self.squares) / self.values - self.mean**2)) if self.values else math.nan

    @property
    def dead(self) -> float:
        """Fraction of units that are zero on every sample (and at every place)."""
        return float(((self.lowest == 0) & (self.highest == 0)).mean())

    @property
    def never_positive(self) -> float:
        """Fraction of units that never exceed zero: dead behind a ReLU."""
        return float((self.highest <= 0).mean())

    @property
    def zero(self) -> float:
        """Fraction of activations that are zero (below 1e-6)."""
        return float(self.bins[len(self.bins) // 2] / max(1.0, self.bins.sum()))

    @property
    def saturated_fraction(self) -> float | None:
        """Of all activations; None where they are not bounded."""
        return None if self.saturated is None else self.saturated / self.values if self.values else math.nan

    def merge(self, other: LayerStatistics) -> LayerStatistics:
        """Of both sets of samples.

        Args:
            other: of the same layer.
        """
        return LayerStatistics(
            samples=self.samples + other.samples,
            values=self.values + other.values,
            total=self.total + other.total,
            squares=self.squares + other.squares,
            saturated=None if None in (self.saturated, other.saturated) else self.saturated + other.saturated,  # type: ignore[operator]
            broken=self.broken + other.broken,
            lowest=np.minimum(self.lowest, other.lowest),
            highest=np.maximum(self.highest, other.highest),
            bins=self.bins + other.bins,
        )

    @classmethod
    def of_reading(cls, reading: NDArray[np.float64], samples: int, *, bounded: bool) -> LayerStatistics:
        """What `reading_of` a batch says.

        Args:
            reading: brought to the CPU.
            samples: in the batch.
            bounded: whether the reading was taken with bounds.
        """
        sums, squares, counts, bins, units = np.split(reading, np.cumsum([samples, samples, 3, len(edges()) + 1]))
        values, whole, saturated = counts.tolist()
        finite = np.isfinite(sums + squares)
        lowest, highest = np.split(units, 2)
        return cls(
            samples=whole,
            values=whole * values,
            total=ExactSum.of(sums[finite]),
            squares=ExactSum.of(squares[finite]),
            saturated=saturated if bounded else None,
            broken=samples - whole,
            lowest=lowest,
            highest=highest,
            bins=bins,
        )


def reading_of(output: Tensor, *, features: int | None = None, bounds: Bounds | None = None) -> Tensor:
    """One vector with all that `LayerStatistics` needs of a batch, small enough to leave its device at once.

    Sums are taken in float32 within each sample, which is many times faster. Those of the samples are left to be added
    up exactly, so that they do not depend on how the samples are cut into batches.

    Args:
        output: of a layer ``[n, ...]``.
        features: as in `as_maps`.
        bounds: outside which outputs count as saturated.

    Returns:
        Float64 ``[2 n + 3 + bins + 2 K]`` on the output's device (float32 where that has no other).
    """
    output, wide = output.detach().float(), widest(output)
    flat = output.flatten(1)
    sums, squares = _sums_of_runs(flat, wide)
    whole = (sums + squares).isfinite()
    maps = as_maps(output, features=features)
    units = flat if maps is None else maps
    across = [axis for axis in range(units.dim()) if axis != 1]
    saturated = whole.new_zeros(len(whole))
    if bounds is not None:
        saturated = ((flat <= bounds.low) | (flat >= bounds.high)).sum(1)
    counts = [whole.new_full((), flat.shape[1], dtype=wide), whole.sum(), torch.where(whole, saturated, 0).sum()]
    parts = [sums, squares, torch.stack([one.to(wide) for one in counts]), _histogram(flat, whole)]
    return torch.cat([part.to(wide) for part in (*parts, units.amin(across), units.amax(across))])


def edges() -> NDArray[np.float64]:
    """Of the histogram's bins, the same for every layer: 16 an octave on either side of zero, from 2^-20 to 2^20.

    The middle bin holds zero and what is smaller than 2^-20. The others hold the edge that is nearer to zero. Before
    the first and behind the last edge there is one more bin.
    """
    octaves = 2.0 ** np.arange(-_OCTAVES, _OCTAVES)
    sizes = (octaves[:, None] * (1 + np.arange(_PER_OCTAVE) / _PER_OCTAVE)).ravel()
    sizes = np.append(sizes, 2.0**_OCTAVES)
    return np.concatenate([-sizes[::-1], sizes])


def bounds_of(module: nn.Module) -> Bounds | None:
    """Where a layer's outputs saturate, told by its kind; None where they are not bounded.

    Sigmoid and tanh within 1 % of their range of either bound; hardtanh and hardsigmoid at either bound; ReLU6 at 6,
    not at zero, where it is off. Of an `nn.Sequential` the last part tells.

    Args:
        module: the layer.
    """
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    if isinstance(module, nn.ReLU6):
        return Bounds(-math.inf, 6.0)
    if isinstance(module, nn.Hardtanh):
        return Bounds(module.min_val, module.max_val)
    if isinstance(module, nn.Hardsigmoid):
        return Bounds(0.0, 1.0)
    if isinstance(module, (nn.Tanh, nn.Softsign)):
        return Bounds(-0.98, 0.98)
    return Bounds(0.01, 0.99) if isinstance(module, nn.Sigmoid) else None


def _sums_of_runs(flat: Tensor, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """Each sample's sum, and its sum of squares ``[n]``, added up by 256, as float32 loses digits over long sums."""
    runs = flat.shape[1] // _RUN
    parts = (flat[:, : runs * _RUN].reshape(len(flat), runs, _RUN), flat[:, None, runs * _RUN :])
    sums = torch.cat([part.sum(2) for part in parts], dim=1)
    norms = torch.cat([torch.linalg.vector_norm(part, dim=2) for part in parts], dim=1)
    return sums.to(wide).sum(1), norms.to(wide).square().sum(1)


def _histogram(flat: Tensor, whole: Tensor) -> Tensor:
    """How many values ``[n, d]`` of whole samples lie in each bin.

    A float32's exponent and the first four bits of its fraction are the number of its bin.
    """
    if flat.shape[1] > HISTOGRAM_VALUES:
        flat = flat[:, _places(flat.shape[1]).to(flat.device)]
    middle = 2 * _OCTAVES * _PER_OCTAVE + 1
    sizes = (flat.contiguous().view(torch.int32) & 0x7FFFFFFF) >> 19
    steps = (sizes - (127 - _OCTAVES) * _PER_OCTAVE + 1).clamp(0, middle)
    numbers = middle + torch.where(flat < 0, -steps, steps)
    numbers = torch.where(whole[:, None], numbers, 2 * middle + 1).flatten()
    counts = torch.zeros(2 * middle + 2, dtype=torch.int64, device=flat.device)
    return counts.index_add_(0, numbers, torch.ones_like(numbers, dtype=torch.int64))[:-1]


@lru_cache(maxsize=64)
def _places(dimension: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(dimension, generator=generator)[:HISTOGRAM_VALUES].sort().values


_DIGITS = 28  # bits kept of each number, at least; a float32 has 24
_WIDTH = 8  # exponents in a bin, each bin of which holds the sum of 2^28 numbers before it runs over
_LOWEST = -1088  # below every float64's exponent
_BINS = 2112 // _WIDTH + 1


@dataclass(frozen=True)
class ExactSum:
    r"""A sum that is kept as whole numbers, one for each range of exponents; these add up exactly.

    .. math:: \sum_n x_n = \sum_b 2^{8 b + c} \sum_{n \in b} \operatorname{round}(x_n / 2^{8 b + c})

    Each number is rounded to 28 bits or more, by itself; numbers of float32 are not rounded at all.

    Attributes:
        bins: the inner sums.

    >>> numbers = [1e16, 1.0, -1e16]
    >>> sum(numbers), float(ExactSum.of(numbers)), float(ExactSum.of(numbers[:1]) + ExactSum.of(numbers[1:]))
    (0.0, 1.0, 1.0)
    """

    bins: NDArray[np.int64]

    @classmethod
    def of(cls, numbers: ArrayLike) -> ExactSum:
        """The sum of some numbers.

        Args:
            numbers: finite, of any shape.
        """
        fractions, exponents = np.frexp(np.asarray(numbers, dtype=np.float64).ravel())
        places, within = np.divmod(exponents - _LOWEST, _WIDTH)
        bins = np.zeros(_BINS, dtype=np.int64)
        np.add.at(bins, places, np.rint(np.ldexp(fractions, within + _DIGITS)).astype(np.int64))
        return cls(bins)

    def __add__(self, other: ExactSum) -> ExactSum:
        """The sum of both."""
        return ExactSum(self.bins + other.bins)

    def __float__(self) -> float:
        """The float64 that is nearest."""
        (filled,) = np.nonzero(self.bins)
        parts = ((int(self.bins[b]), b * _WIDTH + _LOWEST - _DIGITS) for b in filled.tolist())
        return math.fsum(math.ldexp(half, power) for whole, power in parts for half in _halves(whole))


def _halves(whole: int) -> tuple[int, int]:
    """A whole number as the sum of two that fit into a float64."""
    low = whole % 2**32
    return whole - low, low
