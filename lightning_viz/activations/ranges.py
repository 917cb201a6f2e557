"""The range of each unit's output over samples, from which dead and saturated units are counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_viz.activations.statistics import ExactSum, sampled
from lightning_viz.activations.top_k import widest
from lightning_viz.hooks.activation_functions import SATURATION_BOUNDS

__all__ = ["UnitRanges", "range_sums"]


@dataclass(frozen=True)
class UnitRanges:
    """Extremes of each unit's output over samples and places, their root mean square, and how many lie beyond bounds.

    Attributes:
        lowest: of each unit ``[K]``; NaN if one of its outputs is.
        highest: likewise.
        squares: sum of squares of the finite outputs.
        values: number of finite outputs.
        broken: number of outputs that are NaN or infinite.
        seen: number of outputs that were compared with bounds.
        beyond: how many of these lie at or beyond each pair of `SATURATION_BOUNDS`.
    """

    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    squares: ExactSum
    values: float
    broken: float
    seen: float
    beyond: NDArray[np.float64]

    @property
    def scale(self) -> float:
        """Root mean square of the finite outputs; NaN if there is none."""
        return math.sqrt(max(0.0, float(self.squares)) / self.values) if self.values else math.nan

    @property
    def never_positive(self) -> float:
        """Fraction of units that never exceed zero, and so are dead after a ReLU."""
        return float((self.highest <= 0).mean())

    def saturated(self, low: float, high: float) -> float:
        """Fraction of outputs at or beyond a bound.

        Args:
            low: saturated at or below it.
            high: saturated at or above it; both a pair of `SATURATION_BOUNDS`.
        """
        return float(self.beyond[SATURATION_BOUNDS.index((low, high))]) / self.seen if self.seen else math.nan

    def merge(self, other: UnitRanges) -> UnitRanges:
        """The ranges over both sets of samples.

        Args:
            other: of the same layer.
        """
        return UnitRanges(
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
            self.squares + other.squares,
            self.values + other.values,
            self.broken + other.broken,
            self.seen + other.seen,
            self.beyond + other.beyond,
        )

    @classmethod
    def from_batch(cls, vector: NDArray[np.float64]) -> UnitRanges:
        """The ranges over one batch.

        Args:
            vector: of `range_sums`, on the CPU.
        """
        count, bounds = int(vector[0]), len(SATURATION_BOUNDS)
        values, broken, seen = vector[1:4].tolist()
        beyond, squares, units = np.split(vector[4:], [bounds, bounds + count])
        lowest, highest = np.split(units, 2)
        return cls(lowest, highest, ExactSum.of(squares), values, broken, seen, beyond)


def range_sums(output: Tensor, *, axis: int) -> Tensor:
    """What `UnitRanges` takes of a batch, as one vector that leaves its device in a single copy.

    Args:
        output: of a layer ``[n, ...]``.
        axis: of the units.

    Returns:
        Float64 ``[4 + bounds + n + 2 K]`` on the output's device (float32 if it has no float64). Outputs are compared
        with bounds at 512 fixed random positions of each sample at most.
    """
    output, wide = output.detach().float(), widest(output)
    across = [other for other in range(output.dim()) if other != axis % output.dim()]
    flat, finite = output.flatten(1), output.isfinite()
    norms = torch.linalg.vector_norm(torch.where(finite, output, 0).flatten(1), dim=1)
    squares = norms.nan_to_num(posinf=torch.finfo(norms.dtype).max).to(wide).square()
    some = sampled(flat)
    values = finite.sum()
    counts = [values.new_full((), len(output)), values, output.numel() - values, values.new_full((), some.numel())]
    beyond = [((some <= low) | (some >= high)).sum() for low, high in SATURATION_BOUNDS]
    units = [output.amin(across), output.amax(across)]
    return torch.cat([torch.stack([*counts, *beyond]).to(wide), squares, *(unit.to(wide) for unit in units)])
