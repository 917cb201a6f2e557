"""Pixel space: the map from a model's inputs to pixels in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_viz.errors import InvalidArgumentError, ViewError
from lightning_viz.host_copies import to_device

__all__ = ["PixelSpace", "gaussian_blur"]

_NORMALIZING = ("Normalize", "ImageClassification", "SemanticSegmentation")  # the last two torchvision's presets


@dataclass(frozen=True)
class PixelSpace:
    """Pixel space: ``pixels = input * std + mean``, the inverse of ``Normalize(mean, std)``.

    Attributes:
        mean: per channel, or one for all, in pixels (0: inputs are pixels).
        std: per channel, or one for all, in pixels per unit of input.
        bounds: range of pixels, for display and for clamping.

    >>> PixelSpace(mean=[0.5], std=[0.25]).to_pixels(torch.tensor([[[[-2.0, 0.0, 2.0]]]])).flatten().tolist()
    [0.0, 0.5, 1.0]
    """

    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if any(value <= 0 for value in self.std):
            raise InvalidArgumentError(f"std is {list(self.std)}: every channel's deviation must be positive")
        if not self.bounds[0] < self.bounds[1]:
            raise InvalidArgumentError(f"bounds are {self.bounds}; pass (low, high) with low < high")

    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Pixels of inputs ``[N, C, ...]``, clamped to the bounds."""
        return self._unclamped(inputs).clamp(*self.bounds)

    def to_inputs(self, pixels: Tensor) -> Tensor:
        """Inputs of the model for pixels ``[N, C, ...]``."""
        return (pixels - _channels(self.mean, pixels)) / _channels(self.std, pixels)

    def into(self, inputs: Tensor, pixel_space: PixelSpace) -> Tensor:
        """Convert inputs ``[N, C, ...]`` to those of another pixel space, without clamping."""
        return inputs if pixel_space == self else pixel_space.to_inputs(self._unclamped(inputs))

    def centered(self) -> PixelSpace:
        """A space in which input 0 is gray: this one if its 0 lies within the bounds.

        Otherwise, e.g. if inputs are pixels, 0 is the middle of the range, and two deviations are half of it.

        >>> PixelSpace().centered()
        PixelSpace(mean=(0.5,), std=(0.25,), bounds=(0.0, 1.0))
        """
        low, high = self.bounds
        if all(low < mean < high for mean in self.mean):
            return self
        return PixelSpace(((low + high) / 2,), ((high - low) / 4,), self.bounds)

    def _unclamped(self, inputs: Tensor) -> Tensor:
        return inputs * _channels(self.std, inputs) + _channels(self.mean, inputs)

    @classmethod
    def of_transform(cls, transform: Any) -> PixelSpace | None:
        """The pixel space of the ``Normalize`` in a transform, or in a data set's transform; None without one.

        Also finds that of torchvision's presets, ``weights.transforms()``.
        """
        for part in _transforms(transform, set()):
            mean, std = getattr(part, "mean", None), getattr(part, "std", None)
            if type(part).__name__ in _NORMALIZING and mean is not None and std is not None:
                per_channel = (torch.as_tensor(x, dtype=torch.float64).flatten().tolist() for x in (mean, std))
                return cls(*map(tuple, per_channel))
        return None

    @classmethod
    def guess(cls, inputs: Tensor) -> PixelSpace:
        """Guess a pixel space from the range of inputs: [0, 1], [-1, 1], 0 to 255, or exactly their range."""
        finite_parts = (
            image[torch.isfinite(image)] for image in inputs
        )  # per image, because masking takes 8 times the memory
        limits = [end.item() for finite in finite_parts if finite.numel() for end in finite.float().aminmax()]
        low, high = (min(limits), max(limits)) if limits else (0.0, 1.0)
        if low >= 0 and high <= 1:
            return cls()
        if low >= -1 and high <= 1:
            return cls((0.5,), (0.5,))
        if low >= 0 and 2 < high <= 255:
            return cls((0.0,), (1 / 255,))
        width = (high - low) or 1.0
        return cls((-low / width,), (1 / width,))


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    """Values per channel, shaped to broadcast with ``[N, C, ...]``."""
    if len(values) not in (1, like.shape[1]):
        raise InvalidArgumentError(f"the pixel space has {len(values)} channels, the images have {like.shape[1]}")
    shaped = torch.tensor(list(values), dtype=like.dtype, device="cpu").view(1, -1, *[1] * (like.dim() - 2))
    return to_device(shaped, like.device)


def _transforms(transform: Any, visited: set[int]) -> Iterator[Any]:
    """A transform and all that it contains, through data sets and containers."""
    if transform is None or id(transform) in visited:
        return
    visited.add(id(transform))
    yield transform
    inner: list[Any] = []
    for name in ("transforms", "transform", "dataset", "datasets"):
        attribute = getattr(transform, name, None)
        inner += attribute if isinstance(attribute, (list, tuple)) else [attribute]
    for inner_transform in [*inner, *(transform if isinstance(transform, torch.nn.Sequential) else ())]:
        yield from _transforms(inner_transform, visited)


def clamp_inputs(inputs: Tensor, pixel_space: PixelSpace, slack: float) -> Tensor:
    """Inputs ``[N, ...]`` whose pixels are clamped as by `clamp_pixels`, at least in single precision.

    Raises:
        ViewError: they lie further outside.
    """
    inputs = inputs.detach().to(torch.promote_types(inputs.dtype, torch.float32))
    pixels = pixel_space.into(inputs, PixelSpace())
    return pixel_space.to_inputs(clamp_pixels(pixels, pixel_space, slack, error=ViewError))


def clamp_pixels(
    pixels: Tensor, pixel_space: PixelSpace, slack: float, *, error: type[InvalidArgumentError] = InvalidArgumentError
) -> Tensor:
    """Pixels ``[N, ...]`` clamped to the bounds of their space, of which they may lie outside by a share of the range.

    Raises:
        InvalidArgumentError: they lie further outside; `error` names a subclass.
    """
    check_pixels(pixels, pixel_space, slack, error=error)
    return pixels.clamp(*pixel_space.bounds)


def check_pixels(
    pixels: Tensor, pixel_space: PixelSpace, slack: float, *, error: type[InvalidArgumentError] = InvalidArgumentError
) -> tuple[float, float]:
    """Least and greatest of the pixels, which may lie outside the bounds of their space by a share of the range.

    Raises:
        InvalidArgumentError: they lie further outside; `error` names a subclass.
    """
    low, high = pixel_space.bounds
    least, most = torch.stack(pixels.aminmax()).tolist()
    if not max(low - least, most - high) <= slack * (high - low):
        raise error(
            f"the samples have pixels from {least:.3g} to {most:.3g}, but they should lie in {pixel_space.bounds}; "
            "give pixel_space=PixelSpace(mean, std) with the mean and std that normalized them"
        )
    return least, most


def gaussian_blur(
    images: Tensor,
    sigma: float,
    *,
    radius: int | None = None,
    border: Literal["renormalize", "replicate", "zero"] = "renormalize",
) -> Tensor:
    """Gaussian blur of images, each channel on its own.

    Args:
        images: ``[N, C, H, W]``.
        sigma: standard deviation of the Gaussian, in pixels.
        radius: of the kernel, in pixels; four sigma if omitted.
        border: values outside: ``"renormalize"`` omits them, ``"replicate"`` repeats the border, ``"zero"`` uses 0.
    """
    reach = max(1, round(4 * sigma)) if radius is None else radius
    line = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    weights = torch.softmax(-line.square() / (2 * sigma**2), 0)

    def smoothed(planes: Tensor, padding: int) -> Tensor:
        rows = F.conv2d(planes, weights.view(1, 1, -1, 1), padding=(padding, 0))
        return F.conv2d(rows, weights.view(1, 1, 1, -1), padding=(0, padding))

    planes = images.flatten(0, 1).unsqueeze(1)  # [N * C, 1, H, W]
    if border == "replicate":
        return smoothed(F.pad(planes, [reach] * 4, mode="replicate"), 0).view_as(images)
    blurred = smoothed(planes, reach)
    if border == "renormalize":
        blurred = blurred / smoothed(torch.ones_like(planes[:1]), reach)
    return blurred.view_as(images)
