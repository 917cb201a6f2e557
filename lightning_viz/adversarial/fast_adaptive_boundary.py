"""FAB: short perturbations by projections onto the linearized decision boundary within the pixels' bounds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import Labels, shared_arguments
from lightning_viz.adversarial.attacked_model import AttackedModel, attacked_model
from lightning_viz.adversarial.gradient_attacks import check_steps
from lightning_viz.adversarial.norms import MIN_LENGTH, Norm, NormName, of_rows, per_sample, resolve_norm
from lightning_viz.adversarial.result import AttackRecorder, AttackResult, overwrite_rows
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["fab"]

_SHORTEST = 1e-8  # pixels: no step counts as shorter when the two are weighed
_VALUES = 2**22  # of the samples whose projections are computed at a time
_REMEDY = "no step toward another class crosses its boundary; try more steps, or an attack without gradients"


@shared_arguments()
def fab(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Any,
    labels: Labels | None = None,
    *,
    norm: Norm | NormName = "linf",
    steps: int = 100,
    targets: int = 9,
    bias: float = 0.1,
    overshoot: float = 0.05,
    shrink: float = 0.9,
    target: Labels | int | None = None,
    pixel_space: PixelSpace | None = None,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AttackResult:
    r"""FAB: projections onto the linearized boundary to one class after the other (Croce and Hein, 2020).

    .. math:: x_{k+1} = (1 - a) (x_k + \eta \, d(x_k)) + a (x_0 + \eta \, d(x_0)), \qquad
        a = \min\Big(\frac{\lVert d(x_k) \rVert}{\lVert d(x_k) \rVert + \lVert d(x_0) \rVert},\ a_{\max}\Big)

    with d(x) the smallest step from x, within the pixels' bounds, to the plane on which the target class t draws level
    with the label y in the model linearized at :math:`x_k`: :math:`z_t - z_y + \nabla (z_t - z_y) \cdot (x - x_k) = 0`.
    From a point that fools the model the search returns toward the sample, to :math:`x_0 + \beta (x_{k+1} - x_0)`, and
    crosses the boundary elsewhere; the shortest perturbation that fools the model is kept.

    There is no random start, and no final search on the line to the sample.

    Args:
        norm: minimized norm of the perturbation, ``"linf"`` or ``"l2"``.
        steps: for each target class (100, as in AutoAttack), of two forwards and one backward.
        targets: number of target classes, those with the highest scores beside the label (9, as in AutoAttack).
        bias: :math:`a_{\max}`, largest share of the step from the sample itself (0.1, as in the paper).
        overshoot: :math:`\eta - 1`, relative overshoot past the boundary (0.05, as in the paper).
        shrink: beta, share of a perturbation that is kept once it fools the model (0.9, as in the paper).
        target: the only target class, one for all or ``[N]``, which alone counts as success, with y whichever other
            class leads; if omitted any other class counts.
    """
    check_steps(steps)
    if targets < 1 or not 0 <= bias <= 1 or not overshoot >= 0 or not 0 < shrink < 1:
        raise InvalidArgumentError(
            f"targets={targets}, bias={bias}, overshoot={overshoot}, shrink={shrink}: pass at least 1 target, a bias "
            "in [0, 1], an overshoot of 0 or more, and a shrink between 0 and 1"
        )
    norm = resolve_norm(norm)
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as attacked:
        recorder = AttackRecorder(attacked)
        scores = attacked.evaluate_originals().scores
        recorder.record_originals(scores)
        rivals = attacked.rivals(scores, recorder.samples, targets)
        runs = rivals.T if attacked.target is None else attacked.target[None]
        rows, shortest = (~recorder.fooled).nonzero().flatten(), recorder.radii.clone()
        bar = progress_bar("fab", shown=progress, total=len(runs) * steps)
        for toward in runs:
            options = {"bias": bias, "overshoot": overshoot, "shrink": shrink}
            for _ in boundary_steps(recorder, rows, toward, norm, steps, shortest, **options):
                bar.update()
        bar.close()
        return recorder.result("fab", _REMEDY)


def boundary_steps(
    recorder: AttackRecorder,
    rows: Tensor,
    toward: Tensor,
    norm: Norm,
    steps: int,
    shortest: Tensor,
    *,
    bias: float = 0.1,
    overshoot: float = 0.05,
    shrink: float = 0.9,
) -> Iterator[Tensor]:
    """FAB on some rows: after each step those that are left.

    A row within a ball is done as soon as it is fooled there; one without bound takes all steps.

    Args:
        recorder: to which perturbations go that fool the model, if they are shorter than all before.
        rows: indices, ``[n]``.
        toward: target class of every row, ``[R]``.
        norm: in which the perturbations are measured.
        steps: at most.
        shortest: length of every row's shortest perturbation so far, ``[R]``, at first its radius; changed in place.
        bias: see `fab`.
        overshoot: see `fab`.
        shrink: see `fab`.
    """
    bounded = bool(recorder.radii.isfinite().any())
    attacked, bounds, pixels = recorder.attacked, recorder.attacked.pixel_space.bounds, recorder.original[rows]
    for _ in range(steps):
        if not len(rows):
            break
        samples, original = recorder.samples[rows], recorder.original[rows]
        lead = partial(_lead, attacked, samples, toward[rows])
        scores, gradients = attacked(pixels, lead, samples=samples)
        recorder.count(rows, backwards=int(gradients is not None))
        if gradients is None:
            break
        leads = lead(scores, torch.arange(len(rows), device=rows.device))
        here, there = _two_steps(pixels, original, leads, gradients, norm, bounds)
        lengths = [norm.length(step).clamp_min(_SHORTEST) for step in (here, there)]
        share = per_sample((lengths[0] / (lengths[0] + lengths[1])).clamp_max(bias), pixels)
        pixels = (1 - share) * (pixels + (1 + overshoot) * here) + share * (original + (1 + overshoot) * there)
        pixels = pixels.clamp(*bounds)
        scores = attacked(pixels, samples=samples).scores
        recorder.count(rows)
        fooled, distances = attacked.fooled(scores, samples), norm.length(pixels - original)
        better = fooled & (distances <= shortest[rows])
        overwrite_rows(shortest, rows, distances, better)
        recorder.record(rows, pixels, scores, better)
        recorder.finish_step()
        pixels = torch.where(per_sample(fooled, pixels) > 0, original + shrink * (pixels - original), pixels)
        if bounded:
            left = (~(recorder.fooled[rows] & recorder.radii[rows].isfinite())).nonzero().flatten()
            rows, pixels = of_rows(rows, left), of_rows(pixels, left)
        yield rows


def _lead(attacked: AttackedModel, samples: Tensor, toward: Tensor, scores: Tensor, positions: Tensor) -> Tensor:
    """By how much the target class leads the label, or the highest other class if it is the attack's target."""
    to, away = toward[positions][:, None], attacked.labels[samples[positions]][:, None]
    if attacked.target is not None:
        away = scores.detach().scatter(1, to, -torch.inf).argmax(1, keepdim=True)
    return (scores.gather(1, to) - scores.gather(1, away))[:, 0]


def _two_steps(
    pixels: Tensor, original: Tensor, leads: Tensor, gradients: Tensor, norm: Norm, bounds: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """From the points and from the samples, the smallest steps ``[n, ...]`` to where the linearized lead is zero."""
    leads_there = leads + (gradients * (original - pixels)).flatten(1).sum(1)
    here, there = [], []
    for part in torch.split(torch.arange(len(pixels), device=pixels.device), max(1, _VALUES // pixels[0].numel())):
        here.append(hyperplane_step(pixels[part], leads[part], gradients[part], norm=norm, bounds=bounds))
        there.append(hyperplane_step(original[part], leads_there[part], gradients[part], norm=norm, bounds=bounds))
    return torch.cat(here), torch.cat(there)


def hyperplane_step(
    points: Tensor, values: Tensor, gradients: Tensor, *, norm: Norm, bounds: tuple[float, float]
) -> Tensor:
    r"""The smallest step in a norm, within the bounds, to the zero of a linear function; as near as they allow.

    Every coordinate moves along the steepest direction until it meets its bound: :math:`\min(\lambda |n_i|, b_i)` with
    n of length 1 in the norm and b the room that is left, for the least :math:`\lambda` that reaches the zero.

    Args:
        points: ``[n, ...]``.
        values: of the functions there, ``[n]``.
        gradients: of the functions, ``[n, ...]``.
        norm: which is minimized, L-inf or L2.
        bounds: of every coordinate.
    """
    kind, shape, (low, high) = points.dtype, points.shape, bounds
    if points.device.type != "mps":  # which has no double precision
        points, values, gradients = points.double(), values.double(), gradients.double()
    points, values = points.flatten(1), values.nan_to_num(0, 0, 0)[:, None]
    gradients = gradients.flatten(1)
    directions = -values.sign() * norm.normalize(gradients)
    speeds = directions.abs()
    room = torch.where(directions > 0, high - points, points - low).clamp_min(0)
    limits, order = torch.where(speeds > 0, room / speeds, 0).sort(1)  # lambda at which each meets its bound
    slopes = (gradients * directions).abs().gather(1, order)
    moving = slopes.flip(1).cumsum(1).flip(1)  # slope of those that have not met theirs
    spent = (slopes * limits).cumsum(1) - slopes * limits  # by those that have
    first = (spent + limits * moving < values.abs()).sum(1, keepdim=True)
    place = first.clamp_max(limits.shape[1] - 1)
    length = (values.abs() - spent.gather(1, place)) / moving.gather(1, place).clamp_min(MIN_LENGTH**2)
    length = torch.where(first > place, limits[:, -1:], length.clamp_min(0))
    return (directions.sign() * torch.minimum(length * speeds, room)).view(shape).to(kind)
