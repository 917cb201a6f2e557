"""Carlini and Wagner's attack: the smallest L2 perturbation, by a penalty whose weight is searched for each sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import Labels, shared_arguments
from lightning_viz.adversarial.attacked_model import AttackedModel, attacked_model
from lightning_viz.adversarial.norms import L2, margin, per_sample
from lightning_viz.adversarial.result import AttackRecorder, AttackResult, overwrite_rows
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["carlini_wagner"]

_SHRINKAGE = 0.999999  # of the bounds, so that pixels on them have a finite arctanh (the authors' code)
_PROGRESS = 0.9999  # a search goes on while the objective falls below this share of its last checked value
_CONST_FACTOR = 10  # by which the weight grows until it suffices
_HALVINGS = 10  # of the line search back to the sample


@shared_arguments()
def carlini_wagner(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Tensor,
    labels: Labels | None = None,
    *,
    target: Labels | int | None = None,
    binary_search_steps: int = 9,
    steps: int = 1000,
    lr: float = 0.01,
    initial_const: float = 1e-3,
    confidence: float = 0.0,
    abort_early: bool = True,
    pixel_space: PixelSpace | None = None,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AttackResult:
    r"""Carlini and Wagner: the smallest L2 perturbation, penalized if it does not fool the model (2017).

    .. math:: \min_w \; \Big\lVert \frac{x(w) - x_0}{b - a} \Big\rVert_2^2 + c \max\big(0, \kappa - m(x(w))\big), \qquad
        x(w) = \tfrac{a + b}{2} + \tfrac{b - a}{2} \tanh w

    with m the margin by which a wrong class (or the target) leads, and a, b the pixels' bounds. Adam minimizes; c is
    searched for each sample: it grows tenfold until it suffices, then by bisection. The nearest adversarial image met
    on the way is kept, and at the end moved back towards the sample as far as it still fools the model (10 halvings,
    forward only). Each step of the record is a search, the last one this line search.

    Args:
        binary_search_steps: number of values of c (9, as in the authors' code).
        steps: maximum number of Adam steps per search (1,000; the authors' code has 10,000).
        lr: of Adam, in units of w (0.01, as in the authors' code).
        initial_const: the first c (0.001, as in the authors' code).
        confidence: kappa, by how much the wrong class must lead, in logits (0, as in the paper).
        abort_early: stop a search, for a sample that has not been fooled in it, when a tenth of the steps brings no
            progress.
    """
    _check(binary_search_steps, steps, lr, initial_const, confidence)
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as attacked:
        nearest = _Nearest(attacked, confidence)
        rows = nearest.lengths.nonzero().flatten()  # the others are misclassified already
        const = torch.full_like(nearest.lengths[rows], initial_const)
        low, high = torch.zeros_like(const), torch.full_like(const, torch.inf)
        check_interval = math.ceil(steps / 10) if abort_early else steps
        for _ in progress_bar("carlini_wagner", items=range(binary_search_steps if len(rows) else 0), shown=progress):
            success = _descend(nearest, rows, const, steps, lr, check_interval)
            low, high = torch.where(success, low, const), torch.where(success, const, high)
            const = torch.where(high.isinf(), const * _CONST_FACTOR, (low + high) / 2)
            nearest.recorder.finish_step()
        _draw_back(nearest, rows[nearest.lengths[rows].isfinite()])
        nearest.recorder.fooled &= nearest.lengths.isfinite()  # less than the confidence asked for is no success
        remedy = "no image fooled the model by the confidence; try more steps or searches, or a larger initial_const"
        return nearest.recorder.result("carlini_wagner", remedy)


class _Nearest:
    """For each sample the nearest adversarial image so far.

    Attributes:
        attacked: the model.
        recorder: holds these images as the current pixels.
        lengths: L2 norms of their perturbations, ``[N]``; infinite if there is none.
    """

    def __init__(self, attacked: AttackedModel, confidence: float) -> None:
        scores = attacked.evaluate_originals().scores
        self.attacked, self.recorder, self._confidence = attacked, AttackRecorder(attacked), confidence
        rows, pixels = self.recorder.samples, self.recorder.pixels.clone()
        self.lengths = torch.full_like(pixels.flatten(1)[:, 0], torch.inf)
        self.recorder.record(rows, pixels, scores)  # also of those that do not fool the model
        self.update(rows, pixels, scores)
        self.recorder.finish_step()

    def shortfall(self, scores: Tensor, rows: Tensor) -> Tensor:
        """By how much the margin of the wrong class is below the confidence, ``[n]``, 0 or more."""
        return (self._confidence - self.attacked.loss(margin, scores, rows)).clamp_min(0)

    def update(self, rows: Tensor, pixels: Tensor, scores: Tensor, *, backwards: int = 0) -> Tensor:
        """Keep the images that are nearer than before; returns which of all fool the model, ``[n]``."""
        lengths = L2.length(pixels - self.recorder.original[rows])
        fooled = self.attacked.fooled(scores, rows) & (self.shortfall(scores, rows) == 0)
        better = fooled & (lengths < self.lengths[rows])
        self.recorder.record(rows, pixels, scores, better)
        self.recorder.count(rows, backwards=backwards)
        overwrite_rows(self.lengths, rows, lengths, better)
        return fooled


def _descend(nearest: _Nearest, rows: Tensor, const: Tensor, steps: int, lr: float, check_interval: int) -> Tensor:
    """One search from the unmodified samples of rows ``[n]`` with weights c ``[n]``, whose images `nearest` collects.

    A sample without success or progress after `check_interval` steps is given up. Returns for which samples the weight
    sufficed, ``[n]``.
    """
    attacked, (low, high) = nearest.attacked, nearest.attacked.pixel_space.bounds
    middle, half = (low + high) / 2, (high - low) / 2
    original = attacked.pixels[rows]
    variables = torch.atanh((original - middle) / half * _SHRINKAGE)
    adam = torch.optim.Adam([variables], lr)
    active, success = torch.arange(len(rows), device=rows.device), torch.zeros_like(const, dtype=torch.bool)
    lowest, checked = torch.full_like(const, torch.inf), torch.full_like(const, torch.inf)
    for number in range(steps):
        samples, weights, tanh = rows[active], const[active], variables[active].tanh()
        pixels = middle + half * tanh

        def penalty(scores: Tensor, positions: Tensor, samples: Tensor = samples, weights: Tensor = weights) -> Tensor:
            return weights[positions] * nearest.shortfall(scores, samples[positions])

        evaluation = attacked(pixels, penalty)
        success[active] |= nearest.update(samples, pixels, evaluation.scores, backwards=1)
        changes = (pixels - original[active]) / (high - low)
        loss = changes.square().flatten(1).sum(1) + weights * nearest.shortfall(evaluation.scores, samples)
        gradient = 2 * changes / (high - low) + (0 if evaluation.gradients is None else evaluation.gradients)
        variables.grad = torch.zeros_like(variables)
        variables.grad[active] = gradient * half * (1 - tanh.square())  # times dx/dw
        adam.step()
        lowest[active] = torch.minimum(lowest[active], loss)
        if number % check_interval == 0:
            promising = success[active] | (lowest[active] <= _PROGRESS * checked[active])
            checked[active] = lowest[active]
            active = active[promising]
            if not len(active):
                break
    return success


def _draw_back(nearest: _Nearest, rows: Tensor) -> None:
    """Line search from the nearest images towards the samples, as far as they still fool the model."""
    if not len(rows):
        return
    original, adversarial = nearest.attacked.pixels[rows], nearest.recorder.pixels[rows]
    low, high = torch.zeros_like(nearest.lengths[rows]), torch.ones_like(nearest.lengths[rows])
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        pixels = original + per_sample(share, adversarial) * (adversarial - original)
        fooled = nearest.update(rows, pixels, nearest.attacked(pixels).scores)
        low, high = torch.where(fooled, low, share), torch.where(fooled, share, high)
    nearest.recorder.finish_step()


def _check(binary_search_steps: int, steps: int, lr: float, initial_const: float, confidence: float) -> None:
    if binary_search_steps < 1 or steps < 1:
        raise InvalidArgumentError(f"binary_search_steps={binary_search_steps}, steps={steps} must be at least 1")
    if not (lr > 0 and initial_const > 0 and confidence >= 0):
        raise InvalidArgumentError(
            f"lr={lr}, initial_const={initial_const}, confidence={confidence}: lr and initial_const must be positive, "
            "confidence at least 0"
        )
