"""How the maps of a layer are weighed for a class activation map: A its maps, G the gradient towards them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Weighting = Callable[[Tensor, Tensor], Tensor]
"""From maps A and gradients G ``[N, K, H, W]`` to a class activation map ``[N, 1, H, W]``, non-negative."""


def by_mean_gradient(maps: Tensor, slopes: Tensor) -> Tensor:
    """Grad-CAM: each map weighs as much as its mean gradient.

    Args:
        maps: A, ``[N, K, H, W]``.
        slopes: G, of the same shape.
    """
    alpha = slopes.mean((2, 3), keepdim=True)  # [N, K, 1, 1]
    return (alpha * maps).sum(1, keepdim=True).relu()


def by_positive_gradients(maps: Tensor, slopes: Tensor) -> Tensor:
    """Grad-CAM++: each map weighs as much as its positive gradients, of which each place counts by itself.

    Args:
        maps: A, ``[N, K, H, W]``.
        slopes: G, of the same shape.
    """
    denominator = 2 + maps.sum((2, 3), keepdim=True) * slopes  # the paper's, reduced by g ** 2, which can underflow
    alpha = torch.where(denominator == 0, 0, 1 / denominator.where(denominator != 0, 1))  # [N, K, H, W]
    weights = (alpha * slopes.relu()).sum((2, 3), keepdim=True)
    return (weights * maps).sum(1, keepdim=True).relu()


def by_place(maps: Tensor, slopes: Tensor) -> Tensor:
    """HiResCAM: each place weighs as much as its own gradient.

    Args:
        maps: A, ``[N, K, H, W]``.
        slopes: G, of the same shape.
    """
    return (slopes * maps).sum(1, keepdim=True).relu()


def by_positive_place(maps: Tensor, slopes: Tensor) -> Tensor:
    """LayerCAM: each place weighs as much as its own gradient, where that is positive.

    Args:
        maps: A, ``[N, K, H, W]``.
        slopes: G, of the same shape.
    """
    return (slopes.relu() * maps).sum(1, keepdim=True).relu()


def first_direction(maps: Tensor) -> Tensor:
    """EigenCAM: the maps' projection on their first principal direction, with the sign that most of it has.

    Args:
        maps: A, ``[N, K, H, W]``.
    """
    places = maps.flatten(2).transpose(1, 2)  # [N, HW, K]
    places = places if places.dtype == torch.float64 else places.float()  # no decomposition in half precision
    u, s, _ = torch.linalg.svd(places, full_matrices=False)
    projection: Tensor = (u[..., 0] * s[:, :1]).view(len(maps), 1, *maps.shape[2:]).to(maps)
    return (projection * projection.sum((2, 3), keepdim=True).sign()).relu()


WEIGHTINGS: dict[str, Weighting] = {
    "grad_cam": by_mean_gradient,
    "grad_cam_plus_plus": by_positive_gradients,
    "hires_cam": by_place,
    "layer_cam": by_positive_place,
    "eigen_cam": lambda maps, slopes: first_direction(maps),
}
"""By the name of the method."""
