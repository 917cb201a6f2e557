"""Random directions: how many random perturbations of a given length change the prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import Labels, shared_arguments
from lightning_viz.adversarial.attacked_model import attacked_model
from lightning_viz.adversarial.norms import L2, per_sample
from lightning_viz.errors import AttackWarning, InvalidArgumentError, warn_user
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.host_copies import to_device
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_display

__all__ = ["RandomDirections", "random_directions"]


@html_display("changed", "labels", "radius", "counts")
@dataclass(frozen=True)
class RandomDirections:
    """Predictions on spheres around samples.

    Attributes:
        counts: number of points on each sample's sphere by predicted class, ``[N, K]``.
        labels: true classes, ``[N]``, or the model's predictions for the samples.
        radius: of each sphere, in pixels, ``[N]``.
    """

    counts: Tensor
    labels: Tensor
    radius: Tensor

    @property
    def changed(self) -> Tensor:
        """Fraction of each sphere that is not predicted as the sample's class, ``[N]``."""
        own = self.counts.gather(1, self.labels[:, None])[:, 0]
        return 1 - own / self.counts.sum(1)


@shared_arguments()
def random_directions(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Tensor,
    radius: float | Tensor,
    samples: int = 1000,
    *,
    labels: Labels | None = None,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int = 256,
    progress: bool = True,
    forward: Forward | None = None,
) -> RandomDirections:
    r"""Random directions: how many random perturbations of a given length change the prediction.

    .. math:: x + r \, \frac{u}{\lVert u \rVert_2}, \qquad u \sim N(0, I)

    uniform on the sphere, also beyond the pixels' bounds. For comparison with an attack: adversarial directions are
    rare if even random perturbations of twice the length do not change the prediction.

    Args:
        model: classifier of two or more classes; it runs in eval mode, and its state is restored.
        inputs: centers of the spheres, as the model takes them, ``[N, ...]``.
        radius: L2 norm in pixels, one or ``[N]``.
        samples: number of points on each sphere (1,000: a fraction of 1 % has a standard error of 0.3 %).
        labels: true classes, ``[N]``; the model's predictions for the centers if omitted.
        pixel_space: how the inputs map to pixels; they are pixels if omitted.
        seed: of the directions, which are the same whatever the batch size.
        batch_size: points per forward pass.
    """
    if samples < 1:
        raise InvalidArgumentError(f"samples={samples} must be at least 1")
    with attacked_model(
        model, inputs, labels, pixel_space=pixel_space, batch_size=batch_size, seed=seed, forward=forward
    ) as attacked:
        centers, radii = attacked.pixels, _radii(radius, attacked.pixels)
        classes = attacked.evaluate_originals().scores.shape[1]
        counts = torch.zeros(len(centers) * classes, dtype=torch.int64, device=centers.device)
        generator, all_finite = torch.Generator().manual_seed(seed), centers.new_ones((), dtype=torch.bool)
        centers_of_points = torch.arange(len(centers), device=centers.device).repeat_interleave(samples)
        for rows in progress_bar("random_directions", items=torch.split(centers_of_points, batch_size), shown=progress):
            # Drawn one by one, because what a generator draws depends on the size of the draw.
            noise = torch.stack([torch.randn(centers.shape[1:], generator=generator) for _ in range(len(rows))])
            directions = L2.normalize(to_device(noise, centers.device, centers.dtype))
            scores = attacked(centers[rows] + per_sample(radii[rows], directions) * directions).scores
            finite = scores.isfinite().all(1)
            all_finite &= finite.all()
            counts.index_add_(0, rows * classes + scores.argmax(1), finite.long())
        if not bool(all_finite):
            warn_user("the model returns NaN or infinity for some points on the spheres; not counted", AttackWarning)
        return RandomDirections(counts.view(-1, classes), attacked.labels, radii)


def _radii(radius: float | Tensor, centers: Tensor) -> Tensor:
    """Radius of each sphere, ``[N]``."""
    radii, count = torch.as_tensor(radius, dtype=centers.dtype, device=centers.device), len(centers)
    if radii.dim() > 1 or (radii.dim() == 1 and len(radii) != count):
        raise InvalidArgumentError(f"radius is {list(radii.shape)} for {count} samples; pass a number, or [{count}]")
    if not bool(((radii >= 0) & radii.isfinite()).all()):
        raise InvalidArgumentError(f"radius={radius} must be finite and at least 0; leave out samples never fooled")
    return radii.expand(count)
