"""Carlini and Wagner's attack: length and success weighed against each other, by a weight searched for each sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attacked_model import AttackedModel, Classes, attacked_model
from lightning_viz.adversarial.norms import L2, margin, spread
from lightning_viz.adversarial.result import AttackRecorder, AttackResult
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["carlini_wagner"]

_INSIDE = 0.999999  # what bounds shrink by, so that pixels on them are the tanh of something (the authors' code)
_PROGRESS = 0.9999  # of what was minimized a tenth of the steps before: above this, nothing is gained
_TENFOLD = 10  # the weight's rise until it suffices
_HALVINGS = 10  # of the way back from the nearest image


def carlini_wagner(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    target: Classes | int | None = None,
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
    r"""The smallest change in L2, weighed against success (Carlini and Wagner, 2017).

    .. math:: \min_w \; \Big\lVert \frac{x(w) - x_0}{b - a} \Big\rVert_2^2 + c \max\big(0, \kappa - m(x(w))\big), \qquad
        x(w) = \tfrac{a + b}{2} + \tfrac{b - a}{2} \tanh w

    with m the margin by which a wrong class leads (of a target: by which it leads), and a, b the pixels' bounds. Adam
    descends; c is searched for each sample: tenfold until it suffices, then halfway between the largest that did not
    and the smallest that did. Of all images met the nearest that fools the model is kept, and at last drawn back
    towards the sample as far as it still does (10 halvings, forward only). Each step of the record is a search, the
    last one the way back.

    Args:
        model: any classifier; it runs in eval mode and is left as found.
        inputs: as the model takes them, ``[N, ...]``.
        labels: the classes to lead away from, ``[N]``; what the model says of the samples if omitted.
        target: classes to lead to, one for all or ``[N]``; any wrong one if omitted.
        binary_search_steps: values of c (9, the paper's code).
        steps: of Adam in each search, at most (1,000; the paper's code makes 10,000).
        lr: of Adam, in units of w (0.01, the paper's code).
        initial_const: the first c (0.001, the paper's code).
        confidence: kappa, by how much the wrong class is to lead, in logits (0, the paper's).
        abort_early: a sample that has not fooled the model in a search leaves it, and the batch, when a tenth of the
            steps gains it nothing.
        pixel_space: how the inputs map to pixels; they are pixels in [0, 1] if omitted.
        batch_size: samples shown at a time; all if omitted.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Raises:
        ValueError: inputs, classes or options that make no sense (see `attacked_model`).
    """
    _check(binary_search_steps, steps, lr, initial_const, confidence)
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as under_attack:
        nearest = _Nearest(under_attack, confidence)
        rows = nearest.lengths.nonzero().flatten()  # the others need not move
        const = torch.full_like(nearest.lengths[rows], initial_const)
        low, high = torch.zeros_like(const), torch.full_like(const, torch.inf)
        every = math.ceil(steps / 10) if abort_early else steps
        for _ in progress_bar("carlini_wagner", items=range(binary_search_steps if len(rows) else 0), shown=progress):
            enough = _descend(nearest, rows, const, steps, lr, every)
            low, high = torch.where(enough, low, const), torch.where(enough, const, high)
            const = torch.where(high.isinf(), const * _TENFOLD, (low + high) / 2)
            nearest.trail.step()
        _draw_back(nearest, rows[nearest.lengths[rows].isfinite()])
        nearest.trail.fooled &= nearest.lengths.isfinite()  # those without the confidence asked for are not there yet
        what = "no image on the way fooled the model so far. Give more steps or searches, or a larger initial_const"
        return nearest.trail.attacked(name="carlini_wagner", unmoved=what)


class _Nearest:
    """Of each sample the nearest image met so far that fools the model.

    Attributes:
        under_attack: the model.
        trail: the record, which stands at these images.
        lengths: of their perturbations, ``[N]``; infinite where there is none.
    """

    def __init__(self, under_attack: AttackedModel, confidence: float) -> None:
        scores = under_attack.begin().scores
        self.under_attack, self.trail, self._confidence = under_attack, AttackRecorder(under_attack), confidence
        rows, pixels = self.trail.samples, self.trail.pixels.clone()
        self.lengths = torch.full_like(pixels.flatten(1)[:, 0], torch.inf)
        self.trail.see(rows, pixels, scores)  # also of those that do not fool it
        self.meet(rows, pixels, scores)
        self.trail.step()

    def lacks(self, scores: Tensor, rows: Tensor) -> Tensor:
        """By how much the wrong class should lead further, ``[n]``, 0 or more."""
        return (self._confidence - self.under_attack.loss(margin, scores, rows)).clamp_min(0)

    def meet(self, rows: Tensor, pixels: Tensor, scores: Tensor, *, backwards: int = 0) -> Tensor:
        """Keep what is nearer; whether each fools the model, ``[n]``."""
        lengths = L2.length(pixels - self.trail.original[rows])
        fooled = self.under_attack.fooled(scores, rows) & (self.lacks(scores, rows) == 0)
        better = fooled & (lengths < self.lengths[rows])
        self.trail.see(rows[better], pixels[better], scores[better])
        self.trail.asked(rows, backwards=backwards)
        self.lengths[rows[better]] = lengths[better]
        return fooled


def _descend(nearest: _Nearest, rows: Tensor, const: Tensor, steps: int, lr: float, every: int) -> Tensor:
    """One search, down from the samples; whether each weight sufficed, ``[n]``.

    Args:
        nearest: what is met.
        rows: samples that are searched for.
        const: their weights, ``[n]``.
        steps: of Adam.
        lr: of Adam.
        every: steps in which a sample that does not fool the model must gain something.
    """
    under_attack, (low, high) = nearest.under_attack, nearest.under_attack.pixel_space.bounds
    middle, half = (low + high) / 2, (high - low) / 2
    original = under_attack.pixels[rows]
    free = torch.atanh((original - middle) / half * _INSIDE)
    adam = torch.optim.Adam([free], lr)
    left, enough = torch.arange(len(rows), device=rows.device), torch.zeros_like(const, dtype=torch.bool)
    least, before = torch.full_like(const, torch.inf), torch.full_like(const, torch.inf)
    for number in range(steps):
        samples, weights, shares = rows[left], const[left], free[left].tanh()
        pixels = middle + half * shares

        def penalty(scores: Tensor, places: Tensor, samples: Tensor = samples, weights: Tensor = weights) -> Tensor:
            return weights[places] * nearest.lacks(scores, samples[places])

        answer = under_attack(pixels, penalty)
        enough[left] |= nearest.meet(samples, pixels, answer.scores, backwards=1)
        changes = (pixels - original[left]) / (high - low)
        loss = changes.square().flatten(1).sum(1) + weights * nearest.lacks(answer.scores, samples)
        uphill = 2 * changes / (high - low) + (0 if answer.gradients is None else answer.gradients)
        free.grad = torch.zeros_like(free)
        free.grad[left] = uphill * half * (1 - shares.square())  # by dx/dw
        adam.step()
        least[left] = torch.minimum(least[left], loss)
        if number % every == 0:
            gains = enough[left] | (least[left] <= _PROGRESS * before[left])
            before[left] = least[left]
            left = left[gains]
            if not len(left):
                break
    return enough


def _draw_back(nearest: _Nearest, rows: Tensor) -> None:
    """Back along the line to the sample, as far as the image still fools the model."""
    if not len(rows):
        return
    original, found = nearest.under_attack.pixels[rows], nearest.trail.pixels[rows]
    low, high = torch.zeros_like(nearest.lengths[rows]), torch.ones_like(nearest.lengths[rows])
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        pixels = original + spread(share, found) * (found - original)
        fooled = nearest.meet(rows, pixels, nearest.under_attack(pixels).scores)
        low, high = torch.where(fooled, low, share), torch.where(fooled, share, high)
    nearest.trail.step()


def _check(binary_search_steps: int, steps: int, lr: float, initial_const: float, confidence: float) -> None:
    if binary_search_steps < 1 or steps < 1:
        raise InvalidArgumentError(f"binary_search_steps={binary_search_steps}, steps={steps}: give 1 or more")
    if not (lr > 0 and initial_const > 0 and confidence >= 0):
        what = f"lr={lr}, initial_const={initial_const}, confidence={confidence}"
        raise InvalidArgumentError(f"{what}: give a positive rate, a positive weight, and 0 logits or more")
