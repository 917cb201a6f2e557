"""Insertion and deletion: does the score change as the locations that a map ranks highest are shown or hidden?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_viz._docstrings import documented_like
from lightning_viz.attribution.evaluation.heatmap import (
    Attribute,
    as_heat,
    image_size,
    importance_order,
    plain_target,
    single_target,
)
from lightning_viz.attribution.gradients import probabilities_of, scores_of
from lightning_viz.attribution.occlusion import Baseline, baseline_image, blurred
from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.hooks.batching import Batches
from lightning_viz.hooks.observe import Forward, observe
from lightning_viz.hooks.target_types import Target
from lightning_viz.hooks.targets import TargetLike
from lightning_viz.host_copies import to_device
from lightning_viz.rich_display import html_display

__all__ = ["PerturbationCurves", "deletion", "insertion"]

STEPS = 224
"""As RISE: 224 pixels a step on images of 224 x 224."""


@html_display("areas", "fractions", "scores")
@dataclass(frozen=True)
class PerturbationCurves:
    """The target's score as more and more of the image is shown, or hidden.

    Attributes:
        fractions: share of the locations changed, ``[S + 1]``, from 0 to 1.
        scores: of each sample, ``[N, S + 1]``.
    """

    fractions: Tensor
    scores: Tensor

    @property
    def areas(self) -> Tensor:
        """Area under each sample's curve ``[N]``, by trapezoids: higher is better for insertion, lower for deletion."""
        return torch.trapezoid(self.scores, self.fractions, dim=1)


def insertion(
    attribute: Attribute,
    model: nn.Module,
    inputs: Tensor,
    target: TargetLike = None,
    *,
    steps: int = STEPS,
    baseline: Baseline | None = None,
    probabilities: bool = True,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> PerturbationCurves:
    """Insertion: the score as a blurred image is revealed, most important locations first (Petsiuk et al., 2018).

    Args:
        attribute: the method, ``attribute(model, inputs, target)``.
        model: any module; left as found.
        inputs: images as the model takes them, ``[N, C, H, W]``.
        target: one per sample; the predicted class if omitted.
        steps: S, points of the curve after the first (224: the paper's); no more than there are locations.
        baseline: the image at first; by default the image `blurred` as in the paper, which, unlike a constant
            color, adds no edges of its own.
        probabilities: class scores as probabilities, by softmax (by sigmoid for a single output), as in the paper;
            otherwise, and for targets that are no classes, as the model returns them.
        seed: of the order among locations of equal value; a constant map gives a random order.
        batch_size: images per pass; what suits the inputs and fits if None.
        progress: show a bar when it takes long.
        forward: how to run the model, if not ``model(inputs)``.

    Raises:
        InvalidTypeError: the inputs are not one tensor of images, or `attribute` returns no maps.
        InvalidArgumentError: several targets, maps of several layers or that are not finite, or less than one step.
    """
    ranks, fixed = _ranks(attribute, model, inputs, target, seed, forward)
    start = baseline_image(inputs, blurred if baseline is None else baseline)
    return _curves(model, start, inputs, ranks, fixed, steps, probabilities, batch_size, progress, forward)


@documented_like(insertion)
def deletion(  # noqa: D417 (see insertion)
    attribute: Attribute,
    model: nn.Module,
    inputs: Tensor,
    target: TargetLike = None,
    *,
    steps: int = STEPS,
    baseline: Baseline = 0.0,
    probabilities: bool = True,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> PerturbationCurves:
    """Deletion: the score as locations are replaced, most important ones first (Petsiuk et al., 2018).

    Args:
        baseline: replaces hidden locations: zero as in the paper, the data's mean if inputs are normalized.
    """
    ranks, fixed = _ranks(attribute, model, inputs, target, seed, forward)
    end = baseline_image(inputs, baseline)
    return _curves(model, inputs, end, ranks, fixed, steps, probabilities, batch_size, progress, forward)


def _ranks(
    attribute: Attribute, model: nn.Module, inputs: Tensor, target: TargetLike, seed: int, forward: Forward | None
) -> tuple[Tensor, Target]:
    """The rank of each location ``[N, H, W]``, and the target with its class fixed."""
    if not isinstance(inputs, Tensor):
        raise InvalidTypeError(f"inputs are a {type(inputs).__name__}: give images [N, C, H, W], the rest in forward=")
    size = image_size(inputs)
    _, fixed = single_target(model, inputs, target, forward=forward)
    order = importance_order(as_heat(attribute(model, inputs, plain_target(fixed, inputs.device)), size), seed=seed)
    return order.argsort(dim=1).view(-1, *size).to(inputs.device), fixed


def _curves(
    model: nn.Module,
    start: Tensor,
    end: Tensor,
    ranks: Tensor,
    target: Target,
    steps: int,
    probabilities: bool,
    batch_size: int | None,
    progress: bool,
    forward: Forward | None,
) -> PerturbationCurves:
    """The scores of images that change from one set to another, location by location in the order of their ranks."""
    if steps < 1:
        raise InvalidArgumentError(f"steps is {steps}: give 1 or more")
    locations = ranks[0].numel()
    counts = torch.linspace(0, locations, min(steps, locations) + 1, device=ranks.device).round()
    scores = torch.zeros(len(ranks), len(counts), device=ranks.device)
    batches = Batches(model, scores.numel(), batch_size, values=start[0].numel(), progress=progress, name="score")

    def score(items: Tensor) -> None:
        samples, step = items // len(counts), to_device(items % len(counts), ranks.device)
        sample = to_device(samples, ranks.device)
        changed = (ranks[sample] < counts[step].view(-1, 1, 1)).unsqueeze(1)
        images = batches.lay_out(torch.where(changed, end[sample], start[sample]))
        observation = observe(model, images, target.select(samples), forward=forward)
        values = probabilities_of(observation, target) if probabilities else scores_of(observation).float()
        scores[sample, step] = values

    batches.run(score)
    return PerturbationCurves((counts / locations).cpu(), scores.cpu())
