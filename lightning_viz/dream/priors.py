"""Penalties that keep a dream natural: functions of centred images ``[N, C, H, W]``, a value for each, ``[N]``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Prior = Callable[[Tensor], Tensor]
"""From centred images ``[N, C, H, W]`` to a penalty for each, ``[N]``; 0 is a grey image."""

_SIGMA = 1.0  # of the Gaussian that an image is compared with
_SMALLEST = 5  # pixels of the smaller side that the Gaussian needs


def edge_energy(images: Tensor) -> Tensor:
    r"""What a Gaussian takes away, at every scale: the energy of edges and fine patterns.

    .. math:: \sum_s \lVert d^s(x) - g * d^s(x) \rVert^2

    with g a 5 x 5 Gaussian of sigma 1 (zero-padded by 2) and d a 2 x 2 average pooling with padding 1, the padding
    counted; for as long as the smaller side exceeds 5 pixels. Channels are images of their own.

    Args:
        images: centred, ``[N, C, H, W]``.

    Raises:
        ValueError: no side may have 5 pixels or fewer.
    """
    if min(images.shape[2:]) <= _SMALLEST:
        raise ValueError(f"edge energy needs images of more than {_SMALLEST} pixels a side: these are {_size(images)}")
    grey = images.flatten(0, 1)[:, None]
    kernel = _gaussian(_SIGMA, 2, images)
    energy = images.new_zeros(len(images))
    while min(grey.shape[2:]) > _SMALLEST:
        difference = grey - F.conv2d(grey, kernel, padding=2)
        energy = energy + difference.square().sum((1, 2, 3)).view(images.shape[:2]).sum(1)
        grey = F.avg_pool2d(grey, 2, padding=1, count_include_pad=True)
    return energy


def l2(images: Tensor) -> Tensor:
    r"""The squared norm, :math:`\lVert x \rVert^2` (Simonyan et al., 2014).

    Args:
        images: centred, ``[N, C, H, W]``.
    """
    return images.square().flatten(1).sum(1)


def total_variation(images: Tensor, beta: float = 2.0) -> Tensor:
    r"""How much neighbouring pixels differ (Mahendran and Vedaldi, 2015).

    .. math:: \sum_{ij} \big( (x_{i,j+1} - x_{ij})^2 + (x_{i+1,j} - x_{ij})^2 \big)^{\beta / 2}

    A difference to what is outside the image is 0. The gradient of a flat image is zero for every beta.

    Args:
        images: centred, ``[N, C, H, W]``.
        beta: 2 by default (the paper's, where 1 leaves spikes).
    """
    across = F.pad(images.diff(dim=3), [0, 1]).square()
    squares = across + F.pad(images.diff(dim=2), [0, 0, 0, 1]).square()
    if beta == 2:
        return squares.flatten(1).sum(1)
    flat = squares == 0  # where the power's own gradient is infinite
    return squares.masked_fill(flat, 1.0).pow(beta / 2).masked_fill(flat, 0.0).flatten(1).sum(1)


def alpha_norm(images: Tensor, alpha: float = 6.0) -> Tensor:
    r"""The norm :math:`\sum |x|^\alpha`, which a large alpha keeps within a range (Mahendran and Vedaldi, 2015).

    Args:
        images: centred, ``[N, C, H, W]``.
        alpha: 6 by default (the paper's).
    """
    return images.abs().pow(alpha).flatten(1).sum(1)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Images under a Gaussian blur that darkens nothing at the borders: what lies outside does not count.

    Args:
        images: ``[N, C, H, W]``.
        sigma: width of the Gaussian, in pixels; it reaches four widths far.
    """
    reach = max(1, round(4 * sigma))
    kernel = _gaussian(sigma, reach, images)
    grey = images.flatten(0, 1)[:, None]
    weight = F.conv2d(torch.ones_like(grey[:1]), kernel, padding=reach)
    return (F.conv2d(grey, kernel, padding=reach) / weight).view_as(images)


def _gaussian(sigma: float, reach: int, like: Tensor) -> Tensor:
    """A normalised kernel ``[1, 1, 2 reach + 1, 2 reach + 1]``."""
    line = torch.arange(-reach, reach + 1, dtype=like.dtype, device=like.device)
    bell = torch.exp(-line.square() / (2 * sigma**2))
    bell = bell / bell.sum()
    return torch.outer(bell, bell)[None, None]


def _size(images: Tensor) -> str:
    return " x ".join(map(str, images.shape[2:]))
