"""Random transformations of the image before each pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.feature_maps import resize
from lightning_viz.host_copies import to_device

__all__ = ["jitter", "pad", "rotate", "scale", "standard"]

Transform = Callable[[Tensor, torch.Generator], Tensor]
"""From centered images ``[N, C, H, W]`` and a generator on the CPU to changed ones, of any size. The network sees their
middle in the size of the image; what is missing is gray."""


def jitter(pixels: int) -> Transform:
    """Jitter: a random crop that is smaller by so many pixels: put `pad` before it, or the border stays gray.

    Args:
        pixels: taken off each side's length.
    """

    def cropped(images: Tensor, generator: torch.Generator) -> Tensor:
        height, width = (side - pixels for side in images.shape[2:])
        if min(height, width) < 1:
            raise InvalidArgumentError(f"jitter({pixels}) leaves nothing of images of {tuple(images.shape[2:])}")
        top, left = torch.randint(pixels + 1, (2,), generator=generator, device="cpu").tolist()
        return images[..., top : top + height, left : left + width]

    return cropped


def scale(*factors: float) -> Transform:
    """Scale by a random one of some factors, bilinearly.

    Args:
        factors: 1 leaves the image as it is.
    """
    choose = _choice("scale", factors)

    def scaled(images: Tensor, generator: torch.Generator) -> Tensor:
        factor = choose(generator)
        size = [max(1, round(side * factor)) for side in images.shape[2:]]
        return resize(images, size, antialias=factor < 1)

    return scaled


def rotate(*degrees: float) -> Transform:
    """Rotate about the center by a random one of some angles, bilinearly; what comes from outside is gray.

    Args:
        degrees: counter-clockwise.
    """
    choose = _choice("rotate", degrees)

    def turned(images: Tensor, generator: torch.Generator) -> Tensor:
        angle = math.radians(choose(generator))
        height, width = images.shape[2:]
        cos, sin = math.cos(angle), math.sin(angle)
        matrix = [[cos, -sin * height / width, 0], [sin * width / height, cos, 0]]
        turn = to_device(torch.tensor(matrix, dtype=images.dtype, device="cpu"), images.device)
        grid = F.affine_grid(turn.expand(len(images), 2, 3), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)

    return turned


def pad(pixels: int, mode: str = "constant") -> Transform:
    """Enlarge by a border.

    Args:
        pixels: its width.
        mode: ``"constant"`` (gray), ``"reflect"``, ``"replicate"`` or ``"circular"``.
    """
    return lambda images, generator: F.pad(images, [pixels] * 4, mode=mode)


def standard(pixels: int = 8) -> list[Transform]:
    """The usual set: a gray border, jitter, a little scaling and turning, jitter again (Olah et al., 2017).

    Args:
        pixels: how far a dream may move.
    """
    return [
        pad(pixels),
        jitter(pixels),
        scale(0.95, 0.975, 1, 1.025, 1.05),
        rotate(-5, -2.5, 0, 2.5, 5),
        jitter(max(1, pixels // 2)),
    ]


def fitted(images: Tensor, size: Sequence[int]) -> Tensor:
    """The middle of images ``[N, C, ., .]`` in a size, rows and columns, gray where it is missing."""
    missing = [wanted - side for wanted, side in zip(size, images.shape[2:], strict=True)]
    if not any(missing):
        return images
    rows, columns = ((gap // 2, gap - gap // 2) for gap in missing)
    return F.pad(images, [*columns, *rows])


def _choice(name: str, values: Sequence[float]) -> Callable[[torch.Generator], float]:
    """Draws one of some values."""
    if not values:
        raise InvalidArgumentError(f"{name}(): give one value or more")
    return lambda generator: values[int(torch.randint(len(values), (), generator=generator, device="cpu"))]
