"""A layer's samples as vectors of bounded size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["PROJECTED_ABOVE", "PROJECTED_TO", "as_vectors", "count_sketch"]

PROJECTED_ABOVE = 4096
"""Layers of more dimensions are projected before they are kept."""
PROJECTED_TO = 1024
"""... to so many: distances between samples keep to within about 4 % (one standard deviation, sqrt(2 / 1,024))."""


def as_vectors(*, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """A function that flattens a layer's batches ``[n, ...]`` to ``[n, d]`` float32 on the CPU, d at most 4,096.

    Where there are more dimensions they are projected to 1,024 by a count sketch, a sparse random projection: each
    dimension goes, with a random sign, to one component (Charikar et al., 2002; Weinberger et al., 2009). Inner
    products are kept in expectation. The signs are made once for each number of dimensions, from the same seed.

    Args:
        seed: of the projection.
    """
    projections: dict[int, Callable[[Tensor], Tensor]] = {}

    def reduce(output: Tensor) -> Tensor:
        flat = output.flatten(1).float()
        dimension = flat.shape[1]
        if dimension > PROJECTED_ABOVE:
            if dimension not in projections:
                projections[dimension] = count_sketch(dimension, PROJECTED_TO, seed=seed)
            flat = projections[dimension](flat)
        return flat.cpu().clone() if flat.data_ptr() == output.data_ptr() else flat.cpu()

    return reduce


def count_sketch(dimension: int, components: int, *, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """A random linear map ``[n, dimension] -> [n, components]`` that keeps inner products in expectation.

    Each component is the sum, with random signs, of an equal share of the dimensions. The same on every device.

    Args:
        dimension: of what goes in.
        components: of what comes out.
        seed: which of all such maps.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = -(-dimension // components)
    order = torch.randperm(dimension, generator=generator).int()
    signs = torch.randint(0, 2, (dimension,), generator=generator, dtype=torch.int8) * 2 - 1

    def project(vectors: Tensor) -> Tensor:
        shuffled = vectors.index_select(1, order.to(vectors.device)).mul_(signs.to(vectors.device))
        padded = torch.nn.functional.pad(shuffled, (0, rows * components - dimension))
        return padded.view(len(vectors), rows, components).sum(1)

    return project
