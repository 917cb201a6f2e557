"""Perturbation stability: how often predictions change along small steps (Hendrycks and Dietterich, 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import shared_arguments
from lightning_viz.errors import CorruptionWarning, InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import warn_if_training
from lightning_viz.hooks.observe import Forward, Passes, image_size_errors, passes
from lightning_viz.hooks.outputs import class_logits
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_display
from lightning_viz.robustness.perturbation_sequences import NOISE, check_sequences, perturbation_sequence

__all__ = ["PerturbationStability", "perturbation_stability"]

_TOP = 5  # ranks that the distance compares
_RANKED = 6  # classes below which the first five ranks say too little

_ARGUMENTS = {
    "model": "classifier of two classes or more; it runs in eval mode, and its state is restored.",
    "inputs": "images as the model takes them, ``[N, C, H, W]``.",
    "kinds": "names in `PERTURBATIONS`; all ten if omitted.",
    "pixel_space": "maps the model's inputs to pixels; inputs are pixels in [0, 1] if omitted.",
    "seed": "of everything random, including what the model draws.",
    "batch_size": "maximum number of frames per pass; it does not change the result.",
    "progress": "show a progress bar after a few seconds.",
    "forward": "calls the model, ``forward(model, inputs)``; ``model(inputs)`` if omitted.",
}


@html_display("kinds", "flip_probability", "distances")
@dataclass(frozen=True)
class PerturbationStability:
    """How steady a model's predictions are along sequences of perturbed images.

    Attributes:
        kinds: the K perturbations.
        flips: flip probability of each kind and image, the share of steps at which the class changes, ``[K, N]``, in
            float64.
        distances: top-5 distance of each kind and image, the mean over steps, ``[K, N]``; None of a model of fewer than
            six classes.
    """

    kinds: tuple[str, ...]
    flips: Tensor
    distances: Tensor | None

    @property
    def flip_probability(self) -> Tensor:
        """Of each kind, ``[K]``."""
        return self.flips.mean(1)

    def first(self, count: int) -> PerturbationStability:
        """The same of the first images only.

        Args:
            count: how many.
        """
        distances = None if self.distances is None else self.distances[:, :count]
        return PerturbationStability(self.kinds, self.flips[:, :count], distances)

    def flip_rate(self, reference: PerturbationStability) -> Tensor:
        """Flip probability of each kind divided by a reference's, ``[K]``; NaN where the reference never flips.

        Args:
            reference: of another model, on the same images; the mean over kinds is mFR.

        Raises:
            InvalidArgumentError: it is of other kinds or of another number of images.
        """
        self._check(reference)
        return _ratio(self.flip_probability, reference.flip_probability)

    def top5_rate(self, reference: PerturbationStability) -> Tensor:
        """Top-5 distance of each kind divided by a reference's, ``[K]``; NaN where the reference's is zero.

        Args:
            reference: of another model, on the same images; the mean over kinds is mT5D.

        Raises:
            InvalidArgumentError: one of both models has fewer than six classes, or see `flip_rate`.
        """
        self._check(reference)
        if self.distances is None or reference.distances is None:
            raise InvalidArgumentError(
                f"a model has fewer than {_RANKED} classes, of which the first {_TOP} ranks say little: use flip_rate"
            )
        return _ratio(self.distances.mean(1), reference.distances.mean(1))

    def _check(self, reference: PerturbationStability) -> None:
        own, other = (self.kinds, self.flips.shape[1]), (reference.kinds, reference.flips.shape[1])
        if own != other:
            raise InvalidArgumentError(
                f"kinds and images of the reference are {other}, of this model {own}: measure both on the same"
            )


@shared_arguments(_ARGUMENTS)
def perturbation_stability(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Tensor,
    *,
    kinds: Sequence[str] | None = None,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = True,
    forward: Forward | None = None,
) -> PerturbationStability:
    r"""Perturbation stability: how often predictions change along small steps (Hendrycks and Dietterich, 2019).

    .. math:: FP = \frac{1}{T - 1} \sum_{j=2}^{T} 1[f(x_j) \ne f(x_{j-1})], \qquad
        d = \frac{1}{T - 1} \sum_{j=2}^{T} \sum_{i=1}^{5} \left|\min(i, 6) - \min(s_j(i), 6)\right|

    s(i) is the rank in frame j of the class that is i-th in the frame before. Frames with noise, which have no order,
    are compared with the image itself. The paper's rates divide both by those of a reference model, see
    `PerturbationStability.flip_rate`. No labels are needed: a model may be steadily wrong. A frame of which a score is
    NaN counts as changed, and as a distance of 15, the largest.

    Args:
        seed: of everything random; two models see the same frames under the same seed.

    Returns:
        Flip probabilities and top-5 distances by kind and image.

    Raises:
        InvalidArgumentError: an unknown kind, no images, pixels outside the bounds, or a model that cannot take the
            images or returns no scores ``[N, classes]``.
    """
    names = check_sequences(kinds, seed)
    if batch_size < 1:
        raise InvalidArgumentError(f"batch_size={batch_size} must be at least 1")
    warn_if_training(model, CorruptionWarning)
    flips = torch.zeros(len(names), len(inputs), dtype=torch.float64)
    distances, ranked = torch.zeros_like(flips), True
    bar = progress_bar("perturbation stability", shown=progress, total=flips.numel())
    with passes(model, forward=forward, seed=seed) as run, bar:
        for number, kind in enumerate(names):
            for index in range(len(inputs)):
                one = inputs[index : index + 1]
                frames = perturbation_sequence(one, kind, pixel_space=pixel_space, seed=seed, first=index)[0]
                scores = _scores(run, frames, batch_size)
                before, after = scores[:1] if kind in NOISE else scores[:-1], scores[1:]
                lost = before.isnan().any(1) | after.isnan().any(1)
                flips[number, index] = ((before.argmax(1) != after.argmax(1)) | lost).double().mean()
                ranked = scores.shape[1] >= _RANKED
                if ranked:
                    distance = top5_distance(before.expand_as(after), after)
                    distances[number, index] = torch.where(lost, sum(range(_TOP + 1)), distance).double().mean()
                bar.update()
    return PerturbationStability(names, flips, distances if ranked else None)


def top5_distance(before: Tensor, after: Tensor) -> Tensor:
    """How far the first five classes of a ranking have moved in another, ``[N]``, from 0 to 15.

    Ranks beyond the fifth count as the sixth. Equal scores are ranked by their class.

    Args:
        before: scores ``[N, K]``.
        after: scores of the same classes.
    """
    first = before.argsort(stable=True, dim=1, descending=True)[:, :_TOP]
    ranks = after.argsort(stable=True, dim=1, descending=True).argsort(1).gather(1, first)  # from 0
    return (torch.arange(_TOP) - ranks.clamp_max(_TOP)).abs().sum(1)


def _scores(run: Passes, frames: Tensor, batch_size: int) -> Tensor:
    """Scores ``[T, classes]`` of frames, in float64 on the CPU."""
    parts = []
    with torch.no_grad(), image_size_errors(frames.shape[1:]):
        for batch in torch.split(frames, batch_size):
            scores = class_logits(*run(batch.to(run.like)).scores()).double().cpu()
            if scores.shape[0] != len(batch) or scores.shape[1] < 2:
                raise InvalidArgumentError(
                    f"the model returns scores {list(scores.shape)} for {len(batch)} images; pass a classifier of two "
                    "classes or more, or a forward= that returns [N, classes]"
                )
            parts.append(scores)
    return torch.cat(parts)


def _ratio(own: Tensor, reference: Tensor) -> Tensor:
    return torch.where(reference > 0, own / reference, torch.nan)
