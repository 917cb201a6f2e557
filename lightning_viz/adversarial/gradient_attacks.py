"""Gradient attacks: gradient ascent, FGSM and PGD, as one loop over three update rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import Epsilon, Labels, shared_arguments
from lightning_viz.adversarial.attacked_model import SLACK, Evaluation, ScoreFunction, attacked_model
from lightning_viz.adversarial.norms import (
    LINF,
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
from lightning_viz.pixels import PixelSpace, clamp_pixels

__all__ = ["fgsm", "gradient_ascent", "pgd"]

_Update = Callable[[Tensor, Tensor, Tensor], Tensor]  # from pixels, gradients and rows to pixels
_Start = Callable[[Tensor], Tensor]  # from rows to pixels

_ASCENT_REMEDY = "their gradient is almost zero; try normalize='l2' for steps of a fixed length, or loss='margin'"
_FGSM_REMEDY = "their loss is flat; try loss='margin', or pgd with a random start"
_PGD_REMEDY = "their loss is flat; try loss='margin', more restarts, or an attack without gradients"


@shared_arguments()
def gradient_ascent(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Any,
    labels: Labels | None = None,
    *,
    steps: int = 15,
    lr: float = 0.1,
    normalize: Norm | NormName | None = None,
    bounded: bool = False,
    start: Tensor | None = None,
    target: Labels | int | None = None,
    loss: Loss | LossName = "cross_entropy",
    stop_on_success: bool = True,
    pixel_space: PixelSpace | None = None,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AttackResult:
    r"""Gradient ascent: unsigned gradient steps on the cross-entropy loss, unbounded by default.

    .. math:: x_{k+1} = x_k + \eta \, \nabla_x \operatorname{CE}(f(x_k), y)

    If the model is certain of a sample, the gradient almost vanishes and so do the steps; with `normalize` they have
    length lr.

    Args:
        steps: maximum number of steps.
        lr: eta, in pixels per unit of gradient; in pixels if steps are normalized.
        normalize: norm in which every step has length lr, ``"l2"`` or ``"linf"``; the plain gradient if omitted.
        bounded: clamp pixels to the bounds of the pixel space.
        start: inputs to continue from; perturbations are measured from `inputs`.
    """
    check_steps(steps)
    if not lr > 0:
        raise InvalidArgumentError(f"lr={lr} must be positive")
    direction = None if normalize is None else resolve_norm(normalize)
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as attacked:
        if start is not None and start.shape != attacked.pixels.shape:
            raise InvalidArgumentError(f"start is {list(start.shape)}, not {list(attacked.pixels.shape)} as the inputs")

        def begin(rows: Tensor) -> Tensor:
            pixels = attacked.to_pixels(start)[rows]  # type: ignore[arg-type]  # called only if there is one
            return clamp_pixels(pixels, attacked.pixel_space, SLACK) if bounded else pixels

        def update(pixels: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:
            pixels = pixels + lr * (direction.normalize(gradients) if direction else gradients)
            return pixels.clamp(*attacked.pixel_space.bounds) if bounded else pixels

        ascent = Ascent(AttackRecorder(attacked), resolve_loss(loss), stop_on_success)
        ascent.run(update, "gradient_ascent", steps, starts=[None if start is None else begin], progress=progress)
        return ascent.recorder.result("gradient_ascent", _ASCENT_REMEDY)


@shared_arguments()
def fgsm(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Any,
    labels: Labels | None = None,
    *,
    epsilon: Epsilon = 8 / 255,
    target: Labels | int | None = None,
    loss: Loss | LossName = "cross_entropy",
    stop_on_success: bool = True,
    pixel_space: PixelSpace | None = None,
    batch_size: int | None = None,
    forward: Forward | None = None,
) -> AttackResult:
    r"""FGSM: one step of length epsilon along the sign of the loss gradient (Goodfellow et al., 2015).

    .. math:: x' = x + \epsilon \operatorname{sign} \nabla_x \operatorname{CE}(f(x), y)

    All epsilons share one backward pass.

    Args:
        epsilon: change of every pixel, in pixels (8/255, customary for photographs); several give results ``[E, ...]``.
        stop_on_success: leave samples unchanged that are misclassified already.
    """
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as attacked:
        recorder = AttackRecorder.in_balls(attacked, epsilon, LINF)

        def update(pixels: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:
            pixels = pixels + per_sample(recorder.radii[rows], pixels) * gradients.sign()
            return pixels.clamp(*attacked.pixel_space.bounds)

        Ascent(recorder, resolve_loss(loss), stop_on_success).run(update, "fgsm", 1, progress=False)
        return recorder.result("fgsm", _FGSM_REMEDY)


@shared_arguments()
def pgd(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Any,
    labels: Labels | None = None,
    *,
    epsilon: Epsilon = 8 / 255,
    norm: Norm | NormName = "linf",
    steps: int = 10,
    step_size: float | None = None,
    random_start: bool = True,
    restarts: int = 1,
    target: Labels | int | None = None,
    loss: Loss | LossName = "cross_entropy",
    stop_on_success: bool = True,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AttackResult:
    r"""PGD: repeated normalized gradient steps, projected onto the epsilon ball (Madry et al., 2018).

    .. math:: x_{k+1} = \Pi_{\lVert x - x_0 \rVert \le \epsilon} \big(x_k + \alpha \, n(\nabla_x L)\big), \qquad
        L = \operatorname{CE}(f(x_k), y)

    with n the sign of the gradient (L-inf) or the gradient divided by its norm (L2); pixels are clamped to their
    bounds.

    Args:
        steps: number of steps per start (10).
        step_size: alpha, in pixels; 2.5 epsilon / steps if omitted (as in the paper).
        random_start: start at a uniformly random point of the ball instead of the sample.
        restarts: number of random restarts for samples that have not been fooled.
    """
    check_steps(steps)
    if restarts < 1 or (restarts > 1 and not random_start):
        raise InvalidArgumentError(f"restarts={restarts} must be 1, or more with random_start=True")
    if step_size is not None and not step_size > 0:
        raise InvalidArgumentError(f"step_size={step_size} must be positive, in pixels")
    norm = resolve_norm(norm)
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, seed=seed, forward=forward
    ) as attacked:
        recorder = AttackRecorder.in_balls(attacked, epsilon, norm)
        strides = recorder.radii * (2.5 / steps) if step_size is None else torch.full_like(recorder.radii, step_size)

        def begin(restart: int, rows: Tensor) -> Tensor:
            """Random points of the balls; that of a sample depends neither on the other rows nor on epsilon."""
            generator = torch.Generator(attacked.pixels.device)
            generator.manual_seed(int(np.random.SeedSequence((seed, restart)).generate_state(1)[0]))
            return recorder.displaced(norm.inside(attacked.pixels, generator), rows)

        def update(pixels: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:
            return recorder.project(pixels + per_sample(strides[rows], pixels) * norm.normalize(gradients), rows)

        starts = [partial(begin, restart) if random_start else None for restart in range(restarts)]
        ascent = Ascent(recorder, resolve_loss(loss), stop_on_success)
        ascent.run(update, "pgd", steps, starts=starts, progress=progress)
        return recorder.result("pgd", _PGD_REMEDY)


class Ascent:
    """The passes of all attacks that raise a loss step by step, and the loop of those whose steps have no memory.

    Attributes:
        recorder: current state of all rows.
    """

    def __init__(
        self, recorder: AttackRecorder, loss: Loss, stop_on_success: bool = True, *, toward: Tensor | None = None
    ) -> None:
        """Raise a loss.

        Args:
            recorder: of the attack.
            loss: raised for the label, or lowered for the target.
            stop_on_success: leave a row as soon as it is fooled.
            toward: class of every row, ``[R]``, for which the loss is lowered; those of the attack if omitted. Success
                is what the attack aims at all the same.
        """
        self.recorder, self._attacked = recorder, recorder.attacked
        self._loss, self._stop_on_success, self._toward = loss, stop_on_success, toward
        self._left: Tensor | None = None  # places of those not fooled in the rows of the last pass with gradients

    def run(
        self,
        update: _Update,
        name: str,
        steps: int,
        *,
        starts: Sequence[_Start | None] = (None,),
        progress: bool = True,
    ) -> None:
        """Run all steps of all starts; each is one forward and one backward of the unfinished rows.

        A start is the initial pixels of rows, or None for the unmodified samples, which the first pass serves.
        """
        recorder, gradients = self.recorder, self.evaluate_originals(differentiate=starts[0] is None)
        every_row = recorder.rows
        bar = progress_bar(name, shown=progress, total=len(starts) * steps)
        for number, start in enumerate(starts):
            left = every_row[~recorder.fooled] if number else self.left(every_row)  # a restart is for the not fooled
            rows = every_row[left]
            if start is not None and len(rows):
                gradients = self.evaluate(rows, start(rows), differentiate=True).gradients
                left = self.left(rows)
                rows = of_rows(rows, left)
            for step in range(steps):
                if gradients is None or not len(rows):
                    break
                pixels = update(of_rows(recorder.pixels, rows), of_rows(gradients, left), rows)
                gradients = self.evaluate(rows, pixels, differentiate=step + 1 < steps).gradients
                bar.update()
                if step + 1 < steps:
                    left = self.left(rows)
                    rows = of_rows(rows, left)
        bar.close()

    def evaluate_originals(self, *, differentiate: bool) -> Tensor | None:
        """The first pass, which all copies of a sample share; returns the gradients of the rows."""
        recorder, count = self.recorder, len(self._attacked.pixels)
        evaluation = self._attacked.evaluate_originals(self._objective(recorder.rows[:count], differentiate))
        self._left = None  # it would be of the samples, and not of their copies
        recorder.record_originals(evaluation.scores)
        gradients = None if evaluation.gradients is None else evaluation.gradients[recorder.samples]
        self._count_backwards(recorder.rows, gradients)
        return gradients

    def evaluate(self, rows: Tensor, pixels: Tensor, *, differentiate: bool) -> Evaluation:
        """One step: evaluate and record new pixels of rows; gradients are 0 where the attack stops."""
        samples = self.recorder.samples[rows]
        evaluation = self._attacked(pixels, self._objective(rows, differentiate), samples=samples)
        self.recorder.record_step(rows, pixels, evaluation.scores)
        self._count_backwards(rows, evaluation.gradients)
        return evaluation

    def losses(self, scores: Tensor, rows: Tensor) -> Tensor:
        """What the attack raises, from scores ``[n, K]`` of rows, ``[n]``."""
        toward = None if self._toward is None else self._toward[rows]
        return self._attacked.loss(self._loss, scores, self.recorder.samples[rows], toward)

    def unfinished(self, rows: Tensor) -> Tensor:
        """Mask ``[n]`` of the rows that the attack goes on with."""
        return ~self.recorder.fooled[rows] if self._stop_on_success else torch.ones_like(rows, dtype=torch.bool)

    def left(self, rows: Tensor) -> Tensor:
        """Places ``[m]`` in rows of those that the attack goes on with.

        How many they are the CPU must know, and waits for the device: once a pass, because the loss of a pass with
        gradients has found these places already.
        """
        if not self._stop_on_success:
            return torch.arange(len(rows), device=rows.device)
        return self.unfinished(rows).nonzero().flatten() if self._left is None else self._left

    def _count_backwards(self, rows: Tensor, gradients: Tensor | None) -> None:
        """Count the gradients, and note which are zero."""
        if gradients is not None:
            unfinished = self.unfinished(rows)
            self.recorder.count(rows, queries=0, backwards=unfinished.long())
            self.recorder.flat[rows] = unfinished & ~gradients.flatten(1).any(1)

    def _objective(self, rows: Tensor, differentiate: bool) -> ScoreFunction | None:
        """The loss of the rows that are not fooled yet."""
        self._left = None

        def objective(scores: Tensor, positions: Tensor) -> Tensor | None:
            values = self.losses(scores, rows[positions])
            if not self._stop_on_success:
                return values
            fooled = self._attacked.fooled(scores, self.recorder.samples[rows[positions]])
            left = positions[~fooled]
            self._left = left if self._left is None else torch.cat([self._left, left])  # of one batch after the other
            return torch.where(fooled, 0, values) if len(left) else None

        return objective if differentiate else None


def check_steps(steps: int) -> None:
    """Check the number of steps of an attack."""
    if steps < 1:
        raise InvalidArgumentError(f"steps={steps} must be at least 1")
