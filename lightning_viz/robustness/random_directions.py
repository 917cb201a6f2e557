"""The neighborhood of a sample: what the model says in random directions, beside the one that an attack found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attacked_model import Classes, attacked_model
from lightning_viz.adversarial.norms import L2, spread
from lightning_viz.errors import AttackWarning, InvalidArgumentError, warn_user
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["RandomDirections", "random_directions"]


@dataclass(frozen=True)
class RandomDirections:
    """What a model says on spheres around samples.

    Attributes:
        counts: how many points of each sample's sphere are of each class, ``[N, K]``.
        labels: the samples' classes, ``[N]``, as given, or as the model sees them at the center.
        radius: of each sphere, in pixels, ``[N]``.
    """

    counts: Tensor
    labels: Tensor
    radius: Tensor

    @property
    def changed(self) -> Tensor:
        """The share of each sphere that is not of the sample's class, ``[N]``."""
        own = self.counts.gather(1, self.labels[:, None])[:, 0]
        return 1 - own / self.counts.sum(1)


def random_directions(
    model: nn.Module,
    inputs: Tensor,
    radius: float | Tensor,
    samples: int = 1000,
    *,
    labels: Classes | None = None,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int = 256,
    progress: bool = True,
    forward: Forward | None = None,
) -> RandomDirections:
    r"""How many random directions of a given length change the class.

    .. math:: x + r \, \frac{u}{\lVert u \rVert_2}, \qquad u \sim N(0, I)

    uniform on the sphere, beyond the pixels' bounds as well. An attack finds a direction in which a short way suffices;
    here one sees how rare it is: the lecture takes twice the length of the perturbation, and no point changes class.

    Args:
        model: any classifier of two or more classes; it runs in eval mode and is left as found.
        inputs: the centers, as the model takes them, ``[N, ...]``.
        radius: in L2 and pixels, one or ``[N]``.
        samples: points on each sphere (1,000, the lecture's).
        labels: classes to compare with, ``[N]``; what the model says of the center if omitted.
        pixel_space: how the inputs map to pixels; they are pixels if omitted.
        seed: of the directions, which are the same whatever the batch size.
        batch_size: points shown at a time.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Raises:
        ValueError: inputs, classes or options that make no sense (see `attacked_model`).
    """
    if samples < 1:
        raise InvalidArgumentError(f"samples={samples}: give 1 or more")
    with attacked_model(
        model, inputs, labels, pixel_space=pixel_space, batch_size=batch_size, seed=seed, forward=forward
    ) as under_attack:
        centers, radii = under_attack.pixels, _radii(radius, under_attack.pixels)
        classes = under_attack.begin().scores.shape[1]
        counts = torch.zeros(len(centers) * classes, dtype=torch.int64, device=centers.device)
        generator, lost = torch.Generator().manual_seed(seed), False
        points = torch.arange(len(centers), device=centers.device).repeat_interleave(samples)
        for of in progress_bar("random_directions", items=torch.split(points, batch_size), shown=progress):
            # one by one: what a generator draws at once depends on how much
            drawn = torch.stack([torch.randn(centers.shape[1:], generator=generator) for _ in range(len(of))])
            directions = L2.normalize(drawn.to(centers))
            answer = under_attack(centers[of] + spread(radii[of], directions) * directions)
            known = answer.scores.isfinite().all(1)
            lost |= not bool(known.all())
            seen = (of * classes + answer.scores.argmax(1))[known]
            counts += torch.bincount(seen, minlength=len(counts))
        if lost:
            warn_user(
                "the model returns NaN or infinity for some points on the spheres: they do not count", AttackWarning
            )
        return RandomDirections(counts.view(-1, classes), under_attack.labels, radii)


def _radii(radius: float | Tensor, centers: Tensor) -> Tensor:
    """Of each sphere, ``[N]``."""
    found, count = torch.as_tensor(radius, dtype=centers.dtype, device=centers.device), len(centers)
    if found.dim() > 1 or (found.dim() == 1 and len(found) != count):
        raise InvalidArgumentError(f"radius is {list(found.shape)} for {count} samples: give a number, or [{count}]")
    if not bool(((found >= 0) & found.isfinite()).all()):
        raise InvalidArgumentError(
            f"radius={radius}: give 0 or more, in pixels; leave out samples that no attack has moved"
        )
    return found.expand(count)
