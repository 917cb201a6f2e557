"""Steps between two updates of a dream, and Yosinski's four presets of them (Yosinski et al., 2015)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from lightning_viz.dream.priors import blurred

Step = Callable[[Tensor, Tensor, int], Tensor]
"""From centred images ``[N, C, H, W]``, the objective's gradient towards them and the number of updates made (1 after
the first) to the images that the next update starts from."""


def decay(rate: float) -> Step:
    r"""Towards grey, :math:`x \leftarrow (1 - \theta) x`: no pixel is large that is not needed.

    Args:
        rate: theta, from 0 to 1.
    """
    _check("rate", rate, 1)
    return lambda images, gradient, number: (1 - rate) * images


def blur(width: float, every: int = 1) -> Step:
    """A Gaussian blur: nothing stays that only high frequencies carry.

    Args:
        width: of the Gaussian, in pixels.
        every: so many updates.
    """
    if width <= 0 or every < 1:
        raise ValueError(f"blur(width={width}, every={every}): give a width above 0, and every 1 or more")
    return lambda images, gradient, number: images if number % every else blurred(images, width)


def clip_small_norm(percentile: float) -> Step:
    """Pixels of small norm over the channels become grey.

    Args:
        percentile: so many per cent of each image's pixels.
    """
    _check("percentile", percentile, 100)
    return lambda images, gradient, number: _kept(images, images.norm(dim=1, keepdim=True), percentile)


def clip_small_contribution(percentile: float) -> Step:
    r"""Pixels that contribute little, :math:`|\sum_c x_c \, \partial f / \partial x_c|`, become grey.

    Args:
        percentile: so many per cent of each image's pixels.
    """
    _check("percentile", percentile, 100)
    return lambda images, gradient, number: _kept(images, (images * gradient).sum(1, keepdim=True).abs(), percentile)


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
    """

    decay: float = 0.0
    blur_width: float = 0.0
    blur_every: int = 1
    norm_percentile: float = 0.0
    contribution_percentile: float = 0.0
    iterations: int = 500

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
        "decay": Preset(decay=0.3, norm_percentile=20, iterations=750),
        "blur": Preset(decay=1e-4, blur_width=1.0, blur_every=4, iterations=1000),
        "contribution": Preset(blur_width=0.5, blur_every=4, contribution_percentile=90, iterations=1000),
    }
)
"""The four combinations that Yosinski et al. found best, by what each of them lives on."""


def _kept(images: Tensor, size: Tensor, percentile: float) -> Tensor:
    """Images whose pixels below a percentile of `size` ``[N, 1, H, W]`` are zero."""
    limit = torch.quantile(size.flatten(1), percentile / 100, dim=1)
    return images * (size >= limit[:, None, None, None])


def _check(name: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise ValueError(f"{name} is {value}: give a value from 0 to {most}")
