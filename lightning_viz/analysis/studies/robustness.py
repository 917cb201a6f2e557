"""Robustness: accuracy under attack, random directions, simple defenses, common corruptions, the loss landscape."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from lightning_viz.adversarial.gradient_attacks import pgd
from lightning_viz.adversarial.minimum_norm import deepfool
from lightning_viz.adversarial.norms import LossName, NormName
from lightning_viz.adversarial.result import Attack
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.results import Output, numbers_of, rows_of
from lightning_viz.analysis.studies.attacked_accuracy import accuracy_curve, robust_accuracy
from lightning_viz.catalogue import method
from lightning_viz.costs import PASSES, Cost, Facts, costing
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hints import unknown_name
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.outputs import class_logits
from lightning_viz.hooks.pytree import part_at
from lightning_viz.render.page import Page
from lightning_viz.render.robustness import (
    corruption_sheet,
    corruption_table,
    defense_bars,
    sphere_plot,
)
from lightning_viz.render.text import fixed_point, percent
from lightning_viz.render.text import number as format_number
from lightning_viz.render.weights import landscape_table
from lightning_viz.robustness.corruption_error import CorruptionError, compare_corruption_error
from lightning_viz.robustness.corruptions import SEVERITIES, all_corruptions
from lightning_viz.robustness.defenses import DEFENSES, defenses
from lightning_viz.robustness.random_directions import random_directions

_RISING = (0.0, *(2**doublings / 512 for doublings in range(9)))  # epsilons of an analysis, in the pixels' range
_ENOUGH = 0.1  # of accuracy: an analysis shows no larger epsilon
_ENSEMBLE = 11_600  # passes of AutoAttack for a sample that nothing fools, a backward counted as two
_TIMES = 2  # as far as DeepFool went, in which random directions are tried


def changed_by_chance(
    study: ModelUnderStudy,
    *,
    radius: float | None = None,
    directions: int = 1000,
    steps: int = 50,
    batch_size: int | None = None,
) -> Output:
    """Random directions: the share of them that change the predicted class, at a given distance.

    Args:
        study: a classifier of images within the range of pixels.
        radius: the distance, in L2 and pixels; twice the length of DeepFool's perturbation if omitted.
        directions: tried around each sample.
        steps: of DeepFool, at most.
        batch_size: points shown at a time; chosen by their size if omitted.

    Raises:
        UnsuitableModelError: the model is not a classifier, or the images are not pixels.
    """
    images = study.bounded_images()
    size = study.batch_size(batch_size)
    if radius is None:
        attacked = deepfool(study.model, images, steps=steps, batch_size=size, **study.settings(deepfool))
        lengths = _TIMES * attacked.record.l2[-1].cpu()
    else:
        lengths = torch.full((len(images),), float(radius))
    settings = study.settings(random_directions)
    result = random_directions(study.model, images, lengths, directions, batch_size=size, **settings)
    changed, moved = result.changed.cpu(), lengths > 0
    low, high = study.pixel_space.bounds

    def pictures() -> Iterator[Page]:
        if bool(moved.any()):  # else DeepFool found no perturbation of which twice the length says something
            yield sphere_plot(
                "robustness/sphere",
                changed.numpy(),
                samples=directions,
                radii=(lengths / (high - low)).numpy(),
                times=_TIMES if radius is None else None,
                step=study.step,
            )

    numbers = {"changed": changed[moved].mean(), "radius": lengths[moved].median(), "points": directions}
    rows = study.sample_rows({"label": result.labels, "radius": lengths, "changed": changed})
    found = f"{percent(changed[moved].mean().item(), 1)} % of {directions} random directions change the prediction"
    arrays = {"directions": {"counts": result.counts}}
    return Output("random_directions", pictures(), numbers, {"samples": rows}, arrays, found)


def defended_accuracy(
    study: ModelUnderStudy,
    *,
    ways: Sequence[str] | None = None,
    epsilon: float = 8 / 255,
    norm: NormName = "linf",
    steps: int = 10,
    restarts: int = 1,
    loss: LossName = "cross_entropy",
    batch_size: int | None = None,
) -> Output:
    """Simple defenses: accuracy on samples and on their adversarial counterparts if the input is filtered first.

    Args:
        study: a classifier of images within the range of pixels.
        ways: some of 'none', 'noise 0.1', 'Gaussian 1 px', 'median 3 x 3', 'JPEG 75', 'JPEG 25', '3 bits'; all if
            omitted.
        epsilon: how far PGD may change pixels in [0, 1].
        norm: in which epsilon is measured.
        steps: of PGD.
        restarts: random starts; samples that are not fooled start again.
        loss: maximized by PGD; the margin does not saturate if the model is confident.
        batch_size: samples attacked at a time; chosen by their size if omitted.

    Raises:
        InvalidArgumentError: there is no such defense.
        UnsuitableModelError: the model is not a classifier, or the images are not pixels.
    """
    ways = list(DEFENSES) if ways is None else ways
    if words := unknown_name("defense", ways, DEFENSES):
        raise InvalidArgumentError(words)
    images, labels = study.bounded_images(), study.true_or_predicted_classes()
    attack = _pgd(study, batch_size, norm=norm, steps=steps, restarts=restarts, loss=loss)
    attacked = attack(study.model, images, labels, epsilon=epsilon)
    chosen = {name: DEFENSES[name] for name in ways}
    result = defenses(study.model, attacked, ways=chosen, batch_size=study.batch_size(batch_size))
    low, high = study.pixel_space.bounds

    def pictures() -> Iterator[Page]:
        yield defense_bars(
            "robustness/defenses",
            result.names,
            result.clean.numpy(),
            result.attacked.numpy(),
            attack=f"PGD, ε {format_number(epsilon / (high - low))}" + ", L2" * (norm == "l2"),
            details=[f"{len(images)} samples", "the attack did not know of it"],
        )

    measured = {"clean": result.clean.tolist(), "attacked": result.attacked.tolist()}
    accuracy = dict(zip(result.names, rows_of(measured), strict=True))
    rows = rows_of({"defense": result.names, **measured})
    best = max(range(len(ways)), key=measured["attacked"].__getitem__)
    found = f"under attack best: {result.names[best]}, accuracy {fixed_point(measured['attacked'][best])}"
    return Output("defenses", pictures(), {"epsilon": epsilon, "accuracy": accuracy}, {"ways": rows}, found=found)


def corruption_errors(
    study: ModelUnderStudy,
    *,
    kinds: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    reference: str | None = None,
    batch_size: int | None = None,
) -> Output:
    """Common corruptions: the error under noise, blur, weather and digital corruptions, by severity.

    Args:
        study: a classifier of images within the range of pixels, and labels.
        kinds: some of gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur,
            snow, frost, fog, brightness, contrast, elastic_transform, pixelate, jpeg_compression, or of the four
            further ones speckle_noise, gaussian_blur, spatter, saturate; the first fifteen if omitted.
        severities: of each, from 1 to 5.
        reference: folder of this command's results for another model on the same data, to which errors are relative.
        batch_size: images corrupted at a time; chosen by their size if omitted.

    Raises:
        InvalidArgumentError: there is no such kind or severity, or the folder holds no such results.
        UnsuitableModelError: the model is not a classifier, the images are not pixels, or there are no labels.
    """
    known = None if reference is None else numbers_of(Path(reference), "robustness corruptions", _measured)
    images, labels = study.bounded_images(), study.true_classes()
    errors = compare_corruption_error(
        {study.name: study.model}, (images, labels), reference=known or study.name, kinds=kinds, severities=severities,
        batch_size=study.batch_size(batch_size), **study.settings(compare_corruption_error),
    )[study.name]  # fmt: skip
    numbers: dict[str, Any] = {
        "clean": errors.clean,
        "mean": errors.errors.mean(),
        "kinds": dict(zip(errors.kinds, errors.errors.mean(1).tolist(), strict=True)),
        "errors": dict(zip(errors.kinds, errors.errors.tolist(), strict=True)),
        "severities": errors.severities,
        "count": errors.count,
    }
    ratios: dict[str, Any] = {}
    if known is not None:
        ratios = {"ratios": {errors.name: errors.ce.tolist()}, "reference": errors.reference_name}
        numbers["reference"] = {
            "name": errors.reference_name,
            "ce": dict(zip(errors.kinds, errors.ce.tolist(), strict=True)),
            "mce": errors.mce,
            "relative_mce": errors.relative_mce,
        }

    def pictures() -> Iterator[Page]:
        yield corruption_page("corruptions/table", errors, details=[f"on {errors.count} samples"], **ratios)
        if not study.private:
            yield _corrupted_image(study, images[:1], errors)

    rows = [
        {"corruption": kind, "severity": severity, "error": error}
        for kind, of_kind in zip(errors.kinds, errors.errors.tolist(), strict=True)
        for severity, error in zip(errors.severities, of_kind, strict=True)
    ]
    worst = max(numbers["kinds"], key=numbers["kinds"].__getitem__)
    clean, corrupted = fixed_point(float(errors.clean)), fixed_point(float(errors.errors.mean()))
    found = f"error {clean}, {corrupted} under corruptions; worst {worst}"
    return Output("corruptions", pictures(), numbers, {"corruptions": rows}, found=found)


def recorded_corruption_error(
    numbers: Mapping[str, Any], name: str, reference: Mapping[str, Any], reference_name: str
) -> CorruptionError:
    """A corruption error from the numbers of `corruption_errors`, for the kinds that both models have.

    Args:
        numbers: of the model.
        name: of the model.
        reference: numbers of the model to which errors are relative.
        reference_name: of that model.
    """
    kinds = tuple(kind for kind in numbers["errors"] if kind in reference["errors"])
    errors, others = (
        torch.tensor([of["errors"][kind] for kind in kinds], dtype=torch.float64) for of in (numbers, reference)
    )
    clean, count = float(numbers["clean"]), int(numbers["count"])
    severities = tuple(numbers["severities"])
    return CorruptionError(
        name, kinds, severities, count, clean, errors, reference_name, float(reference["clean"]), others
    )


def _measured(name: str, numbers: Mapping[str, Any]) -> CorruptionError:
    return recorded_corruption_error(numbers, name, numbers, name)


def corruption_page(tag: str, errors: CorruptionError, **options: Any) -> Page:
    """One model's errors as a `corruption_table`, which takes the options."""
    about: dict[str, Any] = {name: getattr(errors, name) for name in ("kinds", "severities", "clean", "name")}
    return corruption_table(tag, errors.errors.numpy(), **about, **options)


def _epsilons_cost(facts: Facts, *, samples: int, ensemble: int, around: int, directions: int, steps: int) -> Cost:
    many, few = min(samples, facts.samples), min(around, facts.samples)
    attacked = PASSES * steps * len(_RISING) + 2 * len(DEFENSES)
    around_each = method("deepfool").passes() + directions
    return Cost(many * attacked + _ENSEMBLE * min(ensemble, facts.samples) + few * around_each, pages=4)


@costing(_epsilons_cost)
def epsilons(
    study: ModelUnderStudy,
    *,
    samples: int = 128,
    ensemble: int = 16,
    around: int = 16,
    directions: int = 1000,
    steps: int = 10,
) -> Iterator[Output]:
    """Robustness as an analysis measures it: under PGD and AutoAttack, random directions, simple defenses."""
    low, high = study.pixel_space.bounds
    study.bounded_images()
    many = study.first(samples)
    rising = [share * (high - low) for share in _RISING]
    curve = accuracy_curve(many, epsilons=rising, steps=steps, stop_below=_ENOUGH)
    yield curve
    if ensemble:
        yield robust_accuracy(study.first(ensemble), epsilon=8 / 255 * (high - low))
    yield changed_by_chance(study.first(around), directions=directions)
    accuracy, tried = curve.numbers["accuracy"], curve.numbers["epsilons"]
    halved = (accuracy <= accuracy[0] / 2).nonzero().flatten().tolist()
    yield defended_accuracy(many, epsilon=float(tried[max(1, halved[0]) if halved else -1]), steps=steps)


def _corruptions_cost(facts: Facts, *, samples: int) -> Cost:
    corrupted = method("corruptions").passes() * (min(samples, facts.samples) if facts.labeled else 0)
    return Cost(corrupted, images=corrupted, pages=2)


@costing(_corruptions_cost)
def corruptions(study: ModelUnderStudy, *, samples: int = 128) -> Iterator[Output]:
    """Common corruptions as an analysis measures them, on samples of which the classes are known."""
    study.bounded_images()
    yield corruption_errors(study.first(samples))


def _pgd(study: ModelUnderStudy, batch_size: int | None, **options: Any) -> Attack:
    return partial(pgd, **options, batch_size=study.batch_size(batch_size), **study.settings(pgd))


def _corrupted_image(study: ModelUnderStudy, image: Tensor, errors: CorruptionError) -> Page:
    """One image ``[1, C, H, W]`` under every corruption."""
    table: dict[str, Any] = {"kinds": errors.kinds, "severities": errors.severities}
    corrupted = all_corruptions(image, **table, pixel_space=study.pixel_space, seed=study.seed)
    tiles = study.rgb(torch.cat([corruption.inputs for corruption in corrupted]))
    tiles = tiles.reshape(len(errors.kinds), len(errors.severities), *tiles.shape[1:])
    return corruption_sheet("corruptions/sheet", study.rgb(image)[0], tiles, **table)


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
    places = list(itertools.product(shares, shares))
    values = []
    batches = torch.split(torch.arange(len(images)), study.batch_size(batch_size))
    meaning = study.meaning
    bar = progress_bar("loss landscape", shown=study.progress, total=points**2)
    with evaluation_mode(study.model), torch.no_grad():
        for beta, alpha in places:
            moved = {name: weight + alpha * first[name] + beta * second[name] for name, weight in weights.items()}
            total = 0.0
            for batch in batches:
                outputs = functional_call(study.model, moved, (images[batch],))
                scores = class_logits(part_at(outputs, meaning.path), meaning)
                total += float(F.cross_entropy(scores.double(), labels[batch], reduction="sum"))
            values.append(total / len(images))
            bar.update()
    bar.close()
    losses = torch.tensor(values, dtype=torch.float64).view(points, points)
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
    betas, alphas = zip(*places, strict=True)
    rows = rows_of({"alpha": alphas, "beta": betas, "loss": values})
    numbers = {"loss": center, "rise": rise, "distance": step, "least": losses.min(), "samples": len(images)}
    change = "+" * bool(rise >= 0) + format_number(float(rise))
    found = f"loss {format_number(float(center))} at the trained weights, {change} at distance {format_number(step, 2)}"
    found += " from them"
    return Output("loss_landscape", pictures(), numbers, {"landscape": rows}, {"grid": {"losses": losses}}, found)


def _landscape_cost(facts: Facts, *, samples: int, points: int) -> Cost:
    return Cost(points**2 * min(samples, facts.samples) if facts.labeled else 0.0, pages=1)


@costing(_landscape_cost)
def landscape(study: ModelUnderStudy, *, samples: int = 64, points: int = 9) -> Iterator[Output]:
    """The loss landscape of a classifier, on samples with labels."""
    study.predictions()
    yield loss_landscape(study.first(samples), points=points)


def _direction(weights: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """A random direction with the filters' norms; zero for vectors, which are biases or of normalization layers."""
    direction = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for name, weight in weights.items():
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight)
        if weight.dim() > 1:
            parts = (weight.detach(), noise)
            own, drawn = (part.flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1)) for part in parts)
            direction[name] = noise * (own / drawn.clamp_min(1e-12))
    return direction
