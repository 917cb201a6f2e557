"""Attacks that climb a loss by its gradient: the lecture's ascent, FGSM, PGD. One template, three steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attacked_model import (
    Asked,
    AttackedModel,
    Classes,
    Epsilons,
    attacked_model,
    radii_of,
    within,
)
from lightning_viz.adversarial.norms import (
    Loss,
    LossName,
    Norm,
    NormName,
    of_rows,
    resolve_loss,
    resolve_norm,
    spread,
)
from lightning_viz.adversarial.result import AttackRecorder, AttackResult
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["fgsm", "gradient_ascent", "pgd"]

_Move = Callable[[Tensor, Tensor, Tensor], Tensor]  # from pixels, gradients and rows to pixels
_Start = Callable[[Tensor], Tensor]  # from rows to pixels

_NO_STEP = "their loss is next to flat. Make steps of a fixed length by normalize=, or climb loss=margin"
_NO_SIGN = "their loss is flat. Try loss=margin, or pgd with a random start"
_NO_WAY = "their loss is flat. Try loss=margin, more restarts, or an attack without gradients"


def gradient_ascent(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    steps: int = 15,
    lr: float = 0.1,
    normalize: Norm | NormName | None = None,
    bounded: bool = False,
    start: Tensor | None = None,
    target: Classes | int | None = None,
    loss: Loss | LossName = "cross_entropy",
    stop_on_success: bool = True,
    pixel_space: PixelSpace | None = None,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AttackResult:
    r"""Uphill on the loss, as in the lecture.

    .. math:: x_{k+1} = x_k + \eta \, \nabla_x \operatorname{CE}(f(x_k), y)

    On a sample of which the model is sure the gradient is next to nothing, and so are the steps: `normalize` makes them
    of length lr.

    Args:
        model: any classifier; it runs in eval mode and is left as found.
        inputs: as the model takes them, ``[N, ...]``.
        labels: the classes to lead away from, ``[N]``; what the model says of the samples if omitted.
        steps: at most (15, the lecture's).
        lr: eta (0.1, the lecture's), in pixels per unit of gradient; in pixels where steps are normalized.
        normalize: the norm in which every step has length lr, ``"l2"`` or ``"linf"``; the gradient itself if omitted.
        bounded: keep pixels within the space's bounds. The lecture does not.
        start: inputs to begin with, where an ascent goes on; perturbations count from `inputs`.
        target: classes to lead to, one for all or ``[N]``; any wrong one if omitted.
        loss: what is climbed, away from the label or down to the target.
        stop_on_success: a sample is done, and leaves the batch, when it is fooled; else all steps are made.
        pixel_space: how the inputs map to pixels; they are pixels in [0, 1] if omitted.
        batch_size: samples shown at a time; all if omitted.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Raises:
        ValueError: inputs, classes or options that make no sense (see `attacked_model`).
    """
    _check_steps(steps)
    if not lr > 0:
        raise InvalidArgumentError(f"lr={lr}: give a positive rate")
    direction = None if normalize is None else resolve_norm(normalize)
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as under_attack:
        if start is not None and start.shape != inputs.shape:
            raise InvalidArgumentError(
                f"start is {list(start.shape)}, the inputs are {list(inputs.shape)}: give one for each"
            )

        def begin(rows: Tensor) -> Tensor:
            begun = under_attack.of_inputs(start)[rows]  # type: ignore[arg-type]  # called only where there is one
            return within(begun, under_attack.pixel_space) if bounded else begun

        def move(pixels: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:
            moved = pixels + lr * (direction.normalize(gradients) if direction else gradients)
            return moved.clamp(*under_attack.pixel_space.bounds) if bounded else moved

        climb, starts = (
            _Climb(under_attack, resolve_loss(loss), stop_on_success, 1),
            [begin if start is not None else None],
        )
        trail = _ascend(climb, move, "gradient_ascent", steps, starts=starts, progress=progress)
        return trail.attacked(name="gradient_ascent", unmoved=_NO_STEP)


def fgsm(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    epsilon: Epsilons = 8 / 255,
    target: Classes | int | None = None,
    loss: Loss | LossName = "cross_entropy",
    stop_on_success: bool = True,
    pixel_space: PixelSpace | None = None,
    batch_size: int | None = None,
    forward: Forward | None = None,
) -> AttackResult:
    r"""The fast gradient sign method (Goodfellow et al., 2015): one step, every pixel by epsilon.

    .. math:: x' = x + \epsilon \operatorname{sign} \nabla_x \operatorname{CE}(f(x), y)

    One backward for all epsilons.

    Args:
        model: any classifier; it runs in eval mode and is left as found.
        inputs: as the model takes them, ``[N, ...]``.
        labels: the classes to lead away from, ``[N]``; what the model says of the samples if omitted.
        epsilon: in pixels (8/255, the usual one for photographs); for several, results lead with E.
        target: classes to lead to, one for all or ``[N]``; any wrong one if omitted.
        loss: what is climbed.
        stop_on_success: leave samples alone that the model has wrong already.
        pixel_space: how the inputs map to pixels; they are pixels in [0, 1] if omitted.
        batch_size: samples shown at a time; N if omitted.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Raises:
        ValueError: inputs, classes or options that make no sense (see `attacked_model`).
    """
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as under_attack:
        radii, asked = radii_of(epsilon, under_attack.pixels, under_attack.pixel_space.bounds)

        def move(pixels: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:
            moved = pixels + spread(radii[rows], pixels) * gradients.sign()
            return moved.clamp(*under_attack.pixel_space.bounds)

        climb = _Climb(under_attack, resolve_loss(loss), stop_on_success, len(radii) // len(inputs))
        trail = _ascend(climb, move, "fgsm", 1, progress=False)
        return trail.attacked(asked, name="fgsm", lead=asked.dim() > 0, unmoved=_NO_SIGN)


def pgd(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    epsilon: Epsilons = 8 / 255,
    norm: Norm | NormName = "linf",
    steps: int = 10,
    step_size: float | None = None,
    random_start: bool = True,
    restarts: int = 1,
    target: Classes | int | None = None,
    loss: Loss | LossName = "cross_entropy",
    stop_on_success: bool = True,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AttackResult:
    r"""Projected gradient descent (Madry et al., 2018): uphill on the loss, within a ball around the sample.

    .. math:: x_{k+1} = \Pi_{\lVert x - x_0 \rVert \le \epsilon} \big(x_k + \alpha \, n(\nabla_x L)\big), \qquad
        L = \operatorname{CE}(f(x_k), y)

    with n the gradient's sign (L-inf) or the gradient over its length (L2), and pixels within their bounds.

    Args:
        model: any classifier; it runs in eval mode and is left as found.
        inputs: as the model takes them, ``[N, ...]``.
        labels: the classes to lead away from, ``[N]``; what the model says of the samples if omitted.
        epsilon: radius of the ball, in pixels (8/255, the usual one for photographs); for several, results lead with E.
        norm: in which the ball is measured, ``"linf"`` or ``"l2"``.
        steps: of each start (10).
        step_size: alpha, in pixels; 2.5 epsilon / steps if omitted (the paper's).
        random_start: begin anywhere in the ball, and not in the sample itself.
        restarts: random starts; those who are not fooled begin again, and keep the last.
        target: classes to lead to, one for all or ``[N]``; any wrong one if omitted.
        loss: what is climbed; the `margin` does not go flat where the model is sure.
        stop_on_success: a sample is done, and leaves the batch, when it is fooled; else all steps are made.
        pixel_space: how the inputs map to pixels; they are pixels in [0, 1] if omitted.
        seed: of the random starts.
        batch_size: samples shown at a time; N if omitted.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Raises:
        ValueError: inputs, classes or options that make no sense (see `attacked_model`).
    """
    _check_steps(steps)
    if restarts < 1 or (restarts > 1 and not random_start):
        raise InvalidArgumentError(
            f"restarts={restarts}, random_start={random_start}: give 1, or more with a random start"
        )
    if step_size is not None and not step_size > 0:
        raise InvalidArgumentError(f"step_size={step_size}: give a positive length, in pixels")
    norm = resolve_norm(norm)
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, seed=seed, forward=forward
    ) as under_attack:
        radii, asked = radii_of(epsilon, under_attack.pixels, under_attack.pixel_space.bounds, norm)
        stride = radii * (2.5 / steps) if step_size is None else torch.full_like(radii, step_size)

        def keep(pixels: Tensor, rows: Tensor) -> Tensor:
            samples = of_rows(climb.trail.original, rows)
            return (samples + norm.project(pixels - samples, radii[rows])).clamp(*under_attack.pixel_space.bounds)

        def begin(restart: int, rows: Tensor) -> Tensor:
            """A place in the ball; that of a sample does not depend on who is done already, or on epsilon."""
            generator = torch.Generator(under_attack.pixels.device)
            generator.manual_seed(int(np.random.SeedSequence((seed, restart)).generate_state(1)[0]))
            noise = norm.inside(under_attack.pixels, generator)[climb.trail.samples[rows]]
            return keep(climb.trail.original[rows] + spread(radii[rows], noise) * noise, rows)

        def move(pixels: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:
            return keep(pixels + spread(stride[rows], pixels) * norm.normalize(gradients), rows)

        climb = _Climb(under_attack, resolve_loss(loss), stop_on_success, len(radii) // len(inputs))
        starts = [partial(begin, restart) if random_start else None for restart in range(restarts)]
        trail = _ascend(climb, move, "pgd", steps, starts=starts, progress=progress)
        return trail.attacked(asked, name="pgd", lead=asked.dim() > 0, unmoved=_NO_WAY)


class _Climb:
    """Rows on their way up the loss.

    Attributes:
        trail: the record, which says where they are.
    """

    def __init__(self, under_attack: AttackedModel, loss: Loss, stop_on_success: bool, copies: int) -> None:
        self.trail = AttackRecorder(under_attack, copies)
        self._victim, self._loss, self._until_fooled = under_attack, loss, stop_on_success

    def begin(self, climbs: bool) -> Tensor | None:
        """The first pass, which all copies of a sample share; the gradients of the rows, if it climbs."""
        count = len(self._victim.pixels)
        answer = self._victim.begin(self._uphill(self.trail.samples[:count], climbs))
        self.trail.begin(answer.scores)
        rows = torch.arange(len(self.trail.samples), device=self.trail.samples.device)
        gradients = None if answer.gradients is None else answer.gradients[self.trail.samples]
        self._note(rows, gradients)
        return gradients

    def look(self, rows: Tensor, pixels: Tensor, *, climbs: bool) -> Tensor | None:
        """Show the model where rows have come to, and write it down; the gradients there, if the climb goes on."""
        answer = self._victim(pixels, self._uphill(self.trail.samples[rows], climbs))
        self.trail.see(rows, pixels, answer.scores)
        self.trail.asked(rows)
        self._note(rows, answer.gradients)
        self.trail.step()
        return answer.gradients

    def left(self, rows: Tensor) -> Tensor:
        """Which of the rows are not done, a mask ``[n]``."""
        return ~self.trail.fooled[rows] if self._until_fooled else torch.ones_like(rows, dtype=torch.bool)

    def _note(self, rows: Tensor, gradients: Tensor | None) -> None:
        """Count the gradients, and see where there is none to follow."""
        if gradients is not None:
            left = self.left(rows)
            self.trail.asked(rows[left], queries=0, backwards=1)
            self.trail.flat[rows] = left & ~gradients.flatten(1).any(1)

    def _uphill(self, samples: Tensor, climbs: bool) -> Asked | None:
        """What a pass differentiates: the loss of those who are not done."""
        under_attack = self._victim

        def asked(scores: Tensor, places: Tensor) -> Tensor | None:
            values = under_attack.loss(self._loss, scores, samples[places])
            if not self._until_fooled:
                return values
            done = under_attack.fooled(scores, samples[places])
            return None if bool(done.all()) else torch.where(done, 0, values)

        return asked if climbs else None


def _ascend(
    climb: _Climb,
    move: _Move,
    name: str,
    steps: int,
    *,
    starts: Sequence[_Start | None] = (None,),
    progress: bool = True,
) -> AttackRecorder:
    """Step by step. Each is one forward and one backward of the rows that are not done.

    Args:
        climb: that rows are on.
        move: one step, from pixels, gradients of the loss and rows.
        name: of the attack.
        steps: from each start.
        starts: where rows begin; None for the samples as they are, of which the first pass serves.
        progress: show a bar when it takes long.
    """
    trail, gradients = climb.trail, climb.begin(starts[0] is None)
    every = torch.arange(len(trail.samples), device=trail.samples.device)
    bar = progress_bar(name, shown=progress, total=len(starts) * steps)
    for number, start in enumerate(starts):
        left = ~trail.fooled if number else climb.left(every)  # those who are fooled do not begin again
        rows = every[left]
        if start is not None and len(rows):
            gradients, left = climb.look(rows, start(rows), climbs=True), climb.left(rows)
            rows = rows[left]
        for step in range(steps):
            if gradients is None or not len(rows):
                break
            pixels = move(of_rows(trail.pixels, rows), of_rows(gradients, left), rows)
            gradients, left = climb.look(rows, pixels, climbs=step + 1 < steps), climb.left(rows)
            rows = rows[left]
            bar.update()
    bar.close()
    return trail


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise InvalidArgumentError(f"steps={steps}: give 1 or more")
