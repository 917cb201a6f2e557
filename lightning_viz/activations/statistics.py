"""Statistics of a layer's activations over samples, from exact sums that do not depend on the order of batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lightning_viz.activations.top_k import widest
from lightning_viz.hooks.geometry import Layout, as_maps
from lightning_viz.rich_display import html_display

__all__ = ["LayerStatistics", "SaturationBounds", "batch_statistics", "histogram_edges", "saturation_bounds"]

HISTOGRAM_VALUES = 512
"""Values per sample in the histogram; of larger layers at fixed random positions."""
_OCTAVES, _PER_OCTAVE = 20, 16  # bins from 2^-20 to 2^20 on either side of zero, at most 6 % wide
_RUN = 256  # values that are summed in float32


@dataclass(frozen=True)
class SaturationBounds:
    """Values from which on the outputs of a bounded activation function count as saturated.

    Attributes:
        low: saturated at or below this.
        high: saturated at or above this.
    """

    low: float
    high: float


@html_display("mean", "deviation", "dead", "samples", "broken", "lowest", "highest")
@dataclass(frozen=True)
class LayerStatistics:
    """Sums over samples of a layer's output; merging two sets of samples gives exactly the sums of both together.

    Attributes:
        samples: number of samples, without broken ones.
        values: number of their activations.
        total: exact sum of the activations.
        squares: exact sum of their squares.
        saturated: number of saturated activations; None if the layer's outputs are not bounded.
        broken: number of samples with a NaN or infinite activation, which are left out.
        lowest: minimum of each unit (a channel's map, or a scalar of a vector) over all samples, ``[K]``.
        highest: maximum of each unit, ``[K]``.
        bins: number of activations in each bin of `histogram_edges`, including below the first and above the last.
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
        """Mean of all activations."""
        return float(self.total) / self.values if self.values else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation of all activations."""
        return math.sqrt(max(0.0, float(self.squares) / self.values - self.mean**2)) if self.values else math.nan

    @property
    def dead(self) -> float:
        """Fraction of units that are zero on every sample and at every position."""
        return float(((self.lowest == 0) & (self.highest == 0)).mean())

    @property
    def never_positive(self) -> float:
        """Fraction of units that never exceed zero, and so are dead after a ReLU."""
        return float((self.highest <= 0).mean())

    @property
    def zero(self) -> float:
        """Fraction of activations that are zero (below 1e-6)."""
        return float(self.bins[len(self.bins) // 2] / max(1.0, self.bins.sum()))

    @property
    def saturated_fraction(self) -> float | None:
        """Fraction of activations that are saturated; None if they are not bounded."""
        return None if self.saturated is None else self.saturated / self.values if self.values else math.nan

    def merge(self, other: LayerStatistics) -> LayerStatistics:
        """The statistics of both sets of samples.

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
    def from_batch(cls, vector: NDArray[np.float64], samples: int, *, bounded: bool) -> LayerStatistics:
        """The statistics of one batch.

        Args:
            vector: of `batch_statistics`, on the CPU.
            samples: number in the batch.
            bounded: whether it was computed with bounds.
        """
        sums, squares, counts, bins, units = np.split(
            vector, np.cumsum([samples, samples, 3, len(histogram_edges()) + 1])
        )
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


def batch_statistics(output: Tensor, *, layout: Layout | None = None, bounds: SaturationBounds | None = None) -> Tensor:
    """The sums of a batch for `LayerStatistics`, as one vector that leaves its device in a single copy.

    Sums within a sample are computed in float32, which is many times faster; sums over samples are exact, so that they
    do not depend on how samples are divided into batches.

    Args:
        output: of a layer ``[n, ...]``.
        layout: as in `as_maps`.
        bounds: from which on outputs count as saturated.

    Returns:
        Float64 ``[2 n + 3 + bins + 2 K]`` on the output's device (float32 if it has no float64).
    """
    output, wide = output.detach().float(), widest(output)
    flat = output.flatten(1)
    sums, squares = _sums_of_runs(flat, wide)
    whole = (sums + squares).isfinite()
    maps = as_maps(output, layout)
    units = flat if maps is None else maps
    across = [axis for axis in range(units.dim()) if axis != 1]
    saturated = whole.new_zeros(len(whole))
    if bounds is not None:
        saturated = ((flat <= bounds.low) | (flat >= bounds.high)).sum(1)
    counts = [whole.new_full((), flat.shape[1], dtype=wide), whole.sum(), torch.where(whole, saturated, 0).sum()]
    parts = [sums, squares, torch.stack([count.to(wide) for count in counts]), _histogram(flat, whole)]
    return torch.cat([part.to(wide) for part in (*parts, units.amin(across), units.amax(across))])


def histogram_edges() -> NDArray[np.float64]:
    """Edges of the histogram, the same for every layer: 16 per octave on either side of zero, from 2^-20 to 2^20.

    The middle bin holds absolute values below 2^-20. The others include the edge nearer to zero. One more bin lies
    before the first edge and one after the last.
    """
    octaves = 2.0 ** np.arange(-_OCTAVES, _OCTAVES)
    sizes = (octaves[:, None] * (1 + np.arange(_PER_OCTAVE) / _PER_OCTAVE)).ravel()
    sizes = np.append(sizes, 2.0**_OCTAVES)
    return np.concatenate([-sizes[::-1], sizes])


def saturation_bounds(module: nn.Module) -> SaturationBounds | None:
    """Bounds of saturation of a layer, by its type; None if its outputs are not bounded.

    Sigmoid and tanh saturate within 1 % of their range of either bound, hardtanh and hardsigmoid at either bound, ReLU6
    at 6 but not at zero, where it is inactive. For an `nn.Sequential` the last module counts.

    Args:
        module: the layer.
    """
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    if isinstance(module, nn.ReLU6):
        return SaturationBounds(-math.inf, 6.0)
    if isinstance(module, nn.Hardtanh):
        return SaturationBounds(module.min_val, module.max_val)
    if isinstance(module, nn.Hardsigmoid):
        return SaturationBounds(0.0, 1.0)
    if isinstance(module, (nn.Tanh, nn.Softsign)):
        return SaturationBounds(-0.98, 0.98)
    return SaturationBounds(0.01, 0.99) if isinstance(module, nn.Sigmoid) else None


def _sums_of_runs(flat: Tensor, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """Sum and sum of squares of each sample ``[n]``, in runs of 256 values, because long float32 sums lose digits."""
    runs = flat.shape[1] // _RUN
    parts = (flat[:, : runs * _RUN].reshape(len(flat), runs, _RUN), flat[:, None, runs * _RUN :])
    sums = torch.cat([part.sum(2) for part in parts], dim=1)
    norms = torch.cat([torch.linalg.vector_norm(part, dim=2) for part in parts], dim=1)
    return sums.to(wide).sum(1), norms.to(wide).square().sum(1)


def _histogram(flat: Tensor, whole: Tensor) -> Tensor:
    """Number of values ``[n, d]`` of finite samples in each bin.

    The exponent of a float32 and the first four bits of its fraction are the index of its bin.
    """
    flat = sampled(flat)
    middle = 2 * _OCTAVES * _PER_OCTAVE + 1
    sizes = (flat.contiguous().view(torch.int32) & 0x7FFFFFFF) >> 19
    steps = (sizes - (127 - _OCTAVES) * _PER_OCTAVE + 1).clamp(0, middle)
    numbers = middle + torch.where(flat < 0, -steps, steps)
    numbers = torch.where(whole[:, None], numbers, 2 * middle + 1).flatten()
    counts = torch.zeros(2 * middle + 2, dtype=torch.int64, device=flat.device)
    return counts.index_add_(0, numbers, torch.ones_like(numbers, dtype=torch.int64))[:-1]


def sampled(flat: Tensor) -> Tensor:
    """Of each sample's values ``[n, d]`` those at fixed random positions ``[n, at most 512]``."""
    return flat if flat.shape[1] <= HISTOGRAM_VALUES else flat[:, _places(flat.shape[1]).to(flat.device)]


@lru_cache(maxsize=64)
def _places(dimension: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(dimension, generator=generator)[:HISTOGRAM_VALUES].sort().values


_DIGITS = 28  # minimum precision of each number in bits; a float32 has 24
_WIDTH = 8  # exponents that share a unit
_LOWEST = -1088  # below every float64's exponent


@dataclass(frozen=True)
class ExactSum:
    """Exact sum: an integer of any size, so that the order of summation does not matter.

    Each number is rounded on its own to 28 bits or more; float32 numbers are not rounded.

    Attributes:
        units: the sum in units of 2^-1116.

    >>> numbers = [1e16, 1.0, -1e16]
    >>> sum(numbers), float(ExactSum.of(numbers)), float(ExactSum.of(numbers[:1]) + ExactSum.of(numbers[1:]))
    (0.0, 1.0, 1.0)
    """

    units: int

    @classmethod
    def of(cls, numbers: ArrayLike) -> ExactSum:
        """The sum of some numbers.

        Args:
            numbers: finite, of any shape.
        """
        fractions, exponents = np.frexp(np.asarray(numbers, dtype=np.float64).ravel())
        places, within = np.divmod(exponents - _LOWEST, _WIDTH)
        rounded = np.rint(np.ldexp(fractions, within + _DIGITS)).astype(np.int64)
        parts = zip(rounded.tolist(), (_WIDTH * places).tolist(), strict=True)
        return cls(sum(part << shift for part, shift in parts))

    def __add__(self, other: ExactSum) -> ExactSum:
        """The sum of both."""
        return ExactSum(self.units + other.units)

    def __float__(self) -> float:
        """The nearest float64."""
        return self.units / (1 << (_DIGITS - _LOWEST))
