"""APGD: projected gradient descent with momentum, whose step size adapts to each sample's progress."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attacked_model import (
    AttackedModel,
    Epsilon,
    Labels,
    attacked_model,
    epsilon_radii,
)
from lightning_viz.adversarial.norms import (
    MIN_LENGTH,
    Loss,
    LossName,
    Norm,
    NormName,
    of_rows,
    per_sample,
    resolve_loss,
    resolve_norm,
)
from lightning_viz.adversarial.result import AttackRecorder, AttackResult
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["apgd"]

_MOMENTUM = 0.75  # alpha of the paper: share of the new step
_INCREASES = 0.75  # rho of the paper: share of steps that must raise the loss
_REMEDY = "their loss is flat; try loss='margin', or an attack without gradients"


def apgd(
    model: nn.Module,
    inputs: Tensor,
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

    with n as for `pgd` and L the cross-entropy. The step size starts at 2 epsilon. At the paper's checkpoints it is
    halved, and the attack goes on from the best point so far, if fewer than 0.75 of the steps since the last
    checkpoint raised the loss, or if neither the step size nor the best loss changed there. It starts at a random
    point of the ball's surface and returns the point with the highest loss; there is no step size to choose.

    Args:
        model: classifier; it runs in eval mode, and its state is restored.
        inputs: as the model takes them, ``[N, ...]``.
        labels: true classes, ``[N]``; the model's predictions if omitted.
        epsilon: radius of the ball, in pixels (8/255, customary for photographs); several give results ``[E, ...]``.
        norm: of the ball and the steps, ``"linf"`` or ``"l2"``.
        steps: number of steps (100, as published in AutoAttack).
        target: target class, one for all or ``[N]``; untargeted if omitted.
        loss: maximized for the label, or minimized for the target (cross-entropy: APGD-CE).
        stop_on_success: stop a sample, and remove it from the batch, as soon as it is fooled.
        pixel_space: maps inputs to pixels; inputs are pixels in [0, 1] if omitted.
        seed: of the random start and of what the model itself draws.
        batch_size: samples per forward pass; N if omitted.
        progress: show a progress bar after a few seconds.
        forward: calls the model, ``forward(model, inputs)``; ``model(inputs)`` if omitted.

    Raises:
        InvalidArgumentError: inputs, classes or options are invalid (see `attacked_model`).
    """
    if steps < 1:
        raise InvalidArgumentError(f"steps={steps} must be at least 1")
    norm = resolve_norm(norm)
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, seed=seed, forward=forward
    ) as attacked:
        radii, epsilons = epsilon_radii(epsilon, attacked.pixels, attacked.pixel_space.bounds, norm)
        generator = torch.Generator(attacked.pixels.device).manual_seed(seed)
        noise = norm.inside(attacked.pixels, generator)
        surface = noise / per_sample(norm.length(noise).clamp_min(MIN_LENGTH), noise)
        search = _Search(attacked, radii, norm, resolve_loss(loss), stop_on_success)
        search.start(surface)
        checkpoints = _checkpoints(steps)
        bar = progress_bar("apgd", shown=progress, total=steps)
        for step in range(steps):
            if not len(search.rows):
                break
            search.step(first=step == 0, last=step + 1 == steps)
            if step + 1 in checkpoints:
                search.adapt(step + 1 - max(point for point in checkpoints if point <= step))
            bar.update()
        bar.close()
        search.finish()
        return search.recorder.result(epsilons, name="apgd", lead=epsilons.dim() > 0, remedy=_REMEDY)


class _Search:
    """The rows that are not finished, their best points, and their step sizes.

    Attributes:
        recorder: current state of all rows.
        rows: indices of the unfinished ones, ``[n]``; all tensors below are of these.
    """

    def __init__(self, attacked: AttackedModel, radii: Tensor, norm: Norm, loss: Loss, stop_on_success: bool) -> None:
        self.recorder = AttackRecorder(attacked, len(radii) // len(attacked.pixels))
        self.rows = torch.arange(len(radii), device=radii.device)
        self._attacked, self._radii, self._norm, self._loss = attacked, radii, norm, loss
        self._stop_on_success = stop_on_success

    def start(self, surface: Tensor) -> None:
        """Validate the samples, and evaluate the random start of those that are not fooled."""
        self.recorder.record_originals(self._attacked.evaluate_originals().scores)
        self.rows = self.rows[self._unfinished()]
        offset = surface[self.recorder.samples[self.rows]]
        if not len(self.rows):
            return
        pixels = self._project(self.recorder.original[self.rows] + per_sample(self._radii[self.rows], offset) * offset)
        self._strides = 2 * self._radii[self.rows]
        self._increases = torch.zeros_like(self.rows)
        self._halved = torch.ones_like(self.rows, dtype=torch.bool)
        self._previous = pixels
        losses, gradients, scores = self._evaluate(pixels, differentiate=True)
        self._pixels, self._losses, self._gradients = pixels, losses, gradients
        self._best = [pixels, gradients, scores]
        self._best_losses = self._checked_losses = losses
        self._keep(self._unfinished()[self.rows])

    def step(self, *, first: bool, last: bool) -> None:
        """One update of all unfinished rows: one forward and, but for the last, one backward."""
        uphill = per_sample(self._strides, self._pixels) * self._norm.normalize(self._gradients)
        moved = self._project(self._pixels + uphill)
        share = 1.0 if first else _MOMENTUM
        pixels = self._project(
            self._pixels + share * (moved - self._pixels) + (1 - share) * (self._pixels - self._previous)
        )
        losses, gradients, scores = self._evaluate(pixels, differentiate=not last)
        self._increases = self._increases + (losses > self._losses)
        self._previous, self._pixels, self._losses, self._gradients = self._pixels, pixels, losses, gradients
        better = losses > self._best_losses
        self._best_losses = torch.where(better, losses, self._best_losses)
        new = (pixels, gradients, scores)
        self._best = [torch.where(_like(better, old), part, old) for part, old in zip(new, self._best, strict=True)]
        self._keep(self._unfinished()[self.rows])

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
            self.recorder.record(self.rows, self._best[0], self._best[2])
            self.recorder.finish_step()

    def _evaluate(self, pixels: Tensor, *, differentiate: bool) -> tuple[Tensor, Tensor, Tensor]:
        samples = self.recorder.samples[self.rows]

        def objective(scores: Tensor, positions: Tensor) -> Tensor | None:
            values = self._attacked.loss(self._loss, scores, samples[positions])
            if not self._stop_on_success:
                return values
            fooled = self._attacked.fooled(scores, samples[positions])
            return None if bool(fooled.all()) else torch.where(fooled, 0, values)

        evaluation = self._attacked(pixels, objective if differentiate else None)
        gradients = torch.zeros_like(pixels) if evaluation.gradients is None else evaluation.gradients
        self.recorder.record(self.rows, pixels, evaluation.scores)
        self.recorder.count(self.rows)
        if differentiate:
            unfinished = self._unfinished()[self.rows]
            self.recorder.count(self.rows[unfinished], queries=0, backwards=1)
            self.recorder.flat[self.rows] = unfinished & ~gradients.flatten(1).any(1)
        self.recorder.finish_step()
        return self._attacked.loss(self._loss, evaluation.scores, samples), gradients, evaluation.scores

    def _unfinished(self) -> Tensor:
        """Mask ``[R]`` of the rows that the attack goes on with."""
        fooled = self.recorder.fooled
        return ~fooled if self._stop_on_success else torch.ones_like(fooled)

    def _keep(self, left: Tensor) -> None:
        """Drop the rows that are finished."""
        if bool(left.all()):
            return
        self.rows = self.rows[left]
        self._best = [part[left] for part in self._best]
        for name in ("pixels", "previous", "losses", "gradients", "strides", "increases", "halved"):
            setattr(self, f"_{name}", getattr(self, f"_{name}")[left])
        self._best_losses, self._checked_losses = self._best_losses[left], self._checked_losses[left]

    def _project(self, pixels: Tensor) -> Tensor:
        samples = of_rows(self.recorder.original, self.rows)
        inside = samples + self._norm.project(pixels - samples, self._radii[self.rows])
        return inside.clamp(*self._attacked.pixel_space.bounds)


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
