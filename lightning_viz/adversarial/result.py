"""The record of an attack: what every step made of every sample, and where it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lightning_viz.adversarial.attacked_model import AttackedModel, format_indices
from lightning_viz.adversarial.norms import L2, LINF, SMALLEST, cross_entropy, of_rows
from lightning_viz.errors import AttackWarning, warn_user
from lightning_viz.pixels import PixelSpace

__all__ = ["AttackResult", "AttackTrace"]

_STILL = 1e-6  # of the pixels' range: who moved less has not moved


@dataclass(frozen=True)
class AttackTrace:
    """What each step made of each sample, ``[S, N]``, the sample as it is first; ``[S, E, N]`` for E epsilons.

    A sample that is done stays as it is.

    Attributes:
        classes: what the model says, int64; -1 where that is not finite.
        confidences: its softmax probability.
        losses: cross entropy of the label, in nats.
        l2: length of the perturbation, in pixels.
        linf: its largest change of a pixel.
        relative: its length by that of the sample.
    """

    classes: Tensor
    confidences: Tensor
    losses: Tensor
    l2: Tensor
    linf: Tensor
    relative: Tensor


@dataclass(frozen=True)
class AttackResult:
    """Samples, and what an attack made of them. Where several epsilons were asked for, results lead with E.

    Attributes:
        original: the samples' pixels, ``[N, ...]``.
        pixels: after the attack, ``[N, ...]`` or ``[E, N, ...]``.
        labels: the right classes, ``[N]``, or what the model said of the samples.
        target: the classes that were to be seen, ``[N]``; None for any but the label.
        epsilon: what bounded the perturbations, one or ``[E]`` or ``[E, N]``; None where nothing did.
        record: step by step.
        queries: how often the model was shown each sample, ``[N]`` or ``[E, N]``.
        backwards: how often a gradient was taken towards it.
        pixel_space: how inputs map to pixels.
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
        """The attacked samples as the model takes them."""
        flat = self.pixels.reshape(-1, *self.original.shape[1:])
        return self.pixel_space.to_inputs(flat).view_as(self.pixels).to(self.dtype)

    @property
    def perturbations(self) -> Tensor:
        """By how much pixels changed."""
        return self.pixels - self.original

    @property
    def fooled(self) -> Tensor:
        """Whether the model says at last what the attack wanted; also of samples that it had wrong from the start."""
        return self._wanted(self.record.classes[-1])

    @property
    def initially_misclassified(self) -> Tensor:
        """Whether it did so before the attack, ``[N]``."""
        return self._wanted(self.record.classes[0]).reshape(-1, len(self.labels))[0]

    @property
    def first_success_step(self) -> Tensor:
        """The step by which each sample was first fooled; -1 for never."""
        wanted = self._wanted(self.record.classes)
        return torch.where(wanted.any(0), wanted.int().argmax(0), -1)

    @property
    def success(self) -> Tensor:
        """Of the samples that were not fooled already, the share that is now; NaN if there are none."""
        return self.fooled[..., ~self.initially_misclassified].float().mean(-1)

    @property
    def accuracy(self) -> Tensor:
        """The share of all samples that the model still has right (of a target: that are not led to it)."""
        return 1 - self.fooled.float().mean(-1)

    def _wanted(self, classes: Tensor) -> Tensor:
        wanted = classes != self.labels if self.target is None else classes == self.target
        return wanted & (classes >= 0)


Attack = Callable[..., AttackResult]
"""An attack as others use it, ``attack(model, inputs, labels, ...)``; its own options are preset by
`functools.partial`."""


class AttackRecorder:
    """Keeps the record while an attack goes on. A row is a sample under one of the epsilons: sample ``row % N``.

    Attributes:
        pixels: of every row as it is now, ``[R, ...]``.
        fooled: of every row as it is now, ``[R]``.
        flat: of every row whether nothing led up where it last looked, ``[R]``.
        samples: of every row, ``[R]``.
    """

    def __init__(self, under_attack: AttackedModel, copies: int = 1) -> None:
        count = len(under_attack.pixels)
        self._victim = under_attack
        self.samples = torch.arange(count, device=under_attack.pixels.device).repeat(copies)
        self.original = under_attack.pixels[self.samples]
        self.pixels = self.original.clone()
        self._lengths = L2.length(self.original)
        nothing = self._lengths.new_zeros(copies * count)
        self._now = AttackTrace(self.samples.clone(), *(nothing.clone() for _ in fields(AttackTrace)[1:]))
        self._steps: list[AttackTrace] = []
        self.queries, self.backwards = self.samples.new_zeros((2, copies * count))
        self.fooled, self.flat, self._lost = torch.zeros((3, copies * count), dtype=torch.bool, device=nothing.device)

    def begin(self, scores: Tensor) -> None:
        """The samples as they are have been seen.

        Args:
            scores: of each sample, ``[N, K]``.
        """
        every = torch.arange(len(self.samples), device=self.samples.device)
        self.see(every, self.original, scores[self.samples])
        self.asked(every)
        self.step()

    def see(self, rows: Tensor, pixels: Tensor, scores: Tensor) -> None:
        """Some rows have moved, and the model has answered.

        Args:
            rows: which, ``[n]``.
            pixels: their images, ``[n, ...]``.
            scores: of those, ``[n, K]``.
        """
        samples, moved = self.samples[rows], pixels - of_rows(self.original, rows)
        (confidences, classes), finite = scores.softmax(1).max(1), scores.isfinite().all(1)
        length = L2.length(moved)
        seen = AttackTrace(
            classes=classes.where(finite, -1),
            confidences=confidences,
            losses=cross_entropy(scores, self._victim.labels[samples]),
            l2=length,
            linf=LINF.length(moved),
            relative=length / self._lengths[rows].clamp_min(SMALLEST),
        )
        for one in fields(AttackTrace):
            now = getattr(self._now, one.name)
            now[rows] = getattr(seen, one.name).to(now.dtype)
        self.pixels[rows] = pixels
        self.fooled[rows] = self._victim.fooled(scores, samples)
        self._lost[rows] |= ~finite

    def asked(self, rows: Tensor, *, queries: int = 1, backwards: int = 0) -> None:
        """Count what the model was asked of some rows.

        Args:
            rows: which, ``[n]``, or a mask ``[R]``.
            queries: forwards of each.
            backwards: of each.
        """
        self.queries[rows] += queries
        self.backwards[rows] += backwards

    def step(self) -> None:
        """A step is over: write down how all rows stand."""
        self._steps.append(AttackTrace(*(getattr(self._now, one.name).clone() for one in fields(AttackTrace))))

    def attacked(self, epsilon: Tensor | None = None, *, name: str, lead: bool = False, unmoved: str) -> AttackResult:
        """The result, on the samples' device; says which samples have not moved.

        Args:
            epsilon: that bounded the rows, as in the result.
            name: of the attack.
            lead: whether results lead with the epsilons.
            unmoved: why samples may not have moved, and what to do.
        """
        under_attack, count = self._victim, len(self._victim.pixels)

        def shaped(rows: Tensor, before: int = 0) -> Tensor:
            shape = (*rows.shape[:before], -1, count) if lead else (*rows.shape[:before], count)
            return rows.reshape(*shape, *rows.shape[before + 1 :])

        radii = torch.ones_like(self._lengths) if epsilon is None else _of_rows(epsilon, count, lead)
        self._tell(name, unmoved, radii > 0)
        steps = (
            shaped(torch.stack([getattr(one, part.name) for one in self._steps]), 1) for part in fields(AttackTrace)
        )
        return AttackResult(
            original=under_attack.pixels,
            pixels=shaped(self.pixels),
            labels=under_attack.labels,
            target=under_attack.target,
            epsilon=epsilon,
            record=AttackTrace(*steps),
            queries=shaped(self.queries),
            backwards=shaped(self.backwards),
            pixel_space=under_attack.pixel_space,
            dtype=under_attack.dtype,
        )

    def _tell(self, name: str, unmoved: str, free: Tensor) -> None:
        """Say of samples that may move, and were not fooled, why they were not."""
        low, high = self._victim.pixel_space.bounds
        still = self._now.linf <= _STILL * (high - low)
        said = {
            f"the model returns NaN or infinity for what {name} made of": (self._lost, "this does not count as fooled"),
            f"{name} has not moved": (still & free & ~self.fooled & ~self._lost, unmoved),
            f"{name} found the loss flat around": (self.flat & free & ~self.fooled & ~still, unmoved),
        }
        for what, (rows, why) in said.items():
            if len(self._steps) > 1 and bool(rows.any()):
                samples = format_indices(sorted(set(self.samples[rows].tolist())))
                warn_user(f"{what} samples {samples}: {why}", AttackWarning)


def _of_rows(epsilon: Tensor, count: int, lead: bool) -> Tensor:
    """The epsilon of each row ``[R]``, of one, of one for each sample, or of those that lead."""
    each = epsilon.reshape(-1, 1) if lead and epsilon.dim() < 2 else epsilon
    return (each.expand(-1, count) if lead else each.expand(count)).reshape(-1)
