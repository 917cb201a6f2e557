"""Attacks that climb a loss by its gradient: the lecture's ascent, FGSM, PGD. One template, three steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Union

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attacked import Attacked, Trail
from lightning_viz.adversarial.norms import LINF, Norm, spread
from lightning_viz.adversarial.victim import Answer, Loss, Victim, attacking, cross_entropy
from lightning_viz.attribution.batches import progress_bar
from lightning_viz.hooks.observing import Forward
from lightning_viz.pixels import PixelSpace

Epsilons = Union[float, Sequence[float], Tensor]
"""How far pixels may move: a radius, E of them ``[E]``, or one for each sample ``[E, N]``."""

Classes = Union[Tensor, Sequence[int]]
"""A class for each sample, ``[N]``."""

_Move = Callable[[Tensor, Tensor, Tensor], Tensor]  # from pixels, gradients and rows to pixels
_Start = Callable[[Tensor], Tensor]  # from rows to pixels


def gradient_ascent(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    steps: int = 15,
    lr: float = 0.1,
    normalise: Norm | None = None,
    bounded: bool = False,
    start: Tensor | None = None,
    target: Classes | int | None = None,
    loss: Loss = cross_entropy,
    until_fooled: bool = True,
    space: PixelSpace | None = None,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> Attacked:
    r"""Uphill on the loss, as in the lecture.

    .. math:: x_{k+1} = x_k + \eta \, \nabla_x \operatorname{CE}(f(x_k), y)

    On a sample of which the model is sure the gradient is next to nothing, and so are the steps: `normalise` makes them
    of length lr.

    Args:
        model: any classifier; it runs in eval mode and is left as found.
        inputs: as the model takes them, ``[N, ...]``.
        labels: the classes to lead away from, ``[N]``; what the model says of the samples if omitted.
        steps: at most (15, the lecture's).
        lr: eta (0.1, the lecture's), in pixels per unit of gradient; in pixels where steps are normalised.
        normalise: the norm in which every step has length lr, `L2` or `LINF`; as long as the gradient if omitted.
        bounded: keep pixels within the space's bounds. The lecture does not.
        start: inputs to begin with, where an ascent goes on; perturbations count from `inputs`.
        target: classes to lead to, one for all or ``[N]``; any wrong one if omitted.
        loss: what is climbed, away from the label or down to the target.
        until_fooled: a sample is done, and leaves the batch, when it is fooled; else all steps are made.
        space: how the inputs map to pixels; they are pixels in [0, 1] if omitted.
        batch_size: samples shown at a time; all if omitted.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Raises:
        ValueError: inputs, classes or options that make no sense (see `attacking`).
    """
    _check_steps(steps)
    if not lr > 0:
        raise ValueError(f"lr={lr}: give a positive rate")
    with attacking(
        model, inputs, labels, target=target, space=space, bounded=bounded, batch_size=batch_size, forward=forward
    ) as victim:
        if start is not None and start.shape != inputs.shape:
            raise ValueError(f"start is {list(start.shape)}, the inputs are {list(inputs.shape)}: give one for each")

        def begin(rows: Tensor) -> Tensor:
            return victim.of_inputs(start)[rows]  # type: ignore[arg-type]  # called only where there is one

        def move(pixels: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:
            moved = pixels + lr * (normalise.normalise(gradients) if normalise else gradients)
            return moved.clamp(*victim.space.bounds) if bounded else moved

        starts = [begin if start is not None else None]
        trail = ascend(victim, move, "gradient_ascent", loss, steps, until_fooled, starts=starts, progress=progress)
        return trail.attacked(name="gradient_ascent")


def fgsm(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    epsilon: Epsilons = 8 / 255,
    target: Classes | int | None = None,
    loss: Loss = cross_entropy,
    until_fooled: bool = True,
    space: PixelSpace | None = None,
    batch_size: int | None = None,
    forward: Forward | None = None,
) -> Attacked:
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
        until_fooled: leave samples alone that the model has wrong already.
        space: how the inputs map to pixels; they are pixels in [0, 1] if omitted.
        batch_size: samples shown at a time; N if omitted.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Raises:
        ValueError: inputs, classes or options that make no sense (see `attacking`).
    """
    with attacking(model, inputs, labels, target=target, space=space, batch_size=batch_size, forward=forward) as victim:
        radii, asked = radii_of(epsilon, victim)

        def move(pixels: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:
            moved = pixels + spread(radii[rows], pixels) * gradients.sign()
            return moved.clamp(*victim.space.bounds)

        copies = len(radii) // len(inputs)
        trail = ascend(victim, move, "fgsm", loss, 1, until_fooled, copies=copies, progress=False)
        return trail.attacked(asked, name="fgsm", lead=asked.dim() > 0)


def pgd(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    epsilon: Epsilons = 8 / 255,
    norm: Norm = LINF,
    steps: int = 10,
    step_size: float | None = None,
    random_start: bool = True,
    restarts: int = 1,
    target: Classes | int | None = None,
    loss: Loss = cross_entropy,
    until_fooled: bool = True,
    space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> Attacked:
    r"""Projected gradient descent (Madry et al., 2018): uphill on the loss, within a ball around the sample.

    .. math:: x_{k+1} = \Pi_{\lVert x - x_0 \rVert \le \epsilon} \big(x_k + \alpha \, n(\nabla_x L)\big), \qquad
        L = \operatorname{CE}(f(x_k), y)

    with n the gradient's sign (L-inf) or the gradient over its length (L2), and pixels within their bounds.

    Args:
        model: any classifier; it runs in eval mode and is left as found.
        inputs: as the model takes them, ``[N, ...]``.
        labels: the classes to lead away from, ``[N]``; what the model says of the samples if omitted.
        epsilon: radius of the ball, in pixels (8/255, the usual one for photographs); for several, results lead with E.
        norm: `LINF` or `L2`.
        steps: of each start (10).
        step_size: alpha, in pixels; 2.5 epsilon / steps if omitted (the paper's).
        random_start: begin anywhere in the ball, and not in the sample itself.
        restarts: random starts; those who are not fooled begin again, and keep the last.
        target: classes to lead to, one for all or ``[N]``; any wrong one if omitted.
        loss: what is climbed; the `margin` does not go flat where the model is sure.
        until_fooled: a sample is done, and leaves the batch, when it is fooled; else all steps are made.
        space: how the inputs map to pixels; they are pixels in [0, 1] if omitted.
        seed: of the random starts.
        batch_size: samples shown at a time; N if omitted.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Raises:
        ValueError: inputs, classes or options that make no sense (see `attacking`).
    """
    _check_steps(steps)
    if restarts < 1 or (restarts > 1 and not random_start):
        raise ValueError(f"restarts={restarts}, random_start={random_start}: give 1, or more with a random start")
    if step_size is not None and not step_size > 0:
        raise ValueError(f"step_size={step_size}: give a positive length, in pixels")
    with attacking(model, inputs, labels, target=target, space=space, batch_size=batch_size, forward=forward) as victim:
        radii, asked = radii_of(epsilon, victim, norm)
        stride = radii * (2.5 / steps) if step_size is None else torch.full_like(radii, step_size)
        original, generator = victim.pixels, torch.Generator().manual_seed(seed)

        def within(pixels: Tensor, rows: Tensor) -> Tensor:
            samples = original[rows % len(original)]
            return (samples + norm.project(pixels - samples, radii[rows])).clamp(*victim.space.bounds)

        def begin(rows: Tensor) -> Tensor:
            samples = original[rows % len(original)]
            return within(samples + norm.start(samples, radii[rows], generator), rows)

        def move(pixels: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:
            return within(pixels + spread(stride[rows], pixels) * norm.normalise(gradients), rows)

        copies, starts = len(radii) // len(inputs), [begin if random_start else None] * restarts
        trail = ascend(victim, move, "pgd", loss, steps, until_fooled, copies=copies, starts=starts, progress=progress)
        return trail.attacked(asked, name="pgd", lead=asked.dim() > 0)


def ascend(
    victim: Victim,
    move: _Move,
    name: str,
    loss: Loss,
    steps: int,
    until_fooled: bool,
    *,
    copies: int = 1,
    starts: Sequence[_Start | None] = (None,),
    progress: bool = True,
) -> Trail:
    """Up the loss, step by step. Each step is one forward and one backward of the samples that are not done.

    Args:
        victim: whose samples move.
        move: one step, from pixels, gradients of the loss and rows.
        name: of the attack.
        loss: what is climbed.
        steps: from each start.
        until_fooled: whether a sample is done when it is fooled.
        copies: rows of each sample, one for each epsilon; they share the first pass.
        starts: where rows begin; None for the samples as they are, of which the first pass serves.
        progress: show a bar when it takes long.
    """
    trail = Trail(victim, copies)
    rows = torch.arange(len(trail.samples), device=trail.samples.device)
    answer = victim.begin(_uphill(victim, loss, trail.samples[: len(victim.pixels)], until_fooled, starts[0] is None))
    trail.see(rows, trail.pixels.clone(), answer.scores.repeat(copies, 1))
    trail.asked(rows, backwards=int(starts[0] is None))
    trail.step()
    bar = progress_bar(name, shown=progress, total=len(starts) * steps)
    for start in starts:
        rows = (~trail.fooled).nonzero().flatten() if until_fooled or start is not starts[0] else rows
        gradients = None if answer.gradients is None else answer.gradients[rows % len(victim.pixels)]
        if start is not None and len(rows):
            gradients = _look(victim, trail, rows, start(rows), loss, until_fooled, climbs=steps > 0).gradients
            rows, gradients = _left(trail, rows, gradients, until_fooled)
        for number in range(steps):
            if gradients is None or not len(rows):
                break
            pixels = move(trail.pixels[rows], gradients, rows)
            gradients = _look(victim, trail, rows, pixels, loss, until_fooled, climbs=number + 1 < steps).gradients
            rows, gradients = _left(trail, rows, gradients, until_fooled)
            bar.update()
    bar.close()
    return trail


def radii_of(epsilon: Epsilons, victim: Victim, norm: Norm = LINF) -> tuple[Tensor, Tensor]:
    """The radius of each row ``[E * N]``, and the epsilons as they were asked for: ``[]``, ``[E]`` or ``[E, N]``.

    Args:
        epsilon: in pixels.
        victim: whose samples they are for.
        norm: in which they are radii.

    Raises:
        ValueError: they are negative, none, or more than the whole range of pixels.
    """
    original, (low, high) = victim.pixels, victim.space.bounds
    asked = torch.as_tensor(epsilon, dtype=original.dtype, device=original.device)
    count = len(original)
    if asked.numel() == 0 or asked.dim() > 2 or (asked.dim() == 2 and asked.shape[1] != count):
        raise ValueError(f"epsilon is {list(asked.shape)} for {count} samples: give a number, a list, or [E, {count}]")
    longest = norm.length(torch.full_like(original[:1], high - low)).item()
    if not 0 <= asked.min().item() <= asked.max().item() <= longest:
        raise ValueError(
            f"epsilon={epsilon}: give 0 to {longest:.3g}, the pixels' whole range in {norm.name}; 8 grey levels of 255 "
            f"are {8 * (high - low) / 255:.3g}"
        )
    each = asked if asked.dim() == 2 else asked.reshape(-1, 1).expand(-1, count)
    return each.reshape(-1), asked


def _look(
    victim: Victim, trail: Trail, rows: Tensor, pixels: Tensor, loss: Loss, until_fooled: bool, *, climbs: bool
) -> Answer:
    """Show the model where rows have come to, and write it down."""
    answer = victim(pixels, _uphill(victim, loss, trail.samples[rows], until_fooled, climbs))
    trail.see(rows, pixels, answer.scores)
    trail.asked(rows, backwards=int(climbs))
    trail.step()
    return answer


def _left(trail: Trail, rows: Tensor, gradients: Tensor | None, until_fooled: bool) -> tuple[Tensor, Tensor | None]:
    """The rows that are not done."""
    if not until_fooled:
        return rows, gradients
    left = ~trail.fooled[rows]
    return rows[left], None if gradients is None else gradients[left]


def _uphill(
    victim: Victim, loss: Loss, samples: Tensor, until_fooled: bool, climbs: bool
) -> Callable[[Tensor, Tensor], Tensor | None] | None:
    """What a pass differentiates: the loss of those who are not done."""

    def asked(scores: Tensor, places: Tensor) -> Tensor | None:
        values = victim.loss(loss, scores, samples[places])
        done = victim.fooled(scores, samples[places]) if until_fooled else torch.zeros_like(values, dtype=torch.bool)
        return None if bool(done.all()) else torch.where(done, 0, values)

    return asked if climbs else None


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps={steps}: give 1 or more")
