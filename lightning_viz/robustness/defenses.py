"""Defenses: accuracy with preprocessed inputs, and accuracy as a function of epsilon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import shared_arguments
from lightning_viz.adversarial.attacked_model import attacked_model, suppress_attack_warnings
from lightning_viz.adversarial.result import Attack, AttackResult
from lightning_viz.errors import AttackWarning, InvalidArgumentError, format_indices, warn_user
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import evaluation_mode, warn_if_training
from lightning_viz.hooks.observe import Forward
from lightning_viz.rich_display import html_display
from lightning_viz.robustness.corruption_kinds import compress_jpeg

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

PixelBatch = NDArray[np.float64]
"""Pixels in [0, 1], ``[N, C, H, W]``."""

Defense = Callable[[PixelBatch], PixelBatch]


def noise(deviation: float, *, seed: int = 0) -> Defense:
    """Gaussian noise: adds noise to every pixel.

    Args:
        deviation: standard deviation, in units of pixel values.
        seed: of the noise.
    """
    return lambda images: images + deviation * np.random.default_rng(seed).standard_normal(images.shape)


def gaussian_smoothing(deviation: float) -> Defense:
    """Gaussian smoothing: convolves with a Gaussian.

    Args:
        deviation: standard deviation, in pixel widths.
    """
    return lambda images: np.asarray(gaussian_filter(images, deviation, axes=(2, 3)))


def median_smoothing(size: int) -> Defense:
    """Median smoothing: replaces every pixel by the median of its neighborhood (Xu et al., 2018).

    Args:
        size: side of the square neighborhood.
    """
    return lambda images: np.asarray(median_filter(images, size, axes=(2, 3)))


def re_encoding(quality: int) -> Defense:
    """JPEG compression: encodes and decodes the image (Dziugaite et al., 2016).

    Args:
        quality: 1 to 95.
    """
    return lambda images: np.stack([compress_jpeg(image, quality) for image in images])


def bit_depth(bits: int) -> Defense:
    """Bit-depth reduction: rounds to fewer gray levels (Xu et al., 2018).

    Args:
        bits: per channel.
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
"""The default defenses, by name."""


@html_display()
@html_display()
@dataclass(frozen=True)
class Defended:
    """Accuracy of a model whose inputs pass through a defense first.

    Attributes:
        names: of the defenses, D of them.
        clean: accuracy on the samples, ``[D]``.
        attacked: accuracy on the adversarial examples, ``[D]``, or ``[D, E]`` for E epsilons.
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
    """Defenses: accuracy on samples and adversarial examples that are preprocessed before the model.

    The attack did not account for the defense; adaptive attacks break most of them (Athalye et al., 2018).

    Args:
        model: the attacked classifier, or another; its state is restored.
        attacked: result of an attack on images.
        ways: defenses by name, functions from pixels in [0, 1] to pixels.
        batch_size: images per forward pass; N if omitted.
        forward: calls the model, ``forward(model, images)``; ``model(images)`` if omitted.

    Raises:
        InvalidArgumentError: the samples are no images, or a defense changes their shape.
    """
    original, labels = attacked.original, attacked.labels
    if original.dim() != 4:
        raise InvalidArgumentError(
            f"the samples are {list(original.shape)}, but defenses smooth and encode images; pass [N, C, H, W]"
        )
    pixel_space, (low, high) = attacked.pixel_space, attacked.pixel_space.bounds
    images = torch.cat([original, attacked.pixels.reshape(-1, *original.shape[1:])])
    pixels = ((images - low) / (high - low)).clamp(0, 1).double().cpu().numpy()
    correct = []
    inputs, size = pixel_space.to_inputs(original), batch_size or len(original)
    with attacked_model(model, inputs, labels, pixel_space=pixel_space, batch_size=size, forward=forward) as classifier:
        classifier.evaluate_originals()
        for name, defense in ways.items():
            defended = np.clip(defense(pixels), 0, 1)
            if defended.shape != pixels.shape:
                raise InvalidArgumentError(
                    f"the defense {name!r} makes {list(defended.shape)} of {list(pixels.shape)}; it must keep the shape"
                )
            scores = classifier(low + (high - low) * torch.from_numpy(defended).to(images)).scores
            correct.append(scores.argmax(1).view(-1, len(labels)) == classifier.labels)
    accuracy = torch.stack(correct).double().mean(2).cpu()  # [D, 1 + E]
    epsilons = attacked.pixels.shape[: attacked.pixels.dim() - 4]
    return Defended(tuple(ways), accuracy[:, 0], accuracy[:, 1:].reshape(-1, *epsilons))


@html_display()
@html_display()
@dataclass(frozen=True)
class EpsilonCurve:
    """Accuracy under attack, as a function of epsilon.

    Attributes:
        epsilons: in pixels, ascending, ``[E]``.
        accuracy: fraction of the samples that the attack does not fool within epsilon, ``[E]``.
        fooled_at: the smallest of the epsilons that fools the model on each sample, ``[N]``; 0 if it was misclassified
            already, infinite if none does.
    """

    epsilons: Tensor
    accuracy: Tensor
    fooled_at: Tensor


@shared_arguments()
def epsilon_curve(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    epsilons: Sequence[float],
    *,
    attack: Attack,
    progress: bool = True,
) -> EpsilonCurve:
    """Epsilon curve: accuracy under attack as a function of epsilon.

    A sample that is fooled within an epsilon counts as fooled within all larger ones: it is not attacked again, and the
    curve never rises.

    Args:
        labels: true classes, ``[N]``.
        epsilons: in pixels; 0 is the accuracy without an attack.
        attack: called as ``attack(model, inputs, labels, epsilon=epsilon)``, e.g. ``partial(pgd, pixel_space=space)``.

    Raises:
        InvalidArgumentError: no epsilon above 0, a negative one, or not one label per sample.
    """
    ascending = sorted(set(map(float, epsilons)))
    if not ascending or ascending[0] < 0 or ascending[-1] == 0:
        raise InvalidArgumentError(f"epsilons={list(epsilons)}: pass one or more above 0, and 0 for the clean accuracy")
    if len(labels) != len(inputs):
        raise InvalidArgumentError(f"{len(labels)} labels for {len(inputs)} samples; pass one each")
    warn_if_training(model, AttackWarning)
    fooled_at, rows = torch.full((len(inputs),), torch.inf), torch.arange(len(inputs))
    labels = torch.as_tensor(labels)
    unchanged = torch.ones(len(inputs), dtype=torch.bool)
    positive = [epsilon for epsilon in ascending if epsilon > 0]
    with evaluation_mode(model), suppress_attack_warnings():
        for epsilon in progress_bar("epsilon curve", items=positive, shown=progress):
            if not len(rows):
                break
            result = attack(model, inputs[rows.to(inputs.device)], labels[rows.to(labels.device)], epsilon=epsilon)
            fooled, misclassified = result.fooled.cpu(), result.initially_misclassified.cpu()
            fooled_at[rows[fooled]] = torch.where(misclassified[fooled], 0.0, epsilon)
            unchanged[rows] &= ~fooled & (result.record.linf[-1] == 0).cpu()
            rows = rows[~fooled]
    if bool(unchanged.any()):
        samples = format_indices(unchanged.nonzero().flatten().tolist())
        warn_user(
            f"the attack left unchanged samples {samples} at every epsilon; they count as correct, so confirm the "
            "curve with another attack",
            AttackWarning,
        )
    accuracy = [(fooled_at > epsilon).double().mean() for epsilon in ascending]
    return EpsilonCurve(torch.tensor(ascending, dtype=torch.float64), torch.stack(accuracy), fooled_at)
