"""How the image that is optimized is written down: pixels, Fourier coefficients, or a network of the coordinates.

All give *centered* images ``[N, C, H, W]``: pixels minus mean over deviation, where 0 is gray.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.host_copies import to_device
from lightning_viz.pixels import PixelSpace

__all__ = ["Image", "cppn", "displayed", "fourier", "maco", "pixels"]

_COLORS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""A root of the covariance of ImageNet's colors, rows red, green, blue (as lucid and lucent have it)."""


class Image(Protocol):
    """A way to write images down. A new one is a class with these.

    Attributes:
        shape: channels, rows and columns.
        rate: Adam's learning rate that suits its parameters.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...  # noqa: D102

    @property
    def rate(self) -> float: ...  # noqa: D102

    def parameters(self, generators: Sequence[torch.Generator]) -> list[Tensor]:
        """Where images start, ``[N, ...]`` each, on the CPU; with a generator of random numbers for each image."""

    def draw(self, parameters: Sequence[Tensor]) -> Tensor:
        """The centered images ``[N, C, H, W]`` of the parameters, which are optimized."""


@dataclass(frozen=True)
class Pixels:
    """See `pixels`."""

    shape: tuple[int, int, int]
    start: Tensor | None = None
    deviation: float = 0.01
    rate: ClassVar[float] = 0.1

    def parameters(self, generators: Sequence[torch.Generator]) -> list[Tensor]:
        """A given image with noise, or noise around gray."""
        noise = _noise(self.shape, generators) * self.deviation
        if self.start is None:
            return [noise]
        if self.start.dim() == 4 and len(self.start) not in (1, len(generators)):
            raise InvalidArgumentError(
                f"{len(self.start)} images to start {len(generators)} dreams from: give one, or one each"
            )
        return [self.start.detach().cpu() + noise.to(self.start.dtype)]

    def draw(self, parameters: Sequence[Tensor]) -> Tensor:
        """The parameters themselves."""
        return parameters[0]


@dataclass(frozen=True)
class Fourier:
    """See `fourier`."""

    shape: tuple[int, int, int]
    decay: float = 1.0
    deviation: float = 0.01
    rate: ClassVar[float] = 0.1

    def parameters(self, generators: Sequence[torch.Generator]) -> list[Tensor]:
        """Noise: real and imaginary parts of scaled coefficients, ``[N, C, H, W // 2 + 1, 2]``."""
        size = (self.shape[0], self.shape[1], self.shape[2] // 2 + 1, 2)
        return [_noise(size, generators) * self.deviation]

    def draw(self, parameters: Sequence[Tensor]) -> Tensor:
        """The images of the coefficients, in decorrelated colors where there are three channels."""
        channels, height, width = self.shape
        spectrum = torch.view_as_complex(parameters[0]) * self._scale(parameters[0])
        image: Tensor = torch.fft.irfft2(spectrum, s=(height, width), norm="ortho")
        if channels != 3:
            return image
        return torch.einsum("rc,nchw->nrhw", _usual_colors(image), image)

    def _scale(self, like: Tensor) -> Tensor:
        return _falling(self.shape, self.decay, like)


@dataclass(frozen=True)
class Maco:
    """See `maco`.

    Attributes:
        shape: channels, rows and columns.
        magnitude: of the coefficients, ``[C, H, W // 2 + 1]``.
        colors: from the magnitudes' channels to the image's, ``[C, C]``.
    """

    shape: tuple[int, int, int]
    magnitude: Tensor
    colors: Tensor
    rate: ClassVar[float] = 0.1

    def parameters(self, generators: Sequence[torch.Generator]) -> list[Tensor]:
        """Random phases, in radians ``[N, C, H, W // 2 + 1]``."""
        size = (self.shape[0], self.shape[1], self.shape[2] // 2 + 1)
        phases = [torch.rand(size, generator=generator, device="cpu") for generator in generators]
        return [2 * math.pi * torch.stack(phases)]

    def draw(self, parameters: Sequence[Tensor]) -> Tensor:
        """The images of these phases and the given magnitudes."""
        phases = parameters[0]
        magnitudes = to_device(self.magnitude, phases.device, phases.dtype).expand_as(phases).contiguous()
        spectrum = torch.polar(magnitudes, phases)
        image = torch.fft.irfft2(spectrum, s=self.shape[1:], norm="ortho")
        return torch.einsum("rc,nchw->nrhw", to_device(self.colors, image.device, image.dtype), image)


def _falling(shape: tuple[int, int, int], decay: float, like: Tensor) -> Tensor:
    """A scale of coefficients ``[H, W // 2 + 1]`` that falls with frequency; an image has their parts' deviation."""
    _, height, width = shape
    options: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    rows, columns = torch.fft.fftfreq(height, **options)[:, None], torch.fft.rfftfreq(width, **options)[None]
    frequency = torch.sqrt(rows**2 + columns**2).clamp_min(1 / max(height, width))
    scale = frequency**-decay
    # A coefficient stands for its mirror image as well: both of its parts, twice. What mirrors itself is real.
    parts = torch.where((columns == 0) | (columns == 0.5), 1, 4)
    scaled: Tensor = scale / ((parts * scale.square()).sum() / (height * width)).sqrt()
    return scaled


@dataclass(frozen=True)
class CPPN:
    """See `cppn`."""

    shape: tuple[int, int, int]
    width: int = 24
    layers: int = 6
    rate: ClassVar[float] = 0.005

    def parameters(self, generators: Sequence[torch.Generator]) -> list[Tensor]:
        """Random networks, which draw patterns from the start.

        Of each layer the weights, the last row the bias, ``[N, inputs + 1, outputs]``.
        """
        sizes = [4] + [self.width] * self.layers
        shapes = [(inside + 1, outside) for inside, outside in pairwise(sizes)]
        hidden = [_noise(shape, generators) / math.sqrt(shape[0]) for shape in shapes]
        return [*hidden, torch.zeros(len(generators), self.width + 1, self.shape[0], device="cpu")]  # gray at first

    def draw(self, parameters: Sequence[Tensor]) -> Tensor:
        """What the networks make of the coordinates."""
        channels, height, width = self.shape
        rows, columns = (
            torch.linspace(-side, side, side, device=parameters[0].device) / max(height, width) * 1.7
            for side in (height, width)
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        coordinates = torch.stack([x, y, torch.hypot(x, y), torch.sin(3 * torch.hypot(x, y))], -1).view(1, -1, 4)
        values = coordinates.to(parameters[0]).expand(len(parameters[0]), -1, -1)
        waves = torch.arange(self.width, device=values.device) % 2 == 0  # the other units have edges
        for weights in parameters[:-1]:
            sums = values @ weights[:, :-1] + weights[:, -1:]
            values = torch.where(waves, torch.sin(2 * sums), torch.tanh(sums))
        values = values @ parameters[-1][:, :-1] + parameters[-1][:, -1:]
        return values.transpose(1, 2).reshape(-1, channels, height, width)


def pixels(shape: Sequence[int], *, start: Tensor | None = None, deviation: float | None = None) -> Pixels:
    """The image itself.

    Args:
        shape: channels, rows and columns.
        start: centered images to start from, ``[C, H, W]`` or one for each dream ``[N, C, H, W]``; gray if omitted.
        deviation: of the noise at the start, on top of it: 0.01, or none on an image.

    Raises:
        ValueError: a shape that is none, or an image to start from that has another.
    """
    size = image_shape(shape)
    if start is not None and tuple(start.shape[-3:]) != size:
        raise InvalidArgumentError(f"the image to start from is {tuple(start.shape)}: the dream is {size}")
    return Pixels(size, start, (0.01 if start is None else 0.0) if deviation is None else deviation)


def fourier(shape: Sequence[int], *, decay: float = 1.0, deviation: float = 0.01) -> Fourier:
    """Fourier coefficients, scaled as natural images have them; colors decorrelated for RGB (Olah et al., 2017).

    What is large in natural images is quickly changed: the high frequencies, which pixels let grow first, come last.
    The colors of ImageNet are used for three channels; for other counts each channel is an image of its own.

    Args:
        shape: channels, rows and columns.
        decay: power of the frequency that the coefficients are divided by (1: natural images).
        deviation: of the noise at the start, as of the image.

    Raises:
        ValueError: a shape that is none.
    """
    return Fourier(image_shape(shape), decay, deviation)


def maco(shape: Sequence[int], *, images: Tensor | None = None) -> Maco:
    r"""Magnitude-constrained optimization: only the phase of each Fourier coefficient is optimized (Fel et al., 2023).

    .. math:: x = \mathcal{F}^{-1}(r\, e^{i \varphi}), \qquad r = \mathbb{E}\, |\mathcal{F}(x_0)|

    The image keeps the spectrum of natural images, whatever the objective: neither high frequencies nor contrast can
    grow. Spectra are of decorrelated colors, so that colors are those of the images, too.

    Args:
        shape: channels, rows and columns.
        images: centered images ``[M, C, H, W]`` whose mean spectrum is kept, and whose colors; if omitted a spectrum
            that falls with frequency, as on average in nature, of unit deviation, in the colors of ImageNet for three
            channels.

    Raises:
        ValueError: a shape that is none, or images that have another.
    """
    size = image_shape(shape)
    if images is None:
        like = torch.zeros((), dtype=torch.float64)
        magnitude = (math.sqrt(2) * _falling(size, 1.0, like)).expand(size[0], -1, -1)  # of two parts of unit deviation
        return Maco(size, magnitude, _usual_colors(like) if size[0] == 3 else torch.eye(size[0], dtype=torch.float64))
    if images.dim() != 4 or not len(images) or tuple(images.shape[1:]) != size:
        raise InvalidArgumentError(
            f"images are {tuple(images.shape)}: give one or more, [M, {', '.join(map(str, size))}]"
        )
    given = images.detach().double().cpu()
    values, axes = torch.linalg.eigh(torch.cov(given.transpose(0, 1).flatten(1)).view(size[0], size[0]))
    deviations = values.clamp_min(0).sqrt()
    decorrelated = torch.einsum("cr,nrhw->nchw", axes.T / deviations.clamp_min(1e-6)[:, None], given)
    return Maco(size, torch.fft.rfft2(decorrelated, norm="ortho").abs().mean(0), axes * deviations)


def cppn(shape: Sequence[int], *, width: int = 24, layers: int = 6) -> CPPN:
    """A compositional pattern-producing network from coordinates to values (Stanley, 2007; Mordvintsev et al., 2018).

    Smooth, and drawn at any size: ``CPPN.draw`` of another shape shows the same parameters finer.

    Args:
        shape: channels, rows and columns.
        width: units of a hidden layer.
        layers: hidden ones.

    Raises:
        ValueError: a shape that is none.
    """
    return CPPN(image_shape(shape), width, layers)


def _usual_colors(like: Tensor) -> Tensor:
    """From decorrelated colors to red, green and blue, as ImageNet's are correlated."""
    colors = to_device(torch.tensor(_COLORS, dtype=like.dtype, device="cpu"), like.device)
    unit: Tensor = colors / colors.norm() * math.sqrt(3)
    return unit


def squashed(images: Tensor, pixel_space: PixelSpace) -> Tensor:
    r"""Centered images within the pixels' bounds, by a sigmoid that leaves small values as they are.

    With pixels in [0, 1], mean m and deviation s the pixel is :math:`\sigma(\sigma^{-1}(m) + x s / (m (1 - m)))`. The
    space is that of centered images (see `PixelSpace.centered`).
    """
    low, high = pixel_space.bounds
    middle, slope = _sigmoid_of(pixel_space, images)
    return pixel_space.to_inputs(low + (high - low) * torch.sigmoid(torch.logit(middle) + slope * images))


def unsquashed(images: Tensor, pixel_space: PixelSpace) -> Tensor:
    """The inverse of `squashed`; pixels at the bounds, where it has no gradient left, come a thousandth nearer."""
    low, high = pixel_space.bounds
    middle, slope = _sigmoid_of(pixel_space, images)
    share = (pixel_space.to_pixels(images) - low) / (high - low)
    return (torch.logit(share.clamp(1e-3, 1 - 1e-3)) - torch.logit(middle)) / slope


def _sigmoid_of(pixel_space: PixelSpace, images: Tensor) -> tuple[Tensor, Tensor]:
    """Where in the bounds' range the sigmoid has its middle, per channel, and its slope there."""
    low, high = pixel_space.bounds
    zero = images.new_zeros(1, images.shape[1], 1, 1)
    middle = (pixel_space.to_pixels(zero) - low) / (high - low)
    deviation = 1 / (pixel_space.to_inputs(zero + 1) - pixel_space.to_inputs(zero))
    return middle, deviation / ((high - low) * middle * (1 - middle))


def displayed(images: Tensor) -> Tensor:
    r"""Pixels to look at of images that know no bounds: :math:`0.5 + 0.1 (x - \bar{x}) / \mathrm{std}(x)`, in [0, 1].

    Args:
        images: centered, ``[N, C, H, W]``; each has its own mean and deviation.
    """
    flat = images.flatten(1)
    mean, deviation = flat.mean(1), flat.std(1, correction=0).clamp_min(torch.finfo(flat.dtype).tiny)
    shape = (-1, *[1] * (images.dim() - 1))
    return (0.5 + 0.1 * (images - mean.view(shape)) / deviation.view(shape)).clamp(0, 1)


def as_bytes(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] as 0 to 255."""
    return (pixels * 255).round().to(torch.uint8)


def _noise(size: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Normal, ``[N, *size]``, on the CPU like its generators: a seed means the same on every device."""
    return torch.stack([torch.randn(size, generator=generator, device="cpu") for generator in generators])


def image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Channels, rows and columns, checked."""
    if len(shape) != 3 or any(side < 1 for side in shape):
        raise InvalidArgumentError(f"the shape is {tuple(shape)}: give channels, rows and columns, (3, 224, 224)")
    channels, height, width = shape
    return channels, height, width


OVERSHOOT = 0.02  # of the pixels' range: what rounding and resizing overshoot


def centered(inputs: Tensor, pixel_space: PixelSpace, what: str) -> Tensor:
    """The centered images ``[N, C, H, W]`` of what a model takes, one image or several, on the CPU.

    Raises:
        InvalidArgumentError: they are no images, or their pixels lie outside the space's bounds.
    """
    if inputs.dim() not in (3, 4):
        raise InvalidArgumentError(f"{what} is {list(inputs.shape)}: give [N, C, H, W], or one image [C, H, W]")
    images = inputs.detach().cpu().to(torch.promote_types(inputs.dtype, torch.float32)).reshape(-1, *inputs.shape[-3:])
    low, high = pixel_space.bounds
    pixels = pixel_space.into(images, PixelSpace())  # beyond the bounds, too
    slack = OVERSHOOT * (high - low)
    if not low - slack <= pixels.amin() <= pixels.amax() <= high + slack:
        raise InvalidArgumentError(
            f"{what} has pixels from {pixels.amin():.3g} to {pixels.amax():.3g}, they should lie in "
            f"{pixel_space.bounds}: give pixel_space=PixelSpace(mean, std) with the mean and std that normalized it"
        )
    return clipped(pixel_space.into(images, pixel_space.centered()), pixel_space)


def clipped(images: Tensor, pixel_space: PixelSpace) -> Tensor:
    """Centered images with their pixels within the bounds of the space."""
    own = pixel_space.centered()
    return own.to_inputs(own.to_pixels(images))


def visible(images: Tensor, pixel_space: PixelSpace, bounded: bool) -> Tensor:
    """What to look at of centered images, ``[N, C, H, W]`` in [0, 1]: bounded ones as they are, others `displayed`."""
    if not bounded:
        return displayed(images)
    low, high = pixel_space.bounds
    return (pixel_space.centered().to_pixels(images) - low) / (high - low)
