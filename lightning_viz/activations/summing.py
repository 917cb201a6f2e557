"""Sums of floating-point numbers that come out the same, to the bit, in whatever order and groups they are added."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
