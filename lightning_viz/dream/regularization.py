"""Penalties that keep a dream natural: functions of centered images ``[N, C, H, W]``, a value for each, ``[N]``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.pixels import gaussian_blur

__all__ = [
    "Preset",
    "YOSINSKI",
    "alpha_norm",
    "blur",
    "clip_small_contribution",
    "clip_small_norm",
    "decay",
    "edge_energy",
    "l2",
    "total_variation",
]

Prior = Callable[[Tensor], Tensor]
"""From centered images ``[N, C, H, W]`` to a penalty for each, ``[N]``; 0 is a gray image."""

_SIGMA = 1.0  # of the Gaussian that an image is compared with
_SMALLEST = 5  # pixels of the smaller side that the Gaussian needs


def edge_energy(images: Tensor) -> Tensor:
    r"""Edge energy: the squared difference to a Gaussian blur, summed over scales.

    .. math:: \sum_s \lVert d^s(x) - g * d^s(x) \rVert^2

    with g a 5 x 5 Gaussian of sigma 1 (zero-padded by 2) and d a 2 x 2 average pooling with padding 1, the padding
    counted; for as long as the smaller side exceeds 5 pixels. Channels are images of their own.

    Args:
        images: centered, ``[N, C, H, W]``.

    Raises:
        ValueError: no side may have 5 pixels or fewer.
    """
    if min(images.shape[2:]) <= _SMALLEST:
        size = " x ".join(map(str, images.shape[2:]))
        raise InvalidArgumentError(f"edge energy needs more than {_SMALLEST} pixels a side: these are {size}")
    gray = images.flatten(0, 1)[:, None]
    energy = images.new_zeros(len(images))
    while min(gray.shape[2:]) > _SMALLEST:
        difference = gray - gaussian_blur(gray, _SIGMA, radius=2, border="zero")
        energy = energy + difference.square().sum((1, 2, 3)).view(images.shape[:2]).sum(1)
        gray = F.avg_pool2d(gray, 2, padding=1, count_include_pad=True)
    return energy


def l2(images: Tensor) -> Tensor:
    r"""L2 penalty: the squared norm, :math:`\lVert x \rVert^2` (Simonyan et al., 2014).

    Args:
        images: centered, ``[N, C, H, W]``.
    """
    return images.square().flatten(1).sum(1)


def total_variation(images: Tensor, beta: float = 2.0) -> Tensor:
    r"""Total variation: how much neighboring pixels differ (Mahendran and Vedaldi, 2015).

    .. math:: \sum_{ij} \big( (x_{i,j+1} - x_{ij})^2 + (x_{i+1,j} - x_{ij})^2 \big)^{\beta / 2}

    A difference to what is outside the image is 0. The gradient of a flat image is zero for every beta.

    Args:
        images: centered, ``[N, C, H, W]``.
        beta: 2 by default (the paper's, where 1 leaves spikes).
    """
    across = F.pad(images.diff(dim=3), [0, 1]).square()
    squares = across + F.pad(images.diff(dim=2), [0, 0, 0, 1]).square()
    if beta == 2:
        return squares.flatten(1).sum(1)
    flat = squares == 0  # where the power's own gradient is infinite
    return squares.masked_fill(flat, 1.0).pow(beta / 2).masked_fill(flat, 0.0).flatten(1).sum(1)


def alpha_norm(images: Tensor, alpha: float = 6.0) -> Tensor:
    r"""Alpha norm: :math:`\sum |x|^\alpha`, which for a large alpha bounds the values (Mahendran and Vedaldi, 2015).

    Args:
        images: centered, ``[N, C, H, W]``.
        alpha: 6 by default (the paper's).
    """
    return images.abs().pow(alpha).flatten(1).sum(1)


PriorName = Literal["edge_energy", "total_variation", "l2", "alpha_norm"]

PRIORS: Mapping[str, Prior] = MappingProxyType(
    {"edge_energy": edge_energy, "total_variation": total_variation, "l2": l2, "alpha_norm": alpha_norm}
)
"""By the name that functions and commands take."""


Step = Callable[[Tensor, Tensor, int], Tensor]
"""From centered images ``[N, C, H, W]``, the objective's gradient towards them and the number of updates made (1 after
the first) to the images that the next update starts from."""


def decay(rate: float) -> Step:
    r"""Decay toward gray, :math:`x \leftarrow (1 - \theta) x`: no pixel is large that is not needed.

    Args:
        rate: theta, from 0 to 1.
    """
    _check("rate", rate, 1)
    return lambda images, gradient, number: (1 - rate) * images


def blur(width: float, every: int = 1) -> Step:
    """Gaussian blur: removes high frequencies.

    Args:
        width: of the Gaussian, in pixels.
        every: so many updates.
    """
    if width <= 0 or every < 1:
        raise InvalidArgumentError(f"blur(width={width}, every={every}): give a width above 0, and every 1 or more")
    return lambda images, gradient, number: images if number % every else gaussian_blur(images, width)


def clip_small_norm(percentile: float) -> Step:
    """Clipping by norm: pixels of small norm over the channels become gray.

    Args:
        percentile: so many per cent of each image's pixels.
    """
    _check("percentile", percentile, 100)
    return lambda images, gradient, number: largest(images, images.norm(dim=1, keepdim=True), percentile)


def clip_small_contribution(percentile: float) -> Step:
    r"""Clipping by contribution: pixels that contribute little to the objective become gray.

    The contribution is :math:`|\sum_c x_c \, \partial f / \partial x_c|`.

    Args:
        percentile: so many per cent of each image's pixels.
    """
    _check("percentile", percentile, 100)
    return lambda images, gradient, number: largest(images, (images * gradient).sum(1, keepdim=True).abs(), percentile)


@dataclass(frozen=True)
class Preset:
    """Steps between updates in their order: decay, blur, the two clips; 0 leaves one out.

    Attributes:
        decay: see `decay`.
        blur_width: see `blur`, in pixels.
        blur_every: so many updates.
        norm_percentile: see `clip_small_norm`.
        contribution_percentile: see `clip_small_contribution`.
        iterations: how many updates go with it.
        lr: learning rate of Adam that goes with it; that of the image if None. A decay of d per update bounds a pixel,
            in its distance from the mean, by lr / d.
    """

    decay: float = 0.0
    blur_width: float = 0.0
    blur_every: int = 1
    norm_percentile: float = 0.0
    contribution_percentile: float = 0.0
    iterations: int = 500
    lr: float | None = None

    def __iter__(self) -> Iterator[Step]:
        if self.decay:
            yield decay(self.decay)
        if self.blur_width:
            yield blur(self.blur_width, self.blur_every)
        if self.norm_percentile:
            yield clip_small_norm(self.norm_percentile)
        if self.contribution_percentile:
            yield clip_small_contribution(self.contribution_percentile)


YOSINSKI: Mapping[str, Preset] = MappingProxyType(
    {
        "small norm": Preset(blur_width=0.5, blur_every=4, norm_percentile=50, iterations=500),
        "decay": Preset(decay=0.3, norm_percentile=20, iterations=750, lr=0.3),
        "blur": Preset(decay=1e-4, blur_width=1.0, blur_every=4, iterations=1000),
        "contribution": Preset(blur_width=0.5, blur_every=4, contribution_percentile=90, iterations=1000),
    }
)
"""The four combinations that Yosinski et al. found best, by what each of them lives on; learning rates are ours: where
decay leaves pixels less than their range at 0.1, classes are not reached."""

PresetName = Literal["small norm", "decay", "blur", "contribution"]


def largest(images: Tensor, size: Tensor, percentile: float) -> Tensor:
    """Images whose values are zero where `size`, ``[N, C, H, W]`` or ``[N, 1, H, W]``, is below its percentile."""
    limit = torch.quantile(size.flatten(1), percentile / 100, dim=1)
    return images * (size >= limit[:, None, None, None])


def _check(name: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise InvalidArgumentError(f"{name} is {value}: give a value from 0 to {most}")
