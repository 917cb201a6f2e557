"""Random projection of layer outputs to vectors of bounded size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["PROJECTED_ABOVE", "PROJECTED_TO", "vectorizer", "count_sketch"]

PROJECTED_ABOVE = 4096
"""Layers with more dimensions are projected."""
PROJECTED_TO = 1024
"""Dimensions after projection: distances are preserved within about 4 % (one standard deviation, sqrt(2 / 1,024))."""


def vectorizer(*, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """A function that flattens batches ``[n, ...]`` to vectors ``[n, d]``, float32 on the CPU, with d at most 4,096.

    More dimensions are projected to 1,024 by a count sketch, a sparse random projection: each dimension is added, with
    a random sign, to one component (Charikar et al., 2002; Weinberger et al., 2009). Inner products are preserved in
    expectation. The projection is drawn once for each number of dimensions, from the same seed.

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
    """Count sketch: a random linear map ``[n, dimension] -> [n, components]`` that preserves inner products on average.

    Each component is the sum, with random signs, of an equal share of the dimensions; the same on every device.

    Args:
        dimension: of the vectors.
        components: of the result.
        seed: of the map.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = -(-dimension // components)
    order = torch.randperm(dimension, generator=generator).int()
    signs = torch.randint(0, 2, (dimension,), generator=generator, dtype=torch.int8) * 2 - 1

    def project(vectors: Tensor) -> Tensor:
        signed = vectors.index_select(1, order.to(vectors.device)).mul_(signs.to(vectors.device))
        padded = torch.nn.functional.pad(signed, (0, rows * components - dimension))
        return padded.view(len(vectors), rows, components).sum(1)

    return project
