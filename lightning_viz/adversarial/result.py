"""The result of an attack: adversarial examples, and a trace of every step that led to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from typing_extensions import Self

from lightning_viz.adversarial.attack_arguments import Epsilon
from lightning_viz.adversarial.attacked_model import AttackedModel, checked_epsilons
from lightning_viz.adversarial.norms import L2, LINF, MIN_LENGTH, Norm, cross_entropy, of_rows, per_sample
from lightning_viz.errors import AttackWarning, format_indices, warn_user
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_display

__all__ = ["AttackResult", "AttackTrace"]

_UNCHANGED = 1e-6  # of the pixels' range: perturbations below this count as none


@dataclass(frozen=True)
class AttackTrace:
    """Every sample after every step, ``[S, N]``, or ``[S, E, N]`` for E epsilons; step 0 is the unmodified sample.

    A sample keeps its values from the step on at which the attack is done with it.

    Attributes:
        classes: predicted class, int64; -1 if the scores are not finite.
        confidences: its softmax probability.
        losses: cross entropy of the label, in nats.
        l2: L2 norm of the perturbation, in pixels.
        linf: its L-inf norm, in pixels.
        relative: its L2 norm divided by that of the sample.
    """

    classes: Tensor
    confidences: Tensor
    losses: Tensor
    l2: Tensor
    linf: Tensor
    relative: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> AttackTrace:
        """The trace with a function applied to every tensor.

        Args:
            function: from a tensor to a tensor.
        """
        return AttackTrace(*(function(getattr(self, field.name)) for field in fields(self)))

    def assign(self, rows: Tensor, values: AttackTrace, where: Tensor | None = None) -> None:
        """Overwrite some rows in place.

        Args:
            rows: indices, ``[n]``.
            values: of these, ``[n]``.
            where: which of these, a mask ``[n]``; all if omitted.
        """
        for field in fields(self):
            overwrite_rows(getattr(self, field.name), rows, getattr(values, field.name), where)

    @classmethod
    def stack(cls, steps: Sequence[AttackTrace]) -> AttackTrace:
        """One trace from the traces of single steps.

        Args:
            steps: in order.
        """
        return cls(*(torch.stack([getattr(step, field.name) for step in steps]) for field in fields(cls)))


def overwrite_rows(tensor: Tensor, rows: Tensor, values: Tensor, where: Tensor | None = None) -> None:
    """Overwrite some rows of a tensor in place, without the CPU's asking the device how many.

    Args:
        tensor: ``[R, ...]``.
        rows: indices, ``[n]``.
        values: of these, ``[n, ...]``.
        where: which of these, a mask ``[n]``; all if omitted.
    """
    values = values.to(tensor.dtype)
    if where is not None:
        values = torch.where(where.view(-1, *[1] * (values.dim() - 1)), values, tensor[rows])
    tensor[rows] = values


@html_display("fooled", "epsilon", "labels", "target", "queries", "backwards", images=("original", "pixels"))
@dataclass(frozen=True)
class AttackResult:
    """Samples and their adversarial examples. If several epsilons were given, results have a leading dimension E.

    Attributes:
        original: the samples' pixels, ``[N, ...]``.
        pixels: after the attack, ``[N, ...]`` or ``[E, N, ...]``.
        labels: the true classes, ``[N]``, or the model's predictions for the samples.
        target: the target classes, ``[N]``; None for an untargeted attack.
        epsilon: bound of the perturbations, a scalar, ``[E]`` or ``[E, N]``; None for an unbounded attack.
        record: the trace of all steps.
        queries: forward passes of each sample, ``[N]`` or ``[E, N]``.
        backwards: backward passes of each sample.
        pixel_space: maps inputs to pixels.
        dtype: the model's precision.
    """

    original: Tensor
    pixels: Tensor
    labels: Tensor
    target: Tensor | None
    epsilon: Tensor | None
    record: AttackTrace
    queries: Tensor
    backwards: Tensor
    pixel_space: PixelSpace
    dtype: torch.dtype

    @property
    def inputs(self) -> Tensor:
        """The adversarial examples as the model takes them."""
        flat = self.pixels.reshape(-1, *self.original.shape[1:])
        return self.pixel_space.to_inputs(flat).view_as(self.pixels).to(self.dtype)

    @property
    def perturbations(self) -> Tensor:
        """Difference of the adversarial pixels from the original ones."""
        return self.pixels - self.original

    @property
    def fooled(self) -> Tensor:
        """Whether the final prediction is what the attack aims at; also of samples misclassified from the start."""
        return self._succeeds(self.record.classes[-1])

    @property
    def initially_misclassified(self) -> Tensor:
        """Whether the prediction already was before the attack, ``[N]``."""
        return self._succeeds(self.record.classes[0]).reshape(-1, len(self.labels))[0]

    @property
    def first_success_step(self) -> Tensor:
        """The first step at which the attack succeeds on each sample; -1 if it never does."""
        success = self._succeeds(self.record.classes)
        return torch.where(success.any(0), success.int().argmax(0), -1)

    @property
    def success(self) -> Tensor:
        """Fraction fooled of the samples that were not misclassified from the start; NaN if there are none."""
        return self.fooled[..., ~self.initially_misclassified].float().mean(-1)

    @property
    def accuracy(self) -> Tensor:
        """Fraction of all samples still classified correctly (with a target: not classified as the target)."""
        return 1 - self.fooled.float().mean(-1)

    def _succeeds(self, classes: Tensor) -> Tensor:
        success = classes != self.labels if self.target is None else classes == self.target
        return success & (classes >= 0)


Attack = Callable[..., AttackResult]
"""An attack as an argument of another function, called as ``attack(model, inputs, labels, ...)``; preset its own
options with `functools.partial`."""


class AttackRecorder:
    """Records an attack step by step. A row is a sample under one of the epsilons: sample ``row % N``.

    Attributes:
        attacked: the model.
        original: unmodified pixels of every row, ``[R, ...]``.
        pixels: current pixels of every row, ``[R, ...]``.
        radii: epsilon of every row, ``[R]``; infinite for an unbounded attack.
        fooled: whether the attack succeeds on each row, ``[R]``.
        flat: whether the last gradient of each row was zero, ``[R]``.
        samples: sample index of every row, ``[R]``.
    """

    def __init__(
        self,
        attacked: AttackedModel,
        epsilon: Tensor | None = None,
        *,
        copies: int | None = None,
        norm: Norm = LINF,
    ) -> None:
        """Start from the unmodified samples.

        Args:
            attacked: the model.
            epsilon: bound of the rows, as in the result.
            copies: of each sample, in a leading dimension of the result; no such dimension if omitted.
            norm: of the bound.
        """
        count, rows = len(attacked.pixels), (copies or 1) * len(attacked.pixels)
        self.attacked, self._epsilon, self._norm = attacked, epsilon, norm
        self._leading = (count,) if copies is None else (copies, count)
        self.samples = torch.arange(count, device=attacked.pixels.device).repeat(copies or 1)
        self.original = attacked.pixels[self.samples]
        self.pixels = self.original.clone()
        self._lengths = L2.length(self.original)
        zeros = self._lengths.new_zeros(rows)
        bounds = zeros + torch.inf if epsilon is None else epsilon
        by_copy = copies is not None and bounds.dim() < 2  # one epsilon for each copy, not for each sample
        self.radii = (bounds.reshape(-1, 1) if by_copy else bounds).expand(copies or 1, count).reshape(-1)
        self._current = AttackTrace(self.samples.clone(), *(zeros.clone() for _ in fields(AttackTrace)[1:]))
        self._steps: list[AttackTrace] = []
        self.queries, self.backwards = self.samples.new_zeros((2, rows))
        self.fooled, self.flat, self._non_finite = zeros.new_zeros((3, rows), dtype=torch.bool)

    @classmethod
    def in_balls(cls, attacked: AttackedModel, epsilon: Epsilon, norm: Norm) -> Self:
        """The recorder of an attack that stays within epsilon in a norm; each of several epsilons has its rows."""
        epsilons = checked_epsilons(epsilon, attacked, norm)
        return cls(attacked, epsilons, copies=len(epsilons) if epsilons.dim() else None, norm=norm)

    @property
    def rows(self) -> Tensor:
        """Indices of all rows, ``[R]``."""
        return torch.arange(len(self.samples), device=self.samples.device)

    def project(self, pixels: Tensor, rows: Tensor) -> Tensor:
        """The nearest pixels in the balls of some rows, clamped to the pixels' bounds, ``[n, ...]``."""
        samples = of_rows(self.original, rows)
        inside = samples + self._norm.project(pixels - samples, self.radii[rows])
        return inside.clamp(*self.attacked.pixel_space.bounds)

    def displaced(self, perturbations: Tensor, rows: Tensor) -> Tensor:
        """Pixels of rows after perturbations ``[N, ...]`` of their samples, in units of epsilon."""
        offset = perturbations[self.samples[rows]]
        return self.project(self.original[rows] + per_sample(self.radii[rows], offset) * offset, rows)

    def record_originals(self, scores: Tensor) -> None:
        """Record the unmodified samples, with scores ``[N, K]``, as step 0."""
        self.record_step(self.rows, self.original, scores[self.samples])

    def record_step(self, rows: Tensor, pixels: Tensor, scores: Tensor) -> None:
        """Record one forward pass of some rows as a step."""
        self.record(rows, pixels, scores)
        self.count(rows)
        self.finish_step()

    def record(self, rows: Tensor, pixels: Tensor, scores: Tensor, where: Tensor | None = None) -> None:
        """Set the current pixels ``[n, ...]`` of some rows, and measure them by their scores ``[n, K]``.

        Args:
            rows: indices, ``[n]``.
            pixels: of these.
            scores: of these.
            where: which of these, a mask ``[n]``; all if omitted.
        """
        if where is not None and where.device.type == "cpu":  # where nobody waits to know how many there are
            rows, pixels, scores, where = rows[where], pixels[where], scores[where], None
        samples, perturbations = self.samples[rows], pixels - of_rows(self.original, rows)
        (confidences, classes), finite = scores.softmax(1).max(1), scores.isfinite().all(1)
        length = L2.length(perturbations)
        values = AttackTrace(
            classes=classes.where(finite, -1),
            confidences=confidences,
            losses=cross_entropy(scores, self.attacked.labels[samples]),
            l2=length,
            linf=LINF.length(perturbations),
            relative=length / self._lengths[rows].clamp_min(MIN_LENGTH),
        )
        self._current.assign(rows, values, where)
        overwrite_rows(self.pixels, rows, pixels, where)
        overwrite_rows(self.fooled, rows, self.attacked.fooled(scores, samples), where)
        overwrite_rows(self._non_finite, rows, self._non_finite[rows] | ~finite, where)

    def count(self, rows: Tensor, *, queries: int = 1, backwards: int | Tensor = 0) -> None:
        """Add to the forward and backward passes of rows, indices ``[n]``; the backwards may be of each, ``[n]``."""
        self.queries[rows] += queries
        self.backwards[rows] += backwards

    def finish_step(self) -> None:
        """Append the current values of all rows to the trace."""
        self._steps.append(self._current.map(torch.clone))

    def result(self, name: str, remedy: str) -> AttackResult:
        """The result, on the samples' device; warns of samples on which the attack had no effect.

        Args:
            name: of the attack.
            remedy: why samples may be unchanged, and what to do.
        """
        attacked, leading = self.attacked, self._leading
        self._warn(name, remedy)
        return AttackResult(
            original=attacked.pixels,
            pixels=self.pixels.reshape(*leading, *self.pixels.shape[1:]),
            labels=attacked.labels,
            target=attacked.target,
            epsilon=self._epsilon,
            record=AttackTrace.stack(self._steps).map(lambda steps: steps.reshape(-1, *leading)),
            queries=self.queries.reshape(leading),
            backwards=self.backwards.reshape(leading),
            pixel_space=attacked.pixel_space,
            dtype=attacked.dtype,
        )

    def _warn(self, name: str, remedy: str) -> None:
        """Warn of rows that may change but were not fooled, with the reason."""
        low, high = self.attacked.pixel_space.bounds
        unchanged = self._current.linf <= _UNCHANGED * (high - low)
        failed = (self.radii > 0) & ~self.fooled
        warnings = (
            (self._non_finite, f"{name}: NaN or infinity for perturbed", "they do not count as fooled"),
            (unchanged & failed & ~self._non_finite, f"{name} left unchanged", remedy),
            (self.flat & failed & ~unchanged, f"{name} reached a flat loss at", remedy),
        )
        occurs = torch.stack([rows.any() for rows, _, _ in warnings]).tolist()  # a device is asked once
        for occurred, (rows, problem, explanation) in zip(occurs, warnings, strict=True):
            if occurred and len(self._steps) > 1:
                samples = format_indices(sorted(set(self.samples[rows].tolist())))
                warn_user(f"{problem} samples {samples}: {explanation}", AttackWarning)
