"""The record of an attack: what every step made of every sample, and where it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lightning_viz.adversarial.norms import L2, LINF
from lightning_viz.adversarial.victim import AttackWarning, Victim, cross_entropy, few
from lightning_viz.hooks.telling import tell
from lightning_viz.pixels import PixelSpace

_UNMOVED = "where the loss is flat nothing leads up. Take a random start, another loss, or an attack without gradients"


@dataclass(frozen=True)
class Record:
    """What each step made of each sample, ``[S, N]``, the sample as it is first; ``[S, E, N]`` for E epsilons.

    A sample that is done stays as it is.

    Attributes:
        classes: what the model says, int64.
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
class Attacked:
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
        space: how inputs map to pixels.
    """

    original: Tensor
    pixels: Tensor
    labels: Tensor
    target: Tensor | None
    epsilon: Tensor | None
    record: Record
    queries: Tensor
    backwards: Tensor
    space: PixelSpace

    @property
    def inputs(self) -> Tensor:
        """The attacked samples as the model takes them."""
        flat = self.pixels.reshape(-1, *self.original.shape[1:])
        return self.space.to_inputs(flat).view_as(self.pixels)

    @property
    def perturbations(self) -> Tensor:
        """By how much pixels changed."""
        return self.pixels - self.original

    @property
    def fooled(self) -> Tensor:
        """Whether the model says at last what the attack wanted; also of samples that it had wrong from the start."""
        return self._wanted(self.record.classes[-1])

    @property
    def already(self) -> Tensor:
        """Whether it did so before the attack, ``[N]``."""
        return self._wanted(self.record.classes[0]).reshape(-1, len(self.labels))[0]

    @property
    def flipped_at(self) -> Tensor:
        """The step by which each sample was first fooled; -1 for never."""
        wanted = self._wanted(self.record.classes)
        return torch.where(wanted.any(0), wanted.int().argmax(0), -1)

    @property
    def success(self) -> Tensor:
        """Of the samples that were not fooled already, the share that is now; NaN if there are none."""
        return self.fooled[..., ~self.already].float().mean(-1)

    @property
    def accuracy(self) -> Tensor:
        """The share of all samples that the model still has right (of a target: that are not led to it)."""
        return 1 - self.fooled.float().mean(-1)

    def _wanted(self, classes: Tensor) -> Tensor:
        return classes != self.labels if self.target is None else classes == self.target


Attack = Callable[..., Attacked]
"""An attack as others use it, ``attack(model, inputs, labels, ...)``; its own options are preset by
`functools.partial`."""


class Trail:
    """Keeps the record while an attack goes on. A row is a sample under one of the epsilons: sample ``row % N``.

    Attributes:
        pixels: of every row as it is now, ``[R, ...]``.
        fooled: of every row as it is now, ``[R]``.
        samples: of every row, ``[R]``.
    """

    def __init__(self, victim: Victim, copies: int = 1) -> None:
        count = len(victim.pixels)
        self._victim = victim
        self.samples = torch.arange(count, device=victim.pixels.device).repeat(copies)
        self.original = victim.pixels[self.samples]
        self.pixels = self.original.clone()
        self._lengths = L2.length(self.original)
        nothing = self._lengths.new_zeros(copies * count)
        self._now = Record(self.samples.clone(), *(nothing.clone() for _ in fields(Record)[1:]))
        self._steps: list[Record] = []
        self.queries, self.backwards = self.samples.new_zeros((2, copies * count))
        self.fooled = torch.zeros_like(nothing, dtype=torch.bool)

    def see(self, rows: Tensor, pixels: Tensor, scores: Tensor) -> None:
        """Some rows have moved, and the model has answered.

        Args:
            rows: which, ``[n]``.
            pixels: their images, ``[n, ...]``.
            scores: of those, ``[n, K]``.
        """
        samples, moved = self.samples[rows], pixels - self.original[rows]
        confidences, classes = scores.softmax(1).max(1)
        length = L2.length(moved)
        seen = Record(
            classes=classes,
            confidences=confidences,
            losses=cross_entropy(scores, self._victim.labels[samples]),
            l2=length,
            linf=LINF.length(moved),
            relative=length / self._lengths[rows].clamp_min(1e-12),
        )
        for one in fields(Record):
            now = getattr(self._now, one.name)
            now[rows] = getattr(seen, one.name).to(now.dtype)
        self.pixels[rows] = pixels
        self.fooled[rows] = self._victim.fooled(scores, samples)

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
        self._steps.append(Record(*(getattr(self._now, one.name).clone() for one in fields(Record))))

    def attacked(
        self, epsilon: Tensor | None = None, *, name: str, lead: bool = False, unmoved: str = _UNMOVED
    ) -> Attacked:
        """The result, on the samples' device; says which samples have not moved.

        Args:
            epsilon: that bounded the rows, as in the result.
            name: of the attack.
            lead: whether results lead with the epsilons.
            unmoved: why samples may not have moved, and what to do.
        """
        victim, count = self._victim, len(self._victim.pixels)

        def shaped(rows: Tensor, before: int = 0) -> Tensor:
            shape = (*rows.shape[:before], -1, count) if lead else (*rows.shape[:before], count)
            return rows.reshape(*shape, *rows.shape[before + 1 :])

        still = ~self.fooled & (self._now.linf == 0)
        if epsilon is not None:
            still &= (epsilon.reshape(-1, 1) if epsilon.dim() < 2 else epsilon).expand(-1, count).reshape(-1) > 0
        if len(self._steps) > 1 and bool(still.any()):
            samples = few(sorted(set(self.samples[still].tolist())))
            tell(f"{name} has not moved samples {samples}: {unmoved}", AttackWarning)
        steps = (shaped(torch.stack([getattr(one, part.name) for one in self._steps]), 1) for part in fields(Record))
        return Attacked(
            original=victim.pixels,
            pixels=shaped(self.pixels),
            labels=victim.labels,
            target=victim.target,
            epsilon=epsilon,
            record=Record(*steps),
            queries=shaped(self.queries),
            backwards=shaped(self.backwards),
            space=victim.space,
        )
