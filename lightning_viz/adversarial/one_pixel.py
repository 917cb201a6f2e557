"""One-pixel attack: differential evolution on the model's confidence, without gradients (Su et al., 2019)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import differential_evolution
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import Labels, shared_arguments
from lightning_viz.adversarial.attacked_model import AttackedModel, attacked_model, require_images
from lightning_viz.adversarial.norms import cross_entropy
from lightning_viz.adversarial.result import AttackRecorder, AttackResult
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.host_copies import to_device
from lightning_viz.pixels import PixelSpace

__all__ = ["one_pixel"]

_MIN_POPULATION = 5  # SciPy combines three other candidates
_CENTER, _SPREAD = 128 / 255, 127 / 255  # of the initial values, as shares of the pixels' range


@shared_arguments()
def one_pixel(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Tensor,
    labels: Labels | None = None,
    *,
    pixels: int = 1,
    target: Labels | int | None = None,
    generations: int = 100,
    population: int = 400,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AttackResult:
    r"""One-pixel attack: changes at most `pixels` pixels arbitrarily (Su, Vargas and Sakurai, 2019).

    .. math:: \min_{x'} \; p_y(x') \quad \text{where} \quad \lVert x' - x \rVert_0 \le d

    or, for a target t, the maximum of :math:`p_t`. A candidate is d times a row, a column and a value for each channel.
    Differential evolution (SciPy's, `rand1bin`) starts from random positions and values of N(128, 127) gray levels of
    255, and replaces a candidate by :math:`c_1 + 0.5 \, (c_2 - c_3)` of three others if that is better. It stops as
    soon as a candidate fools the model. A generation is evaluated in one batch. Gradients are not needed: the model may
    be anything that returns scores.

    The record has a step for each generation, beginning with the random one: the best candidate so far, which is also
    the result for a sample that is not fooled. The changed pixels are ``result.perturbations != 0``.

    Args:
        inputs: images as the model takes them, ``[N, C, H, W]``, of any number of channels.
        pixels: d, maximum number of changed pixels (1; the paper also has 3 and 5).
        generations: maximum number, after the random one (100, as in the paper).
        population: number of candidates (400, as in the paper).
        seed: of the evolution; a sample's also depends on its position among the inputs.
        batch_size: images per forward pass; a whole generation if omitted.

    Raises:
        InvalidArgumentError: inputs that are no images, more pixels than they have, too few candidates, or an invalid
            argument of `attacked_model`.
    """
    require_images(inputs, "one_pixel")
    pixel_count = inputs.shape[2] * inputs.shape[3]
    if not 1 <= pixels <= pixel_count:
        raise InvalidArgumentError(f"pixels={pixels}: the images have {pixel_count}; pass a number from 1 to that")
    if population < _MIN_POPULATION or generations < 0:
        raise InvalidArgumentError(
            f"population={population} must be at least {_MIN_POPULATION}, generations={generations} at least 0"
        )
    size = population if batch_size is None else batch_size
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=size, seed=seed, forward=forward
    ) as attacked:
        recorder = AttackRecorder(attacked)
        recorder.record_originals(attacked.evaluate_originals().scores)
        searches = [_Search(attacked, sample) for sample in (~recorder.fooled).nonzero().flatten().tolist()]
        for search in progress_bar("one_pixel", items=searches, shown=progress):
            with suppress(_Fooled):
                _evolve(search, pixels, generations, population, np.random.default_rng((seed, search.sample)))
        _record(searches, recorder, population)
        return recorder.result("one_pixel", "no candidate lowers the confidence; try more pixels")


class _Fooled(Exception):  # noqa: N818  # no error: it stops the evolution
    """A candidate fools the model."""


@dataclass(frozen=True)
class _Best:
    """The best candidate so far, its scores and objective."""

    candidate: NDArray[np.float64]
    scores: Tensor
    value: float


@dataclass
class _Search:
    """The objective of one sample for whole generations, and the best candidate after each."""

    attacked: AttackedModel
    sample: int
    best: list[_Best] = field(default_factory=list)

    def __call__(self, candidates: NDArray[np.float64]) -> NDArray[np.float64]:
        """The label's log probability, minimized, ``[population]``; it ranks as the probability does.

        Candidates are in SciPy's layout, ``[pixels * (2 + C), population]``.
        """
        images = self.images(candidates.T)
        samples = torch.full((len(images),), self.sample, device=images.device)
        scores = self.attacked(images, samples=samples).scores
        fooled = self.attacked.fooled(scores, samples)
        values = -self.attacked.loss(cross_entropy, scores, samples).double()
        values = values.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        values, fooled = torch.stack([values, fooled.to(values)]).cpu().unbind()  # one copy, which SciPy waits for
        succeeds = bool(fooled.any())
        index = int(torch.where(fooled > 0, values, torch.inf).argmin() if succeeds else values.argmin())
        best = _Best(candidates[:, index].copy(), scores[index], float(values[index]))
        is_better = not self.best or succeeds or best.value < self.best[-1].value
        self.best.append(best if is_better else self.best[-1])
        if succeeds:
            raise _Fooled
        objective: NDArray[np.float64] = values.numpy()
        return objective

    def images(self, candidates: NDArray[np.float64]) -> Tensor:
        """The sample with the pixels of candidates, ``[n, C, H, W]``; of two at one position the later counts.

        A candidate is a row, a column and C values for each pixel, ``[n, pixels * (2 + C)]``.
        """
        original = self.attacked.pixels[self.sample]
        channels, height, width = original.shape
        images = original.repeat(len(candidates), 1, 1, 1)
        changes = torch.from_numpy(candidates).reshape(len(candidates), -1, 2 + channels)
        indices = torch.arange(len(images), device=images.device)
        for change in changes.unbind(1):
            row, column = (
                to_device(change[:, axis].long().clamp(0, side - 1), images.device)
                for axis, side in ((0, height), (1, width))
            )
            values = to_device(change[:, 2:], images.device, images.dtype)
            images[indices, :, row, column] = values.clamp(*self.attacked.pixel_space.bounds)
        return images


def _evolve(search: _Search, pixels: int, generations: int, population: int, rng: np.random.Generator) -> None:
    """Differential evolution as in the paper; only a fooled model ends it early."""
    channels, height, width = search.attacked.pixels.shape[1:]
    low, high = search.attacked.pixel_space.bounds
    initial = np.concatenate(
        [
            rng.uniform(0, (height, width), (population, pixels, 2)),
            (low + (high - low) * rng.normal(_CENTER, _SPREAD, (population, pixels, channels))).clip(low, high),
        ],
        axis=2,
    )
    differential_evolution(
        search,
        [(0, height), (0, width), *[(low, high)] * channels] * pixels,
        strategy="rand1bin",
        mutation=0.5,
        recombination=1,
        init=initial.reshape(population, -1),
        maxiter=generations,
        tol=0,
        atol=-1,
        polish=False,
        vectorized=True,
        updating="deferred",
        seed=rng,
    )


def _record(searches: list[_Search], recorder: AttackRecorder, population: int) -> None:
    """Record generation by generation, as if all samples had been attacked in parallel."""
    for generation in range(max((len(search.best) for search in searches), default=0)):
        for search in searches:
            if generation < len(search.best):
                row, best = recorder.rows[search.sample : search.sample + 1], search.best[generation]
                recorder.record(row, search.images(best.candidate[None]), best.scores[None])
                recorder.count(row, queries=population)
        recorder.finish_step()
