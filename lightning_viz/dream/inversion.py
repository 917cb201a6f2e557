"""Feature inversion: images reconstructed from a layer's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from lightning_viz.dream.maximize import Dream, maximize
from lightning_viz.dream.objectives import match, recorded, single
from lightning_viz.dream.parametrization import pixels, visible
from lightning_viz.dream.regularization import Prior, alpha_norm, total_variation
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_display

__all__ = ["Inversion", "invert"]

_SHARES = tuple(product((1e-4, 1e-3, 1e-2), (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)))
"""What the originals' own R_alpha and R_V may cost, in units of the objective: on any data the same grid."""


@html_display("pixel_errors", "feature_errors", "diversity", "weights", images=("pixels",))
@dataclass(frozen=True)
class Inversion:
    """Reconstructions of N images from what a layer puts out for them, from S seeds each.

    Attributes:
        dream: the reconstructions, those of the first image from all seeds, then those of the second, ...
        originals: the images themselves, centered, ``[N, C, H, W]``.
        pixel_errors: relative distances ``||x - x_0|| / ||x_0||`` of centered images, ``[N, S]``.
        feature_errors: the same of the layer's output, ``||Phi(x) - Phi_0|| / ||Phi_0||``, ``[N, S]``.
        diversity: mean distance between two reconstructions of an image, over ``||x_0||``, ``[N]``; nan for one seed.
        weights: lambda_alpha and lambda_V.
        sigma: the norm that images were divided by.
    """

    dream: Dream
    originals: Tensor
    pixel_errors: Tensor
    feature_errors: Tensor
    diversity: Tensor
    weights: tuple[float, float]
    sigma: float

    @property
    def pixels(self) -> Tensor:
        """What to look at beside the originals, pixels ``[N, S, C, H, W]`` in [0, 1]."""
        shown = visible(self.dream.images, self.dream.pixel_space, bounded=True)
        return shown.view(*self.pixel_errors.shape, *shown.shape[1:])


def invert(
    model: nn.Module,
    image: Tensor,
    layer: str,
    *,
    seeds: int = 3,
    weights: tuple[float, float] | None = None,
    sigma: float | None = None,
    alpha: float = 6.0,
    beta: float = 2.0,
    pixel_space: PixelSpace | None = None,
    deviation: float = 1.0,
    steps: int = 250,
    lr: float = 0.1,
    seed: int = 0,
    frames: int = 30,
    progress: bool = True,
    forward: Forward | None = None,
) -> Inversion:
    r"""Feature inversion: reconstructs images from a layer's output alone (Mahendran and Vedaldi, 2015).

    .. math:: \min_x \frac{\lVert \Phi(x) - \Phi_0 \rVert^2}{\lVert \Phi_0 \rVert^2}
        + \lambda_\alpha R_\alpha(x / \sigma) + \lambda_V R_V(x / \sigma)

    with x centered; R_alpha is `alpha_norm`, R_V `total_variation`. Where reconstructions from several seeds differ,
    the layer no longer knows; layers compare in that at equal weights, for strong penalties make reconstructions alike.
    All images, and all their seeds, run as one batch; the model is left as found.

    Args:
        model: any module; what it does behind the layer need not work at this size.
        image: as the model takes it, ``[C, H, W]``, or several, ``[N, C, H, W]``.
        layer: its name; of a layer that is called several times, of a call: ``"relu:1"``.
        seeds: reconstructions of each image, from noise of their own.
        weights: lambda_alpha and lambda_V. If omitted, one pair for the layer: of a grid, which runs as one batch from
            the first seed, the one of least mean relative distance to the originals, ``||x - x_0|| / ||x_0||``. The
            grid holds what the originals' own penalties may cost: 1e-4 to 1e-2 for R_alpha, 1e-4 to 3e-2 for R_V.
        sigma: mean norm of natural images, centered; that of the given ones if omitted.
        alpha: 6 by default (the paper's).
        beta: 2 by default (the paper's).
        pixel_space: how the model's inputs map to pixels; inputs are pixels in [0, 1] if omitted.
        deviation: of the noise that a reconstruction starts from; 1 by default, about that of natural images: starts
            that are alike would end alike.
        steps: updates.
        lr: learning rate of Adam.
        seed: of the first reconstruction, the next ones count on.
        frames: how many images on the way to keep, evenly in log steps.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, images)``, if not ``model(images)``.

    Raises:
        LayerNotFoundError: no such layer; the message lists the nearest names.
        ValueError: no images, gray images without a `sigma`, or images for which the layer puts out nothing but 0.
    """
    image = image[None] if image.dim() == 3 else image
    if image.dim() != 4 or not len(image) or seeds < 1:
        raise InvalidArgumentError(f"image is {list(image.shape)}, seeds={seeds}: give [N, C, H, W] and 1 seed or more")
    pixel_space = pixel_space or PixelSpace()
    originals = pixel_space.into(single(image.detach()), pixel_space.centered())
    scale = originals.flatten(1).norm(dim=1).mean().item() if sigma is None else sigma
    if scale <= 0:
        raise InvalidArgumentError(f"sigma is {scale}: give the norm of a natural image, centered, above 0")
    known = _known(model, image, layer, forward)
    penalties: tuple[Prior, Prior] = (
        lambda images: alpha_norm(images / scale, alpha),
        lambda images: total_variation(images / scale, beta),
    )

    def descend(pairs: Sequence[tuple[float, float]], copies: int, kept: int) -> Dream:
        """Reconstructions with the first pair of weights, with the second, ..."""
        weights_of_priors = zip(*(pair for pair in pairs for _ in known), strict=True)
        return maximize(
            model,
            [match(layer, activation) for _ in pairs for activation in known],
            image=pixels(image.shape[1:], deviation=deviation),
            pixel_space=pixel_space,
            priors=dict(zip(penalties, weights_of_priors, strict=True)),
            steps=steps,
            lr=lr,
            copies=copies,
            seed=seed,
            frames=kept,
            progress=progress,
            forward=forward,
        )

    if weights is None:
        pairs = _grid(penalties, originals)
        errors = _pixel_errors(descend(pairs, copies=1, kept=0), originals.repeat(len(pairs), 1, 1, 1))
        weights = pairs[int(errors.view(len(pairs), -1).mean(1).nan_to_num(nan=torch.inf).argmin())]
    dream = descend([weights], seeds, frames)
    return Inversion(
        dream=dream,
        originals=originals,
        pixel_errors=_pixel_errors(dream, originals),
        feature_errors=(-dream.values).sqrt().view(len(originals), seeds),
        diversity=_diversity(dream, originals),
        weights=weights,
        sigma=scale,
    )


def _known(model: nn.Module, image: Tensor, layer: str, forward: Forward | None) -> Tensor:
    """What a layer puts out for images, ``[N, ...]``."""
    known = recorded(model, image, [layer], forward=forward)[layer]
    silent = [place for place, activation in enumerate(known) if not activation.any()]
    if silent:
        raise InvalidArgumentError(f"layer {layer!r} puts out nothing but 0 for images {silent}: nothing to invert")
    return known


def _grid(penalties: Sequence[Prior], originals: Tensor) -> list[tuple[float, float]]:
    """Weights under which the originals themselves cost so much of each penalty."""
    least = torch.finfo(originals.dtype).tiny  # of images without edges
    of_alpha, of_variation = (penalty(originals).mean().clamp_min(least).item() for penalty in penalties)
    return [(first / of_alpha, second / of_variation) for first, second in _SHARES]


def _pixel_errors(dream: Dream, originals: Tensor) -> Tensor:
    """Relative distances of reconstructions to N originals, ``[N, S]``."""
    images = dream.images.view(len(originals), -1, originals[0].numel())
    wanted = originals.to(images).flatten(1)[:, None]
    errors: Tensor = (images - wanted).norm(dim=2) / wanted.norm(dim=2)
    return errors


def _diversity(dream: Dream, originals: Tensor) -> Tensor:
    """Mean distance between two reconstructions of an original, relative to its norm, ``[N]``."""
    images = dream.images.view(len(originals), -1, originals[0].numel())
    distances = torch.stack([torch.pdist(reconstructions).mean() for reconstructions in images])
    diversity: Tensor = distances / originals.to(images).flatten(1).norm(dim=1)
    return diversity
