"""DeepFool: steps to the nearest linearized decision boundary."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import Labels, shared_arguments
from lightning_viz.adversarial.attacked_model import AttackedModel, Evaluation, attacked_model
from lightning_viz.adversarial.norms import MIN_LENGTH, Norm, NormName, per_sample, resolve_norm
from lightning_viz.adversarial.result import AttackRecorder, AttackResult
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["deepfool"]

_OVERSHOOT = 1e-4  # pixels past the boundary in every step, so that the search terminates
_REMEDY = "no other class has a gradient there; try pgd with a random start, or an attack without gradients"


@shared_arguments()
def deepfool(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Tensor,
    labels: Labels | None = None,
    *,
    norm: Norm | NormName = "l2",
    steps: int = 50,
    candidates: int = 10,
    overshoot: float = 0.02,
    pixel_space: PixelSpace | None = None,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AttackResult:
    r"""DeepFool: repeated steps to the nearest boundary of the linearized model (Moosavi-Dezfooli et al., 2016).

    Each step is the smallest perturbation for which another class k of the linearized model overtakes the label y,

    .. math:: r = \frac{|z_k - z_y|}{\lVert g_k \rVert_*} \, n(g_k), \qquad g_k = \nabla_x (z_k - z_y), \qquad
        k = \arg\min_j \frac{|z_j - z_y|}{\lVert g_j \rVert_*}

    with n the steepest direction of length 1 in the norm, and the dual norm the slope along it; then

    .. math:: x_i = x_0 + (1 + \eta) \sum_{j \le i} r_j

    clamped to the pixels' bounds. A sample leaves the batch as soon as it is fooled.

    Args:
        norm: minimized norm of the perturbation, ``"l2"`` or ``"linf"``.
        steps: maximum number (50, as in the paper), each of one forward and ``candidates - 1`` backwards.
        candidates: number of classes considered, the label and those with the highest scores (10, as in the paper).
        overshoot: eta, relative overshoot past the boundary (0.02, as in the paper).
    """
    if steps < 1 or candidates < 2 or not overshoot >= 0:
        raise InvalidArgumentError(
            f"steps={steps}, candidates={candidates}, overshoot={overshoot}: pass at least 1 step, 2 candidates "
            "and an overshoot of 0 or more"
        )
    with attacked_model(
        model, inputs, labels, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as attacked:
        recorder, reduction = AttackRecorder(attacked), partial(smallest_step, norm=resolve_norm(norm))

        def first_objective(scores: Tensor, positions: Tensor) -> Tensor | None:
            return _leads(attacked, scores, positions, _rivals(attacked, scores, positions, candidates))

        evaluation, rows = attacked.evaluate_originals(first_objective, reduction), recorder.samples
        rivals = _rivals(attacked, evaluation.scores, rows, candidates)
        _record(recorder, rows, recorder.pixels.clone(), evaluation, rivals.shape[1])
        total = torch.zeros_like(recorder.pixels)
        for number in progress_bar("deepfool", items=range(steps), shown=progress):
            unfinished = ~recorder.fooled[rows]
            if evaluation.gradients is None or not bool(unfinished.any()):
                break
            rows = rows[unfinished]
            total[rows] += evaluation.gradients[unfinished]
            pixels = (recorder.original[rows] + (1 + overshoot) * total[rows]).clamp(*attacked.pixel_space.bounds)

            def objective(scores: Tensor, positions: Tensor, rows: Tensor = rows) -> Tensor | None:
                return _leads(attacked, scores, rows[positions], rivals[rows[positions]])

            is_last = number + 1 == steps
            evaluation = attacked(pixels, None if is_last else objective, reduction)
            _record(recorder, rows, pixels, evaluation, 0 if is_last else rivals.shape[1])
        return recorder.result("deepfool", _REMEDY)


def smallest_step(leads: Tensor, gradients: Tensor, *, norm: Norm) -> Tensor:
    """The smallest step ``[n, ...]`` in a norm to just beyond the zero of one of several linear functions.

    They have values `leads` ``[T, n]`` and gradients ``[T, n, ...]``; the step is 0 if all gradients are zero.
    """
    directions = norm.normalize(gradients.flatten(0, 1)).view_as(gradients)
    slopes = (gradients * directions).flatten(2).sum(2)
    distances = (leads.abs() / slopes.clamp_min(MIN_LENGTH)).nan_to_num(nan=0)  # no step where scores are NaN
    shortest, function = distances.min(0)
    directions = directions[function, torch.arange(len(function), device=function.device)]
    return per_sample(shortest + _OVERSHOOT, directions) * directions


def _rivals(attacked: AttackedModel, scores: Tensor, samples: Tensor, candidates: int) -> Tensor:
    """The classes with the highest scores besides the label, ``[n, T]``."""
    others = scores.detach().scatter(1, attacked.labels[samples, None], -torch.inf)
    return others.topk(min(candidates, scores.shape[1]) - 1).indices


def _leads(attacked: AttackedModel, scores: Tensor, samples: Tensor, rivals: Tensor) -> Tensor | None:
    """Scores of the rivals minus that of the label, ``[T, n]``; 0 for samples that are fooled."""
    fooled = attacked.fooled(scores, samples)
    if bool(fooled.all()):
        return None
    leads = scores.gather(1, rivals) - scores.gather(1, attacked.labels[samples, None])
    return leads.masked_fill(fooled[:, None], 0).T


def _record(recorder: AttackRecorder, rows: Tensor, pixels: Tensor, evaluation: Evaluation, backwards: int) -> None:
    recorder.record_step(rows, pixels, evaluation.scores)
    recorder.count(rows[~recorder.fooled[rows]], queries=0, backwards=backwards)
