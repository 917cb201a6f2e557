"""What helps against an attack: the input changed before the model sees it, and accuracy against epsilon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter
from torch import Tensor, nn

from lightning_viz.adversarial.attacked_model import (
    attacked_model,
    format_indices,
    suppress_attack_warnings,
    warn_training_mode,
)
from lightning_viz.adversarial.result import Attack, AttackResult
from lightning_viz.errors import AttackWarning, InvalidArgumentError, warn_user
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.observe import Forward
from lightning_viz.robustness.corruptions.digital import through_jpeg

__all__ = [
    "DEFENSES",
    "Defended",
    "EpsilonCurve",
    "bit_depth",
    "defenses",
    "epsilon_curve",
    "gaussian_smoothing",
    "median_smoothing",
    "noise",
    "re_encoding",
]

Images = NDArray[np.float64]
"""Pixels in [0, 1], ``[N, C, H, W]``."""

Defense = Callable[[Images], Images]


def noise(deviation: float, *, seed: int = 0) -> Defense:
    """Gaussian noise on every pixel.

    Args:
        deviation: in pixels.
        seed: of the noise.
    """
    return lambda images: images + deviation * np.random.default_rng(seed).standard_normal(images.shape)


def gaussian_smoothing(deviation: float) -> Defense:
    """Smoothed with a Gaussian.

    Args:
        deviation: in pixels' widths.
    """
    return lambda images: np.asarray(gaussian_filter(images, deviation, axes=(2, 3)))


def median_smoothing(size: int) -> Defense:
    """Every pixel the median of those around it (Xu et al., 2018).

    Args:
        size: side of the square around it.
    """
    return lambda images: np.asarray(median_filter(images, size, axes=(2, 3)))


def re_encoding(quality: int) -> Defense:
    """Written as JPEG and read again (Dziugaite et al., 2016).

    Args:
        quality: 1 to 95.
    """
    return lambda images: np.stack([through_jpeg(image, quality) for image in images])


def bit_depth(bits: int) -> Defense:
    """Fewer gray levels (Xu et al., 2018).

    Args:
        bits: of each channel.
    """
    return lambda images: np.rint(images * (2**bits - 1)) / (2**bits - 1)


DEFENSES: Mapping[str, Defense] = MappingProxyType(
    {
        "none": lambda images: images,
        "noise 0.1": noise(0.1),
        "Gaussian 1 px": gaussian_smoothing(1.0),
        "median 3 x 3": median_smoothing(3),
        "JPEG 75": re_encoding(75),
        "JPEG 25": re_encoding(25),
        "3 bits": bit_depth(3),
    }
)
"""What can be done to an input, by name."""


@dataclass(frozen=True)
class Defended:
    """How often a model is right when its inputs pass through a defense first.

    Attributes:
        names: of the defenses, D of them.
        clean: share of the samples that it has right, ``[D]``.
        attacked: the same of the attacked samples, ``[D]``, or ``[D, E]`` for E epsilons.
    """

    names: tuple[str, ...]
    clean: Tensor
    attacked: Tensor


def defenses(
    model: nn.Module,
    attacked: AttackResult,
    *,
    ways: Mapping[str, Defense] = DEFENSES,
    batch_size: int | None = None,
    forward: Forward | None = None,
) -> Defended:
    """Accuracy when the input is changed before the model sees it, of samples and of their attacked twins.

    The attack did not know of the defense: one that does finds its way around most of them (Athalye et al., 2018).

    Args:
        model: the classifier that was attacked, or another; left as found.
        attacked: images, and what an attack made of them.
        ways: defenses by name, functions from pixels in [0, 1] to pixels.
        batch_size: images shown at a time; N if omitted.
        forward: how to run the model, ``forward(model, images)``, if not ``model(images)``.

    Raises:
        ValueError: the samples are no images, or a defense changes their shape.
    """
    original, labels = attacked.original, attacked.labels
    if original.dim() != 4:
        raise InvalidArgumentError(
            f"the samples are {list(original.shape)}: defenses smooth and encode images, [N, C, H, W]"
        )
    pixel_space, twins = attacked.pixel_space, attacked.pixels.reshape(-1, *original.shape[1:])
    everything = torch.cat([original, twins])
    low, high = pixel_space.bounds
    pixels = ((everything - low) / (high - low)).clamp(0, 1).double().cpu().numpy()
    right = []
    inputs, size = pixel_space.to_inputs(original), batch_size or len(original)
    with attacked_model(
        model, inputs, labels, pixel_space=pixel_space, batch_size=size, forward=forward
    ) as under_attack:
        under_attack.begin()
        for name, way in ways.items():
            shown = np.clip(way(pixels), 0, 1)
            if shown.shape != pixels.shape:
                what = f"the defense {name!r} makes {list(shown.shape)} of {list(pixels.shape)}"
                raise InvalidArgumentError(f"{what}: keep the shape")
            images = low + (high - low) * torch.from_numpy(shown).to(everything)
            right.append(under_attack(images).scores.argmax(1).view(-1, len(labels)) == under_attack.labels)
    share = torch.stack(right).double().mean(2).cpu()  # [D, 1 + E]
    epsilons = attacked.pixels.shape[: attacked.pixels.dim() - 4]
    return Defended(tuple(ways), share[:, 0], share[:, 1:].reshape(-1, *epsilons))


@dataclass(frozen=True)
class EpsilonCurve:
    """How often a model is right when inputs may move by epsilon.

    Attributes:
        epsilons: in pixels, rising, ``[E]``.
        accuracy: share of the samples that the attack could not turn within epsilon, ``[E]``.
        fooled_at: for each sample the smallest of the epsilons that sufficed ``[N]``; 0 where the model had it wrong
            already, infinite where none did.
    """

    epsilons: Tensor
    accuracy: Tensor
    fooled_at: Tensor


def epsilon_curve(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    epsilons: Sequence[float],
    *,
    attack: Attack,
    progress: bool = True,
) -> EpsilonCurve:
    """Accuracy under attack against epsilon.

    A sample that was turned within an epsilon is turned within all larger ones: it is not attacked again, and the
    curve never rises.

    Args:
        model: any classifier.
        inputs: samples as it takes them, ``[N, ...]``.
        labels: their classes, ``[N]``.
        epsilons: in pixels; 0 is the accuracy without an attack.
        attack: called as ``attack(model, inputs, labels, epsilon=epsilon)``: ``partial(pgd, pixel_space=space)``, say.
        progress: show a bar when it takes long.

    Raises:
        ValueError: no epsilon above 0, or negative ones.
    """
    rising = sorted(set(map(float, epsilons)))
    if not rising or rising[0] < 0 or rising[-1] == 0:
        raise InvalidArgumentError(
            f"epsilons={list(epsilons)}: give one or more above 0, and 0 for the accuracy without an attack"
        )
    if len(labels) != len(inputs):
        raise InvalidArgumentError(f"{len(labels)} labels for {len(inputs)} samples: give one each")
    warn_training_mode(model)
    fooled_at, left = torch.full((len(inputs),), torch.inf), torch.arange(len(inputs))
    labels = torch.as_tensor(labels)
    still = torch.ones(len(inputs), dtype=torch.bool)
    with evaluation_mode(model), suppress_attack_warnings():
        for epsilon in progress_bar("epsilon curve", items=[one for one in rising if one > 0], shown=progress):
            if not len(left):
                break
            found = attack(model, inputs[left.to(inputs.device)], labels[left.to(labels.device)], epsilon=epsilon)
            fooled, initially_misclassified = found.fooled.cpu(), found.initially_misclassified.cpu()
            fooled_at[left[fooled]] = torch.where(initially_misclassified[fooled], 0.0, epsilon)
            still[left] &= ~fooled & (found.record.linf[-1] == 0).cpu()
            left = left[~fooled]
    if bool(still.any()):
        what = f"at no epsilon has the attack moved samples {format_indices(still.nonzero().flatten().tolist())}"
        warn_user(f"{what}: they count as right, which another attack may not confirm", AttackWarning)
    accuracy = [(fooled_at > epsilon).double().mean() for epsilon in rising]
    return EpsilonCurve(torch.tensor(rising, dtype=torch.float64), torch.stack(accuracy), fooled_at)
