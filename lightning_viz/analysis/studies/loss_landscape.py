"""The loss landscape: the loss around the trained weights, in a random plane."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.results import Output
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.pytree import first_tensor
from lightning_viz.render.page import Page
from lightning_viz.render.weights import landscape_table

_POINTS = 9  # a side, in an analysis


def loss_landscape(
    study: ModelUnderStudy, *, points: int = 11, radius: float = 1.0, batch_size: int | None = None
) -> Output:
    r"""Loss landscape: the cross-entropy around the trained weights, in a random plane (Li et al., 2018).

    .. math:: L(\alpha, \beta) = L(w + \alpha \, \delta + \beta \, \eta)

    with Gaussian directions of which each filter is scaled to the norm of the weights' filter; biases and the weights
    of normalization layers stay. One forward pass of the samples for each point; the model's weights are not touched.

    Args:
        study: a classifier of images, and samples of which the classes are known.
        points: along each direction, an odd number, so that the trained weights are the one in the middle.
        radius: largest alpha and beta; 1 moves every filter by its own norm (1, the paper's).
        batch_size: samples per pass; chosen by their size if omitted.

    Raises:
        UnsuitableModelError: the model is not a classifier of images.
        AnalysisError: the samples' classes are not known, or the model returns NaN or infinity.
        InvalidArgumentError: points or a radius that make no sense.
    """
    if points < 3 or points % 2 == 0 or not radius > 0:
        raise InvalidArgumentError(
            f"points={points}, radius={radius}: give an odd number of 3 or more, and a positive radius"
        )
    study.predictions()  # raises where the model is no classifier or returns NaN
    images = study.require_images()
    labels = study.true_classes().to(images.device)
    shares = torch.linspace(-radius, radius, points, dtype=torch.float64).tolist()
    weights: dict[str, Tensor] = dict(study.model.named_parameters())
    first, second = (_direction(weights, torch.Generator().manual_seed(2 * study.seed + place)) for place in (0, 1))
    losses = torch.empty(points, points, dtype=torch.float64)
    batches = torch.split(torch.arange(len(images)), study.batch_size(batch_size))
    bar = progress_bar("loss landscape", shown=study.progress, total=points**2)
    with evaluation_mode(study.model), torch.no_grad():
        for row, beta in enumerate(shares):
            for column, alpha in enumerate(shares):
                moved = {name: weight + alpha * first[name] + beta * second[name] for name, weight in weights.items()}
                total = 0.0
                for batch in batches:
                    scores = first_tensor(functional_call(study.model, moved, (images[batch],)))
                    assert scores is not None  # of a classifier
                    total += float(F.cross_entropy(scores.double(), labels[batch], reduction="sum"))
                losses[row, column] = total / len(images)
                bar.update()
    bar.close()
    center = losses[points // 2, points // 2]
    near = losses[points // 2 - 1 : points // 2 + 2, points // 2 - 1 : points // 2 + 2]
    step = 2 * radius / (points - 1)

    def pictures() -> Iterator[Page]:
        yield landscape_table(
            "robustness/loss_landscape",
            losses.numpy(),
            radius=radius,
            step=study.step,
            details=[f"{len(images)} samples"],
        )

    rise = (near.sum() - center) / 8 - center
    rows = [
        {"alpha": alpha, "beta": beta, "loss": losses[row, column].item()}
        for row, beta in enumerate(shares)
        for column, alpha in enumerate(shares)
    ]
    numbers = {"loss": center, "rise": rise, "distance": step, "least": losses.min(), "samples": len(images)}
    return Output("loss_landscape", pictures(), numbers, {"landscape": rows}, {"grid": {"losses": losses}})


def landscape(study: ModelUnderStudy) -> Iterator[Output]:
    """The loss landscape, on as many samples as an analysis can afford.

    Args:
        study: a classifier of images, and samples of which the classes are known.
    """
    study.predictions()
    count = study.affordable(_POINTS**2, most=64, least=8)
    yield loss_landscape(study.first(count), points=_POINTS)


def _direction(weights: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """A random direction with the filters' norms; zero for vectors, which are biases or of normalization layers."""
    direction = {}
    for name, weight in weights.items():
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight)
        if weight.dim() < 2:
            direction[name] = torch.zeros_like(weight)
            continue
        norms = (part.flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1)) for part in (weight.detach(), noise))
        own, drawn = norms
        direction[name] = noise * (own / drawn.clamp_min(1e-12))
    return direction
