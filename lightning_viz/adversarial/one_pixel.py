"""One pixel, found by evolution: no gradient, only the model's confidence (Su, Vargas and Sakurai, 2019)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import differential_evolution
from torch import Tensor, nn

from lightning_viz.adversarial.attacked_model import AttackedModel, Classes, attacked_model, check_images
from lightning_viz.adversarial.norms import cross_entropy
from lightning_viz.adversarial.result import AttackRecorder, AttackResult
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["one_pixel"]

_FEWEST = 5  # candidates, below which SciPy has no three others to combine
_CENTER, _SPREAD = 128 / 255, 127 / 255  # of the values that evolution begins with, as shares of the pixels' range


def one_pixel(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    pixels: int = 1,
    target: Classes | int | None = None,
    generations: int = 100,
    population: int = 400,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AttackResult:
    r"""Few pixels, changed at will, and all others left as they are (Su, Vargas and Sakurai, 2019).

    .. math:: \min_{x'} \; p_y(x') \quad \text{where} \quad \lVert x' - x \rVert_0 \le d

    or, for a target t, the largest :math:`p_t`. A candidate is d times a row, a column and a value for each channel.
    Differential evolution (SciPy's, `rand1bin`) begins with random places and with values of N(128, 127) gray levels
    of 255, and combines three others into the rival of each candidate, :math:`c_1 + 0.5 \, (c_2 - c_3)`; the better
    one stays. A sample is done as soon as a candidate fools the model. All candidates of a generation are shown to the
    model at once. No gradient is asked for: the model may be anything that returns scores.

    The record has a step for each generation, the random one first among them: the best candidate so far, on which a
    sample that is not fooled ends as well. Which pixels changed: ``attacked.perturbations != 0``.

    Args:
        model: any classifier; it runs in eval mode and is left as found.
        inputs: images as the model takes them, ``[N, C, H, W]``, of any number of channels.
        labels: the classes to lead away from, ``[N]``; what the model says of the samples if omitted.
        pixels: d, how many may change (1; the paper has 1, 3 and 5 as well).
        target: classes to lead to, one for all or ``[N]``; any wrong one if omitted.
        generations: at most, after the random one (100, the paper's).
        population: candidates of a generation (400, the paper's).
        pixel_space: how the inputs map to pixels; they are pixels in [0, 1] if omitted.
        seed: of the evolution; that of a sample depends on it and on the sample's place among the inputs.
        batch_size: images shown at a time; a whole generation if omitted.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Raises:
        ValueError: inputs that are no images, more pixels than they have, too few candidates, or what `attacked_model`
            refuses.
    """
    check_images(inputs, "one_pixel")
    places = inputs.shape[2] * inputs.shape[3]
    if not 1 <= pixels <= places:
        raise InvalidArgumentError(f"pixels={pixels}: the images have {places}, give 1 or a few")
    if population < _FEWEST or generations < 0:
        what = f"population={population}, generations={generations}"
        raise InvalidArgumentError(f"{what}: give {_FEWEST} candidates or more, 0 generations or more")
    size = population if batch_size is None else batch_size
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=size, seed=seed, forward=forward
    ) as under_attack:
        trail = AttackRecorder(under_attack)
        trail.begin(under_attack.begin().scores)
        left = (~trail.fooled).nonzero().flatten().tolist()
        binary_search_steps = [_Search(under_attack, sample) for sample in left]
        for search in progress_bar("one_pixel", items=binary_search_steps, shown=progress):
            with suppress(_Fooled):
                _evolve(search, pixels, generations, population, np.random.default_rng((seed, search.sample)))
        _write(binary_search_steps, trail, population)
        return trail.attacked(name="one_pixel", unmoved="no change of so few pixels lowers the label's confidence")


class _Fooled(Exception):  # noqa: N818  # no error: evolution has done its work
    """A candidate fools the model."""


@dataclass(frozen=True)
class _Best:
    """The best candidate so far, and what the model says to it."""

    candidate: NDArray[np.float64]
    scores: Tensor
    value: float


@dataclass
class _Search:
    """The objective of one sample: how a whole generation does, and the best after each."""

    under_attack: AttackedModel
    sample: int
    best: list[_Best] = field(default_factory=list)

    def __call__(self, candidates: NDArray[np.float64]) -> NDArray[np.float64]:
        """What evolution lowers: the label's log probability, which ranks as the probability does ``[population]``.

        Args:
            candidates: as SciPy has them, ``[pixels * (2 + C), population]``.
        """
        scores = self.under_attack(self.images(candidates.T)).scores
        samples = torch.full((len(scores),), self.sample, device=scores.device)
        fooled = self.under_attack.fooled(scores, samples)
        values = -self.under_attack.loss(cross_entropy, scores, samples).double()
        values = values.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        place = int(torch.where(fooled, values, torch.inf).argmin() if fooled.any() else values.argmin())
        found = _Best(candidates[:, place].copy(), scores[place], float(values[place]))
        better = not self.best or bool(fooled.any()) or found.value < self.best[-1].value
        self.best.append(found if better else self.best[-1])
        if fooled.any():
            raise _Fooled
        lowered: NDArray[np.float64] = values.cpu().numpy()
        return lowered

    def images(self, candidates: NDArray[np.float64]) -> Tensor:
        """The sample with some pixels changed, ``[n, C, H, W]``: of two at one place the later counts.

        Args:
            candidates: of a row, a column and C values for each pixel, ``[n, pixels * (2 + C)]``.
        """
        original = self.under_attack.pixels[self.sample]
        channels, height, width = original.shape
        images = original.repeat(len(candidates), 1, 1, 1)
        each = torch.from_numpy(candidates).reshape(len(candidates), -1, 2 + channels)
        every = torch.arange(len(images), device=images.device)
        for one in each.unbind(1):
            row, column = (
                one[:, at].long().clamp(0, side - 1).to(images.device) for at, side in ((0, height), (1, width))
            )
            images[every, :, row, column] = one[:, 2:].to(images).clamp(*self.under_attack.pixel_space.bounds)
        return images


def _evolve(search: _Search, pixels: int, generations: int, population: int, rng: np.random.Generator) -> None:
    """Differential evolution as the paper has it; nothing but a fooled model ends it early."""
    channels, height, width = search.under_attack.pixels.shape[1:]
    low, high = search.under_attack.pixel_space.bounds
    random = np.concatenate(
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
        init=random.reshape(population, -1),
        maxiter=generations,
        tol=0,
        atol=-1,
        polish=False,
        vectorized=True,
        updating="deferred",
        seed=rng,
    )


def _write(binary_search_steps: list[_Search], trail: AttackRecorder, population: int) -> None:
    """Generation by generation, as if all samples had evolved together."""
    for generation in range(max((len(search.best) for search in binary_search_steps), default=0)):
        for search in binary_search_steps:
            if generation < len(search.best):
                row, best = torch.tensor([search.sample]), search.best[generation]
                trail.see(row, search.images(best.candidate[None]), best.scores[None])
                trail.asked(row, queries=population)
        trail.step()
