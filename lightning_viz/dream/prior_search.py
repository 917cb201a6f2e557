"""Which steps between updates suit a network: a random search over them (Yosinski et al., 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lightning_viz.dream.maximize import Dream, Optimizer, maximize
from lightning_viz.dream.objectives import as_targets, passes_for, scalars
from lightning_viz.dream.parametrization import Image
from lightning_viz.dream.regularization import Preset
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.hooks.target_types import Target
from lightning_viz.hooks.targets import TargetLike
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_display

__all__ = ["PriorSearch", "search_priors"]

Criterion = Callable[[Dream], Tensor]
"""From a dream to a value for each of its images, ``[N]``: the larger the better."""

_FLOOR = 1e-6  # share of an image's power that counts as none
_BATCH = 256  # real samples that pass at a time


@html_display()
@dataclass(frozen=True)
class PriorSearch:
    """Presets, the best first.

    Attributes:
        presets: all that were tried.
        scores: the criterion of each one's images, ``[trials, N]``; ranked by their mean.
        dream: made with the first.
    """

    presets: tuple[Preset, ...]
    scores: Tensor
    dream: Dream


def search_priors(
    model: nn.Module,
    objectives: TargetLike | Sequence[TargetLike],
    *,
    image: Image | Sequence[int],
    references: Tensor | None = None,
    criterion: Criterion | None = None,
    trials: int = 50,
    pixel_space: PixelSpace | None = None,
    steps: int = 250,
    lr: float | None = None,
    optimizer: Optimizer | None = None,
    copies: int = 1,
    seed: int = 0,
    progress: bool = True,
    forward: Forward | None = None,
) -> PriorSearch:
    """Random search over presets of update steps, ranked by a criterion (Yosinski et al., 2015, who chose by eye).

    Every trial starts from the same images.

    Args:
        model: any module; it is left as found.
        objectives: see `lightning_viz.dream.maximize`.
        image: pixels, or their shape.
        references: real samples as the model takes them, ``[M, C, H, W]``; the default criterion needs them.
        criterion: what makes a dream good; `natural` of the references if omitted.
        trials: presets to try (see `random_preset`).
        pixel_space: how the model's inputs map to pixels; inputs are pixels in [0, 1] if omitted.
        steps: updates of each dream.
        lr: learning rate of Adam; 0.1 if omitted.
        optimizer: see `lightning_viz.dream.maximize`.
        copies: images of each objective.
        seed: of the presets and of the images' start.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, images)``, if not ``model(images)``.

    Raises:
        ValueError: neither references nor a criterion, no trial, or what `lightning_viz.dream.maximize` refuses.
    """
    targets = as_targets(objectives, model)
    if trials < 1:
        raise InvalidArgumentError(f"trials={trials}: give 1 or more")
    if criterion is None:
        if references is None:
            raise InvalidArgumentError("what makes a dream good? Give real samples as references, or a criterion")
        criterion = natural(model, targets, references, pixel_space=pixel_space, forward=forward)
    rng = np.random.default_rng(seed)
    presets = [random_preset(rng, steps) for _ in range(trials)]
    scores: list[Tensor] = []
    for preset in progress_bar("priors", items=presets, shown=progress):
        dream = maximize(
            model,
            targets,
            image=image,
            pixel_space=pixel_space,
            update_steps=preset,
            steps=steps,
            lr=lr,
            optimizer=optimizer,
            copies=copies,
            seed=seed,
            progress=False,
            forward=forward,
        )
        score = criterion(dream).nan_to_num(nan=-torch.inf)
        if score.shape != dream.values.shape:
            raise InvalidArgumentError(
                f"criterion gave {list(score.shape)} for {len(dream.values)} images: give one each"
            )
        if not scores or score.mean() > max(earlier.mean() for earlier in scores):
            best = dream
        scores.append(score)
    order = torch.stack(scores).mean(1).argsort(descending=True, stable=True)
    return PriorSearch(tuple(presets[place] for place in order), torch.stack(scores)[order], best)


def random_preset(rng: np.random.Generator, steps: int) -> Preset:
    """Each of the four kinds of step with probability 1/2, of a strength in a range that holds Yosinski's choices.

    Decay 1e-4 to 0.3 and blur 0.3 to 1.5 pixels, evenly in their logarithm; every 1 to 8 updates; the smallest 10 to
    90 % of the norms or of the contributions.
    """
    strengths = [
        np.exp(rng.uniform(*np.log([1e-4, 0.3]))),
        np.exp(rng.uniform(*np.log([0.3, 1.5]))),
        rng.uniform(10, 90),
        rng.uniform(10, 90),
    ]
    rate, width, norm, contribution = (float(strength) if rng.random() < 0.5 else 0.0 for strength in strengths)
    return Preset(rate, width, int(rng.integers(1, 9)), norm, contribution, iterations=steps)


def natural(
    model: nn.Module,
    objectives: Sequence[Target],
    references: Tensor,
    *,
    pixel_space: PixelSpace | None = None,
    forward: Forward | None = None,
) -> Criterion:
    r"""As fine and as coarse as real samples, at an objective that few of them reach.

    .. math:: -\sqrt{\frac{1}{R} \sum_r \big(S_r(x) - \bar{S}_r\big)^2} - \max\Big(0, \frac{q - f(x)}{s}\Big)

    with S the logarithm of the power in rings of frequency (see `radial_spectrum`), its mean over the samples, q the
    objective's 90th percentile over the samples and s its deviation. The first term alone is won by an image that
    excites nothing, the objective alone by noise; what exceeds q wins nothing more. Two references or more.
    """
    if len(references) < 2:
        raise InvalidArgumentError(f"{len(references)} references: give two or more, whose spread is the scale")
    pixel_space = pixel_space or PixelSpace()
    usual = radial_spectrum(pixel_space.into(references, pixel_space.centered())).mean(0)
    scores = []
    with passes_for(model, objectives, forward=forward) as run, torch.no_grad():
        for batch in torch.split(references, _BATCH):
            activations = run(batch.to(run.like))
            scores.append(torch.stack([scalars(activations, [objective], len(batch)) for objective in objectives]))
    values = torch.cat(scores, 1)  # [objectives, M]
    level, deviation = values.quantile(0.9, dim=1), values.std(1).clamp_min(torch.finfo(values.dtype).tiny)

    def criterion(dream: Dream) -> Tensor:
        copies = len(dream.values) // len(objectives)
        unlike = (radial_spectrum(dream.images) - usual.to(dream.images)).square().mean(1).sqrt()
        lacking = (level.repeat_interleave(copies) - dream.values) / deviation.repeat_interleave(copies)
        return -unlike - lacking.clamp_min(0)

    return criterion


def radial_spectrum(images: Tensor) -> Tensor:
    """Of each image the logarithm of the share of its power in rings of frequency, ``[N, R]``; contrast is no matter.

    The rings are one cycle over the smaller side wide, from there up to half a cycle for a pixel; what is constant is
    left out, and a share below a millionth counts as one.
    """
    height, width = images.shape[2:]
    rows, columns = (torch.fft.fftfreq(side, device=images.device) for side in (height, width))
    smaller = min(height, width)
    if smaller < 2:
        raise InvalidArgumentError(f"a spectrum needs two pixels or more a side: the images are {height} x {width}")
    ring = (torch.hypot(rows[:, None], columns) * smaller).round().long().flatten()
    count = smaller // 2
    power = torch.fft.fft2(images.float()).abs().square().sum(1).flatten(1)
    power = power.new_zeros(len(images), int(ring.max()) + 1).index_add_(1, ring, power)[:, 1 : count + 1]
    share = power / power.sum(1, keepdim=True).clamp_min(torch.finfo(power.dtype).tiny)
    return torch.log(share + _FLOOR)
