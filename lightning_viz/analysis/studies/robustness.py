"""Robustness: accuracy under attack, random directions, simple defenses, common corruptions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_viz.adversarial.gradient_attacks import pgd
from lightning_viz.adversarial.minimum_norm import deepfool
from lightning_viz.adversarial.norms import LossName, NormName, resolve_norm
from lightning_viz.adversarial.result import Attack
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.results import Output
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.page import Page
from lightning_viz.render.robustness import (
    corruption_sheet,
    corruption_table,
    defense_bars,
    epsilon_curves,
    sphere_plot,
)
from lightning_viz.render.text import number as format_number
from lightning_viz.robustness.corruption_error import CorruptionError, compare_corruption_error
from lightning_viz.robustness.corruptions import SEVERITIES, all_corruptions
from lightning_viz.robustness.defenses import DEFENSES, defenses, epsilon_curve
from lightning_viz.robustness.random_directions import random_directions

_EPSILONS = tuple(levels / 255 for levels in (0, 1, 2, 4, 8, 16, 32))
_FIRST, _LAST = 1 / 512, 0.5  # of the epsilons of an analysis, in the pixels' range; each is twice the one before
_ENOUGH = 0.1  # of accuracy: an analysis shows no larger epsilon
_SMALL = 0.06  # of the pixels' range: epsilons below that are written as gray levels
_TIMES = 2  # as far as DeepFool went, in which random directions are tried
_PIXELS = 2**19  # of all images that an analysis corrupts: 128 of 64 x 64


def accuracy_curve(
    study: ModelUnderStudy,
    *,
    epsilons: Sequence[float] = _EPSILONS,
    norm: NormName = "linf",
    steps: int = 10,
    restarts: int = 1,
    loss: LossName = "cross_entropy",
    stop_below: float = 0.0,
    batch_size: int | None = None,
) -> Output:
    """Accuracy under attack: the share of samples that stay correct under PGD, against epsilon.

    Args:
        study: a classifier of images within the range of pixels.
        epsilons: how far pixels in [0, 1] may change.
        norm: in which epsilon is measured.
        steps: of PGD for each epsilon.
        restarts: random starts; samples that are not fooled start again.
        loss: maximized by PGD; the margin does not saturate if the model is confident.
        stop_below: show no epsilon beyond the first that leaves less accuracy than this.
        batch_size: samples attacked at a time; chosen by their size if omitted.

    Raises:
        UnsuitableModelError: the model is not a classifier, or the images are not pixels.
    """
    images, labels = study.bounded_images(), study.true_or_predicted_classes()
    attack = _pgd(study, images, batch_size, norm=norm, steps=steps, restarts=restarts, loss=loss)
    curve = epsilon_curve(study.model, images, labels, epsilons, attack=attack, progress=study.progress)
    low_enough = (curve.accuracy < stop_below).nonzero().flatten().tolist()
    kept = max(2, low_enough[0] + 1) if low_enough else len(curve.epsilons)
    shown, accuracy = curve.epsilons[:kept], curve.accuracy[:kept]
    low, high = study.pixel_space.bounds

    def pictures() -> Iterator[Page]:
        counted = "" if study.labels is not None else "a sample's own prediction counts as correct"
        yield epsilon_curves(
            "robustness/epsilon",
            {study.name: ((shown / (high - low)).numpy(), accuracy.numpy())},
            norm=resolve_norm(norm).name,
            gray_levels=bool(shown[-1] < _SMALL * (high - low)),
            step=study.step,
            details=[f"PGD, {steps} steps, on {len(images)} samples", counted],
        )

    pairs = zip(shown.tolist(), accuracy.tolist(), strict=True)
    tables = {
        "curve": [{"epsilon": epsilon, "accuracy": share} for epsilon, share in pairs],
        "samples": study.sample_rows({"fooled_at": curve.fooled_at}),
    }
    return Output("epsilon", pictures(), {"epsilons": shown, "accuracy": accuracy}, tables)


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
    space, size = study.pixel_space, study.batch_size(batch_size)
    if radius is None:
        attacked = deepfool(
            study.model, images, steps=steps, pixel_space=space, batch_size=size, progress=study.progress
        )
        lengths = _TIMES * attacked.record.l2[-1].cpu()
    else:
        lengths = torch.full((len(images),), float(radius))
    result = random_directions(
        study.model, images, lengths, directions, pixel_space=space, seed=study.seed, batch_size=size,
        progress=study.progress,
    )  # fmt: skip
    changed, moved = result.changed.cpu(), lengths > 0
    low, high = space.bounds

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
    return Output(
        "random_directions", pictures(), numbers, {"samples": rows}, {"directions": {"counts": result.counts}}
    )


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
    unknown = [name for name in ways if name not in DEFENSES]
    if unknown:
        raise InvalidArgumentError(f"there is no defense {unknown[0]!r}: {', '.join(map(repr, DEFENSES))}")
    images, labels = study.bounded_images(), study.true_or_predicted_classes()
    attack = _pgd(study, images, batch_size, norm=norm, steps=steps, restarts=restarts, loss=loss)
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

    triples = list(zip(result.names, result.clean.tolist(), result.attacked.tolist(), strict=True))
    numbers = {
        "epsilon": epsilon,
        "accuracy": {name: {"clean": clean, "attacked": left} for name, clean, left in triples},
    }
    rows = [{"defense": name, "clean": clean, "attacked": left} for name, clean, left in triples]
    return Output("defenses", pictures(), numbers, {"ways": rows})


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
            snow, frost, fog, brightness, contrast, elastic_transform, pixelate, jpeg_compression; all if omitted.
        severities: of each, from 1 to 5.
        reference: folder of this command's results for another model on the same data, to which errors are relative.
        batch_size: images corrupted at a time; chosen by their size if omitted.

    Raises:
        InvalidArgumentError: there is no such kind or severity, or the folder holds no such results.
        UnsuitableModelError: the model is not a classifier, the images are not pixels, or there are no labels.
    """
    known = None if reference is None else _reference(Path(reference))
    images, labels = study.bounded_images(), study.true_classes()
    errors = compare_corruption_error(
        {study.name: study.model}, (images, labels), reference=known or study.name, kinds=kinds, severities=severities,
        pixel_space=study.pixel_space, seed=study.seed, batch_size=study.batch_size(batch_size),
        progress=study.progress,
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
        yield corruption_table(
            "corruptions/table",
            errors.errors.numpy(),
            kinds=errors.kinds,
            severities=errors.severities,
            clean=errors.clean,
            name=errors.name,
            details=[f"on {errors.count} samples"],
            **ratios,
        )
        yield _corrupted_image(study, images[:1], errors)

    rows = [
        {"corruption": kind, "severity": severity, "error": error}
        for kind, of_kind in zip(errors.kinds, errors.errors.tolist(), strict=True)
        for severity, error in zip(errors.severities, of_kind, strict=True)
    ]
    return Output("corruptions", pictures(), numbers, {"corruptions": rows})


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


def epsilons(study: ModelUnderStudy) -> Iterator[Output]:
    """Robustness as an analysis measures it: accuracy under attack, random directions, simple defenses.

    Args:
        study: a classifier of images within the range of pixels.
    """
    low, high = study.pixel_space.bounds
    rising = [0.0]
    while (following := max(_FIRST, 2 * rising[-1])) <= _LAST:
        rising.append(following)
    study.bounded_images()
    many = study.first(study.affordable(400, most=128, least=8))
    curve = accuracy_curve(many, epsilons=[share * (high - low) for share in rising], stop_below=_ENOUGH)
    yield curve
    few = study.first(study.affordable(500, most=16, least=4))
    yield changed_by_chance(few, directions=few.affordable(len(few.samples), most=1000, least=100))
    accuracy, tried = curve.numbers["accuracy"], curve.numbers["epsilons"]
    halved = (accuracy <= accuracy[0] / 2).nonzero().flatten().tolist()
    yield defended_accuracy(many, epsilon=float(tried[max(1, halved[0]) if halved else -1]))


def corruptions(study: ModelUnderStudy) -> Iterator[Output]:
    """Common corruptions as an analysis measures them.

    Args:
        study: a classifier of images within the range of pixels, and labels.
    """
    height, width = study.bounded_images().shape[2:]
    # Not by what the model costs: models compare only on the same samples.
    yield corruption_errors(study.first(max(32, min(128, _PIXELS // (height * width)))))


def _pgd(study: ModelUnderStudy, images: Tensor, batch_size: int | None, **options: Any) -> Attack:
    size = study.batch_size(batch_size)
    return partial(
        pgd, **options, pixel_space=study.pixel_space, seed=study.seed, batch_size=size, progress=study.progress
    )


def _corrupted_image(study: ModelUnderStudy, image: Tensor, errors: CorruptionError) -> Page:
    """One image ``[1, C, H, W]`` under every corruption."""
    table: dict[str, Any] = {"kinds": errors.kinds, "severities": errors.severities}
    corrupted = all_corruptions(image, **table, pixel_space=study.pixel_space, seed=study.seed)
    tiles = study.rgb(torch.cat([corruption.inputs for corruption in corrupted]))
    tiles = tiles.reshape(len(errors.kinds), len(errors.severities), *tiles.shape[1:])
    return corruption_sheet("corruptions/sheet", study.rgb(image)[0], tiles, **table)


def _reference(path: Path) -> CorruptionError:
    """The results of this command for another model."""
    try:
        content = json.loads((path / "numbers.json" if path.is_dir() else path).read_text("utf-8"))
        name, numbers = content["model"], content["numbers"]
        return recorded_corruption_error(numbers, name, numbers, name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgumentError(
            f"reference={path}: this is not a numbers.json of robustness corruptions, or its folder"
        ) from error
