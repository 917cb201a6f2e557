"""Minimum-norm attacks: DeepFool, and the smallest epsilon at which another attack succeeds."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import Labels, shared_arguments
from lightning_viz.adversarial.attacked_model import (
    AttackedModel,
    Evaluation,
    attacked_model,
    check_inputs,
    suppress_attack_warnings,
)
from lightning_viz.adversarial.norms import MIN_LENGTH, Norm, NormName, of_rows, per_sample, resolve_norm
from lightning_viz.adversarial.result import Attack, AttackRecorder, AttackResult, AttackTrace, overwrite_rows
from lightning_viz.errors import AttackWarning, InvalidArgumentError, InvalidTypeError, format_indices, warn_user
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import evaluation_mode, warn_if_training
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["deepfool", "minimum_epsilon"]

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
        unfooled: list[Tensor] = []  # places in the rows of the last pass, by its batches

        def first_objective(scores: Tensor, positions: Tensor) -> Tensor | None:
            fooled = attacked.fooled(scores, positions)
            unfooled.append(positions[~fooled])
            if not len(unfooled[-1]):
                return None
            return _leads(attacked, scores, positions, attacked.rivals(scores, positions, candidates - 1), fooled)

        evaluation, rows = attacked.evaluate_originals(first_objective, reduction), recorder.samples
        rivals = attacked.rivals(evaluation.scores, rows, candidates - 1)
        _record(recorder, rows, recorder.pixels.clone(), evaluation, rivals.shape[1])
        total = torch.zeros_like(recorder.pixels)
        for number in progress_bar("deepfool", items=range(steps), shown=progress):
            left = torch.cat(unfooled)
            unfooled.clear()
            if evaluation.gradients is None or not len(left):
                break
            rows = of_rows(rows, left)
            total[rows] += of_rows(evaluation.gradients, left)
            pixels = (recorder.original[rows] + (1 + overshoot) * total[rows]).clamp(*attacked.pixel_space.bounds)

            def objective(scores: Tensor, positions: Tensor, rows: Tensor = rows) -> Tensor | None:
                samples = rows[positions]
                fooled = attacked.fooled(scores, samples)
                unfooled.append(positions[~fooled])
                return _leads(attacked, scores, samples, rivals[samples], fooled) if len(unfooled[-1]) else None

            is_last = number + 1 == steps
            evaluation = attacked(pixels, None if is_last else objective, reduction)
            _record(recorder, rows, pixels, evaluation, 0 if is_last else rivals.shape[1])
        return recorder.result("deepfool", _REMEDY)


def smallest_step(leads: Tensor, gradients: Tensor, *, norm: Norm) -> Tensor:
    """The smallest step ``[n, ...]`` in a norm to just beyond the zero of one of several linear functions.

    The step is 0 if all gradients are zero.

    Args:
        leads: values of the T functions, ``[T, n]``.
        gradients: of the functions, ``[T, n, ...]``.
        norm: in which the step is smallest.
    """
    directions = norm.normalize(gradients.flatten(0, 1)).view_as(gradients)
    slopes = (gradients * directions).flatten(2).sum(2)
    distances = (leads.abs() / slopes.clamp_min(MIN_LENGTH)).nan_to_num(nan=0)  # no step where scores are NaN
    shortest, function = distances.min(0)
    directions = directions[function, torch.arange(len(function), device=function.device)]
    return per_sample(shortest + _OVERSHOOT, directions) * directions


def _leads(attacked: AttackedModel, scores: Tensor, samples: Tensor, rivals: Tensor, fooled: Tensor) -> Tensor:
    """Scores of the rivals minus that of the label, ``[T, n]``; 0 for samples that are fooled."""
    leads = scores.gather(1, rivals) - scores.gather(1, attacked.labels[samples, None])
    return leads.masked_fill(fooled[:, None], 0).T


def _record(recorder: AttackRecorder, rows: Tensor, pixels: Tensor, evaluation: Evaluation, backwards: int) -> None:
    recorder.record_step(rows, pixels, evaluation.scores)
    recorder.count(rows, queries=0, backwards=backwards * (~recorder.fooled[rows]).long())


@shared_arguments()
def minimum_epsilon(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Tensor,
    labels: Labels | None = None,
    *,
    attack: Attack,
    high: float | Tensor = 1.0,
    binary_search_steps: int = 10,
    progress: bool = True,
) -> AttackResult:
    r"""Minimum epsilon: binary search for the smallest epsilon of each sample at which an attack succeeds.

    .. math:: \epsilon^* = \min \{\epsilon : f(\operatorname{attack}(x, \epsilon)) \ne y\}

    The first run of the attack is at `high`. Each later run takes, for the samples that have been fooled, the mean of
    the largest epsilon that failed and the smallest that succeeded. Each step of the record is a run; the random starts
    of a run depend on a sample's position among those that are left.

    Args:
        attack: takes epsilons ``[1, n]``, with its options preset: ``functools.partial(pgd, norm=L2, progress=False)``.
            A target must be the same for all samples.
        high: the largest epsilon, in pixels and the attack's norm, one or ``[N]`` (1, in L-inf the whole range of
            pixels in [0, 1]).
        binary_search_steps: number of halvings; the precision is ``high / 2 ** binary_search_steps``.

    Returns:
        For each sample the successful attack with the smallest epsilon, and these epsilons ``[N]``: 0 for samples that
        were misclassified from the start, infinite for samples that were never fooled, which stay unchanged. Queries
        and backwards are summed over all runs.

    Raises:
        InvalidArgumentError: inputs, classes or options are invalid.
        InvalidTypeError: the attack does not return an `AttackResult`.
    """
    check_inputs(inputs, None, None)
    highest = _highest(high, inputs, binary_search_steps)
    rows = torch.arange(len(inputs), device=inputs.device)
    warn_if_training(model, AttackWarning)
    with evaluation_mode(model), suppress_attack_warnings():  # samples are reported at the end, by the caller's indices
        result, epsilon = _run(attack, model, inputs, labels, highest), highest
        smallest = _SmallestEpsilon(result)
        for number in progress_bar("minimum_epsilon", items=range(binary_search_steps + 1), shown=progress):
            smallest.update(rows, result, epsilon)
            rows = smallest.unfinished()
            if number == binary_search_steps or not len(rows):
                break
            epsilon = smallest.middle(rows)
            result = _run(attack, model, inputs[rows.to(inputs.device)], smallest.first.labels[rows], epsilon)
    never = smallest.epsilon.isinf().nonzero().flatten().tolist()
    if never:
        warn_user(
            f"within epsilon {highest.max().item():.3g} the attack does not fool the model on samples "
            f"{format_indices(never)}, which stay unchanged; try a larger high=, or a stronger attack",
            AttackWarning,
        )
    return smallest.result()


class _SmallestEpsilon:
    """For each sample the successful attack with the smallest epsilon so far.

    Attributes:
        first: the run at the largest epsilon.
        epsilon: the smallest that succeeded, ``[N]``; infinite if none did.
    """

    def __init__(self, first: AttackResult) -> None:
        self.first = first
        self.epsilon = torch.full_like(first.record.l2[0], torch.inf).masked_fill(first.initially_misclassified, 0)
        self._failed = torch.zeros_like(self.epsilon)
        self._pixels = first.original.clone()
        self._queries, self._backwards = torch.zeros_like(first.queries), torch.zeros_like(first.backwards)
        self._steps = [first.record.map(lambda steps: steps[0].clone())]

    def update(self, rows: Tensor, result: AttackResult, epsilon: Tensor) -> None:
        """Add a run of some samples, with the epsilon ``[n]`` of each."""
        rows, epsilon = rows.to(self._pixels.device), epsilon.to(self.epsilon)
        better = result.fooled & ~result.initially_misclassified
        self._failed[rows] = torch.where(better, self._failed[rows], epsilon)
        self.epsilon[rows] = torch.where(better, epsilon, self.epsilon[rows])
        overwrite_rows(self._pixels, rows, result.pixels, better)
        self._queries[rows] += result.queries
        self._backwards[rows] += result.backwards
        self._steps.append(self._steps[-1].map(torch.clone))
        self._steps[-1].assign(rows, result.record.map(lambda steps: steps[-1]), better)

    def unfinished(self) -> Tensor:
        """Samples between an epsilon that failed and one that succeeded, ``[n]``."""
        return ((self.epsilon > 0) & self.epsilon.isfinite()).nonzero().flatten()

    def middle(self, rows: Tensor) -> Tensor:
        """The mean of those two epsilons, ``[n]``."""
        return (self._failed[rows] + self.epsilon[rows]) / 2

    def result(self) -> AttackResult:
        """The attack with the smallest epsilon of each sample."""
        return replace(
            self.first,
            pixels=self._pixels,
            epsilon=self.epsilon,
            record=AttackTrace.stack(self._steps),
            queries=self._queries,
            backwards=self._backwards,
        )


def _run(attack: Attack, model: nn.Module, inputs: Tensor, labels: Labels | None, epsilon: Tensor) -> AttackResult:
    """One run of the attack, without the leading dimension of epsilons."""
    result = attack(model, inputs, labels, epsilon=epsilon[None])
    if not isinstance(result, AttackResult):
        raise InvalidTypeError(
            f"the attack returns {type(result).__name__}; pass one that takes epsilon= and returns an AttackResult"
        )
    count = len(inputs)
    if result.queries.numel() != count:
        raise InvalidArgumentError(
            f"the attack returns {list(result.queries.shape)} for epsilons [1, {count}]; it must return one each"
        )
    return replace(
        result,
        pixels=result.pixels.reshape(result.original.shape),
        record=result.record.map(lambda steps: steps.reshape(-1, count)),
        queries=result.queries.reshape(count),
        backwards=result.backwards.reshape(count),
    )


def _highest(high: float | Tensor, inputs: Tensor, binary_search_steps: int) -> Tensor:
    """The largest epsilon of each sample, ``[N]``."""
    if binary_search_steps < 1:
        raise InvalidArgumentError(f"binary_search_steps={binary_search_steps} must be at least 1")
    highest = torch.as_tensor(high, dtype=torch.promote_types(inputs.dtype, torch.float32), device=inputs.device)
    if highest.dim() > 1 or (highest.dim() == 1 and len(highest) != len(inputs)):
        raise InvalidArgumentError(f"high is {list(highest.shape)} for {len(inputs)} samples; pass one, or one each")
    if not bool(((highest > 0) & highest.isfinite()).all()):
        raise InvalidArgumentError(f"high={high} must be positive and finite, in pixels and the attack's norm")
    return highest.expand(len(inputs))
