"""The least epsilon at which an attack succeeds, searched for each sample."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attacked_model import (
    Classes,
    check_inputs,
    format_indices,
    suppress_attack_warnings,
    warn_training_mode,
)
from lightning_viz.adversarial.result import Attack, AttackResult, AttackTrace
from lightning_viz.errors import AttackWarning, InvalidArgumentError, InvalidTypeError, warn_user
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import evaluation_mode

__all__ = ["minimum_epsilon"]


def minimum_epsilon(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    attack: Attack,
    high: float | Tensor = 1.0,
    binary_search_steps: int = 10,
    progress: bool = True,
) -> AttackResult:
    r"""The smallest perturbation by which an attack fools the model, by halving each sample's epsilon.

    .. math:: \epsilon^* = \min \{\epsilon : f(\operatorname{attack}(x, \epsilon)) \ne y\}

    First the attack runs at `high`. The samples that it fools go on: to the middle between the largest epsilon that
    failed and the smallest that did not. Each step of the record is a run of the attack; its random starts go by the
    place of a sample among those that are left.

    Args:
        model: any classifier; it runs in eval mode and is left as found.
        inputs: as the model takes them, ``[N, ...]``.
        labels: the classes to lead away from, ``[N]``; what the model says of the samples if omitted.
        attack: any that takes epsilons ``[1, n]``, with its options: ``functools.partial(pgd, norm=L2,
            progress=False)``. A target is one for all samples.
        high: the largest epsilon, in pixels and the attack's norm, one or ``[N]`` (1, in L-inf the whole range of
            pixels in [0, 1]).
        binary_search_steps: halvings: epsilon is found to ``high / 2 ** searches``.
        progress: show a bar when it takes long.

    Returns:
        The attack that succeeded with the smallest epsilon of each sample, and these, ``[N]``: 0 for samples that
        needed none, infinite for those that it never fooled, which stay as they are. Queries and backwards are those
        of all runs.

    Raises:
        ValueError: inputs, classes or options that make no sense.
        TypeError: the attack does not return what attacks return.
    """
    check_inputs(inputs, None, None)
    most = _highest(high, inputs, binary_search_steps)
    rows = torch.arange(len(inputs), device=inputs.device)
    warn_training_mode(model)
    with (
        evaluation_mode(model),
        suppress_attack_warnings(),
    ):  # who is fooled within `high` and who not is said at last, by the caller's numbers
        found, epsilon = _run(attack, model, inputs, labels, most), most
        least = _Least(found)
        for number in progress_bar("minimum_epsilon", items=range(binary_search_steps + 1), shown=progress):
            least.meet(rows, found, epsilon)
            rows = least.unfinished()
            if number == binary_search_steps or not len(rows):
                break
            epsilon = least.middle(rows)
            found = _run(attack, model, inputs[rows.to(inputs.device)], least.first.labels[rows], epsilon)
    never = least.epsilon.isinf().nonzero().flatten().tolist()
    if never:
        what = f"within epsilon {most.max().item():.3g} the attack does not fool the model"
        warn_user(
            f"{what} with samples {format_indices(never)}: they stay as they are. Give a larger high=, or a stronger "
            "attack",
            AttackWarning,
        )
    return least.attacked()


class _Least:
    """Of each sample the attack that succeeded with the smallest epsilon so far.

    Attributes:
        first: the run at the largest epsilon.
        epsilon: the smallest that succeeded, ``[N]``; infinite where there is none.
    """

    def __init__(self, first: AttackResult) -> None:
        self.first = first
        self.epsilon = torch.full_like(first.record.l2[0], torch.inf).masked_fill(first.initially_misclassified, 0)
        self._failed = torch.zeros_like(self.epsilon)
        self._pixels = first.original.clone()
        self._queries, self._backwards = torch.zeros_like(first.queries), torch.zeros_like(first.backwards)
        self._now = AttackTrace(*(getattr(first.record, one.name)[0].clone() for one in fields(AttackTrace)))
        self._steps = [self._now]

    def meet(self, rows: Tensor, found: AttackResult, epsilon: Tensor) -> None:
        """A run of some samples ``[n]`` is over.

        Args:
            rows: which, ``[n]``.
            found: what it made of them.
            epsilon: that bounded it, ``[n]``.
        """
        rows, epsilon = rows.to(self._pixels.device), epsilon.to(self.epsilon)
        better = found.fooled & ~found.initially_misclassified
        self._failed[rows] = torch.where(better, self._failed[rows], epsilon)
        self.epsilon[rows] = torch.where(better, epsilon, self.epsilon[rows])
        self._pixels[rows[better]] = found.pixels[better]
        self._queries[rows] += found.queries
        self._backwards[rows] += found.backwards
        self._now = AttackTrace(*(getattr(self._now, one.name).clone() for one in fields(AttackTrace)))
        for one in fields(AttackTrace):
            getattr(self._now, one.name)[rows[better]] = getattr(found.record, one.name)[-1, better]
        self._steps.append(self._now)

    def unfinished(self) -> Tensor:
        """Samples between an epsilon that failed and one that did not, ``[n]``."""
        return ((self.epsilon > 0) & self.epsilon.isfinite()).nonzero().flatten()

    def middle(self, rows: Tensor) -> Tensor:
        """Of those two, ``[n]``."""
        return (self._failed[rows] + self.epsilon[rows]) / 2

    def attacked(self) -> AttackResult:
        """The result."""
        steps = (torch.stack([getattr(one, part.name) for one in self._steps]) for part in fields(AttackTrace))
        return replace(
            self.first,
            pixels=self._pixels,
            epsilon=self.epsilon,
            record=AttackTrace(*steps),
            queries=self._queries,
            backwards=self._backwards,
        )


def _run(attack: Attack, model: nn.Module, inputs: Tensor, labels: Classes | None, epsilon: Tensor) -> AttackResult:
    """One run of the attack, with results that do not lead with the one epsilon."""
    found = attack(model, inputs, labels, epsilon=epsilon[None])
    if not isinstance(found, AttackResult):
        kind = type(found).__name__
        raise InvalidTypeError(
            f"the attack returns {kind}: give one that takes epsilon= and returns Attacked, such as pgd"
        )
    count = len(inputs)
    if found.queries.numel() != count:
        raise InvalidArgumentError(
            f"the attack returns {list(found.queries.shape)} results for epsilons [1, {count}]: one each"
        )
    record = AttackTrace(*(getattr(found.record, one.name).reshape(-1, count) for one in fields(AttackTrace)))
    return replace(
        found,
        pixels=found.pixels.reshape(found.original.shape),
        record=record,
        queries=found.queries.reshape(count),
        backwards=found.backwards.reshape(count),
    )


def _highest(high: float | Tensor, inputs: Tensor, binary_search_steps: int) -> Tensor:
    """The largest epsilon of each sample, ``[N]``."""
    if binary_search_steps < 1:
        raise InvalidArgumentError(f"binary_search_steps={binary_search_steps}: give 1 or more")
    most = torch.as_tensor(high, dtype=torch.promote_types(inputs.dtype, torch.float32), device=inputs.device)
    if most.dim() > 1 or (most.dim() == 1 and len(most) != len(inputs)):
        raise InvalidArgumentError(
            f"high is {list(most.shape)} for {len(inputs)} samples: give a number, or [{len(inputs)}]"
        )
    if not bool(((most > 0) & most.isfinite()).all()):
        raise InvalidArgumentError(f"high={high}: give positive numbers, in pixels and the attack's norm")
    return most.expand(len(inputs))
