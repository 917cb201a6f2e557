"""Does the class go with the places that a map calls important, and come with them?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_viz.attribution.evaluation.heatmap import Attribute, as_heat, image_size, plain_target, single_target
from lightning_viz.attribution.gradients import scores_of
from lightning_viz.attribution.occlusion import Baseline, baseline_image, blurred
from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.hooks.batching import Batches
from lightning_viz.hooks.feature_maps import class_scores
from lightning_viz.hooks.observation import Observation
from lightning_viz.hooks.observe import Forward, observe
from lightning_viz.hooks.target_algebra import Target
from lightning_viz.hooks.target_words import TargetLike
from lightning_viz.hooks.targets import ClassTarget

__all__ = ["PerturbationCurves", "deletion", "insertion"]

STEPS = 224
"""As RISE: 224 pixels a step on images of 224 x 224."""


@dataclass(frozen=True)
class PerturbationCurves:
    """A target's score as ever more of the image is shown, or taken away.

    Attributes:
        fractions: share of the places changed, ``[S + 1]``, from 0 to 1.
        scores: of each sample, ``[N, S + 1]``.
    """

    fractions: Tensor
    scores: Tensor

    @property
    def areas(self) -> Tensor:
        """Area under each sample's curve, ``[N]``, by trapezia: of insertion more is better, of deletion less."""
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
    """The score as a blurred image is uncovered, what the map calls most important first (RISE: Petsiuk et al., 2018).

    Args:
        attribute: the method, ``attribute(model, inputs, target)``.
        model: any module; left as found.
        inputs: images as the model takes them, ``[N, C, H, W]``.
        target: one per sample; the predicted class if omitted.
        steps: S, points of the curve after the first (224: the paper's); no more than there are places.
        baseline: what is seen at first; by default the image `blurred` as in the paper, which, unlike a plain
            canvas, adds no edges of its own.
        probabilities: scores of classes by softmax (of a single output by sigmoid), as the paper; else, and for
            targets that are no classes, as the model returns them.
        seed: of the order among places that the map calls equal: a constant map is a random order.
        batch_size: images per pass; chosen while running if omitted.
        progress: show a bar where it takes more than a few seconds.
        forward: how to run the model, if not ``model(inputs)``.

    Raises:
        TypeError: the inputs are not one tensor of images, or there are no maps from `attribute`.
        ValueError: several targets, maps of several layers, or less than one step.
    """
    ranks, fixed = _ranks(attribute, model, inputs, target, seed, forward)
    start = baseline_image(inputs, blurred if baseline is None else baseline)
    return _walk(model, start, inputs, ranks, fixed, steps, probabilities, batch_size, progress, forward)


def deletion(
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
    """The score as places are replaced, what the map calls most important first (RISE: Petsiuk et al., 2018).

    Args:
        attribute: the method, ``attribute(model, inputs, target)``.
        model: any module; left as found.
        inputs: images as the model takes them, ``[N, C, H, W]``.
        target: one per sample; the predicted class if omitted.
        steps: S, points of the curve after the first (224: the paper's); no more than there are places.
        baseline: what replaces a place: zero as in the paper, which is the data's mean where inputs are normalized.
        probabilities: scores of classes by softmax (of a single output by sigmoid), as the paper; else, and for
            targets that are no classes, as the model returns them.
        seed: of the order among places that the map calls equal: a constant map is a random order.
        batch_size: images per pass; chosen while running if omitted.
        progress: show a bar where it takes more than a few seconds.
        forward: how to run the model, if not ``model(inputs)``.

    Raises:
        TypeError: the inputs are not one tensor of images, or there are no maps from `attribute`.
        ValueError: several targets, maps of several layers or that are not finite, or less than one step.
    """
    ranks, fixed = _ranks(attribute, model, inputs, target, seed, forward)
    end = baseline_image(inputs, baseline)
    return _walk(model, inputs, end, ranks, fixed, steps, probabilities, batch_size, progress, forward)


def importance_order(heat: Tensor, *, seed: int = 0) -> Tensor:
    """Places from the hottest to the coldest, ``[N, H * W]``; equal ones in an order that chance makes.

    Args:
        heat: ``[N, H, W]``.
        seed: of the order among equals, the same for each sample.

    Raises:
        ValueError: a map is not finite.
    """
    flat = heat.flatten(1)
    if not bool(flat.isfinite().all()):
        raise InvalidArgumentError(
            f"the maps of samples {(~flat.isfinite()).any(1).nonzero().flatten().tolist()} are not finite"
        )
    mixed = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed)).to(flat.device)
    return mixed[flat[:, mixed].argsort(dim=1, descending=True, stable=True)]


def _ranks(
    attribute: Attribute, model: nn.Module, inputs: Tensor, target: TargetLike, seed: int, forward: Forward | None
) -> tuple[Tensor, Target]:
    """At which turn each place comes, ``[N, H, W]``, and the target with the predicted class named."""
    if not isinstance(inputs, Tensor):
        raise InvalidTypeError(
            f"the inputs are a {type(inputs).__name__}: give images [N, C, H, W], the rest in forward="
        )
    size = image_size(inputs)
    _, fixed = single_target(model, inputs, target, forward=forward)
    order = importance_order(as_heat(attribute(model, inputs, plain_target(fixed)), size), seed=seed)
    return order.argsort(dim=1).view(-1, *size).to(inputs.device), fixed


def _walk(
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
    """The score of every mixture between two sets of images, as places go over in their order."""
    if steps < 1:
        raise InvalidArgumentError(f"steps is {steps}: give 1 or more")
    samples, places = len(ranks), ranks[0].numel()
    counts = torch.linspace(0, places, min(steps, places) + 1, device=ranks.device).round()
    scores = torch.zeros(samples, len(counts), device=ranks.device)
    batches = Batches(model, scores.numel(), batch_size, values=start[0].numel(), progress=progress, name="score")

    def look(items: Tensor) -> None:
        of, step = items // len(counts), (items % len(counts)).to(ranks.device)
        gone = (ranks[of] < counts[step].view(-1, 1, 1)).unsqueeze(1)
        mixed = batches.lay_out(torch.where(gone, end[of], start[of]))
        seen = observe(model, mixed, target.select(of), forward=forward)
        scores[of, step] = _score(seen, target, probabilities)

    batches.run(look)
    return PerturbationCurves((counts / places).cpu(), scores.cpu())


def _score(seen: Observation, target: Target, probabilities: bool) -> Tensor:
    scores = scores_of(seen)
    of_class = (
        isinstance(target, ClassTarget) and target.mask is None and seen.outputs is not None and seen.outputs.dim() <= 2
    )
    if not probabilities or not of_class or seen.targets is None:
        return scores.float()
    logits = class_scores(seen.outputs).float()
    if logits.shape[1] == 1:
        return logits.sigmoid()[:, 0]
    return logits.softmax(1).gather(1, seen.targets[:, None])[:, 0]
