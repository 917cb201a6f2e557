"""What operations take, counted rather than timed: multiplications, and values that are written or moved."""

from __future__ import annotations

from dataclasses import dataclass

_WRITTEN, _MOVED = 50, 200
"""Multiplications that take as long as a value put out by an operation, or cut out of a map and pasted into another."""


@dataclass
class Work:
    """How much of what takes time is done, or is spared.

    Attributes:
        multiplications: number of those in convolutions and matrix products.
        written: number of values that operations put out.
        moved: number of values that are copied to where an operation reads them; below 0 if windows, which spare the
            rest, copy them besides.
    """

    multiplications: float = 0.0
    written: float = 0.0
    moved: float = 0.0

    @property
    def total(self) -> float:
        """In multiplications that take as long (one thread of a CPU: 0.017, 0.8 and 3 ns; not measured on a GPU)."""
        return self.multiplications + _WRITTEN * self.written + _MOVED * self.moved
