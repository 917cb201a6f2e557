"""APGD: projected gradient descent with momentum, whose step size adapts to each sample's progress."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import Epsilon, Labels, shared_arguments
from lightning_viz.adversarial.attacked_model import attacked_model
from lightning_viz.adversarial.gradient_attacks import Ascent, check_steps
from lightning_viz.adversarial.norms import (
    MIN_LENGTH,
    Loss,
    LossName,
    Norm,
    NormName,
    per_sample,
    resolve_loss,
    resolve_norm,
)
from lightning_viz.adversarial.result import AttackRecorder, AttackResult
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["apgd"]

_MOMENTUM = 0.75  # alpha of the paper: share of the new step
_INCREASES = 0.75  # rho of the paper: share of steps that must raise the loss
_REMEDY = "their loss is flat; try loss='margin', or an attack without gradients"


@shared_arguments()
def apgd(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Any,
    labels: Labels | None = None,
    *,
    epsilon: Epsilon = 8 / 255,
    norm: Norm | NormName = "linf",
    steps: int = 100,
    target: Labels | int | None = None,
    loss: Loss | LossName = "cross_entropy",
    stop_on_success: bool = True,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AttackResult:
    r"""APGD: projected gradient steps with momentum and an adaptive step size (Croce and Hein, 2020).

    .. math:: z_{k+1} = \Pi\big(x_k + \eta_k \, n(\nabla_x L)\big), \qquad
        x_{k+1} = \Pi\big(x_k + \alpha (z_{k+1} - x_k) + (1 - \alpha)(x_k - x_{k-1})\big), \qquad \alpha = 0.75

    with n as for `pgd` and L the cross-entropy, or the difference of logits ratio (`dlr`), which does not vanish if the
    model is certain. The step size starts at 2 epsilon. At the paper's checkpoints it is
    halved, and the attack goes on from the best point so far, if fewer than 0.75 of the steps since the last
    checkpoint raised the loss, or if neither the step size nor the best loss changed there. It starts at a random
    point of the ball's surface and returns the point with the highest loss; there is no step size to choose.

    Args:
        steps: number of steps (100, as published in AutoAttack).
        loss: maximized for the label, or minimized for the target; ``"cross_entropy"`` (APGD-CE), ``"dlr"`` (APGD-DLR,
            of three classes or more; with a target in its own form, of four or more), or ``"margin"``.
    """
    check_steps(steps)
    norm = resolve_norm(norm)
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, seed=seed, forward=forward
    ) as attacked:
        ascent = Ascent(AttackRecorder.in_balls(attacked, epsilon, norm), resolve_loss(loss), stop_on_success)
        ascent.evaluate_originals(differentiate=False)
        every_row, generator = ascent.recorder.rows, torch.Generator(attacked.pixels.device).manual_seed(seed)
        bar = progress_bar("apgd", shown=progress, total=steps)
        for _ in adaptive_steps(ascent, every_row[ascent.left(every_row)], norm, steps, generator):
            bar.update()
        bar.close()
        return ascent.recorder.result("apgd", _REMEDY)


def adaptive_steps(
    ascent: Ascent, rows: Tensor, norm: Norm, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """APGD on some rows from a random start, which depends on a row's sample alone: after each step those left.

    Args:
        ascent: records what each step finds.
        rows: indices of the samples that are attacked, ``[n]``.
        norm: in which they may move.
        steps: at most.
        generator: of the start's noise.
    """
    if not len(rows):
        return
    pixels = ascent.recorder.attacked.pixels
    noise = norm.inside(pixels, generator)
    search = _Search(ascent, norm, rows)
    search.start(noise / per_sample(norm.length(noise).clamp_min(MIN_LENGTH), noise))
    checkpoints = _checkpoints(steps)
    for step in range(steps):
        if not len(search.rows):
            break
        search.step(first=step == 0, last=step + 1 == steps)
        if step + 1 in checkpoints:
            search.adapt(step + 1 - max(point for point in checkpoints if point <= step))
        yield search.rows
    search.finish()


class _Search:
    """The rows that are not finished, their best points, and their step sizes.

    Attributes:
        rows: indices of the unfinished ones, ``[n]``; all tensors below are of these.
    """

    def __init__(self, ascent: Ascent, norm: Norm, rows: Tensor) -> None:
        self.rows = rows
        self._ascent, self._recorder, self._norm = ascent, ascent.recorder, norm

    def start(self, surface: Tensor) -> None:
        """Evaluate the random start."""
        pixels = self._recorder.displaced(surface, self.rows)
        self._strides = 2 * self._recorder.radii[self.rows]
        self._increases = torch.zeros_like(self.rows)
        self._halved = torch.ones_like(self.rows, dtype=torch.bool)
        self._previous = pixels
        losses, gradients, scores = self._evaluate(pixels, differentiate=True)
        self._pixels, self._losses, self._gradients = pixels, losses, gradients
        self._best = [pixels, gradients, scores]
        self._best_losses = self._checked_losses = losses
        self._keep(self._ascent.left(self.rows))

    def step(self, *, first: bool, last: bool) -> None:
        """One update of all unfinished rows: one forward and, but for the last, one backward."""
        uphill = per_sample(self._strides, self._pixels) * self._norm.normalize(self._gradients)
        moved = self._recorder.project(self._pixels + uphill, self.rows)
        share = 1.0 if first else _MOMENTUM
        averaged = self._pixels + share * (moved - self._pixels) + (1 - share) * (self._pixels - self._previous)
        pixels = self._recorder.project(averaged, self.rows)
        losses, gradients, scores = self._evaluate(pixels, differentiate=not last)
        self._increases = self._increases + (losses > self._losses)
        self._previous, self._pixels, self._losses, self._gradients = self._pixels, pixels, losses, gradients
        better = losses > self._best_losses
        self._best_losses = torch.where(better, losses, self._best_losses)
        new = (pixels, gradients, scores)
        self._best = [torch.where(_like(better, old), part, old) for part, old in zip(new, self._best, strict=True)]
        self._keep(self._ascent.left(self.rows))

    def adapt(self, count: int) -> None:
        """Halve the step size of rows that make no progress, and restart them from their best point.

        Args:
            count: of steps since the last checkpoint.
        """
        stuck = ~self._halved & (self._best_losses <= self._checked_losses)
        halve = (self._increases <= _INCREASES * count) | stuck
        self._strides = torch.where(halve, self._strides / 2, self._strides)
        current = (self._pixels, self._gradients)
        self._pixels, self._gradients = (
            torch.where(_like(halve, part), best, part) for part, best in zip(current, self._best[:2], strict=True)
        )
        self._halved, self._checked_losses = halve, self._best_losses
        self._increases = torch.zeros_like(self._increases)

    def finish(self) -> None:
        """Record the best points of the rows that were not stopped."""
        if len(self.rows):
            self._recorder.record(self.rows, self._best[0], self._best[2])
            self._recorder.finish_step()

    def _evaluate(self, pixels: Tensor, *, differentiate: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, gradients and scores of new pixels; a model without gradients counts as one with a flat loss."""
        scores, gradients = self._ascent.evaluate(self.rows, pixels, differentiate=differentiate)
        if gradients is None:
            gradients = torch.zeros_like(pixels)
            if differentiate:
                self._recorder.flat[self.rows] = self._ascent.unfinished(self.rows)
        return self._ascent.losses(scores, self.rows), gradients, scores

    def _keep(self, left: Tensor) -> None:
        """Drop the rows that are finished."""
        if len(left) == len(self.rows):
            return
        self.rows = self.rows[left]
        self._best = [part[left] for part in self._best]
        for name in ("pixels", "previous", "losses", "gradients", "strides", "increases", "halved"):
            setattr(self, f"_{name}", getattr(self, f"_{name}")[left])
        self._best_losses, self._checked_losses = self._best_losses[left], self._checked_losses[left]


def _checkpoints(steps: int) -> list[int]:
    r"""Numbers of completed steps after which the step size may be halved; 0 is the first.

    .. math:: p_0 = 0, \quad p_1 = 0.22, \quad p_{j+1} = p_j + \max(p_j - p_{j-1} - 0.03,\ 0.06)

    >>> _checkpoints(100)
    [0, 22, 41, 57, 70, 80, 87, 93, 99]
    """
    points, interval = [0], max(int(0.22 * steps), 1)
    while points[-1] + interval <= steps:
        points.append(points[-1] + interval)
        interval = max(interval - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    return points


def _like(mask: Tensor, tensor: Tensor) -> Tensor:
    """A mask ``[n]`` shaped to go with ``[n, ...]``."""
    return mask.view(-1, *[1] * (tensor.dim() - 1))
