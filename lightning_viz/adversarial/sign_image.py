"""The terms of FGSM's sum: the sample, the sign of its gradient as an image, and what both make together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import Labels, shared_arguments
from lightning_viz.adversarial.attacked_model import attacked_model
from lightning_viz.adversarial.gradient_attacks import Ascent
from lightning_viz.adversarial.norms import LINF, Loss, LossName, per_sample, resolve_loss
from lightning_viz.adversarial.result import AttackRecorder, AttackResult
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_display

__all__ = ["FgsmTerms", "fgsm_terms"]

_REMEDY = "their loss is flat; try loss='margin'"


@html_display("classes", "confidences", images=("images",))
@dataclass(frozen=True)
class FgsmTerms:
    """What FGSM adds up, and what the model says of each term.

    Attributes:
        result: of FGSM: the samples, the sums, and the predictions for both.
        signs: of the loss gradient, -1, 0 or 1, ``[N, ...]``.
        images: the signs as pixels, from the lower to the upper bound, ``[N, ...]``.
        classes: predicted for these images, ``[N]``; -1 if the scores are not finite.
        confidences: softmax probability of that class, ``[N]``.
    """

    result: AttackResult
    signs: Tensor
    images: Tensor
    classes: Tensor
    confidences: Tensor


@shared_arguments()
def fgsm_terms(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Any,
    labels: Labels | None = None,
    *,
    epsilon: float = 8 / 255,
    target: Labels | int | None = None,
    loss: Loss | LossName = "cross_entropy",
    pixel_space: PixelSpace | None = None,
    batch_size: int | None = None,
    forward: Forward | None = None,
) -> FgsmTerms:
    r"""FGSM's terms: sample, sign of the gradient, and their sum, each with its class (Goodfellow et al., 2015).

    .. math:: x' = x + \epsilon \, s, \qquad s = \operatorname{sign} \nabla_x \operatorname{CE}(f(x), y)

    clamped to the pixels' bounds. As an image s runs from the lower bound for -1 to the upper bound for 1, with the
    middle where the gradient is zero: to the model it is an image like others, mostly of another class, of which it is
    not certain. Three forwards and one backward.

    Args:
        epsilon: change of every pixel, in pixels (8/255, customary for photographs).
    """
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as attacked:
        recorder = AttackRecorder.in_balls(attacked, float(epsilon), LINF)
        ascent, (low, high) = Ascent(recorder, resolve_loss(loss), False), attacked.pixel_space.bounds
        gradients = ascent.evaluate_originals(differentiate=True)
        signs = torch.zeros_like(attacked.pixels) if gradients is None else gradients.sign()
        images = low + (high - low) * (signs + 1) / 2
        scores = attacked(images, samples=recorder.samples).scores
        recorder.count(recorder.rows)
        pixels = attacked.pixels + per_sample(recorder.radii, signs) * signs
        ascent.evaluate(recorder.rows, pixels.clamp(low, high), differentiate=False)
        confidences, classes = scores.softmax(1).max(1)
        classes = classes.where(scores.isfinite().all(1), -1)
        return FgsmTerms(recorder.result("fgsm_terms", _REMEDY), signs, images, classes, confidences)
