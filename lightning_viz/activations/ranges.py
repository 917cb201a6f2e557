"""The range of each unit's output over samples, from which dead units and saturated outputs are counted."""

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
from lightning_viz.rich_display import html_display

__all__ = ["UnitRanges", "range_sums"]


@html_display("scale", "never_positive", "highest", "broken", "seen")
@dataclass(frozen=True)
class UnitRanges:
    """The highest output of each unit over samples and places, their root mean square, and how many lie beyond bounds.

    Attributes:
        highest: of each unit ``[K]``; NaN if one of its outputs is.
        squares: sum of squares of the outputs of samples without NaN and infinity.
        values: number of these outputs.
        broken: number of samples with a NaN or infinite output.
        seen: number of outputs that were compared with bounds.
        beyond: how many of these lie at or beyond each pair of `SATURATION_BOUNDS`.
    """

    highest: NDArray[np.float64]
    squares: ExactSum
    values: float
    broken: float
    seen: float
    beyond: NDArray[np.float64]

    @property
    def scale(self) -> float:
        """Root mean square of the outputs; NaN if there is none."""
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
        size, seen = vector[1:3].tolist()
        beyond, norms, highest = np.split(vector[3:], [bounds, bounds + count])
        whole = norms[np.isfinite(norms)]
        broken = float(count - len(whole))
        return cls(highest, ExactSum.of(whole**2), size * len(whole), broken, seen, beyond)


def range_sums(output: Tensor, *, axis: int) -> Tensor:
    """What `UnitRanges` takes of a batch, as one vector that leaves its device in a single copy.

    The output is read twice, since a validation pass waits for it. A sample of which the norm exceeds what a float32
    holds counts as infinite.

    Args:
        output: of a layer ``[n, ...]``.
        axis: of the units.

    Returns:
        Float64 ``[3 + bounds + n + K]`` on the output's device (float32 if it has no float64). Outputs are compared
        with bounds at 512 fixed random positions of each sample at most.
    """
    output, wide = output.detach().float(), widest(output)
    across = [other for other in range(output.dim()) if other != axis % output.dim()]
    flat = output.flatten(1)
    some = sampled(flat)
    beyond = [((some <= low) | (some >= high)).sum() for low, high in SATURATION_BOUNDS]
    counts = [beyond[0].new_full((), number) for number in (len(flat), flat.shape[1], some.numel())]
    norms = torch.linalg.vector_norm(flat, dim=1)
    return torch.cat([torch.stack([*counts, *beyond]).to(wide), norms.to(wide), output.amax(across).to(wide)])
