"""Carlini and Wagner's attack: length and success weighed against each other, by a weight searched for each sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.ascending import Classes
from lightning_viz.adversarial.attacked import Attacked, Trail
from lightning_viz.adversarial.norms import L2, spread
from lightning_viz.adversarial.victim import Victim, attacking, margin
from lightning_viz.attribution.batches import progress_bar
from lightning_viz.hooks.observing import Forward
from lightning_viz.pixels import PixelSpace

_INSIDE = 0.999999  # what bounds shrink by, so that pixels on them are the tanh of something (the authors' code)
_PROGRESS = 0.9999  # of what was minimised a tenth of the steps before: above this, nothing is gained
_TENFOLD = 10  # the weight's rise until it suffices


def carlini_wagner(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    target: Classes | int | None = None,
    searches: int = 9,
    steps: int = 1000,
    lr: float = 0.01,
    initial_const: float = 1e-3,
    confidence: float = 0.0,
    abort_early: bool = True,
    space: PixelSpace | None = None,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> Attacked:
    r"""The smallest change in L2, weighed against success (Carlini and Wagner, 2017).

    .. math:: \min_w \; \lVert x(w) - x_0 \rVert_2^2 + c \max\big(0, \kappa - m(x(w))\big), \qquad
        x(w) = \tfrac{a + b}{2} + \tfrac{b - a}{2} \tanh w

    with m the margin by which a wrong class leads (of a target: by which it leads), and a, b the pixels' bounds. Adam
    descends; c is searched for each sample: tenfold until it suffices, then halfway between the largest that did not
    and the smallest that did. Of all images met on the way the nearest that fools the model is kept. Each step of the
    record is a search.

    Args:
        model: any classifier; it runs in eval mode and is left as found.
        inputs: as the model takes them, ``[N, ...]``.
        labels: the classes to lead away from, ``[N]``; what the model says of the samples if omitted.
        target: classes to lead to, one for all or ``[N]``; any wrong one if omitted.
        searches: values of c (9, the paper's code).
        steps: of Adam in each search, at most (1,000; the paper's code makes 10,000).
        lr: of Adam, in units of w (0.01, the paper's code).
        initial_const: the first c (0.001, the paper's code).
        confidence: kappa, by how much the wrong class is to lead, in logits (0, the paper's).
        abort_early: a sample leaves a search, and the batch, when a tenth of the steps gains it nothing.
        space: how the inputs map to pixels; they are pixels in [0, 1] if omitted.
        batch_size: samples shown at a time; all if omitted.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Raises:
        ValueError: inputs, classes or options that make no sense (see `attacking`).
    """
    _check(searches, steps, lr, initial_const, confidence)
    with attacking(
        model, inputs, labels, target=target, space=space, batch_size=batch_size, forward=forward
    ) as victim:
        trail, closest = _begin(victim, confidence)
        rows = closest.isinf().nonzero().flatten()  # those that need not move cannot do better
        const = torch.full_like(closest[rows], initial_const)
        low, high = torch.zeros_like(const), torch.full_like(const, torch.inf)
        way = _Way(steps, lr, confidence, math.ceil(steps / 10) if abort_early else steps)
        for _ in progress_bar("carlini_wagner", items=range(searches if len(rows) else 0), shown=progress):
            enough = _descend(victim, trail, rows, const, closest, way)
            low, high = torch.where(enough, low, const), torch.where(enough, const, high)
            const = torch.where(high.isinf(), const * _TENFOLD, (low + high) / 2)
            trail.step()
        what = "no image on the way fooled the model. Give more steps or searches, or a larger initial_const"
        return trail.attacked(name="carlini_wagner", unmoved=what)


@dataclass(frozen=True)
class _Way:
    """How a search descends.

    Attributes:
        steps: of Adam.
        lr: of Adam.
        confidence: by how much the wrong class is to lead.
        every: steps after which a sample must have gained something.
    """

    steps: int
    lr: float
    confidence: float
    every: int


def _begin(victim: Victim, confidence: float) -> tuple[Trail, Tensor]:
    """The record, and the length of the smallest perturbation known of each sample, ``[N]``."""
    trail, scores = Trail(victim), victim.begin().scores
    trail.see(trail.samples, trail.pixels.clone(), scores)
    trail.asked(trail.samples)
    trail.step()
    fooled = trail.fooled & (victim.loss(margin, scores, trail.samples) >= confidence)
    return trail, torch.where(fooled, 0.0, torch.inf).to(trail.pixels)


def _descend(victim: Victim, trail: Trail, rows: Tensor, const: Tensor, closest: Tensor, way: _Way) -> Tensor:
    """One search: down from the samples under the weights `const`; whether an image fooled the model, ``[n]``."""
    low, high = victim.space.bounds
    middle, half = (low + high) / 2, (high - low) / 2
    free = torch.atanh((trail.original[rows] - middle) / half * _INSIDE)
    adam = torch.optim.Adam([free], way.lr)
    left, before = torch.arange(len(rows), device=rows.device), torch.full_like(const, torch.inf)
    enough = torch.zeros_like(const, dtype=torch.bool)
    for number in range(way.steps):
        shares = free[left].tanh()
        pixels, samples, weights = middle + half * shares, rows[left], const[left]

        def penalty(scores: Tensor, places: Tensor, samples: Tensor = samples, weights: Tensor = weights) -> Tensor:
            lead = victim.loss(margin, scores, samples[places])
            return weights[places] * (way.confidence - lead).clamp_min(0)

        answer = victim(pixels, penalty)
        trail.asked(samples, backwards=1)
        changes = pixels - trail.original[samples]
        lengths = L2.length(changes)
        lead = victim.loss(margin, answer.scores, samples)
        fooled = victim.fooled(answer.scores, samples) & (lead >= way.confidence)
        enough[left] |= fooled
        nearer = fooled & (lengths < closest[samples])
        trail.see(samples[nearer], pixels[nearer], answer.scores[nearer])
        closest[samples[nearer]] = lengths[nearer]

        uphill = 2 * changes + (0 if answer.gradients is None else answer.gradients)
        free.grad = torch.zeros_like(free)
        free.grad[left] = uphill * half * (1 - shares.square())
        adam.step()
        if number % way.every == 0:
            now = lengths.square() + weights * (way.confidence - lead).clamp_min(0)
            gains = now <= _PROGRESS * before[left]
            before[left] = now
            left = left[gains]
            if not len(left):
                break
    return enough


def _check(searches: int, steps: int, lr: float, initial_const: float, confidence: float) -> None:
    if searches < 1 or steps < 1:
        raise ValueError(f"searches={searches}, steps={steps}: give 1 or more")
    if not (lr > 0 and initial_const > 0 and confidence >= 0):
        what = f"lr={lr}, initial_const={initial_const}, confidence={confidence}"
        raise ValueError(f"{what}: give a positive rate, a positive weight, and 0 logits or more")
