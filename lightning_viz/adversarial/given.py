"""What attacks are given: inputs, classes and epsilons, checked before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import torch
from torch import Tensor

from lightning_viz.adversarial.norms import LINF, Norm
from lightning_viz.pixels import PixelSpace

Classes = Union[Tensor, Sequence[int]]
"""A class for each sample, ``[N]``."""

Epsilons = Union[float, Sequence[float], Tensor]
"""How far pixels may move: a radius, E of them ``[E]``, or one for each sample ``[E, N]``."""

_SLACK = 1e-3  # of the pixels' range: what rounding leaves outside


def check_inputs(inputs: Tensor, batch_size: int | None, seed: int | None) -> None:
    """See that inputs can be attacked.

    Args:
        inputs: as the model takes them.
        batch_size: samples shown at a time.
        seed: of everything random.

    Raises:
        TypeError: they are no floating-point tensor.
        ValueError: they are no samples, or not finite; or an option that makes no sense.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TypeError(f"the inputs are {kind}: give a floating-point tensor, as the model takes them")
    if inputs.dim() < 2 or inputs.numel() == 0:
        raise ValueError(f"the inputs are {list(inputs.shape)}: give [N, C, H, W] or [N, features], one sample or more")
    if not bool(torch.isfinite(inputs).all()):
        raise ValueError("the inputs hold NaN or infinity")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: give 1 or more")
    if seed is not None and seed < 0:
        raise ValueError(f"seed={seed}: give 0 or more")


def check_images(inputs: Tensor, name: str) -> None:
    """See that inputs are images, for an attack that knows of rows and columns.

    Args:
        inputs: as the model takes them.
        name: of the attack.

    Raises:
        ValueError: they are not ``[N, C, H, W]``.
    """
    if isinstance(inputs, Tensor) and inputs.dim() != 4:
        raise ValueError(
            f"the inputs are {list(inputs.shape)}: {name} needs images [N, C, H, W]; where a model takes vectors, "
            "give forward=lambda model, images: model(images.flatten(1))"
        )


def check_classes(classes: Tensor, places: Tensor, count: int, what: str) -> None:
    """See that a model has the classes.

    Args:
        classes: ``[n]``.
        places: the numbers of their samples, ``[n]``.
        count: of the model's classes.
        what: they are.

    Raises:
        ValueError: it has not.
    """
    outside = (classes < 0) | (classes >= count)
    if bool(outside.any()):
        found, samples = sorted(set(classes[outside].tolist())), places[outside].tolist()
        raise ValueError(
            f"{what} {few(found)} of samples {few(samples)} are out of range: the model has {count} classes"
        )


def classes_of(classes: Classes | int, count: int, what: str) -> Tensor:
    """A class for each sample, ``[N]``.

    Args:
        classes: one each; of a target one for all as well.
        count: N.
        what: they are, "labels" or "target".

    Raises:
        TypeError: they are no whole numbers.
        ValueError: they are not one for each sample.
    """
    found = classes if isinstance(classes, Tensor) else torch.tensor(classes)
    if found.is_floating_point() or found.is_complex() or found.dtype is torch.bool:
        raise TypeError(f"{what} are {found.dtype}: give the numbers of classes, as integers")
    if found.dim() == 0 and what == "target":
        found = found.expand(count)
    if list(found.shape) != [count]:
        raise ValueError(f"{what} are {list(found.shape)} for {count} samples: give one for each, [{count}]")
    return found.long()


def pixels_of(inputs: Tensor, space: PixelSpace, like: Tensor) -> Tensor:
    """Pixels of what a model takes, also beyond the bounds, at least in single precision: small steps vanish in half.

    Args:
        inputs: ``[N, ...]``.
        space: how they map to pixels.
        like: a tensor on the model's device, in its precision.
    """
    kind = torch.promote_types(torch.promote_types(inputs.dtype, like.dtype), torch.float32)
    return space.into(inputs.detach().to(like.device, kind), PixelSpace())


def within(pixels: Tensor, space: PixelSpace) -> Tensor:
    """Pixels within the space's bounds, which rounding may leave a little.

    Args:
        pixels: of the samples.
        space: whose bounds are meant.

    Raises:
        ValueError: they lie outside.
    """
    low, high = space.bounds
    slack = _SLACK * (high - low)
    least, most = (one.item() for one in pixels.aminmax())
    if not low - slack <= least <= most <= high + slack:
        raise ValueError(
            f"the images have pixels from {least:.3g} to {most:.3g}, they should lie in {space.bounds}: give "
            "space=PixelSpace(mean, std) with the mean and std that normalised them"
        )
    return pixels.clamp(low, high)


def radii_of(
    epsilon: Epsilons, pixels: Tensor, bounds: tuple[float, float], norm: Norm = LINF
) -> tuple[Tensor, Tensor]:
    """The radius of each row ``[E * N]``, and the epsilons as they were asked for: ``[]``, ``[E]`` or ``[E, N]``.

    Args:
        epsilon: in pixels.
        pixels: of the samples, ``[N, ...]``.
        bounds: of pixels.
        norm: in which they are radii.

    Raises:
        ValueError: they are negative, none, or more than the whole range of pixels.
    """
    (low, high), count = bounds, len(pixels)
    asked = torch.as_tensor(epsilon, dtype=pixels.dtype, device=pixels.device)
    if asked.numel() == 0 or asked.dim() > 2 or (asked.dim() == 2 and asked.shape[1] != count):
        raise ValueError(f"epsilon is {list(asked.shape)} for {count} samples: give a number, a list, or [E, {count}]")
    longest = norm.length(torch.full_like(pixels[:1], high - low)).item()
    if not 0 <= asked.min().item() <= asked.max().item() <= longest:
        raise ValueError(
            f"epsilon={epsilon}: give 0 to {longest:.3g}, the pixels' whole range in {norm.name}; 8 grey levels of 255 "
            f"are {8 * (high - low) / 255:.3g}"
        )
    each = asked if asked.dim() == 2 else asked.reshape(-1, 1).expand(-1, count)
    return each.reshape(-1), asked


def few(numbers: Sequence[int], most: int = 8) -> str:
    """Numbers, not too many of them, for a message.

    Args:
        numbers: all.
        most: shown.
    """
    shown = ", ".join(map(str, numbers[:most]))
    return f"[{shown}]" if len(numbers) <= most else f"[{shown}, ...] ({len(numbers)} of them)"
