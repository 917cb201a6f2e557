"""The least epsilon at which an attack succeeds, searched for each sample."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attacked import Attack, Attacked, Record
from lightning_viz.adversarial.given import Classes, check_inputs, few
from lightning_viz.adversarial.victim import AttackWarning, quietly, tell_mode
from lightning_viz.attribution.batches import progress_bar
from lightning_viz.hooks.guard import looking
from lightning_viz.hooks.telling import tell


def least_norm(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    attack: Attack,
    high: float | Tensor = 1.0,
    searches: int = 10,
    progress: bool = True,
) -> Attacked:
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
        searches: halvings: epsilon is found to ``high / 2 ** searches``.
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
    most = _highest(high, inputs, searches)
    rows = torch.arange(len(inputs), device=inputs.device)
    tell_mode(model)
    with looking(model), quietly():  # who is fooled within `high` and who not is said at last, by the caller's numbers
        found, epsilon = _run(attack, model, inputs, labels, most), most
        least = _Least(found)
        for number in progress_bar("least_norm", items=range(searches + 1), shown=progress):
            least.meet(rows, found, epsilon)
            rows = least.unfinished()
            if number == searches or not len(rows):
                break
            epsilon = least.middle(rows)
            found = _run(attack, model, inputs[rows.to(inputs.device)], least.first.labels[rows], epsilon)
    never = least.epsilon.isinf().nonzero().flatten().tolist()
    if never:
        what = f"within epsilon {most.max().item():.3g} the attack does not fool the model with samples {few(never)}"
        tell(f"{what}: they stay as they are. Give a larger high=, or a stronger attack", AttackWarning)
    return least.attacked()


class _Least:
    """Of each sample the attack that succeeded with the smallest epsilon so far.

    Attributes:
        first: the run at the largest epsilon.
        epsilon: the smallest that succeeded, ``[N]``; infinite where there is none.
    """

    def __init__(self, first: Attacked) -> None:
        self.first = first
        self.epsilon = torch.full_like(first.record.l2[0], torch.inf).masked_fill(first.already, 0)
        self._failed = torch.zeros_like(self.epsilon)
        self._pixels = first.original.clone()
        self._queries, self._backwards = torch.zeros_like(first.queries), torch.zeros_like(first.backwards)
        self._now = Record(*(getattr(first.record, one.name)[0].clone() for one in fields(Record)))
        self._steps = [self._now]

    def meet(self, rows: Tensor, found: Attacked, epsilon: Tensor) -> None:
        """A run of some samples ``[n]`` is over.

        Args:
            rows: which, ``[n]``.
            found: what it made of them.
            epsilon: that bounded it, ``[n]``.
        """
        rows, epsilon = rows.to(self._pixels.device), epsilon.to(self.epsilon)
        better = found.fooled & ~found.already
        self._failed[rows] = torch.where(better, self._failed[rows], epsilon)
        self.epsilon[rows] = torch.where(better, epsilon, self.epsilon[rows])
        self._pixels[rows[better]] = found.pixels[better]
        self._queries[rows] += found.queries
        self._backwards[rows] += found.backwards
        self._now = Record(*(getattr(self._now, one.name).clone() for one in fields(Record)))
        for one in fields(Record):
            getattr(self._now, one.name)[rows[better]] = getattr(found.record, one.name)[-1, better]
        self._steps.append(self._now)

    def unfinished(self) -> Tensor:
        """Samples between an epsilon that failed and one that did not, ``[n]``."""
        return ((self.epsilon > 0) & self.epsilon.isfinite()).nonzero().flatten()

    def middle(self, rows: Tensor) -> Tensor:
        """Of those two, ``[n]``."""
        return (self._failed[rows] + self.epsilon[rows]) / 2

    def attacked(self) -> Attacked:
        """The result."""
        steps = (torch.stack([getattr(one, part.name) for one in self._steps]) for part in fields(Record))
        return replace(
            self.first,
            pixels=self._pixels,
            epsilon=self.epsilon,
            record=Record(*steps),
            queries=self._queries,
            backwards=self._backwards,
        )


def _run(attack: Attack, model: nn.Module, inputs: Tensor, labels: Classes | None, epsilon: Tensor) -> Attacked:
    """One run of the attack, with results that do not lead with the one epsilon."""
    found = attack(model, inputs, labels, epsilon=epsilon[None])
    if not isinstance(found, Attacked):
        kind = type(found).__name__
        raise TypeError(f"the attack returns {kind}: give one that takes epsilon= and returns Attacked, such as pgd")
    count = len(inputs)
    if found.queries.numel() != count:
        raise ValueError(f"the attack returns {list(found.queries.shape)} results for epsilons [1, {count}]: one each")
    record = Record(*(getattr(found.record, one.name).reshape(-1, count) for one in fields(Record)))
    return replace(
        found,
        pixels=found.pixels.reshape(found.original.shape),
        record=record,
        queries=found.queries.reshape(count),
        backwards=found.backwards.reshape(count),
    )


def _highest(high: float | Tensor, inputs: Tensor, searches: int) -> Tensor:
    """The largest epsilon of each sample, ``[N]``."""
    if searches < 1:
        raise ValueError(f"searches={searches}: give 1 or more")
    most = torch.as_tensor(high, dtype=torch.promote_types(inputs.dtype, torch.float32), device=inputs.device)
    if most.dim() > 1 or (most.dim() == 1 and len(most) != len(inputs)):
        raise ValueError(f"high is {list(most.shape)} for {len(inputs)} samples: give a number, or [{len(inputs)}]")
    if not bool(((most > 0) & most.isfinite()).all()):
        raise ValueError(f"high={high}: give positive numbers, in pixels and the attack's norm")
    return most.expand(len(inputs))
