"""What stands in for what is not shown of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Union

import torch
import torch.nn.functional as F
from torch import Tensor

Baseline = Union[float, Tensor, Callable[[Tensor], Tensor]]
"""A value in the model's input, a tensor to go with the images, or a function of them: `mean_colour`, `blurred`."""


def baseline_image(images: Tensor, baseline: Baseline) -> Tensor:
    """A baseline for each image, of its shape.

    Args:
        images: ``[N, C, H, W]``.
        baseline: see `Baseline`.

    Raises:
        ValueError: a tensor that does not go with the images.
    """
    value = baseline(images) if callable(baseline) else baseline
    value = value if isinstance(value, Tensor) else torch.as_tensor(value, device=images.device)
    try:
        return value.to(images).expand_as(images)
    except RuntimeError as error:
        shapes = f"{list(value.shape)}, the images {list(images.shape)}"
        raise ValueError(f"the baseline is {shapes}: give a number, or a tensor that broadcasts") from error


def mean_colour(images: Tensor) -> Tensor:
    """Each image's own mean, channel by channel.

    Args:
        images: ``[N, C, H, W]``.
    """
    return images.mean((2, 3), keepdim=True)


def blurred(images: Tensor, *, window: int = 11, deviation: float = 5.0) -> Tensor:
    """Images without their details, by a Gaussian; borders repeat.

    Args:
        images: ``[N, C, H, W]``.
        window: width and height of the kernel in pixels, odd (11: RISE's, for images of 224 x 224).
        deviation: of the Gaussian, in pixels (5: RISE's).
    """
    reach = window // 2
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.softmax(-(places**2) / (2 * deviation**2), 0)
    planes = F.pad(images.flatten(0, 1).unsqueeze(1), [reach] * 4, mode="replicate")  # [N * C, 1, ...]
    planes = F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return planes.view_as(images)
